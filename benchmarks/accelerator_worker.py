"""One measurement of accelerator.py, in a process of its own: what runs out of memory takes nothing else with it.

    python benchmarks/accelerator_worker.py '{"kind": "train", "shape": "160m", "length": 2048, ...}'

The last line printed is JSON: the measurement, or {"failed": why}.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.config import ComputeConfig, Config, DataConfig, MeshConfig, ModelConfig, TrainingConfig
from llama_jax.config.presets import PRESETS
from llama_jax.data.batches import batch_of_tokens
from llama_jax.errors import LlamaError
from llama_jax.inference.decode import decode, prefill, start_decoding
from llama_jax.inference.params import decoding_params
from llama_jax.inference.sampling import RowSampling, Sampling
from llama_jax.model.accounting import parameter_count, train_flops_per_token
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.hardware import peak_flops
from llama_jax.parallel.mesh import make_mesh
from llama_jax.parallel.xla_flags import set_xla_flags
from llama_jax.scoring.likelihood import token_loglikelihood
from llama_jax.training.compiled import build

SHAPES = {
    "1b": PRESETS["tinyllama-1b"],
    "7b": PRESETS["llama-7b"],
    "160m": ModelConfig(dim=768, num_layers=12, num_heads=12, num_kv_heads=12, ffn_dim=2048),
    "small": ModelConfig(vocab_size=1024, dim=128, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=352),
}
"""`small` is for machines without an accelerator."""

DOCUMENT = 700
"""Mean tokens per document in the rows of the train step."""


def seconds_of(action: Callable[[], object], repeats: int) -> float:
    """Median seconds of an action, clocks read when the device is done; one run before them warms up."""
    jax.block_until_ready(action())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(action())
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def ceilings(job: dict) -> dict:
    """What the device is, and the FLOP/s and bytes/s that a plain matmul and a plain copy of random data reach."""
    device = jax.devices()[0]
    size = 512 if device.platform == "cpu" else 8192
    a, b = (jax.random.normal(jax.random.key(n), (size, size), jnp.bfloat16) for n in range(2))
    multiply = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32).astype(jnp.bfloat16))
    array = jax.random.normal(jax.random.key(2), (16 * size, size), jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    return {
        "device": device.device_kind, "platform": device.platform, "jax": jax.__version__, "memory": memory_limit(device),
        "peak": peak_flops(device, "bfloat16"), "matmul": 2 * size**3 / seconds_of(lambda: multiply(a, b), 10),
        "copy": 2 * array.nbytes / seconds_of(lambda: copy(array), 10),
    }


def memory_limit(device: jax.Device) -> int:
    """Bytes that jax may use on the device; 0 where it does not say."""
    return (device.memory_stats() or {}).get("bytes_limit", 0)


def model_of(job: dict) -> ModelConfig:
    """The shape; of 7b as many layers as leave 40% of the memory to activations at 16 bytes per parameter."""
    model = replace(SHAPES[job["shape"]], max_length=job["length"])
    if "layers" in job:
        return replace(model, num_layers=job["layers"])
    if job["shape"] == "7b":
        one, none = (parameter_count(replace(model, num_layers=layers)) for layers in (2, 1))
        free = 0.6 * memory_limit(jax.devices()[0]) / 16 - (2 * none - one)
        model = replace(model, num_layers=max(1, min(model.num_layers, int(free / (one - none)))))
    return model


def train(job: dict) -> dict:
    """The real train step at the micro-batch that gives most tokens/s: doubled until it fails or gains less than 2%."""
    model, compute = model_of(job), ComputeConfig(attention=job["attention"], remat=job["remat"])
    best, rows, end = {}, 1, ""
    while rows <= job["most_rows"]:
        try:
            result = train_at(model, compute, length=job["length"], rows=rows, repeats=job["repeats"])
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            end = f"{rows} rows do not fit"
            break
        if result["tokens_per_second"] < 1.02 * best.get("tokens_per_second", 0.0):
            break
        best, rows = result, 2 * rows
    if not best:
        return {"failed": end}
    c = model
    flops = train_flops_per_token(c, job["length"])
    attention = 6.0 * c.num_layers * job["length"] * c.num_heads * c.head_size
    return best | {"layers": c.num_layers, "flops_half": flops, "flops_full": flops + attention, "end": end}


def train_at(model: ModelConfig, compute: ComputeConfig, *, length: int, rows: int, repeats: int) -> dict:
    """Seconds of a step of `rows` packed rows, and what it needs."""
    config = Config(model=model, compute=compute, data=DataConfig(sequence_length=length), mesh=MeshConfig(data=1),
                    training=TrainingConfig(batch_size=rows))
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    program = build(config, mesh)
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, model.vocab_size, (rows, length + 1)).astype(np.int32)
    batch = batch_of_tokens(np.where(rng.random(tokens.shape) < 1 / DOCUMENT, 1, tokens), bos_id=1)
    with jax.set_mesh(mesh):
        begin = time.perf_counter()
        step = program.train_step.lower(program.abstract_state, program.abstract_batch).compile()
        compiled = time.perf_counter() - begin
        state = program.init()
        batch = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), batch, program.abstract_batch)

        def one():
            nonlocal state
            state, metrics = step(state, batch)
            return metrics

        seconds = seconds_of(one, repeats)
    measured = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {"rows": rows, "seconds": seconds, "tokens_per_second": rows * length / seconds, "compile_seconds": compiled,
            "planned_memory": step.memory_analysis().peak_memory_in_bytes, "memory": measured,
            "attention_used": program.attention}


def parameters_of(model: ModelConfig):
    """Random parameters on the device."""
    return jax.jit(lambda: Transformer(model).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))()["params"]


def score(job: dict) -> dict:
    """Likelihoods of multiple-choice requests in groups of four that share their context, requests/s."""
    from flax import linen as nn

    model = model_of(job)
    params, rng, requests = nn.unbox(parameters_of(model)), np.random.default_rng(0), []
    for _ in range(job["requests"] // 4):
        context = rng.integers(3, model.vocab_size, rng.integers(20, 121)).tolist()
        requests += [(context, rng.integers(3, model.vocab_size, rng.integers(5, 31)).tolist()) for _ in range(4)]
    seconds = seconds_of(lambda: token_loglikelihood(Transformer(model), params, requests) and None, job["repeats"])
    return {"requests_per_second": len(requests) / seconds}


def decoding(job: dict) -> dict:
    """Greedy tokens/s after a prompt of 64, and the bytes that each step of the batch must read."""
    from flax import linen as nn

    config, B, new = model_of(job), job["batch"], job["new"]
    model = Transformer(config)
    params = decoding_params(model, nn.unbox(parameters_of(config)))
    greedy = Sampling(temperature=0.0, max_new_tokens=new)
    tokens = np.random.default_rng(0).integers(3, config.vocab_size, (B, 64)).astype(np.int32)

    def once() -> float:
        cache, logits_BV = prefill(model, params, tokens_BT=tokens, counts_B=np.full(B, 64, np.int32), slots=64 + new)
        rows = jax.block_until_ready(start_decoding(cache, logits_BV, budget_B=jnp.full(B, new, jnp.int32),
                                           sampling=RowSampling.stack([(greedy, 0, 0)] * B)))
        begin = time.perf_counter()
        jax.block_until_ready(decode(model, params, rows=rows, limit=jnp.int32(new), eos_ids=(), length=new)[1])
        return time.perf_counter() - begin

    once()
    seconds = statistics.median(once() for _ in range(job["repeats"]))
    width = jnp.dtype(model.compute.dtype).itemsize
    table = config.vocab_size * config.dim
    cache = 2 * config.num_layers * B * (64 + new) * config.num_kv_heads * config.head_size
    return {"tokens_per_second": B * new / seconds, "bytes": width * (parameter_count(config) - table + cache)}


KINDS = {"ceilings": ceilings, "train": train, "score": score, "decode": decoding}


def main() -> None:
    """Measure, and print JSON."""
    set_xla_flags()
    job = json.loads(sys.argv[1])
    if job["kind"].startswith("torch"):
        from accelerator_torch import KINDS as TORCH

        result = TORCH[job["kind"]](job, model_of(job))
    else:
        try:
            result = KINDS[job["kind"]](job)
        except LlamaError as error:
            result = {"failed": str(error)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
