"""Continuous batching: jobs take slots of the key-value cache between decode steps, and leave them when they are done."""

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
from llama_jax.inference.sampling import RowSampling
from llama_jax.model.cache import Cache
from llama_jax.model.decoder import Transformer
from llama_jax.serving.job import (
    TOP_LOGPROBS,
    ActiveJob,
    CompletionEvent,
    CompletionJob,
    QueueFull,
    SharedPrefill,
    SharedPrompt,
    TokenLogprob,
)
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import require_tokenizer
from llama_jax.version import VERSION

STEPS_PER_CALL = 4
"""Decode steps between two looks at which jobs wait, have ended or are cancelled."""
SLOT_GROWTH = 4
"""Factor between the numbers of rows that are decoded: 1, 4, 16 ... up to all slots.

A single client does not wait for the rows of empty slots, and few programs are compiled.
"""


class Engine:
    """Serves jobs by continuous batching, in a thread of its own; each gets the text that it would get alone.

    Threads share the jobs and events, which are immutable, and what the lock `_condition` protects: the queue, the number of
    busy slots and the request to stop. Everything else belongs to the engine's thread.
    """

    def __init__(self, model: Transformer, params: DecodingParams, *, tokenizer: Tokenizer, slots: int, queue: int,
                 mesh: Mesh | None = None):
        """Start the engine's thread.

        Args:
            model: The model.
            params: Its parameters for decoding.
            tokenizer: Its tokenizer.
            slots: Jobs that are decoded together; each has a cache of the model's whole context.
            queue: Jobs that may wait for a slot.
            mesh: Devices that share the parameters.
        """
        self._tokenizer = require_tokenizer(tokenizer, "serving")
        self.config, self._model, self._params, self._mesh = model.config, model, params, mesh
        self.fingerprint = system_fingerprint(model, params)
        self._max_slots, self._max_waiting = slots, queue
        self._condition = threading.Condition()
        self._waiting: deque[ActiveJob] = deque()
        self._running = 0
        self._stopping = False
        self._slots: list[ActiveJob | None] = []
        """The job of each decoded row, or None where the row is idle."""
        self._rows: DecodingRows | None = None
        """Decoding state of the slots; None before the first job and after a failure."""
        self._thread = threading.Thread(target=self._run_jobs, name="engine", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[CompletionJob]) -> None:
        """Queue all of the jobs; raises QueueFull, and queues none, where there is no room for all."""
        prefills = {job.prompt: SharedPrefill() for job in jobs}
        new = [ActiveJob(job, prefills[job.prompt]) for job in jobs]
        with self._condition:
            free_slots = self._max_slots - self._running
            if self._stopping or len(self._waiting) + len(jobs) > self._max_waiting + free_slots:
                raise QueueFull
            self._waiting += new
            self._condition.notify()

    def cancel(self, jobs: Sequence[CompletionJob]) -> None:
        """Free the jobs' slots and their places in the queue; jobs that are done are not affected."""
        for job in jobs:
            job.cancelled.set()
        with self._condition:
            if self._waiting:
                self._waiting = deque(active for active in self._waiting if not active.job.cancelled.is_set())
            self._condition.notify()

    def occupancy(self) -> dict[str, int]:
        """The number of slots, of jobs in slots, and of jobs that wait for one."""
        with self._condition:
            return {"slots": self._max_slots, "running": self._running, "waiting": len(self._waiting)}

    def stop(self) -> None:
        """Finish the jobs that run and wait, then end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run_jobs(self) -> None:
        """The engine's thread: between decode calls, let jobs in and out of the slots."""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or any(self._slots) or self._stopping)
                if not (self._waiting or any(self._slots)):
                    return
            try:
                with jax.set_mesh(self._mesh) if self._mesh else nullcontext():
                    self._admit()
                    self._advance()
            except Exception as error:  # the thread must outlive whatever happens to one batch
                traceback.print_exception(error)
                jobs = [active.job for active in self._slots if active]
                self._rows = None  # its buffers may have been donated to the call that failed
                self._set_slots([])
                for job in jobs:
                    job.on_event(CompletionEvent(error=error))

    def _set_slots(self, slots: list[ActiveJob | None]) -> None:
        """Change the jobs in the slots, and the number of busy ones that other threads see."""
        self._slots = slots
        with self._condition:
            self._running = sum(active is not None for active in slots)

    def _pop_waiting(self) -> ActiveJob | None:
        """Take the job that has waited longest from the queue; it counts as running from now on."""
        with self._condition:
            if not self._waiting:
                return None
            self._running += 1
            return self._waiting.popleft()

    def _admit(self) -> None:
        """Free the slots of cancelled jobs, and give free slots to waiting jobs in the order in which they came."""
        cancelled = [slot for slot, active in enumerate(self._slots) if active and active.job.cancelled.is_set()]
        if cancelled:
            self._set_slots([None if slot in cancelled else active for slot, active in enumerate(self._slots)])
            self._rows = self._rows.replace(done_B=self._rows.done_B.at[np.array(cancelled)].set(True))
        occupancy = self.occupancy()
        self._resize(min(self._max_slots, occupancy["running"] + occupancy["waiting"]))
        for slot in range(len(self._slots)):
            # a job that is cancelled or fails leaves the slot to the next one
            while self._slots[slot] is None and (active := self._pop_waiting()):
                if self._prefill(active):
                    self._slots[slot] = active
                    self._start(slot, active)
        self._set_slots(self._slots)

    def _resize(self, wanted: int) -> None:
        """Decode as many rows as `wanted` jobs need, keeping the busy ones."""
        size = 1
        while size < wanted:
            size = min(size * SLOT_GROWTH, self._max_slots)
        if self._rows is None:
            self._slots, self._rows = [None] * size, _idle_rows(self._model, size)
        if size == len(self._slots):
            return
        kept = sorted(range(len(self._slots)), key=lambda slot: self._slots[slot] is None)[:size]  # busy ones first
        added = size - len(kept)
        slots = [*(self._slots[slot] for slot in kept), *[None] * added]
        source_B = np.array(kept + [0] * added, np.int32)
        self._rows = _select_rows(self._rows, source_B, idle_B=np.array([active is None for active in slots]))
        self._slots = slots

    def _prefill(self, active: ActiveJob) -> bool:
        """Prefill the job's prompt where another sample of it has not done so; False where the job is cancelled or fails.

        A failure is reported to this job alone.
        """
        prompt, shared = active.job.prompt, active.prefill
        if active.job.cancelled.is_set():
            return False
        try:
            active.continuation = Continuation(self._tokenizer, prompt.ids, sampling=active.job.sampling)
            if shared.cache is None:
                tokens, counts = pad_prompts([prompt.ids], limit=self.config.max_length)
                shared.cache = prefill(self._model, self._params, tokens_BT=tokens, counts_B=counts,
                                       slots=self.config.max_length)
                shared.prompt_logprobs = self._prompt_logprobs(prompt, tokens) if prompt.wants_logprobs else ()
        except Exception as error:  # for example, no memory left for a prompt of this length: the other jobs go on
            traceback.print_exception(error)
            active.job.on_event(CompletionEvent(error=error))
            return False
        return True

    def _start(self, slot: int, active: ActiveJob) -> None:
        """Put a prefilled job into a slot, to be drawn with its own sampling."""
        job = active.job
        budget = min(job.sampling.max_new_tokens, self.config.max_length - len(job.prompt.ids))
        sampling = RowSampling.stack([(job.sampling, job.prompt_index, job.sample_index)])
        self._rows = _insert_row(self._rows, jnp.int32(slot), prefilled=active.prefill.cache,
                                 budget_B=jnp.asarray([budget], jnp.int32), sampling=sampling)

    def _prompt_logprobs(self, prompt: SharedPrompt, tokens_BT: np.ndarray) -> tuple[TokenLogprob, ...]:
        """The prompt's own tokens with their log-probabilities."""
        scores = prompt_scores(self._model, self._params, tokens_BT=tokens_BT, top=min(TOP_LOGPROBS, self.config.vocab_size))
        logprobs, top_ids, top_logprobs = (x[0, : len(prompt.ids) - 1].tolist() for x in jax.device_get(scores))
        tokens = [TokenLogprob(prompt.ids[0], None, None)]
        for n, token in enumerate(prompt.ids[1:]):
            tokens.append(TokenLogprob(token, logprobs[n], tuple(zip(top_ids[n], top_logprobs[n], strict=True))))
        return tuple(tokens)

    def _advance(self) -> None:
        """Decode a few tokens for every slot, and report what they add to its job."""
        if not any(self._slots):
            return
        wants_tokens = any(active and active.job.wants_tokens for active in self._slots)
        top = min(TOP_LOGPROBS, self.config.vocab_size) if wants_tokens else 0
        self._rows, decoded = decode(self._model, self._params, rows=self._rows, limit=jnp.int32(STEPS_PER_CALL),
                                     eos_ids=self._tokenizer.eos_ids, length=STEPS_PER_CALL, top=top,
                                     pieces=self._tokenizer.vocab_size)
        decoded, done = jax.device_get((decoded, self._rows.done_B))
        ended = np.zeros(len(self._slots), bool)
        events: list[tuple[CompletionJob, CompletionEvent]] = []
        for slot, active in enumerate(self._slots):
            if active is None or active.job.cancelled.is_set():
                continue
            try:
                event = active.take(decoded, slot, done=bool(done[slot]))
            except Exception as error:  # of this job's text alone
                traceback.print_exception(error)
                event = CompletionEvent(error=error)
            if event:
                events.append((active.job, event))
                ended[slot] = bool(event.finish_reason or event.error)
        if (ended & ~done).any():  # stop strings end rows that the device would go on with
            self._rows = self._rows.replace(done_B=self._rows.done_B | ended)
        self._set_slots([None if has_ended else active for active, has_ended in zip(self._slots, ended, strict=True)])
        for job, event in events:  # once the slots are free: a client that hears of the end may rely on that
            job.on_event(event)


