"""One block of the decoder: attention and feed-forward, each behind a norm and added to the residual stream."""

from flax import linen as nn
from jax import Array

from llama_jax.config import ModelConfig
from llama_jax.model.attention import Attention, KeysValues
from llama_jax.model.feedforward import FeedForward
from llama_jax.model.norms import RMSNorm
from llama_jax.ops.masks import Mask
from llama_jax.parallel.rules import constrain


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + feedforward(norm(x)) (section 2.2)."""

    config: ModelConfig
    keeps_kv: bool = False
    """Return what Attention says of keys and values too: inference keeps it."""

    @nn.compact
    def __call__(
        self, x_BTD: Array, rope: tuple[Array, Array], mask: Mask, cached: tuple[Array, Array, Array] | None = None
    ) -> tuple[Array, KeysValues | None]:
        eps = self.config.norm_eps
        h_BTD = RMSNorm(eps, name="attention_norm")(x_BTD)
        out_BTD, kv = Attention(self.config, name="attention")(h_BTD, rope, mask, cached)
        x_BTD += out_BTD
        h_BTD = RMSNorm(eps, name="feedforward_norm")(x_BTD)
        x_BTD += FeedForward(self.config, name="feedforward")(h_BTD)
        return constrain(x_BTD, "batch", "stream", "features"), kv if self.keeps_kv else None
