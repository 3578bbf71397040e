#!/usr/bin/env python3
"""Writes the golden checkpoints whose prompts are longer than what the model was "trained" on.

    /tmp/golden/bin/python tests/golden/make_long_context_golden.py    (the environment of make_golden.py)

Folders and golden.json are as make_golden.py describes them. YaRN is transformers' own. Dual chunk attention, which
transformers does not have, is dual_chunk_reference.py in place of its attention.
"""

import json
import shutil

import torch
from transformers import Qwen2ForCausalLM

from dual_chunk_reference import DualChunks
from make_golden import (FOLDER, GREEDY_TOKENS, check_versions, log_probabilities, make_golden, make_model, of_next_ids,
                         rounded, write_sums)

YARN = {
    # 32 positions become 128; keys as the cards of Qwen2 ask users to add them.
    "yarn": dict(heads=4, kv_heads=2, head_dim=12, hidden=48, ffn=37, layers=3, vocabulary=101, tied=True, overrides={
        "max_position_embeddings": 32, "rope_theta": 1e4,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}),
    # 24 become 96, whatever max_position_embeddings says; keys as transformers 5 writes them.
    "yarn-other-original": dict(
        heads=3, kv_heads=1, head_dim=16, hidden=48, ffn=50, layers=2, vocabulary=97, tied=False, overrides={
            "max_position_embeddings": 200, "rope_theta": 1e4,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24,
                             "beta_fast": 3.0, "beta_slow": 0.5, "attention_factor": 1.3, "truncate": False}}),
}
YARN_LENGTHS = (17, 32, 33, 80)
# A prompt within a chunk of 8, others over up to nine of them; lengths beyond 20 sharpen attention.
DUAL_CHUNK = dict(heads=4, kv_heads=2, head_dim=16, hidden=48, ffn=37, layers=3, vocabulary=101, tied=False, overrides={
    "max_position_embeddings": 96, "rope_theta": 1e4,
    "dual_chunk_attention_config": {"chunk_size": 11, "local_size": 3, "original_max_position_embeddings": 20}})
DUAL_CHUNK_LENGTHS = (8, 17, 33, 71)


def respell(path):
    """As transformers 5 writes it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_parameters"] = {"rope_theta": config.pop("rope_theta"), **config.pop("rope_scaling")}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_checkpoint(name, shape, seed):
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    make_model(shape, seed).save_pretrained(folder)
    return folder


def write_golden(folder, golden):
    (folder / "golden.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")
    print(folder.name, "bf16 mean error", golden["bf16_mean_error"], "smallest margin",
          min(min(prompt["greedy"]["margins"]) for prompt in golden["prompts"]))


def make_yarn(name, shape, seed):
    folder = write_checkpoint(name, shape, seed)
    write_golden(folder, make_golden(folder, shape["vocabulary"], torch.Generator().manual_seed(seed), YARN_LENGTHS))
    if shape["overrides"]["rope_scaling"].get("rope_type"):
        respell(folder / "config.json")


def make_dual_chunk(name, shape, seed):
    """The length that sharpens the rows of a prompt is the prompt's; a generated token's row has its own."""
    folder = write_checkpoint(name, shape, seed)
    generator = torch.Generator().manual_seed(seed)
    models = [Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype).eval() for dtype in (torch.float32, torch.bfloat16)]
    prompts, errors = [], []
    with DualChunks(**shape["overrides"]["dual_chunk_attention_config"]) as chunks:
        for length in DUAL_CHUNK_LENGTHS:
            ids = torch.randint(3, shape["vocabulary"], (length,), generator=generator).tolist()
            chunks.prompt_tokens = length
            values, half = (of_next_ids(log_probabilities(model, ids), ids) for model in models)
            errors += (half - values).abs().tolist()
            tokens, margins = [], []
            for _ in range(GREEDY_TOKENS):
                best = torch.topk(log_probabilities(models[0], ids + tokens)[-1], 2)
                tokens.append(int(best.indices[0]))
                margins.append(float(best.values[0] - best.values[1]))
            chunks.prompt_tokens = length + 1  # as when each id is scored as part of the prompt
            last = log_probabilities(models[0], ids)[-1]
            prompts.append({"ids": ids, "logprobs": rounded(values.tolist()), "last_logprobs": rounded(last.tolist()),
                            "greedy": {"ids": tokens, "margins": margins}})
    write_golden(folder, {"prompts": prompts, "bf16_mean_error": sum(errors) / len(errors)})


def main():
    check_versions()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, shape) in enumerate(YARN.items()):
        make_yarn(name, shape, 100 + seed)
    make_dual_chunk("dual-chunk", DUAL_CHUNK, 110)
    write_sums()


if __name__ == "__main__":
    main()
