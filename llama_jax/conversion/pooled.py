"""A multi-head model as a grouped-query one: keys and values of neighbouring heads averaged."""

from dataclasses import replace

import numpy as np

from llama_jax.errors import ConfigError
from llama_jax.formats.base import WeightSource
from llama_jax.formats.mapping import Tensor, pool_heads


class PooledSource:
    """A source with fewer kv heads, each the mean of a group of neighbouring ones (Ainslie et al. 2023, section 2.1).

    Raises ConfigError where `kv_heads` does not divide the source's.
    """

    def __init__(self, source: WeightSource, kv_heads: int):
        if kv_heads < 1 or source.config.num_kv_heads % kv_heads:
            raise ConfigError(f"num_kv_heads must divide the {source.config.num_kv_heads} kv heads of {source.folder}, got "
                              f"{kv_heads}.")
        self._source = source
        self.folder = source.folder
        self.format = source.format
        self.dtype, self.compute = source.dtype, source.compute
        self.padded = source.padded
        self.tokenizer = source.tokenizer
        self.config = replace(source.config, num_kv_heads=kv_heads)

    def read(self, tensor: Tensor, *, check_finite: bool = True) -> np.ndarray:
        """Read a tensor of the source; its kv heads, where it has any, are pooled."""
        ours = self._source.read(tensor, check_finite=check_finite)
        return pool_heads(ours, self.config.num_kv_heads) if "kv_heads" in tensor.leaf(self.config).axes else ours
