"""A group over two agents, on two loopback addresses and, where permitted, in two network namespaces."""

import calendar
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from conftest import BINARY, ROOT, Server, make_checkpoint, process_is_alive, run_cohort, wait_until

IDS = ("--token-ids", "300,17,42,5,99,256,411,3")
GREEDY = (*IDS, "--max-tokens", "16", "--ignore-eos")
LONG = ("--token-ids", "1,2,3", "--max-tokens", "20000", "--ignore-eos", "--json")
NOTICE_SECONDS = 2
# Where it is not the test, silence on a busy machine means nothing.
PATIENT = ("--agent-timeout", "20s")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """`cohort node`; its log goes to a file, which may be read at any time."""

    def __init__(self, log, port, *flags, prefix=(), host="127.0.0.1", environment=None, binary=BINARY):
        self.log = log
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                [*prefix, binary, "node", "--join", f"{host}:{port}", *flags], stdout=file, stderr=file,
                env={**os.environ, **(environment or {})})

    def text(self):
        return self.log.read_text(encoding="utf-8")

    def stop(self, signal_number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal_number)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def node(tmp_path, name, port, *flags, **keywords):
    started = Node(tmp_path / f"{name}.log", port, "--name", name, "--address", "127.0.0.2", *flags, **keywords)
    try:
        yield started
    finally:
        started.stop()


def cluster(port, *flags):
    return ("--agents", "2", "--cluster-listen", f"127.0.0.1:{port}", *flags)


def agents(server):
    return {agent["name"]: agent for agent in server.status()["agents"]}


def pids_of(server, agent):
    return [rank["pid"] for rank in server.status()["ranks"] if rank["agent"] == agent]


def wait_for_service(server, epoch):
    def serves():
        status = server.status()
        return status["state"] == "serving" and status["epoch"] >= epoch
    wait_until(serves, 60, f"epoch {epoch} serves")


def start_running_generation(server):
    client = subprocess.Popen([BINARY, "generate", "--server", server.address, *LONG],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: server.status()["running"] >= 1, 30, "the request runs")
    return client


def expect_unavailable(client, *words):
    out, errors = client.communicate(timeout=60)
    assert client.returncode == 1
    assert json.loads(out)["outputs"][0]["finish_reason"] == "error"
    assert b"UNAVAILABLE" in errors, errors
    for word in words:
        assert word.encode() in errors, errors


def seconds_from(start, log, event, *words):
    """From `start` (Unix time) to the first later line of the log with that event and these words."""
    for line in log.splitlines():
        matched = re.match(r"time=(\S+)\.(\d{3})Z level=\w+ event=(\w+)", line)
        if not matched or matched.group(3) != event or not all(word in line for word in words):
            continue
        at = calendar.timegm(time.strptime(matched.group(1), "%Y-%m-%dT%H:%M:%S")) + int(matched.group(2)) / 1000
        if at >= start - 0.001:
            return at - start
    raise AssertionError(f"no {event} with {words} after {start} in:\n{log}")


@pytest.mark.parametrize("tp, split", [(3, [[0, 1], [2]]), (4, [[0, 1], [2, 3]])])
def test_two_agents_give_what_one_gives(tiny, tmp_path, tp, split):
    flags = ("--tp", tp, "--threads", "1")
    with Server(tiny, *flags) as server:
        tokens, scores = server.tokens(*GREEDY), server.score(*IDS)
    port = free_port()
    with node(tmp_path, "b", port), Server(tiny, *flags, *cluster(port, *PATIENT)) as server:
        assert server.tokens(*GREEDY) == tokens
        assert server.score(*IDS) == scores, "to the bit: sums keep the order of the ranks"
        assert [agent["ranks"] for agent in server.status()["agents"]] == split
        there = agents(server)
        assert there["b"]["state"] == "joined" and there["b"]["address"] == "127.0.0.2"
        assert {rank["agent"] for rank in server.status()["ranks"]} == {"local", "b"}
        table = run_cohort("status", "--server", server.address, check=0).stdout
        assert re.search(r"^agent +b, joined, at 127.0.0.2, \d+ cores, ranks 2", table, re.MULTILINE), table


