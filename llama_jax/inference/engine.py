"""Continuous batching: requests join a fixed set of cache slots between decode steps and leave when they are done."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from llama_jax.config import ModelConfig
from llama_jax.data.tokenizer import Tokenizer
from llama_jax.inference.decode import Made, Rows, decode, prefill, prompt_scores
from llama_jax.inference.generate import Continuation, pad
from llama_jax.inference.sampling import Draw, Sampling
from llama_jax.inference.weights import Weights
from llama_jax.model.cache import Cache

STEPS = 4
"""Tokens decoded between two looks at who waits and who is done."""
SIZES_APART = 4
"""Rows decoded at a time are 1, 4, 16 ... up to all slots: one client does not wait for empty rows, and few programs serve."""
TOP = 5
"""Likeliest tokens told beside each, where a job asks for them."""


@dataclass
class Prompt:
    """What the samples of one prompt share: they are prefilled once, when the first of them gets a slot."""

    ids: list[int]
    wants_scores: bool = False
    """Tell the log-probabilities of its own tokens too."""
    prefilled: tuple[Cache, Array] | None = None
    logprobs: list[float | None] = field(default_factory=list)
    """Of each of its tokens; the first has none."""
    top: list[dict[int, float] | None] = field(default_factory=list)


@dataclass(eq=False)
class Job:
    """One sample of one prompt on its way."""

    prompt: Prompt
    sampling: Sampling
    sample: int
    """Number of the sample."""
    hear: Callable[["Job", str, Any], None]
    """Called from the engine's thread: (job, new text, None) for every piece, then (job, "", "stop" or "length"), or an
    exception in place of the reason."""
    place: int = 0
    """Of the prompt among those of its request: what other prompts draw is independent of what this one draws."""
    wants_top: bool = False
    row: Continuation | None = None
    top: list[dict[int, float]] = field(default_factory=list)
    """Of each token the likeliest ones with their log-probabilities, where they are wanted."""
    cancelled: bool = False


class Full(Exception):
    """The queue holds as much as it may."""


class Engine:
    """Serves jobs from a thread of its own; every answer is what the job would get alone."""

    def __init__(self, config: ModelConfig, weights: Weights, tokenizer: Tokenizer, *, slots: int, queue: int,
                 mesh: Mesh | None = None):
        self.config, self._weights, self._tokenizer, self._mesh = config, weights, tokenizer, mesh
        self._slots: list[Job | None] = []
        self._most = slots
        self._waiting: deque[Job] = deque()
        self._limit = queue
        self._change = threading.Condition()
        self._stopping = False
        self._rows: Rows | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all of `jobs`, or raise Full."""
        with self._change:
            if self._stopping or len(self._waiting) + len(jobs) > self._limit + self._most - self._busy():
                raise Full
            self._waiting += jobs
            self._change.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Their slots become free; nobody hears of them again."""
        for job in jobs:
            job.cancelled = True
        with self._change:
            self._change.notify()

    def load(self) -> dict[str, int]:
        """How many slots are busy and how many jobs wait."""
        return {"slots": self._most, "running": self._busy(), "waiting": len(self._waiting)}

    def _busy(self) -> int:
        return sum(job is not None for job in self._slots)

    def stop(self) -> None:
        """Finish what runs and waits, then end."""
        with self._change:
            self._stopping = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or any(self._slots) or self._stopping)
                if not (self._waiting or any(self._slots)):
                    return
            try:
                with jax.set_mesh(self._mesh) if self._mesh else nullcontext():
                    self._admit()
                    self._advance()
            except Exception as error:  # the thread must outlive whatever happens to one batch
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Everybody in a slot hears of it; the next jobs start on fresh ones."""
        jobs, self._slots, self._rows = [job for job in self._slots if job], [], None
        for job in jobs:
            job.hear(job, "", error)

    def _admit(self) -> None:
        """Waiting jobs into free slots, in order."""
        gone = [slot for slot, job in enumerate(self._slots) if job and job.cancelled]
        if gone:
            self._slots = [None if slot in gone else job for slot, job in enumerate(self._slots)]
            self._rows = self._rows.replace(done_B=self._rows.done_B.at[np.array(gone)].set(True))
        self._resize(min(self._most, self._busy() + len(self._waiting)))
        for slot, busy in enumerate(self._slots):
            while busy is None and self._waiting:
                with self._change:
                    job = self._waiting.popleft()
                if not job.cancelled:
                    self._slots[slot] = busy = job
                    self._place(slot, job)

    def _resize(self, wanted: int) -> None:
        """As many rows as `wanted` jobs need, with the busy ones among them and the others done."""
        size = 1
        while size < wanted:
            size = min(size * SIZES_APART, self._most)
        if self._rows is None:
            self._slots, self._rows = [None] * size, empty_rows(self.config, size)
        if size == len(self._slots):
            return
        order = sorted(range(len(self._slots)), key=lambda slot: self._slots[slot] is None)[:size]
        slots = [*(self._slots[slot] for slot in order), *[None] * (size - len(order))]
        index = np.array(order + [0] * (size - len(order)), np.int32)
        self._rows = rearrange(self._rows, index, np.array([job is None for job in slots]))
        self._slots = slots

    def _place(self, slot: int, job: Job) -> None:
        """Prefill where that is not done yet, and let the slot begin with the job's own sampling."""
        if job.prompt.prefilled is None:
            tokens, counts = pad([job.prompt.ids], self.config.max_length)
            job.prompt.prefilled = prefill(self.config, self._weights, tokens, counts, slots=self.config.max_length)
            if job.prompt.wants_scores:
                self._score(job.prompt, tokens)
        budget = min(job.sampling.max_new_tokens, self.config.max_length - len(job.prompt.ids))
        job.row = Continuation(self._tokenizer, job.prompt.ids, job.sampling)
        draw = Draw.of([(job.sampling, job.place, job.sample)])
        self._rows = insert(self._rows, jnp.int32(slot), *job.prompt.prefilled, jnp.asarray([budget], jnp.int32), draw)

    def _score(self, prompt: Prompt, tokens_BT: np.ndarray) -> None:
        """Fill in the prompt's own log-probabilities."""
        scores = prompt_scores(self.config, self._weights, tokens_BT, top=TOP)
        logprobs, ids, values = (x[0, : len(prompt.ids) - 1].tolist() for x in jax.device_get(scores))
        prompt.logprobs = [None, *logprobs]
        prompt.top = [None, *(dict(zip(*pair, strict=True)) for pair in zip(ids, values, strict=True))]

    def _advance(self) -> None:
        """A few tokens for every slot, told to their jobs."""
        if not any(self._slots):
            return
        top = TOP if any(job and job.wants_top for job in self._slots) else 0
        self._rows, made = decode(self.config, self._weights, self._rows, jnp.int32(STEPS),
                                  eos_ids=self._tokenizer.eos_ids, length=STEPS, top=top)
        made, done = jax.device_get((made, self._rows.done_B))
        ended = np.zeros(len(self._slots), bool)
        for slot, job in enumerate(self._slots):
            if job and not job.cancelled:
                ended[slot] = self._tell(job, made, slot, bool(done[slot]))
        if (ended & ~done).any():
            self._rows = self._rows.replace(done_B=self._rows.done_B | ended)
        self._slots = [None if over else job for job, over in zip(self._slots, ended, strict=True)]

    def _tell(self, job: Job, made: Made, slot: int, done: bool) -> bool:
        """Hand a slot's new text to its job; whether that was the last."""
        before = len(job.row.tokens)
        text = job.row.add(made, slot, done)
        if job.wants_top:
            for n in range(len(job.row.tokens) - before):
                ids, values = made.top_tokens_BCK[slot, n].tolist(), made.top_logprobs_BCK[slot, n].tolist()
                job.top.append(dict(zip(ids, values, strict=True)))
        if text or len(job.row.tokens) > before:
            job.hear(job, text, None)
        if done or job.row.ended:
            job.hear(job, "", job.row.result().finish_reason)
        return done or job.row.ended


