"""Evaluation tasks during training: headline metrics of the current parameters, for the metric writers of the run."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from llama_jax.config import Config
from llama_jax.errors import ConfigError


def evaluators(config: Config, workdir: Path) -> list[Callable[[Any], dict[str, float]]]:
    """A function from parameters to metrics for the tasks of `config.eval`, in a list; an empty list where it names none.

    Names and data are checked here, before anything is compiled, with the errors of `requests.prepare_tasks`. The function
    uses none of the run's random numbers and changes none of its state, so the run is the same with and without it.
    """
    names = [name for text in config.eval.tasks for name in text.replace(",", " ").split()]
    if not names:
        return []
    # imported here, so that train.py loads them only where a run evaluates tasks
    import jax

    from llama_jax.evaluation.answers import Answerer
    from llama_jax.evaluation.cache import AnswerCache
    from llama_jax.evaluation.harness import evaluate_tasks
    from llama_jax.evaluation.requests import prepare_tasks
    from llama_jax.evaluation.task import Settings
    from llama_jax.files.remote import fetched
    from llama_jax.model.decoder import Transformer
    from llama_jax.tokenizer.load import load_tokenizer

    if jax.process_count() > 1:
        raise ConfigError("eval.tasks works in runs of one process; evaluate the checkpoints with eval.py.")
    settings = Settings()
    prepared = prepare_tasks(names, fetched(config.eval.data_dir), settings=settings, limit=config.eval.limit)
    # the backend that trains need not know the masks of prefix sharing
    compute = replace(config.compute, attention="auto")
    tokenizer = cache(lambda: load_tokenizer(workdir))  # a new run trains its tokenizer after this point

    def measure(params: Any) -> dict[str, float]:
        answerer = Answerer(Transformer(config.model, compute), params, tokenizer())
        results = evaluate_tasks(prepared, answerer, settings=settings, cache=AnswerCache(None, ""),
                                 progress=lambda name, done: None)
        metrics = {}
        for result in results:
            name, estimate = result.headline(settings)
            if estimate:
                metrics[f"eval/{result.prepared.task.name}/{name}"] = estimate.value
        return metrics

    return [measure]
