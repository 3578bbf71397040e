"""Real processes over real gRPC on loopback: what the end-to-end tests share."""

import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("COHORT_BINARY", str(ROOT / "build/bin/cohort"))
READY_SECONDS = 120  # a sanitized build on a busy machine


def wait_until(condition, seconds, what):
    """Polls until `condition()` gives something true, which it returns; fails naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def process_is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run_cohort(*arguments, timeout=120, check=None):
    """Runs a client command to its end. `check`: the exit code it must have."""
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, timeout=timeout)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    if check is not None:
        assert done.returncode == check, (done.returncode, done.stdout, done.stderr)
    return done


class Server:
    """`cohort serve` as a user starts it; stops it (and fails when it leaves something behind) at exit."""

    def __init__(self, model, *flags, binary=BINARY, variables=None):
        self.process = subprocess.Popen(
            [binary, "serve", str(model), "--listen", "127.0.0.1:0", *map(str, flags)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(variables or {})})
        self.errors = b""
        self.address = self._read_ready_line()

    def _read_ready_line(self):
        end = time.monotonic() + READY_SECONDS
        out, streams = b"", {self.process.stdout: "out", self.process.stderr: "errors"}
        while b"\n" not in out:
            readable, _, _ = select.select(list(streams), [], [], max(0, end - time.monotonic()))
            assert readable, f"no ready line within {READY_SECONDS} s: {self.errors.decode()}"
            for stream in readable:
                data = os.read(stream.fileno(), 65536)
                if streams[stream] == "out":
                    assert data, f"server ended: {self.finish_reading()}"
                    out += data
                else:
                    self.errors += data
        matched = re.fullmatch(rb"ready (\S+:\d+)\n", out)
        assert matched, out
        return matched.group(1).decode()

    def finish_reading(self):
        """Standard error up to its end; only once the server has been told to stop."""
        _, errors = self.process.communicate(timeout=60)
        self.errors += errors
        return self.errors.decode()

    def status(self):
        return json.loads(run_cohort("status", "--server", self.address, "--json", check=0).stdout)

    def rank_pids(self):
        return [rank["pid"] for rank in self.status()["ranks"]]

    def generate(self, *flags, check=0):
        done = run_cohort("generate", "--server", self.address, "--json", *flags, check=check)
        return json.loads(done.stdout)

    def tokens(self, *flags):
        return self.generate(*flags)["outputs"][0]["token_ids"]

    def score(self, *flags):
        done = run_cohort("score", "--server", self.address, "--json", *flags, check=0)
        return json.loads(done.stdout)["logprobs"]

    def wait_until_idle(self, seconds=10):
        wait_until(lambda: self.status()["kv_blocks_used"] == 0 and self.status()["running"] == 0, seconds,
                   "all blocks free")

    def wait_for_an_epoch_after(self, epoch, seconds=60):
        def serves_again():
            status = self.status()
            return status["state"] == "serving" and status["epoch"] > epoch

        wait_until(serves_again, seconds, "the next epoch serves")

    def stop(self, signal_number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        errors = self.finish_reading()
        return self.process.returncode, errors

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            pids = self.rank_pids() if kind is None else []
            code, errors = self.stop()
            if kind is None:
                assert code == 0, errors
                wait_until(lambda: not any(map(process_is_alive, pids)), 10, "ranks are gone")
            else:
                print(errors, file=sys.stderr)


def pocket_examples():
    """What the pocket checkpoints answer rightly: their READMEs' table."""
    return json.loads((ROOT / "deploy/pocket/training/examples.json").read_text(encoding="utf-8"))


def chat_text(turns):
    """Qwen2's chat template; `turns` begin and end with the user's."""
    text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    for number, turn in enumerate(turns):
        text += f"<|im_start|>{'assistant' if number % 2 else 'user'}\n{turn}<|im_end|>\n"
    return text + "<|im_start|>assistant\n"


def make_checkpoint(directory, *flags):
    subprocess.run([sys.executable, str(ROOT / "tests/make_tiny_checkpoint.py"), str(directory), *flags],
                   check=True)
    return directory


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny checkpoint: 4 query heads, 2 KV heads, a tokenizer, F32."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def slow(tmp_path_factory):
    """A larger one without a tokenizer, whose long generations give time to interrupt them."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "slow", "--head-dim", "64", "--layers", "6",
                           "--ffn-columns", "700", "--max-positions", "32768", "--no-tokenizer")
