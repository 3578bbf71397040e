"""What `cohort plan` says beforehand and what `cohort serve` then takes."""

import json
import xml.etree.ElementTree

import pytest

from conftest import Server, run_cohort

KINDS = ("weight_bytes", "kv_bytes", "workspace_bytes")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("tp", [1, 3])
def test_status_shows_plan_and_actual_side_by_side(tp):
    with Server("pocket", "--tp", tp, "--threads", 1, "--kv-memory", "8MiB") as server:
        ranks = server.status()["ranks"]
        table = run_cohort("status", "--server", server.address, check=0).stdout
    assert len(ranks) == tp
    for rank in ranks:
        assert rank["allocated"]["weight_bytes"] == rank["weight_bytes"] > 0
        assert rank["allocated"]["kv_bytes"] == rank["kv_bytes"] > 0
        for kind in KINDS:
            assert rank["allocated"][kind] == pytest.approx(rank["planned"][kind], rel=0.03), (rank, kind)
    assert table.count("MiB planned / allocated: weights ") == tp, table


def plan(*arguments, check=0):
    return json.loads(run_cohort("plan", *arguments, "--json", check=check).stdout)


@pytest.mark.parametrize("tp", [1, 3])
def test_a_server_takes_what_the_plan_says(tp):
    planned = plan("pocket", "--gpu", "CPU", "--tp", tp, "--context", 500)
    assert planned["fits"] and len(planned["ranks"]) == tp
    with Server("pocket", "--tp", tp, "--threads", 1, "--max-model-len", 500, "--kv-memory", "8MiB") as server:
        ranks = server.status()["ranks"]
    for rank, expected in zip(ranks, planned["ranks"], strict=True):
        for kind in ("weight_bytes", "workspace_bytes"):
            assert rank["allocated"][kind] == pytest.approx(expected[kind], rel=0.03), kind
        blocks = rank["allocated"]["kv_bytes"] / (16 * expected["kv_bytes_per_token"])
        assert blocks == int(blocks) > 0


@pytest.mark.parametrize("model", ["Qwen2-0.5B", "Qwen2-1.5B", "Qwen2-7B", "Qwen2-57B-A14B", "Qwen2-72B"])
def test_every_published_model_is_planned_by_name(model):
    planned = plan(model, "--gpus", 8, "--gpu", "H100")
    assert planned["fits"] and planned["missing_bytes"] == 0
    weights = sum(rank["weight_bytes"] for rank in planned["ranks"])
    assert weights == planned["checkpoint_bytes"] + planned["replicated_bytes"]
    assert planned["alternatives"] and planned["why"]


def test_what_cannot_fit_ends_with_3_and_says_what_would():
    planned = plan("Qwen2-72B", "--gpu", "H100", check=3)
    assert not planned["fits"] and planned["missing_bytes"] > 0
    (gpus,) = [change["value"] for change in planned["changes"] if change["change"] == "gpus"]
    assert plan("Qwen2-72B", "--gpu", "H100", "--gpus", gpus)["fits"]
    table = run_cohort("plan", "Qwen2-72B", "--gpu", "H100", check=3).stdout
    assert f"fits with --gpus {gpus} " in table, table


def test_usage_errors_name_the_value():
    for arguments, says in [(("Qwen2-9B",), "'Qwen2-9B' is neither"), (("Qwen2-7B", "--tp", 29), "tp is 29"),
                            (("Qwen2-7B", "--gpus", 8, "--tp", 4, "--dp", 4), "is 16 ranks; there are 8 GPUs")]:
        assert says in run_cohort("plan", *arguments, check=1).stderr
    assert "'x' is not an integer" in run_cohort("plan", "Qwen2-7B", "--gpus", "x", check=2).stderr


def test_the_picture_is_well_formed(tmp_path):
    for gpus in (1, 8, 64):
        file = tmp_path / f"{gpus}.svg"
        run_cohort("plan", "Qwen2-57B-A14B", "--gpu", "B200", "--gpus", gpus, "--svg", file, check=0)
        assert xml.etree.ElementTree.parse(file).getroot().tag.endswith("svg")
