"""Tasks during training: headline numbers of the live parameters, for the writers of the run."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from llama_jax.config import Config
from llama_jax.errors import ConfigError


def evaluators(config: Config, workdir: Path) -> list[Callable[[Any], dict[str, float]]]:
    """One function of the parameters for all that `config.eval` asks for; none where it asks for nothing.

    Data and names are checked here, before anything is compiled: raises what `jobs.plan` raises. The functions draw
    nothing from the run's randomness and change none of its state: the run is the same with and without them.
    """
    names = [name for text in config.eval.tasks for name in text.replace(",", " ").split()]
    if not names:
        return []
    import jax

    from llama_jax.evaluation.answers import Answerer
    from llama_jax.evaluation.cache import AnswerCache
    from llama_jax.evaluation.harness import evaluate_tasks
    from llama_jax.evaluation.requests import prepare_tasks
    from llama_jax.evaluation.task import Settings
    from llama_jax.model.decoder import Transformer
    from llama_jax.tokenizer.load import load_tokenizer

    if jax.process_count() > 1:
        raise ConfigError("eval.tasks works in runs of one process; evaluate the checkpoints with eval.py.")
    settings = Settings()
    jobs = prepare_tasks(names, config.eval.data_dir, settings, config.eval.limit)
    compute = replace(config.compute, attention="auto")  # what serves training rows need not know the masks of scoring
    tokenizer = cache(lambda: load_tokenizer(workdir))  # the run may have yet to train it

    def measure(params: Any) -> dict[str, float]:
        answerer = Answerer(Transformer(config.model, compute), params, tokenizer())
        results = evaluate_tasks(jobs, answerer, settings=settings, cache=AnswerCache(None, ""), progress=lambda name, new: None)
        headlines = [(result.job.task.name, *result.headline(settings)) for result in results]
        return {f"eval/{task}/{metric}": estimate.value for task, metric, estimate in headlines if estimate}

    return [measure]
