"""Requests of all tasks to a model, answers to numbers; what was answered is not asked again."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import jax

from llama_jax.evaluation.answers import DEFAULT_ROWS, ROWS, Answerer
from llama_jax.evaluation.cache import Store
from llama_jax.evaluation.requests import Job
from llama_jax.evaluation.statistics import by_tag, means
from llama_jax.evaluation.task import Answer, Choice, Estimate, Prompt, Request, Settings, Verdict, Whole

CHUNK_CHARACTERS = 1 << 20
"""Characters of the requests that are laid out in batches together."""

Progress = Callable[[str, float], None]
"""Called with a task's name and the characters that are newly done."""


@dataclass(frozen=True)
class Result:
    """One task's numbers and where they come from."""

    job: Job
    answers: list[list[Answer]]
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


def evaluate(jobs: Sequence[Job], model: Answerer, settings: Settings, store: Store, progress: Progress) -> list[Result]:
    """Ask everything, then judge task by task. Requests of different tasks share rows, so that none fills up its own."""
    asked_by = owners(jobs)
    given: dict[Request, Answer] = {}
    tokens, seconds = Counter[str](), Counter[str]()
    for chunk in chunks(asked_by):
        begin, shares = time.perf_counter(), Counter[str]()
        for request in chunk:
            shares[asked_by[request]] += characters(request)

        def heard(part: float, shares=shares) -> None:
            for name, size in shares.items():
                progress(name, part * size)

        answers, counts = answered(chunk, model, store, heard)
        given |= zip(chunk, answers, strict=True)
        for request, count in zip(chunk, counts, strict=True):
            tokens[asked_by[request]] += count
        spent = time.perf_counter() - begin
        for name, size in shares.items():
            seconds[name] += spent * size / shares.total()
    return [judge(job, given, settings, tokens[job.task.name], seconds[job.task.name]) for job in jobs]


def owners(jobs: Sequence[Job]) -> dict[Request, str]:
    """The different requests in order, each with the first task that asks it."""
    found: dict[Request, str] = {}
    for job in jobs:
        for item in job.items:
            for request in item.requests:
                found.setdefault(request, job.task.name)
    return found


def judge(job: Job, given: Mapping[Request, Answer], settings: Settings, tokens: int, seconds: float) -> Result:
    """A task's numbers; `tokens` and `seconds` are what asking took."""
    begin = time.perf_counter()
    answers = [[given[request] for request in item.requests] for item in job.items]
    verdicts = job.task.judge(job.items, answers, settings)
    numbers = means(verdicts) | (job.task.total(job.items, verdicts) if job.task.total else {})
    tags = by_tag(job.items, verdicts)
    return Result(job, answers, verdicts, numbers, tags, tokens, seconds + time.perf_counter() - begin)


def answered(chunk: Sequence[Request], model: Answerer, store: Store,
             report: Callable[[float], None]) -> tuple[list[Answer], list[int]]:
    """A chunk's answers from the store or the model, and how many tokens the model saw for each."""
    key = store.key(chunk)
    answers, tokens = store.get(key), [0] * len(chunk)
    if len(answers) == len(chunk):
        report(1.0)
    elif isinstance(chunk[0], Prompt):
        texts, tokens = model.texts(chunk, report)
        answers = dict(enumerate(texts))
        store.put(key, answers)
    else:
        for some in model.scores(chunk, set(answers), report):
            new = {number: score for number, (score, _) in some.items()}
            store.put(key, new)
            answers |= new
            for number, (_, count) in some.items():
                tokens[number] = count
    return [answers[number] for number in range(len(chunk))], tokens


def characters(request: Request) -> int:
    """How much work a request is, roughly."""
    if isinstance(request, Prompt):
        return len(request.text) + 4 * request.max_tokens * request.num_samples
    return len(request.text) if isinstance(request, Whole) else len(request.context) + len(request.continuation)


def chunks(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Different requests cut into chunks, those that want scores before those that want texts, else in order."""
    requests = list(requests)
    scored = [request for request in requests if not isinstance(request, Prompt)]
    prompts = [request for request in requests if isinstance(request, Prompt)]
    yield from cut(scored, CHUNK_CHARACTERS, characters)
    most = ROWS.get(jax.default_backend(), DEFAULT_ROWS)
    for asked, alike in groupby(prompts, key=lambda prompt: replace(prompt, text="", place=0)):
        yield from cut(list(alike), most, lambda prompt, asked=asked: asked.num_samples)


def cut(requests: Sequence[Request], most: int, size: Callable[[Request], int]) -> Iterator[list[Request]]:
    """Runs of requests of about `most` in all; choices after one context stay together."""
    chunk: list[Request] = []
    total, context = 0, None
    for request in requests:
        own = request.context if isinstance(request, Choice) else None
        if total >= most and (own is None or own != context):
            yield chunk
            chunk, total = [], 0
        chunk.append(request)
        total, context = total + size(request), own
    if chunk:
        yield chunk
