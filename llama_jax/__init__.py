"""LLaMA (arXiv 2302.13971) as a JAX/Flax functional research codebase.

The public names below work in any JAX program (docs/MODULES.md): flax modules from `RMSNorm` to `Transformer`, and the
architectures in `PRESETS`; functions of arrays (`rope_tables`, `rotate`, `attend`, `next_token_loss`); `capture` and
`every_derivative` around a model; `make_optimizer` and `make_train_step`; `load`, `save` and `convert` for checkpoints;
`generate` and `loglikelihood` for text.

Legend of shape suffixes, as in `x_BTD`, `q_BTNH`, `logits_BTV`:
    B batch   T query length   S key/cache length   N query heads   K key-value heads   G = N / K   H head width
    D model width   F feed-forward width   V vocabulary   L layers   C chunk
"""

from typing import TYPE_CHECKING

from llama_jax.config.presets import PRESETS
from llama_jax.lazy import lazy_getattr
from llama_jax.version import VERSION as __version__

if TYPE_CHECKING:
    from llama_jax.conversion.convert import convert
    from llama_jax.formats.loading import load
    from llama_jax.formats.saving import save
    from llama_jax.inference.continuation import Generated
    from llama_jax.inference.generate import generate, stream
    from llama_jax.inference.sampling import Sampling
    from llama_jax.model.attention import Attention
    from llama_jax.model.block import Block
    from llama_jax.model.capture import CAPTURED, capture
    from llama_jax.model.decoder import Transformer
    from llama_jax.model.feedforward import FeedForward
    from llama_jax.model.norms import LayerNorm, RMSNorm
    from llama_jax.ops.attention import attend
    from llama_jax.ops.derivatives import every_derivative
    from llama_jax.ops.masks import Mask
    from llama_jax.ops.rotary import rope_tables, rotate
    from llama_jax.scoring.likelihood import Likelihood, loglikelihood, rolling_loglikelihood
    from llama_jax.training.loss import next_token_loss
    from llama_jax.training.optimizer import learning_rate, make_optimizer
    from llama_jax.training.step import make_train_step

_MODULES = {
    "Attention": "model.attention",
    "Block": "model.block",
    "CAPTURED": "model.capture",
    "FeedForward": "model.feedforward",
    "Generated": "inference.continuation",
    "LayerNorm": "model.norms",
    "Likelihood": "scoring.likelihood",
    "Mask": "ops.masks",
    "RMSNorm": "model.norms",
    "Sampling": "inference.sampling",
    "Transformer": "model.decoder",
    "attend": "ops.attention",
    "capture": "model.capture",
    "convert": "conversion.convert",
    "every_derivative": "ops.derivatives",
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
    "save": "formats.saving",
    "stream": "inference.generate",
}
"""Public name -> the module below llama_jax that defines it. Imported on first use, because processes that prepare data need no
jax."""

__all__ = [
    "CAPTURED", "PRESETS", "Attention", "Block", "FeedForward", "Generated", "LayerNorm", "Likelihood", "Mask", "RMSNorm",
    "Sampling", "Transformer", "__version__", "attend", "capture", "convert", "every_derivative", "generate", "learning_rate",
    "load", "loglikelihood", "make_optimizer", "make_train_step", "next_token_loss", "rolling_loglikelihood", "rope_tables",
    "rotate", "save", "stream",
]


if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)

    def __dir__() -> list[str]:
        """List the public names, for tab completion in a notebook."""
        return sorted({*globals(), *__all__})
