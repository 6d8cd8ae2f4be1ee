"""`llama_jax clean` at work: raw data of one source into documents, with counts and examples."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from llama_jax.cli.clean_options import CleanOptions
from llama_jax.errors import ConfigError, DataError

_NOT_SETTINGS = {"input", "output", "workers", "executor", "executor_options", "explain"}
"""Options on which the documents do not depend."""


def run_clean(asked: CleanOptions) -> None:
    """Clean, print the counts, and write report.json."""
    try:
        from llama_jax.clean import kinds, report, stages
        from llama_jax.clean.inputs import find_input_files
    except ImportError as error:
        raise ConfigError(f"cleaning needs the extra `data` ({error.name} is missing): pip install llama_jax[data].") from None
    if asked.workers < 0 or asked.explain < 0:
        raise ConfigError(f"workers and explain must be at least 0, got {asked.workers} and {asked.explain}.")
    kind, output = kinds.KINDS[asked.source], Path(asked.output)
    place = stages.Workplace(find_input_files(asked.input, kind), output)
    recipe = kinds.load_recipe(asked.source)(place, asked)
    settings = {name: value for name, value in vars(asked).items() if name not in _NOT_SETTINGS}
    done = stages.run_stages(recipe, place, settings=settings, executor=_executor(asked.executor),
                             workers=asked.workers or os.cpu_count() or 1, options=_executor_options(asked))
    console = Console(highlight=False, soft_wrap=True)
    if not done:
        console.print(f"{output}: the stages are queued; the same command prints the report when they are done.", markup=False)
        return
    counts = report.collect_counts(output)
    report.write_report(output, counts)
    stages.remove_intermediate(output)
    if asked.explain:
        report.print_examples(output, asked.explain, console=Console(highlight=False))
    console.print(report.counts_table(counts))
    kept = counts[-1] if counts else None
    if not kept or not kept.documents_out:
        raise DataError(f"{output}: nothing was kept of {len(place.files):,} file(s); the table above counts why.")
    console.print(f"{output}: {kept.documents_out:,} documents, {kept.bytes_out:,} bytes of text; next: "
                  f"llama-jax prepare --input {output} --tokenizer TOKENIZER --output SHARDS", markup=False)


def _executor(name: str) -> type | None:
    """datatrove's class that runs tasks; None for processes of this machine."""
    if name == "local":
        return None
    from datatrove import executor

    return {"slurm": executor.SlurmPipelineExecutor, "ray": executor.RayPipelineExecutor}[name]


def _executor_options(asked: CleanOptions) -> dict[str, Any]:
    """NAME=VALUE pairs as arguments, whole numbers as such."""
    pairs = [option.partition("=") for option in asked.executor_options]
    if wrong := [name for name, equals, _ in pairs if not equals or not name.isidentifier()]:
        raise ConfigError(f"executor_options are NAME=VALUE, got {wrong[0]!r}.")
    return {name: int(value) if value.isdigit() else value for name, _, value in pairs}
