"""95% confidence intervals cover the true difference in 93% to 97% of simulated studies, whatever the noise is made of."""

import numpy as np
import pytest

from llama_jax.ablation.statistics import MeanDifference, critical_value, detectable_difference, mean_difference

DRAWS = 2000
TRUE = -0.02

NOISE = {  # standard deviations of seeds, batches and residuals, nats per token
    "no seed noise": (0.0, 0.01, 0.005),
    "no seed noise, much residual": (0.0, 0.005, 0.02),
    "little seed noise": (0.001, 0.01, 0.005),
    "as much as batches": (0.003, 0.01, 0.01),
    "seed noise": (0.01, 0.01, 0.01),
    "seed noise alone": (0.02, 0.0, 0.001),
    "residuals alone": (0.0, 0.0, 0.01),
}


def simulated(noise, *, runs, tokens_B, draws=DRAWS, true=TRUE, seed=0):
    """Differences of `draws` studies, (draws, R, B)."""
    random, batches = np.random.default_rng([seed, runs, len(tokens_B)]), len(tokens_B)
    seeds, texts, residuals = noise
    return (true + seeds * random.standard_normal((draws, runs, 1)) + texts * random.standard_normal((draws, 1, batches))
            + residuals * random.standard_normal((draws, runs, batches)))


def share_covered(difference, true=TRUE):
    return np.mean(np.abs(difference.value - true) <= critical_value(difference) * difference.stderr)


@pytest.mark.parametrize("batches", [10, 30, 60])
@pytest.mark.parametrize("runs", [2, 3, 5])
@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_intervals_cover(noise, runs, batches):
    tokens_B = np.random.default_rng(batches).integers(1000, 4097, batches).astype(float)
    covered = share_covered(mean_difference(simulated(noise, runs=runs, tokens_B=tokens_B), tokens_B))
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("runs", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.01, 0.001])
def test_small_p_values_are_not_too_frequent(alpha, runs):
    """Holm's correction asks for them: among studies without a difference, at most about a share `alpha` has them."""
    tokens_B = np.full(60, 4096.0)
    for noise in NOISE.values():
        difference = mean_difference(simulated(noise, runs=runs, tokens_B=tokens_B, draws=4 * DRAWS), tokens_B)
        missed = np.abs(difference.value - TRUE) > critical_value(difference, alpha=alpha) * difference.stderr
        assert missed.mean() <= 1.5 * alpha + 3 * np.sqrt(alpha / missed.size)


@pytest.mark.parametrize("batches", [10, 60])
def test_the_interval_of_one_seed_covers_the_choice_of_batches(batches):
    tokens_B = np.random.default_rng(batches).integers(2000, 4097, batches).astype(float)
    covered = share_covered(mean_difference(simulated((0.0, 0.01, 0.005), runs=1, tokens_B=tokens_B), tokens_B))
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_satterthwaite_would_not_do_for_two_seeds(runs):
    """Why `critical_value` is what it is: the textbook's degrees of freedom cover too rarely with few seeds."""
    stats = pytest.importorskip("scipy.stats")
    tokens_B = np.full(60, 4096.0)
    difference = mean_difference(simulated((0.01, 0.02, 0.01), runs=runs, tokens_B=tokens_B), tokens_B)
    freedom = difference.stderr**4 / (difference.seed_variance**2 / (runs - 1) + difference.batch_variance**2 / 59)
    covered = np.mean(np.abs(difference.value - TRUE) <= stats.t.ppf(0.975, freedom) * difference.stderr)
    assert covered < {2: 0.90, 3: 0.94, 5: 0.955}[runs] and share_covered(difference) >= 0.93


@pytest.mark.parametrize("noise", [(0.01, 0.005, 0.005), (0.002, 0.01, 0.01), (0.0, 0.01, 0.001)])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_four_of_five_studies_find_the_detectable_difference(noise, runs):
    tokens_B = np.full(20, 4096.0)
    seeds, texts, residuals = noise
    known = MeanDifference(np.array(0.0), np.array(seeds**2 / runs + residuals**2 / runs / 20), np.array(texts**2 / 20), runs, 20)
    true = detectable_difference(known)
    difference = mean_difference(simulated(noise, runs=runs, tokens_B=tokens_B, true=true), tokens_B)
    assert 0.77 <= np.mean(np.abs(difference.value) > critical_value(difference) * difference.stderr) <= 0.83
