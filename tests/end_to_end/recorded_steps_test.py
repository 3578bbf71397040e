"""Decode steps that are recorded and run ahead: the same tokens as steps that are computed as they come."""

import concurrent.futures
import os
import signal

import pytest

from conftest import Server

GREEDY = ("--token-ids", "300,17,42,5,99,256,411,3", "--max-tokens", "24", "--ignore-eos")
KINDS = [
    (),
    ("--temperature", "0.8", "--top-k", "20", "--top-p", "0.9", "--seed", "7"),
    ("--temperature", "1.2", "--top-k", "100", "--seed", "8"),
    ("--temperature", "0.7", "--top-p", "0.9", "--seed", "9"),  # its records do not always tell the token
    ("--repetition-penalty", "1.2"),
]


def requests(count):
    return [("--token-ids", ",".join(str(20 + i * 7 + j) for j in range(3 + i)), "--max-tokens", str(10 + i),
             "--ignore-eos", *KINDS[i % len(KINDS)]) for i in range(count)]


def tokens_of_all(server, some):
    with concurrent.futures.ThreadPoolExecutor(len(some)) as clients:
        return list(clients.map(lambda request: server.tokens(*request), some))


@pytest.mark.parametrize("degrees", [("--tp", "1"), ("--tp", "2"), ("--tp", "2", "--dp", "2")])
def test_recorded_steps_give_the_same_tokens(tiny, degrees):
    some = requests(12)
    with Server(tiny, "--threads", "1", "--recorded-steps", "off") as server:
        expected = tokens_of_all(server, some)
    with Server(tiny, *degrees, "--threads", "1", "--recorded-steps", "on") as server:
        assert tokens_of_all(server, some) == expected
        assert [server.tokens(*request) for request in some[:3]] == expected[:3]
        status = server.status()
        assert all(rank["planned"] == rank["allocated"] for rank in status["ranks"]), status["ranks"]
        server.wait_until_idle()


def test_a_group_in_its_next_epoch_records_anew(tiny):
    with Server(tiny, "--tp", "2", "--threads", "1", "--recorded-steps", "on") as server:
        expected, old = server.tokens(*GREEDY), server.status()
        os.kill(server.rank_pids()[1], signal.SIGKILL)

        server.wait_for_an_epoch_after(old["epoch"])
        assert [server.tokens(*GREEDY) for _ in range(3)] == [expected] * 3
