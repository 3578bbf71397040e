#!/usr/bin/env python3
"""Like compare_with_transformers.py, for sequences longer than the model's original length.

YaRN is compared with transformers' own, also where the original length is not max_position_embeddings; dual chunk
attention with tests/golden/dual_chunk_reference.py. For each case and each --tp up to the number of heads it prints the
largest difference of a log-probability in fp32 and how many greedy continuations agree.
The bound of a log-probability is 1e-4 up to 32 tokens and grows in proportion to the position beyond.
"""

import argparse
import os
import pathlib
import sys
import tempfile

import torch

from compare_with_transformers import ROOT, SHAPES, Server, agrees, greedy, log_probabilities, make_model

sys.path.insert(0, str(ROOT / "tests/golden"))
from dual_chunk_reference import DualChunks  # noqa: E402

LENGTHS = (20, 32, 120, 400)
YARN = {  # max_position_embeddings, rope_scaling
    "original-is-max": (128, {"factor": 4.0, "original_max_position_embeddings": 128}),
    "original-below-max": (1024, {"factor": 8.0, "original_max_position_embeddings": 64}),
    "no-original": (256, {"factor": 2.0}),
    "untruncated": (128, {"factor": 4.0, "truncate": False, "beta_fast": 8.0, "beta_slow": 0.5}),
    "attention-factor": (128, {"factor": 4.0, "attention_factor": 1.4}),
}
CHUNKS = {"small": (40, 8, 100), "long-local": (64, 40, 0), "one-chunk": (1000, 100, 0)}


def prompts_of(vocabulary):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, vocabulary, (length,), generator=generator).tolist() for length in LENGTHS]


def check(name, tp, server, prompts, scores, continuations):
    worst, fine = 0.0, True
    for ids, reference in zip(prompts, scores):
        ours = server.call("score", ids)["logprobs"][1:]
        for position, (a, b) in enumerate(zip(ours, reference)):
            worst = max(worst, abs(a - b))
            fine &= abs(a - b) <= 1e-4 * max(1, (position + 1) / 32)
    same = [agrees(server.call("generate", ids, "--max-tokens", "16", "--ignore-eos")["outputs"][0]["token_ids"],
                   *continuation) for ids, continuation in zip(prompts, continuations)]
    fine &= all(same)
    print(f"{name:>34} tp {tp:2}  score {worst:.1e}  greedy {sum(same)}/{len(same)}  {'ok' if fine else 'MISSED'}",
          flush=True)
    return fine


def serve_all(binary, name, path, heads, flags, prompts, scores, continuations):
    good = True
    for tp in range(1, heads + 1):
        with Server(binary, path, "--tp", str(tp), "--dtype", "fp32", "--threads", "1", *flags) as server:
            good &= check(name, tp, server, prompts, scores, continuations)
    return good


def compare_yarn(binary, shape_name, case, directory):
    shape = SHAPES[shape_name]
    max_positions, scaling = YARN[case]
    model = make_model(shape, seed=7, big_key_bias=False, experts={})
    path = pathlib.Path(directory) / f"{shape_name}-{case}"
    model.config.max_position_embeddings = max_positions
    model.config.rope_scaling = {"rope_type": "yarn", **scaling}
    model.save_pretrained(path)
    model = type(model).from_pretrained(path, dtype=torch.float32).eval()
    prompts = prompts_of(shape[5])
    scores = [log_probabilities(model, ids) for ids in prompts]
    continuations = [greedy(model, ids, 16) for ids in prompts]
    return serve_all(binary, f"yarn {shape_name} {case}", path, shape[0], (), prompts, scores, continuations)


def compare_chunks(binary, shape_name, case, directory):
    shape = SHAPES[shape_name]
    size, local, original = CHUNKS[case]
    model = make_model(shape, seed=7, big_key_bias=False, experts={})
    path = pathlib.Path(directory) / f"{shape_name}-chunks-{case}"
    model.save_pretrained(path)
    prompts, scores, continuations = prompts_of(shape[5]), [], []
    with DualChunks(size, local, original) as chunks:
        for ids in prompts:
            chunks.prompt_tokens = len(ids)
            scores.append(log_probabilities(model, ids))
            continuations.append(greedy(model, ids, 16))
    flags = ("--dual-chunk", f"{size}:{local}" + (f":{original}" if original else ""))
    return serve_all(binary, f"dual chunk {shape_name} {case}", path, shape[0], flags, prompts, scores, continuations)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/bin/cohort"))
    parser.add_argument("--shapes", nargs="*", default=["small", "odd", "long-head"], choices=list(SHAPES))
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    good = True
    with tempfile.TemporaryDirectory() as directory:
        for shape in options.shapes:
            for case in YARN:
                good &= compare_yarn(options.binary, shape, case, directory)
            for case in CHUNKS:
                good &= compare_chunks(options.binary, shape, case, directory)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
