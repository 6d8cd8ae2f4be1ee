"""Text from a model: samples by running the whole context again for every token."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from llama_jax.data.tokenizer import Tokenizer
from llama_jax.model.transformer import Transformer


def continue_tokens(
    model: Transformer, params, tokens: list[int], num_tokens: int, *, key: Array, temperature: float
) -> list[int]:
    """`num_tokens` ids after `tokens` (temperature 0: greedy); the context is the last model.config.max_length ids."""
    length = min(model.config.max_length, len(tokens) + num_tokens)

    @jax.jit
    def next_token(params, window_T: Array, last: Array, key: Array) -> Array:
        logits_V = model.apply({"params": params}, window_T[None])[0, last]
        sampled = jax.random.categorical(key, logits_V / max(temperature, 1e-6))
        return jnp.where(temperature > 0, sampled, jnp.argmax(logits_V))

    tokens = list(tokens)
    for n in range(num_tokens):
        window = tokens[-length:]
        padded = np.zeros(length, np.int32)
        padded[: len(window)] = window
        tokens.append(int(next_token(params, padded, len(window) - 1, jax.random.fold_in(key, n))))
    return tokens


def sample_text(
    model: Transformer, params, tokenizer: Tokenizer, prompt: str, num_tokens: int, *, seed: int, temperature: float = 0.8
) -> str:
    """`prompt` and its continuation, which ends at EOS or after `num_tokens` ids."""
    start = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    tokens = continue_tokens(model, params, start, num_tokens, key=jax.random.key(seed), temperature=temperature)
    made = tokens[len(start):]
    end = made.index(tokenizer.eos_id) if tokenizer.eos_id in made else len(made)
    return tokenizer.decode(tokens[: len(start) + end])
