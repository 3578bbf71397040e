"""Sampling, stopping and log-probabilities as a user asks for them on the command line, at two ranks."""

import json
import math

import pytest

from conftest import ROOT, Server, make_checkpoint, run_cohort

PROMPT = "The river and the ranks"
SAMPLED = ("--prompt", PROMPT, "--max-tokens", "12", "--ignore-eos", "--temperature", "1.5", "--seed", "7")
GREEDY = ("--prompt", PROMPT, "--max-tokens", "12", "--ignore-eos")


@pytest.fixture(scope="module")
def server(tiny):
    with Server(tiny, "--tp", "2") as running:
        yield running


def test_sequences_differ_and_each_repeats_itself(server):
    outputs = server.generate(*SAMPLED, "--n", "3")["outputs"]
    tokens = [output["token_ids"] for output in outputs]
    assert len(tokens) == 3 and all(len(ids) == 12 for ids in tokens)
    assert tokens[0] != tokens[1] != tokens[2] != tokens[0]
    assert tokens[0] == server.tokens(*SAMPLED), "the first is the request's only sequence"
    again = server.generate(*SAMPLED, "--n", "2")
    assert [output["token_ids"] for output in again["outputs"]] == tokens[:2]
    assert again["usage"]["prompt_tokens"] == 5 and again["usage"]["completion_tokens"] == 24
    greedy = server.generate(*GREEDY, "--n", "2")["outputs"]
    assert greedy[0]["token_ids"] == greedy[1]["token_ids"] == server.tokens(*GREEDY)


def test_text_output_has_a_heading_for_each_of_several_sequences(server):
    done = run_cohort("generate", "--server", server.address, *GREEDY, "--n", "2", check=0)
    text = server.generate(*GREEDY)["outputs"][0]["text"]
    assert done.stdout == f"--- output 0: length ---\n{text}\n--- output 1: length ---\n{text}\n"


def test_stop_strings_end_the_text_wherever_tokens_are_cut(server):
    text = server.generate(*GREEDY)["outputs"][0]["text"]
    for length in (1, 3, 7):
        stop = text[5:5 + length]
        expected = text[:text.index(stop)]
        result = server.generate(*GREEDY, "--stop", "not in it", "--stop", stop)
        (output,) = result["outputs"]
        assert output["text"] == expected
        assert output["finish_reason"] == "stop" and output["stop"] == {"stop_string": stop}
        assert result["usage"]["completion_tokens"] == len(output["token_ids"]) < 12
        included = server.generate(*GREEDY, "--stop", stop, "--include-stop")["outputs"][0]
        assert included["text"] == expected + stop and included["token_ids"] == output["token_ids"]
    server.wait_until_idle()


def test_logprobs_have_the_documented_form_and_agree_with_score(server):
    result = server.generate(*GREEDY, "--logprobs", "2", "--prompt-logprobs", "1")
    (output,) = result["outputs"]
    assert [entry["token_id"] for entry in output["logprobs"]] == output["token_ids"]
    for entry in output["logprobs"]:
        assert set(entry) == {"token_id", "logprob", "top"} and len(entry["top"]) == 2
        assert entry["top"][0] == {"token_id": entry["token_id"], "logprob": entry["logprob"]}, "greedy"
        assert entry["top"][0]["logprob"] >= entry["top"][1]["logprob"]
    prompt = result["prompt_logprobs"]
    assert prompt[0]["logprob"] is None and prompt[0]["top"] == []
    ids = [entry["token_id"] for entry in prompt] + output["token_ids"]
    scores = server.score("--token-ids", ",".join(map(str, ids)))
    expected = [entry["logprob"] for entry in prompt[1:] + output["logprobs"]]
    assert scores[1:] == pytest.approx(expected, abs=1e-4)
    none = server.generate(*GREEDY, "--logprobs", "0")["outputs"][0]["logprobs"]
    assert all(entry["top"] == [] and entry["logprob"] < 0 for entry in none)
    assert "logprobs" not in server.generate(*GREEDY)["outputs"][0]


def test_score_lists_the_likeliest(server):
    done = run_cohort("score", "--server", server.address, "--prompt", PROMPT, "--top", "3", "--json", check=0)
    result = json.loads(done.stdout)
    assert [len(top) for top in result["top"]] == [0, 3, 3, 3, 3]
    for logprob, top in zip(result["logprobs"][1:], result["top"][1:]):
        assert top[0]["logprob"] >= top[1]["logprob"] >= top[2]["logprob"]
        assert logprob <= top[0]["logprob"] + 1e-6
        assert sum(math.exp(entry["logprob"]) for entry in top) <= 1 + 1e-5
    assert "likeliest" in run_cohort("score", "--server", server.address, "--prompt", PROMPT, "--top", "1", check=0).stdout


def test_bias_allowed_ids_and_bad_words_steer_the_choice(server):
    greedy = server.tokens(*GREEDY)
    assert server.tokens(*GREEDY, "--logit-bias", "300:100") == [300] * 12
    assert server.tokens(*GREEDY, "--logit-bias", f"{greedy[0]}:-100")[0] != greedy[0]
    assert set(server.tokens(*SAMPLED, "--allowed-token-ids", "40,41,42")) <= {40, 41, 42}
    word = server.generate("--token-ids", "1", "--logit-bias", f"{greedy[0]}:100", "--max-tokens", "1")["outputs"][0]["text"]
    assert greedy[0] not in server.tokens(*GREEDY, "--bad-word", word.strip())


