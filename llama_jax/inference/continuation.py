"""One continuation as it grows: decoded ids become text, until an end-of-text token, a stop string or the budget ends it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llama_jax.inference.decode import DecodedTokens
from llama_jax.inference.detokenizer import TextStream
from llama_jax.inference.sampling import Sampling
from llama_jax.tokenizer.base import IncrementalDecoder, Tokenizer
from llama_jax.tokenizer.load import require_tokenizer


@dataclass(frozen=True)
class Generated:
    """A finished continuation of one prompt."""

    text: str
    """The new text, without the prompt and without the stop string; "" where there is no tokenizer."""
    tokens: tuple[int, ...]
    """Generated ids without the end-of-text token; the last of them may contain a stop string that the text leaves out."""
    logprobs: tuple[float, ...]
    """Log-probability of each token in nats, under the model itself: at temperature 1 and over the whole vocabulary."""
    finish_reason: Literal["stop", "length"]
    """stop: an end-of-text token or a stop string; length: max_new_tokens, or the end of the model's context."""


class Continuation:
    """Text, ids and log-probabilities of one row of a batch, from the prompt on; without a tokenizer ids and the latter alone."""

    def __init__(self, tokenizer: Tokenizer | None, prompt: Sequence[int], *, sampling: Sampling):
        self._eos_ids = () if tokenizer is None else tokenizer.eos_ids
        if sampling.stop:
            tokenizer = require_tokenizer(tokenizer, "a stop string")
        decoder = None if tokenizer is None else IncrementalDecoder(tokenizer)
        self._text = TextStream(decoder, prompt, stop=sampling.stop)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.ended = False
        """Whether an end-of-text token or a stop string has ended it; a budget that is used up does not count."""

    def add(self, decoded: DecodedTokens, row: int, *, last: bool) -> str:
        """Take the tokens that a decode call drew for a row, and return the new text.

        Args:
            decoded: What the call decoded for the whole batch, as numpy arrays.
            row: The row of the batch.
            last: Whether no more tokens will come, so that text which was held back is settled.
        """
        if self.ended:
            return ""
        count = int(decoded.count_B[row])
        tokens, logprobs = decoded.tokens_BC[row, :count].tolist(), decoded.logprobs_BC[row, :count].tolist()
        saw_eos = bool(tokens) and tokens[-1] in self._eos_ids
        if saw_eos:
            tokens.pop()
        new_text = ""
        # one token at a time, because the ids end with the token that completes a stop string
        for token, logprob in zip(tokens, logprobs, strict=False):
            new_text += self._text.push([token])
            self.tokens.append(token)
            self.logprobs.append(logprob)
            if self._text.stopped:
                break
        new_text += self._text.push([], last=last or saw_eos)
        self.ended = saw_eos or self._text.stopped
        return new_text

    def result(self) -> Generated:
        """All that has been generated so far."""
        finish_reason = "stop" if self.ended else "length"
        return Generated(self._text.text, tuple(self.tokens), tuple(self.logprobs), finish_reason)
