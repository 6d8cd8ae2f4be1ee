"""Is what was converted what there was: logits of source and target on random tokens."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.formats.base import WeightSource
from llama_jax.formats.loading import abstract_params, read_params
from llama_jax.model.decoder import Transformer

ROWS, LENGTH, SEED = 2, 64, 0
"""Random tokens: rows, tokens a row at most, and the seed they are drawn with."""


@dataclass(frozen=True)
class Difference:
    """Between the logits of two models."""

    largest: float
    """Of the absolute differences."""
    divergence: float
    """Mean KL(source || target) of the next-token distributions, in nats."""

    def __str__(self) -> str:
        return f"max error of the logits {self.largest:.3g}, mean KL {self.divergence:.3g} nats"


def verify(source: WeightSource, target: WeightSource) -> Difference:
    """Both in float32, one after the other: memory holds one model."""
    length = min(LENGTH, source.config.max_length, target.config.max_length)
    tokens_BT = np.random.default_rng(SEED).integers(0, source.config.vocab_size, (ROWS, length)).astype(np.int32)
    p_BTV, q_BTV = logits(source, tokens_BT), logits(target, tokens_BT)
    log_p, log_q = (jax.nn.log_softmax(x.astype(np.float32)) for x in (p_BTV, q_BTV))
    divergence = jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))
    return Difference(float(np.abs(p_BTV - q_BTV).max()), float(divergence))


def logits(source: WeightSource, tokens_BT: np.ndarray) -> np.ndarray:
    """float32 (B, T, V)."""
    model = Transformer(replace(source.config, dtype="float32", attention="auto", scan_layers=True, remat="none"))
    params = read_params(source, abstract_params(source.config))
    return np.asarray(jax.jit(model.apply)({"params": params}, tokens_BT))
