"""Mixture of experts as processes: the reference's answers wherever the experts lie, loads, refusals."""

import json
import re

import pytest

from conftest import ROOT, Server, run_cohort

CHECKPOINT = ROOT / "tests/golden/ten-experts-step-two"
GOLDEN = json.loads((CHECKPOINT / "golden.json").read_text(encoding="utf-8"))


def ids_of(prompt):
    return ("--token-ids", ",".join(map(str, prompt["ids"])))


@pytest.mark.parametrize("tp, ep", [(1, 1), (3, 3), (4, 2)])
def test_answers_are_the_reference_s_and_every_choice_is_counted(tp, ep):
    with Server(CHECKPOINT, "--tp", tp, "--ep", ep, "--threads", "1") as server:
        rows = 0
        for prompt in GOLDEN["prompts"][1:]:
            assert server.score(*ids_of(prompt))[1:] == pytest.approx(prompt["logprobs"], abs=1e-4)
            wanted = prompt["greedy"]["ids"]
            assert min(prompt["greedy"]["margins"]) > 1e-3
            assert server.tokens(*ids_of(prompt), "--max-tokens", len(wanted), "--ignore-eos") == wanted
            rows += len(prompt["ids"])
        hits = server.status()["expert_hits"]
        assert len(hits) == 10
        # 4 experts of a row in each of 2 sparse layers, of which the last leaves out rows that nobody asked for.
        assert sum(hits) % 4 == 0 and sum(hits) > rows * 4, hits
        table = run_cohort("status", "--server", server.address, check=0).stdout
        assert re.search(r"^experts +10, the busiest \d+ with \d+\.\d\d times the mean", table, re.MULTILINE), table


def test_other_groups_are_refused_with_the_legal_ones(tiny):
    for model, flags, says in (
            (CHECKPOINT, ("--tp", "4", "--ep", "3"), "--ep 3 does not divide the number of ranks, 4: 1, 2, 4 do"),
            (tiny, ("--tp", "2", "--ep", "2"), "has no experts")):
        done = run_cohort("serve", model, *flags, "--listen", "127.0.0.1:0")
        assert done.returncode != 0 and says in done.stderr, done.stderr
