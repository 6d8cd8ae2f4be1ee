"""Sampling against numpy on fixed logits, by chi-square on draws, and its independence of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from llama_jax.errors import ConfigError
from llama_jax.inference.sampling import EXCLUDED_LOGIT, RowSampling, Sampling, exclude_padding, filter_logits, sample_tokens

V = 50
LOGITS = (np.random.default_rng(0).standard_normal((6, V)) * 2).astype(np.float32)
LOGITS[3, 10:20] = LOGITS[3].max()  # ties at the top
CHOICES = [{"top_p": 1.0} | fields for fields in (
    {"temperature": 1.0}, {"temperature": 0.3}, {"top_k": 5}, {"top_k": 1}, {"top_k": V + 9}, {"top_p": 0.5}, {"top_p": 1e-6},
    {"top_p": 0.95, "temperature": 1.5}, {"min_p": 0.1}, {"min_p": 1.0},
    {"top_k": 7, "top_p": 0.8, "min_p": 0.05, "temperature": 1.2}, {"top_k": 20, "top_p": 0.6}, {"top_p": 0.9, "min_p": 0.2},
)]


def expected(logits: np.ndarray, c: Sampling) -> np.ndarray:
    """The distribution in float64: one filter after the other, what is left renormalised after each."""
    z = logits.astype(np.float64) / c.temperature
    p = np.exp(z - z.max())
    p /= p.sum()
    ranks = np.array([(p > value * (1 + 1e-9)).sum() for value in p])  # equal ones share a rank
    if c.top_k:
        p = np.where(ranks < c.top_k, p, 0)
        p /= p.sum()
    if c.top_p < 1:
        p = np.where([p[ranks < rank].sum() < c.top_p for rank in ranks], p, 0)
        p /= p.sum()
    p = np.where(p >= c.min_p * p.max() * (1 - 1e-9), p, 0)
    return p / p.sum()


@pytest.mark.parametrize("fields", CHOICES, ids=str)
def test_distribution(fields):
    choice = Sampling(**fields)
    got = jax.nn.softmax(filter_logits(jnp.asarray(LOGITS), RowSampling.stack([(choice, 0, 0)] * len(LOGITS))), axis=-1)
    np.testing.assert_allclose(got, [expected(row, choice) for row in LOGITS], atol=1e-6)


@pytest.mark.parametrize("fields", [CHOICES[n] for n in (0, 2, 5, 8)], ids=str)
def test_draws_follow_the_distribution(fields):
    """20,000 draws, each a step of one row; p-value of a chi-square above 1e-4."""
    choice, count = Sampling(**fields), 20_000
    draw = RowSampling.stack([(choice, 0, 0)])
    tokens = jax.jit(jax.vmap(lambda step: sample_tokens(jnp.asarray(LOGITS[:1]), draw, step_B=step[None])[0]))(jnp.arange(count))
    seen, wanted = np.bincount(tokens, minlength=V), expected(LOGITS[0], choice) * count
    assert not seen[wanted == 0].any()
    rare = wanted < 5
    seen, wanted = np.append(seen[~rare], seen[rare].sum()), np.append(wanted[~rare], wanted[rare].sum())
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    assert stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > 1e-4


def test_a_row_does_not_depend_on_the_batch():
    rows = [(Sampling(seed=n, temperature=0.5 + n / 4, top_k=n), n % 2, n % 3) for n in range(6)]
    steps = jnp.arange(6) * 3
    together = sample_tokens(jnp.asarray(LOGITS), RowSampling.stack(rows), step_B=steps)
    order = np.array([4, 0, 5, 2, 1, 3])
    shuffled = sample_tokens(jnp.asarray(LOGITS[order]), RowSampling.stack([rows[n] for n in order]), step_B=steps[order])
    np.testing.assert_array_equal(shuffled, together[order])
    for n, row in enumerate(rows):
        assert sample_tokens(jnp.asarray(LOGITS[n : n + 1]), RowSampling.stack([row]), step_B=steps[n : n + 1])[0] == together[n]


def test_greedy_rows_beside_random_ones():
    draw = RowSampling.stack([(Sampling(temperature=0.0, top_k=3), 0, 0), (Sampling(), 0, 0)] * 3)
    got = sample_tokens(jnp.asarray(LOGITS), draw, step_B=jnp.zeros(6, jnp.int32))
    np.testing.assert_array_equal(got[::2], LOGITS.argmax(-1)[::2])


def test_samples_of_one_seed_differ_and_repeat():
    draw = RowSampling.stack([(Sampling(temperature=2.0, top_p=1.0), 0, n) for n in range(64)])
    flat = jnp.zeros((64, V))
    first = sample_tokens(flat, draw, step_B=jnp.zeros(64, jnp.int32))
    assert len(set(first.tolist())) > 10
    np.testing.assert_array_equal(first, sample_tokens(flat, draw, step_B=jnp.zeros(64, jnp.int32)))
    assert (first != sample_tokens(flat, draw, step_B=jnp.ones(64, jnp.int32))).any()


def noise(rows: list[tuple[int, int, int]], steps: int = 1) -> np.ndarray:
    """(rows, steps x V) Gumbel noise of (seed, place, sample), as `sample` draws it."""
    keys = RowSampling.stack([(Sampling(seed=seed), place, number) for seed, place, number in rows]).key_B
    drawn = jax.vmap(lambda key: jax.vmap(lambda n: jax.random.gumbel(jax.random.fold_in(key, n), (500,)))(jnp.arange(steps)))
    return np.asarray(drawn(keys)).reshape(len(rows), -1)


def test_noise_of_prompts_samples_seeds_and_steps_is_uncorrelated():
    """240 rows of 1,000 numbers: no pair correlates more than chance explains (6 standard errors, 28,680 pairs)."""
    rows = [(seed, place, number) for seed in (0, 1, 2**32 - 1)
            for place in (0, 1, 2, 3, 17, 2**32, 2**32 + 1, 2**33, 2**40 + 1, 2**64 - 1)
            for number in (0, 1, 2, 3, 4, 17, 1000, 2**32 - 1)]
    correlation = np.corrcoef(np.concatenate([noise(rows, steps=2)]))
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 6 / np.sqrt(1000)
    steps = np.corrcoef(noise(rows[:1], steps=200).reshape(200, 500))
    np.fill_diagonal(steps, 0)
    assert np.abs(steps).max() < 6 / np.sqrt(500)


def test_draws_of_two_places_are_independent():
    """10,000 pairs of draws: a chi-square of the 4 x 4 table, and each alone follows the distribution."""
    logits, count = jnp.asarray([[0.0, 0.5, 1.0, -1.0]]), 10_000
    choice = Sampling(temperature=1.0, top_p=1.0)
    draw = RowSampling.stack([(choice, place, 0) for place in (0, 1)])
    both = jnp.tile(logits, (2, 1))
    pairs = jax.jit(jax.vmap(lambda step: sample_tokens(both, draw, step_B=jnp.full(2, step))))(jnp.arange(count))
    table = np.zeros((4, 4))
    np.add.at(table, tuple(np.asarray(pairs).T), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-4
    wanted = np.asarray(jax.nn.softmax(logits[0])) * count
    assert min(stats.chisquare(table.sum(axis), wanted, sum_check=False).pvalue for axis in (0, 1)) > 1e-4


def test_filters_of_other_rows_change_nothing():
    """A row keeps its tokens to the last bit when rows beside it ask for filters that it does not want."""
    plain = Sampling(temperature=0.7, top_p=1.0)
    alone = filter_logits(jnp.asarray(LOGITS[:1]), RowSampling.stack([(plain, 0, 0)]))
    rows = [(plain, 0, 0), (Sampling(top_k=3), 0, 0), (Sampling(top_p=0.2), 0, 0)]
    beside = filter_logits(jnp.asarray(LOGITS[:3]), RowSampling.stack(rows))
    np.testing.assert_array_equal(alone[0], beside[0])


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-38, 1e-44])
def test_temperatures_near_zero_take_the_likeliest(temperature):
    """Logits divided by them are no longer finite numbers."""
    draw = RowSampling.stack([(Sampling(temperature=temperature), n, 0) for n in range(6)])
    logits = LOGITS + np.arange(V, dtype=np.float32) * 1e-2
    np.testing.assert_array_equal(sample_tokens(jnp.asarray(logits), draw, step_B=jnp.zeros(6, jnp.int32)), logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.5, 1e10, 1e30, 3e38, 1e300])
def test_top_k_keeps_the_likeliest_at_every_temperature(temperature):
    """Also at one that leaves all probabilities equal in float32."""
    draw = RowSampling.stack([(Sampling(temperature=temperature, top_k=4, top_p=1.0), 0, 0)] * 6)
    logits = LOGITS + np.arange(V, dtype=np.float32) * 1e-2
    kept = np.asarray(filter_logits(jnp.asarray(logits), draw)) > EXCLUDED_LOGIT
    np.testing.assert_array_equal(kept, np.argsort(np.argsort(-logits)) < 4)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1e28, 1e30, 1e300])
def test_ids_that_fill_up_a_vocabulary_are_not_drawn_at_any_temperature(temperature):
    logits = jnp.asarray(LOGITS).at[:, 20:].add(30.0)
    choices = [{"top_p": 1.0}, {"top_p": 1.0, "top_k": V + 9}, {"min_p": 0.1}] * 2
    draw = RowSampling.stack([(Sampling(temperature=temperature, **fields), n, 0) for n, fields in enumerate(choices)])
    used = exclude_padding(logits, 20)
    drawn = jax.jit(jax.vmap(lambda step: sample_tokens(used, draw, step_B=jnp.full(6, step))))(jnp.arange(50))
    assert drawn.max() < 20


@pytest.mark.parametrize("fields, message", [
    ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"), ({"temperature": float("nan")}, "temperature"),
    ({"temperature": float("inf")}, "temperature"), ({"temperature": "hot"}, "temperature should be a number, got 'hot'"),
    ({"top_p": 0}, "top_p must lie in"), ({"top_p": 1.01}, "top_p"), ({"top_k": -1}, "top_k"), ({"min_p": 2.0}, "min_p"),
    ({"num_samples": 0}, "num_samples must be positive"), ({"max_new_tokens": -1}, "max_new_tokens"),
    ({"max_new_tokens": 1.5}, "max_new_tokens should be a whole number"), ({"seed": -1}, "seed"), ({"seed": 2**32}, "seed"),
    ({"stop": ("",)}, "stop should be non-empty strings"), ({"stop": (7,)}, "stop"), ({"stop": "x"}, "stop"),
    ({"top_k": True}, "top_k should be a number"),
])
def test_what_cannot_be_asked_for(fields, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**fields)
