"""What `cohort plan` says beforehand and what `cohort serve` then takes."""

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
