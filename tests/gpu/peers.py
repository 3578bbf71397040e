"""The other programs on the same device, beside what cohort_gpu_bench measured in the same run.

    peers.py transformers --checkpoint DIR --results FILE    decode: eager, and compiled with a static cache
    peers.py sdpa --results FILE                             causal attention: every backend of PyTorch's SDPA

FILE holds Cohort's measurements, one line of JSON each; what is measured here is printed in the same form. A ratio is
the other program's time over Cohort's.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch

CONTEXT = 128  # tokens before the first measured step, as the decode step of run.sh has


def ours(results, row):
    """Seconds of Cohort, None where its step did not run."""
    seconds = None
    for line in pathlib.Path(results).read_text(encoding="utf-8").splitlines():
        measured = json.loads(line)
        if measured["row"] == row:
            seconds = measured["seconds"]
    return seconds


def report(row, seconds, note):
    print(json.dumps({"row": row, "seconds": statistics.median(seconds), "best": min(seconds), "worst": max(seconds),
                      "n": len(seconds), "note": note}), flush=True)


def report_ratio(row, seconds, own, own_row):
    if own is None:
        print(f"no ratio for {row}: {own_row} was not measured", flush=True)
        return
    print(json.dumps({"row": row, "ratio": statistics.median(seconds) / own, "note": f"{own_row}: {own:.6g} s"}), flush=True)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_per_call(device, calls, rounds, call):
    call()
    synchronize(device)
    measured = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize(device)
        measured.append((time.perf_counter() - begin) / calls)
    return measured


def decode_seconds(model, device, cache, compiled, steps, rounds):
    """Seconds per token of greedy decoding, batch 1, one forward call a token, the token staying on the device."""
    forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True) if compiled else model.forward
    position = torch.arange(CONTEXT, device=device)
    ids = (position * 31 % 1000).unsqueeze(0)
    with torch.inference_mode():
        logits = model(input_ids=ids, past_key_values=cache, cache_position=position, use_cache=True).logits
        state = {"token": logits[:, -1:].argmax(-1), "position": torch.tensor([CONTEXT], device=device)}

        def step():
            out = forward(input_ids=state["token"], past_key_values=cache, cache_position=state["position"],
                          position_ids=state["position"].unsqueeze(0), use_cache=True)
            state["token"] = out.logits[:, -1:].argmax(-1).clone()
            state["position"] = state["position"] + 1

        for _ in range(4):  # compiles, records graphs
            step()
        return seconds_per_call(device, steps, rounds, step)


def load_model(options):
    from transformers import AutoModelForCausalLM

    settings = {"attn_implementation": "sdpa"}
    try:
        model = AutoModelForCausalLM.from_pretrained(options.checkpoint, dtype=torch.bfloat16, **settings)
    except TypeError:  # before transformers 4.56
        model = AutoModelForCausalLM.from_pretrained(options.checkpoint, torch_dtype=torch.bfloat16, **settings)
    return model.to(options.device).eval()


def static_cache(model, length):
    from transformers import StaticCache

    try:
        return StaticCache(config=model.config, max_cache_len=length)
    except TypeError:  # before transformers 4.56
        return StaticCache(config=model.config, max_batch_size=1, max_cache_len=length, device=model.device,
                           dtype=model.dtype)


def measure_transformers(options):
    import transformers
    from transformers import DynamicCache

    steps, rounds = (2, 1) if options.small else (32, 5)
    length = CONTEXT + (rounds + 1) * steps + 16
    name = "pocket" if options.small else "Qwen2-7B"
    own_row = f"decode.{name}.b1"
    model = load_model(options)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    own = ours(options.results, own_row)
    for kind in ("eager", "compiled"):
        try:
            cache = DynamicCache() if kind == "eager" else static_cache(model, length)
            seconds = decode_seconds(model, options.device, cache, kind == "compiled", steps, rounds)
        except Exception as error:  # of a library whose versions we do not choose: the other rows still count
            print(f"{kind}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            yield f"transformers {kind}"
            continue
        report(f"transformers.{name}.{kind}", seconds, versions)
        if not options.small:
            report_ratio(f"peers.decode.{kind}", seconds, own, own_row)


def measure_sdpa(options):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
                "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH}
    heads, kv_heads, head_dim = (4, 2, 64) if options.small else (28, 4, 128)
    for length in (16,) if options.small else (4096, 8192, 16384):
        query = torch.randn(1, heads, length, head_dim, device=options.device, dtype=torch.bfloat16)
        keys = torch.randn(1, kv_heads, length, head_dim, device=options.device, dtype=torch.bfloat16)
        # The fused backends take equal numbers of heads fastest; expanding is not measured.
        keys = keys.repeat_interleave(heads // kv_heads, dim=1).contiguous()
        values = torch.randn_like(keys)
        fastest = None
        for name, backend in backends.items():
            if name == "math" and length > 4096:
                continue  # holds all weights at once
            try:
                with sdpa_kernel(backend):
                    seconds = seconds_per_call(options.device, 1 if options.small else 8, 5,
                                               lambda: torch.nn.functional.scaled_dot_product_attention(
                                                   query, keys, values, is_causal=True))
            except RuntimeError as error:
                print(f"sdpa {name} at {length}: {error}", file=sys.stderr, flush=True)
                continue
            report(f"sdpa.{name}.{length}", seconds, f"torch {torch.__version__}")
            fastest = seconds if fastest is None or statistics.median(seconds) < statistics.median(fastest) else fastest
        if fastest is None:
            yield f"every backend at {length}"
        elif not options.small:
            row = f"attention.prefill.{length}"
            report_ratio(f"peers.{row}", fastest, ours(options.results, row), row)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("transformers", "sdpa"))
    parser.add_argument("--checkpoint")
    parser.add_argument("--results", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a dry run: tiny sizes, no ratios")
    options = parser.parse_args()
    measure = measure_transformers if options.what == "transformers" else measure_sdpa
    failed = list(measure(options))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
