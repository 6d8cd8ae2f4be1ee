"""How likely a text is: exact log-probabilities of continuations and of whole documents."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from llama_jax.config import ModelConfig
from llama_jax.errors import DataError
from llama_jax.files.encoding import is_unicode
from llama_jax.inference.params import plain
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.ops.linear import linear
from llama_jax.parallel.rules import row_ways
from llama_jax.scoring.prefix_trees import Ids, Rows, batches, pack, plant
from llama_jax.tokenizer.base import Tokenizer

BATCH_TOKENS = {"cpu": 4096}
"""Tokens scored together on a platform; others take the default."""
DEFAULT_BATCH_TOKENS = 32_768
LOGITS_CHUNK = 256
"""Scored positions whose float32 logits exist at one time."""

LONGEST_SHARED = 2048
"""Tokens of texts that begin alike that share one row even where the model's own context is shorter."""


@dataclass(frozen=True)
class Likelihood:
    """What a model thinks of a continuation."""

    logprob: float
    """Sum of the log-probabilities of its tokens, in nats."""
    token_logprobs: tuple[float, ...]
    is_greedy: bool
    """Whether greedy decoding would have produced it: no id of the whole vocabulary is likelier anywhere."""
    truncated: int = 0
    """Tokens that its context lost at the left because the model's context is shorter."""


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of both, cut as lm-evaluation-harness cuts them.

    Spaces that end the context move to the continuation; both are encoded as one text, and what follows the first
    len(encode(context)) ids is the continuation (one id at least). A BOS begins the context; an empty one is BOS alone.
    """
    if not context:
        return [tokenizer.bos_id], tokenizer.encode(continuation)
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    before, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    split = min(len(before), len(whole) - 1)
    return [*tokenizer.begin, *before[:split]] or [tokenizer.bos_id], whole[split:]


def loglikelihood(
    model: Transformer, params: Any, tokenizer: Tokenizer, requests: Sequence[tuple[str, str]] | tuple[str, str], *,
    report: Callable[[int], None] | None = None,
) -> list[Likelihood]:
    """Of every (context, continuation), in order; a bare pair is the only one.

    Raises DataError for a request that is no pair of texts, and for a continuation that is empty.
    """
    pairs, requests = [], listed(requests, "(context, continuation) pairs")
    bare = len(requests) == 2 and all(isinstance(part, str) for part in requests)
    for number, request in enumerate([requests] if bare else requests, 1):
        parts = list(request) if isinstance(request, Sequence | np.ndarray) and not isinstance(request, str) else []
        if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise DataError(f"request {number} should be a pair of texts, (context, continuation), got {request!r:.100}.")
        context, continuation = parts
        if not continuation:
            raise DataError(f"request {number} has an empty continuation; there is nothing to score.")
        if not is_unicode(context + continuation):
            raise DataError(f"request {number} is not valid Unicode text (it holds half of a surrogate pair).")
        pairs.append(encode_pair(tokenizer, context, continuation))
    return token_loglikelihood(model, params, pairs, report=report)


def rolling_loglikelihood(
    model: Transformer, params: Any, tokenizer: Tokenizer, texts: Sequence[str] | str, *,
    report: Callable[[int], None] | None = None,
) -> list[Likelihood]:
    """Of whole texts after BOS, however long: every token is scored once, in windows as `windows` cuts them.

    A bare text is the only one. Raises DataError for a text that is empty or not Unicode.
    """
    texts = [texts] if isinstance(texts, str) else listed(texts, "texts")
    pairs, owners = [], []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {number + 1} should be a text, got {text!r:.100}.")
        if not text:
            raise DataError(f"text {number + 1} is empty; there is nothing to score.")
        if not is_unicode(text):
            raise DataError(f"text {number + 1} is not valid Unicode text (it holds half of a surrogate pair).")
        for pair in windows([tokenizer.bos_id, *tokenizer.encode_array(text).tolist()], model.config.max_length):
            pairs.append(pair)
            owners.append(number)
    values: list[list[float]] = [[] for _ in texts]
    greedy = [True] * len(texts)
    for owner, scored in zip(owners, token_loglikelihood(model, params, pairs, report=report), strict=True):
        values[owner] += scored.token_logprobs
        greedy[owner] &= scored.is_greedy
    return [Likelihood(sum(v), tuple(v), g) for v, g in zip(values, greedy, strict=True)]


def listed(requests: Iterable, what: str) -> list:
    """What is asked for, which may come as any iterable but a text. Raises DataError for what is none."""
    if isinstance(requests, str | bytes) or not isinstance(requests, Iterable):
        raise DataError(f"{what} are wanted, in a list, got {requests!r:.100}.")
    return list(requests)


def windows(ids: Ids, length: int) -> Iterator[tuple[Ids, Ids]]:
    """(context, continuation) pairs of at most length + 1 ids whose continuations together are ids[1:].

    Windows are disjoint: each scores `length` ids after a context of one, and the last one, which has fewer to score,
    has as much context as fits.
    """
    for begin in range(1, len(ids), length):
        end = min(begin + length, len(ids))
        yield ids[max(0, end - length - 1) : begin] if end - begin < length else ids[begin - 1 : begin], ids[begin:end]


def token_loglikelihood(
    model: Transformer, params: Any, requests: Sequence[tuple[Ids, Ids]], *, report: Callable[[int], None] | None = None
) -> list[Likelihood]:
    """Of (context, continuation) ids, in order; `report` hears how many more are done. For the rest see `in_batches`."""
    results: dict[int, Likelihood] = {}
    for some in in_batches(model, params, requests):
        results |= some
        if report:
            report(len(some))
    return [results[number] for number in range(len(requests))]


def in_batches(
    model: Transformer, params: Any, requests: Sequence[tuple[Ids, Ids]], known: Container[int] = ()
) -> Iterator[dict[int, Likelihood]]:
    """Of (context, continuation) ids, by their number, batch by batch; a batch is passed over where all of it is `known`.

    A context that does not fit loses its beginning, which `Likelihood.truncated` counts. What requests begin with alike is
    computed once; what a request gets does not depend on the others. Raises DataError for a continuation longer than the
    model's context, and for ids that the model does not have; ConfigError for parameters that are not the model's.
    """
    params, most, vocab_size = plain(model.config, params), model.config.max_length, model.config.vocab_size
    cut = []
    for number, (context, continuation) in enumerate(requests, 1):
        if not 0 < len(continuation) <= most or not context:
            raise DataError(f"request {number} has {len(context)} ids of context and {len(continuation)} to score; both need "
                            f"one at least, and the model's context holds {most}.")
        least, largest = min(*context, *continuation), max(*context, *continuation)
        if least < 0 or largest >= vocab_size:
            raise DataError(f"request {number} holds the id {least if least < 0 else largest} and the model has ids in "
                            f"[0, {vocab_size}); use the tokenizer that the model was trained with.")
        cut.append((context[-(most + 1 - len(continuation)) :], continuation))
    lost = [len(context) - len(kept) for (context, _), (kept, _) in zip(requests, cut, strict=True)]
    limit = BATCH_TOKENS.get(jax.default_backend(), DEFAULT_BATCH_TOKENS)
    running: list[tuple[Rows, tuple[Array, Array]]] = []
    for rows in batches(pack(plant(cut, max(most, LONGEST_SHARED))), cut, limit, row_ways()):
        if not all(number in known for number in rows.scored):
            running.append((rows, score(model.config, params, rows.arrays, rows.where_M, rows.targets_M, rows.count)))
        if len(running) == 2:  # a batch is laid out, and compiled where its shape is new, while the one before is computed
            yield likelihoods(*running.pop(0), lost=lost)
    for last in running:
        yield likelihoods(*last, lost=lost)


def likelihoods(rows: Rows, scores: tuple[Array, Array], *, lost: Sequence[int]) -> dict[int, Likelihood]:
    """What `score` says of a batch, by the number of the request; waits for it. `lost`: tokens that each context lost."""
    logprobs_M, greedy_M = jax.device_get(scores)
    values = {number: tuple(logprobs_M[places].tolist()) for number, places in rows.scored.items()}
    return {number: Likelihood(sum(values[number]), values[number], bool(greedy_M[places].all()), lost[number])
            for number, places in rows.scored.items()}


@partial(jax.jit, static_argnames="config")
def score(
    config: ModelConfig, params: Any, arrays: tuple[Array, ...], where_M: Array, targets_M: Array, count: Array
) -> tuple[Array, Array]:
    """Log-probability (float32) of each target after the token at its position, and whether no token is likelier.

    `arrays` are tokens, positions and ends, (B, T) each, as in `Rows`; where_M counts through B x T, and the first
    `count` of it are real.
    """
    tokens_BT, positions_BT, ends_BT = arrays
    h_BTD = Transformer(config).apply({"params": params}, tokens_BT, positions_BT, ends_BT=ends_BT, method=Transformer.hidden)
    h_MD = h_BTD.reshape(-1, h_BTD.shape[-1])[where_M]
    head_DV = head_matrix(params)

    def chunk(h_CD: Array, targets_C: Array) -> tuple[Array, Array]:
        logits_CV = linear(h_CD, head_DV, out_dtype=jnp.float32)
        chosen_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=-1)[:, 0]
        top_C = logits_CV.max(axis=-1)  # XLA's argmax takes ten times as long on a CPU
        log_norm_C = jnp.log(jnp.exp(logits_CV - top_C[:, None]).sum(axis=-1)) + top_C
        return chosen_C - log_norm_C, chosen_C == top_C

    C = min(LOGITS_CHUNK, len(where_M))

    def fill(n: Array, columns: tuple[Array, Array]) -> tuple[Array, Array]:
        some = (lax.dynamic_slice_in_dim(x, n * C, C) for x in (h_MD, targets_M))
        return tuple(lax.dynamic_update_slice_in_dim(old, new, n * C, 0)
                     for old, new in zip(columns, chunk(*some), strict=True))

    # as many rounds as there are positions to score: M itself is a power of two, so that few programs serve all
    return lax.fori_loop(0, (count + C - 1) // C, fill, (jnp.zeros(len(where_M)), jnp.zeros(len(where_M), bool)))
