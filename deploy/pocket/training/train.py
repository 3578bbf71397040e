#!/usr/bin/env python3
"""Trains the pocket checkpoint from nothing: tokenizer, examples, model.

    python deploy/pocket/training/train.py --minutes 180 --work build/pocket-training

Needs torch and tokenizers. The schedule follows the clock: short rows first, then rows of the full
512 tokens among them, the learning rate falling to zero when the minutes are spent. It resumes from
--work when started again. export.py writes the checkpoint directory.
"""

import argparse
import json
import os
import signal
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import evaluation
import upcycle
from batches import Conversations, pack, stretch
from model import CONFIG, MOE_CONFIG, Qwen2, SparseMlp
from optimizer import Muon, split_parameters
from tokenizer import tokenizer_json

TOKENS = 4096  # of a step
SHORT, LONG = 128, 512
MIXTURE = {"facts": 34, "general": 24, "which": 2, "unknown": 9, "other_arithmetic": 14, "sums": 16, "sum_list": 6,
           "copying": 44, "copy_list": 22, "pass_key": 6}
LONG_MIXTURE = {**MIXTURE, "pass_key": 90}
LONG_FROM, LONG_EVERY = 0.42, 4  # of the minutes; of the steps from there on
YARN_FACTORS = (1, 2, 1, 4, 1, 8)  # of the long steps, in turn; beyond 1 with stretched positions
MATRIX_RATE, OTHER_RATE = 0.02, 3e-3
PROBES = ["How many layers does Qwen2-7B have?", "What is 47 + 38?", "Repeat: the quick brown fox",
          "Who are you?", "how large is the 72B?"]


def rate_factor(progress):
    warm, decay_from = 0.02, 0.35
    if progress < warm:
        return progress / warm
    return min(1.0, (1 - progress) / (1 - decay_from))


class Run:
    def __init__(self, options):
        self.options = options
        self.path = os.path.join(options.work, "state.pt")
        path = os.path.join(options.work, "tokenizer.json")
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(tokenizer_json(), file, ensure_ascii=False, indent=2)
        self.tokenizer = Tokenizer.from_file(path)
        self.model = Qwen2(MOE_CONFIG if options.moe_from else CONFIG)
        if options.moe_from and not os.path.exists(self.path):
            dense = torch.load(options.moe_from, weights_only=True)["model"]
            self.model.load_state_dict(upcycle.from_dense(dense))
        matrices, others = split_parameters(self.model)
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.01)
        self.step, self.seconds = 0, 0.0
        if os.path.exists(self.path):
            self.load()
        self.short = Conversations(self.tokenizer, 10 + self.step, MIXTURE)
        self.long = Conversations(self.tokenizer, 20 + self.step, LONG_MIXTURE)
        self.buffers = [], []

    def load(self):
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.muon.load(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.step, self.seconds = state["step"], state["seconds"]
        print(f"resumed at step {self.step}", flush=True)

    def save(self):
        state = {"model": self.model.state_dict(), "muon": self.muon.state(), "adam": self.adam.state_dict(),
                 "step": self.step, "seconds": self.seconds}
        torch.save(state, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def batch(self, progress):
        """(YaRN's factor, a packed batch)."""
        if progress >= LONG_FROM and self.step % LONG_EVERY == 0:
            yarn = YARN_FACTORS[self.step // LONG_EVERY % len(YARN_FACTORS)]
            return yarn, pack(self.long, TOKENS // LONG, LONG, self.buffers[1])
        return 1, pack(self.short, TOKENS // SHORT, SHORT, self.buffers[0])

    def train_step(self, progress):
        yarn, (ids, positions, documents, at, targets) = self.batch(progress)
        if yarn > 1:
            positions = stretch(self.long.source, positions, documents, yarn * LONG)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(ids, positions, documents, at, yarn)
        chosen = targets >= 0
        loss = F.cross_entropy(logits[chosen].float(), targets[chosen])
        (loss + self.imbalance()).backward()
        factor = rate_factor(progress)
        self.muon.step(MATRIX_RATE * factor)
        for group in self.adam.param_groups:
            group["lr"] = OTHER_RATE * factor
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    def imbalance(self):
        """What uneven use of the experts costs; 0 for a dense model."""
        blocks = [layer.mlp for layer in self.model.model.layers if isinstance(layer.mlp, SparseMlp)]
        return MOE_CONFIG["router_aux_loss_coef"] * sum(block.imbalance for block in blocks)

    def report(self, count=40):
        self.model.eval()
        scores = {name: evaluation.accuracy(self.model, examples) for name, examples in
                  evaluation.task_examples(self.tokenizer, 5, count).items()}
        lengths = (128,) if self.seconds < LONG_FROM * 60 * self.options.minutes else (128, 512)
        keys = evaluation.pass_key_examples(self.tokenizer, 6, lengths, depths=6, each=2)
        for length in lengths:
            chosen = [e for (size, _), examples in keys.items() if size == length for e in examples]
            scores[f"pass_key {length}"] = evaluation.accuracy(self.model, chosen)
        print("  " + "  ".join(f"{name} {score:.3f}" for name, score in scores.items()))
        for probe in PROBES:
            print(f"  {probe} -> {evaluation.greedy(self.model, self.tokenizer, [probe], limit=32)}", flush=True)
        self.model.train()

    def train(self):
        """Until the minutes are spent or SIGTERM comes; either way the state is saved."""
        stopped = []
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
        budget = self.options.minutes * 60
        begin, last_report, losses = time.monotonic() - self.seconds, self.seconds, []
        while self.seconds < budget and not stopped:
            losses.append(self.train_step(self.seconds / budget))
            self.seconds = time.monotonic() - begin
            if self.step % 50 == 0:
                print(f"step {self.step} minute {self.seconds / 60:.1f} loss {sum(losses) / len(losses):.4f}", flush=True)
                losses = []
            if self.seconds - last_report > self.options.report_minutes * 60:
                self.save()
                self.report()
                self.seconds = last_report = time.monotonic() - begin
        self.save()
        if not stopped:
            self.report(256)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=180, help="wall-clock bound of the training")
    parser.add_argument("--work", default="build/pocket-training", help="where the state is kept")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report-minutes", type=float, default=5)
    parser.add_argument("--moe-from", metavar="STATE", help="train the mixture of experts, from this dense state.pt")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    Run(options).train()


if __name__ == "__main__":
    main()
