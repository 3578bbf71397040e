"""The same tokens and log-probabilities at every degree, against the world of one."""

import os

import pytest

from conftest import Server, make_checkpoint

# Heads, KV heads, head size, FFN columns: even and odd cuts, fewer KV heads than ranks.
SHAPES = {
    "tiny": ("4", "2", "16", "176"),
    "odd": ("5", "1", "8", "37"),
    "wide": ("14", "2", "16", "200"),
}
DEGREES = {"tiny": (2, 3, 4), "odd": (2, 3, 5), "wide": (8, 14)}
if os.environ.get("COHORT_TEST_ALL"):
    DEGREES = {name: range(2, int(shape[0]) + 1) for name, shape in SHAPES.items()}

IDS = "300,17,42,5,99,256,411,3"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("head", ["untied", "tied"])
def test_every_degree_gives_the_same(name, head, tmp_path):
    heads, kv_heads, head_dim, columns = SHAPES[name]
    checkpoint = make_checkpoint(
        tmp_path / name, "--query-heads", heads, "--kv-heads", kv_heads, "--head-dim", head_dim,
        "--ffn-columns", columns, "--layers", "2", *(["--tied"] if head == "tied" else []))
    with Server(checkpoint) as server:
        tokens = server.tokens("--token-ids", IDS, "--max-tokens", "24", "--ignore-eos")
        scores = server.score("--token-ids", IDS)
    for tp in DEGREES[name]:
        with Server(checkpoint, "--tp", tp, "--threads", "1") as server:
            assert server.tokens("--token-ids", IDS, "--max-tokens", "24", "--ignore-eos") == tokens, tp
            assert server.score("--token-ids", IDS)[1:] == pytest.approx(scores[1:], abs=1e-4), tp


def test_a_small_step_budget_changes_nothing(tiny):
    prompt = ("--prompt", "She opened the window, looked at the green hills and the old stone bridge. " * 4)
    with Server(tiny) as server:
        whole = server.tokens(*prompt, "--max-tokens", "16", "--ignore-eos")
    with Server(tiny, "--max-batch-tokens", "7", "--block-size", "4", "--tp", "3") as server:
        assert server.tokens(*prompt, "--max-tokens", "16", "--ignore-eos") == whole


def test_bfloat16_serves_too(tiny):
    tokens = []
    for tp in (1, 2):
        with Server(tiny, "--dtype", "bf16", "--tp", tp) as server:
            tokens.append(server.tokens("--token-ids", IDS, "--max-tokens", "4", "--ignore-eos"))
    assert tokens[0] == tokens[1]
