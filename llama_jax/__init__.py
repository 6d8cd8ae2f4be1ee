"""LLaMA (arXiv 2302.13971) as a JAX/Flax functional research codebase.

Legend of shape suffixes, as in `x_BTD`, `q_BTNH`, `logits_BTV`:
    B batch   T query length   S key/cache length   N query heads   K kv heads   G = N / K   H head width
    D model width   F feed-forward width   V vocabulary   L layers   C chunk
"""

from importlib import import_module

from llama_jax.config.presets import PRESETS
from llama_jax.version import VERSION as __version__

_ROOMS = {
    "Attention": "model.attention",
    "Block": "model.block",
    "FeedForward": "model.feedforward",
    "Generated": "inference.continuation",
    "Likelihood": "scoring.likelihood",
    "Mask": "ops.masks",
    "RMSNorm": "model.norms",
    "Sampling": "inference.sampling",
    "Transformer": "model.decoder",
    "attend": "ops.attention",
    "generate": "inference.generate",
    "learning_rate": "training.optimizer",
    "load": "formats.loading",
    "loglikelihood": "scoring.likelihood",
    "make_optimizer": "training.optimizer",
    "make_train_step": "training.step",
    "next_token_loss": "training.loss",
    "rolling_loglikelihood": "scoring.likelihood",
    "rope_tables": "ops.rotary",
    "rotate": "ops.rotary",
    "stream": "inference.generate",
}
"""Where a name lives that is imported when it is first asked for: the processes that prepare data need no jax."""

__all__ = ["PRESETS", "__version__", *_ROOMS]


def __getattr__(name: str):
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
