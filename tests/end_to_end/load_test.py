"""Many streams of every kind at once: each ends as it should, and nothing of them stays behind.

COHORT_TEST_REQUESTS sets how many requests there are (default 320); 64 are in progress at a time.
"""

import concurrent.futures
import os

import grpc
import pytest

from conftest import Server, wait_until
from reflection_client import Client

REQUESTS = int(os.environ.get("COHORT_TEST_REQUESTS", "320"))
AT_A_TIME = 64
STREAM = "cohort.v1.Generation.GenerateStream"


@pytest.fixture(scope="module")
def server(tiny):
    with Server(tiny, "--tp", "2", "--dtype", "fp32", "--max-running", "48", "--kv-memory", "8MiB") as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return Client(server.address)


def prompt(i):
    return [1 + (i * 7 + j * j) % 500 for j in range(3 + i % 5 * 17)]


def request(i, tokens, **more):
    fields = {"token_ids": {"ids": prompt(i)}, "stopping": {"max_tokens": tokens, "ignore_eos": True}}
    return {**fields, **more}


def read(stream):
    """Ids by sequence, and how each finished; the events must be in order."""
    ids, finishes, expected = {}, {}, 0
    for event in stream:
        assert event.event_sequence == expected
        expected += 1
        if event.WhichOneof("event") == "delta":
            sequence = ids.setdefault(event.delta.index, [])
            assert event.delta.first_position == len(sequence)
            sequence.extend(event.delta.token_ids)
        elif event.WhichOneof("event") == "finished":
            assert event.finished.index not in finishes
            finishes[event.finished.index] = event.finished
    for index, finished in finishes.items():
        assert finished.usage.completion_tokens == len(ids.get(index, []))
    return ids, finishes


def greedy(client, i, alone):
    ids, _ = read(client.call(STREAM, request(i, 5 + i % 40)))
    assert ids[0] == alone[i % len(alone)][:5 + i % 40], "tokens do not depend on what else runs"


def sampled(client, i, _):
    fields = request(i, 20, sampling={"temperature": 1.3, "top_p": 0.9, "n": 1 + i % 4, "seed": i},
                     output={"logprobs": i % 3}, scheduling={"priority": i % 3 - 1})
    ids, finishes = read(client.call(STREAM, fields))
    assert len(finishes) == 1 + i % 4 and all(len(one) == 20 for one in ids.values())


def penalised(client, i, _):
    sampling = {"frequency_penalty": 1.5, "repetition_penalty": 1.2, "logit_bias": {i % 400: 5.0}, "min_p": 0.02}
    result = client.call("cohort.v1.Generation.Generate", request(i, 15, sampling=sampling))
    assert len(result.outputs[0].token_ids) == 15


def cancelled(client, i, _):
    stream = client.call(STREAM, request(i, 1500))
    for event in stream:
        if event.WhichOneof("event") == "delta" and event.delta.first_position > i % 9:
            break
    stream.cancel()


def late(client, i, _):
    with pytest.raises(grpc.RpcError) as error:
        read(client.call(STREAM, request(i, 1500, sampling={"n": 2}), timeout=0.05 + i % 7 / 20))
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def slow(client, i, _):
    """Begins to read when another request that came later is done."""
    stream = client.call(STREAM, request(i, 700, output={"logprobs": 20}))
    client.call("cohort.v1.Generation.Generate", request(i, 30))
    ids, finishes = read(stream)
    assert len(ids[0]) == 700 and finishes[0].usage.completion_tokens == 700


def refused(client, i, _):
    with pytest.raises(grpc.RpcError) as error:
        read(client.call(STREAM, request(i, 10, sampling={"n": 9})))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


KINDS = [greedy, sampled, greedy, cancelled, penalised, greedy, late, slow, greedy, refused]


def run(client, alone, count):
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        for done in [pool.submit(KINDS[i % len(KINDS)], client, i, alone) for i in range(count)]:
            done.result()


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def resident_bytes(server):
    with open(f"/proc/{server.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_mixed_streams_end_as_they_should_and_leave_nothing(server, client):
    alone = [read(client.call(STREAM, request(i, 45)))[0][0] for i in range(35)]
    run(client, alone, AT_A_TIME * 2)  # so that pools and caches have their size
    server.wait_until_idle()
    before, memory = descriptors(server), resident_bytes(server)
    run(client, alone, REQUESTS)
    server.wait_until_idle()
    status = server.status()
    assert status["waiting"] == 0 and status["paused"] == 0 and status["state"] == "serving"
    wait_until(lambda: descriptors(server) <= before, 10, "no descriptor stays open")
    # Far less than the prompts, deltas and log-probabilities of so many requests take together.
    assert resident_bytes(server) - memory < 48 << 20