def system_fingerprint(model: Transformer, params: DecodingParams) -> str:
    """A hash of what decides the last bits of an answer besides the request: versions, device, model and its layout."""
    layout = jax.tree.map(lambda x: (x.shape, str(x.dtype), str(x.sharding)), params)
    facts = (VERSION, jax.__version__, jax.devices()[0].device_kind, model.config, model.compute, jax.tree.leaves(layout))
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:10]


@partial(jax.jit, static_argnames=("model", "count"))
def _idle_rows(model: Transformer, count: int) -> DecodingRows:
    """`count` rows that are done, each with a cache of the model's whole context."""
    config = model.config
    sampling = RowSampling(temperature_B=jnp.zeros(count), top_k_B=jnp.zeros(count, jnp.int32), top_p_B=jnp.ones(count),
                           min_p_B=jnp.zeros(count), key_B=jax.random.split(jax.random.key(0), count))
    cache = Cache.empty(config, dtype=model.compute.dtype, rows=count, slots=config.max_length)
    return DecodingRows(cache=cache, logits_BV=jnp.zeros((count, config.vocab_size)), made_B=jnp.zeros(count, jnp.int32),
                        budget_B=jnp.zeros(count, jnp.int32), done_B=jnp.ones(count, bool), sampling=sampling)


@jax.jit
def _select_rows(rows: DecodingRows, source_B: Array, *, idle_B: Array) -> DecodingRows:
    """Rows of which row b is row source_B[b] of `rows`; bool `idle_B` marks those that are done in any case."""
    rows = jax.tree.map(lambda x: x[source_B], rows)
    return rows.replace(done_B=rows.done_B | idle_B)


@partial(jax.jit, donate_argnames="rows")
def _insert_row(
    rows: DecodingRows, slot: Array, *, prefilled: tuple[Cache, Array], budget_B: Array, sampling: RowSampling
) -> DecodingRows:
    """`rows` with one prefilled row, a cache and logits, in `slot`; its first token is drawn next."""
    cache, logits_BV = prefilled
    one = DecodingRows(cache=cache, logits_BV=logits_BV, made_B=jnp.zeros_like(budget_B), budget_B=budget_B,
                       done_B=budget_B < 1, sampling=sampling)
    return jax.tree.map(lambda many, one: many.at[slot].set(one[0].astype(many.dtype)), rows, one)
