"""Exact log-probabilities of texts under a model: of continuations after a context, and of whole documents."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from llama_jax.errors import DataError
from llama_jax.files.encoding import is_unicode
from llama_jax.inference.params import DecodingParams
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.model.tree import unboxed
from llama_jax.ops.linear import linear
from llama_jax.parallel.rules import row_ways
from llama_jax.scoring.prefix_trees import Ids, TreeBatch, build_prefix_trees, pack_rows, tree_batches
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import require_tokenizer

TOKENS_PER_BATCH = {"cpu": 4096}
"""Tokens of a batch, by platform; platforms that are not named take `DEFAULT_TOKENS_PER_BATCH`."""
DEFAULT_TOKENS_PER_BATCH = 32_768
LOGITS_CHUNK = 256
"""Scored positions whose float32 logits exist at one time: all of them would not fit beside the model."""
MAX_TREE_TOKENS = 2048
"""Largest prefix tree. It may be longer than the model's context, because each of its branches is a text of its own."""


@dataclass(frozen=True)
class Likelihood:
    """Log-probability of a continuation after its context."""

    logprob: float
    """Sum of the log-probabilities of its tokens, in nats."""
    token_logprobs: tuple[float, ...]
    is_greedy: bool
    """Whether greedy decoding gives the continuation: at no position is another id of the vocabulary likelier."""
    truncated: int = 0
    """Tokens that were cut from the beginning of the context because the model's context is shorter."""


