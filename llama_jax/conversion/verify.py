"""Whether two folders hold the same model: the logits of both on random tokens."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.config import ComputeConfig
from llama_jax.errors import DataError
from llama_jax.formats.base import STORED_DTYPES, WeightSource
from llama_jax.formats.loading import abstract_params, read_params
from llama_jax.model.decoder import Transformer

LARGEST_LOGIT_ERROR = 1e-4
"""Largest error of a logit that a conversion without rounding may show."""

_ROWS, _MAX_LENGTH, _SEED = 2, 64, 0
"""Rows of random tokens, tokens per row (fewer where a context is shorter), and the seed that draws them."""


@dataclass(frozen=True)
class LogitDifference:
    """How far the logits of two models lie apart."""

    largest: float
    """The largest absolute difference of a logit."""
    divergence: float
    """Mean KL(source || target) of the next-token distributions, in nats per token."""

    def __str__(self) -> str:
        return f"max error of the logits {self.largest:.3g}, mean KL {self.divergence:.3g} nats"


def compare_logits(source: WeightSource, target: WeightSource) -> LogitDifference:
    """Compare two sources' logits, computed in float32 one after the other, so that memory holds one model."""
    length = min(_MAX_LENGTH, source.config.max_length, target.config.max_length)
    tokens_BT = np.random.default_rng(_SEED).integers(0, source.config.vocab_size, (_ROWS, length)).astype(np.int32)
    p_BTV, q_BTV = logits_of_source(source, tokens_BT), logits_of_source(target, tokens_BT)
    log_p_BTV = jax.nn.log_softmax(p_BTV.astype(np.float32))
    log_q_BTV = jax.nn.log_softmax(q_BTV.astype(np.float32))
    divergence = jnp.mean(jnp.sum(jnp.exp(log_p_BTV) * (log_p_BTV - log_q_BTV), axis=-1))
    return LogitDifference(float(np.abs(p_BTV - q_BTV).max()), float(divergence))


def verify_logits(source: WeightSource, target: WeightSource, *, pooled: bool) -> LogitDifference:
    """`compare_logits` of a conversion's two ends; `pooled` says that kv heads were averaged.

    Raises DataError where the logits differ though nothing was rounded or pooled.
    """
    difference = compare_logits(source, target)
    lossless = target.dtype in (source.dtype, STORED_DTYPES["float32"]) and not pooled
    if lossless and not difference.largest <= LARGEST_LOGIT_ERROR:
        raise DataError(f"{target.folder} is not what {source.folder} is, though nothing was rounded or pooled: {difference}.")
    return difference


def logits_of_source(source: WeightSource, tokens_BT: np.ndarray) -> np.ndarray:
    """float32 logits (B, T, V) of a source's model, computed in float32 on the first device."""
    # how the source was trained (backend, rematerialisation, unrolled layers) is left out of the comparison
    model = Transformer(source.config, ComputeConfig(dtype="float32"))
    params = read_params(source, abstract_params(source.config))
    return np.asarray(jax.jit(model.apply)({"params": params}, tokens_BT))
