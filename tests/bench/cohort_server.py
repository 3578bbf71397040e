"""`cohort serve` as a process, and its streams over gRPC."""

import os
import pathlib
import re
import select
import subprocess
import sys
import time

from streams import Stream

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/end_to_end"))
from reflection_client import Client  # noqa: E402  (the end-to-end tests' client)

READY_SECONDS = 60
STREAM_SECONDS = 300
READY_LINE = re.compile(rb"ready (\S+:\d+)\n")


def read_some(process, deadline, what):
    """What the process writes to standard output next; b"" at its end."""
    readable, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
    if not readable:
        process.kill()
        raise TimeoutError(f"no {what} in time from {process.args}")
    return os.read(process.stdout.fileno(), 65536)


def stop(process):
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_serving(binary, model, flags):
    """The process of `cohort serve` and its address, once it says that it is ready."""
    process = subprocess.Popen([binary, "serve", model, "--listen", "127.0.0.1:0", *flags],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out, deadline = b"", time.monotonic() + READY_SECONDS
    while not READY_LINE.search(out):
        data = read_some(process, deadline, "ready line")
        if not data:
            raise RuntimeError(f"{process.args} ended with {process.wait()}; run it by hand to see why")
        out += data
    return process, READY_LINE.search(out).group(1).decode()


class CohortServer:
    def __init__(self, binary, model, ranks, threads, flags=()):
        self.process, self.address = start_serving(
            binary, model, ["--tp", str(ranks), "--threads", str(threads), "--device", "cpu", *flags])
        self.client = Client(self.address)
        self.generate([1, 2, 3], 4)  # the first use of a connection and of the ranks' memory is not measured

    def stop(self):
        self.client.channel.close()
        stop(self.process)

    def load(self):
        return self.client.call("cohort.v1.Control.GetLoad", timeout=30)

    def generate(self, prompt, max_tokens):
        stream = Stream(time.monotonic())
        for event in self.client.call("cohort.v1.Generation.GenerateStream", {
                "token_ids": {"ids": prompt}, "sampling": {"temperature": 0.0},
                "stopping": {"max_tokens": max_tokens, "ignore_eos": True}}, timeout=STREAM_SECONDS):
            if event.HasField("delta"):
                stream.arrivals.append((time.monotonic(), len(event.delta.token_ids)))
                stream.ids.extend(event.delta.token_ids)
            elif event.HasField("finished"):
                stream.cached_tokens = event.finished.usage.cached_tokens
        if stream.tokens != max_tokens:
            raise RuntimeError(f"cohort generated {stream.tokens} tokens of {max_tokens}")
        return stream


def seconds_to_first_token(binary, model, flags, prompt):
    """From starting `cohort serve` to the first text that `cohort generate` prints."""
    started = time.monotonic()
    server, address = start_serving(binary, model, flags)
    try:
        with subprocess.Popen([binary, "generate", "--server", address, "--prompt", prompt, "--max-tokens", "1",
                               "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            if not read_some(client, started + READY_SECONDS, "token"):
                raise RuntimeError(f"{client.args} printed nothing")
            return time.monotonic() - started
    finally:
        stop(server)
