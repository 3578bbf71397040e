"""The rows of the benchmark: what one repetition of each measures, and the bars it is held to."""

import dataclasses
import json
import random
import subprocess
from typing import Callable

import cohort_server
import llama_cpp
from streams import closed_loop, mean_seconds_to_first_token, random_prompt, steady_rate

AGREEMENT_PROMPTS, AGREEMENT_PROMPT_TOKENS = 32, 12
DECODE_TOKENS = 64
PREFILL_TOKENS = 512
BATCHES = (8, 16)
BATCH_PROMPT_TOKENS, BATCH_TOKENS = 16, 32
SERVED_REQUESTS, SERVED_STREAMS, SERVED_PROMPT_TOKENS, SERVED_TOKENS = 64, 16, 128, 64
START_PROMPT = "hello" + " hello" * 126  # 127 tokens of Qwen2's vocabulary
LONG_PROMPT_TOKENS = 1000
SERVER_FLAGS = ("--kv-memory", "64MiB", "--max-model-len", "2048")
# So little KV memory that pages of it that nobody touched cannot hide what else a rank holds.
MEMORY_FLAGS, MEMORY_PROMPT_TOKENS = ("--kv-memory", "8MiB", "--max-model-len", "640"), 600


@dataclasses.dataclass
class Context:
    """What rows measure with; servers start at their first use and stay for the rows after."""
    options: object
    generator: random.Random
    servers: dict = dataclasses.field(default_factory=dict)

    def _server(self, key, make):
        if key not in self.servers:
            self.servers[key] = make()
        return self.servers[key]

    def cohort(self, ranks):
        """Two threads in all: one rank of two, or two ranks of one."""
        return self._server(f"cohort of {ranks}", lambda: cohort_server.CohortServer(
            self.options.cohort, self.options.model, ranks, 2 // ranks, SERVER_FLAGS))

    def tools(self, directory):
        return llama_cpp.Tools(directory, self.options.gguf, threads=2) if directory else None

    def llama_cpp(self):
        return self.tools(self.options.llama_cpp)

    def ik_llama_cpp(self):
        return self.tools(self.options.ik_llama_cpp)

    def llama_server(self):
        return self._server("llama-server",
                            lambda: llama_cpp.LlamaServer(self.llama_cpp(), slots=8, tokens_per_slot=256))

    def run_program(self, name, *arguments):
        """The JSON objects, one a line, that a program of tests/bench prints."""
        command = [self.options.cohort.parent / name, *map(str, arguments)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
        return [json.loads(line) for line in out.splitlines()]

    def stop(self):
        for server in self.servers.values():
            server.stop()
        self.servers.clear()


def rank_memory(process_id):
    """{field: bytes} of smaps_rollup."""
    with open(f"/proc/{process_id}/smaps_rollup", encoding="ascii") as file:
        words = [line.split() for line in file.readlines()[1:]]
    return {word[0].rstrip(":"): int(word[1]) * 1024 for word in words if len(word) >= 3 and word[2] == "kB"}


def measure_agreement(context):
    """How often both sides choose the same token after a prompt, which shows that they do the same work."""
    if not context.llama_cpp():
        return {}
    prompts = [random_prompt(context.generator, AGREEMENT_PROMPT_TOKENS) for _ in range(AGREEMENT_PROMPTS)]
    ours, theirs = ([server.generate(prompt, 1).ids for prompt in prompts]
                    for server in (context.cohort(1), context.llama_server()))
    return {"equal tokens": float(sum(a == b for a, b in zip(ours, theirs)))}


def measure_decode(context):
    tools, values = context.llama_cpp(), {}
    prompt = random_prompt(context.generator, 8)
    if tools:
        values["llama.cpp tokens/s"] = tools.decode_rate(DECODE_TOKENS)
    values["1 rank x 2 threads tokens/s"] = steady_rate([context.cohort(1).generate(prompt, DECODE_TOKENS + 1)])
    bandwidth = {(line["pages"], line["threads"]): line["gb_per_second"]
                 for line in context.run_program("read_bandwidth")}
    values["2 ranks x 1 thread tokens/s"] = steady_rate([context.cohort(2).generate(prompt, DECODE_TOKENS + 1)])
    rank = context.cohort(1).load().ranks[0]
    huge = rank_memory(rank.process_id)["AnonHugePages"] > rank.weight_bytes / 2
    for (pages, threads), rate in bandwidth.items():
        values[f"read bandwidth, {threads} threads, {pages} pages GB/s"] = rate
    values["weights in huge pages"] = float(huge)
    values["weights read GB/s"] = rank.weight_bytes * values["1 rank x 2 threads tokens/s"] / 1e9
    values["read bandwidth of the same pages GB/s"] = bandwidth["huge" if huge else "4KiB", 2]
    return values


def measure_prefill(context):
    values = {}
    for name, tools in (("llama.cpp", context.llama_cpp()), ("ik_llama.cpp", context.ik_llama_cpp())):
        if tools:
            values[f"{name} tokens/s"] = tools.prefill_rate(PREFILL_TOKENS)
        stream = context.cohort(1).generate(random_prompt(context.generator, PREFILL_TOKENS), 1)
        values[f"cohort beside {name} tokens/s"] = PREFILL_TOKENS / stream.seconds_to_first_token
    return values


def measure_batched(context):
    tools, values = context.llama_cpp(), {}
    if tools:
        for batch, rate in tools.batched_decode_rates(BATCHES, BATCH_PROMPT_TOKENS, BATCH_TOKENS).items():
            values[f"llama.cpp, {batch} sequences tokens/s"] = rate
    for batch in BATCHES:
        prompts = [random_prompt(context.generator, BATCH_PROMPT_TOKENS) for _ in range(batch)]
        streams, _ = closed_loop(lambda prompt: context.cohort(1).generate(prompt, BATCH_TOKENS), prompts, batch)
        values[f"cohort, {batch} sequences tokens/s"] = steady_rate(streams)
    return values


def measure_served(context):
    values = {}
    servers = {"cohort": context.cohort(1)}
    if context.llama_cpp():
        servers["llama-server"] = context.llama_server()
    for name, server in servers.items():
        prompts = [random_prompt(context.generator, SERVED_PROMPT_TOKENS) for _ in range(SERVED_REQUESTS)]
        streams, seconds = closed_loop(lambda prompt: server.generate(prompt, SERVED_TOKENS), prompts, SERVED_STREAMS)
        values[f"{name} tokens/s"] = sum(stream.tokens for stream in streams) / seconds
        values[f"{name} mean time to first token s"] = mean_seconds_to_first_token(streams)
    return values


def measure_start(context):
    tools, values = context.llama_cpp(), {}
    if tools:
        values["llama.cpp s"] = tools.seconds_to_first_token(START_PROMPT)
        values["llama.cpp without its warm-up run s"] = tools.seconds_to_first_token(START_PROMPT, "--no-warmup")

    def start_cohort():
        flags = ["--threads", "2", "--device", "cpu", *SERVER_FLAGS]
        return cohort_server.seconds_to_first_token(context.options.cohort, context.options.model, flags, START_PROMPT)

    values["cohort, memory as found s"] = start_cohort()
    # A virtual machine may give free memory back to its host, which then clears it at the next touch, slowly. What
    # another program freed a moment ago is like the memory of a real machine.
    context.run_program("read_bandwidth", 700, 0.01)
    values["cohort s"] = start_cohort()
    return values


def measure_memory(context):
    values = {}
    for ranks in (1, 2):
        server = cohort_server.CohortServer(context.options.cohort, context.options.model, ranks, 2 // ranks,
                                            MEMORY_FLAGS)
        try:
            server.generate(random_prompt(context.generator, MEMORY_PROMPT_TOKENS), 16)
            for rank in server.load().ranks:
                memory = rank_memory(rank.process_id)
                name = f"rank {rank.rank} of {ranks}"
                values[f"{name}, slice and KV MB"] = (rank.weight_bytes + rank.kv_bytes) / 1e6
                values[f"{name}, private MB"] = (memory["Private_Clean"] + memory["Private_Dirty"]) / 1e6
                values[f"{name}, anonymous MB"] = memory["Anonymous"] / 1e6
        finally:
            server.stop()
    return values


def measure_scheduler(context):
    return {f"{line['sequences']} sequences us": line["median_us"]
            for line in context.run_program("scheduler_bench", 1000, 256, 1024)}


def measure_prefix(context):
    server = context.cohort(1)
    prompt = random_prompt(context.generator, LONG_PROMPT_TOKENS)
    cold, warm = server.generate(prompt, 2), server.generate(prompt, 2)
    return {"cold ms": cold.seconds_to_first_token * 1e3, "warm ms": warm.seconds_to_first_token * 1e3,
            "cached tokens of the cold one": float(cold.cached_tokens),
            "cached tokens of the warm one": float(warm.cached_tokens)}


@dataclasses.dataclass(frozen=True)
class Bar:
    """A ratio of two values of one repetition, or one value where `below` is a number."""
    label: str
    value: str
    below: object  # the name of the divisor, or a plain number
    limit: float
    at_least: bool
    predicted: str

    def ratio(self, values):
        """None where a value is missing, because its program was not given."""
        divisor = values.get(self.below) if isinstance(self.below, str) else self.below
        return values[self.value] / divisor if self.value in values and divisor else None

    def passed(self, ratio):
        return ratio >= self.limit if self.at_least else ratio <= self.limit


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    measure: Callable
    repetitions: int
    bars: tuple


ONE_RANK, TWO_RANKS = "1 rank x 2 threads tokens/s", "2 ranks x 1 thread tokens/s"
ROWS = (
    Row("agreement", f"The token chosen after each of {AGREEMENT_PROMPTS} prompts", measure_agreement, 1, (
        # Random weights leave some margins below what bf16 rounds away.
        Bar("equal to llama.cpp's / all", "equal tokens", AGREEMENT_PROMPTS, 0.85, True, "0.95"),)),
    Row("decode", f"Decode, batch 1, {DECODE_TOKENS} tokens, 2 threads", measure_decode, 7, (
        Bar("cohort / llama.cpp", ONE_RANK, "llama.cpp tokens/s", 1.0, True, "1.02"),
        Bar("bytes of weights read / read bandwidth", "weights read GB/s", "read bandwidth of the same pages GB/s", 0.9,
            True, "0.92"),
        Bar("2 ranks x 1 thread / 1 rank x 2 threads", TWO_RANKS, ONE_RANK, 0.95, True, "0.96"))),
    Row("prefill", f"Prefill of {PREFILL_TOKENS} tokens, 2 threads", measure_prefill, 7, (
        Bar("cohort / llama.cpp", "cohort beside llama.cpp tokens/s", "llama.cpp tokens/s", 1.4, True, "1.45"),
        Bar("cohort / ik_llama.cpp", "cohort beside ik_llama.cpp tokens/s", "ik_llama.cpp tokens/s", 1.25, True,
            "1.30"))),
    Row("batched", "Decode of several sequences, 2 threads", measure_batched, 7, (
        Bar("cohort / llama.cpp, 8", "cohort, 8 sequences tokens/s", "llama.cpp, 8 sequences tokens/s", 1.5, True,
            "1.7"),
        Bar("cohort / llama.cpp, 16", "cohort, 16 sequences tokens/s", "llama.cpp, 16 sequences tokens/s", 1.4, True,
            "1.6"))),
    Row("start", "Process start to first token, warm page cache, 127-token prompt", measure_start, 7, (
        Bar("cohort / llama.cpp", "cohort s", "llama.cpp s", 1.0, False, "0.75"),
        Bar("cohort / llama.cpp without its warm-up run", "cohort s", "llama.cpp without its warm-up run s", 1.0, False,
            "0.85"),
        Bar("cohort, memory as found / llama.cpp", "cohort, memory as found s", "llama.cpp s", 1.0, False, "1.0"))),
    Row("memory", "Memory of a rank after use", measure_memory, 1, tuple(
        Bar(f"rank {rank} of {ranks}: private / slice and KV", f"rank {rank} of {ranks}, private MB",
            f"rank {rank} of {ranks}, slice and KV MB", 1.1, False, "1.04")
        for ranks in (1, 2) for rank in range(ranks))),
    Row("scheduler", "Host cost of a decode step (plan, encode, commit)", measure_scheduler, 7, (
        Bar("256 sequences, us", "256 sequences us", 1, 200, False, "60"),
        Bar("1,024 sequences, us", "1024 sequences us", 1, 1000, False, "350"))),
    Row("prefix", f"The same {LONG_PROMPT_TOKENS}-token prompt again", measure_prefix, 7, (
        Bar("time to first token, cold / warm", "cold ms", "warm ms", 10, True, "30"),
        Bar("cached tokens / prompt tokens", "cached tokens of the warm one", LONG_PROMPT_TOKENS, 0.9, True, "0.99"))),
    # Last, because it takes the longest: what a limit of minutes cuts off is its repetitions.
    Row("served", f"{SERVED_REQUESTS} requests of {SERVED_PROMPT_TOKENS} in / {SERVED_TOKENS} out, "
        f"{SERVED_STREAMS} streams", measure_served, 7, (
            Bar("cohort / llama-server, tokens/s", "cohort tokens/s", "llama-server tokens/s", 1.7, True, "1.9"),
            Bar("cohort / llama-server, time to first token", "cohort mean time to first token s",
                "llama-server mean time to first token s", 0.25, False, "0.10"))),
)
