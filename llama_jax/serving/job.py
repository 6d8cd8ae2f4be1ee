"""What passes between the server and the engine's thread: jobs one way, events the other, nothing that both can change."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from jax import Array

from llama_jax.inference.continuation import Continuation
from llama_jax.inference.decode import DecodedTokens
from llama_jax.inference.sampling import Sampling
from llama_jax.model.cache import Cache


@dataclass(frozen=True)
class Scored:
    """One token id with its log-probability in nats; immutable, so that threads can share it."""

    id: int
    logprob: float | None
    """Under the model: temperature 1, nothing left out. None: the first token of a prompt, which follows nothing."""
    top: tuple[tuple[int, float], ...] | None
    """The most likely ids in its place with their log-probabilities, most likely first; None for the first of a prompt."""


@dataclass(frozen=True)
class Event:
    """What is new about one completion since its last event: data of its own, which nothing changes afterwards."""

    text: str = ""
    tokens: tuple[Scored, ...] = ()
    """Tokens generated since the last event, where the job wants them; the text of the last ones may come later."""
    prompt: tuple[Scored, ...] = ()
    """Tokens of the prompt, in the first event of a job whose prompt is to be scored."""
    made: int = 0
    """Tokens generated so far, without the one that ends a text."""
    end: Literal["stop", "length"] | None = None
    """Why no more will come."""
    error: Exception | None = None
    """In place of an end: the model failed."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """Token ids that the samples of one prompt share; they are prefilled once, when the first of them gets a slot."""

    ids: tuple[int, ...]
    wants_scores: bool = False
    """Report the log-probabilities of the prompt's own tokens too."""


@dataclass(frozen=True, eq=False)
class Job:
    """One sample of one prompt, as the engine is asked for it."""

    prompt: Prompt
    sampling: Sampling
    sample: int
    """Number of the sample."""
    hear: Callable[[Event], None]
    """Called from the engine's thread; the last call has an end or an error. Must not raise."""
    place: int = 0
    """Number of the prompt among those of its request: prompts of different places draw independent noise."""
    wants_top: bool = False
    """Events carry the tokens."""
    streams: bool = False
    """An event after every few tokens; otherwise one, when all is there."""
    cancelled: threading.Event = field(default_factory=threading.Event)


class Full(Exception):
    """The queue holds as much as it may."""


@dataclass(eq=False)
class Prefill:
    """What the samples of one prompt share while they are served; touched by the engine's thread alone."""

    cache: tuple[Cache, Array] | None = None
    scored: tuple[Scored, ...] = ()


@dataclass(eq=False)
class Served:
    """One job on its way, touched by the engine's thread alone once it is queued: text and tokens not reported yet."""

    job: Job
    shared: Prefill
    row: Continuation | None = None
    text: str = ""
    tokens: list[Scored] = field(default_factory=list)
    began: bool = False

    def take(self, made: DecodedTokens, slot: int, done: bool) -> Event | None:
        """Add a slot's new tokens; returns the event that is due, if one is."""
        before = len(self.row.tokens)
        self.text += self.row.add(made, slot, last=done)
        if self.job.wants_top:
            ids, logprobs = self.row.tokens[before:], self.row.logprobs[before:]
            best_ids, best = made.top_tokens_BCK[slot].tolist(), made.top_logprobs_BCK[slot].tolist()
            self.tokens += [Scored(ids[n], logprobs[n], tuple(zip(best_ids[n], best[n], strict=True))) for n in range(len(ids))]
        end = self.row.result().finish_reason if done or self.row.ended else None
        grown = len(self.row.tokens) > before or self.text
        if not (end or (self.job.streams and grown)):
            return None
        event = Event(self.text, tuple(self.tokens), () if self.began else self.shared.scored, len(self.row.tokens), end)
        self.text, self.tokens, self.began = "", [], True
        return event
