"""Evaluation of language models on the tasks of the LLaMA paper (docs/EVALUATION.md).

`prepare_tasks` reads data and builds the requests of tasks, `evaluate_tasks` asks them of an `Answerer` and judges its answers,
and `write_results` writes what came of it. Describing a task and reading results import no jax.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.evaluation.answers import Answerer
    from llama_jax.evaluation.cache import AnswerCache
    from llama_jax.evaluation.choices import NORMALISATIONS, ChoiceQuestion, choice_item, choice_question, judge_choices
    from llama_jax.evaluation.data import HubRows, OfficialFiles
    from llama_jax.evaluation.fingerprint import model_fingerprint
    from llama_jax.evaluation.harness import evaluate_tasks
    from llama_jax.evaluation.in_training import evaluators
    from llama_jax.evaluation.requests import PreparedTask, prepare_tasks
    from llama_jax.evaluation.results import TaskResult, read_items, read_results, results_json, write_results
    from llama_jax.evaluation.statistics import mean_estimate, paired_difference
    from llama_jax.evaluation.task import (
        Estimate,
        GenerationAnswer,
        GenerationRequest,
        Item,
        LikelihoodAnswer,
        LikelihoodRequest,
        RollingRequest,
        Settings,
        Task,
        TaskRecords,
        Verdict,
        headline_metrics,
        judge_each,
    )

_MODULES = {
    "NORMALISATIONS": "choices",
    "AnswerCache": "cache",
    "Answerer": "answers",
    "ChoiceQuestion": "choices",
    "Estimate": "task",
    "GenerationAnswer": "task",
    "GenerationRequest": "task",
    "HubRows": "data",
    "Item": "task",
    "LikelihoodAnswer": "task",
    "LikelihoodRequest": "task",
    "OfficialFiles": "data",
    "PreparedTask": "requests",
    "RollingRequest": "task",
    "Settings": "task",
    "Task": "task",
    "TaskRecords": "task",
    "TaskResult": "results",
    "Verdict": "task",
    "choice_item": "choices",
    "choice_question": "choices",
    "evaluate_tasks": "harness",
    "evaluators": "in_training",
    "headline_metrics": "task",
    "judge_choices": "choices",
    "judge_each": "task",
    "mean_estimate": "statistics",
    "model_fingerprint": "fingerprint",
    "paired_difference": "statistics",
    "prepare_tasks": "requests",
    "read_items": "results",
    "read_results": "results",
    "results_json": "results",
    "write_results": "results",
}
"""The module of every public name, which is imported when the name is first used: a command's --help needs no jax."""

__all__ = [
    "NORMALISATIONS", "AnswerCache", "Answerer", "ChoiceQuestion", "Estimate", "GenerationAnswer", "GenerationRequest",
    "HubRows", "Item", "LikelihoodAnswer", "LikelihoodRequest", "OfficialFiles", "PreparedTask", "RollingRequest", "Settings",
    "Task", "TaskRecords", "TaskResult", "Verdict", "choice_item", "choice_question", "evaluate_tasks", "evaluators",
    "headline_metrics", "judge_choices", "judge_each", "mean_estimate", "model_fingerprint", "paired_difference",
    "prepare_tasks", "read_items", "read_results", "results_json", "write_results",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