# Rank 0 and 1 here, 2 and 3 there: tensor groups on one node each, data groups on both; and the other way round.
@pytest.mark.parametrize("tp, dp", [(2, 2), (4, 1), (1, 4)])
def test_experts_on_two_agents_give_what_one_gives(tmp_path, tp, dp):
    checkpoint = ROOT / "tests/golden/ten-experts-step-two"
    flags = ("--tp", tp, "--dp", dp, "--ep", "4", "--threads", "1")
    prompt = ("--token-ids", "30,17,42,5", "--max-tokens", "12", "--ignore-eos")
    with Server(checkpoint, *flags) as server:
        tokens, scores = server.tokens(*prompt), server.score("--token-ids", "30,17,42,5")
    port = free_port()
    with node(tmp_path, "b", port), Server(checkpoint, *flags, *cluster(port, *PATIENT)) as server:
        assert [server.tokens(*prompt) for _ in range(2)] == [tokens] * 2
        assert server.score("--token-ids", "30,17,42,5") == scores, "to the bit: sums keep the order of the ranks"
        assert [agent["ranks"] for agent in server.status()["agents"]] == [[0, 1], [2, 3]]


def test_a_killed_node_is_reported_at_once_and_another_takes_its_place(slow, tmp_path):
    port = free_port()
    flags = ("--tp", "3", "--threads", "1")
    with node(tmp_path, "b", port) as victim, Server(slow, *flags, *cluster(port)) as server:
        expected = server.tokens(*GREEDY)
        own, others, epoch = pids_of(server, "local"), pids_of(server, "b"), server.status()["epoch"]
        assert len(own) == 2 and len(others) == 1
        client = start_running_generation(server)
        start = time.time()
        victim.process.kill()
        expect_unavailable(client, "'b'")
        wait_until(lambda: agents(server)["b"]["state"] == "lost", 10, "the loss shows")
        status = server.status()
        assert "agent 'b' at 127.0.0.2 was lost: its session ended" in status["awaited"]
        assert "1 more agent to join, of 2" in status["awaited"]
        wait_until(lambda: not any(map(process_is_alive, others)), 10, "its ranks are gone")
        with node(tmp_path, "c", port):
            wait_for_service(server, epoch + 1)
            assert pids_of(server, "local") == own, "the survivors keep their processes"
            assert server.tokens(*GREEDY) == expected
            server.wait_until_idle()
            assert server.stop()[0] == 0
    assert seconds_from(start, server.errors.decode(), "agent_lost", "agent=b") < NOTICE_SECONDS
    assert "cohort node --join" in server.errors.decode()


def test_a_silent_node_is_reported_in_two_seconds_and_joins_anew_when_it_wakes(slow, tmp_path):
    port = free_port()
    with node(tmp_path, "b", port) as stopped, Server(slow, "--tp", "2", *cluster(port)) as server:
        epoch, old = server.status()["epoch"], pids_of(server, "b")
        client = start_running_generation(server)
        start = time.time()
        stopped.process.send_signal(signal.SIGSTOP)
        expect_unavailable(client, "it was silent for")
        wait_until(lambda: agents(server)["b"]["state"] == "lost", 10, "the loss shows")
        stopped.process.send_signal(signal.SIGCONT)
        wait_for_service(server, epoch + 1)
        assert len(server.tokens(*GREEDY)) == 16
        assert not any(map(process_is_alive, old))
        assert server.stop()[0] == 0
    assert seconds_from(start, server.errors.decode(), "agent_lost", "agent=b") < NOTICE_SECONDS


def test_a_killed_rank_of_the_node_is_replaced_there(slow, tmp_path):
    port = free_port()
    with node(tmp_path, "b", port), Server(slow, "--tp", "2", *cluster(port, *PATIENT)) as server:
        expected, epoch = server.tokens(*GREEDY), server.status()["epoch"]
        own, (victim,) = pids_of(server, "local"), pids_of(server, "b")
        client = start_running_generation(server)
        os.kill(victim, signal.SIGKILL)
        expect_unavailable(client)
        wait_for_service(server, epoch + 1)
        assert pids_of(server, "local") == own
        assert pids_of(server, "b") != [victim]
        assert server.tokens(*GREEDY) == expected


