"""LLaMA (arXiv 2302.13971) as a JAX/Flax functional research codebase.

Legend of shape suffixes, as in `x_BTD`, `q_BTNH`, `logits_BTV`:
    B batch   T query length   S key/cache length   N query heads   K kv heads   G = N / K   H head width
    D model width   F feed-forward width   V vocabulary   L layers   C chunk
"""

from llama_jax.presets import PRESETS
from llama_jax.version import VERSION as __version__

__all__ = ["PRESETS", "__version__"]
