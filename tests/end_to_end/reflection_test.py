"""A Python client that knows nothing but an address: everything else it learns by reflection."""

import grpc
import pytest

from conftest import Server, wait_until
from reflection_client import Client


@pytest.fixture(scope="module")
def server(slow):
    with Server(slow, "--tp", "2") as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return Client(server.address)


def blocks_used(client):
    return client.call("cohort.v1.Control.GetLoad").kv_blocks_used


def test_services_are_listed(client):
    assert {"cohort.v1.Generation", "cohort.v1.Control", "grpc.health.v1.Health"} <= client.services()
    assert "cohort.v1.Cluster" not in client.services()


def test_tokens_stream_in_order(client):
    events = list(client.call("cohort.v1.Generation.GenerateStream", {
        "token_ids": {"ids": [1, 2, 3]}, "stopping": {"max_tokens": 50, "ignore_eos": True}}))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "accepted" and kinds[-1] == "finished" and set(kinds[1:-1]) == {"delta"}
    assert [event.event_sequence for event in events] == list(range(len(events)))
    ids = [token for event in events for token in event.delta.token_ids]
    assert len(ids) == 50 and events[-1].finished.usage.completion_tokens == 50
    unary = client.call("cohort.v1.Generation.Generate", {
        "token_ids": {"ids": [1, 2, 3]}, "stopping": {"max_tokens": 50, "ignore_eos": True}})
    assert list(unary.outputs[0].token_ids) == ids


def test_the_drawn_seed_is_echoed_and_repeats_the_result(client):
    request = {"token_ids": {"ids": [1, 2, 3]}, "sampling": {"temperature": 2.0},
               "stopping": {"max_tokens": 20, "ignore_eos": True}}
    first = client.call("cohort.v1.Generation.Generate", request)
    request["sampling"]["seed"] = first.accepted.sampling.seed
    again = client.call("cohort.v1.Generation.Generate", request)
    assert list(again.outputs[0].token_ids) == list(first.outputs[0].token_ids)


def test_sequences_stream_interleaved_and_each_finishes(client):
    events = list(client.call("cohort.v1.Generation.GenerateStream", {
        "token_ids": {"ids": [1, 2, 3]}, "sampling": {"n": 3}, "stopping": {"max_tokens": 20, "ignore_eos": True},
        "output": {"logprobs": 2, "prompt_logprobs": 1, "token_ids": True}}))
    assert events[0].accepted.sampling.n == 3 and events[0].accepted.output.logprobs == 2
    finished = {event.finished.index: event.finished for event in events if event.WhichOneof("event") == "finished"}
    assert sorted(finished) == [0, 1, 2] and all(one.usage.completion_tokens == 20 for one in finished.values())
    prompt = finished[0].prompt_logprobs
    assert [entry.token_id for entry in prompt] == [1, 2, 3]
    assert not prompt[0].HasField("logprob") and prompt[1].HasField("logprob") and len(prompt[1].top) == 1
    for index in range(3):
        logprobs = [entry for event in events if event.delta.index == index for entry in event.delta.logprobs]
        assert len(logprobs) == 20 and all(len(entry.top) == 2 and entry.logprob <= 0 for entry in logprobs)


def test_parameters_that_are_left_out_are_told_apart_from_zero(client):
    request = {"token_ids": {"ids": [1, 2, 3]}, "stopping": {"max_tokens": 1, "stop_token_ids": [9, 9, 4]},
               "sampling": {"temperature": 0.0, "logit_bias": {5: -1.5, 2: 3.0}, "bad_token_ids": [{"ids": [7, 8]}]},
               "scheduling": {"priority": -3}, "cache": {"bypass_prefix": True}}
    accepted = client.call("cohort.v1.Generation.Generate", request).accepted
    assert accepted.sampling.temperature == 0 and accepted.sampling.repetition_penalty == 1
    assert dict(accepted.sampling.logit_bias) == {5: -1.5, 2: 3.0}
    assert list(accepted.sampling.bad_token_ids[0].ids) == [7, 8]
    assert list(accepted.stopping.stop_token_ids) == [4, 9] and accepted.stopping.min_tokens == 0
    assert accepted.scheduling.priority == -3 and accepted.cache.bypass_prefix
    assert not accepted.output.HasField("logprobs") and accepted.output.text


def test_a_client_that_does_not_read_loses_nothing_and_holds_up_nobody(server, client):
    # About 2 KB a step, and a window that does not grow: little is on the way to the client.
    reader = Client(server.address, [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)])
    slow = reader.call("cohort.v1.Generation.GenerateStream", {
        "token_ids": {"ids": [1]}, "sampling": {"n": 8}, "output": {"logprobs": 20},
        "stopping": {"max_tokens": 200, "ignore_eos": True}})
    try:
        wait_until(lambda: client.call("cohort.v1.Control.GetLoad").paused == 8, 120, "the slow reader's request is paused")
        quick = client.call("cohort.v1.Generation.Generate", {
            "token_ids": {"ids": [1]}, "stopping": {"max_tokens": 10, "ignore_eos": True}})
        assert len(quick.outputs[0].token_ids) == 10
        events = list(slow)
    finally:
        slow.cancel()
    for index in range(8):
        ids = [token for event in events if event.delta.index == index for token in event.delta.token_ids]
        assert len(ids) == 200 and ids[:10] == list(quick.outputs[0].token_ids)
    finished = [event.finished for event in events if event.WhichOneof("event") == "finished"]
    assert len(finished) == 8 and all(one.usage.completion_tokens == 200 for one in finished)


