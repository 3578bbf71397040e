"""The checkpoint that is part of the program: found from anywhere, and right at every degree."""

import os
import pathlib
import subprocess

import pytest

from conftest import BINARY, ROOT, Server, chat_text, pocket_examples, run_cohort

HEADS = 14
# (degree, dtype): the checkpoint is bf16; fp32 computes with the same weights.
CASES = [(1, "bf16"), (2, "fp32"), (5, "bf16"), (14, "bf16")]
if os.environ.get("COHORT_TEST_ALL"):
    CASES = [(tp, dtype) for tp in range(1, HEADS + 1) for dtype in ("bf16", "fp32")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("tp,dtype", CASES)
def test_the_examples_are_right_at_every_degree(tp, dtype):
    with Server("pocket", "--tp", tp, "--threads", "1", "--dtype", dtype) as server:
        for example in pocket_examples():
            result = server.generate("--prompt", chat_text(example["turns"]), "--max-tokens", "48")
            (output,) = result["outputs"]
            assert (output["text"], output["finish_reason"]) == (example["answer"], "stop"), (tp, example["turns"])


def test_pocket_is_the_default_in_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Server("--no-reflection") as server:  # a flag in the place of MODEL
        assert server.status()["state"] == "serving"
        answer = run_cohort("generate", "--server", server.address, "--model", "pocket", "--chat", "What is 47 + 38?",
                            check=0).stdout
        code, errors = server.stop()
    assert answer == "47 + 38 = 85.\n"
    assert code == 0 and "event=default_model model=pocket" in errors, errors


def test_a_damaged_copy_is_repaired(cache):
    tokens = run_cohort("tokenize", "pocket", "--text", "Hello", check=0).stdout
    (tokenizer,) = cache.glob("cohort/*/pocket/tokenizer.json")
    tokenizer.unlink()
    tokenizer.write_text("{", encoding="utf-8")
    assert run_cohort("tokenize", "pocket", "--text", "Hello", check=0).stdout == tokens
    source = ROOT / "deploy/pocket"
    for path in tokenizer.parent.iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes(), path.name


def test_the_hashes_are_those_of_the_files():
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=ROOT / "deploy/pocket",
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unwritable_cache_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "file")}
    done = subprocess.run([BINARY, "tokenize", "pocket", "--text", "x"], capture_output=True, text=True, timeout=60,
                          env=environment, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert str(pathlib.Path(tmp_path / "file" / "cohort")) in done.stderr
