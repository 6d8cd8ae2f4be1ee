"""All evaluation tasks by name, and the groups that form the paper's tables."""

from importlib import import_module

from llama_jax.errors import ConfigError, nearest
from llama_jax.evaluation.task import Task

_MODULES = ("multiple_choice", "closed_book", "reading", "reasoning", "code", "knowledge", "bias", "language")
"""Modules of this package that hold tasks, in a tuple TASKS."""

COMMON_SENSE = ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
_CLOSED_BOOK = tuple(f"{name}_{shots}shot" for name in ("natural_questions", "triviaqa") for shots in (0, 1, 5, 64))
_READING = ("race_middle", "race_high")
_MATH = ("minerva_math", "minerva_math_maj1", "gsm8k", "gsm8k_maj1")
_CODE = ("humaneval_1", "humaneval_100", "mbpp_1", "mbpp_80")
_BIAS = ("realtoxicityprompts_basic", "realtoxicityprompts_respectful", "crows_pairs", "winogender", "truthfulqa")

TASK_GROUPS: dict[str, tuple[str, ...]] = {
    "common_sense": COMMON_SENSE,
    "closed_book": _CLOSED_BOOK,
    "reading": _READING,
    "math": _MATH,
    "code": _CODE,
    "mmlu": ("mmlu",),
    "bias": _BIAS,
    "paper": (*COMMON_SENSE, *_CLOSED_BOOK, *_READING, *_MATH, *_CODE, "mmlu", *_BIAS),
}
"""The tasks of the paper's tables by topic; `paper` is all of them."""


def all_tasks() -> dict[str, Task]:
    """Every task by its name."""
    modules = [import_module(f"llama_jax.evaluation.tasks.{name}") for name in _MODULES]
    return {task.name: task for module in modules for task in module.TASKS}


def choose_tasks(names: list[str]) -> list[Task]:
    """The tasks of a list of task and group names, each task once. Raises ConfigError that suggests the nearest names."""
    known, found = all_tasks(), {}
    if not names:
        raise ConfigError(f"no task is named; groups: {', '.join(TASK_GROUPS)}; tasks: {', '.join(known)}.")
    for name in names:
        if name not in known and name not in TASK_GROUPS:
            raise ConfigError(f"unknown task {name!r}{nearest(name, [*TASK_GROUPS, *known])}")
        for one in TASK_GROUPS.get(name, (name,)):
            found[one] = known[one]
    return list(found.values())
