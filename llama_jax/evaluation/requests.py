"""From names of tasks to items that can be asked: data is read and every request checked before a model is touched."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from itertools import count
from zlib import crc32

from llama_jax.errors import ConfigError, DataError
from llama_jax.evaluation.data import HubRows, MissingDataFile, OfficialFiles
from llama_jax.evaluation.task import (
    GenerationRequest,
    Item,
    LikelihoodRequest,
    ModelRequest,
    Settings,
    Task,
    TaskRecords,
)
from llama_jax.evaluation.tasks.catalogue import choose_tasks
from llama_jax.files.encoding import is_unicode


@dataclass(frozen=True)
class PreparedTask:
    """A task with its items."""

    task: Task
    items: list[Item]
    hashes: dict[str, str]
    """Of the data: sha256 of files, or the hub's fingerprints."""
    size: int = 0
    """Items of the official set or of the data, whichever are more."""

    @property
    def prompts_sha256(self) -> str:
        """Of all requests: equal in two runs that asked the same."""
        return sha256("".join(item.sha256 for item in self.items).encode()).hexdigest()


def prepare_tasks(names: Sequence[str], data_dir: str, settings: Settings, limit: int = 0) -> list[PreparedTask]:
    """The jobs that names of tasks and groups mean; `limit` items of each at most (0: all).

    Raises ConfigError for unknown names and settings that a task cannot follow, DataError for what is wrong in the data.
    """
    if limit < 0:
        raise ConfigError(f"limit must be at least 0, got {limit}.")
    tasks = choose_tasks(list(names))
    for task in tasks:
        _check_settings(task, settings)
    return [_prepare_task(task, data_dir, settings, limit) for task in tasks]


def _check_settings(task: Task, settings: Settings) -> None:
    """Raise ConfigError where a task cannot be asked so."""
    for name, least in (("num_fewshot", 0), ("num_samples", 1), ("max_tokens", 1), ("seed", 0)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}.")
    if settings.num_fewshot is not None and settings.num_fewshot not in (task.num_fewshot, *range(task.most_fewshot + 1)):
        most = f"at most {task.most_fewshot} worked examples" if task.most_fewshot else "no worked examples to show"
        raise ConfigError(f"{task.name} has {most}, got num_fewshot {settings.num_fewshot}; run it without --num_fewshot.")


def _prepare_task(task: Task, data_dir: str, settings: Settings, limit: int) -> PreparedTask:
    """One task's items, in the order of its files."""
    records, hashes = _read_records(task, data_dir, settings)
    items = task.build(records, settings)
    if not items:
        raise DataError(f"{task.name}: the data holds no item; get it anew from {task.origin}.")
    size = max(task.size, len(items))
    items = with_sampling_places(task.name, items)
    if limit:
        items = _first_items(items, limit, task.limit_by)
    for item in items:
        check_requests(task, item)
    return PreparedTask(task, items, hashes, size)


def _read_records(task: Task, data_dir: str, settings: Settings) -> tuple[TaskRecords, dict[str, str]]:
    """Records and hashes from the folder, or from the hub where the folder lacks them and the library is installed."""
    files = OfficialFiles(data_dir, task.origin)
    try:
        return task.read(files, settings), files.hashes
    except MissingDataFile as error:
        if task.hub is None:
            raise
        if find_spec("datasets") is None:
            raise DataError(f'{error} Or install the hub\'s library, which fetches it: pip install -e ".[hub]".') from None
        rows = HubRows()
        try:
            records = task.hub(rows, settings)
            task.build(records, settings)  # the columns are others' to name: what lacks one is told here
        except DataError as other:
            raise DataError(f"{error} And {other}") from None
        except (LookupError, TypeError, ValueError, AttributeError) as other:
            raise DataError(f"{error} And the hub's rows of {', '.join(rows.hashes)} are not what {task.name} expects "
                            f"({type(other).__name__}: {other}).") from None
        return records, rows.hashes


def with_sampling_places(name: str, items: Sequence[Item]) -> list[Item]:
    """Items of a task whose sampled prompts have places: their noise is independent of every other prompt's.

    A place is made of the task's name and the prompt's number in the whole task, so that it is the same whatever other
    tasks and however many items are asked. Greedy prompts draw nothing; equal ones of different tasks stay equal.
    """
    numbers, task = count(), crc32(name.encode()) << 32

    def placed(request: ModelRequest) -> ModelRequest:
        place = task + next(numbers)
        return replace(request, place=place) if isinstance(request, GenerationRequest) and request.temperature > 0 else request

    return [replace(item, requests=tuple(map(placed, item.requests))) for item in items]


def _first_items(items: Sequence[Item], limit: int, tag: str) -> list[Item]:
    """The first `limit` items, or of each value of `tag`."""
    counts: dict[str, int] = {}
    kept = []
    for item in items:
        value = item.tags.get(tag, "")
        counts[value] = counts.get(value, 0) + 1
        if counts[value] <= limit:
            kept.append(item)
    return kept


def check_requests(task: Task, item: Item) -> None:
    """Raise DataError for a request that cannot be answered: nothing to score, or no text."""
    for request in item.requests:
        text = request.text if not isinstance(request, LikelihoodRequest) else request.context + request.continuation
        scored = request.continuation if isinstance(request, LikelihoodRequest) else text
        if not scored and not isinstance(request, GenerationRequest):
            raise DataError(f"{task.name}, item {item.key}: a continuation to score is empty; the record is broken.")
        if not is_unicode(text):
            raise DataError(f"{task.name}, item {item.key}: not valid Unicode text (half of a surrogate pair).")
    if not is_unicode(json.dumps([item.key, item.gold, dict(item.tags)], ensure_ascii=False)):
        raise DataError(f"{task.name}, item {item.key!a}: its name, answer or tags are not valid Unicode text.")