def test_a_node_that_is_told_to_stop_leaves_nothing_behind(tiny, tmp_path):
    port = free_port()
    with Node(tmp_path / "b.log", port, "--name", "b").process as process:
        with Server(tiny, "--tp", "2", *cluster(port, *PATIENT)) as server:
            ranks = pids_of(server, "b")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
            assert not any(map(process_is_alive, ranks))
            wait_until(lambda: agents(server)["b"]["state"] == "lost", 10, "the loss shows")
            assert agents(server)["b"]["loss"].endswith("was lost: it was told to stop")


def test_a_node_joins_the_next_coordinator_too(tiny, tmp_path):
    port = free_port()
    with node(tmp_path, "b", port) as patient:
        first = Server(tiny, "--tp", "2", *cluster(port, *PATIENT))
        expected, ranks = first.tokens(*GREEDY), pids_of(first, "b")
        first.process.kill()
        first.finish_reading()
        wait_until(lambda: not any(map(process_is_alive, ranks)), 10, "its ranks are gone")
        for _ in range(2):  # after a crash, after a clean end
            with Server(tiny, "--tp", "2", *cluster(port, *PATIENT)) as server:
                assert server.tokens(*GREEDY) == expected
        assert patient.process.poll() is None


def refusal(tmp_path, port, *flags, environment=None):
    """The last line of a node that must not be let in."""
    refused = Node(tmp_path / "refused.log", port, "--join-timeout", "3s", *flags, environment=environment)
    assert refused.process.wait(timeout=60) == 1, refused.text()
    return refused.text().splitlines()[-1]


