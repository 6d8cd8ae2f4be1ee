"""Log-probabilities from packed prefix trees equal those from plain logits, one request at a time."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.config import ComputeConfig, MeshConfig
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.loading import abstract_params
from llama_jax.ops import attention
from llama_jax.scoring.likelihood import (
    encode_pair,
    loglikelihood,
    rolling_loglikelihood,
    rolling_windows,
    token_loglikelihood,
)
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.training import train_sentencepiece
from tests.scoring.requests import random_requests


def alone(model, params, context: list[int], continuation: list[int]) -> tuple[np.ndarray, bool]:
    """By the definition: logits of the whole text, one text at a time."""
    row = np.zeros((1, model.config.max_length + 1), np.int32)
    text = [*context, *continuation]
    row[0, : len(text)] = text
    logits = jax.jit(lambda params, row: jax.nn.log_softmax(model.apply({"params": params}, row)[0]))(params, row[:, :-1])
    places = np.arange(len(context) - 1, len(text) - 1)
    return np.asarray(logits[places, np.array(continuation)]), bool((logits[places].argmax(-1) == np.array(continuation)).all())


@pytest.mark.parametrize("small", ["gqa", *(pytest.param(heads, marks=pytest.mark.slow) for heads in ("mha", "mqa"))],
                         indirect=True)
def test_shared_prefix_scores_equal_scores_one_by_one(small):
    model, params = small
    requests = random_requests(np.random.default_rng(1), 60)
    for request, got in zip(requests, token_loglikelihood(model, params, requests), strict=True):
        values, greedy = alone(model, params, *request)
        np.testing.assert_allclose(got.token_logprobs, values, atol=1e-5)
        assert got.logprob == pytest.approx(values.sum(), abs=1e-4) and got.is_greedy == greedy


def test_a_score_does_not_depend_on_the_batch(gqa):
    model, params = gqa
    requests = random_requests(np.random.default_rng(2), 40)
    together = token_loglikelihood(model, params, requests)
    for number in (0, 7, 39):
        [single] = token_loglikelihood(model, params, [requests[number]])
        np.testing.assert_allclose(single.token_logprobs, together[number].token_logprobs, atol=1e-5)
    backwards = token_loglikelihood(model, params, requests[::-1])[::-1]
    np.testing.assert_allclose([r.logprob for r in backwards], [r.logprob for r in together], atol=1e-5)


def test_greedy_is_told(stories):
    ids = stories.greedy
    yes, no = token_loglikelihood(stories.model, stories.params, [(ids[:9], ids[9:30]), (ids[:9], [*ids[9:29], 5])])
    assert yes.is_greedy and not no.is_greedy and yes.token_logprobs[:20] == pytest.approx(no.token_logprobs[:20], abs=1e-5)


def test_a_long_context_loses_its_beginning(gqa):
    model, params = gqa
    ids = np.random.default_rng(3).integers(0, 512, 200).tolist()
    [long] = token_loglikelihood(model, params, [(ids[:190], ids[190:])])
    values, _ = alone(model, params, ids[200 - 65 : 190], ids[190:])
    np.testing.assert_allclose(long.token_logprobs, values, atol=1e-5)


@given(st.integers(1, 200), st.integers(1, 40))
def test_windows_score_every_token_once_with_all_the_context_there_is(count, length):
    ids = list(range(count + 1))
    cut = list(rolling_windows(ids, length))
    assert [token for _, continuation in cut for token in continuation] == ids[1:]
    for number, (context, continuation) in enumerate(cut):
        whole = [*context, *continuation]
        assert whole == ids[whole[0] : whole[0] + len(whole)] and len(whole) <= length + 1 and context
        assert len(whole) == length + 1 or number == len(cut) - 1 == 0


def test_rolling_equals_windows_by_hand(gqa, tokenizer, play):
    model, params = gqa
    text = play[:700]
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    assert len(ids) > 3 * 64
    [got, short] = rolling_loglikelihood(model, params, tokenizer, [text, "To be"])
    values = np.concatenate([alone(model, params, list(a), list(b))[0] for a, b in rolling_windows(ids, 64)])
    np.testing.assert_allclose(got.token_logprobs, values, atol=1e-5)
    assert len(got.token_logprobs) == len(ids) - 1 and len(short.token_logprobs) == len(tokenizer.encode("To be"))


def test_pairs_are_cut_as_the_harness_cuts_them(tokenizer: Tokenizer):
    whole = tokenizer.encode("The king is dead")
    before = tokenizer.encode("The king")
    for pair in (("The king", " is dead"), ("The king ", "is dead")):
        assert encode_pair(tokenizer, context=pair[0], continuation=pair[1]) == ([1, *before], whole[len(before) :])
    assert encode_pair(tokenizer, context="", continuation="The king") == ([1], before)
    assert encode_pair(tokenizer, context="th", continuation="e")[1], "a pair that melts into one token still scores it"


def test_over_devices(gqa):
    model, params = gqa
    requests = random_requests(np.random.default_rng(4), 30)
    wanted = [r.logprob for r in token_loglikelihood(model, params, requests)]
    placed = jax.tree.map(lambda x, a: jax.device_put(x, a.sharding), params,
                          abstract_params(model.config, MeshConfig(data=4, tensor=2)))
    with jax.set_mesh(placed["embedding"].sharding.mesh):
        np.testing.assert_allclose([r.logprob for r in token_loglikelihood(model, placed, requests)], wanted, atol=1e-4)


@pytest.mark.parametrize("pair, message", [
    (("a", ""), "request 2 has an empty continuation"), (("a", "\ud800"), "request 2 is not valid Unicode"),
    (("a", "b c " * 100), "request 2 has .* and .* to score"),
])
def test_bad_requests_are_named(gqa, tokenizer, pair, message):
    model, params = gqa
    with pytest.raises(DataError, match=message):
        loglikelihood(model, params, tokenizer, [("fine", " too"), pair])


def test_a_bare_pair_and_a_bare_text_are_one_request(gqa, tokenizer):
    model, params = gqa
    for pair in (("ab", "cd"), ["ab", "cd"]):
        assert loglikelihood(model, params, tokenizer, pair) == loglikelihood(model, params, tokenizer, [("ab", "cd")])
    assert rolling_loglikelihood(model, params, tokenizer, "ab") == rolling_loglikelihood(model, params, tokenizer, ["ab"])


@pytest.mark.parametrize("request_, message", [
    ("ab", r"request 2 should be a pair of texts, \(context, continuation\), got 'ab'"), (("a", "b", "c"), "request 2 should"),
    (("a", 5), "request 2 should"), (("a", ["b"]), "request 2 should"), (None, "request 2 should"), (7, "request 2 should"),
])
def test_what_is_no_pair_is_named(gqa, tokenizer, request_, message):
    with pytest.raises(DataError, match=message):
        loglikelihood(*gqa, tokenizer, [("fine", " too"), request_])


@pytest.mark.parametrize("wrong", ["ab", None, 7, b"ab"])
def test_what_is_no_list_of_requests_is_named(gqa, tokenizer, wrong):
    with pytest.raises(DataError, match="pairs are wanted, in a list, got"):
        loglikelihood(*gqa, tokenizer, wrong)
    if not isinstance(wrong, str):
        with pytest.raises(DataError, match="texts are wanted, in a list, got"):
            rolling_loglikelihood(*gqa, tokenizer, wrong)
    with pytest.raises(DataError, match="text 2 should be a text, got 7"):
        rolling_loglikelihood(*gqa, tokenizer, ["a", 7])


def test_requests_may_come_one_by_one(gqa, tokenizer):
    pairs, texts = [("ab", "cd"), ("e", "f")], ["ab", "cd"]
    assert loglikelihood(*gqa, tokenizer, iter(pairs)) == loglikelihood(*gqa, tokenizer, pairs)
    assert rolling_loglikelihood(*gqa, tokenizer, iter(texts)) == rolling_loglikelihood(*gqa, tokenizer, texts)


@pytest.mark.parametrize("ids", [([3, 512], [4]), ([3], [4, 512]), ([-1], [4]), ([3], [-2, 4]), ([10**6], [4])])
def test_ids_that_the_model_does_not_have_are_named(gqa, tokenizer, play, ids):
    with pytest.raises(DataError, match=r"request 2 holds the id -?\d+ and the model has ids in \[0, 512\)"):
        token_loglikelihood(*gqa, [([3], [4]), ids])
    other = train_sentencepiece([play], 600)
    with pytest.raises(DataError, match="use the tokenizer that the model was trained with"):
        loglikelihood(*gqa, other, [("First Citizen:", " O, speak again, good Camillo")])
    with pytest.raises(DataError, match="use the tokenizer that the model was trained with"):
        rolling_loglikelihood(*gqa, other, ["First Citizen: O, speak again, good Camillo"])
    with pytest.raises(DataError, match="text 1 is not valid Unicode"):
        rolling_loglikelihood(*gqa, tokenizer, ["a\ud83d"])


def test_what_a_context_lost_is_counted(gqa):
    most = gqa[0].config.max_length
    lost = [r.truncated for r in token_loglikelihood(*gqa, [([3] * n, [4, 5]) for n in (1, most - 1, most, most + 9)])]
    assert lost == [0, 0, 1, 10]


def test_counts_are_reported(gqa, tokenizer):
    model, params = gqa
    counts = []
    results = loglikelihood(model, params, tokenizer, [("a", " b")] * 3 + [("", "c")], report=counts.append)
    assert sum(counts) == 4 == len(results) and results[0] == results[2]
    assert jnp.isfinite(jnp.array([r.logprob for r in results])).all()


@pytest.mark.parametrize("impl, device", [("cudnn", "NVIDIA H100 80GB HBM3"), ("splash", "TPU v5 lite")])
def test_kernels_that_know_no_trees_are_refused_on_their_own_hardware(gqa, impl, device, monkeypatch):
    """Choices that share a row would see each other."""
    model, params = gqa
    model = model.clone(compute=ComputeConfig(attention=impl))
    here = SimpleNamespace(platform="gpu" if impl == "cudnn" else "tpu", device_kind=device, compute_capability="9.0")
    monkeypatch.setattr(attention, "device_in_use", lambda: here)
    requests = [([1, 2, 3], [4]), ([1, 2, 3], [5])]
    with pytest.raises(ConfigError, match=rf"attention {impl} cannot serve: it knows no tree masks \(mask\.ends_BT\)"):
        token_loglikelihood(model, params, requests)
    assert len(token_loglikelihood(model.clone(compute=ComputeConfig()), params, requests)) == 2
