"""From names of tasks to items: data is read and every request checked before a model is loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from itertools import count
from zlib import crc32

from llama_jax.errors import ConfigError, DataError
from llama_jax.evaluation.data import HubRows, MissingDataFile, OfficialFiles
from llama_jax.evaluation.task import GenerationRequest, Item, LikelihoodRequest, ModelRequest, Settings, Task, TaskRecords
from llama_jax.evaluation.tasks.catalogue import choose_tasks
from llama_jax.files.encoding import is_unicode


@dataclass(frozen=True)
class PreparedTask:
    """A task with its items."""

    task: Task
    items: list[Item]
    hashes: dict[str, str]
    """Hashes of the data: sha256 of files, or the hub's fingerprints."""
    size: int = 0
    """Items of the official set or of the data, whichever are more."""

    @property
    def prompts_sha256(self) -> str:
        """Hash of all requests; two runs that asked the same have the same."""
        return sha256("".join(item.sha256 for item in self.items).encode()).hexdigest()


def prepare_tasks(names: Sequence[str], data_dir: str, *, settings: Settings, limit: int = 0) -> list[PreparedTask]:
    """Read the data of tasks and build their items.

    Args:
        names: Names of tasks and groups.
        limit: Most items of each task; 0: all.

    Raises:
        ConfigError: A name is unknown, or a task cannot follow the settings.
        DataError: Data is missing or wrong.
    """
    if limit < 0:
        raise ConfigError(f"limit must be at least 0, got {limit}.")
    tasks = choose_tasks(list(names))
    for task in tasks:
        _check_settings(task, settings)
    return [_prepare_task(task, data_dir, settings=settings, limit=limit) for task in tasks]


def _check_settings(task: Task, settings: Settings) -> None:
    """Raise ConfigError where a task cannot follow the settings."""
    for name, least in (("num_fewshot", 0), ("num_samples", 1), ("max_tokens", 1), ("seed", 0)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}.")
    if settings.num_fewshot is not None and settings.num_fewshot not in (task.num_fewshot, *range(task.most_fewshot + 1)):
        most = f"at most {task.most_fewshot} worked examples" if task.most_fewshot else "no worked examples to show"
        raise ConfigError(f"{task.name} has {most}, got num_fewshot {settings.num_fewshot}; run it without --num_fewshot.")


def _prepare_task(task: Task, data_dir: str, *, settings: Settings, limit: int) -> PreparedTask:
    records, hashes = _read_records(task, data_dir, settings=settings)
    items = task.build(records, settings)
    if not items:
        raise DataError(f"{task.name}: the data holds no item; get it anew from {task.origin}.")
    size = max(task.size, len(items))
    items = with_prompt_indices(task.name, items)
    if limit:
        items = _first_items(items, limit, tag=task.limit_by)
    for item in items:
        check_requests(task, item)
    return PreparedTask(task, items, hashes, size)


def _read_records(task: Task, data_dir: str, *, settings: Settings) -> tuple[TaskRecords, dict[str, str]]:
    """Records and hashes from the folder, or from the hub where the folder lacks a file and the library is installed."""
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
            task.build(records, settings)  # others name the hub's columns: one that has changed must be told here
        except DataError as other:
            raise DataError(f"{error} And {other}") from None
        except (LookupError, TypeError, ValueError, AttributeError) as other:
            raise DataError(f"{error} And the hub's rows of {', '.join(rows.hashes)} are not what {task.name} expects "
                            f"({type(other).__name__}: {other}).") from None
        return records, rows.hashes


def with_prompt_indices(name: str, items: Sequence[Item]) -> list[Item]:
    """Items of the task `name` whose sampled prompts draw random numbers independent of every other prompt's.

    An index is made of the task's name and the prompt's number in the whole task, so it is the same whatever other tasks and
    however many items are asked. Greedy prompts draw nothing and keep index 0, so equal ones of different tasks stay equal.
    """
    numbers, first_index = count(), crc32(name.encode()) << 32

    def with_index(request: ModelRequest) -> ModelRequest:
        index = first_index + next(numbers)  # greedy prompts and likelihoods count too
        if isinstance(request, GenerationRequest) and request.temperature > 0:
            return replace(request, prompt_index=index)
        return request

    return [replace(item, requests=tuple(map(with_index, item.requests))) for item in items]


def _first_items(items: Sequence[Item], limit: int, *, tag: str) -> list[Item]:
    """The first `limit` items for each value of `tag`; items without the tag count together."""
    counts: dict[str, int] = {}
    kept = []
    for item in items:
        value = item.tags.get(tag, "")
        counts[value] = counts.get(value, 0) + 1
        if counts[value] <= limit:
            kept.append(item)
    return kept


def check_requests(task: Task, item: Item) -> None:
    """Raise DataError for an item that cannot be asked or written: nothing to score, or text that is not Unicode."""
    for request in item.requests:
        is_likelihood = isinstance(request, LikelihoodRequest)
        text = request.context + request.continuation if is_likelihood else request.text
        scored = request.continuation if is_likelihood else text
        if not scored and not isinstance(request, GenerationRequest):
            raise DataError(f"{task.name}, item {item.key}: a continuation to score is empty; the record is broken.")
        if not is_unicode(text):
            raise DataError(f"{task.name}, item {item.key}: not valid Unicode text (half of a surrogate pair).")
    if not is_unicode(json.dumps([item.key, item.gold, dict(item.tags)], ensure_ascii=False)):
        raise DataError(f"{task.name}, item {item.key!a}: its name, answer or tags are not valid Unicode text.")
