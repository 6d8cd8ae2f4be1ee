"""N-gram language models with interpolated modified Kneser-Ney smoothing (Chen & Goodman 1998; Heafield et al. 2013)."""

from dataclasses import dataclass

import numpy as np

LONGEST_NGRAM = 5
"""Tokens of the longest n-grams, as in CCNet."""
_LEAST_COUNT, _ALWAYS_KEPT = 2, 2
"""N-grams that occur less often are left out if they have more tokens than these: most of the memory would be theirs."""
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For a text that is too small to estimate them; those of `lmplz --discount_fallback`."""


@dataclass(frozen=True)
class NgramModel:
    """A backoff model over token ids: a sorted table per length of n-grams.

    The key of an n-gram is (row of its first n - 1 tokens in their table) * vocabulary size + its last token, so that a search in
    the keys finds its row. The rows of single tokens are their ids.
    """

    vocab_size: int
    bos_id: int
    keys: list[np.ndarray]
    """Of 2 tokens and more: int64[n-grams], sorted."""
    log_probs: list[np.ndarray]
    """Of 1 token and more: float32[n-grams], natural logarithm of the probability of the last token after the others."""
    backoffs: list[np.ndarray]
    """Of 1 token and more, without the longest: float32[n-grams], added for a token that was not seen after the n-gram."""

    def score(self, tokens: np.ndarray) -> np.ndarray:
        """float64[tokens]: log probability of each token after those before it, from the last BOS on; 0 for BOS itself."""
        tokens = rows = tokens.astype(np.int64)
        scores = self.log_probs[0][tokens].astype(np.float64)
        for keys, log_probs, backoffs in zip(self.keys, self.log_probs[1:], self.backoffs, strict=True):
            context = np.concatenate([[-1], rows])[:-1]
            context[tokens == self.bos_id] = -1
            rows = _find_rows(keys, context, tokens=tokens, vocab_size=self.vocab_size)
            scores[context >= 0] += backoffs[context[context >= 0]]
            scores[rows >= 0] = log_probs[rows[rows >= 0]]
        scores[tokens == self.bos_id] = 0.0
        return scores


def train_ngrams(tokens: np.ndarray, vocab_size: int, *, bos_id: int, longest: int = LONGEST_NGRAM) -> NgramModel:
    """Estimate a model from `tokens` (int[tokens]): sentences one after another, each with BOS before it.

    No n-gram goes across a BOS. As Kneser-Ney smoothing has it, an n-gram that is not the longest counts as often as there are
    different tokens before it; one that begins with BOS has none, and counts as often as it occurs. It takes about 150 bytes of
    memory per token.
    """
    tables = _count_ngrams(tokens.astype(np.int64), vocab_size, bos_id=bos_id, longest=longest)
    model = NgramModel(vocab_size, bos_id, [], [], [])
    probabilities, kept, renumbered = np.full(1, 1 / (vocab_size - 1)), np.ones(1, bool), np.zeros(1, np.int64)
    for length, table in enumerate(tables, 1):
        keep = (table.occurrences >= _LEAST_COUNT) | (length <= _ALWAYS_KEPT)
        discounted = np.where(keep, np.maximum(table.counts - _discounts(table.counts), 0), 0)
        context = table.keys // vocab_size
        totals = np.bincount(context, table.counts, minlength=len(kept))
        seen = np.maximum(totals, 1)  # a context with no token after it leaves all to the shorter one
        left = np.maximum(1 - np.bincount(context, discounted, minlength=len(kept)) / seen, 1e-12)
        probabilities = discounted / seen[context] + left[context] * probabilities[table.suffixes]
        if length > 1:
            model.backoffs.append(np.log(left[kept]).astype(np.float32))
            model.keys.append(renumbered[context[keep]] * vocab_size + table.keys[keep] % vocab_size)
        model.log_probs.append(np.log(probabilities[keep]).astype(np.float32))
        kept, renumbered = keep, np.cumsum(keep) - 1
    return model


@dataclass
class _Ngrams:
    """All different n-grams of one length, as arrays with a row per n-gram."""

    keys: np.ndarray
    occurrences: np.ndarray
    counts: np.ndarray
    """What the estimate goes by."""
    suffixes: np.ndarray
    """Row of the n-gram without its first token."""


def _count_ngrams(tokens: np.ndarray, vocab_size: int, *, bos_id: int, longest: int) -> list[_Ngrams]:
    """The n-grams of 1 to `longest` tokens."""
    occurrences = np.bincount(tokens, minlength=vocab_size)
    tables = [_Ngrams(np.arange(vocab_size), occurrences, occurrences, np.zeros(vocab_size, np.int64))]
    rows = tokens  # of the n-gram that ends at each place; -1 where a BOS is within it
    for _ in range(1, longest):
        ends = 1 + np.flatnonzero((rows[:-1] >= 0) & (tokens[1:] != bos_id))
        keys, first, inverse, occurrences = np.unique(
            rows[ends - 1] * vocab_size + tokens[ends], return_index=True, return_inverse=True, return_counts=True)
        suffixes = rows[ends[first]]
        shorter = tables[-1]
        different = np.bincount(suffixes, minlength=len(shorter.keys))
        shorter.counts = np.where(different > 0, different, shorter.occurrences)
        tables.append(_Ngrams(keys, occurrences, occurrences, suffixes))
        rows = np.full(len(tokens), -1)
        rows[ends] = inverse
    tables[0].counts[bos_id] = 0  # never predicted
    return tables


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken off each count for tokens not seen: one discount for counts of 1, of 2, and of more (Chen & Goodman)."""
    n1, n2, n3, n4 = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    discounts = _FALLBACK_DISCOUNTS
    if min(n1, n2, n3, n4):
        y = n1 / (n1 + 2 * n2)
        estimated = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < discount < count for count, discount in enumerate(estimated, 1)):
            discounts = estimated
    return np.array([0.0, *discounts])[np.minimum(counts, 3)]


def _find_rows(keys: np.ndarray, context: np.ndarray, *, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """int64[tokens]: row of the n-gram of each context (-1: none) and token in a table, or -1."""
    wanted = context * vocab_size + tokens
    places = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    if not len(keys):
        return np.full(len(tokens), -1)
    return np.where((context >= 0) & (keys[places] == wanted), places, -1)
