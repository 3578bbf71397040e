"""The pocket mixture of experts: right at every layout of its experts, whole or cut."""

import os
import subprocess

import pytest

from conftest import ROOT, Server, chat_text, pocket_examples

MODEL = ROOT / "deploy/pocket-moe"
# (tp, dp, ep). With COHORT_TEST_ALL also experts cut over ranks, and unequal counts (16 on 3 groups).
LAYOUTS = [(1, 1, 1), (2, 1, 2), (1, 2, 2)]
if os.environ.get("COHORT_TEST_ALL"):
    LAYOUTS += [(2, 1, 1), (3, 1, 3), (4, 1, 2), (4, 1, 4), (2, 2, 4), (2, 2, 2)]


@pytest.mark.parametrize("tp,dp,ep", LAYOUTS)
def test_the_examples_are_right_at_every_layout(tp, dp, ep):
    with Server(MODEL, "--tp", tp, "--dp", dp, "--ep", ep, "--threads", "1") as server:
        for example in pocket_examples():
            result = server.generate("--prompt", chat_text(example["turns"]), "--max-tokens", "48")
            (output,) = result["outputs"]
            assert (output["text"], output["finish_reason"]) == (example["answer"], "stop"), example["turns"]


def test_the_hashes_are_those_of_the_files():
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=MODEL, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
