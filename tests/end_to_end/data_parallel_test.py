"""Groups of ranks that serve requests of their own: the same tokens, all groups at work, prefixes, lost ranks."""

import concurrent.futures
import json
import os
import re
import signal
import subprocess

import pytest

from conftest import BINARY, ROOT, Server, run_cohort, wait_until

IDS = ("--token-ids", "300,17,42,5,99,256,411,3")
GREEDY = (*IDS, "--max-tokens", "24", "--ignore-eos")
LONG = ("--token-ids", "1,2,3", "--max-tokens", "20000", "--ignore-eos", "--json")


def prompts(count):
    return [("--token-ids", ",".join(str(20 + i * 7 + j) for j in range(3 + i)), "--max-tokens", "16", "--ignore-eos")
            for i in range(count)]


def tokens_of_all(server, requests):
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as clients:
        return list(clients.map(lambda request: server.tokens(*request), requests))


@pytest.mark.parametrize("tp", [1, 2])
def test_two_groups_give_what_one_rank_gives_and_both_work(tiny, tp):
    requests = prompts(8)
    with Server(tiny, "--threads", "1") as server:
        expected, alone, scores = tokens_of_all(server, requests), server.tokens(*GREEDY), server.score(*IDS)
    with Server(tiny, "--tp", tp, "--dp", "2", "--threads", "1") as server:
        assert [server.tokens(*GREEDY) for _ in range(2)] == [alone] * 2
        assert server.score(*IDS)[1:] == pytest.approx(scores[1:], abs=1e-4)
        assert tokens_of_all(server, requests) == expected
        status = server.status()
        ranks = list(range(2 * tp))
        assert [group["ranks"] for group in status["groups"]] == [ranks[:tp], ranks[tp:]]
        assert all(group["prompt_tokens"] > 0 for group in status["groups"]), status["groups"]
        assert status["kv_blocks_total"] == sum(group["kv_blocks_total"] for group in status["groups"])
        assert len(status["ranks"]) == 2 * tp
        table = run_cohort("status", "--server", server.address, check=0).stdout
        assert re.search(rf"^group 1 +ranks {', '.join(map(str, ranks[tp:]))}, 0 running", table, re.MULTILINE), table
        server.wait_until_idle()


def test_requests_go_back_to_the_group_that_knows_their_prefix(tiny):
    shared = ",".join(str(100 + i) for i in range(64))
    with Server(tiny, "--dp", "2", "--threads", "1") as server:
        for last in range(4):
            server.tokens("--token-ids", f"{shared},{last}", "--max-tokens", "2", "--ignore-eos")
        groups = server.status()["groups"]
        assert sorted(group["prefix_hit_tokens"] for group in groups) == [0, 3 * 64], groups


@pytest.mark.parametrize("victim", [0, 3])
def test_a_killed_rank_of_either_group_is_replaced_and_the_others_keep_theirs(slow, victim):
    with Server(slow, "--tp", "2", "--dp", "2", "--threads", "1") as server:
        expected, old = server.tokens(*GREEDY), server.status()
        client = subprocess.Popen([BINARY, "generate", "--server", server.address, *LONG],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: server.status()["running"] >= 1, 30, "the request runs")
        pids = server.rank_pids()
        os.kill(pids[victim], signal.SIGKILL)
        out, errors = client.communicate(timeout=60)
        assert json.loads(out)["outputs"][0]["finish_reason"] == "error"
        assert b"UNAVAILABLE" in errors and str(pids[victim]).encode() in errors, errors

        server.wait_for_an_epoch_after(old["epoch"])
        new = server.rank_pids()
        assert [new[i] == pids[i] for i in range(4)] == [i != victim for i in range(4)]
        assert [server.tokens(*GREEDY) for _ in range(2)] == [expected] * 2
        server.wait_until_idle()


def test_groups_that_cannot_be_are_refused_in_one_line(tiny):
    done = run_cohort("serve", tiny, "--listen", "127.0.0.1:0", "--tp", "2", "--dp", "5000", check=1)
    assert "--dp 5000 is outside 1 to 2048" in done.stderr.splitlines()[-1], done.stderr


# One data-parallel group has most of the work and the other little or none.
@pytest.mark.parametrize("tp, dp, ep, exchange", [(1, 2, 2, "auto"), (2, 2, 4, "auto"), (2, 2, 2, "replicated")])
def test_groups_share_their_experts(tp, dp, ep, exchange):
    checkpoint = ROOT / "tests/golden/ten-experts-step-two"
    requests = [("--token-ids", ",".join(str(3 + i * 5 + j) for j in range(2 + i)), "--max-tokens", "8", "--ignore-eos")
                for i in range(5)]
    with Server(checkpoint, "--threads", "1") as server:
        expected, scores = [server.tokens(*request) for request in requests], server.score("--token-ids", "5,9,17,2")
    with Server(checkpoint, "--tp", tp, "--dp", dp, "--ep", ep, "--threads", "1",
                "--expert-exchange", exchange) as server:
        assert server.tokens(*requests[4]) == expected[4], "alone: the other group is idle"
        assert tokens_of_all(server, requests) == expected
        assert server.score("--token-ids", "5,9,17,2")[1:] == pytest.approx(scores[1:], abs=1e-4)
        assert all(group["prompt_tokens"] > 0 for group in server.status()["groups"])
