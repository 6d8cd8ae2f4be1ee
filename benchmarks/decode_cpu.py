"""Decoding speed on a CPU: our compiled loop beside transformers' generate and, where installed, llama.cpp.

    python benchmarks/decode_cpu.py [--shapes S,M] [--rounds 3] [--json FILE]
                                            (needs torch, transformers; llama-cpp-python and gguf where wanted)

Prompt 64, 128 new tokens, greedy, float32, batch 1 and 8. The same random weights on all sides; the sides take turns,
and a ratio is the median over rounds of our tokens/s divided by theirs. `% of bandwidth`: bytes of the weights that a
token needs, times tokens/s at batch 1, as part of what reading a large array reaches in the same run.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.config import ComputeConfig
from llama_jax.inference.decode import decode, prefill, start_decoding
from llama_jax.inference.params import decoding_params
from llama_jax.inference.sampling import RowSampling, Sampling
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.malloc import keep_freed_memory
from tests.golden.make_transformers import hf_model
from tests.golden.shapes import random_model

PROMPT, NEW, SLOTS = 64, 128, 192


def ours(config, params) -> Callable[[np.ndarray], float]:
    """Seconds of the decode loop alone."""
    model = Transformer(config, ComputeConfig(dtype="float32"))
    params = decoding_params(model, jax.tree.map(jnp.asarray, params))
    greedy = Sampling(temperature=0.0, max_new_tokens=NEW)

    def run(tokens: np.ndarray) -> float:
        B = len(tokens)
        cache, logits_BV = prefill(model, params, tokens_BT=tokens, counts_B=np.full(B, PROMPT, np.int32), slots=SLOTS)
        rows = jax.block_until_ready(start_decoding(cache, logits_BV, budget_B=jnp.full(B, NEW, jnp.int32),
                                           sampling=RowSampling.stack([(greedy, 0, 0)] * B)))
        begin = time.perf_counter()
        jax.block_until_ready(decode(model, params, rows=rows, limit=jnp.int32(NEW), eos_ids=(), length=NEW)[1])
        return time.perf_counter() - begin

    return run


def transformers_generate(config, params) -> Callable[[np.ndarray], float]:
    """Seconds of NEW - 1 further tokens: a run of NEW tokens less one of a single token, which is mostly prefill."""
    import torch

    model = hf_model(config, params).eval()
    model.set_attn_implementation("sdpa")
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None

    def run(tokens: np.ndarray) -> float:
        def timed(count: int) -> float:
            begin = time.perf_counter()
            with torch.no_grad():
                model.generate(torch.tensor(tokens, dtype=torch.long), attention_mask=torch.ones(tokens.shape),
                               max_new_tokens=count, min_new_tokens=count, do_sample=False)
            return time.perf_counter() - begin

        return (timed(NEW) - timed(1)) * NEW / (NEW - 1)

    return run


def write_gguf(config, params, file: str) -> None:
    """llama.cpp's file of the same shape; what the weights say does not matter here, only how large they are."""
    import gguf

    out = gguf.GGUFWriter(file, "llama")
    out.add_context_length(config.max_length)
    out.add_embedding_length(config.dim)
    out.add_block_count(config.num_layers)
    out.add_feed_forward_length(config.ffn_dim)
    out.add_head_count(config.num_heads)
    out.add_head_count_kv(config.num_kv_heads)
    out.add_layer_norm_rms_eps(config.norm_eps)
    out.add_rope_dimension_count(config.head_size)
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("llama")
    out.add_token_list([f"<{n}>".encode() for n in range(config.vocab_size)])
    out.add_token_scores([0.0] * config.vocab_size)
    out.add_token_types([1] * config.vocab_size)
    layers = params["layers"]
    tensors = {"token_embd": params["embedding"], "output_norm": params["final_norm"]["scale"], "output": params["head"].T}
    for n in range(config.num_layers):
        a, f = layers["attention"], layers["feedforward"]
        tensors |= {f"blk.{n}.attn_norm": layers["attention_norm"]["scale"][n], f"blk.{n}.ffn_norm":
                    layers["feedforward_norm"]["scale"][n], f"blk.{n}.attn_output": a["wo"][n].reshape(-1, config.dim).T}
        tensors |= {f"blk.{n}.attn_{name[1]}": a[name][n].reshape(config.dim, -1).T for name in ("wq", "wk", "wv")}
        tensors |= {f"blk.{n}.ffn_{name[2:]}": f[name][n].T for name in ("w_gate", "w_up", "w_down")}
    for name, value in tensors.items():
        out.add_tensor(f"{name}.weight", np.ascontiguousarray(value, np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def llama_cpp(config, params) -> Callable[[np.ndarray], float]:
    """Seconds of NEW evaluations of one token; batch 1 only."""
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as folder:
        write_gguf(config, params, f"{folder}/model.gguf")
        model = Llama(f"{folder}/model.gguf", n_ctx=SLOTS, n_threads=os.cpu_count(), verbose=False)

    def run(tokens: np.ndarray) -> float:
        model.reset()
        model.eval(tokens[0].tolist())
        begin = time.perf_counter()
        for n in range(NEW):
            model.eval([n])
        return time.perf_counter() - begin

    return run


def bandwidth() -> float:
    """Bytes a second of reading 1 GiB of float32 in a compiled sum."""
    x = jnp.ones(1 << 28)
    total = jax.jit(jnp.sum)
    total(x).block_until_ready()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        total(x).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return x.nbytes / statistics.median(seconds)


def compare(shape: str, rounds: int) -> list[dict]:
    """Rows of one shape: a side at a batch."""
    config, params = random_model(shape)
    sides = {}
    for name, make in (("ours", ours), ("transformers", transformers_generate), ("llama.cpp", llama_cpp)):
        try:
            sides[name] = make(config, params)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    weights = 4 * (sum(x.size for x in jax.tree.leaves(params)) - params["embedding"].size)
    rows = []
    for batch in (1, 8):
        tokens = np.random.default_rng(0).integers(3, config.vocab_size, (batch, PROMPT)).astype(np.int32)
        here = {name: run for name, run in sides.items() if batch == 1 or name != "llama.cpp"}
        for run in here.values():
            run(tokens)  # compiles
        seconds = {name: [] for name in here}
        for _ in range(rounds):
            for name, run in here.items():
                seconds[name].append(run(tokens))
        for name, times in seconds.items():
            ratios = [b / a for a, b in zip(seconds["ours"], times, strict=True)]
            rows.append({"shape": shape, "batch": batch, "side": name, "seconds": times, "ratio": statistics.median(ratios),
                         "tokens_per_second": batch * NEW / statistics.median(times), "bytes_per_token": weights})
    return rows


def main() -> None:
    """Print the table, then a ratio a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="S,M")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    keep_freed_memory()
    limit = bandwidth()
    rows = [row for shape in arguments.shapes.split(",") for row in compare(shape, arguments.rounds)]
    print(f"reading memory: {limit / 1e9:.1f} GB/s\n{'':14s} {'side':14s} {'tokens/s':>9s} {'% of bandwidth':>15s}")
    for row in rows:
        part = f"{100 * row['tokens_per_second'] * row['bytes_per_token'] / limit:.0f}" if row["batch"] == 1 else ""
        print(f"{row['shape']} batch {row['batch']:<6d} {row['side']:14s} {row['tokens_per_second']:9.0f} {part:>15s}")
    for row in rows:
        if row["side"] != "ours":
            print(f"ratio decode-{row['shape']}-b{row['batch']}-{row['side']}: {row['ratio']:.2f} "
                  f"(ours / theirs, median of {arguments.rounds})")
    if arguments.json:
        report = {"date": time.strftime("%Y-%m-%d"), "cpu": platform.processor() or platform.machine(), "bandwidth": limit,
                  "rows": rows}
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
