"""The pocket tokenizer: byte-level BPE of 2,048 entries in the layout of Qwen2's tokenizer.json."""

import json

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from facts import GENERAL
from tasks import COPY_FRAMES, KEY_INTRODUCTIONS, KEY_QUESTIONS, KEY_STATEMENTS, SYSTEMS, sample_texts
from words import FILLER, NAMES, WORDS

ENTRIES = 2048
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Qwen2's own: one number character a token, so that digits never merge.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def byte_alphabet():
    """The characters that stand for bytes, in the order of Qwen2's first 256 ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printable))
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def corpus():
    """Words come with and without a leading space, so that either spelling is one token."""
    yield from sample_texts(seed=1, count=8000)
    words = WORDS + NAMES + [word.capitalize() for word in WORDS]
    for word in words:
        times = 60 if word.islower() else 10
        for _ in range(times):
            yield word
            yield " " + word
    for text in [*FILLER, *COPY_FRAMES, *KEY_INTRODUCTIONS, *KEY_QUESTIONS, *KEY_STATEMENTS, *SYSTEMS,
                 *[entry[0] for entry in GENERAL], "system", "user", "assistant"]:
        for _ in range(200):
            yield text


def pre_tokenizer():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])


def train_merges(count):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=256 + count, initial_alphabet=byte_alphabet(),
                                  show_progress=False, min_frequency=2)
    tokenizer.train_from_iterator(corpus(), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    assert len(merges) == count, f"the corpus gives {len(merges)} merges of {count}"
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def tokenizer_json():
    """Ids as Qwen2's: the bytes, then merge n as 256 + n, then the special tokens."""
    merges = train_merges(ENTRIES - 256 - len(SPECIAL_TOKENS))
    tokens = byte_alphabet() + [merge.replace(" ", "") for merge in merges]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": len(tokens) + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for i, content in enumerate(SPECIAL_TOKENS)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                  "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges}}


def tokenizer_config(ids):
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(ids[content]): {
            "content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True} for content in SPECIAL_TOKENS},
        "additional_special_tokens": SPECIAL_TOKENS[1:], "bos_token": None, "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 512, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}
