"""Simulated studies: measurements with known effects, as the runs of real ones would write them."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from llama_jax.config.model import ModelConfig
from llama_jax.config.schema import Config, DataConfig, OptimizerConfig, TrainingConfig
from llama_jax.config.study import Arm, Study

STEPS, TRAINED = 400, 128
BATCH_TOKENS = np.array([4080] * 19 + [1307])


def simulated_study(
    names: Sequence[str], *, lengths: tuple[int, ...] = (), expected: str = "Gated units have the lower loss."
) -> Study:
    """A study of these arms, the first of which is the baseline."""
    config = Config(
        model=ModelConfig(), data=DataConfig(sequence_length=TRAINED, heldout_fraction=0.1),
        optimizer=OptimizerConfig(warmup_steps=10), training=TrainingConfig(num_steps=STEPS, batch_size=16))
    return Study("simulated", paper="Shazeer 2020, arXiv 2002.05202", question="Do gated units reach a lower loss?",
                 expected=expected, hours="1 hour on two CPU cores", arms=tuple(Arm(name, config) for name in names),
                 baseline=names[0], lengths=lengths, decode=bool(lengths))


def simulated_runs(
    study: Study, effects: Mapping[str, float], *, seeds: Sequence[int] = (0, 1, 2), seed_noise: float = 0.004,
    diverged: Sequence[tuple[str, int]] = (), rises: Mapping[str, float] | None = None,
    caches: bool = False,
) -> list[dict]:
    """Measurements of every arm and seed.

    Args:
        study: The study.
        effects: True difference of each arm to the baseline in nats per token.
        seeds: Seeds.
        seed_noise: Standard deviation of an arm's loss over seeds.
        diverged: (arm, seed) of the runs that diverged.
        rises: By arm, how much the loss rises per doubling of the position beyond the trained length; arms that are not in it
            were not measured there.
        caches: Whether each arm has half the cache of the one before.
    """
    draws = np.random.default_rng(7)
    text_B = 3.4 + 0.15 * draws.standard_normal(len(BATCH_TOKENS))
    runs = []
    for number, arm in enumerate(study.arms):
        own_text_B = 0.006 * draws.standard_normal(len(BATCH_TOKENS))
        for seed in seeds:
            offset = effects[arm.name] + seed_noise * draws.standard_normal()
            loss_B = text_B + own_text_B + offset + 0.004 * draws.standard_normal(len(BATCH_TOKENS))
            run = _measurement(arm.name, seed, loss_B=loss_B, draws=draws)
            run["parameters"] += 1000 * number
            run["cache_bytes_per_token"] = 4096 >> number if caches else 4096
            for length in study.lengths if rises and arm.name in rises else ():
                run["by_position"][str(length)] = _by_position(length, run["curve"][-1][1], rises[arm.name])
            runs.append(_diverged(run) if (arm.name, seed) in diverged else run)
    return runs


def _measurement(arm: str, seed: int, *, loss_B: np.ndarray, draws: np.random.Generator) -> dict:
    heldout = float(loss_B @ BATCH_TOKENS / BATCH_TOKENS.sum())
    steps = np.arange(10, STEPS + 1, 10)
    shape = heldout - 0.1 + (7.5 - heldout) * np.exp(-steps / 45)
    wiggle = 0.05 * np.random.default_rng(1).standard_normal(len(steps))
    curve = shape + wiggle + 0.01 * draws.standard_normal(len(steps))
    late = [(int(step), float(value) + 0.1) for step, value in zip(steps, shape, strict=True) if step % 50 == 0]
    return {
        "arm": arm, "seed": seed, "status": "done", "reason": "", "steps": STEPS, "parameters": 1_234_567,
        "flops_per_token": 7.4e6,
        "heldout": [[float(loss * tokens), int(tokens)] for loss, tokens in zip(loss_B, BATCH_TOKENS, strict=True)],
        "bytes_per_token": 2.6, "by_position": {}, "stream_sha256": hashlib.sha256(b"stream").hexdigest(),
        "heldout_sha256": hashlib.sha256(b"heldout").hexdigest(),
        "timing": {"tokens_per_second": float(draws.uniform(20e3, 22e3)), "seconds": float(draws.uniform(40, 50)),
                   "decode_tokens_per_second": float(draws.uniform(300, 400))},
        "peak_bytes": 123_456_789, "cache_bytes_per_token": 4096, "largest_grad_norm": float(draws.uniform(1, 5)), "spikes": 0,
        "curve": [[int(step), float(loss)] for step, loss in zip(steps, curve, strict=True)], "heldout_curve": late,
    }


def _by_position(length: int, loss: float, rise: float) -> list[list[float]]:
    starts = np.arange(0, length, 32)
    loss_P = loss + 0.8 * np.exp(-(starts + 16) / 40) + rise * np.maximum(0, np.log2((starts + 16) / TRAINED))
    return [[int(start), float(value * 32 * 50), 32 * 50] for start, value in zip(starts, loss_P, strict=True)]


def _diverged(run: dict) -> dict:
    return run | {"status": "diverged", "reason": "the loss is not finite at step 130", "steps": 130, "heldout": [],
                  "by_position": {}, "largest_grad_norm": math.inf, "spikes": 4,
                  "curve": [[step, loss + max(0, step - 80) / 15] for step, loss in run["curve"][:12]] + [[130, math.nan]],
                  "heldout_curve": run["heldout_curve"][:2]}
