"""Prefill and decode: pure functions of arrays, compiled once a shape."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from llama_jax.config import ModelConfig
from llama_jax.inference.params import Weights, forward, logits_of
from llama_jax.inference.sampling import Draw, sample, without_padding
from llama_jax.model.cache import Cache


@struct.dataclass
class Rows:
    """What decoding carries for each of B rows."""

    cache: Cache
    logits_BV: Array
    """float32, of the next token."""
    made_B: Array
    """int32 tokens given out so far."""
    budget_B: Array
    """int32 tokens to give out at most."""
    done_B: Array
    draw: Draw


@struct.dataclass
class Made:
    """Tokens of one call, (B, C): row b's are the first `count_B[b]`; an end-of-text token is the last of them."""

    tokens_BC: Array
    logprobs_BC: Array
    """float32 log-probability of each under the model: temperature 1, nothing left out."""
    top_tokens_BCK: Array
    """The K likeliest tokens where each stands, likeliest first."""
    top_logprobs_BCK: Array
    count_B: Array


@partial(jax.jit, static_argnames=("config", "slots"))
def prefill(config: ModelConfig, weights: Weights, tokens_BT: Array, counts_B: Array, *, slots: int) -> tuple[Cache, Array]:
    """A cache of `slots` slots that holds the first counts_B tokens of each row, and the logits (B, V) after them."""
    h_BTD, kvs = forward(config, weights, tokens_BT)
    last_BD = jnp.take_along_axis(h_BTD, (counts_B - 1)[:, None, None], axis=1)[:, 0]
    return Cache.holding(kvs, counts_B, slots), logits_of(weights, last_BD)


@jax.jit
def start(cache: Cache, logits_BV: Array, budget_B: Array, draw: Draw) -> Rows:
    """Rows that have given out nothing yet; each prefilled row serves as many samples as there are per row."""
    count = budget_B.shape[0] // logits_BV.shape[0]
    cache, logits_BV = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), (cache, logits_BV))
    return Rows(cache=cache, logits_BV=logits_BV, made_B=jnp.zeros_like(budget_B), budget_B=budget_B,
                done_B=budget_B < 1, draw=draw)


@partial(jax.jit, static_argnames=("config", "eos_ids", "length", "top", "pieces"), donate_argnames="rows")
def decode(
    config: ModelConfig, weights: Weights, rows: Rows, limit: Array, *, eos_ids: tuple[int, ...], length: int, top: int = 0,
    pieces: int | None = None,
) -> tuple[Rows, Made]:
    """`limit` (at most `length`) more tokens for every row that is not done; ends early when all are.

    One compiled loop, without a word to the host; `top` likeliest tokens are told beside each. Ids from `pieces`
    on are not drawn; log-probabilities stay those of the whole vocabulary.
    """
    B = rows.done_B.shape[0]

    def goes_on(state) -> Array:
        n, rows, _ = state
        return (n < limit) & ~rows.done_B.all()

    def one_more(state):
        n, rows, made = state
        next_B = sample(without_padding(rows.logits_BV, pieces), rows.draw, rows.made_B)
        alive_B = ~rows.done_B
        made = record(made, n, next_B, rows.logits_BV, alive_B)
        made_B = rows.made_B + alive_B
        ends_B = jnp.isin(next_B, jnp.asarray(eos_ids, jnp.int32)) | (made_B >= rows.budget_B)
        h_BTD, kvs = forward(config, weights, next_B[:, None], rows.cache)
        cache = Cache(*zip(*kvs, strict=True), rows.cache.lengths_B + alive_B)
        rows = rows.replace(cache=cache, made_B=made_B,
                            logits_BV=logits_of(weights, h_BTD[:, 0]), done_B=rows.done_B | ends_B)
        return n + 1, rows, made

    made = Made(jnp.zeros((B, length), jnp.int32), jnp.zeros((B, length), jnp.float32),
                jnp.zeros((B, length, top), jnp.int32), jnp.zeros((B, length, top), jnp.float32),
                jnp.zeros(B, jnp.int32))
    _, rows, made = lax.while_loop(goes_on, one_more, (jnp.int32(0), rows, made))
    return rows, made


def record(made: Made, n: Array, next_B: Array, logits_BV: Array, alive_B: Array) -> Made:
    """`made` with column n filled in."""
    norm_B1 = jax.nn.logsumexp(logits_BV, axis=-1, keepdims=True)
    logprobs_B1 = jnp.take_along_axis(logits_BV, next_B[:, None], axis=-1) - norm_B1
    top = made.top_tokens_BCK.shape[2]
    best_BK, best_tokens_BK = lax.top_k(logits_BV, top) if top else (jnp.zeros_like(logits_BV[:, :0]),) * 2

    def put(columns: Array, column: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(columns, column.astype(columns.dtype), n, 1)

    return Made(put(made.tokens_BC, next_B[:, None]), put(made.logprobs_BC, logprobs_B1),
                put(made.top_tokens_BCK, best_tokens_BK[:, None]),
                put(made.top_logprobs_BCK, (best_BK - norm_B1)[:, None]), made.count_B + alive_B)


@partial(jax.jit, static_argnames=("config", "top"))
def prompt_scores(config: ModelConfig, weights: Weights, tokens_BT: Array, *, top: int) -> tuple[Array, Array, Array]:
    """Log-probabilities (B, T - 1) of tokens 1.. after those before them, and the `top` likeliest with theirs."""
    h_BTD, _ = forward(config, weights, tokens_BT)

    def one(some: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        h_BD, next_B = some
        logprobs_BV = jax.nn.log_softmax(logits_of(weights, h_BD))
        best_BK, ids_BK = lax.top_k(logprobs_BV, top)
        return jnp.take_along_axis(logprobs_BV, next_B[:, None], axis=-1)[:, 0], ids_BK, best_BK

    scores = lax.map(one, (h_BTD[:, :-1].swapaxes(0, 1), tokens_BT[:, 1:].T))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), scores)