def test_penalties_and_min_p_act(server):
    assert len(set(server.tokens(*GREEDY, "--logit-bias", "300:20", "--frequency-penalty", "2",
                                 "--presence-penalty", "2"))) > 1
    repeated = server.tokens(*GREEDY)
    assert server.tokens(*GREEDY, "--repetition-penalty", "1000000") != repeated or len(set(repeated)) == 12
    assert server.tokens(*SAMPLED, "--min-p", "1") == repeated, "only the likeliest is left"


def test_min_tokens_keeps_the_end_away(server):
    greedy = server.tokens(*GREEDY)
    stop = ("--stop-token-ids", str(greedy[2]))
    first = greedy.index(greedy[2])
    stopped = server.generate(*GREEDY, *stop)["outputs"][0]
    assert stopped["token_ids"] == greedy[:first + 1] and stopped["stop"] == {"stop_token_id": greedy[2]}
    kept = server.tokens(*GREEDY, *stop, "--min-tokens", "8")
    assert len(kept) >= 8 and greedy[2] not in kept[:7]


def test_parameters_are_echoed(server):
    parameters = server.generate("--token-ids", "1,2", "--max-tokens", "1", "--seed", "18446744073709551615", "--top-k", "3",
                                 "--priority", "-4", "--cache-salt", "mine")["parameters"]
    assert parameters["sampling"]["seed"] == 18446744073709551615
    assert parameters["sampling"]["top_k"] == 3 and parameters["sampling"]["temperature"] == 0
    assert parameters["stopping"]["max_tokens"] == 1 and parameters["stopping"]["ignore_eos"] is False
    assert parameters["scheduling"]["priority"] == -4 and parameters["cache"]["salt"] == "mine"


@pytest.fixture
def sampled_model(tmp_path):
    """A checkpoint whose authors recommend sampling."""
    model = make_checkpoint(tmp_path / "model")
    (model / "generation_config.json").write_text(json.dumps({
        "do_sample": True, "temperature": 0.9, "top_k": 7, "top_p": 0.8, "repetition_penalty": 1.1}), encoding="utf-8")
    return model


def test_the_models_own_defaults_hold_for_what_is_left_out(sampled_model):
    with Server(sampled_model) as server:
        sampling = server.generate("--token-ids", "1,2", "--max-tokens", "1", "--top-k", "0")["parameters"]["sampling"]
        assert sampling["temperature"] == pytest.approx(0.9) and sampling["top_p"] == pytest.approx(0.8)
        assert sampling["top_k"] == 0 and sampling["repetition_penalty"] == pytest.approx(1.1)
    with Server(sampled_model, "--generation-config", "none") as server:
        sampling = server.generate("--token-ids", "1,2", "--max-tokens", "1")["parameters"]["sampling"]
        assert (sampling["temperature"], sampling["top_k"], sampling["repetition_penalty"]) == (0, 0, 1)
    config = sampled_model / "generation_config.json"
    config.write_text(json.dumps({"top_p": 1.5}), encoding="utf-8")
    done = run_cohort("serve", sampled_model, "--listen", "127.0.0.1:0", check=1)
    assert "generation_config.json" in done.stderr and "top_p is 1.5" in done.stderr


def test_an_unknown_chat_template_refuses_chat_and_nothing_else(tmp_path):
    model = make_checkpoint(tmp_path / "model")
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}), encoding="utf-8")
    with Server(model) as server:
        done = run_cohort("generate", "--server", server.address, "--chat", "Hello", "--max-tokens", "2", check=1)
        assert "FAILED_PRECONDITION" in done.stderr and "{{ messages }}" in done.stderr
        assert len(server.tokens("--prompt", "Hello", "--max-tokens", "2", "--ignore-eos")) == 2
        _, errors = server.stop()
        assert "chat is refused" in errors


REQUESTS = {
    "sampling.n": ("--n", "9"),
    "sampling.min_p": ("--min-p", "1.5"),
    "sampling.repetition_penalty": ("--repetition-penalty", "0"),
    "sampling.presence_penalty": ("--presence-penalty", "-2.5"),
    "sampling.frequency_penalty": ("--frequency-penalty", "nan"),
    "sampling.logit_bias[5]": ("--logit-bias", "5:101"),
    "sampling.allowed_token_ids[1]": ("--allowed-token-ids", "1,999999"),
    "sampling.bad_words[0]": ("--bad-word", ""),
    "stopping.min_tokens": ("--min-tokens", "5", "--max-tokens", "4"),
    "stopping.stop_strings[1]": ("--stop", "a", "--stop", "x" * 257),
    "output.logprobs": ("--logprobs", "21"),
    "output.prompt_logprobs": ("--prompt-logprobs", "-1"),
    "cache.salt": ("--cache-salt", "s" * 257),
    "scheduling.priority": ("--priority", "2147483648"),
}


@pytest.mark.parametrize("field", REQUESTS)
def test_bad_values_name_their_field(server, field):
    done = run_cohort("generate", "--server", server.address, "--token-ids", "1", *REQUESTS[field], check=1)
    assert field in done.stderr and "INVALID_ARGUMENT" in done.stderr, done.stderr
