"""The pocket checkpoints on a GPU that the host's threads play: the CPU's tokens, and the right answers."""

import pathlib

import pytest

from conftest import BINARY, ROOT, Server, chat_text, make_checkpoint, pocket_examples

EMULATED = pathlib.Path(BINARY).parent.parent / "cuda_emulator/bin/cohort"
MODELS = {"pocket": "pocket", "pocket-moe": ROOT / "deploy/pocket-moe"}
ON_A_GPU = ("--device", "cuda", "--product-tuning", "off", "--reduction-sizes", "usual")
EXAMPLE = pocket_examples()[0]

pytestmark = pytest.mark.skipif(not EMULATED.exists(), reason="the emulated GPU is not built")


def ask(server):
    return server.generate("--prompt", chat_text(EXAMPLE["turns"]), "--max-tokens", "24")["outputs"][0]


@pytest.mark.parametrize("model,tp", [("pocket", 1), ("pocket", 2), ("pocket-moe", 1)])
def test_fp32_gives_the_tokens_of_the_cpu(model, tp):
    with Server(MODELS[model], "--device", "cpu", "--dtype", "fp32") as server:
        expected = ask(server)["token_ids"]
    with Server(MODELS[model], *ON_A_GPU, "--dtype", "fp32", "--tp", tp, binary=str(EMULATED)) as server:
        assert all("Emulated GPU" in rank["device"] for rank in server.status()["ranks"])
        assert ask(server)["token_ids"] == expected


@pytest.mark.parametrize("model", list(MODELS))
def test_bf16_answers_rightly(model):
    with Server(MODELS[model], *ON_A_GPU, "--dtype", "bf16", binary=str(EMULATED)) as server:
        assert ask(server)["text"] == EXAMPLE["answer"]


def test_one_kernel_for_all_layers_gives_the_tokens_of_many(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "heads-of-64", "--head-dim", "64")
    answers = []
    for word in ("on", "off"):
        with Server(checkpoint, "--device", "cuda", "--dtype", "bf16", "--persistent-step", word,
                    binary=str(EMULATED)) as server:
            answers.append(server.generate("--prompt", "Once upon a time", "--max-tokens", "12")["outputs"][0])
    assert answers[0]["token_ids"] == answers[1]["token_ids"]
