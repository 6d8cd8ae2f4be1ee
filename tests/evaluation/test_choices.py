"""Normalisations of a choice's log-probability, computed by hand."""

import pytest

from llama_jax.evaluation.choices import judge_choices, normalised_logprobs
from llama_jax.evaluation.task import Item, LikelihoodAnswer, LikelihoodRequest


def score(logprob: float, tokens: int = 1) -> LikelihoodAnswer:
    return LikelihoodAnswer(logprob, tokens, False)


def test_every_normalisation_takes_another_choice():
    """Five choices, each of which one normalisation alone prefers."""
    texts = [" a", " bbbbbbbbbb", " \u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", " dddd", " e"]
    raw, tokens, bare = [-2.0, -10.0, -8.4, -9.0, -5.0], [1, 4, 2, 20, 1], [-1.0, -9.5, -8.0, -8.0, -9.0]
    item = Item("0", tuple(LikelihoodRequest(context, text) for context in ("c", "Answer:") for text in texts), 1)
    given = [*map(score, raw, tokens), *map(score, bare, tokens)]
    verdict = judge_choices(item, given)
    assert verdict.prediction == {"raw": 0, "char": 1, "byte": 2, "token": 3, "answer": 4}
    assert verdict.metrics == {"acc_raw": 0, "acc_char": 1, "acc_byte": 0, "acc_token": 0, "acc_answer": 0}
    values = normalised_logprobs(texts, given[:5], bare=given[5:])
    assert values["char"] == pytest.approx([-2, -1, -8.4 / 8, -9 / 4, -5])
    assert values["byte"] == pytest.approx([-2, -1, -8.4 / 16, -9 / 4, -5])
    assert values["answer"] == pytest.approx([-1, -0.5, -0.4, -1, 4])


def test_ties_go_to_the_first():
    item = Item("0", tuple(LikelihoodRequest(context, text) for context in ("c", "A:") for text in (" a", " b")), 0)
    assert set(judge_choices(item, [score(-1)] * 4).prediction.values()) == {0}
