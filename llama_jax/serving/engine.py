"""Continuous batching: requests join a fixed set of cache slots between decode steps and leave when they are done."""

import hashlib
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from llama_jax.inference.continuation import Continuation
from llama_jax.inference.decode import DecodingRows, decode, prefill, prompt_scores
from llama_jax.inference.params import DecodingParams
from llama_jax.inference.prompts import pad_prompts
from llama_jax.inference.sampling import Draw
from llama_jax.model.cache import Cache
from llama_jax.model.decoder import Transformer
from llama_jax.serving.job import Event, Full, Job, Prefill, Prompt, Scored, Served
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.version import VERSION

STEPS = 4
"""Tokens decoded between two looks at who waits and who is done."""
SIZES_APART = 4
"""Rows decoded at a time are 1, 4, 16 ... up to all slots: one client does not wait for empty rows, and few programs serve."""
TOP = 5
"""Most likely tokens reported beside each token, where a job asks for them."""


class Engine:
    """Serves jobs from a thread of its own; every answer is what the job would get alone.

    Between the threads pass jobs (frozen), events (frozen) and what stands under the lock `_change`: the queue and the
    number of busy slots. Everything else belongs to the engine's thread.
    """

    def __init__(self, model: Transformer, params: DecodingParams, *, tokenizer: Tokenizer, slots: int, queue: int,
                 mesh: Mesh | None = None):
        self.config, self._model, self._params, self._tokenizer, self._mesh = model.config, model, params, tokenizer, mesh
        self.fingerprint = system_fingerprint(model, params)
        self._most, self._limit = slots, queue
        self._change = threading.Condition()
        self._waiting: deque[Served] = deque()
        self._running = 0
        self._stopping = False
        self._slots: list[Served | None] = []
        self._rows: DecodingRows | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all of `jobs`, or raise Full."""
        shared = {job.prompt: Prefill() for job in jobs}
        new = [Served(job, shared[job.prompt]) for job in jobs]
        with self._change:
            if self._stopping or len(self._waiting) + len(jobs) > self._limit + self._most - self._running:
                raise Full
            self._waiting += new
            self._change.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Free their slots and their places in the queue; nothing happens to jobs that are done."""
        for job in jobs:
            job.cancelled.set()
        with self._change:
            if self._waiting:
                self._waiting = deque(one for one in self._waiting if not one.job.cancelled.is_set())
            self._change.notify()

    def load(self) -> dict[str, int]:
        """How many slots are busy and how many jobs wait."""
        with self._change:
            return {"slots": self._most, "running": self._running, "waiting": len(self._waiting)}

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
                traceback.print_exception(error)
                jobs = [served.job for served in self._slots if served]
                self._rows = None
                self._occupy([])
                for job in jobs:
                    job.hear(Event(error=error))

    def _occupy(self, slots: list[Served | None]) -> None:
        """These jobs are in the slots now."""
        self._slots = slots
        with self._change:
            self._running = sum(served is not None for served in slots)

    def _next(self) -> Served | None:
        """The job that waits longest, counted as running from now on."""
        with self._change:
            if not self._waiting:
                return None
            self._running += 1
            return self._waiting.popleft()

    def _admit(self) -> None:
        """Waiting jobs into free slots, in order."""
        gone = [slot for slot, served in enumerate(self._slots) if served and served.job.cancelled.is_set()]
        if gone:
            self._occupy([None if slot in gone else served for slot, served in enumerate(self._slots)])
            self._rows = self._rows.replace(done_B=self._rows.done_B.at[np.array(gone)].set(True))
        load = self.load()
        self._resize(min(self._most, load["running"] + load["waiting"]))
        for slot, busy in enumerate(self._slots):
            while busy is None and (served := self._next()):
                if self._prefilled(served):
                    self._slots[slot] = busy = served
                    self._insert(slot, served)
        self._occupy(self._slots)

    def _resize(self, wanted: int) -> None:
        """As many rows as `wanted` jobs need, with the busy ones among them and the others done."""
        size = 1
        while size < wanted:
            size = min(size * SIZES_APART, self._most)
        if self._rows is None:
            self._slots, self._rows = [None] * size, empty_rows(self._model, size)
        if size == len(self._slots):
            return
        order = sorted(range(len(self._slots)), key=lambda slot: self._slots[slot] is None)[:size]
        slots = [*(self._slots[slot] for slot in order), *[None] * (size - len(order))]
        index = np.array(order + [0] * (size - len(order)), np.int32)
        self._rows = rearrange(self._rows, index, free_B=np.array([served is None for served in slots]))
        self._slots = slots

    def _prefilled(self, served: Served) -> bool:
        """Prefill the prompt where that is not done yet. Where it fails, this job alone hears of it, and the result is False."""
        prompt, shared = served.job.prompt, served.shared
        if served.job.cancelled.is_set():
            return False
        try:
            served.row = Continuation(self._tokenizer, prompt.ids, sampling=served.job.sampling)
            if shared.cache is None:
                tokens, counts = pad_prompts([prompt.ids], limit=self.config.max_length)
                shared.cache = prefill(self._model, self._params, tokens_BT=tokens, counts_B=counts,
                                       slots=self.config.max_length)
                shared.scored = self._scores(prompt, tokens) if prompt.wants_scores else ()
        except Exception as error:  # too long for the memory that is left, perhaps: the other jobs go on
            traceback.print_exception(error)
            served.job.hear(Event(error=error))
            return False
        return True

    def _insert(self, slot: int, served: Served) -> None:
        """Let the slot begin after the prompt with the job's own sampling."""
        job = served.job
        budget = min(job.sampling.max_new_tokens, self.config.max_length - len(job.prompt.ids))
        draw = Draw.of([(job.sampling, job.place, job.sample)])
        self._rows = insert(self._rows, jnp.int32(slot), prefilled=served.shared.cache,
                            budget_B=jnp.asarray([budget], jnp.int32), draw=draw)

    def _scores(self, prompt: Prompt, tokens_BT: np.ndarray) -> tuple[Scored, ...]:
        """The prompt's own tokens with their log-probabilities."""
        scores = prompt_scores(self._model, self._params, tokens_BT=tokens_BT, top=min(TOP, self.config.vocab_size))
        logprobs, ids, values = (x[0, : len(prompt.ids) - 1].tolist() for x in jax.device_get(scores))
        tops = [tuple(zip(*pair, strict=True)) for pair in zip(ids, values, strict=True)]
        return tuple(map(Scored, prompt.ids, [None, *logprobs], [None, *tops]))

    def _advance(self) -> None:
        """A few tokens for every slot, then what they make for their jobs."""
        if not any(self._slots):
            return
        wants_top = any(served and served.job.wants_top for served in self._slots)
        self._rows, made = decode(self._model, self._params, rows=self._rows, limit=jnp.int32(STEPS),
                                  eos_ids=self._tokenizer.eos_ids, length=STEPS, pieces=self._tokenizer.vocab_size,
                                  top=min(TOP, self.config.vocab_size) if wants_top else 0)
        made, done = jax.device_get((made, self._rows.done_B))
        ended, news = np.zeros(len(self._slots), bool), []
        for slot, served in enumerate(self._slots):
            if served and not served.job.cancelled.is_set():
                try:
                    event = served.take(made, slot, bool(done[slot]))
                except Exception as error:  # of this job's text alone
                    traceback.print_exception(error)
                    event = Event(error=error)
                if event:
                    news.append((served.job, event))
                    ended[slot] = bool(event.end or event.error)
        if (ended & ~done).any():
            self._rows = self._rows.replace(done_B=self._rows.done_B | ended)
        self._occupy([None if over else served for served, over in zip(self._slots, ended, strict=True)])
        for job, event in news:
            job.hear(event)


