"""Asks a model the requests of all tasks, keeps its answers, and turns them into metrics."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from llama_jax.evaluation.answers import Answerer, decoding_rows
from llama_jax.evaluation.cache import AnswerCache
from llama_jax.evaluation.requests import PreparedTask
from llama_jax.evaluation.results import TaskResult
from llama_jax.evaluation.statistics import means_by_tag, metric_means
from llama_jax.evaluation.task import (
    GenerationRequest,
    LikelihoodRequest,
    ModelAnswer,
    ModelRequest,
    RollingRequest,
    Settings,
)

CHUNK_CHARACTERS = 1 << 20
"""Characters of the requests that are packed into batches together."""

TaskProgress = Callable[[str, float], None]
"""Called with a task's name and the characters (`request_characters`) that are newly done."""


def evaluate_tasks(
    prepared: Sequence[PreparedTask], model: Answerer, *, settings: Settings, cache: AnswerCache, progress: TaskProgress
) -> list[TaskResult]:
    """Ask the requests of all tasks, then judge task by task. Requests of different tasks share batches."""
    asked_by = distinct_requests(prepared)
    given: dict[ModelRequest, ModelAnswer] = {}
    tokens, seconds = Counter[str](), Counter[str]()
    for chunk in request_chunks(asked_by):
        begin, characters = time.perf_counter(), Counter[str]()
        for request in chunk:
            characters[asked_by[request]] += request_characters(request)

        def report(share: float, characters=characters) -> None:
            for name, size in characters.items():
                progress(name, share * size)

        answers, counts = _answer_chunk(chunk, model, cache=cache, report=report)
        given |= zip(chunk, answers, strict=True)
        for request, count in zip(chunk, counts, strict=True):
            tokens[asked_by[request]] += count
        spent = time.perf_counter() - begin
        for name, size in characters.items():
            seconds[name] += spent * size / characters.total()
    return [judge_task(one, given, settings=settings, tokens=tokens[one.task.name], seconds=seconds[one.task.name])
            for one in prepared]


def distinct_requests(prepared: Sequence[PreparedTask]) -> dict[ModelRequest, str]:
    """The different requests in order, each with the name of the first task that asks it."""
    found: dict[ModelRequest, str] = {}
    for one in prepared:
        for item in one.items:
            for request in item.requests:
                found.setdefault(request, one.task.name)
    return found


def judge_task(
    prepared: PreparedTask, given: Mapping[ModelRequest, ModelAnswer], *, settings: Settings, tokens: int, seconds: float
) -> TaskResult:
    """A task's metrics from the answers to its requests; `tokens` and `seconds` are what asking took."""
    begin = time.perf_counter()
    task, items = prepared.task, prepared.items
    answers = [[given[request] for request in item.requests] for item in items]
    verdicts = task.judge(items, answers, settings=settings)
    numbers = metric_means(verdicts)
    if task.total:
        numbers |= task.total(items, verdicts)
    tags = means_by_tag(items, verdicts)
    return TaskResult(prepared, answers, verdicts, numbers, tags, tokens, seconds + time.perf_counter() - begin)


def _answer_chunk(
    chunk: Sequence[ModelRequest], model: Answerer, *, cache: AnswerCache, report: Callable[[float], None]
) -> tuple[list[ModelAnswer], list[int]]:
    """A chunk's answers from the cache or the model, and how many tokens the model saw for each.

    `report` is called with the share of the chunk that is newly done.
    """
    key = cache.key(chunk)
    answers, tokens = cache.get(key), [0] * len(chunk)
    if len(answers) == len(chunk):
        report(1.0)
    elif isinstance(chunk[0], GenerationRequest):
        texts, tokens = model.generations(chunk, report=report)
        answers = dict(enumerate(texts))
        cache.put(key, answers)
    else:
        for batch in model.likelihoods(chunk, known=set(answers), report=report):
            new = {number: answer for number, (answer, _) in batch.items()}
            cache.put(key, new)
            answers |= new
            for number, (_, count) in batch.items():
                tokens[number] = count
    return [answers[number] for number in range(len(chunk))], tokens


def request_characters(request: ModelRequest) -> int:
    """The work of a request, roughly: its characters, counting four for every token that it may generate."""
    if isinstance(request, GenerationRequest):
        return len(request.text) + 4 * request.max_tokens * request.num_samples
    if isinstance(request, RollingRequest):
        return len(request.text)
    return len(request.context) + len(request.continuation)


def request_chunks(requests: Iterable[ModelRequest]) -> Iterator[list[ModelRequest]]:
    """Different requests in chunks: likelihoods before generations, and the generations of one chunk with equal settings."""
    requests = list(requests)
    scored = [request for request in requests if not isinstance(request, GenerationRequest)]
    prompts = [request for request in requests if isinstance(request, GenerationRequest)]
    yield from cut_into_chunks(scored, CHUNK_CHARACTERS, size=request_characters)
    for _, group in groupby(prompts, key=lambda prompt: replace(prompt, text="", prompt_index=0)):
        yield from cut_into_chunks(list(group), decoding_rows(), size=lambda prompt: prompt.num_samples)


def cut_into_chunks(
    requests: Sequence[ModelRequest], most: int, *, size: Callable[[ModelRequest], int]
) -> Iterator[list[ModelRequest]]:
    """Chunks of consecutive requests whose sizes add up to about `most`; choices with the same context stay together."""
    chunk: list[ModelRequest] = []
    total, context = 0, None
    for request in requests:
        own = request.context if isinstance(request, LikelihoodRequest) else None
        if total >= most and (own is None or own != context):
            yield chunk
            chunk, total = [], 0
        chunk.append(request)
        total, context = total + size(request), own
    if chunk:
        yield chunk
