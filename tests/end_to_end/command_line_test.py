"""The command line as a user calls it: results on standard output, everything else on standard error."""

import json
import math
import os
import subprocess

import pytest

from conftest import BINARY, Server, make_checkpoint, run_cohort

PROMPT = "The river and the ranks"


@pytest.fixture(scope="module")
def server(tiny):
    with Server(tiny, "--tp", "2") as running:
        yield running


def test_generate_json_is_one_object_with_everything(server):
    result = server.generate("--prompt", PROMPT, "--max-tokens", "8", "--ignore-eos")
    (output,) = result["outputs"]
    assert len(output["token_ids"]) == 8 and output["finish_reason"] == "length"
    assert output["text"]
    assert result["usage"] == {"prompt_tokens": 5, "completion_tokens": 8, "cached_tokens": 0}
    assert all(value >= 0 for value in result["timing"].values())


def test_generate_streams_text(server):
    done = run_cohort("generate", "--server", server.address, "--prompt", PROMPT, "--max-tokens", "8", check=0)
    text = server.generate("--prompt", PROMPT, "--max-tokens", "8")["outputs"][0]["text"]
    assert done.stdout == text + "\n"


def test_greedy_is_the_default_and_a_seed_repeats_itself(server):
    greedy = server.tokens("--prompt", PROMPT, "--max-tokens", "12", "--ignore-eos")
    assert greedy == server.tokens("--prompt", PROMPT, "--max-tokens", "12", "--ignore-eos", "--temperature", "0")
    flags = ("--prompt", PROMPT, "--max-tokens", "12", "--ignore-eos", "--temperature", "1.5", "--seed", "7")
    assert server.tokens(*flags) == server.tokens(*flags)
    assert server.tokens(*flags) != server.tokens(*flags[:-1], "8")


def test_prompt_file_chat_and_token_ids(server, tiny, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text(PROMPT, encoding="utf-8")
    ids = json.loads(run_cohort("tokenize", tiny, "--text", PROMPT, "--json", check=0).stdout)["token_ids"]
    expected = server.tokens("--prompt", PROMPT, "--max-tokens", "6")
    assert server.tokens("--prompt-file", path, "--max-tokens", "6") == expected
    assert server.tokens("--token-ids", ",".join(map(str, ids)), "--max-tokens", "6") == expected
    chat = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
            "<|im_start|>assistant\n")
    assert server.tokens("--chat", "Hello", "--max-tokens", "6") == server.tokens("--prompt", chat, "--max-tokens", "6")


def test_score_gives_log_probabilities(server):
    done = run_cohort("score", "--server", server.address, "--prompt", PROMPT, "--json", check=0)
    result = json.loads(done.stdout)
    assert len(result["token_ids"]) == len(result["logprobs"]) == 5
    assert result["logprobs"][0] is None
    assert all(math.isfinite(value) and value <= 0 for value in result["logprobs"][1:])


def test_status_tells_ranks_and_blocks(server):
    status = server.status()
    assert status["state"] == "serving" and status["epoch"] >= 1
    assert status["kv_blocks_total"] > 0 and status["kv_blocks_used"] == 0
    assert [rank["rank"] for rank in status["ranks"]] == [0, 1]
    assert "serving" in run_cohort("status", "--server", server.address, check=0).stdout


def test_version_and_help():
    assert run_cohort("version", check=0).stdout.strip()
    assert "--tp" in run_cohort("serve", "--help", check=0).stdout


@pytest.mark.parametrize("arguments", [
    (), ("nothing",), ("generate", "--server", "127.0.0.1:1"),
    ("serve", "somewhere", "--tp", "two"), ("serve", "somewhere", "--kv-memory", "many"),
    ("serve", "somewhere", "--listen", "nowhere"), ("generate", "--server", "127.0.0.1:1", "--token-ids", "1,x"),
])
def test_usage_errors_exit_with_2(arguments):
    done = run_cohort(*arguments)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_a_server_that_is_not_there_is_an_error():
    done = run_cohort("status", "--server", "127.0.0.1:1", check=1)
    assert "127.0.0.1:1" in done.stderr and not done.stdout


def test_without_a_tokenizer_ids_work_and_text_is_refused(tmp_path):
    with Server(make_checkpoint(tmp_path / "ids", "--no-tokenizer")) as server:
        assert len(server.tokens("--token-ids", "1,2,3", "--max-tokens", "4", "--ignore-eos")) == 4
        done = run_cohort("generate", "--server", server.address, "--prompt", "text", check=1)
        assert "FAILED_PRECONDITION" in done.stderr and "tokenizer" in done.stderr


def test_dummy_weights_need_only_a_config(tiny, tmp_path):
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    tokens = []
    for tp in ("1", "2"):
        with Server(tmp_path, "--load-format", "dummy", "--tp", tp) as server:
            tokens.append(server.tokens("--token-ids", "5,6,7", "--max-tokens", "8", "--ignore-eos"))
    assert tokens[0] == tokens[1]


def test_cuda_without_a_gpu_says_so_in_one_line(tiny):
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    done = subprocess.run([BINARY, "serve", tiny, "--device", "cuda"], capture_output=True, timeout=30)
    assert done.returncode == 1 and done.stdout == b""
    errors = done.stderr.decode().strip().splitlines()
    assert len(errors) == 1 and "cuda" in errors[0].lower(), errors
