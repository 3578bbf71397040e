#!/usr/bin/env python3
"""Serves checkpoints that transformers wrote and compares the answers with transformers' own (fp32, CPU).

Not part of CI (needs torch and transformers: `pip install torch==2.11.0 transformers==4.57.1`). For each
random checkpoint and each --tp from 1 to the number of heads (with experts, each layout of a list) it prints,
over all prompts,
  score   the largest difference of a log-probability to transformers' fp32 (--dtype fp32), bound 1e-4,
  greedy  how many continuations are identical up to the first token whose margin is below 1e-3,
and for bf16 the mean error of ours and of transformers' bf16 (sdpa), both against transformers' fp32.
Exits 1 when a bound is missed.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SHAPES = {  # heads, KV heads, head size, FFN columns, layers, vocabulary, tied
    "small": (4, 2, 16, 176, 2, 512, False),
    "odd": (5, 1, 8, 37, 3, 331, True),
    "three": (6, 3, 64, 130, 2, 1000, False),
    "wide": (14, 2, 64, 300, 2, 777, True),
    "long-head": (3, 3, 128, 257, 2, 640, False),
    "ten-experts": (4, 2, 16, 90, 4, 512, False),
    "sixteen-experts": (6, 2, 16, 70, 3, 331, True),
    "sixty-experts": (4, 4, 16, 64, 2, 420, False),
}
EXPERTS = {  # what Qwen2MoeConfig gets beside it
    "ten-experts": dict(num_experts=10, num_experts_per_tok=4, moe_intermediate_size=37,
                        shared_expert_intermediate_size=75, decoder_sparse_step=2, norm_topk_prob=True),
    "sixteen-experts": dict(num_experts=16, num_experts_per_tok=2, moe_intermediate_size=50,
                            shared_expert_intermediate_size=61, mlp_only_layers=[1], norm_topk_prob=False),
    "sixty-experts": dict(num_experts=60, num_experts_per_tok=4, moe_intermediate_size=24,
                          shared_expert_intermediate_size=100, norm_topk_prob=True, qkv_bias=False),
}
EXPERT_LAYOUTS = ((1, 1, 1), (2, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 2), (4, 1, 4),  # --tp, --dp, --ep
                  (1, 2, 2), (2, 2, 4), (2, 2, 2))


def make_model(shape, experts, seed, big_key_bias):
    heads, kv_heads, head_dim, columns, layers, vocabulary, tied = shape
    config = (Qwen2MoeConfig if experts else Qwen2Config)(
        vocab_size=vocabulary, hidden_size=heads * head_dim, intermediate_size=columns, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=1024, rope_theta=1e6,
        tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2, initializer_range=0.05, **experts)
    torch.manual_seed(seed)
    model = (Qwen2MoeForCausalLM if experts else Qwen2ForCausalLM)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5)
            if "norm" in name:
                parameter.normal_(1, 0.1)
        if big_key_bias:
            for layer in (model.model.layers[0], model.model.layers[-1]):
                bias = layer.self_attn.k_proj.bias
                bias.mul_(750 / bias.norm())
    return model


def log_probabilities(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    return torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].tolist()


def greedy(model, ids, count):
    tokens, margins = [], []
    for _ in range(count):
        with torch.no_grad():
            logits = model(torch.tensor([ids + tokens])).logits[0, -1]
        best = torch.topk(logits, 2).values
        tokens.append(int(logits.argmax()))
        margins.append(float(best[0] - best[1]))
    return tokens, margins


class Server:
    def __init__(self, binary, model, *flags):
        self.binary = binary
        self.process = subprocess.Popen([binary, "serve", str(model), "--listen", "127.0.0.1:0", *flags],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError(f"the server of {model} {flags} did not become ready")
        self.address = line.split()[1]

    def call(self, command, ids, *flags):
        done = subprocess.run([self.binary, command, "--server", self.address, "--token-ids",
                               ",".join(map(str, ids)), "--json", *flags], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def agrees(ours, tokens, margins):
    for mine, token, margin in zip(ours, tokens, margins):
        if margin < 1e-3:
            return True
        if mine != token:
            return False
    return True


def mean_error(values, reference):
    return sum(abs(a - b) for a, b in zip(values, reference)) / len(reference)


def compare(binary, name, shape, experts, directory, big_key_bias, sharded):
    model = make_model(shape, experts, seed=sum(name.encode()), big_key_bias=big_key_bias)
    path = pathlib.Path(directory) / name
    model.save_pretrained(path, max_shard_size="40KB" if sharded else "5GB")
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(0, shape[5], (length,), generator=generator).tolist() for length in (2, 7, 19, 32)]
    scores = [log_probabilities(model, ids) for ids in prompts]
    continuations = [greedy(model, ids, 24) for ids in prompts]
    half = model.to(torch.bfloat16)
    half_scores = [log_probabilities(half, ids) for ids in prompts]
    good = True
    for tp, dp, ep in EXPERT_LAYOUTS if experts else [(tp, 1, 1) for tp in range(1, shape[0] + 1)]:
        layout = ["--tp", str(tp), "--dp", str(dp), "--ep", str(ep), "--threads", "1"]
        with Server(binary, path, *layout, "--dtype", "fp32") as server:
            worst = max(abs(a - b) for ids, reference in zip(prompts, scores)
                        for a, b in zip(server.call("score", ids)["logprobs"][1:], reference))
            same = [agrees(server.call("generate", ids, "--max-tokens", "24", "--ignore-eos")["outputs"][0]["token_ids"],
                           *continuation) for ids, continuation in zip(prompts, continuations)]
        with Server(binary, path, *layout, "--dtype", "bf16") as server:
            ours = [server.call("score", ids)["logprobs"][1:] for ids in prompts]
        flat = [sum(values, []) for values in (ours, half_scores, scores)]
        errors = mean_error(flat[0], flat[2]), mean_error(flat[1], flat[2])
        fine = worst <= 1e-4 and all(same) and errors[0] <= 2 * errors[1]
        good = good and fine
        print(f"{name:>24} tp {tp:2} dp {dp} ep {ep:2}  score {worst:.1e}  greedy {sum(same)}/{len(same)}  "
              f"bf16 mean error {errors[0]:.4f} (transformers {errors[1]:.4f})  {'ok' if fine else 'MISSED'}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/bin/cohort"))
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    good = True
    with tempfile.TemporaryDirectory() as directory:
        for name in options.shapes:
            experts = EXPERTS.get(name, {})
            good &= compare(options.binary, name, SHAPES[name], experts, directory, big_key_bias=False, sharded=False)
            if experts.get("qkv_bias", True):
                good &= compare(options.binary, name + "-key-bias", SHAPES[name], experts, directory, big_key_bias=True,
                                sharded=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
