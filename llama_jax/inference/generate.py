"""Text from a model: batches of prompts, or one prompt as a stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.files.encoding import is_unicode
from llama_jax.inference.decode import Made, decode, prefill, start
from llama_jax.inference.detokenizer import TextStream
from llama_jax.inference.params import Weights, make_weights
from llama_jax.inference.sampling import Draw, Sampling
from llama_jax.model.decoder import Transformer
from llama_jax.tokenizer.base import IncrementalDecoder, Tokenizer

STREAM_TOKENS = 4
"""Tokens decoded between two looks at a stream."""
BATCH_TOKENS = 32
"""Tokens decoded between two looks for stop strings."""

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Asked:
    """A prompt as ids, and which noise its samples are drawn with."""

    ids: Sequence[int]
    place: int = 0
    """In [0, 2^64): prompts of different places draw independent noise, whatever batch they are in."""
    first_sample: int = 0
    """Number of its first sample."""


@dataclass(frozen=True)
class Generated:
    """One continuation."""

    text: str
    tokens: tuple[int, ...]
    """Ids given out, without the end-of-text token; a stop string may lie inside the last of them."""
    logprobs: tuple[float, ...]
    """Log-probability of each under the model (temperature 1, nothing left out)."""
    finish_reason: Literal["stop", "length"]
    """stop: end of text or a stop string; length: max_new_tokens or the model's context."""


class Decoding:
    """Prompts that are prefilled together and decoded together, `sampling.num_samples` rows each."""

    def __init__(self, config: ModelConfig, weights: Weights, prompts: Sequence[Asked], sampling: Sampling,
                 eos_ids: tuple[int, ...], pieces: int | None = None):
        self._config, self._weights, self._eos_ids, self._pieces = config, weights, eos_ids, pieces
        ids = [prompt.ids for prompt in prompts]
        budgets = [min(sampling.max_new_tokens, config.max_length - len(one)) for one in ids]
        tokens_BT, counts_B = pad(ids, config.max_length)
        slots = bucket(max(map(len, ids)) + max(budgets), config.max_length)
        cache, logits_BV = prefill(config, weights, tokens_BT, counts_B, slots=slots)
        draw = Draw.of([(sampling, prompt.place, prompt.first_sample + n) for prompt in prompts
                        for n in range(sampling.num_samples)])
        budget_B = jnp.repeat(jnp.asarray(budgets, jnp.int32), sampling.num_samples)
        self._rows = start(cache, logits_BV, budget_B, draw)

    @property
    def done(self) -> np.ndarray:
        """bool, a row each."""
        return np.asarray(self._rows.done_B)

    def advance(self, limit: int) -> Made:
        """Up to `limit` (at most BATCH_TOKENS) more tokens a row, as numpy arrays."""
        self._rows, made = decode(self._config, self._weights, self._rows, jnp.int32(limit), eos_ids=self._eos_ids,
                                  length=BATCH_TOKENS, pieces=self._pieces)
        return jax.device_get(made)

    def finish(self, rows: np.ndarray) -> None:
        """No more tokens for these rows (bool, a row each)."""
        self._rows = self._rows.replace(done_B=self._rows.done_B | jnp.asarray(rows))


def bucket(length: int, most: int) -> int:
    """A power of two from 16 on that holds `length`, or `most`: few shapes, few compilations."""
    return min(most, max(16, 1 << (length - 1).bit_length()))


