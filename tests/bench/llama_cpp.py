"""llama.cpp's tools as processes: the parsers of what they print, and the streams of its server over HTTP."""

import http.client
import json
import pathlib
import socket
import subprocess
import time

from cohort_server import READY_SECONDS, STREAM_SECONDS, read_some, stop
from streams import Stream

TOOL_SECONDS = 300


def parse_llama_bench(text):
    """Tokens per second of the one test in `llama-bench -o json`."""
    tests = json.loads(text)
    if len(tests) != 1:
        raise ValueError(f"llama-bench ran {len(tests)} tests, not one")
    return tests[0]["avg_ts"]


def parse_batched_bench(text):
    """{parallel sequences: generated tokens per second} of `llama-batched-bench --output-format jsonl`."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise ValueError("llama-batched-bench printed no result")
    return {line["pl"]: line["speed_tg"] for line in lines}


def parse_server_event(line):
    """The event of one line of a streamed completion, or None between events."""
    if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
        return None
    return json.loads(line[len(b"data: "):])


class Tools:
    """The tools of one build, in `directory`."""

    def __init__(self, directory, gguf, threads):
        self.directory, self.gguf, self.threads = pathlib.Path(directory), str(gguf), threads

    def command(self, tool, *flags):
        return [str(self.directory / tool), "-m", self.gguf, "-t", str(self.threads), *map(str, flags)]

    def run(self, tool, *flags):
        done = subprocess.run(self.command(tool, *flags), capture_output=True, text=True, timeout=TOOL_SECONDS)
        if done.returncode != 0:
            raise RuntimeError(f"{done.args} ended with {done.returncode}: {done.stderr[-500:]}")
        return done.stdout

    def commit(self):
        """Of the source that the tools were built from, as they say themselves."""
        return json.loads(self.run("llama-bench", "-p", 1, "-n", 0, "-r", 1, "-o", "json"))[0]["build_commit"]

    def prefill_rate(self, tokens):
        return parse_llama_bench(self.run("llama-bench", "-p", tokens, "-n", 0, "-r", 1, "-o", "json"))

    def decode_rate(self, tokens):
        return parse_llama_bench(self.run("llama-bench", "-p", 0, "-n", tokens, "-r", 1, "-o", "json"))

    def batched_decode_rates(self, sequences, prompt_tokens, tokens):
        cells = max(sequences) * (prompt_tokens + tokens)
        return parse_batched_bench(self.run(
            "llama-batched-bench", "-npp", prompt_tokens, "-ntg", tokens, "-npl", ",".join(map(str, sequences)),
            "-c", cells, "--output-format", "jsonl"))

    def seconds_to_first_token(self, prompt, *flags):
        """From the start of llama-completion to the first text that it prints."""
        started = time.monotonic()
        with subprocess.Popen(
                self.command("llama-completion", "-no-cnv", "--no-display-prompt", "-p", prompt, "-n", 1, "--temp", 0,
                             "--ignore-eos", "-c", 2048, *flags),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            if not read_some(process, started + READY_SECONDS, "token").strip():
                raise RuntimeError(f"{process.args} printed nothing")
            return time.monotonic() - started


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LlamaServer:
    """llama-server; requests neither reuse prompts nor stop at an end token."""

    def __init__(self, tools, slots, tokens_per_slot):
        self.port = free_port()
        self.process = subprocess.Popen(
            tools.command("llama-server", "--host", "127.0.0.1", "--port", self.port, "-np", slots,
                          "-c", slots * tokens_per_slot),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._wait_until_healthy()
        self.generate([1, 2, 3], 4)

    def _wait_until_healthy(self):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.process.args} ended with {self.process.returncode}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.process.kill()
        raise TimeoutError(f"{self.process.args} is not healthy after {READY_SECONDS} s")

    def stop(self):
        stop(self.process)

    def generate(self, prompt, max_tokens):
        body = json.dumps({"prompt": prompt, "n_predict": max_tokens, "stream": True, "ignore_eos": True,
                           "cache_prompt": False, "temperature": 0, "return_tokens": True})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STREAM_SECONDS)
        stream = Stream(time.monotonic())
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        response, final = connection.getresponse(), {}
        if response.status != 200:
            raise RuntimeError(f"llama-server: {response.status} {response.read()[:500]}")
        for line in response:
            event = parse_server_event(line)
            if event and event.get("tokens"):
                stream.arrivals.append((time.monotonic(), len(event["tokens"])))
                stream.ids.extend(event["tokens"])
            if event and event.get("stop"):
                final = event
        connection.close()
        # A character cut over tokens is streamed late or not at all: what counts is what was generated.
        missing = final["tokens_predicted"] - stream.tokens
        if missing:
            stream.arrivals.append((time.monotonic(), missing))
        return stream
