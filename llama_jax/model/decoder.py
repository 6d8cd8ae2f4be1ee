"""The decoder: embedding, L blocks, final norm, output head."""

from dataclasses import asdict

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.model.block import Block
from llama_jax.model.initializers import matrix
from llama_jax.model.norms import RMSNorm
from llama_jax.ops.linear import linear
from llama_jax.ops.masks import Mask
from llama_jax.ops.rotary import rope_tables
from llama_jax.parallel.rules import constrain
from llama_jax.parallel.vocabulary import look_up

REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "linear": jax.checkpoint_policies.save_only_these_names("linear"),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[], names_which_can_be_offloaded=["linear"], offload_src="device", offload_dst="pinned_host"
    ),
}
"""What a rematerialised block keeps: its input alone, or also the outputs of its linear layers (section 2.4), on the
device or in the host's memory."""


class Transformer(nn.Module):
    """LLaMA. Parameters are float32, stacked over layers (L first); compute is `config.dtype`; logits are float32."""

    config: ModelConfig

    def setup(self):
        c = self.config
        self.embedding = self.param("embedding", matrix("vocab", "embed"), (c.vocab_size, c.dim), jnp.float32)
        block = Block
        if c.remat != "none":
            block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=not c.scan_layers)
        self.layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=c.num_layers,
            unroll=1 if c.scan_layers else c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c)
        self.final_norm = RMSNorm(c.norm_eps)
        if not c.tied_embeddings:
            self.head = self.param("head", matrix("embed", "vocab"), (c.dim, c.vocab_size), jnp.float32)

    def hidden(
        self, tokens_BT: Array, positions_BT: Array | None = None, segment_ids_BT: Array | None = None,
        ends_BT: Array | None = None,
    ) -> Array:
        """What the head reads, (B, T, D) in the compute dtype; positions default to 0..T-1, segments to one a row.

        Ends are those of `Mask`: texts that begin alike share a row as a tree, whose branches do not see each other.
        Raises ConfigError for tokens that are not ids of the vocabulary (inside a compiled program, where values cannot be
        looked at, such a row is NaN), and for rows longer than the context whose positions are not given.
        """
        c = self.config
        check_tokens(tokens_BT, c)
        if positions_BT is None and tokens_BT.shape[1] > c.max_length:
            raise ConfigError(f"rows of {tokens_BT.shape[1]:,} tokens are longer than the model's context of {c.max_length:,}; "
                              "cut them, raise model.max_length, or give positions.")
        if positions_BT is None:
            positions_BT = jnp.arange(tokens_BT.shape[1])[None, :]
        x_BTD = look_up(self.embedding, tokens_BT, c.dtype)
        x_BTD = constrain(x_BTD, "batch", "stream", "features")
        x_BTD, _ = self.layers(x_BTD, rope(c, positions_BT), Mask(segment_ids_BT, ends_BT))
        return self.final_norm(x_BTD)

    def __call__(
        self, tokens_BT: Array, positions_BT: Array | None = None, segment_ids_BT: Array | None = None
    ) -> Array:
        """Logits float32 (B, T, V) of the token after each position; token t sees tokens <= t of its segment."""
        h_BTD = self.hidden(tokens_BT, positions_BT, segment_ids_BT)
        head_DV = self.embedding.T if self.config.tied_embeddings else self.head
        return linear(h_BTD, head_DV, out_dtype=jnp.float32)


def check_tokens(tokens_BT: Array, config: ModelConfig) -> None:
    """Raise ConfigError where these are not rows of ids of the vocabulary, as far as can be told."""
    if tokens_BT.ndim != 2 or not jnp.issubdtype(tokens_BT.dtype, jnp.integer):
        raise ConfigError(f"the model wants rows of token ids, integers (B, T), got {tokens_BT.dtype} {tokens_BT.shape}.")
    if isinstance(tokens_BT, jax.core.Tracer) or tokens_BT.size == 0:
        return
    least, most = int(tokens_BT.min()), int(tokens_BT.max())
    if least < 0 or most >= config.vocab_size:
        raise ConfigError(f"token ids must lie in [0, {config.vocab_size}), the model's vocabulary; got {least} to {most}.")


def rope(config: ModelConfig, positions_BT: Array) -> tuple[Array, Array]:
    """The rotary tables of a model at `positions_BT`."""
    return rope_tables(positions_BT, head_dim=config.head_size, theta=config.rope_theta, **asdict(config.rope_scaling))


def head_matrix(params) -> Array:
    """The output head (D, V) of a parameter tree, tied or not."""
    return params["head"] if "head" in params else params["embedding"].T
