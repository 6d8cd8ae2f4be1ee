"""The decoder-only Transformer: embedding, L blocks, final norm and output head, with or without a key-value cache."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.model.attention import KeysValues
from llama_jax.model.block import REMAT_POLICIES, Block
from llama_jax.model.cache import Cache
from llama_jax.model.initializers import embedding_table, matrix
from llama_jax.model.norms import make_norm
from llama_jax.model.positions import position_encoding
from llama_jax.ops.linear import linear
from llama_jax.ops.masks import CAUSAL, Mask
from llama_jax.parallel.rules import constrain
from llama_jax.parallel.vocabulary import look_up


class Transformer(nn.Module):
    """LLaMA: a decoder-only Transformer. Parameters are float32, compute is in `compute.dtype`, logits are float32."""

    config: ModelConfig
    compute: ComputeConfig = ComputeConfig()
    layers_apart: bool = False
    """Whether each layer's parameters have a name of their own (`layers_0`, ...), as in decoding (`inference.params`); False:
    they are stacked over layers (`layers`, first axis L), as in training."""

    def setup(self):
        c, compute, position = self.config, self.compute, position_encoding(self.config)
        self.embedding = self.param("embedding", embedding_table("vocab", "embed"), (c.vocab_size, c.dim), jnp.float32)
        if self.layers_apart:
            self.layers = [Block(c, compute) for _ in range(c.num_layers)]
        else:
            self.layers = _stacked_layers(c, compute)
        self.position_parameters = {name: parameter.declare(self, name)
                                    for name, parameter in position.embedding_parameters(c.dim).items()}
        self.final_norm = make_norm(c) if c.norm_position == "pre" else None  # a block that ends with a norm needs no other
        if not c.tied_embeddings:
            self.head = self.param("head", matrix("embed", "vocab"), (c.dim, c.vocab_size), jnp.float32)

    def __call__(
        self, tokens_BT: Array, positions_BT: Array | None = None, segment_ids_BT: Array | None = None
    ) -> Array:
        """Compute next-token logits, float32 (B, T, V), of token ids (B, T); token t attends to tokens <= t of its segment."""
        h_BTD = self.hidden(tokens_BT, positions_BT, segment_ids_BT)
        head_DV = self.embedding.T if self.config.tied_embeddings else self.head
        return linear(h_BTD, head_DV, out_dtype=jnp.float32)

    def hidden(
        self, tokens_BT: Array, positions_BT: Array | None = None, segment_ids_BT: Array | None = None,
        ends_BT: Array | None = None,
    ) -> Array:
        """Compute the hidden states after the final norm, (B, T, D) in the compute dtype, which the output head reads.

        In place of token ids it takes embeddings, floating point (B, T, D), such as `embed` returns (soft prompts).
        Positions default to 0 .. T - 1, segments to one per row. `ends_BT` is `Mask.ends_BT`, for rows that hold prefix trees.
        Raises ConfigError for tokens that are not ids of the vocabulary (inside a compiled program, where values cannot be
        looked at, such a row is NaN), and for rows longer than the context whose positions are not given.
        """
        c = self.config
        if positions_BT is None and tokens_BT.ndim >= 2:
            if tokens_BT.shape[1] > c.max_length:
                raise ConfigError(f"rows of {tokens_BT.shape[1]:,} tokens are longer than the model's context of "
                                  f"{c.max_length:,}; cut them, raise model.max_length, or give positions.")
            positions_BT = jnp.arange(tokens_BT.shape[1])[None, :]
        return self.forward(tokens_BT, positions_BT, mask=Mask(segment_ids_BT, ends_BT))[0]

    def forward(
        self, tokens_BT: Array, positions_BT: Array, *, mask: Mask = CAUSAL, cache: Cache | None = None
    ) -> tuple[Array, list[KeysValues]]:
        """Compute the hidden states after the final norm (B, T, D), and the keys and values of every layer.

        The list of keys and values is empty unless `layers_apart`. With a `cache` the tokens follow those that it holds, and the
        keys and values are the cache's, with the new ones written into it.
        """
        position = position_encoding(self.config)
        x_BTD = constrain(self.embed(tokens_BT), "batch", "stream", "features")
        tables = position.tables(positions_BT, head_dim=self.config.head_size)
        x_BTD = position.on_embedding(x_BTD, tables, **self.position_parameters)
        if not self.layers_apart:
            x_BTD, _ = self.layers(x_BTD, tables, mask)
            return self._normed(x_BTD), []
        keys_values = []
        for n, block in enumerate(self.layers):
            of_layer = None if cache is None else cache.layer(n)
            x_BTD, of_block = block.with_keys_values(x_BTD, tables, mask=mask, cache=of_layer)
            keys_values.append(of_block)
        return self._normed(x_BTD), keys_values

    def embed(self, tokens_BT: Array) -> Array:
        """The embeddings (B, T, D) of token ids (B, T), in the compute dtype, without positions; embeddings pass through."""
        if jnp.issubdtype(tokens_BT.dtype, jnp.floating) and tokens_BT.ndim == 3 and tokens_BT.shape[-1] == self.config.dim:
            return tokens_BT.astype(self.compute.dtype)
        check_tokens(tokens_BT, self.config)
        return look_up(self.embedding, tokens_BT, dtype=self.compute.dtype)

    def _normed(self, x_BTD: Array) -> Array:
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD)


class _ScannedBlock(Block):
    """A block in the form that `nn.scan` takes: it returns (carry, None), since nothing is collected over layers."""

    def __call__(self, x_BTD: Array, tables: Any, mask: Mask = CAUSAL) -> tuple[Array, None]:
        return self.with_keys_values(x_BTD, tables, mask=mask)[0], None


def _stacked_layers(config: ModelConfig, compute: ComputeConfig) -> nn.Module:
    """All blocks as one module over stacked parameters, compiled as a loop over layers or unrolled."""
    block = _ScannedBlock
    if compute.remat != "none":
        block = nn.remat(block, policy=REMAT_POLICIES[compute.remat], prevent_cse=not compute.scan_layers)
    scanned = nn.scan(
        block,
        variable_axes={"params": 0, "intermediates": 0, "attn_weights": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=config.num_layers,
        unroll=1 if compute.scan_layers else config.num_layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scanned(config, compute)


def check_tokens(tokens_BT: Array, config: ModelConfig) -> None:
    """Raise ConfigError unless the tokens are integers (B, T) and, where their values are known, ids of the vocabulary."""
    if tokens_BT.ndim != 2 or not jnp.issubdtype(tokens_BT.dtype, jnp.integer):
        raise ConfigError(f"the model wants rows of token ids, integers (B, T), or their embeddings (B, T, {config.dim}), got "
                          f"{tokens_BT.dtype} {tokens_BT.shape}.")
    if isinstance(tokens_BT, jax.core.Tracer) or tokens_BT.size == 0:
        return
    with jax.ensure_compile_time_eval():  # also of constants in a function that is being compiled
        least, most = int(tokens_BT.min()), int(tokens_BT.max())
    if least < 0 or most >= config.vocab_size:
        raise ConfigError(f"token ids must lie in [0, {config.vocab_size}), the model's vocabulary; got {least} to {most}.")


def head_matrix(params: Any) -> Array:
    """The output head's matrix (D, V) in a parameter tree; the transposed embedding where the two are tied."""
    return params["head"] if "head" in params else params["embedding"].T
