#!/usr/bin/env python3
"""Writes tokenizer.json and vectors.jsonl of this folder: a small tokenizer of the Qwen2 form,
trained here, and what the reference implementation makes of a list of texts.

Run with tokenizers==0.22.2:  python make.py
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

FOLDER = pathlib.Path(__file__).parent
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's what they've said, and we'll see.",
    "Hello, hello world! A model that answers questions is a helpful assistant.\n\nuser\nsystem\n",
    "for (int i = 0; i < 10; ++i) {\n    total += values[i];\n}\n\nreturn total;\n",
    "中文分词和日本語の文字と한국어 문장. Ça va très bien, où est l'été? Größe über alles.",
    "Привет, как дела? Γειά σου κόσμε. 12345 67890 3.14159 1,000,000",
    "😀😀 👍🏽 👨‍👩‍👧 🇩🇪 — “quoted” … ‘single’",
]
ADDED = [
    AddedToken("<left>", lstrip=True, normalized=False),
    AddedToken("<right>", rstrip=True, normalized=False),
    AddedToken("whole", single_word=True, normalized=False),
    AddedToken("café", normalized=True),
    AddedToken("<mark>", normalized=False),
    AddedToken("<mark>er", normalized=False),
]
FRAGMENTS = [
    "<left>", "<right>", "whole", "café", "cafe\u0301", "<mark>", "<mark>er", "<|im_start|>",
    "<|im_end|>", "<|endoftext|>", "<|im_", "It's", "I'\u017f", "'LL", "x'\u212a", "hello", " world", "total",
    "123", "٣٤", "½", "中文", "日本語", "각", "\u1100\u1161\u11a8", "e\u0301", "\u0323\u0301",
    "\u0301\u0323", "\u212b", "\ufb01", "😀", "👨‍👩‍👧", "\r\n", "\n\n", "\n \n", "  ", "   x", "\t", "\u0085",
    "\u00a0", "\u180e", "\u200b", "\u2028", "\u3000", "\x00", "\x1c", "\ufffd", "!!!", "->", "{\n", "नमस्ते", "ไทย",
]


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(ADDED)
    return tokenizer


def texts():
    choice = random.Random(20240607)
    yield from CORPUS
    yield from FRAGMENTS
    for _ in range(200):
        yield "".join(choice.choice(FRAGMENTS) for _ in range(choice.randrange(2, 9)))


def main():
    tokenizer = train()
    tokenizer.save(str(FOLDER / "tokenizer.json"), pretty=False)
    with open(FOLDER / "vectors.jsonl", "w", encoding="utf-8") as out:
        for text in dict.fromkeys(texts()):
            ids = tokenizer.encode(text).ids
            # Its decoder takes the "é" of an added token for a byte; those vectors have no text.
            vector = {"text": text, "ids": ids}
            if "caf" not in text:
                vector["decoded"] = tokenizer.decode(ids, skip_special_tokens=False)
                vector["without_special"] = tokenizer.decode(ids, skip_special_tokens=True)
            out.write(json.dumps(vector) + "\n")


if __name__ == "__main__":
    main()
