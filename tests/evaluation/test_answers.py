"""A model's answers: known ones are not computed again, long texts are cut or scored in windows, samples depend on no batch."""

import dataclasses
import math

import pytest

from llama_jax.evaluation.answers import Answerer
from llama_jax.evaluation.task import (
    GenerationRequest,
    LikelihoodAnswer,
    LikelihoodRequest,
    RollingRequest,
)
from llama_jax.scoring import likelihood
from llama_jax.scoring.likelihood import rolling_loglikelihood


def scores(answerer: Answerer, requests: list) -> list[LikelihoodAnswer]:
    """Answers in the order of their requests."""
    given = dict(pair for some in answerer.likelihoods(requests) for pair in some.items())
    return [given[number][0] for number in range(len(requests))]


def test_what_is_known_of_a_chunk_is_not_asked_again(small_run, play, monkeypatch):
    """Going on after any batch gives the same bits; a text in windows is known when all its windows are."""
    monkeypatch.setitem(likelihood.TOKENS_PER_BATCH, "cpu", 256)
    pairs = [(play[at : at + 300], play[at + 300 : at + 320]) for at in range(0, 3000, 300)]
    requests = [RollingRequest(play[:2500]), *(LikelihoodRequest(*pair) for pair in pairs)]
    batches = list(small_run.answerer.likelihoods(requests))
    assert len(batches) > 4 and any(0 not in some for some in batches)
    every = {number: score for some in batches for number, score in some.items()}
    assert every.keys() == set(range(len(requests)))
    for count in range(len(batches) + 1):
        known = {number: score for some in batches[:count] for number, score in some.items()}
        heard: list[float] = []
        new = list(small_run.answerer.likelihoods(requests, known=known, report=heard.append))
        assert sum(heard) == pytest.approx(1.0)
        assert known | {number: score for some in new for number, score in some.items()} == every
        assert len(new) <= len(batches) - count + (0 not in known) * len(batches)


def test_long_contexts_lose_their_beginning_and_are_counted(small_run):
    a = small_run.answerer
    long = "To be, or not to be, that is the question. " * 40
    ids = a.tokenizer.encode(long + "yes")
    most = a.model.config.max_length
    choice, short, whole = scores(a, [
        LikelihoodRequest(long.strip(), " yes"), LikelihoodRequest("Is it?", " yes"), RollingRequest(long + "yes")])
    assert short.truncated == whole.truncated == 0
    assert choice.truncated == len(a.tokenizer.encode(long.strip() + " yes")) + 1 - 1 - most > 0
    assert whole.tokens == len(ids)
    [rolled] = rolling_loglikelihood(a.model, a.params, a.tokenizer, [long + "yes"])
    assert whole.logprob == pytest.approx(rolled.logprob, abs=1e-2)
    [text], _ = a.generations([GenerationRequest(long, max_tokens=8)])
    assert text.truncated == len(a.tokenizer.encode(long)) + 1 - (most - 8) and len(text.texts) == 1


def test_a_continuation_longer_than_the_context_is_scored_in_windows(small_run):
    a = small_run.answerer
    long = " And so it goes, from hour to hour, we ripe and ripe." * 30
    [score] = scores(a, [LikelihoodRequest("Hear me:", long)])
    assert score.tokens > a.model.config.max_length and score.truncated > 0 and math.isfinite(score.logprob)


def test_samples_that_do_not_fit_one_batch(small_run):
    """40 samples in blocks of 32: all different draws, the first block as if it were alone."""
    prompt = GenerationRequest("First Citizen:", max_tokens=12, temperature=1.0, num_samples=40, seed=3)
    [answer], _ = small_run.answerer.generations([prompt])
    [alone], _ = small_run.answerer.generations([dataclasses.replace(prompt, num_samples=32)])
    assert len(answer.texts) == 40 and answer.texts[:32] == alone.texts and len(set(answer.texts)) > 35


def test_samples_depend_on_no_batch(small_run, monkeypatch):
    """Forty samples decoded 32 or 8 together, alone or beside another prompt, are the same samples."""
    prompt = GenerationRequest("First Citizen:", max_tokens=6, temperature=1.0, num_samples=40, seed=3, prompt_index=5)
    [wanted], _ = small_run.answerer.generations([prompt])
    monkeypatch.setattr("llama_jax.evaluation.answers.DECODING_ROWS", {"cpu": 8})
    both, _ = small_run.answerer.generations([dataclasses.replace(prompt, prompt_index=6), prompt])
    assert both[1] == wanted and not set(both[0].texts) & set(wanted.texts)
