"""The benchmark's own arithmetic: parsers, rates, ratios and the table. Measures nothing."""

import random

import pytest

import llama_cpp
import report
import rows
from streams import Stream, closed_loop, mean_seconds_to_first_token, steady_rate


def test_llama_bench_gives_the_rate_of_its_one_test():
    assert llama_cpp.parse_llama_bench('[{"n_prompt": 512, "avg_ts": 342.5}]') == 342.5
    with pytest.raises(ValueError, match="2 tests"):
        llama_cpp.parse_llama_bench('[{"avg_ts": 1}, {"avg_ts": 2}]')


def test_batched_bench_gives_the_generation_rate_of_each_batch():
    text = 'main: loading\n{"pl": 8, "speed_tg": 98.5, "speed_pp": 300}\n{"pl": 16, "speed_tg": 141.0}\n'
    assert llama_cpp.parse_batched_bench(text) == {8: 98.5, 16: 141.0}
    with pytest.raises(ValueError, match="no result"):
        llama_cpp.parse_batched_bench("llama_decode() failed\n")


def test_server_events_are_the_data_lines():
    assert llama_cpp.parse_server_event(b'data: {"tokens": [7], "stop": false}\n') == {"tokens": [7], "stop": False}
    assert llama_cpp.parse_server_event(b"\n") is None
    assert llama_cpp.parse_server_event(b"data: [DONE]\n") is None


def test_the_steady_rate_counts_only_while_all_streams_decode():
    early = Stream(0.0, [(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 1)])
    late = Stream(0.5, [(2.0, 1), (3.0, 2), (6.0, 1)])
    assert steady_rate([early, late]) == pytest.approx((2 + 2) / (4.0 - 2.0))
    assert steady_rate([early]) == pytest.approx(1.0)
    assert mean_seconds_to_first_token([early, late]) == pytest.approx(1.25)
    with pytest.raises(ValueError, match="never decode at the same time"):
        steady_rate([Stream(0.0, [(1.0, 1), (2.0, 1)]), Stream(0.0, [(2.0, 1), (3.0, 1)])])


def test_the_closed_loop_keeps_the_order_and_raises_what_a_call_raises():
    streams, seconds = closed_loop(lambda prompt: Stream(0.0, [(float(prompt), 1)]), list(range(20)), concurrency=4)
    assert [stream.arrivals[0][0] for stream in streams] == list(range(20)) and seconds > 0

    def fail(prompt):
        raise RuntimeError(f"request {prompt} failed")

    with pytest.raises(RuntimeError, match="request 0 failed"):
        closed_loop(fail, [0, 1, 2], concurrency=1)


def test_ratios_are_taken_inside_a_repetition():
    row = next(row for row in rows.ROWS if row.name == "decode")
    # The machine was half as fast in the second one: the medians' ratio would say less than both.
    repetitions = [{"values": {rows.ONE_RANK: 30.0, "llama.cpp tokens/s": 28.0}},
                   {"values": {rows.ONE_RANK: 15.0, "llama.cpp tokens/s": 14.0}},
                   {"values": {rows.ONE_RANK: 10.0}}]
    lines = list(report.bar_lines(row, repetitions))
    assert lines[0] == "| cohort / llama.cpp | at least 1 | 1.02 | 1.07 | 1.07 - 1.07 | met |"
    assert lines[1].endswith("| - | - | not measured |")


def test_verdicts_follow_the_bar():
    at_most = rows.Bar("x", "a", "b", 0.25, False, "")
    assert at_most.passed(at_most.ratio({"a": 1.0, "b": 5.0}))
    assert not at_most.passed(at_most.ratio({"a": 2.0, "b": 5.0}))
    plain = rows.Bar("x", "a", 1, 200, False, "")
    assert plain.passed(plain.ratio({"a": 199.0})) and not plain.passed(plain.ratio({"a": 201.0}))


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_a_repetition_renders(row):
    values = {name: random.Random(name).uniform(0.5, 2000) for bar in row.bars for name in (bar.value, bar.below)
              if isinstance(name, str)}
    page = report.render([{"row": row.name, "time": "2026-01-01 00:00 UTC", "others_busy": 0.02, "values": values}])
    assert row.title in page and "2% of the machine" in page
    assert page.count("met |") + page.count("MISSED |") == len(row.bars)


def test_the_head_names_each_machine_and_version_once():
    run = {"row": report.RUN, "time": "2026-01-01 00:00 UTC", "machine": "two cores", "versions": ["cohort 1", "x 2"],
           "note": ""}
    assert report.render([run, run]) == "two cores. cohort 1; x 2.\n"
    assert report.render([run, {**run, "note": "Again."}]).count("two cores") == 2


def test_numbers_keep_three_digits():
    assert [report.format_number(value) for value in (0.12345, 1.2345, 12.345, 12345.6, 0)] == [
        "0.123", "1.23", "12.35", "12,346", "0.00"]
