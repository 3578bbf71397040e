"""YaRN and dual chunk attention by flag give what they give by config.json, and what the golden files say."""

import json
import shutil

import pytest

from conftest import ROOT, Server

GOLDEN = ROOT / "tests/golden"
FLAGS = ("--dtype", "fp32", "--threads", "1", "--block-size", "4", "--max-batch-tokens", "16")


def without(name, key, directory):
    """A copy of a golden checkpoint whose config.json lacks `key`."""
    copy = shutil.copytree(GOLDEN / name, directory / name)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    del config[key]
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


def longest_prompt(name):
    prompt = json.loads((GOLDEN / name / "golden.json").read_text(encoding="utf-8"))["prompts"][-1]
    return ",".join(map(str, prompt["ids"])), prompt["logprobs"], prompt["greedy"]["ids"]


def expect_golden(server, name):
    ids, logprobs, tokens = longest_prompt(name)
    # The bound of 32 tokens, in proportion (tests/runtime/qwen2_golden_test.cc).
    assert server.score("--token-ids", ids)[1:] == pytest.approx(logprobs, abs=1e-4 * len(logprobs) / 32)
    assert server.tokens("--token-ids", ids, "--max-tokens", len(tokens), "--ignore-eos") == tokens


@pytest.mark.parametrize("tp", [1, 2])
def test_yarn_by_config_and_by_flag(tp, tmp_path):
    with Server(GOLDEN / "yarn", *FLAGS, "--tp", tp) as server:
        expect_golden(server, "yarn")
    with Server(without("yarn", "rope_scaling", tmp_path), *FLAGS, "--tp", tp, "--rope-scaling", "yarn:4.0") as server:
        expect_golden(server, "yarn")


def test_yarn_auto_leaves_short_requests_alone(tmp_path):
    """32 positions without YaRN."""
    plain = without("yarn", "rope_scaling", tmp_path)
    short = ("--token-ids", "5,9,13,80,21,44,17,3,60,7", "--max-tokens", "20", "--ignore-eos")
    with Server(plain, *FLAGS) as server:
        expected = server.tokens(*short), server.score(*short[:2])[1:]
    with Server(plain, *FLAGS, "--rope-scaling", "yarn:4.0:32", "--yarn", "auto") as server:
        assert (server.tokens(*short), server.score(*short[:2])[1:]) == expected
        expect_golden(server, "yarn")
        assert (server.tokens(*short), server.score(*short[:2])[1:]) == expected
    with Server(GOLDEN / "yarn", *FLAGS) as server:
        assert server.score(*short[:2])[1:] != expected[1], "YaRN for all changes short texts too"


@pytest.mark.parametrize("tp", [1, 3])
def test_dual_chunks_by_config_and_by_flag(tp, tmp_path):
    with Server(GOLDEN / "dual-chunk", *FLAGS, "--tp", tp) as server:
        expect_golden(server, "dual-chunk")
    plain = without("dual-chunk", "dual_chunk_attention_config", tmp_path)
    with Server(plain, *FLAGS, "--tp", tp, "--dual-chunk", "11:3:20", "--max-model-len", "1000") as server:
        expect_golden(server, "dual-chunk")
        ids, _, tokens = longest_prompt("dual-chunk")
        again = server.generate("--token-ids", ids, "--max-tokens", len(tokens), "--ignore-eos")
        assert again["outputs"][0]["token_ids"] == tokens, "from the prefix cache"
        assert again["usage"]["cached_tokens"] == 68
