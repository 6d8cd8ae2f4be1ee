"""What decoding with a trained model costs: bytes of key-value cache per token, and tokens per second."""

import statistics
import time
from dataclasses import replace
from functools import partial

import jax

from llama_jax.config import Config
from llama_jax.data.windows import TokenSource
from llama_jax.inference.generate import BATCH_STEPS, DecodingBatch
from llama_jax.inference.params import decoding_params
from llama_jax.inference.prompts import EncodedPrompt
from llama_jax.inference.sampling import Sampling
from llama_jax.model.cache import Cache
from llama_jax.model.decoder import Transformer
from llama_jax.training.step import Params

DECODED_ROWS = 16
"""Texts that are decoded together when the speed of decoding is measured."""
TIMED_LOOPS = 5
"""Compiled loops of decode steps that are timed; the speed is that of the median one."""


def cache_bytes_per_token(config: Config) -> int:
    """Bytes of keys and values that the cache holds for one token of one text, over all layers."""
    cache = jax.eval_shape(partial(Cache.empty, config.model, dtype=config.compute.dtype, rows=1, slots=1))
    return sum(array.size * array.dtype.itemsize for array in (*cache.k_BKSH, *cache.v_BKSH))


def decoding_speed(config: Config, params: Params, *, source: TokenSource) -> float:
    """Tokens per second of DECODED_ROWS texts together, in the second half of the model's context.

    Prompts from `source` fill the first half. Wants a context of at least 4 x TIMED_LOOPS tokens.
    """
    model = Transformer(config.model, replace(config.compute, attention="auto"))
    length = min(config.model.max_length // 2, source.manifest.tokens)
    places = [(source.manifest.tokens - length) * row // DECODED_ROWS for row in range(DECODED_ROWS)]
    prompts = [EncodedPrompt(source.read(place, place + length)[0].tolist(), row) for row, place in enumerate(places)]
    new = config.model.max_length - length
    steps = max(1, min(BATCH_STEPS, new // (TIMED_LOOPS + 1) - 1))
    batch = DecodingBatch(model, decoding_params(model, params), prompts=prompts, eos_ids=(),
                          sampling=Sampling(max_new_tokens=new, temperature=0.0))
    batch.advance(steps)  # compiles
    seconds = []
    for _ in range(TIMED_LOOPS):
        begin = time.perf_counter()
        batch.advance(steps)
        seconds.append(time.perf_counter() - begin)
    return DECODED_ROWS * steps / statistics.median(seconds)
