"""`cohort chat` in a terminal (a pseudo-terminal here) and behind a pipe."""

import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from conftest import BINARY, Server, make_checkpoint, process_is_alive, run_cohort, wait_until


@pytest.fixture(scope="module")
def server(tiny):
    with Server(tiny, "--tp", "2") as running:
        yield running


class Terminal:
    """`cohort chat` with a terminal of its own."""

    def __init__(self, server, *flags):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(BINARY, [BINARY, "chat", "--server", server.address, *flags])
        self.screen = ""

    def read_until(self, pattern, seconds=60):
        """Everything up to and including a match of `pattern`, which is taken off the screen."""
        end = time.monotonic() + seconds
        while True:
            matched = re.search(pattern, self.screen)
            if matched:
                text, self.screen = self.screen[:matched.end()], self.screen[matched.end():]
                return text
            readable, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert readable, f"no {pattern!r} within {seconds} s: {self.screen!r}"
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the other end is closed
                data = b""
            assert data, f"the program ended before {pattern!r}: {self.screen!r}"
            self.screen += data.decode().replace("\r\n", "\n")

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self, seconds=30):
        """The exit code, once the program has ended by itself."""
        def ended():
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return (status,) if pid else None
        (status,) = wait_until(ended, seconds, "the program ends")
        self.pid = None
        return os.waitstatus_to_exitcode(status)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid is not None and process_is_alive(self.pid):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def answer_in(text):
    """The line before the figures. What was typed may stand twice above it: a terminal echoes what comes before the
    program reads it character by character."""
    return text.split("\x1b[2m")[0].rstrip("\n").splitlines()[-1]


def test_a_conversation_in_a_terminal(server):
    with Terminal(server, "--max-tokens", "6") as terminal:
        assert "/help" in terminal.read_until(">>> ")
        terminal.type("Hello\n")
        answer = terminal.read_until(">>> ")
        assert re.search(r"6 tokens, [\d.]+ tokens/s, first token \d+ ms, \d+ of \d+ prompt tokens cached", answer), answer
        assert "cut at --max-tokens 6" in answer and "\x1b[2m" in answer
        terminal.type("/retry\n")
        again = terminal.read_until(">>> ")
        assert answer_in(again) == answer_in(answer), "greedy answers repeat themselves"
        terminal.type("two \\\n")
        terminal.read_until(r"\.\.\. ")
        terminal.type("lines\n")
        longer = terminal.read_until(">>> ")
        prompt_tokens = [int(re.search(r"of (\d+) prompt tokens", text).group(1)) for text in (answer, longer)]
        assert prompt_tokens[1] > prompt_tokens[0] + 6, "the conversation is part of the prompt"
        terminal.type("/reset\nHello\n")
        terminal.read_until(">>> ")
        assert f"of {prompt_tokens[0]} prompt tokens" in terminal.read_until(">>> ")
        terminal.type("/nothing\n")
        assert "/nothing is not an instruction" in terminal.read_until(">>> ")
        terminal.type("/help\n")
        assert "/system TEXT" in terminal.read_until(">>> ")
        terminal.type("\x04")  # Ctrl-D
        assert terminal.wait() == 0


def test_ctrl_d_before_the_prompt_ends_the_program(server):
    with Terminal(server) as terminal:
        terminal.type("\x04")  # the terminal still reads whole lines, where this is not a character
        assert terminal.wait() == 0


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A server whose answers take long enough to be stopped, and fill a context of 8,192 tokens."""
    model = make_checkpoint(tmp_path_factory.mktemp("endless") / "model", "--max-positions", "8192", "--layers", "6",
                            "--head-dim", "64")
    (model / "config.json").write_text((model / "config.json").read_text(encoding="utf-8").replace(
        '"eos_token_id"', '"unused"'), encoding="utf-8")
    (model / "generation_config.json").unlink(missing_ok=True)
    with Server(model) as running:
        yield running


def test_ctrl_c_stops_an_answer_and_then_the_program(endless):
    with Terminal(endless, "--temperature", "5") as terminal:
        terminal.read_until(">>> ")
        terminal.type("Hello\n")
        terminal.read_until(r"Hello\n(?:Hello\n)?+(?!(?:H|He|Hel|Hell|Hello)\Z).")  # the answer's first character
        terminal.type("\x03")
        assert "[stopped]" in terminal.read_until(">>> ")
        endless.wait_until_idle()
        terminal.type("\x03")
        assert terminal.wait() == 0


def test_a_full_context_says_how_to_go_on(tmp_path):
    with Server(make_checkpoint(tmp_path / "model"), "--max-model-len", "64") as server:
        with Terminal(server) as terminal:
            terminal.read_until(">>> ")
            terminal.type("word " * 60 + "\n")
            assert "/reset" in terminal.read_until(">>> ")
            terminal.type("Hello\n")
            terminal.read_until(">>> ")
            terminal.type("/exit\n")
            assert terminal.wait() == 0


def test_a_pipe_gets_one_answer_per_line(server):
    messages = "Hello\n\nHello again\n/reset\nHello\n"
    done = subprocess.run([BINARY, "chat", "--server", server.address, "--max-tokens", "5"], input=messages.encode(),
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.decode().splitlines()
    text = server.generate("--chat", "Hello", "--max-tokens", "5")["outputs"][0]["text"]
    assert answers[0] == text.splitlines()[0]
    assert done.stdout.decode().startswith(text + "\n") and done.stdout.decode().endswith("\n" + text + "\n")
    assert b">>>" not in done.stdout and b"\x1b" not in done.stdout


def test_the_system_message_is_part_of_the_prompt(server):
    flags = ("--max-tokens", "5", "--system", "Speak of rivers.")
    done = subprocess.run([BINARY, "chat", "--server", server.address, *flags], input=b"Hello\n", capture_output=True, timeout=60)
    prompt = ("<|im_start|>system\nSpeak of rivers.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
              "<|im_start|>assistant\n")
    assert done.stdout.decode() == server.generate("--prompt", prompt, "--max-tokens", "5")["outputs"][0]["text"] + "\n"


def test_a_fault_ends_a_pipe_with_an_error(server):
    done = subprocess.run([BINARY, "chat", "--server", server.address, "--top-p", "2"], input=b"Hello\nHello\n",
                          capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode().count("sampling.top_p") == 1
    assert "127.0.0.1:1" in run_cohort("chat", "--server", "127.0.0.1:1", check=1).stderr
