#!/usr/bin/env python3
"""Writes a tiny Qwen2ForCausalLM checkpoint directory, as Hugging Face transformers lays one out.

The weights are random (seeded), so a server of it generates word salad; what it is for is to try
every part of Cohort in seconds. Needs nothing but Python's standard library. The tokenizer is
byte-level BPE trained on the few sentences below, with the three special tokens of Qwen2.
"""

import argparse
import array
import json
import math
import os
import random
import re
import struct
import sys

TEXT = """
Cohort serves the Qwen2 family on many devices and many nodes. A launcher cuts the checkpoint into
slices, every rank keeps its own slice, and a coordinator without a device writes one plan for each
step. The ranks compute the plan together, add their partial sums in rank order, and send the tokens
back. A request that is cancelled gives its blocks back at once. When a rank is lost, the group comes
back in a new epoch and the ranks that live keep their weights. The same seed gives the same tokens,
whatever the batch and whatever the number of ranks. The weather was good, the train was on time, and
the people in the small town by the river were happy to see their friends again after a long winter.
She opened the window, looked at the green hills and the old stone bridge, and began to write a letter.
"""

# The pre-tokenisation pattern of Qwen2's tokenizer.json.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_characters():
    """The printable character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in printable}
    for offset, byte in enumerate(sorted(set(range(256)) - set(printable))):
        characters[byte] = chr(256 + offset)
    order = printable + sorted(set(range(256)) - set(printable))
    return characters, order


def train_merges(words, count):
    """Byte-pair merges, most frequent pair first (ties: the smaller pair)."""
    merges = []
    words = [(list(word), times) for word, times in sorted(words.items())]
    while len(merges) < count:
        pairs = {}
        for symbols, times in words:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] = pairs.get(pair, 0) + times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [(merge_symbols(symbols, best), times) for symbols, times in words]
    return merges


def merge_symbols(symbols, pair):
    merged, index = [], 0
    while index < len(symbols):
        if tuple(symbols[index:index + 2]) == pair:
            merged.append(symbols[index] + symbols[index + 1])
            index += 2
        else:
            merged.append(symbols[index])
            index += 1
    return merged


def make_tokenizer(merge_count):
    characters, order = byte_characters()
    words = {}
    for piece in re.findall(r" ?[A-Za-z]+|[^A-Za-z\s]|\s+", " ".join(TEXT.split())):
        key = "".join(characters[byte] for byte in piece.encode())
        words[key] = words.get(key, 0) + 1
    merges = train_merges(words, merge_count)
    tokens = [characters[byte] for byte in order]
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": len(tokens) + index, "content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True}
            for index, content in enumerate(SPECIAL_TOKENS)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                  "vocab": vocabulary, "merges": [f"{left} {right}" for left, right in merges]},
    }


def model_tensors(config):
    """Name and shape of every tensor, [out, in] for matrices."""
    hidden, columns = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    query, key = hidden, head * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        yield name + "input_layernorm.weight", [hidden]
        for projection, rows in (("q", query), ("k", key), ("v", key)):
            yield name + f"self_attn.{projection}_proj.weight", [rows, hidden]
            yield name + f"self_attn.{projection}_proj.bias", [rows]
        yield name + "self_attn.o_proj.weight", [hidden, query]
        yield name + "post_attention_layernorm.weight", [hidden]
        yield name + "mlp.gate_proj.weight", [columns, hidden]
        yield name + "mlp.up_proj.weight", [columns, hidden]
        yield name + "mlp.down_proj.weight", [hidden, columns]
    yield "model.norm.weight", [hidden]
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", [config["vocab_size"], hidden]


def tensor_values(name, shape, generator):
    count = math.prod(shape)
    if name == "lm_head.weight":
        # The first 256 ids are single bytes; quieter rows let whole words win, so that text is legible.
        rows = ((0.1 if row < 256 else 1.0) / math.sqrt(shape[1]) * 3 for row in range(shape[0]))
        return array.array("f", [scale * generator.gauss(0, 1) for scale in rows for _ in range(shape[1])])
    if "norm" in name:
        return array.array("f", [1.0 + 0.1 * generator.gauss(0, 1) for _ in range(count)])
    scale = 0.5 if name.endswith("bias") or "embed" in name else 1.5 / math.sqrt(shape[-1])
    return array.array("f", [scale * generator.gauss(0, 1) for _ in range(count)])


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, values) in tensors.items():
        size = len(values) * 4
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            if sys.byteorder == "big":
                values.byteswap()
            file.write(values.tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--query-heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=16)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--ffn-columns", type=int, default=176)
    parser.add_argument("--max-positions", type=int, default=2048)
    parser.add_argument("--tied", action="store_true", help="the head reads the embedding's rows")
    parser.add_argument("--no-tokenizer", action="store_true", help="token ids only")
    options = parser.parse_args()

    tokenizer = make_tokenizer(merge_count=700)
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocabulary = max(ids.values()) + 1
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": options.query_heads * options.head_dim,
        "initializer_range": 0.02,
        "intermediate_size": options.ffn_columns,
        "max_position_embeddings": options.max_positions,
        "max_window_layers": options.layers,
        "model_type": "qwen2",
        "num_attention_heads": options.query_heads,
        "num_hidden_layers": options.layers,
        "num_key_value_heads": options.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": options.max_positions,
        "tie_word_embeddings": options.tied,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": -(-vocabulary // 64) * 64,  # padded, as the published models are
    }
    generation = {"bos_token_id": ids["<|endoftext|>"], "do_sample": False,
                  "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]]}

    os.makedirs(options.directory, exist_ok=True)
    files = {"config.json": config, "generation_config.json": generation}
    if not options.no_tokenizer:
        files["tokenizer.json"] = tokenizer
    for name, content in files.items():
        with open(os.path.join(options.directory, name), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
    generator = random.Random(options.seed)
    tensors = {name: (shape, tensor_values(name, shape, generator))
               for name, shape in model_tensors(config)}
    write_safetensors(os.path.join(options.directory, "model.safetensors"), tensors)


if __name__ == "__main__":
    main()
