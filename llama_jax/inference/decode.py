"""Prefill and decode: pure functions of arrays, compiled once per shape."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from llama_jax.inference.params import DecodingParams
from llama_jax.inference.sampling import RowSampling, exclude_padding, sample_tokens
from llama_jax.model.attention import KeysValues
from llama_jax.model.cache import Cache
from llama_jax.model.decoder import Transformer


@struct.dataclass
class DecodingRows:
    """The state of B texts that are being generated."""

    cache: Cache
    logits_BV: Array
    """float32 logits of the next token."""
    made_B: Array
    """int32 tokens drawn so far."""
    budget_B: Array
    """int32 tokens to draw at most."""
    done_B: Array
    """bool, whether a row has drawn an end-of-text token or all of its budget."""
    sampling: RowSampling
    """How the next token of each row is drawn."""


@struct.dataclass
class DecodedTokens:
    """Tokens that one call of `decode` drew: of the C columns row b has filled `count_B[b]`, an end-of-text token the last."""

    tokens_BC: Array
    logprobs_BC: Array
    """float32 log-probability of each under the model itself: at temperature 1, over the whole vocabulary."""
    top_tokens_BCK: Array
    """The K likeliest tokens at each place, likeliest first."""
    top_logprobs_BCK: Array
    count_B: Array


@partial(jax.jit, static_argnames=("model", "slots"))
def prefill(model: Transformer, params: DecodingParams, *, tokens_BT: Array, counts_B: Array, slots: int) -> tuple[Cache, Array]:
    """A cache of `slots` slots that holds the first counts_B tokens of each row, and the logits (B, V) after them."""
    h_BTD, keys_values = forward_over_cache(model, params, tokens_BT=tokens_BT)
    last_BD = jnp.take_along_axis(h_BTD, (counts_B - 1)[:, None, None], axis=1)[:, 0]
    return Cache.holding(keys_values, counts_B, slots=slots), params.next_logits(last_BD)


def forward_over_cache(
    model: Transformer, params: DecodingParams, *, tokens_BT: Array, cache: Cache | None = None
) -> tuple[Array, list[KeysValues]]:
    """`Transformer.forward` of tokens that begin their rows, or follow those that a cache holds."""
    positions_BT = jnp.arange(tokens_BT.shape[1])[None, :]
    if cache is not None:
        positions_BT += cache.lengths_B[:, None]
    model = model.clone(layers_apart=True)
    return model.apply({"params": params.tree}, tokens_BT, positions_BT, cache=cache, method=Transformer.forward)


@jax.jit
def start_decoding(cache: Cache, logits_BV: Array, *, budget_B: Array, sampling: RowSampling) -> DecodingRows:
    """Rows from which no token has been drawn yet; every prefilled row is repeated once per sample that is wanted of it."""
    count = budget_B.shape[0] // logits_BV.shape[0]
    cache, logits_BV = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), (cache, logits_BV))
    return DecodingRows(cache=cache, logits_BV=logits_BV, made_B=jnp.zeros_like(budget_B), budget_B=budget_B,
                        done_B=budget_B < 1, sampling=sampling)


@partial(jax.jit, static_argnames=("model", "eos_ids", "length", "top", "pieces"), donate_argnames="rows")
def decode(
    model: Transformer, params: DecodingParams, *, rows: DecodingRows, limit: Array, eos_ids: tuple[int, ...], length: int,
    top: int = 0, pieces: int | None = None,
) -> tuple[DecodingRows, DecodedTokens]:
    """`limit` (at most `length`) decode steps for every row that is not done; ends early when all rows are.

    All steps are one compiled loop on the device. The `top` likeliest tokens are returned beside each drawn one. Ids from
    `pieces` on, which the tokenizer does not have, are never drawn; log-probabilities are still over the whole vocabulary.
    """
    B = rows.done_B.shape[0]

    def goes_on(state) -> Array:
        n, rows, _ = state
        return (n < limit) & ~rows.done_B.all()

    def one_more(state):
        n, rows, made = state
        next_B = sample_tokens(exclude_padding(rows.logits_BV, pieces), rows.sampling, step_B=rows.made_B)
        alive_B = ~rows.done_B
        made = _with_column(made, n, next_B=next_B, logits_BV=rows.logits_BV, alive_B=alive_B)
        made_B = rows.made_B + alive_B
        ends_B = jnp.isin(next_B, jnp.asarray(eos_ids, jnp.int32)) | (made_B >= rows.budget_B)
        h_BTD, keys_values = forward_over_cache(model, params, tokens_BT=next_B[:, None], cache=rows.cache)
        cache = rows.cache.updated(keys_values, rows.cache.lengths_B + alive_B)
        rows = rows.replace(cache=cache, made_B=made_B,
                            logits_BV=params.next_logits(h_BTD[:, 0]), done_B=rows.done_B | ends_B)
        return n + 1, rows, made

    made = DecodedTokens(jnp.zeros((B, length), jnp.int32), jnp.zeros((B, length), jnp.float32),
                         jnp.zeros((B, length, top), jnp.int32), jnp.zeros((B, length, top), jnp.float32),
                         jnp.zeros(B, jnp.int32))
    _, rows, made = lax.while_loop(goes_on, one_more, (jnp.int32(0), rows, made))
    return rows, made


def _with_column(made: DecodedTokens, n: Array, *, next_B: Array, logits_BV: Array, alive_B: Array) -> DecodedTokens:
    """`made` with column n filled in."""
    norm_B1 = jax.nn.logsumexp(logits_BV, axis=-1, keepdims=True)
    logprobs_B1 = jnp.take_along_axis(logits_BV, next_B[:, None], axis=-1) - norm_B1
    top = made.top_tokens_BCK.shape[2]
    best_BK, best_tokens_BK = lax.top_k(logits_BV, top) if top else (jnp.zeros_like(logits_BV[:, :0]),) * 2

    def put(columns: Array, column: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(columns, column.astype(columns.dtype), n, 1)

    return DecodedTokens(put(made.tokens_BC, next_B[:, None]), put(made.logprobs_BC, logprobs_B1),
                put(made.top_tokens_BCK, best_tokens_BK[:, None]),
                put(made.top_logprobs_BCK, (best_BK - norm_B1)[:, None]), made.count_B + alive_B)


@partial(jax.jit, static_argnames=("model", "top"))
def prompt_scores(model: Transformer, params: DecodingParams, *, tokens_BT: Array, top: int) -> tuple[Array, Array, Array]:
    """Log-probabilities (B, T - 1) of tokens 1 to T - 1 given those before them, and ids and log-probabilities (B, T - 1, top) of
    the `top` likeliest at each place."""
    h_BTD, _ = forward_over_cache(model, params, tokens_BT=tokens_BT)

    def one(some: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        h_BD, next_B = some
        logprobs_BV = jax.nn.log_softmax(params.next_logits(h_BD))
        best_BK, ids_BK = lax.top_k(logprobs_BV, top)
        return jnp.take_along_axis(logprobs_BV, next_B[:, None], axis=-1)[:, 0], ids_BK, best_BK

    scores = lax.map(one, (h_BTD[:, :-1].swapaxes(0, 1), tokens_BT[:, 1:].T))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), scores)