def test_nodes_that_do_not_fit_are_refused_by_name(tiny, tmp_path):
    port = free_port()
    token = tmp_path / "token"
    token.write_text("a-secret-of-this-test\n", encoding="utf-8")
    other = make_checkpoint(tmp_path / "other", "--seed", "4711")
    moved = shutil.copytree(tiny, tmp_path / "moved")
    with node(tmp_path, "b", port, "--model", str(moved), environment={"COHORT_JOIN_TOKEN": "a-secret-of-this-test"}), \
            Server(tiny, "--tp", "2", *cluster(port, *PATIENT, "--join-token-file", token)) as server:
        assert "join token" in refusal(tmp_path, port)
        assert "join token" in refusal(tmp_path, port, "--join-token", "a-secret-of-that-test")
        full = refusal(tmp_path, port, "--join-token-file", str(token))
        assert "the group has all its agents: 'b' at 127.0.0.2, 'local' at " in full
        namesake = refusal(tmp_path, port, "--join-token-file", str(token), "--name", "local")
        assert "an agent 'local' is there already" in namesake
        public = server.address.rsplit(":", 1)[1]
        assert "no cluster is served there" in refusal(tmp_path, public)
    with_token = ("--join-token-file", str(token))
    waiting = subprocess.Popen(
        [BINARY, "serve", str(tiny), "--listen", "127.0.0.1:0", "--tp", "2", *cluster(port, *with_token)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wrong = refusal(tmp_path, port, *with_token, "--model", str(other))
        assert re.search(r"is not the coordinator's: tensor \S+ is \S+ \[.*\], hash \w+ here and", wrong), wrong
        missing = refusal(tmp_path, port, *with_token, "--model", str(tmp_path / "nowhere"))
        assert "nowhere' is no checkpoint directory" in missing
    finally:
        waiting.send_signal(signal.SIGTERM)
        _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert f"cohort node --join 127.0.0.1:{port}" in errors.decode()
    assert "1 more agent to join, of 2" in errors.decode()


@pytest.mark.parametrize("flags, words", [
    (("--agents", "2"), "--agents 2 needs --cluster-listen"),
    (("--cluster-listen", "127.0.0.1:0"), "needs --agents of at least 2"),
    (("--agents", "3", "--cluster-listen", "127.0.0.1:0"), "--agents 3 is more than --tp 2"),
    (("--agents", "2", "--cluster-listen", "0.0.0.0:0"), "is every address"),
    (("--agents", "2", "--cluster-listen", "192.0.2.1:9100"), "needs --join-token-file"),
    (("--agents", "2", "--cluster-listen", "127.0.0.1:0", "--agents-timeout", "4s"),
     "the group did not form in time: waiting for 1 more agent to join, of 2"),
])
def test_a_cluster_that_cannot_be_is_refused_in_one_line(tiny, flags, words):
    done = run_cohort("serve", tiny, "--listen", "127.0.0.1:0", "--tp", "2", *flags, check=1)
    assert words in done.stderr.splitlines()[-1], done.stderr
    assert done.stdout == ""


# ---- Two network namespaces, joined by a cable that can be cut ----

def run_ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def cable():
    """The names of two namespaces whose addresses are 10.77.0.1 and 10.77.0.2; skips where there can be none."""
    names = [f"cohort-{os.getpid()}-{side}" for side in ("a", "b")]
    try:
        for name in names:
            run_ip("netns", "add", name)
        run_ip("link", "add", "end-a", "netns", names[0], "type", "veth", "peer", "name", "end-b", "netns", names[1])
        for name, end, address in zip(names, ("end-a", "end-b"), ("10.77.0.1", "10.77.0.2")):
            run_ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            run_ip("-n", name, "link", "set", end, "up")
            run_ip("-n", name, "link", "set", "lo", "up")
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_a_cut_cable_between_two_machines_is_noticed_and_mended(slow, tmp_path, cable):
    first, second = cable
    token = {"COHORT_JOIN_TOKEN": "a-secret-of-this-test"}
    inside = ("ip", "netns", "exec")
    log = tmp_path / "server.log"
    with open(log, "wb") as errors:
        server = subprocess.Popen(
            [*inside, first, BINARY, "serve", str(slow), "--listen", "127.0.0.1:9000", "--tp", "2", "--agents", "2",
             "--cluster-listen", "10.77.0.1:9100"], stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **token})
    other = Node(tmp_path / "node.log", 9100, "--name", "b", prefix=(*inside, second), host="10.77.0.1",
                 environment=token)

    def cohort(command, *arguments):
        return subprocess.run([*inside, first, BINARY, command, "--server", "127.0.0.1:9000", "--json", *arguments],
                              capture_output=True, timeout=120)

    def status():
        return json.loads(cohort("status").stdout)

    try:
        assert server.stdout.readline() == b"ready 127.0.0.1:9000\n", log.read_text()
        there = {agent["name"]: agent["address"] for agent in status()["agents"]}
        assert there == {"local": "10.77.0.1", "b": "10.77.0.2"}
        tokens = json.loads(cohort("generate", *GREEDY).stdout)["outputs"][0]["token_ids"]
        own = [rank["pid"] for rank in status()["ranks"] if rank["agent"] == "local"]
        start = time.time()
        run_ip("-n", second, "link", "set", "end-b", "down")
        wait_until(lambda: status()["state"] == "recovering", 30, "the cut shows")
        assert seconds_from(start, log.read_text(), "agent_lost", "agent=b", "silent") < NOTICE_SECONDS
        run_ip("-n", second, "link", "set", "end-b", "up")
        wait_until(lambda: status()["state"] == "serving", 60, "the group serves again")
        assert json.loads(cohort("generate", *GREEDY).stdout)["outputs"][0]["token_ids"] == tokens
        assert [rank["pid"] for rank in status()["ranks"] if rank["agent"] == "local"] == own
    except BaseException:
        print(log.read_text(), other.text(), sep="\n----\n", file=sys.stderr)
        raise
    finally:
        other.stop()
        server.terminate()
        server.wait(timeout=60)
    assert server.returncode == 0
