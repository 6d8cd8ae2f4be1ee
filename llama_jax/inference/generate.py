"""Text generation: continuations of batches of prompts, or of one prompt as a stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.errors import ConfigError
from llama_jax.inference.continuation import Continuation, Generated
from llama_jax.inference.decode import DecodedTokens, decode, prefill, start_decoding
from llama_jax.inference.params import DecodingParams, decoding_params
from llama_jax.inference.prompts import EncodedPrompt, TextOrIds, as_prompt_list, bucket_length, encode_prompt, pad_prompts
from llama_jax.inference.sampling import RowSampling, Sampling
from llama_jax.model.decoder import Transformer
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import require_tokenizer

STREAM_STEPS = 4
"""Decode steps between two pieces of a stream."""
BATCH_STEPS = 32
"""Decode steps of a batch between two searches for stop strings, and the most that one compiled loop makes."""


class DecodingBatch:
    """Prompts that are prefilled together and decoded together, with `sampling.num_samples` rows per prompt."""

    def __init__(self, model: Transformer, params: DecodingParams, *, prompts: Sequence[EncodedPrompt], sampling: Sampling,
                 eos_ids: tuple[int, ...], pieces: int | None = None):
        """Prefill the prompts.

        Args:
            model: The model.
            params: Its parameters, as decoding reads them.
            prompts: Ids of each prompt, at least one.
            sampling: How every row is drawn.
            eos_ids: Ids that end a row.
            pieces: Number of ids that may be drawn, where the model's vocabulary is padded beyond the tokenizer's.
        """
        self._model, self._params, self._eos_ids, self._pieces = model, params, eos_ids, pieces
        config = model.config
        ids = [prompt.ids for prompt in prompts]
        budgets = [min(sampling.max_new_tokens, config.max_length - len(prompt.ids)) for prompt in prompts]
        tokens_BT, counts_B = pad_prompts(ids, limit=config.max_length)
        slots = bucket_length(max(map(len, ids)) + max(budgets), limit=config.max_length)
        cache, logits_BV = prefill(model, params, tokens_BT=tokens_BT, counts_B=counts_B, slots=slots)
        row_sampling = RowSampling.stack([(sampling, prompt.prompt_index, prompt.first_sample + n) for prompt in prompts
                                          for n in range(sampling.num_samples)])
        budget_B = jnp.repeat(jnp.asarray(budgets, jnp.int32), sampling.num_samples)
        self._rows = start_decoding(cache, logits_BV, budget_B=budget_B, sampling=row_sampling)

    @property
    def done(self) -> np.ndarray:
        """bool (B,): rows that get no more tokens."""
        return np.asarray(self._rows.done_B)

    def advance(self, limit: int) -> DecodedTokens:
        """Decode up to `limit` (at most `BATCH_STEPS`) more tokens per row; the result holds numpy arrays."""
        self._rows, decoded = decode(self._model, self._params, rows=self._rows, limit=jnp.int32(limit), eos_ids=self._eos_ids,
                                     length=BATCH_STEPS, pieces=self._pieces)
        return jax.device_get(decoded)

    def finish(self, rows: np.ndarray) -> None:
        """End the rows that bool (B,) `rows` names: they get no more tokens."""
        self._rows = self._rows.replace(done_B=self._rows.done_B | jnp.asarray(rows))


def generate(
    model: Transformer, params: Any, tokenizer: Tokenizer | None, prompts: TextOrIds | Sequence[TextOrIds],
    sampling: Sampling | None = None, *, batch_size: int = 16, report: Callable[[int], None] | None = None,
) -> list[Generated]:
    """Continuations of prompts, in the order of the prompts, with the samples of one prompt side by side.

    A result depends on its prompt, the seed, and the index of the prompt and of the sample, but not on the other prompts of
    its batch.

    Args:
        model: The model.
        params: Its parameter tree, or the `DecodingParams` made from it.
        tokenizer: Its tokenizer. Without one (None) prompts are token ids, results have no text, and nothing but the number of
            tokens ends them.
        prompts: Texts, before which BOS is set, or token ids, which are taken as they are; or one such prompt.
        sampling: How tokens are drawn; by default as `Sampling()` says.
        batch_size: Prompts that are decoded together.
        report: Called after each batch with the number of prompts that it finished.

    Raises:
        ConfigError: A prompt is empty, fills the model's context, or holds an id that the model does not have.
        NoTokenizer: A prompt is a text, or there are stop strings, and no tokenizer.
    """
    encoded = [EncodedPrompt(encode_prompt(tokenizer, prompt, config=model.config), prompt_index)
               for prompt_index, prompt in enumerate(as_prompt_list(prompts))]
    return generate_encoded(model, params, tokenizer=tokenizer, prompts=encoded, sampling=sampling or Sampling(),
                            batch_size=batch_size, report=report)


def generate_encoded(
    model: Transformer, params: Any, *, tokenizer: Tokenizer | None, prompts: Sequence[EncodedPrompt], sampling: Sampling,
    batch_size: int = 16, report: Callable[[int], None] | None = None,
) -> list[Generated]:
    """`generate` from prompts that are encoded and checked, and that say which random numbers they draw."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be positive, got {batch_size}.")
    params = decoding_params(model, params)
    results: dict[int, list[Generated]] = {}
    # prompts of one batch have nearly one length, so that little of it is padding
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number].ids))
    for begin in range(0, len(prompts), batch_size):
        numbers = by_length[begin : begin + batch_size]
        rounded_up = 1 << (len(numbers) - 1).bit_length()  # few batch sizes, and so few compilations
        padding = [EncodedPrompt([])] * (rounded_up - len(numbers))
        generated = _generate_batch(model, params, tokenizer=tokenizer,
                                    prompts=[*(prompts[number] for number in numbers), *padding], sampling=sampling)
        for place, number in enumerate(numbers):
            first = place * sampling.num_samples
            results[number] = generated[first : first + sampling.num_samples]
        if report:
            report(len(numbers))
    return [result for number in range(len(prompts)) for result in results[number]]


