"""Lost ranks, a lost coordinator, stopping under load: nothing is left behind and the group comes back."""

import json
import os
import signal
import subprocess
import time

import pytest

from conftest import BINARY, Server, process_is_alive, wait_until

LONG = ("--token-ids", "1,2,3", "--max-tokens", "20000", "--ignore-eos", "--json")


def start_generation(server, *flags):
    return subprocess.Popen([BINARY, "generate", "--server", server.address, *(flags or LONG)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def start_running_generation(server):
    client = start_generation(server)
    wait_until(lambda: server.status()["running"] >= 1, 30, "the request runs")
    return client


def shared_memory():
    return set(os.listdir("/dev/shm"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_requests_and_the_group_comes_back(slow, victim):
    before = shared_memory()
    with Server(slow, "--tp", "2") as server:
        expected = server.tokens("--token-ids", "4,5,6", "--max-tokens", "8", "--ignore-eos")
        old = server.status()
        client = start_running_generation(server)
        pids = server.rank_pids()
        os.kill(pids[victim], signal.SIGKILL)
        out, errors = client.communicate(timeout=60)
        assert client.returncode == 1
        assert json.loads(out)["outputs"][0]["finish_reason"] == "error"
        assert b"UNAVAILABLE" in errors and str(pids[victim]).encode() in errors, errors

        server.wait_for_an_epoch_after(old["epoch"])
        new = server.rank_pids()
        assert new[1 - victim] == pids[1 - victim], "the survivor keeps its process"
        assert new[victim] != pids[victim]
        assert server.tokens("--token-ids", "4,5,6", "--max-tokens", "8", "--ignore-eos") == expected
        server.wait_until_idle()
    assert shared_memory() <= before


def test_ranks_do_not_outlive_a_killed_coordinator(slow):
    before = shared_memory()
    server = Server(slow, "--tp", "3")
    client = start_running_generation(server)
    pids = server.rank_pids()
    server.process.kill()
    server.finish_reading()
    wait_until(lambda: not any(map(process_is_alive, pids)), 10, "ranks are gone")
    assert client.wait(timeout=60) == 1
    assert shared_memory() <= before


def test_sigterm_lets_streams_finish(slow):
    with Server(slow, "--tp", "2") as server:
        client = start_generation(server, "--token-ids", "1,2,3", "--max-tokens", "300", "--ignore-eos", "--json")
        wait_until(lambda: server.status()["running"] >= 1, 30, "the request runs")
        server.process.send_signal(signal.SIGTERM)
        out, _ = client.communicate(timeout=60)
        assert client.returncode == 0
        assert len(json.loads(out)["outputs"][0]["token_ids"]) == 300
        server.finish_reading()
        assert server.process.returncode == 0


def test_sigterm_under_load_ends_at_the_drain_timeout(slow):
    before = shared_memory()
    server = Server(slow, "--tp", "2", "--drain-timeout", "1s")
    clients = [start_generation(server) for _ in range(4)]
    wait_until(lambda: server.status()["running"] >= 4, 30, "all requests run")
    pids = server.rank_pids()
    start = time.monotonic()
    code, errors = server.stop()
    assert code == 0, errors
    assert time.monotonic() - start < 15
    assert [client.wait(timeout=30) for client in clients] == [1] * 4
    wait_until(lambda: not any(map(process_is_alive, pids)), 10, "ranks are gone")
    assert shared_memory() <= before


def test_an_interrupted_client_frees_its_blocks(slow):
    with Server(slow) as server:
        client = start_running_generation(server)
        client.send_signal(signal.SIGINT)
        client.wait(timeout=30)
        server.wait_until_idle()