@partial(jax.jit, static_argnames=("config", "count"))
def empty_rows(config: ModelConfig, count: int) -> Rows:
    """`count` rows that are all done, with room for a whole context each."""
    idle = Draw(temperature_B=jnp.zeros(count), top_k_B=jnp.zeros(count, jnp.int32), top_p_B=jnp.ones(count),
                min_p_B=jnp.zeros(count), key_B=jax.random.split(jax.random.key(0), count))
    return Rows(cache=Cache.empty(config, count, config.max_length), logits_BV=jnp.zeros((count, config.vocab_size)),
                made_B=jnp.zeros(count, jnp.int32), budget_B=jnp.zeros(count, jnp.int32),
                done_B=jnp.ones(count, bool), draw=idle)


@jax.jit
def rearrange(rows: Rows, index_B: Array, free_B: Array) -> Rows:
    """Rows `index_B`; those that are free are done."""
    rows = jax.tree.map(lambda x: x[index_B], rows)
    return rows.replace(done_B=rows.done_B | free_B)


@partial(jax.jit, donate_argnames="rows")
def insert(rows: Rows, slot: Array, cache: Cache, logits_BV: Array, budget_B: Array, draw: Draw) -> Rows:
    """`rows` with one prefilled row in `slot`, about to give out its first token."""
    one = Rows(cache=cache, logits_BV=logits_BV, made_B=jnp.zeros_like(budget_B), budget_B=budget_B, done_B=budget_B < 1,
               draw=draw)
    return jax.tree.map(lambda many, one: many.at[slot].set(one[0].astype(many.dtype)), rows, one)
