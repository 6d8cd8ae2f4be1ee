"""Activations inside the blocks of a model, stacked over layers: what `capture` returns beside the logits."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array

from llama_jax.errors import ConfigError, nearest
from llama_jax.model.decoder import Transformer, check_tokens
from llama_jax.model.tree import LAYERS


class Captured(NamedTuple):
    """One kind of activation that `capture` can return."""

    shape: str
    """Its axes by their letters (`llama_jax.__doc__`), layers first."""
    meaning: str
    """What it holds of every token in every block."""


CAPTURED: dict[str, Captured] = {
    "resid_pre": Captured("(L, B, T, D)", "residual stream that enters the block"),
    "queries": Captured("(L, B, T, N, H)", "queries, after the position encoding"),
    "keys": Captured("(L, B, T, K, H)", "keys, after the position encoding"),
    "values": Captured("(L, B, T, K, H)", "values"),
    "attn_weights": Captured("(L, B, N, T, S)", "weights that softmax gives each key, float32; S = T"),
    "attn_out": Captured("(L, B, T, D)", "output of the attention layer, before it is added to the residual stream"),
    "resid_mid": Captured("(L, B, T, D)", "residual stream between the two layers; with post-norm, after the first norm"),
    "ffn_hidden": Captured("(L, B, T, F)", "hidden units of the feed-forward layer, after activation and gate"),
    "ffn_out": Captured("(L, B, T, D)", "output of the feed-forward layer, before it is added to the residual stream"),
    "resid_post": Captured("(L, B, T, D)", "residual stream that leaves the block; the last one goes to the final norm"),
}
"""Name -> shape and meaning of what `capture` can return, in the order in which a block computes it; all but the attention
weights are in the compute dtype."""


def capture(
    model: Transformer,
    params: Any,
    tokens_BT: Array,
    names: str | Sequence[str],
    *,
    positions_BT: Array | None = None,
    segment_ids_BT: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Compute a model's logits, float32 (B, T, V), and the activations of all its blocks that are asked for, by name.

    Rows of `CAPTURED` are the names, and say what shape each has. The forward pass is compiled for the names: what is not asked
    for takes no memory, and attention weights (T x S per head) are computed only where they are. May stand inside `jax.jit` and
    `jax.grad`.

    Args:
        model: With layers scanned, unrolled or apart, and any rematerialisation.
        params: Its parameters.
        tokens_BT: Token ids (B, T), or embeddings (B, T, D) in their place.
        names: A name of `CAPTURED`, or several.
        positions_BT: As `Transformer.hidden` takes them.
        segment_ids_BT: As `Transformer.hidden` takes them.

    Raises:
        ConfigError: A name is unknown, or a token no id of the vocabulary.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in CAPTURED:
            raise ConfigError(f"no activation is called {name!r}{nearest(name, CAPTURED)}")
    if jnp.issubdtype(tokens_BT.dtype, jnp.integer):  # inside the compiled program a wrong id would be a row of NaN
        check_tokens(tokens_BT, model.config)
    logits_BTV, values = _logits_and_captured(model, params, (tokens_BT, positions_BT, segment_ids_BT), names=names)
    return logits_BTV, dict(zip(names, values, strict=True))


@partial(jax.jit, static_argnames=("model", "names"))
def _logits_and_captured(
    model: Transformer, params: Any, inputs: tuple[Array | None, ...], *, names: tuple[str, ...]
) -> tuple[Array, list[Array]]:
    collections = ["intermediates", *(["attn_weights"] if "attn_weights" in names else [])]
    logits_BTV, sown = model.apply({"params": params}, *inputs, mutable=collections)
    if not model.layers_apart:
        stacked = _by_name(sown, LAYERS)
        return logits_BTV, [stacked[name] for name in names]
    layers = [_by_name(sown, f"{LAYERS}_{n}") for n in range(model.config.num_layers)]
    return logits_BTV, [jnp.stack([layer[name] for layer in layers]) for name in names]


def _by_name(sown: Any, layer: str) -> dict[str, Array]:
    """What a block, or the stack of them, has sown into any collection, by the last part of its path; each was sown once."""
    return {path[-1]: value for of_layers in sown.values()
            for path, (value,) in traverse_util.flatten_dict(of_layers[layer]).items()}
