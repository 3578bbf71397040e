"""The table of the GPU suite, and its steps on the emulated GPU. No times: what is held is that everything runs."""

import json
import os
import pathlib
import subprocess

import pytest

FOLDER = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("COHORT_BINARY", FOLDER.parent.parent / "build/bin/cohort")).parent.parent


def rows():
    lines = (FOLDER / "rows.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def table(tmp_path, *measurements):
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in measurements), encoding="utf-8")
    done = subprocess.run(["awk", "-f", FOLDER / "table.awk", FOLDER / "rows.tsv", file], capture_output=True, text=True,
                          check=True)
    return {cells[1]: cells[2:] for cells in ([cell.strip() for cell in line.split("|")] for line in
                                              done.stdout.splitlines()) if len(cells) > 2}


def test_every_row_is_in_the_results_and_has_a_step():
    results = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    script = (FOLDER / "run.sh").read_text(encoding="utf-8")
    for row, what, kind, _, _, step in rows():
        assert f"| {what} |" in results, row
        assert kind in ("figure", "copy", "product", "floor", "seconds", "rate", "ratio"), row
        assert f"  step {step} " in script, row


def test_the_table_divides_by_the_limits_of_the_same_run(tmp_path):
    limits = [{"row": "limit.copy", "seconds": 2, "bytes": 8e12}, {"row": "limit.product", "seconds": 1, "operations": 8e14}]
    measured = [{"row": "decode.Qwen2-7B.b1", "seconds": 4e-3, "bytes": 1.4e10, "operations": 1},
                {"row": "decode.Qwen2-7B.b64", "seconds": 8e-3, "bytes": 1.6e10, "operations": 5e12},
                {"row": "prefill.Qwen2-7B.4096", "seconds": 0.1, "bytes": 1, "operations": 4e13},
                {"row": "load.Qwen2-7B", "seconds": 0.5, "bytes": 1.5e10}, {"row": "start.Qwen2-7B", "seconds": 3},
                {"row": "peers.decode.eager", "ratio": 3.2}]
    cells = table(tmp_path, *limits, *measured)
    assert cells["decode, batch 1, 7B"][:3] == ["4.000 ms", "3.500 ms", "0.88"]
    assert cells["decode, batch 1, 7B"][5] == "**missed**"  # 0.875
    assert cells["decode, batch 64 at 1k context, 7B"][2] == "0.78"  # bound by operations, not bytes
    assert cells["prefill of 4,096 tokens, 7B"][2] == "0.50"
    assert cells["7B from the page cache to the device"][5] == "**missed**"
    assert cells["process start to first token, 7B"][5] == "**missed**"
    assert cells["decode, 7B, over transformers, eager"][5] == "met"
    assert "not yet run" in cells["decode, batch 1, 72B, embedding in host memory"][0]


def test_without_limits_nothing_is_met(tmp_path):
    cells = table(tmp_path, {"row": "decode.Qwen2-7B.b1", "seconds": 1e-9, "bytes": 1.4e10, "operations": 1})
    assert cells["decode, batch 1, 7B"][5] == "no limit measured"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    if not (BUILD / "cuda_emulator/lib/libcohort_cuda.so").exists():
        pytest.skip("the emulated GPU is not built")
    if os.environ.get("COHORT_SANITIZE"):
        pytest.skip("the programs run under sanitizers in tests of their own")
    folder = tmp_path_factory.mktemp("bundle")
    subprocess.run(["bash", FOLDER / "pack.sh", "--build", BUILD, "--emulated", "--output", folder / "suite.tar.gz"], check=True)
    subprocess.run(["tar", "xzf", "suite.tar.gz"], cwd=folder, check=True)
    return folder / "cohort-gpu-suite"


# In the place of the toolkit's programs, which this machine may not have: says how it was called, and runs what it was
# given. All options that the steps use have a value.
STAND_IN = """#!/usr/bin/env bash
echo "stand-in: $(basename "$0") $*"
while [[ "$1" == --* ]]; do shift 2; done
exec "$@"
"""


@pytest.fixture
def tools(tmp_path):
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("compute-sanitizer", "ncu"):
        (folder / name).write_text(STAND_IN, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def test_the_tools_of_the_toolkit_get_programs_that_they_can_run(bundle, tools, tmp_path):
    environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", BUNDLE=str(bundle), DRY="1", LOGS=str(tmp_path))
    for tool, step in (("compute-sanitizer", ["sanitizer", "memcheck"]), ("ncu", ["profile"])):
        done = subprocess.run(["bash", bundle / "suite/steps.sh", *step], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"stand-in: {tool} --" in done.stdout
        assert "PASSED" in done.stdout or '"row": "decode.' in done.stdout, done.stdout


@pytest.mark.parametrize("stage", ["check", "bench", "peers"])
def test_every_step_runs_on_the_emulated_gpu(bundle, tmp_path, stage):
    done = subprocess.run([bundle / "run.sh", stage, "--dry-run", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    logs = "\n".join(f"== {file.name}\n{file.read_text(encoding='utf-8', errors='replace')[-3000:]}"
                     for file in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, done.stdout + logs