def _generate_batch(model: Transformer, params: DecodingParams, *, tokenizer: Tokenizer | None, prompts: Sequence[EncodedPrompt],
                    sampling: Sampling) -> list[Generated]:
    """Continuations of one batch; empty prompts pad the batch, and nothing is generated for them."""
    rows = [Continuation(tokenizer, prompt.ids, sampling=sampling) for prompt in prompts for _ in range(sampling.num_samples)]
    readable = [prompt if prompt.ids else EncodedPrompt([0]) for prompt in prompts]  # a prefill reads at least one id
    eos_ids, pieces = ((), None) if tokenizer is None else (tokenizer.eos_ids, tokenizer.vocab_size)
    batch = DecodingBatch(model, params, prompts=readable, sampling=sampling, eos_ids=eos_ids, pieces=pieces)
    batch.finish(np.repeat([not prompt.ids for prompt in prompts], sampling.num_samples))
    while True:
        decoded, done = batch.advance(BATCH_STEPS), batch.done
        for number, row in enumerate(rows):
            row.add(decoded, number, last=bool(done[number]))
        if done.all():
            return [row.result() for row in rows]
        if sampling.stop:  # only the host sees stop strings: tell the device which rows they have ended
            batch.finish(np.array([row.ended for row in rows]))


def stream(
    model: Transformer, params: Any, tokenizer: Tokenizer | None, prompt: TextOrIds, sampling: Sampling | None = None, *,
    prompt_index: int = 0,
) -> Iterator[str]:
    """The text of one continuation, piece by piece as it is decoded.

    Joined, the pieces are the text that `generate` gives for the first sample of a prompt at `prompt_index` of its list. Raises
    as `generate` does, and NoTokenizer without a tokenizer.
    """
    tokenizer = require_tokenizer(tokenizer, "a stream of text")
    sampling = replace(sampling or Sampling(), num_samples=1)
    ids = encode_prompt(tokenizer, prompt, config=model.config)
    params = decoding_params(model, params)
    batch = DecodingBatch(model, params, prompts=[EncodedPrompt(ids, prompt_index)], sampling=sampling,
                          eos_ids=tokenizer.eos_ids, pieces=tokenizer.vocab_size)
    continuation = Continuation(tokenizer, ids, sampling=sampling)
    done = False
    while not (done or continuation.ended):
        decoded, done = batch.advance(STREAM_STEPS), bool(batch.done.all())
        new_text = continuation.add(decoded, 0, last=done)
        if new_text:
            yield new_text


def generate_long_text(
    model: Transformer, params: Any, tokenizer: Tokenizer, prompt: str, sampling: Sampling, *, prompt_index: int = 0
) -> str:
    """The prompt and `sampling.max_new_tokens` more tokens, also where that is more than the model's context holds.

    Each time the context is full, decoding begins anew after the last half of it. `prompt_index` is that of `EncodedPrompt`.
    """
    params, text = decoding_params(model, params), prompt
    ids, left = encode_prompt(tokenizer, prompt, config=model.config), sampling.max_new_tokens
    for part in range(left):  # each part draws the random numbers of another sample
        encoded = EncodedPrompt(ids, prompt_index, first_sample=part)
        [generated] = generate_encoded(model, params, tokenizer=tokenizer, prompts=[encoded],
                                       sampling=replace(sampling, max_new_tokens=left, num_samples=1))
        text, left = text + generated.text, left - len(generated.tokens)
        if generated.finish_reason == "stop" or left <= 0:
            break
        ids = [*ids, *generated.tokens][-(model.config.max_length // 2) :]
    return text