def encode_pair(tokenizer: Tokenizer, *, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Token ids of a context and its continuation, split as lm-evaluation-harness splits them.

    Whitespace at the end of the context moves to the continuation. Both are encoded as one text, because a tokenizer may join
    characters across the border; the first len(encode(context)) ids are the context, and the others, at least one, the
    continuation. The context begins with BOS (where the tokenizer sets one), and an empty context is BOS alone.
    """
    if not context:
        return [tokenizer.bos_id], tokenizer.encode(continuation)
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    context_ids = tokenizer.encode(context)
    whole_ids = tokenizer.encode(context + continuation)
    border = min(len(context_ids), len(whole_ids) - 1)
    return [*tokenizer.begin, *context_ids[:border]] or [tokenizer.bos_id], whole_ids[border:]


def loglikelihood(
    model: Transformer, params: Any, tokenizer: Tokenizer | None, requests: Sequence[tuple[str, str]] | tuple[str, str], *,
    report: Callable[[int], None] | None = None,
) -> list[Likelihood]:
    """Log-probability of each continuation after its context, in the order of the requests.

    Args:
        model: The model.
        params: Its parameter tree, or its DecodingParams.
        tokenizer: Its tokenizer; `encode_pair` says how a pair is tokenized.
        requests: (context, continuation) pairs of texts, or one such pair.
        report: Called after each batch with the number of requests that it finished.

    Raises:
        DataError: A request is not a pair of texts, or its continuation is empty or longer than the model's context; or there is
            no tokenizer (`token_loglikelihood` scores token ids).
    """
    tokenizer = require_tokenizer(tokenizer, "the likelihood of a text")
    pairs, requests = [], _as_list(requests, "(context, continuation) pairs")
    is_one_pair = len(requests) == 2 and all(isinstance(part, str) for part in requests)
    for number, request in enumerate([requests] if is_one_pair else requests, 1):
        parts = list(request) if isinstance(request, Sequence | np.ndarray) and not isinstance(request, str) else []
        if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise DataError(f"request {number} should be a pair of texts, (context, continuation), got {request!r:.100}.")
        context, continuation = parts
        if not continuation:
            raise DataError(f"request {number} has an empty continuation; there is nothing to score.")
        if not is_unicode(context + continuation):
            raise DataError(f"request {number} is not valid Unicode text (it holds half of a surrogate pair).")
        pairs.append(encode_pair(tokenizer, context=context, continuation=continuation))
    return token_loglikelihood(model, params, pairs, report=report)


def rolling_loglikelihood(
    model: Transformer, params: Any, tokenizer: Tokenizer | None, texts: Sequence[str] | str, *,
    report: Callable[[int], None] | None = None,
) -> list[Likelihood]:
    """Log-probability of each whole text after BOS; a text longer than the model's context is scored in windows.

    Every token is scored once, with the context that `rolling_windows` gives it.

    Args:
        model: The model.
        params: Its parameter tree, or its DecodingParams.
        tokenizer: Its tokenizer.
        texts: Texts, or one text.
        report: Called after each batch with the number of windows that it finished.

    Raises:
        DataError: A text is empty or not Unicode, or there is no tokenizer.
    """
    tokenizer = require_tokenizer(tokenizer, "the likelihood of a text")
    texts = [texts] if isinstance(texts, str) else _as_list(texts, "texts")
    pairs, owners = [], []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {number + 1} should be a text, got {text!r:.100}.")
        if not text:
            raise DataError(f"text {number + 1} is empty; there is nothing to score.")
        if not is_unicode(text):
            raise DataError(f"text {number + 1} is not valid Unicode text (it holds half of a surrogate pair).")
        for pair in rolling_windows([tokenizer.bos_id, *tokenizer.encode_array(text).tolist()], model.config.max_length):
            pairs.append(pair)
            owners.append(number)
    logprobs: list[list[float]] = [[] for _ in texts]
    is_greedy = [True] * len(texts)
    for owner, scored in zip(owners, token_loglikelihood(model, params, pairs, report=report), strict=True):
        logprobs[owner] += scored.token_logprobs
        is_greedy[owner] &= scored.is_greedy
    return [Likelihood(sum(values), tuple(values), greedy) for values, greedy in zip(logprobs, is_greedy, strict=True)]


def _as_list(requests: Iterable, what: str) -> list:
    """Requests of any iterable as a list; a text, whose items would be characters, is refused with DataError."""
    if isinstance(requests, str | bytes) or not isinstance(requests, Iterable):
        raise DataError(f"{what} are wanted, in a list, got {requests!r:.100}.")
    return list(requests)


def rolling_windows(ids: Ids, length: int) -> Iterator[tuple[Ids, Ids]]:
    """(context, continuation) pairs of at most length + 1 ids whose continuations, joined, are ids[1:].

    The windows of lm-evaluation-harness: each scores `length` ids after a context of one id. The last window, which has fewer
    ids to score, takes as much context as fits.
    """
    for begin in range(1, len(ids), length):
        end = min(begin + length, len(ids))
        context_begin = max(0, end - length - 1) if end - begin < length else begin - 1
        yield ids[context_begin:begin], ids[begin:end]


def token_loglikelihood(
    model: Transformer, params: Any, requests: Sequence[tuple[Ids, Ids]], *, report: Callable[[int], None] | None = None
) -> list[Likelihood]:
    """`loglikelihood` of requests that are tokenized: (context, continuation) pairs of ids. `loglikelihood_batches` says more."""
    results: dict[int, Likelihood] = {}
    for batch_results in loglikelihood_batches(model, params, requests):
        results |= batch_results
        if report:
            report(len(batch_results))
    return [results[number] for number in range(len(requests))]


def loglikelihood_batches(
    model: Transformer, params: Any, requests: Sequence[tuple[Ids, Ids]], *, known: Container[int] = ()
) -> Iterator[dict[int, Likelihood]]:
    """Likelihoods of (context, continuation) ids by request number, batch by batch as they are computed.

    A context that does not fit the model's context loses its beginning, which `Likelihood.truncated` counts. Prefixes that
    requests share are computed once, and a request's result does not depend on the other requests.

    Args:
        model: The model.
        params: Its parameter tree, or its DecodingParams.
        requests: Token ids of each context and continuation, both with at least one.
        known: Numbers of requests whose results the caller has; a batch of such requests alone is skipped.

    Raises:
        DataError: A continuation is longer than the model's context, or an id lies outside of the vocabulary.
        ConfigError: The parameters are not the model's.
    """
    if isinstance(params, DecodingParams):
        model, params = model.clone(layers_apart=True), params.tree
    else:
        params = unboxed(model.config, params)
    cut, lost = _fit_contexts(requests, max_length=model.config.max_length, vocab_size=model.config.vocab_size)
    limit = TOKENS_PER_BATCH.get(jax.default_backend(), DEFAULT_TOKENS_PER_BATCH)
    running: list[tuple[TreeBatch, tuple[Array, Array]]] = []
    """Batches that the device computes while the next one is laid out, and compiled where its shape is new."""
    trees = build_prefix_trees(cut, max_tokens=max(model.config.max_length, MAX_TREE_TOKENS))
    for batch in tree_batches(pack_rows(trees), cut, batch_tokens=limit, row_multiple=row_ways()):
        if not all(number in known for number in batch.scored):
            arrays = (batch.tokens_BT, batch.positions_BT, batch.ends_BT)
            running.append((batch, _score_batch(model, params, arrays, where_M=batch.where_M, targets_M=batch.targets_M,
                                                count=batch.count)))
        if len(running) == 2:
            yield _read_results(*running.pop(0), lost=lost)
    for batch, scores in running:
        yield _read_results(batch, scores, lost=lost)


def _fit_contexts(
    requests: Sequence[tuple[Ids, Ids]], *, max_length: int, vocab_size: int
) -> tuple[list[tuple[Ids, Ids]], list[int]]:
    """Checked requests whose contexts are cut at the left to fit, and how many ids each lost; raises DataError.

    The last id of a continuation is predicted and never read, so that max_length + 1 ids fit.
    """
    cut, lost = [], []
    for number, (context, continuation) in enumerate(requests, 1):
        if not 0 < len(continuation) <= max_length or not context:
            raise DataError(f"request {number} has {len(context)} ids of context and {len(continuation)} to score; both need "
                            f"at least one, and the model's context holds {max_length}.")
        smallest, largest = min(*context, *continuation), max(*context, *continuation)
        if smallest < 0 or largest >= vocab_size:
            raise DataError(f"request {number} holds the id {smallest if smallest < 0 else largest} and the model has ids in "
                            f"[0, {vocab_size}); use the tokenizer that the model was trained with.")
        kept = context[-(max_length + 1 - len(continuation)) :]
        cut.append((kept, continuation))
        lost.append(len(context) - len(kept))
    return cut, lost


def _read_results(batch: TreeBatch, scores: tuple[Array, Array], *, lost: Sequence[int]) -> dict[int, Likelihood]:
    """Results of a batch by request number; waits for the device. `lost`: tokens that each request's context lost."""
    logprobs_M, is_greedy_M = jax.device_get(scores)
    results = {}
    for number, indices in batch.scored.items():
        values = tuple(logprobs_M[indices].tolist())
        results[number] = Likelihood(sum(values), values, bool(is_greedy_M[indices].all()), lost[number])
    return results


@partial(jax.jit, static_argnames="model")
def _score_batch(
    model: Transformer, params: Any, arrays: tuple[Array, ...], *, where_M: Array, targets_M: Array, count: Array
) -> tuple[Array, Array]:
    """float32 (M,) log-probability of each target after the token at its position, and bool (M,): no token is likelier.

    `arrays` are `tokens_BT`, `positions_BT` and `ends_BT` of a `TreeBatch`, and the other arguments its other fields.
    """
    tokens_BT, positions_BT, ends_BT = arrays
    h_BTD = model.apply({"params": params}, tokens_BT, positions_BT, ends_BT=ends_BT, method=Transformer.hidden)
    h_MD = h_BTD.reshape(-1, h_BTD.shape[-1])[where_M]
    head_DV = head_matrix(params)

    def score_chunk(h_CD: Array, targets_C: Array) -> tuple[Array, Array]:
        logits_CV = linear(h_CD, head_DV, out_dtype=jnp.float32)
        chosen_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=-1)[:, 0]
        top_C = logits_CV.max(axis=-1)  # compared with instead of argmax, which takes XLA ten times as long on a CPU
        log_norm_C = jnp.log(jnp.exp(logits_CV - top_C[:, None]).sum(axis=-1)) + top_C
        return chosen_C - log_norm_C, chosen_C == top_C

    C = min(LOGITS_CHUNK, len(where_M))

    def fill(n: Array, columns: tuple[Array, Array]) -> tuple[Array, Array]:
        h_CD, targets_C = (lax.dynamic_slice_in_dim(x, n * C, C) for x in (h_MD, targets_M))
        return tuple(lax.dynamic_update_slice_in_dim(column, new, n * C, 0)
                     for column, new in zip(columns, score_chunk(h_CD, targets_C), strict=True))

    # only as many chunks as hold a real target: M is larger than needed, so that few shapes are compiled
    chunks = (count + C - 1) // C
    return lax.fori_loop(0, chunks, fill, (jnp.zeros(len(where_M)), jnp.zeros(len(where_M), bool)))
