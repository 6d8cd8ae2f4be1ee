"""The evaluation tasks of the paper, one module per topic; each is a pure description (`llama_jax.evaluation.task.Task`)."""

from llama_jax.evaluation.tasks.catalogue import COMMON_SENSE, TASK_GROUPS, all_tasks, choose_tasks

__all__ = ["COMMON_SENSE", "TASK_GROUPS", "all_tasks", "choose_tasks"]
