"""Property tests of decoding: cached equals uncached, a ragged batch equals each row alone, the compiled loop a naive one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.inference.decode import decode, forward_over_cache, prefill, start_decoding
from llama_jax.inference.generate import DecodingBatch
from llama_jax.inference.params import decoding_params
from llama_jax.inference.prompts import EncodedPrompt
from llama_jax.inference.sampling import RowSampling, Sampling
from llama_jax.model.cache import Cache

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=12)


def tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(3, 512, count).tolist()


def cached_logits(model, weights, ids: list[int], parts: list[int], slots: int = 40) -> np.ndarray:
    """Logits at every position when `ids` go through a cache in parts of these lengths."""
    cache, out, at = Cache.empty(model.config, dtype=model.compute.dtype, rows=1, slots=slots), [], 0
    step = jax.jit(lambda weights, tokens, cache: forward_over_cache(model, weights, tokens_BT=tokens, cache=cache))
    for part in parts:
        h_BTD, keys_values = step(weights, jnp.asarray([ids[at : at + part]]), cache)
        cache = cache.updated(keys_values, cache.lengths_B + part)
        out.append(weights.next_logits(h_BTD[0]))
        at += part
    assert int(cache.lengths_B[0]) == len(ids)
    return np.concatenate(out)


@pytest.mark.parametrize("parts", [[20], [19, 1], [1] * 20, [7, 6, 7], [12, 1, 1, 6]], ids=str)
def test_cached_equals_uncached(small, parts):
    model, params = small
    ids = tokens(20)
    wanted = model.apply({"params": params}, jnp.asarray([ids]))[0]
    np.testing.assert_allclose(cached_logits(model, decoding_params(model, params), ids, parts), wanted, atol=1e-5)


def test_the_cache_keeps_kv_heads_as_they_are(gqa):
    model, params = gqa
    empty = Cache.empty(model.config, dtype="float32", rows=3, slots=8)
    assert [k.shape for k in empty.k_BKSH] == [(3, 2, 8, 8)] * 3
    cache, logits_BV = prefill(model, decoding_params(model, params), tokens_BT=jnp.asarray([tokens(8)]),
                               counts_B=jnp.asarray([5]), slots=16)
    assert [v.shape for v in cache.v_BKSH] == [(1, 2, 16, 8)] * 3
    assert cache.lengths_B.tolist() == [5] and logits_BV.shape == (1, 512)


def naive(model, params, ids: list[int], count: int) -> list[int]:
    """Greedy continuation without a cache."""
    apply = jax.jit(lambda params, row: model.apply({"params": params}, row))
    for _ in range(count):
        row = np.zeros((1, model.config.max_length), np.int32)
        row[0, : len(ids)] = ids
        ids = [*ids, int(apply(params, row)[0, len(ids) - 1].argmax())]
    return ids[-count:]


def greedy_rows(model, weights, prompts) -> list[list[int]]:
    decoding = DecodingBatch(model, weights, prompts=[EncodedPrompt(ids) for ids in prompts], sampling=GREEDY, eos_ids=())
    made = decoding.advance(GREEDY.max_new_tokens)
    assert decoding.done.all()
    return [row[:count].tolist() for row, count in zip(made.tokens_BC, made.count_B, strict=True)]


@pytest.mark.parametrize("small", ["gqa", *(pytest.param(heads, marks=pytest.mark.slow) for heads in ("mha", "mqa"))],
                         indirect=True)
def test_ragged_equals_alone_equals_naive(small):
    model, params = small
    weights = decoding_params(model, params)
    prompts = [tokens(n, seed=n) for n in (1, 2, 17, 9, 33, 16)]
    together = greedy_rows(model, weights, prompts)
    for prompt, got in zip(prompts, together, strict=True):
        assert got == naive(model, params, prompt, 12) == greedy_rows(model, weights, [prompt])[0]


def test_rows_stop_at_the_context(gqa):
    model, params = gqa
    [short, long] = greedy_rows(model, decoding_params(model, params), [tokens(5), tokens(60, seed=1)])
    assert len(short) == 12 and len(long) == 4


def test_an_end_of_text_ends_a_row_and_the_loop(gqa):
    model, params = gqa
    weights, ids = decoding_params(model, params), tokens(6)
    plain = greedy_rows(model, weights, [ids])[0]
    cache, logits_BV = prefill(model, weights, tokens_BT=jnp.asarray([ids]), counts_B=jnp.asarray([6]), slots=32)
    rows = start_decoding(cache, logits_BV, budget_B=jnp.asarray([12]), sampling=RowSampling.stack([(GREEDY, 0, 0)]))
    rows, made = decode(model, weights, rows=rows, limit=jnp.int32(12), eos_ids=(plain[3],), length=12)
    count = plain.index(plain[3]) + 1
    assert made.count_B.tolist() == [count] and made.tokens_BC[0, :count].tolist() == plain[:count]
    assert rows.done_B.all() and rows.cache.lengths_B.tolist() == [6 + count]
    _, none = decode(model, weights, rows=rows, limit=jnp.int32(12), eos_ids=(), length=12)
    assert none.count_B.tolist() == [0]


def test_logprobs_are_the_models_own(gqa):
    model, params = gqa
    weights, ids = decoding_params(model, params), tokens(6)
    cache, logits_BV = prefill(model, weights, tokens_BT=jnp.asarray([ids]), counts_B=jnp.asarray([6]), slots=32)
    hot = RowSampling.stack([(Sampling(temperature=1.7, top_k=9, max_new_tokens=8), 0, 0)])
    rows = start_decoding(cache, logits_BV, budget_B=jnp.asarray([8]), sampling=hot)
    _, made = decode(model, weights, rows=rows, limit=jnp.int32(8), eos_ids=(), length=8, top=3)
    text = [*ids, *made.tokens_BC[0].tolist()]
    wanted = jax.nn.log_softmax(model.apply({"params": params}, jnp.asarray([text]))[0, 5:-1])
    np.testing.assert_allclose(made.logprobs_BC[0], wanted[np.arange(8), text[6:]], atol=1e-5)
    best = np.sort(wanted, axis=-1)[:, ::-1][:, :3]
    np.testing.assert_allclose(made.top_logprobs_BCK[0], best, atol=1e-5)
    np.testing.assert_array_equal(made.top_tokens_BCK[0], np.argsort(-wanted, axis=-1, stable=True)[:, :3])


def test_published_greedy_text(stories):
    """Batch 1, and inside a ragged batch of 16."""
    model, weights = stories.model, decoding_params(stories.model, stories.params)
    choice = Sampling(temperature=0.0, max_new_tokens=500)

    def continued(prompts: list[list[int]], wanted: int) -> np.ndarray:
        encoded = [EncodedPrompt(ids) for ids in prompts]
        decoding = DecodingBatch(model, weights, prompts=encoded, sampling=choice, eos_ids=(1, 2))
        parts = []
        for _ in range(-(-wanted // 32)):
            parts.append(decoding.advance(32).tokens_BC)
        return np.concatenate(parts, axis=1)

    ids = stories.greedy
    np.testing.assert_array_equal(continued([ids[:1]], len(ids) - 1)[0, : len(ids) - 1], ids[1:])
    starts = [1 + 7 * n for n in range(16)]
    rows = continued([ids[:n] for n in starts], len(ids) - 1)
    for n, row in zip(starts, rows, strict=True):
        np.testing.assert_array_equal(row[: len(ids) - n], ids[n:])


def test_decoding_spread_over_devices(gqa):
    """Rows over data, heads over tensor: the same tokens."""
    from llama_jax.config import MeshConfig
    from llama_jax.formats.loading import abstract_params

    model, params = gqa
    prompts = [tokens(n, seed=n) for n in (3, 9, 5, 16)]
    alone = greedy_rows(model, decoding_params(model, params), prompts)
    axes = MeshConfig(data=4, tensor=2)
    placed = jax.tree.map(lambda x, a: jax.device_put(x, a.sharding), params, abstract_params(model.config, axes))
    mesh = placed["embedding"].sharding.mesh
    with jax.set_mesh(mesh):
        weights = decoding_params(model, placed)
        assert greedy_rows(model, weights, prompts) == alone
        cache, _ = prefill(model, weights, tokens_BT=jnp.ones((4, 16), jnp.int32), counts_B=jnp.full(4, 3), slots=32)
    assert cache.k_BKSH[0].addressable_shards[0].data.shape == (1, 1, 32, 8)
