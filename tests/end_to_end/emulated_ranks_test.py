"""Several ranks on GPUs that the host's threads play: one GPU each, or one for all."""

import json
import os
import pathlib
import re
import signal
import subprocess

import pytest

from conftest import BINARY, Server, process_is_alive, wait_until
from experts_test import CHECKPOINT as EXPERTS, GOLDEN, ids_of
from second_node_test import PATIENT, free_port, node

EMULATED = pathlib.Path(BINARY).parent.parent / "cuda_emulator/bin/cohort"
IDS = ("--token-ids", "300,17,42,5,99,256,411,3", "--max-tokens", "6", "--ignore-eos")

# Choices by the clock take their time here, and mean nothing.
NOT_BY_THE_CLOCK = ("--product-tuning", "off", "--reduction-sizes", "usual")

pytestmark = pytest.mark.skipif(not EMULATED.exists(), reason="the emulated GPU is not built")


def with_gpus(count):
    return {"COHORT_EMULATOR_DEVICES": str(count), "COHORT_EMULATOR_MEMORY_MIB": "8192"}


def serve(model, gpus, *flags, tuning=NOT_BY_THE_CLOCK):
    return Server(model, "--device", "cuda", *tuning, *flags, binary=str(EMULATED), variables=with_gpus(gpus))


def refusal(model, gpus, *flags):
    done = subprocess.run([str(EMULATED), "serve", str(model), "--listen", "127.0.0.1:0", "--device", "cuda", *flags],
                          capture_output=True, timeout=120, env={**os.environ, **with_gpus(gpus)})
    assert done.returncode == 1, done
    return done.stderr.decode()


@pytest.fixture(scope="module")
def expected(tiny):
    with Server(tiny, "--device", "cpu") as server:
        return server.tokens(*IDS)


def test_ranks_with_a_gpu_each_give_the_tokens_of_the_cpu(tiny, expected):
    sizes = ("--product-tuning", "off", "--reduction-sizes", "64KiB:128KiB")
    with serve(tiny, 2, "--tp", "2", "--require-nvlink", tuning=sizes) as server:
        assert server.tokens(*IDS) == expected
        for rank in server.status()["ranks"]:
            assert rank["device"].startswith(f"cuda:{rank['rank']} "), rank
            peer = 1 - rank["rank"]
            assert rank["transport"] == (f"NVLink (P2P/CUMEM) to rank {peer}; small reductions over peer memory "
                                         "(one shot to 65536, two to 131072 bytes)")


def test_three_ranks_share_a_gpu(tiny, expected):
    with serve(tiny, 1, "--tp", "3", "--allow-shared-gpu") as server:
        assert server.tokens(*IDS) == expected
        ranks = server.status()["ranks"]
        assert all(rank["device"].startswith("cuda:0 ") for rank in ranks)
        assert ranks[1]["transport"] == "the same GPU (NET/Socket) to rank 0, 2"


def test_the_id_of_a_group_travels_between_nodes(tiny, expected, tmp_path):
    port = free_port()
    with node(tmp_path, "b", port, binary=str(EMULATED), environment=with_gpus(1)):
        with serve(tiny, 1, "--tp", "2", "--allow-shared-gpu", "--agents", "2", "--cluster-listen",
                   f"127.0.0.1:{port}", *PATIENT) as server:
            assert server.tokens(*IDS) == expected
            ranks = server.status()["ranks"]
            assert [rank["agent"] for rank in ranks] == ["local", "b"]
            assert ranks[1]["transport"] == "the same GPU (NET/Socket) to rank 0"


def test_groups_of_one_rank_join_nobody(tiny, expected):
    with serve(tiny, 2, "--dp", "2") as server:
        assert server.tokens(*IDS) == expected
        assert [rank["transport"] for rank in server.status()["ranks"]] == ["", ""]


@pytest.mark.parametrize("tp, dp, ep", [(2, 1, 2), (1, 2, 2), (2, 2, 4)])
def test_experts_lie_on_several_gpus(tp, dp, ep):
    prompt = GOLDEN["prompts"][1]
    with serve(EXPERTS, tp * dp, "--tp", tp, "--dp", dp, "--ep", ep) as server:
        assert server.score(*ids_of(prompt))[1:] == pytest.approx(prompt["logprobs"], abs=1e-4)
        wanted = prompt["greedy"]["ids"][:4]
        assert server.tokens(*ids_of(prompt), "--max-tokens", 4, "--ignore-eos") == wanted


@pytest.mark.parametrize("victim, reduction", [(0, "auto"), (1, "auto"), (1, "never")])
def test_a_killed_rank_ends_the_request_and_the_group_comes_back(tiny, expected, victim, reduction):
    with serve(tiny, 2, "--tp", "2", "--peer-reduction", reduction) as server:
        old = server.status()
        client = subprocess.Popen(
            [BINARY, "generate", "--server", server.address, "--token-ids", "1,2,3", "--max-tokens", "120",
             "--ignore-eos", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: server.status()["running"] >= 1, 60, "the request runs")
        pids = server.rank_pids()
        os.kill(pids[victim], signal.SIGKILL)
        out, errors = client.communicate(timeout=60)
        assert json.loads(out)["outputs"][0]["finish_reason"] == "error"
        assert b"UNAVAILABLE" in errors and str(pids[victim]).encode() in errors, errors

        server.wait_for_an_epoch_after(old["epoch"], 90)
        new = server.rank_pids()
        assert new[1 - victim] == pids[1 - victim], "the survivor keeps its process and weights"
        assert new[victim] != pids[victim] and not process_is_alive(pids[victim])
        assert server.tokens(*IDS) == expected


def tuned(server):
    """By rank, how many products the file knew and how many were timed."""
    lines = re.findall(r"event=products_tuned rank=(\d+) known=(\d+) measured=(\d+)", server.stop()[1])
    return {int(rank): (int(known), int(measured)) for rank, known, measured in lines}


def test_products_are_timed_once_for_all_ranks_of_a_machine(tiny, expected, tmp_path):
    flags = ("--tp", "2", "--max-batch-tokens", "64")
    tuning = ("--product-tuning", "on", "--tuning-file", str(tmp_path / "products.txt"), "--reduction-sizes", "usual")
    with serve(tiny, 2, *flags, tuning=tuning) as server:
        assert server.tokens(*IDS) == expected
        first = tuned(server)
    with serve(tiny, 2, *flags, tuning=tuning) as server:
        assert server.tokens(*IDS) == expected
        second = tuned(server)
    assert sorted(first) == sorted(second) == [0, 1]
    for rank in first:
        assert first[rank][1] > 0
        assert second[rank] == (sum(first[rank]), 0)


def test_more_ranks_than_gpus_are_refused_with_both_numbers(tiny):
    assert "3 ranks on this node, which has 2 GPUs" in refusal(tiny, 2, "--tp", "3")


def test_a_required_transport_that_is_not_there_ends_the_start(tiny):
    errors = refusal(tiny, 1, "--tp", "2", "--allow-shared-gpu", "--require-nvlink")
    assert "--require-nvlink: rank " in errors and " by the same GPU (NET/Socket), not NVLink" in errors
