"""The engine without HTTP: what passes between its thread and others, jobs that are cancelled, jobs that fail."""

import dataclasses
import queue
import threading
import time
from contextlib import contextmanager

import pytest

from llama_jax.inference.generate import generate
from llama_jax.inference.params import decoding_params
from llama_jax.inference.sampling import Sampling
from llama_jax.serving.engine import Engine
from llama_jax.serving.job import CompletionEvent, CompletionJob, QueueFull, SharedPrompt, TokenLogprob
from tests.golden.models import small_model

GREEDY = Sampling(temperature=0, max_new_tokens=20)


@pytest.fixture(scope="module")
def model():
    return small_model(2)


@contextmanager
def running(model, tokenizer, *, slots: int = 2, queue: int = 4):
    engine = Engine(model[0], decoding_params(*model), tokenizer=tokenizer, slots=slots, queue=queue)
    try:
        yield engine
    finally:
        engine.stop()


def until_end(heard: queue.Queue) -> list[CompletionEvent]:
    events = [heard.get(timeout=60)]
    while not (events[-1].finish_reason or events[-1].error):
        events.append(heard.get(timeout=60))
    return events


def frozen(thing) -> bool:
    """Nothing in it can be changed."""
    if isinstance(thing, tuple):
        return all(map(frozen, thing))
    if dataclasses.is_dataclass(thing):
        return thing.__dataclass_params__.frozen and all(frozen(getattr(thing, f.name)) for f in dataclasses.fields(thing))
    return thing is None or isinstance(thing, str | int | float)


@pytest.mark.parametrize("streams", [False, True])
def test_events_carry_data_of_their_own(model, tokenizer, streams):
    ids = (1, *tokenizer.encode("ROMEO:"))
    [wanted] = generate(*model, tokenizer, [ids], GREEDY)
    heard = queue.Queue()
    with running(model, tokenizer) as engine:
        prompt = SharedPrompt(ids, wants_logprobs=True)
        engine.submit([CompletionJob(prompt, GREEDY, 0, heard.put, wants_tokens=True, streams=streams)])
        events = until_end(heard)
    assert (len(events) > 3) == streams and all(map(frozen, events))
    assert "".join(event.text for event in events) == wanted.text
    tokens = [token for event in events for token in event.tokens]
    assert [token.id for token in tokens] == list(wanted.tokens)
    assert [token.logprob for token in tokens] == pytest.approx(wanted.logprobs, abs=1e-4)
    assert all(len(token.top) == 5 and token.top[0] == (token.id, token.logprob) for token in tokens)
    assert [token.id for token in events[0].prompt] == list(ids) and events[0].prompt[0] == TokenLogprob(1, None, None)
    assert not any(event.prompt for event in events[1:])
    assert [event.finish_reason for event in events] == [None] * (len(events) - 1) + ["length"]
    assert events[-1].num_tokens == 20


def test_nobody_can_change_a_job(tokenizer):
    job = CompletionJob(SharedPrompt((1, 2)), GREEDY, 0, print)
    for thing, name in ((job, "sample_index"), (job.prompt, "ids"), (CompletionEvent(), "text"),
                        (TokenLogprob(1, 0.0, ()), "id")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)


def test_jobs_that_are_cancelled_while_they_wait_leave_room_in_the_queue(model, tokenizer, monkeypatch):
    gate = threading.Event()
    decode = "llama_jax.serving.engine.decode"
    real = __import__("llama_jax.inference.decode", fromlist=["decode"]).decode
    monkeypatch.setattr(decode, lambda *args, **kwargs: (gate.wait(60), real(*args, **kwargs))[1])
    heard = queue.Queue()

    def jobs(count: int) -> list[CompletionJob]:
        return [CompletionJob(SharedPrompt((1, 5)), GREEDY, n, heard.put) for n in range(count)]

    with running(model, tokenizer, slots=1, queue=3) as engine:
        engine.submit(jobs(1))
        while engine.occupancy() != {"slots": 1, "running": 1, "waiting": 0}:
            time.sleep(0.01)
        waiting = jobs(3)
        engine.submit(waiting)
        with pytest.raises(QueueFull):
            engine.submit(jobs(1))
        engine.cancel(waiting)
        assert engine.occupancy() == {"slots": 1, "running": 1, "waiting": 0}  # while the first still runs
        engine.submit(jobs(3))
        gate.set()
        ended = [heard.get(timeout=60) for _ in range(4)]
        assert all(event.finish_reason == "length" for event in ended)
    assert heard.empty() and engine.occupancy()["running"] == 0


def test_a_prompt_that_cannot_be_prefilled_fails_alone(model, tokenizer, monkeypatch):
    import llama_jax.serving.engine as module

    real = module.prefill

    def prefill(model, params, **more):
        if more["counts_B"][0] == 7:
            raise MemoryError("too long")
        return real(model, params, **more)

    monkeypatch.setattr(module, "prefill", prefill)
    heard = [queue.Queue() for _ in range(6)]
    prompts = [SharedPrompt((1, *[5] * (6 if n == 3 else n))) for n in range(6)]
    with running(model, tokenizer) as engine:
        engine.submit([CompletionJob(prompt, GREEDY, 0, one.put) for prompt, one in zip(prompts, heard, strict=True)])
        ends = [until_end(one)[-1] for one in heard]
    assert isinstance(ends[3].error, MemoryError)
    assert [event.finish_reason for event in ends[:3] + ends[4:]] == ["length"] * 5


def test_a_text_that_cannot_be_made_fails_alone(model, tokenizer, monkeypatch):
    import llama_jax.serving.job as module

    real = module.ActiveJob.take

    def take(active, *args, **kwargs):
        if active.job.sample_index == 1 and len(active.continuation.tokens) > 8:
            raise ValueError("no text")
        return real(active, *args, **kwargs)

    monkeypatch.setattr(module.ActiveJob, "take", take)
    heard, prompt = [queue.Queue() for _ in range(3)], SharedPrompt((1, 5))
    with running(model, tokenizer, slots=3) as engine:
        engine.submit([CompletionJob(prompt, GREEDY, n, heard[n].put) for n in range(3)])
        ends = [until_end(one)[-1] for one in heard]
    assert isinstance(ends[1].error, ValueError) and ends[0].finish_reason == ends[2].finish_reason == "length"
    assert ends[0].text == ends[2].text