def system_fingerprint(model: Transformer, params: DecodingParams) -> str:
    """A short name of what decides an answer's last bits besides the request: versions, device, model and layout."""
    layout = jax.tree.map(lambda x: (x.shape, str(x.dtype), str(x.sharding)), params)
    facts = (VERSION, jax.__version__, jax.devices()[0].device_kind, model.config, model.compute, jax.tree.leaves(layout))
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:10]


@partial(jax.jit, static_argnames=("model", "count"))
def empty_rows(model: Transformer, count: int) -> DecodingRows:
    """`count` rows that are all done, with room for a whole context each."""
    idle = Draw(temperature_B=jnp.zeros(count), top_k_B=jnp.zeros(count, jnp.int32), top_p_B=jnp.ones(count),
                min_p_B=jnp.zeros(count), key_B=jax.random.split(jax.random.key(0), count))
    config = model.config
    cache = Cache.empty(config, dtype=model.compute.dtype, rows=count, slots=config.max_length)
    return DecodingRows(cache=cache, logits_BV=jnp.zeros((count, config.vocab_size)),
                made_B=jnp.zeros(count, jnp.int32), budget_B=jnp.zeros(count, jnp.int32),
                done_B=jnp.ones(count, bool), draw=idle)


@jax.jit
def rearrange(rows: DecodingRows, index_B: Array, *, free_B: Array) -> DecodingRows:
    """Rows `index_B`; those that are free are done."""
    rows = jax.tree.map(lambda x: x[index_B], rows)
    return rows.replace(done_B=rows.done_B | free_B)


@partial(jax.jit, donate_argnames="rows")
def insert(
    rows: DecodingRows, slot: Array, *, prefilled: tuple[Cache, Array], budget_B: Array, draw: Draw
) -> DecodingRows:
    """`rows` with one prefilled row in `slot`, about to give out its first token."""
    cache, logits_BV = prefilled
    one = DecodingRows(cache=cache, logits_BV=logits_BV, made_B=jnp.zeros_like(budget_B), budget_B=budget_B, done_B=budget_B < 1,
               draw=draw)
    return jax.tree.map(lambda many, one: many.at[slot].set(one[0].astype(many.dtype)), rows, one)
