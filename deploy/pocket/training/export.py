#!/usr/bin/env python3
"""Writes the checkpoint directory from the state of train.py, and its hashes.

    python deploy/pocket/training/export.py --work build/pocket-training --out deploy/pocket
"""

import argparse
import hashlib
import json
import os
import shutil

import torch
from safetensors.torch import save_file

from model import CONFIG, MOE_CONFIG
from tokenizer import tokenizer_config

FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
MOST_BYTES = 6_000_000


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def averaged(state, other, share):
    """Weights between those of two states of one run: often right where either of them is."""
    return {name: (1 - share) * tensor + share * other[name] for name, tensor in state.items()}


def export(work, out, average=None, share=0.0):
    os.makedirs(out, exist_ok=True)
    state = torch.load(os.path.join(work, "state.pt"), weights_only=True)["model"]
    if average:
        state = averaged(state, torch.load(average, weights_only=True)["model"], share)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(state.items())}
    weights = os.path.join(out, "model.safetensors")
    save_file(tensors, weights, metadata={"format": "pt"})
    os.chmod(weights, 0o644)  # save_file leaves it to the owner alone
    shutil.copy(os.path.join(work, "tokenizer.json"), os.path.join(out, "tokenizer.json"))
    with open(os.path.join(out, "tokenizer.json"), encoding="utf-8") as file:
        ids = {token["content"]: token["id"] for token in json.load(file)["added_tokens"]}
    write_json(os.path.join(out, "config.json"), MOE_CONFIG if any(".mlp.gate." in name for name in state) else CONFIG)
    write_json(os.path.join(out, "generation_config.json"), {
        "bos_token_id": ids["<|endoftext|>"], "do_sample": False,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "pad_token_id": ids["<|endoftext|>"],
        "transformers_version": CONFIG["transformers_version"]})
    write_json(os.path.join(out, "tokenizer_config.json"), tokenizer_config(ids))
    assert (ids["<|endoftext|>"], ids["<|im_end|>"]) == (CONFIG["bos_token_id"], CONFIG["eos_token_id"])


def write_hashes(out):
    total = 0
    with open(os.path.join(out, "SHA256SUMS"), "w", encoding="ascii") as sums:
        for name in FILES:
            with open(os.path.join(out, name), "rb") as file:
                data = file.read()
            total += len(data)
            sums.write(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    assert total <= MOST_BYTES, f"{total} bytes are more than {MOST_BYTES}"
    print(f"{out}: {total} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="build/pocket-training", help="where train.py keeps its state")
    parser.add_argument("--out", default="deploy/pocket")
    parser.add_argument("--average", metavar="STATE", help="an earlier state.pt that gets --share of the average")
    parser.add_argument("--share", type=float, default=0.3)
    options = parser.parse_args()
    export(options.work, options.out, options.average, options.share)
    write_hashes(options.out)


if __name__ == "__main__":
    main()
