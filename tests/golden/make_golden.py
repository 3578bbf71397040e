#!/usr/bin/env python3
"""Writes the golden checkpoints and what the reference implementation answers to them.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 transformers==4.57.1 \
        safetensors==0.8.0 numpy==2.4.6
    /tmp/golden/bin/python tests/golden/make_golden.py

Every folder beside this file is one tiny random checkpoint as transformers writes it, with golden.json: per prompt
the fp32 log-probability of each id after the ones before it, all log-probabilities after the last one, and the greedy
continuation with the margin of each choice; and the mean error of a bf16 run of the same model. SHA256SUMS lists all
files. The versions are pinned because other ones may round or name things differently; CI only reads the files.
"""

import hashlib
import json
import pathlib
import shutil

import numpy
import safetensors
import torch
import transformers
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

VERSIONS = {"torch": "2.11.0", "transformers": "4.57.1", "safetensors": "0.8.0", "numpy": "2.4.6"}
FOLDER = pathlib.Path(__file__).resolve().parent
PROMPT_LENGTHS = (1, 6, 17, 32)
GREEDY_TOKENS = 12

# dtype: of the files. max_shard_size: several files with an index. key_bias_norm: of the first and last layer.
# experts: what Qwen2MoeConfig gets beside it.
CHECKPOINTS = {
    "five-heads-tied": dict(heads=5, kv_heads=1, head_dim=16, hidden=80, ffn=37, layers=2, vocabulary=131, tied=True),
    "six-heads-sharded": dict(heads=6, kv_heads=2, head_dim=8, hidden=48, ffn=50, layers=3, vocabulary=97, tied=False,
                              max_shard_size="60KB"),
    "fourteen-heads-bf16": dict(heads=14, kv_heads=2, head_dim=16, hidden=72, ffn=101, layers=2, vocabulary=150,
                                tied=True, dtype=torch.bfloat16),
    "large-key-bias": dict(heads=4, kv_heads=2, head_dim=16, hidden=64, ffn=45, layers=3, vocabulary=120, tied=False,
                           key_bias_norm=(640.0, 880.0)),
    "ten-experts-step-two": dict(heads=6, kv_heads=2, head_dim=8, hidden=48, ffn=50, layers=4, vocabulary=97, tied=False,
                                 experts=dict(num_experts=10, num_experts_per_tok=4, moe_intermediate_size=22,
                                              shared_expert_intermediate_size=36, decoder_sparse_step=2,
                                              norm_topk_prob=True)),
    "sixteen-experts-bf16": dict(heads=4, kv_heads=2, head_dim=8, hidden=32, ffn=44, layers=3, vocabulary=88, tied=True,
                                 dtype=torch.bfloat16,
                                 experts=dict(num_experts=16, num_experts_per_tok=3, moe_intermediate_size=21,
                                              shared_expert_intermediate_size=27, mlp_only_layers=[1],
                                              norm_topk_prob=False)),
}


def check_versions():
    found = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
             "safetensors": safetensors.__version__, "numpy": numpy.__version__}
    if found != VERSIONS:
        raise SystemExit(f"needs {VERSIONS}, found {found}")


def make_config(shape):
    config = (Qwen2MoeConfig if "experts" in shape else Qwen2Config)(
        vocab_size=shape["vocabulary"], hidden_size=shape["hidden"], intermediate_size=shape["ffn"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], num_key_value_heads=shape["kv_heads"],
        max_position_embeddings=256, rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=shape["tied"],
        bos_token_id=1, eos_token_id=2, initializer_range=0.1, **shape.get("experts", {}))
    if shape["head_dim"] * shape["heads"] != shape["hidden"]:
        config.head_dim = shape["head_dim"]
    config.update(shape.get("overrides", {}))
    return config


def make_model(shape, seed):
    torch.manual_seed(seed)
    model = (Qwen2MoeForCausalLM if "experts" in shape else Qwen2ForCausalLM)(make_config(shape)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5)
            elif "norm" in name:
                parameter.normal_(1, 0.1)
        if "key_bias_norm" in shape:
            for index, norm in zip((0, -1), shape["key_bias_norm"]):
                bias = model.model.layers[index].self_attn.k_proj.bias
                bias.mul_(norm / bias.norm())
    return model.to(shape.get("dtype", torch.float32))


def log_probabilities(model, ids):
    """[tokens, vocabulary]"""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)


def greedy(model, ids):
    tokens, margins = [], []
    for _ in range(GREEDY_TOKENS):
        values = log_probabilities(model, ids + tokens)[-1]
        best = torch.topk(values, 2).values
        tokens.append(int(values.argmax()))
        margins.append(float(best[0] - best[1]))
    return {"ids": tokens, "margins": margins}


def of_next_ids(values, ids):
    return values[torch.arange(len(ids) - 1), torch.tensor(ids[1:], dtype=torch.long)]


def rounded(values):
    """Enough digits for fp32, and short."""
    return [float(f"{value:.9g}") for value in values]


def make_golden(folder, vocabulary, generator, lengths=PROMPT_LENGTHS):
    """From the files, as anybody would load them."""
    fp32 = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    bf16 = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    prompts, errors = [], []
    for length in lengths:
        ids = torch.randint(3, vocabulary, (length,), generator=generator).tolist()
        values = log_probabilities(fp32, ids)
        errors += (of_next_ids(log_probabilities(bf16, ids), ids) - of_next_ids(values, ids)).abs().tolist()
        prompts.append({"ids": ids, "logprobs": rounded(of_next_ids(values, ids).tolist()),
                        "last_logprobs": rounded(values[-1].tolist()), "greedy": greedy(fp32, ids)})
    return {"prompts": prompts, "bf16_mean_error": sum(errors) / len(errors)}


def write_sums():
    files = sorted(path for path in FOLDER.glob("*/*") if path.parent.name != "__pycache__")
    for path in files:
        path.chmod(0o644)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(FOLDER)}\n" for path in files]
    (FOLDER / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def main():
    check_versions()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, shape) in enumerate(CHECKPOINTS.items()):
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        make_model(shape, seed).save_pretrained(folder, max_shard_size=shape.get("max_shard_size", "1GB"))
        golden = make_golden(folder, shape["vocabulary"], torch.Generator().manual_seed(seed))
        (folder / "golden.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")
        print(name, "bf16 mean error", golden["bf16_mean_error"], "smallest margin",
              min(min(prompt["greedy"]["margins"]) for prompt in golden["prompts"]))
    write_sums()


if __name__ == "__main__":
    main()
