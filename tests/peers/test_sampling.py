"""Top-k, top-p and min-p leave the tokens and probabilities that transformers' logits processors leave, in its order."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from llama_jax.inference.sampling import EXCLUDED_LOGIT, RowSampling, Sampling, filter_logits

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEMPERATURES, TOP_K, TOP_P, MIN_P = (0.3, 1.0, 1.7), (0, 1, 6, 16, 50, 999), (1.0, 0.95, 0.5, 0.1, 0.999), (0.0, 0.05, 0.5)


@pytest.fixture(scope="module")
def model():
    """Only its way of choosing processors is used."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1))


def processed(model, logits: np.ndarray, choice: Sampling) -> np.ndarray:
    """Logits after the processors that `generate` of transformers makes for these fields, in float64; -inf is left out."""
    config = transformers.GenerationConfig(do_sample=True, temperature=choice.temperature, top_k=choice.top_k,
                                           top_p=choice.top_p, min_p=choice.min_p or None)
    processors = model._get_logits_processor(config, input_ids_seq_length=1, logits_processor=[])
    return processors(None, torch.tensor(logits, dtype=torch.float64)).numpy()


def kept(logits: np.ndarray, choice: Sampling) -> np.ndarray:
    return np.asarray(jax.jit(filter_logits)(jnp.asarray(logits), RowSampling.stack([(choice, 0, 0)] * len(logits))))


@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
def test_kept_tokens(model, scale):
    """The same tokens, but for those whose probability is no float32 number, and the same probabilities."""
    rng = np.random.default_rng(int(scale * 10))
    for fields in itertools.product(TEMPERATURES, TOP_K, TOP_P, MIN_P):
        choice = Sampling(**dict(zip(("temperature", "top_k", "top_p", "min_p"), fields, strict=True)))
        logits = (rng.standard_normal((4, 300)) * scale).astype(np.float32)
        ours, theirs = kept(logits, choice), processed(model, logits, choice)
        counted = softmax(logits.astype(np.float64) / choice.temperature, axis=-1) > 1e-35
        np.testing.assert_array_equal((ours > EXCLUDED_LOGIT) & counted, np.isfinite(theirs) & counted, err_msg=str(fields))
        np.testing.assert_allclose(softmax(ours, axis=-1), softmax(theirs, axis=-1), atol=1e-6)


def test_top_k_and_the_default_top_p_keep_what_transformers_keeps(model):
    """All logits but a few are equal: without renormalising, top_p would keep all of the k."""
    logits = np.concatenate([np.linspace(3, 0, 16), np.full(3984, -1.0)])[None].astype(np.float32)
    choice = Sampling(temperature=1.0, top_k=16, top_p=0.5)
    assert (kept(logits, choice) > EXCLUDED_LOGIT).sum() == np.isfinite(processed(model, logits, choice)).sum() < 6


def test_shares_that_are_met_exactly(model):
    """Where the likeliest tokens sum to top_p exactly, no further one is kept; equal ones stay or go together."""
    logits = np.log(np.array([[0.5, 0.25, 0.125, 0.125]], np.float32))
    for top_p, count in ((0.4, 1), (0.5, 1), (0.75, 2), (0.8, 4)):
        choice = Sampling(temperature=1.0, top_p=top_p)
        assert (kept(logits, choice) > EXCLUDED_LOGIT).sum() == count
        assert count == 4 or np.isfinite(processed(model, logits, choice)).sum() == count