def pad(prompts: Sequence[Sequence[int]], most: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 tokens (B, T) filled up at the end to a bucket, and their counts (B,)."""
    counts_B = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens_BT = np.zeros((len(prompts), bucket(int(counts_B.max()), most)), np.int32)
    for row, prompt in zip(tokens_BT, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens_BT, counts_B


class PromptTooLong(ConfigError):
    """A prompt that leaves no room in the model's context."""


def prompt_ids(tokenizer: Tokenizer, prompt: Prompt, config: ModelConfig) -> list[int]:
    """BOS and the ids of a text, or ids as they are; raises ConfigError where nothing can follow them."""
    if isinstance(prompt, str):
        if not prompt:
            raise ConfigError("the prompt is empty; give at least one character.")
        if not is_unicode(prompt):
            raise ConfigError("the prompt is not valid Unicode text (a byte of it was not UTF-8).")
        ids = [*tokenizer.begin, *tokenizer.encode(prompt)]
        if max(ids) >= config.vocab_size:
            raise ConfigError(f"the tokenizer gives the id {max(ids)} and the model has ids below {config.vocab_size}; use the "
                              "tokenizer that the model was trained with.")
    else:
        ids = whole_numbers(prompt)
        if not ids or not 0 <= min(ids) <= max(ids) < config.vocab_size:
            raise ConfigError(f"a prompt of ids needs at least one, each in [0, {config.vocab_size}).")
    if len(ids) >= config.max_length:
        raise PromptTooLong(f"the prompt has {len(ids)} tokens and the model's context holds {config.max_length}, of which "
                            "one must be left for the answer; shorten the prompt.")
    return ids


def whole_numbers(prompt: Sequence[int]) -> list[int]:
    """A prompt's ids; raises ConfigError for anything else."""
    try:
        if isinstance(prompt, bytes) or any(isinstance(token, bool) for token in prompt):
            raise TypeError
        return [index(token) for token in prompt]
    except TypeError:
        raise ConfigError(f"a prompt is a text or whole numbers that are ids, got {prompt!r:.100}.") from None


def prompts_of(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Several prompts as they are; a bare text, or bare ids, as the only one. Raises ConfigError for what is neither."""
    try:
        prompts = [prompts] if isinstance(prompts, str | bytes) else list(prompts)
    except TypeError:
        raise ConfigError(f"prompts are a text, ids, or a list of either, got {prompts!r:.100}.") from None
    bare = prompts and all(not isinstance(one, str) and np.ndim(one) == 0 for one in prompts)
    return [prompts] if bare else prompts


class Continuation:
    """One row's text and ids as they come."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], sampling: Sampling):
        self._eos_ids = tokenizer.eos_ids
        self._text = TextStream(IncrementalDecoder(tokenizer), prompt, stop=sampling.stop)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.ended = False
        """By the model or by a stop string, not by a budget."""

    def add(self, made: Made, row: int, last: bool) -> str:
        """Take a row's new tokens (`last`: no more will come); returns the new text."""
        if self.ended:
            return ""
        count = int(made.count_B[row])
        tokens, logprobs = made.tokens_BC[row, :count].tolist(), made.logprobs_BC[row, :count].tolist()
        ended = bool(tokens) and tokens[-1] in self._eos_ids
        if ended:
            tokens.pop()
        new = ""
        for token, logprob in zip(tokens, logprobs, strict=False):  # one by one: a stop string ends the ids too
            new += self._text.push([token])
            self.tokens.append(token)
            self.logprobs.append(logprob)
            if self._text.stopped:
                break
        new += self._text.push([], last=last or ended)
        self.ended = ended or self._text.stopped
        return new

    def result(self) -> Generated:
        """All of it."""
        return Generated(self._text.text, tuple(self.tokens), tuple(self.logprobs), "stop" if self.ended else "length")


def generate(
    model: Transformer, params: Any, tokenizer: Tokenizer, prompts: Prompt | Sequence[Prompt],
    sampling: Sampling | None = None, *, batch_size: int = 16, report: Callable[[int], None] | None = None,
) -> list[Generated]:
    """Continuations of texts (a BOS is set before them) or of ids, in the order of the prompts, samples side by side.

    `params` is the model's tree or the `Weights` made from it; a bare text, or bare ids, are one prompt. `batch_size`
    prompts are decoded together and `report` hears how many are done; what a prompt gets depends on itself, the seed and
    its place among the prompts. Raises ConfigError for a prompt that is empty, holds what is no id or fills the context.
    """
    asked = [Asked(prompt_ids(tokenizer, prompt, model.config), place) for place, prompt in enumerate(prompts_of(prompts))]
    return generate_asked(model, params, tokenizer=tokenizer, asked=asked, sampling=sampling or Sampling(),
                          batch_size=batch_size, report=report)


def generate_asked(
    model: Transformer, params: Any, *, tokenizer: Tokenizer, asked: Sequence[Asked], sampling: Sampling,
    batch_size: int = 16, report: Callable[[int], None] | None = None,
) -> list[Generated]:
    """`generate` from ids that are checked, with the noise of the places that they name."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be positive, got {batch_size}.")
    config = model.config
    weights = params if isinstance(params, Weights) else make_weights(config, params)
    results: dict[int, list[Generated]] = {}
    longest_last = sorted(range(len(asked)), key=lambda n: len(asked[n].ids))
    for at in range(0, len(asked), batch_size):
        numbers = longest_last[at : at + batch_size]
        filler = [Asked([])] * ((1 << (len(numbers) - 1).bit_length()) - len(numbers))  # batches of few sizes
        made = run(config, weights, tokenizer, [*(asked[n] for n in numbers), *filler], sampling)
        results |= {n: made[k * sampling.num_samples :][: sampling.num_samples] for k, n in enumerate(numbers)}
        if report:
            report(len(numbers))
    return [result for n in range(len(asked)) for result in results[n]]


def run(config: ModelConfig, weights: Weights, tokenizer: Tokenizer, asked: Sequence[Asked],
        sampling: Sampling) -> list[Generated]:
    """One batch to its end; empty prompts fill it up and get nothing."""
    rows = [Continuation(tokenizer, prompt.ids, sampling) for prompt in asked for _ in range(sampling.num_samples)]
    prompts = [prompt if prompt.ids else Asked([0]) for prompt in asked]
    decoding = Decoding(config, weights, prompts, sampling, tokenizer.eos_ids, tokenizer.vocab_size)
    decoding.finish(np.repeat([not prompt.ids for prompt in asked], sampling.num_samples))
    while True:
        made, done = decoding.advance(BATCH_TOKENS), decoding.done
        for number, row in enumerate(rows):
            row.add(made, number, bool(done[number]))
        if done.all():
            return [row.result() for row in rows]
        if sampling.stop:
            decoding.finish(np.array([row.ended for row in rows]))


def stream(
    model: Transformer, params: Any, tokenizer: Tokenizer, prompt: Prompt, sampling: Sampling | None = None, *, place: int = 0
) -> Iterator[str]:
    """The pieces of one continuation's text as they are decoded: what `generate` gives for a prompt at `place`."""
    sampling = replace(sampling or Sampling(), num_samples=1)
    ids = prompt_ids(tokenizer, prompt, model.config)
    weights = params if isinstance(params, Weights) else make_weights(model.config, params)
    decoding = Decoding(model.config, weights, [Asked(ids, place)], sampling, tokenizer.eos_ids, tokenizer.vocab_size)
    row, last = Continuation(tokenizer, ids, sampling), False
    while not (last or row.ended):
        made, last = decoding.advance(STREAM_TOKENS), bool(decoding.done.all())
        if new := row.add(made, 0, last):
            yield new


def long_text(
    model: Transformer, params: Any, tokenizer: Tokenizer, prompt: str, sampling: Sampling, *, place: int = 0
) -> str:
    """`prompt` and `sampling.max_new_tokens` tokens, also beyond the context: where it ends, its last half begins anew.

    `place` is the prompt's among several that are asked with one seed.
    """
    weights, text = make_weights(model.config, params), prompt
    ids, left = prompt_ids(tokenizer, prompt, model.config), sampling.max_new_tokens
    for round in range(left):  # each draws as another sample would
        choice = replace(sampling, max_new_tokens=left, num_samples=1)
        [made] = generate_asked(model, weights, tokenizer=tokenizer, asked=[Asked(ids, place, round)], sampling=choice)
        text, left = text + made.text, left - len(made.tokens)
        if made.finish_reason == "stop" or left <= 0:
            break
        ids = [*ids, *made.tokens][-(model.config.max_length // 2) :]
    return text
