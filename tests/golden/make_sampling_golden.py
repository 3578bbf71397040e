#!/usr/bin/env python3
"""Writes sampling/golden.json: what transformers' logits processors make of rows of logits.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 transformers==4.57.1 \
        safetensors==0.8.0 numpy==2.4.6
    /tmp/golden/bin/python tests/golden/make_sampling_golden.py

A case holds the parameters, the ids before the row (the first prompt_tokens of them are the prompt), the logits, and
the logits after all processors in the order in which generate() builds them, null for minus infinity. SHA256SUMS gets
the file's line. transformers has no presence and frequency penalty: those are not here.
"""

import hashlib
import json
import pathlib

import torch
import transformers
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor, MinPLogitsWarper, NoBadWordsLogitsProcessor, PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper,
    TopPLogitsWarper)

VERSIONS = {"torch": "2.11.0", "transformers": "4.57.1"}
FOLDER = pathlib.Path(__file__).resolve().parent
VOCABULARY = 60
END_IDS = [58, 59]

# What each case sets; the last ones set everything at once.
CASES = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"temperature": 0.6},
    {"temperature": 2.5},
    {"top_k": 7},
    {"top_p": 0.6},
    {"top_p": 0.95},
    {"min_p": 0.1},
    {"min_p": 0.02, "temperature": 1.7},
    {"bad_words": [[3], [17, 21], [5, 9, 30], [9, 41]]},
    {"logit_bias": [[2, 4.5], [11, -3.25], [40, 100.0], [50, -100.0]]},
    {"allowed_token_ids": [1, 4, 9, 16, 25, 36, 49]},
    {"min_tokens": 9},
    {"min_tokens": 8},
    {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1},
    {"temperature": 1.4, "top_p": 0.9, "top_k": 12, "min_p": 0.05},
    {"temperature": 0.9, "top_p": 0.97, "top_k": 30, "min_p": 0.01, "repetition_penalty": 1.2,
     "bad_words": [[7], [9, 41]], "logit_bias": [[7, 9.0], [9, 3.0], [30, -2.0], [58, 8.0]], "min_tokens": 20},
]


def processors(case, prompt_tokens):
    """In the order of GenerationMixin._get_logits_processor."""
    made = LogitsProcessorList()
    if "logit_bias" in case:
        made.append(SequenceBiasLogitsProcessor([[[token], bias] for token, bias in case["logit_bias"]]))
    if "repetition_penalty" in case:
        made.append(RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
    if "bad_words" in case:
        made.append(NoBadWordsLogitsProcessor(case["bad_words"]))
    if "min_tokens" in case:
        made.append(MinNewTokensLengthLogitsProcessor(prompt_tokens, case["min_tokens"], END_IDS))
    if "allowed_token_ids" in case:
        made.append(PrefixConstrainedLogitsProcessor(lambda batch, ids: case["allowed_token_ids"], 1))
    if "temperature" in case:
        made.append(TemperatureLogitsWarper(case["temperature"]))
    if "top_k" in case:
        made.append(TopKLogitsWarper(case["top_k"]))
    if "top_p" in case:
        made.append(TopPLogitsWarper(case["top_p"]))
    if "min_p" in case:
        made.append(MinPLogitsWarper(case["min_p"]))
    return made


def run(case, seed):
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(VOCABULARY, generator=random)
    prompt_tokens = 6
    ids = torch.randint(0, VOCABULARY - 2, (14,), generator=random).tolist()
    ids[-2:] = [5, 9]  # the beginning of two bad words
    after = processors(case, prompt_tokens)(torch.tensor([ids]), logits[None].clone())[0]
    return {
        "parameters": case, "ids": ids, "prompt_tokens": prompt_tokens, "held_back_ids": END_IDS,
        "logits": logits.tolist(),
        "processed": [None if value == -torch.inf else value for value in after.tolist()],
    }


def main():
    found = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    if found != VERSIONS:
        raise SystemExit(f"needs {VERSIONS}, found {found}")
    cases = [run(case, seed) for seed, case in enumerate(CASES)]
    name = "sampling/golden.json"
    (FOLDER / "sampling").mkdir(exist_ok=True)
    text = json.dumps({"versions": VERSIONS, "cases": cases}, indent=None, separators=(",", ":")) + "\n"
    (FOLDER / name).write_text(text, encoding="utf-8")
    sums = FOLDER / "SHA256SUMS"
    lines = [line for line in sums.read_text(encoding="utf-8").splitlines() if not line.endswith("  " + name)]
    lines.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}")
    sums.write_text("\n".join(sorted(lines, key=lambda line: line.split("  ")[1])) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
