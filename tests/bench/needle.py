#!/usr/bin/env python3
"""Needle in a haystack: asks a served checkpoint for a pass key hidden in filler text, by length and depth.

    python tests/bench/needle.py deploy/pocket --results build/needle.jsonl --svg tests/bench/needle.svg

For every scheme and length, `cohort serve` runs on a copy of the checkpoint whose config.json allows the longest
prompt; flags may name {factor}, the length over the training length, and {original}, the training length. Each
answer is appended to the results file at once; the same command goes on where it ends. --report only draws.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import sys
import tempfile

from cohort_server import ROOT, STREAM_SECONDS, Client, start_serving, stop
from needle_picture import markdown, svg
from streams import closed_loop

sys.path.insert(0, str(ROOT / "deploy/pocket/training"))
import tasks  # noqa: E402  (the texts that the pocket checkpoint is trained on, and wordings it never saw)

SCHEMES = ("plain rope=", "YaRN, factor = length / {original}=--rope-scaling yarn:{factor}:{original}",
           "dual chunk attention, 384:64=--dual-chunk 384:64:{original}")
ANSWER_TOKENS = 14
ROOM = 36  # tokens of the chat template and the answer
STREAMS = 4


@dataclasses.dataclass(frozen=True)
class Cell:
    length: int
    depth: float  # 0: the key comes first, 1: last
    number: int   # which of the cell's keys

    def key(self):
        return [self.length, self.depth, self.number]


def cells(lengths, depths, keys):
    """The longest first: its prompt is the one that could be refused."""
    return [Cell(length, round(depth / (depths - 1), 4), number) for length in sorted(lengths, reverse=True)
            for depth in range(depths) for number in range(keys)]


def question(cell, seed, count_tokens):
    """(text with a pass key at the cell's depth, the key). The same whatever the scheme."""
    source = random.Random(f"{seed} {cell.length} {cell.depth} {cell.number}")
    ((text, answer),) = tasks.pass_key(source, True, cell.length - ROOM, cell.depth, count_tokens)
    return text, answer.split()[-1].rstrip(".")


@contextlib.contextmanager
def stretched(model, positions):
    """A copy of the checkpoint whose config.json allows `positions` tokens."""
    with tempfile.TemporaryDirectory() as directory:
        for path in model.resolve().iterdir():
            if path.is_file() and path.name != "config.json":
                os.symlink(path, pathlib.Path(directory) / path.name)
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        config["max_position_embeddings"] = positions
        (pathlib.Path(directory) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        yield directory


class Asker:
    """Asks one server, and counts tokens with it."""

    def __init__(self, address):
        self.client = Client(address)
        self.counts = {}

    def count_tokens(self, text):
        """As the sentence counts after another one: its space belongs to its first word."""
        if text not in self.counts:
            result = self.client.call("cohort.v1.Generation.Tokenize", {"text": " " + text.strip()}, timeout=30)
            self.counts[text] = len(result.token_ids)
        return self.counts[text]

    def ask(self, text):
        """(the answer, the prompt's tokens)."""
        result = self.client.call("cohort.v1.Generation.Generate", {
            "chat": {"messages": [{"role": "user", "content": text}]}, "sampling": {"temperature": 0.0},
            "stopping": {"max_tokens": ANSWER_TOKENS}}, timeout=STREAM_SECONDS)
        return result.outputs[0].text, result.usage.prompt_tokens


def read(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def measure(options, scheme, flags, wanted, append):
    """Asks for the pass keys of `wanted` cells of one length."""
    length = wanted[0].length
    factor = f"{max(1.0, length / options.original):g}"
    words = [word.format(factor=factor, original=options.original) for word in flags.split()]
    with stretched(options.model, max(options.lengths) + ROOM) as directory:
        process, address = start_serving(options.cohort, directory, [
            "--device", "cpu", "--tp", str(options.tp), "--threads", str(options.threads), "--dtype", options.dtype,
            *words])
        try:
            asker = Asker(address)
            asked = [(cell, *question(cell, options.seed, asker.count_tokens)) for cell in wanted]
            answers, seconds = closed_loop(lambda entry: asker.ask(entry[1]), asked, STREAMS)
            for (cell, _, key), (answer, tokens) in zip(asked, answers):
                append({"scheme": scheme, "cell": cell.key(), "prompt_tokens": tokens, "key": key, "answer": answer})
            asker.client.channel.close()
        finally:
            stop(process)
    found = sum(key in answer for (_, _, key), (answer, _) in zip(asked, answers))
    print(f"{scheme}, {length}: {found} of {len(asked)} ({seconds:.0f} s)", file=sys.stderr, flush=True)


def run(options):
    done = {(record["scheme"], *record["cell"]) for record in read(options.results)}
    with open(options.results, "a", encoding="utf-8") as file:
        def append(record):
            file.write(json.dumps(record) + "\n")
            file.flush()

        for text in options.scheme or SCHEMES:
            name, _, flags = text.partition("=--")
            name, flags = name.rstrip("=").format(original=options.original), "--" + flags if flags else ""
            for length in options.lengths:
                wanted = [cell for cell in cells([length], options.depths, options.keys)
                          if (name, *cell.key()) not in done]
                if wanted:
                    measure(options, name, flags, wanted, append)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="checkpoint directory that answers questions for a pass key")
    parser.add_argument("--results", type=pathlib.Path, required=True, help="JSON lines, one per question")
    parser.add_argument("--svg", type=pathlib.Path, help="where to draw the picture")
    parser.add_argument("--report", action="store_true", help="ask nothing; draw what the results file holds")
    parser.add_argument("--scheme", action="append", metavar="NAME=FLAGS",
                        help="flags of `cohort serve` to compare; may be repeated (default: plain rope, YaRN, DCA)")
    parser.add_argument("--original", type=int, default=512, help="the training length (default: 512)")
    parser.add_argument("--lengths", type=lambda text: [int(word) for word in text.split(",")],
                        default=[256, 512, 1024, 1536, 2048, 3072, 4096], help="of prompt and answer in tokens")
    parser.add_argument("--depths", type=int, default=11, help="evenly from 0%% to 100%% (default: 11)")
    parser.add_argument("--keys", type=int, default=5, help="of a cell (default: 5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cohort", type=pathlib.Path, default=ROOT / "build/bin/cohort")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bf16")
    options = parser.parse_args(arguments)
    if options.depths < 2 or options.keys < 1:
        parser.error("--depths is at least 2 and --keys at least 1")
    if min(options.lengths) < 128:
        parser.error(f"--lengths {min(options.lengths)} leaves no room for a question; the least is 128")
    return options


def main():
    options = parse_arguments()
    if not options.report:
        run(options)
    records = read(options.results)
    print(markdown(records, options.original))
    if options.svg:
        options.svg.write_text(svg(records, options.original), encoding="utf-8")


if __name__ == "__main__":
    main()
