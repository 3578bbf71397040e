#!/usr/bin/env python3
"""Writes a checkpoint of the Qwen2-0.5B shape (or of another config.json) with random bf16 weights.

DIRECTORY gets config.json, generation_config.json, model.safetensors and the tokenizer's files, as Hugging Face
lays them out; --gguf FILE gets the same weights in llama.cpp's format (needs the Python package `gguf`). Speed
does not depend on the values, so this stands in for weights that cannot be shipped. Needs numpy.

The values keep every activation near one, so that bf16 rounds as it does in a trained model, and logits far
enough apart that two implementations choose the same greedy tokens most of the time.
"""

import argparse
import json
import math
import pathlib
import shutil
import struct
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from make_tiny_checkpoint import model_tensors  # noqa: E402  (the tests' checkpoint has the same tensors)

QWEN2_HALF_BILLION = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
    "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2",
    "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "use_cache": True, "use_sliding_window": False, "vocab_size": 151936,
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
GGUF_LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
GGUF_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def to_bf16(values):
    """Rounds float32 to the nearest bf16, ties to even; returns the upper 16 bits."""
    bits = values.view(numpy.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits >> 16).astype(numpy.uint16)


def tensor_values(seed, index, name, shape):
    """The bf16 bits of one tensor; each has a generator of its own, so that both files can be streamed."""
    generator = numpy.random.Generator(numpy.random.SFC64([seed, index]))
    values = generator.standard_normal(math.prod(shape), dtype=numpy.float32)
    if "norm" in name:
        values = values * numpy.float32(0.1) + numpy.float32(1)
    elif name.endswith("bias"):
        values *= numpy.float32(0.5)
    elif "embed" in name or "lm_head" in name:
        values *= numpy.float32(0.05)
    else:
        values *= numpy.float32(1 / math.sqrt(shape[-1]))
    return to_bf16(values).reshape(shape)


def write_safetensors(path, config, seed):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in model_tensors(config):
        size = math.prod(shape) * 2
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for index, (name, shape) in enumerate(model_tensors(config)):
            tensor_values(seed, index, name, shape).astype("<u2", copy=False).tofile(file)


def gguf_name(name):
    base, kind = name.rsplit(".", 1)
    if base.startswith("model.layers."):
        _, _, layer, part = base.split(".", 3)
        return f"blk.{layer}.{GGUF_LAYER_NAMES[part]}.{kind}"
    return f"{GGUF_NAMES[base]}.{kind}"


def add_gguf_vocabulary(writer, config, tokenizer):
    """Every id needs a token there: ids without one in tokenizer.json become unused ones."""
    import gguf
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    tokens = {index: token for token, index in tokenizer["model"]["vocab"].items()} | special
    count = config["vocab_size"]
    kinds = [gguf.TokenType.CONTROL if index in special else
             gguf.TokenType.NORMAL if index in tokens else gguf.TokenType.UNUSED for index in range(count)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens.get(index, f"[PAD{index}]") for index in range(count)])
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_add_bos_token(False)


def write_gguf(path, config, seed, tokenizer):
    """BF16 matrices and F32 vectors, which is how llama.cpp's own converter writes a bf16 file."""
    import gguf
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("random weights")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    add_gguf_vocabulary(writer, config, tokenizer)
    for name, shape in model_tensors(config):
        if len(shape) == 1:
            writer.add_tensor_info(gguf_name(name), shape, numpy.dtype(numpy.float32), math.prod(shape) * 4)
        else:
            writer.add_tensor_info(gguf_name(name), shape, numpy.dtype(numpy.float16), math.prod(shape) * 2,
                                   raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for index, (name, shape) in enumerate(model_tensors(config)):
        bits = tensor_values(seed, index, name, shape)
        writer.write_tensor_data((bits.astype(numpy.uint32) << 16).view(numpy.float32) if len(shape) == 1 else bits)
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True,
                        help="directory with the Qwen2 tokenizer.json, which is copied")
    parser.add_argument("--gguf", type=pathlib.Path, help="also write this GGUF file")
    parser.add_argument("--config", type=pathlib.Path, help="config.json of another dense Qwen2 shape")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    config = QWEN2_HALF_BILLION
    if options.config:
        config = json.loads(options.config.read_text(encoding="utf-8"))
    options.directory.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", config), ("generation_config.json",
                                                    {"do_sample": False, "eos_token_id": [config["eos_token_id"]]})):
        (options.directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (options.tokenizer / name).exists():
            shutil.copyfile(options.tokenizer / name, options.directory / name)
    write_safetensors(options.directory / "model.safetensors", config, options.seed)
    if options.gguf:
        tokenizer = json.loads((options.tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
        write_gguf(options.gguf, config, options.seed, tokenizer)


if __name__ == "__main__":
    main()
