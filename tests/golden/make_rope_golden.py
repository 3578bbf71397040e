#!/usr/bin/env python3
"""Writes golden/rope/golden.json: inverse frequencies and attention factors as transformers computes them.

    /tmp/golden/bin/python tests/golden/make_rope_golden.py    (the environment of make_golden.py)

Each case is a config.json in the spelling of transformers 4 and the numbers of its rope. SHA256SUMS is updated.
"""

import json

from transformers import Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from make_golden import FOLDER, check_versions, write_sums

CASES = {  # head_dim, max_position_embeddings, rope_scaling; rope_theta is 1e6 unless said otherwise
    "plain": (128, 32768, None),
    "qwen2-7b-by-4": (128, 32768, {"factor": 4.0, "original_max_position_embeddings": 32768}),
    "qwen2-0.5b-by-4": (64, 32768, {"factor": 4.0, "original_max_position_embeddings": 32768}),
    "raised-max-positions": (128, 131072, {"factor": 4.0, "original_max_position_embeddings": 32768}),
    "no-original": (64, 8192, {"factor": 2.5}),
    "factor-of-1": (64, 8192, {"factor": 1.0}),
    "betas": (64, 4096, {"factor": 8.0, "beta_fast": 16.0, "beta_slow": 2.0}),
    "whole-range": (16, 256, {"factor": 4.0, "original_max_position_embeddings": 64}),
    "untruncated": (64, 32768, {"factor": 4.0, "truncate": False}),
    "attention-factor": (64, 32768, {"factor": 4.0, "attention_factor": 1.25}),
    "mscale": (64, 32768, {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.707}),
    "one-mscale": (64, 32768, {"factor": 40.0, "mscale": 0.7}),
    "empty-range": (8, 6, {"factor": 4.0}),
}
KEYS = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling")


def make_case(head_dim, max_positions, scaling):
    config = Qwen2Config(hidden_size=2 * head_dim, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, vocab_size=8, max_position_embeddings=max_positions, rope_theta=1e6,
                         rope_scaling=scaling and {"rope_type": "yarn", **scaling})
    frequencies, factor = ROPE_INIT_FUNCTIONS["yarn" if scaling else "default"](config, "cpu")
    return {"config": {key: getattr(config, key) for key in KEYS},
            "inverse_frequencies": [float(f"{value:.9g}") for value in frequencies.tolist()],
            "attention_factor": factor}


def main():
    check_versions()
    path = FOLDER / "rope" / "golden.json"
    path.parent.mkdir(exist_ok=True)
    cases = {name: make_case(*case) for name, case in CASES.items()}
    path.write_text("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()) +
                    "\n}\n", encoding="utf-8")
    write_sums()


if __name__ == "__main__":
    main()
