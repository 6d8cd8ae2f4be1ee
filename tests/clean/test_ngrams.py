"""N-gram models: against an estimate by dictionaries, against kenlm where it is installed, and as a distribution."""

import math
from collections import Counter, defaultdict
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.clean.ngrams import NgramModel, train_ngrams

BOS = 1


def text_tokens(play, characters: int) -> tuple[np.ndarray, int]:
    """Words of the play, lines as sentences with BOS 1 and EOS 2; their number."""
    lines = [line.split() for line in play[:characters].split("\n") if line]
    ids = {word: number for number, word in enumerate(sorted({word for line in lines for word in line}), 3)}
    return np.array([token for line in lines for token in [BOS, *(ids[word] for word in line), 2]]), len(ids) + 3


def by_dictionaries(sentences: list[list[int]], vocab_size: int, *, longest: int):
    """The textbook's recursion, in float64: a function (context, token) -> probability."""
    occurrences = [Counter() for _ in range(longest + 1)]
    for sentence in sentences:
        for n in range(1, longest + 1):
            occurrences[n].update(tuple(sentence[i : i + n]) for i in range(len(sentence) - n + 1))
    counts = [Counter() for _ in range(longest + 1)]
    counts[longest] = occurrences[longest]
    for n in range(1, longest):
        before = defaultdict(set)
        for gram in occurrences[n + 1]:
            before[gram[1:]].add(gram[0])
        counts[n] = {gram: len(before[gram]) if gram in before else number for gram, number in occurrences[n].items()}
    counts[1] = {gram: number for gram, number in counts[1].items() if gram != (BOS,)}
    discounts, totals, left = {}, defaultdict(float), defaultdict(lambda: 1.0)
    for n in range(1, longest + 1):
        n1, n2, n3, n4 = (sum(number == k for number in counts[n].values()) for k in (1, 2, 3, 4))
        found = (0.5, 1.0, 1.5)
        if n1 * n2 * n3 * n4:
            y = n1 / (n1 + 2 * n2)
            estimate = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
            found = estimate if all(0 < d < k for k, d in enumerate(estimate, 1)) else found
        discounts[n] = found
        for gram, number in counts[n].items():
            totals[gram[:-1]] += number

    def discounted(gram):
        n = len(gram)
        if gram not in counts[n] or (n > 2 and occurrences[n][gram] < 2):
            return 0.0
        return max(counts[n][gram] - discounts[n][min(counts[n][gram], 3) - 1], 0.0)

    for n in range(1, longest + 1):
        for gram in counts[n]:
            left[gram[:-1]] -= discounted(gram) / totals[gram[:-1]]

    def probability(context, token):
        shorter = probability(context[1:], token) if context else 1 / (vocab_size - 1)
        if context not in totals:
            return shorter
        return discounted((*context, token)) / totals[context] + left[context] * shorter

    return probability


def check_against_dictionaries(model: NgramModel, sentences: list[list[int]], tests: list[list[int]], *, longest: int):
    probability = by_dictionaries(sentences, model.vocab_size, longest=longest)
    scores = model.score(np.concatenate([np.array(sentence) for sentence in tests]))
    wanted = [0.0 if i == 0 else math.log(probability(tuple(sentence[max(0, i - longest + 1) : i]), token))
              for sentence in tests for i, token in enumerate(sentence)]
    np.testing.assert_allclose(scores, wanted, rtol=2e-5, atol=2e-5)


def split(tokens: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(tokens, np.flatnonzero(tokens == BOS)[1:])]


def test_the_play_against_dictionaries(play):
    tokens, vocab_size = text_tokens(play, 200_000)
    sentences = split(tokens)
    train = [sentence for i, sentence in enumerate(sentences) if i % 5]
    model = train_ngrams(np.concatenate([np.array(sentence) for sentence in train]), vocab_size, bos_id=BOS)
    assert len(model.keys) == 4 and all(len(keys) >= 10 for keys in model.keys)
    check_against_dictionaries(model, train, sentences[:200], longest=5)


SENTENCES = st.lists(st.lists(st.integers(2, 6), max_size=6).map(lambda middle: [BOS, *middle]), min_size=1, max_size=8)


@settings(max_examples=60)
@given(SENTENCES, SENTENCES, st.integers(2, 4))
def test_small_texts_against_dictionaries(train, tests, longest):
    model = train_ngrams(np.concatenate([np.array(sentence) for sentence in train]), 8, bos_id=BOS, longest=longest)
    check_against_dictionaries(model, train, tests, longest=longest)


@settings(max_examples=30)
@given(SENTENCES, st.lists(st.integers(2, 6), max_size=5))
def test_probabilities_sum_to_one(train, context):
    model = train_ngrams(np.concatenate([np.array(sentence) for sentence in train]), 8, bos_id=BOS, longest=3)
    total = sum(math.exp(model.score(np.array([BOS, *context, token]))[-1]) for token in range(8) if token != BOS)
    assert math.isclose(total, 1, rel_tol=1e-5)


def write_arpa(model: NgramModel, file) -> None:
    """The model in the format that kenlm reads; token 5 is the word "t5"."""
    names = [["<unk>", "<s>", "</s>"][i] if i < 3 else f"t{i}" for i in range(model.vocab_size)]
    grams = [names]
    for keys in model.keys:
        grams.append([f"{grams[-1][key // model.vocab_size]} {names[key % model.vocab_size]}" for key in keys.tolist()])
    with file.open("w") as stream:
        stream.write("\\data\\\n" + "".join(f"ngram {n}={len(rows)}\n" for n, rows in enumerate(grams, 1)))
        for n, rows in enumerate(grams, 1):
            stream.write(f"\n\\{n}-grams:\n")
            for row, gram in enumerate(rows):
                log_prob = -99 if gram == "<s>" else model.log_probs[n - 1][row] / math.log(10)
                backoff = f"\t{model.backoffs[n - 1][row] / math.log(10):.7f}" if n < len(grams) else ""
                stream.write(f"{log_prob:.7f}\t{gram}{backoff}\n")
        stream.write("\n\\end\\\n")


@pytest.mark.skipif(find_spec("kenlm") is None, reason="needs kenlm")
def test_kenlm_scores_the_same_model_alike(play, tmp_path):
    import kenlm

    tokens, vocab_size = text_tokens(play, 60_000)
    sentences = split(tokens)
    train = [sentence for i, sentence in enumerate(sentences) if i % 5]
    model = train_ngrams(np.concatenate([np.array(sentence) for sentence in train]), vocab_size, bos_id=BOS)
    write_arpa(model, tmp_path / "model.arpa")
    peer = kenlm.Model(str(tmp_path / "model.arpa"))
    for sentence in sentences[:300]:
        words = " ".join(f"t{token}" for token in sentence[1:-1])
        assert math.isclose(peer.score(words) * math.log(10), model.score(np.array(sentence)).sum(), rel_tol=1e-4)
