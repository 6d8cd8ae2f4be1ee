"""Requests of all tasks to a model, answers to numbers; what was answered is not asked again."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import jax

from llama_jax.evaluation.answers import DECODING_ROWS, DEFAULT_DECODING_ROWS, Answerer
from llama_jax.evaluation.cache import AnswerCache
from llama_jax.evaluation.requests import PreparedTask
from llama_jax.evaluation.statistics import means_by_tag, metric_means
from llama_jax.evaluation.task import (
    Estimate,
    GenerationRequest,
    LikelihoodRequest,
    ModelAnswer,
    ModelRequest,
    RollingRequest,
    Settings,
    Verdict,
)

CHUNK_CHARACTERS = 1 << 20
"""Characters of the requests that are laid out in batches together."""

TaskProgress = Callable[[str, float], None]
"""Called with a task's name and the characters that are newly done."""


@dataclass(frozen=True)
class TaskResult:
    """One task's numbers and where they come from."""

    job: PreparedTask
    answers: list[list[ModelAnswer]]
    verdicts: list[Verdict]
    numbers: dict[str, Estimate]
    by_tag: dict[str, dict[str, dict[str, Estimate]]]
    tokens: int
    """Read, scored or written in this session; what an earlier one, or an earlier task, answered is not counted."""
    seconds: float
    """Spent on asking and judging; where other tasks' requests were asked with its own, their share by characters."""

    @property
    def truncated(self) -> tuple[int, int]:
        """(items, tokens) that lost the beginning of a context."""
        lost = [sum(answer.truncated for answer in answers) for answers in self.answers]
        return sum(map(bool, lost)), sum(lost)

    def headline(self, settings: Settings) -> tuple[str, Estimate | None]:
        """The metric that stands for the task, and its value; None where no item has it, as programs that were not run."""
        name = self.job.task.headline[settings.protocol]
        return name, self.numbers.get(name)


def evaluate_tasks(
    jobs: Sequence[PreparedTask], model: Answerer, *, settings: Settings, cache: AnswerCache, progress: TaskProgress
) -> list[TaskResult]:
    """Ask everything, then judge task by task. Requests of different tasks share rows, so that none fills up its own."""
    asked_by = distinct_requests(jobs)
    given: dict[ModelRequest, ModelAnswer] = {}
    tokens, seconds = Counter[str](), Counter[str]()
    for chunk in request_chunks(asked_by):
        begin, shares = time.perf_counter(), Counter[str]()
        for request in chunk:
            shares[asked_by[request]] += request_characters(request)

        def heard(part: float, shares=shares) -> None:
            for name, size in shares.items():
                progress(name, part * size)

        answers, counts = _answer_chunk(chunk, model, cache=cache, report=heard)
        given |= zip(chunk, answers, strict=True)
        for request, count in zip(chunk, counts, strict=True):
            tokens[asked_by[request]] += count
        spent = time.perf_counter() - begin
        for name, size in shares.items():
            seconds[name] += spent * size / shares.total()
    return [judge_task(job, given, settings=settings, tokens=tokens[job.task.name], seconds=seconds[job.task.name])
            for job in jobs]


def distinct_requests(jobs: Sequence[PreparedTask]) -> dict[ModelRequest, str]:
    """The different requests in order, each with the first task that asks it."""
    found: dict[ModelRequest, str] = {}
    for job in jobs:
        for item in job.items:
            for request in item.requests:
                found.setdefault(request, job.task.name)
    return found


def judge_task(
    job: PreparedTask, given: Mapping[ModelRequest, ModelAnswer], *, settings: Settings, tokens: int, seconds: float
) -> TaskResult:
    """A task's numbers; `tokens` and `seconds` are what asking took."""
    begin = time.perf_counter()
    answers = [[given[request] for request in item.requests] for item in job.items]
    verdicts = job.task.judge(job.items, answers, settings)
    numbers = metric_means(verdicts) | (job.task.total(job.items, verdicts) if job.task.total else {})
    tags = means_by_tag(job.items, verdicts)
    return TaskResult(job, answers, verdicts, numbers, tags, tokens, seconds + time.perf_counter() - begin)


def _answer_chunk(
    chunk: Sequence[ModelRequest], model: Answerer, *, cache: AnswerCache, report: Callable[[float], None]
) -> tuple[list[ModelAnswer], list[int]]:
    """A chunk's answers from the store or the model, and how many tokens the model saw for each."""
    key = cache.key(chunk)
    answers, tokens = cache.get(key), [0] * len(chunk)
    if len(answers) == len(chunk):
        report(1.0)
    elif isinstance(chunk[0], GenerationRequest):
        texts, tokens = model.texts(chunk, report)
        answers = dict(enumerate(texts))
        cache.put(key, answers)
    else:
        for some in model.scores(chunk, set(answers), report):
            new = {number: score for number, (score, _) in some.items()}
            cache.put(key, new)
            answers |= new
            for number, (_, count) in some.items():
                tokens[number] = count
    return [answers[number] for number in range(len(chunk))], tokens


def request_characters(request: ModelRequest) -> int:
    """How much work a request is, roughly."""
    if isinstance(request, GenerationRequest):
        return len(request.text) + 4 * request.max_tokens * request.num_samples
    return len(request.text) if isinstance(request, RollingRequest) else len(request.context) + len(request.continuation)


def request_chunks(requests: Iterable[ModelRequest]) -> Iterator[list[ModelRequest]]:
    """Different requests cut into chunks, those that want scores before those that want texts, else in order."""
    requests = list(requests)
    scored = [request for request in requests if not isinstance(request, GenerationRequest)]
    prompts = [request for request in requests if isinstance(request, GenerationRequest)]
    yield from cut_into_chunks(scored, CHUNK_CHARACTERS, size=request_characters)
    most = DECODING_ROWS.get(jax.default_backend(), DEFAULT_DECODING_ROWS)
    for asked, alike in groupby(prompts, key=lambda prompt: replace(prompt, text="", place=0)):
        yield from cut_into_chunks(list(alike), most, size=lambda prompt, asked=asked: asked.num_samples)


def cut_into_chunks(
    requests: Sequence[ModelRequest], most: int, *, size: Callable[[ModelRequest], int]
) -> Iterator[list[ModelRequest]]:
    """Runs of requests of about `most` in all; choices after one context stay together."""
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