def test_cancelling_frees_the_blocks(client):
    stream = client.call("cohort.v1.Generation.GenerateStream", {
        "token_ids": {"ids": [1, 2, 3]}, "stopping": {"max_tokens": 20000, "ignore_eos": True}})
    for event in stream:
        if event.WhichOneof("event") == "delta":
            break
    assert blocks_used(client) > 0
    stream.cancel()
    wait_until(lambda: blocks_used(client) == 0, 10, "blocks are free after a cancellation")


def test_a_deadline_finishes_the_stream_first(client):
    stream = client.call("cohort.v1.Generation.GenerateStream", {
        "token_ids": {"ids": [1, 2, 3]}, "stopping": {"max_tokens": 20000, "ignore_eos": True}}, timeout=1.5)
    last = None
    with pytest.raises(grpc.RpcError) as error:
        for event in stream:
            last = event
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    finished = last.finished
    reason = finished.DESCRIPTOR.fields_by_name["reason"].enum_type.values_by_number[finished.reason].name
    assert reason == "FINISH_REASON_DEADLINE"
    wait_until(lambda: blocks_used(client) == 0, 10, "blocks are free after a deadline")


def test_abort_ends_a_request_by_name(client):
    stream = client.call("cohort.v1.Generation.GenerateStream", {
        "request_id": "to-be-aborted", "token_ids": {"ids": [1, 2, 3]},
        "stopping": {"max_tokens": 20000, "ignore_eos": True}})
    next(stream)
    assert list(client.call("cohort.v1.Control.Abort", {"request_ids": ["to-be-aborted", "unknown"]}).aborted) == [
        "to-be-aborted"]
    with pytest.raises(grpc.RpcError) as error:
        list(stream)
    assert error.value.code() == grpc.StatusCode.CANCELLED


def test_health_checks_each_service_and_watch_streams_changes(slow):
    with Server(slow) as own:
        client = Client(own.address)
        for name in ("", "cohort.v1.Generation", "cohort.v1.Control"):
            assert client.call("grpc.health.v1.Health.Check", {"service": name}).status == 1, name
        with pytest.raises(grpc.RpcError) as error:
            client.call("grpc.health.v1.Health.Check", {"service": "nobody"})
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
        watch = client.call("grpc.health.v1.Health.Watch", {"service": "cohort.v1.Generation"})
        assert next(watch).status == 1
        holder = client.call("cohort.v1.Generation.GenerateStream", {
            "token_ids": {"ids": [1]}, "stopping": {"max_tokens": 400, "ignore_eos": True}})
        next(holder)
        own.process.terminate()
        assert next(watch).status == 2
        list(holder)
        assert own.process.wait(timeout=60) == 0


BAD_REQUESTS = {
    "sampling.top_p": {"sampling": {"top_p": 0.0}},
    "sampling.temperature": {"sampling": {"temperature": float("nan")}},
    "stopping.max_tokens": {"stopping": {"max_tokens": 0}},
    "token_ids.ids": {"token_ids": {"ids": [1, 4000000]}},
    "input": {"token_ids": None},
    "sampling.n": {"sampling": {"n": 0}},
    "sampling.min_p": {"sampling": {"min_p": -0.5}},
    "sampling.logit_bias": {"sampling": {"logit_bias": {id_: 1.0 for id_ in range(301)}}},
    "sampling.allowed_token_ids": {"sampling": {"allowed_token_ids": list(range(1025))}},
    "sampling.bad_token_ids": {"sampling": {"bad_token_ids": [{"ids": []}]}},
    "stopping.min_tokens": {"stopping": {"min_tokens": 3, "max_tokens": 2}},
    "output.logprobs": {"output": {"logprobs": 4294967295}},
}


@pytest.mark.parametrize("field", BAD_REQUESTS)
def test_bad_requests_name_the_field(client, field):
    request = {"token_ids": {"ids": [1, 2]}, **BAD_REQUESTS[field]}
    with pytest.raises(grpc.RpcError) as error:
        client.call("cohort.v1.Generation.Generate", {key: value for key, value in request.items() if value})
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    trailers = dict(error.value.trailing_metadata())
    assert field.encode() in trailers["grpc-status-details-bin"]
    assert field in error.value.details()


def test_an_empty_prompt_is_refused(client):
    with pytest.raises(grpc.RpcError) as error:
        client.call("cohort.v1.Generation.Generate", {"token_ids": {"ids": []}})
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
