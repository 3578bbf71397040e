"""Bad files and flags end `cohort serve` quickly with a line that names the fault; bad requests leave the server serving."""

import json
import shutil
import struct
import time

import pytest

from conftest import BINARY, Server, run_cohort

SECONDS = 5 if "asan" not in BINARY else 30


def refused(model, *flags, says, code=1):
    start = time.monotonic()
    done = run_cohort("serve", model, "--listen", "127.0.0.1:0", *flags)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    for text in [says] if isinstance(says, str) else says:
        assert text in done.stderr, done.stderr
    assert time.monotonic() - start < SECONDS


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


def edit_json(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if value is KeyError:
            del content[key]
        else:
            content[key] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_header(path, change):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])


CONFIGS = {
    "an unknown architecture": ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "LlamaForCausalLM"),
    "a mixture without experts": ({"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe"}, "num_experts"),
    "another rope scaling": ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_scaling"),
    "YaRN that shortens": ({"rope_scaling": {"type": "yarn", "factor": 0.5}}, "factor is 0.5"),
    "quantisation": ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    "chunks within the local size": ({"dual_chunk_attention_config": {"chunk_size": 64, "local_size": 64}}, "local_size is 64"),
    "a missing key": ({"hidden_size": KeyError}, "hidden_size"),
    "a key of another kind": ({"num_hidden_layers": "two"}, "num_hidden_layers"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "num_key_value_heads"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_config(copy, case):
    changes, says = CONFIGS[case]
    edit_json(copy / "config.json", **changes)
    refused(copy, says=says)


def test_null_means_absent_and_unknown_keys_are_ignored(copy):
    edit_json(copy / "config.json", rope_scaling=None, sliding_window=None, something_new={"a": 1})
    with Server(copy) as server:
        assert server.tokens("--token-ids", "1,2", "--max-tokens", "1")


@pytest.mark.parametrize("name, change, says", [
    ("a missing tensor", lambda header: header.update({"other": header.pop("model.norm.weight")}), "model.norm.weight"),
    ("a misshapen tensor", lambda header: header["model.norm.weight"].update(shape=[8, 8]), "model.norm.weight"),
    ("overlapping tensors", lambda header: header["model.norm.weight"].update(data_offsets=[0, 256]), "model.safetensors"),
    ("an integer tensor", lambda header: header["model.norm.weight"].update(dtype="I32"), "model.norm.weight"),
])
def test_safetensors_header(copy, name, change, says):
    edit_header(copy / "model.safetensors", change)
    refused(copy, says=says)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_truncated_safetensors(copy, cut):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    refused(copy, says="model.safetensors")


def test_trailing_bytes(copy):
    with open(copy / "model.safetensors", "ab") as file:
        file.write(b"x")
    refused(copy, says="model.safetensors")


def test_missing_files(copy, tmp_path):
    refused(tmp_path / "nowhere", says="nowhere")
    (copy / "model.safetensors").unlink()
    refused(copy, says="model.safetensors")
    (copy / "config.json").unlink()
    refused(copy, says="config.json")


def test_broken_tokenizer(copy):
    (copy / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}', encoding="utf-8")
    refused(copy, says="tokenizer.json")


def test_extra_tensors_warn_once_each_and_strict_refuses(copy):
    edit_header(copy / "model.safetensors",
                lambda header: header.update({"model.extra.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}))
    with Server(copy, "--tp", "2") as server:
        assert server.tokens("--token-ids", "1,2", "--max-tokens", "1")
        _, errors = server.stop()
        assert errors.count("model.extra.weight") == 1
    refused(copy, "--strict", says="model.extra.weight")


@pytest.mark.parametrize("flags, says, code", [
    (("--tp", "5"), ["--tp", "4"], None),
    (("--tp", "0"), ["--tp"], None),
    (("--max-model-len", "2048", "--kv-memory", "64KiB"), ["bytes"], None),
    (("--kv-memory", "1"), ["--kv-memory"], None),
    (("--device", "tpu"), ["tpu"], None),
    (("--dtype", "fp8"), ["fp8"], None),
    (("--listen", "256.0.0.1:9000"), ["256.0.0.1"], None),
])
def test_flags(tiny, flags, says, code):
    done = run_cohort("serve", tiny, *flags, timeout=30)
    assert done.returncode in (1, 2) and done.stdout == ""
    for text in says:
        assert text in done.stderr, done.stderr


def test_an_address_in_use_is_named(tiny):
    with Server(tiny) as server:
        done = run_cohort("serve", tiny, "--listen", server.address, check=1)
        assert server.address in done.stderr


def test_a_default_length_that_does_not_fit_is_lowered_with_a_warning(tiny):
    with Server(tiny, "--kv-memory", "256KiB") as server:
        done = run_cohort("generate", "--server", server.address, "--token-ids", "1", "--max-tokens", "2000", check=1)
        assert "max_tokens" in done.stderr
        _, errors = server.stop()
        assert "level=warning" in errors and "max_model_len" in errors.replace("-", "_")


REQUESTS = {
    "sampling.top_p": ("--token-ids", "1", "--top-p", "1.5"),
    "sampling.temperature": ("--token-ids", "1", "--temperature", "inf"),
    "stopping.max_tokens": ("--token-ids", "1", "--max-tokens", "0"),
    "max_tokens": ("--token-ids", "1", "--max-tokens", "5000"),
    "token_ids": ("--token-ids", "1,999999"),
    "text": ("--prompt", ""),
}


def test_bad_requests_name_their_field_and_the_server_keeps_serving(tiny):
    with Server(tiny, "--tp", "2") as server:
        for field, flags in REQUESTS.items():
            done = run_cohort("generate", "--server", server.address, *flags, check=1)
            assert field in done.stderr and "INVALID_ARGUMENT" in done.stderr, (field, done.stderr)
        assert server.tokens("--token-ids", "1,2", "--max-tokens", "2", "--ignore-eos")
