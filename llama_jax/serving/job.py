"""What passes between the server's threads: immutable jobs to the engine's thread, and immutable events back from it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from jax import Array

from llama_jax.inference.continuation import Continuation
from llama_jax.inference.decode import DecodedTokens
from llama_jax.inference.sampling import Sampling
from llama_jax.model.cache import Cache

TOP_LOGPROBS = 5
"""Most likely tokens that are reported beside each token, where a job asks for log-probabilities."""


@dataclass(frozen=True)
class TokenLogprob:
    """One token of a prompt or of a completion with its log-probability in nats."""

    id: int
    logprob: float | None
    """Under the model itself: at temperature 1 and over the whole vocabulary. None for the first token of a prompt, which
    follows nothing."""
    top: tuple[tuple[int, float], ...] | None
    """The most likely ids at its position with their log-probabilities, most likely first; None where `logprob` is."""


@dataclass(frozen=True)
class CompletionEvent:
    """What is new about one completion since its previous event; it shares no mutable data with the engine."""

    text: str = ""
    tokens: tuple[TokenLogprob, ...] = ()
    """New tokens, where the job asks for them. The text of the last ones may come with a later event."""
    prompt: tuple[TokenLogprob, ...] = ()
    """The tokens of the prompt, in the first event of a job that asks for them."""
    num_tokens: int = 0
    """Tokens generated so far, without the end-of-text token."""
    finish_reason: Literal["stop", "length"] | None = None
    """Why the completion has ended, in its last event."""
    error: Exception | None = None
    """What made the model fail, in the last event of a completion that has no finish reason."""


@dataclass(frozen=True, eq=False)
class SharedPrompt:
    """Token ids of a prompt; its samples share this object and one prefill, made when the first of them gets a slot."""

    ids: tuple[int, ...]
    wants_logprobs: bool = False
    """Whether to report the log-probabilities of the prompt's own tokens."""


@dataclass(frozen=True, eq=False)
class CompletionJob:
    """One sample of one prompt: what the engine is asked to generate."""

    prompt: SharedPrompt
    sampling: Sampling
    sample_index: int
    on_event: Callable[[CompletionEvent], None]
    """Called from the engine's thread; the last event has a finish reason or an error. It must not raise."""
    prompt_index: int = 0
    """Index of the prompt in its request: prompts of different indices draw independent random numbers."""
    wants_tokens: bool = False
    """Whether events carry the tokens with their log-probabilities."""
    streams: bool = False
    """Whether an event comes after every few tokens; otherwise there is one, at the end."""
    cancelled: threading.Event = field(default_factory=threading.Event)


class QueueFull(Exception):
    """The engine's queue has no room for the jobs."""


@dataclass(eq=False)
class SharedPrefill:
    """What the samples of one prompt share once it is prefilled; used by the engine's thread alone."""

    cache: tuple[Cache, Array] | None = None
    """Cache of the prompt and logits after it; None until the prefill."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(eq=False)
class ActiveJob:
    """A job that waits or runs, with what it has generated since its last event.

    Once it is queued, it is used by the engine's thread alone.
    """

    job: CompletionJob
    prefill: SharedPrefill
    continuation: Continuation | None = None
    """None until the job gets a slot."""
    new_text: str = ""
    new_tokens: list[TokenLogprob] = field(default_factory=list)
    reported: bool = False
    """Whether there has been an event."""

    def take(self, decoded: DecodedTokens, slot: int, *, done: bool) -> CompletionEvent | None:
        """Add the tokens that a decode call drew for the job's slot, and return the event that is due, if one is.

        Args:
            decoded: What the call decoded for all slots, as numpy arrays.
            slot: The job's slot.
            done: Whether the slot gets no more tokens.
        """
        before = len(self.continuation.tokens)
        self.new_text += self.continuation.add(decoded, slot, last=done)
        after = len(self.continuation.tokens)
        if self.job.wants_tokens:
            top_ids, top_logprobs = decoded.top_tokens_BCK[slot].tolist(), decoded.top_logprobs_BCK[slot].tolist()
            new_ids, new_logprobs = self.continuation.tokens[before:], self.continuation.logprobs[before:]
            for column, (token, logprob) in enumerate(zip(new_ids, new_logprobs, strict=True)):
                top = tuple(zip(top_ids[column], top_logprobs[column], strict=True))
                self.new_tokens.append(TokenLogprob(token, logprob, top))
        finish_reason = self.continuation.result().finish_reason if done or self.continuation.ended else None
        has_news = after > before or self.new_text
        if not (finish_reason or (self.job.streams and has_news)):
            return None
        prompt = () if self.reported else self.prefill.prompt_logprobs
        event = CompletionEvent(self.new_text, tuple(self.new_tokens), prompt, after, finish_reason)
        self.new_text, self.new_tokens, self.reported = "", [], True
        return event
