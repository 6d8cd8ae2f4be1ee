"""`llama_jax clean` at work: raw data of one source into documents, with counts and examples."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from llama_jax.cli.clean_options import CleanOptions
from llama_jax.errors import ConfigError, DataError

_NOT_SETTINGS = {"input", "output", "workers", "executor", "executor_options", "explain"}
"""Options on which the documents do not depend."""
_FILES = {"language_model", "perplexity_text", "perplexity_model", "perplexity_tokenizer", "reference_pages", "random_pages",
          "reference_model", "bad_words", "evaluation_data"}
"""Options that name files or folders, on whose content the documents depend."""


def run_clean(asked: CleanOptions) -> None:
    """Clean, print the counts, and write report.json."""
    if asked.workers < 0 or asked.explain < 0:
        raise ConfigError(f"workers and explain must be at least 0, got {asked.workers} and {asked.explain}.")
    try:
        from llama_jax.clean import executors, kinds, report, stages
        from llama_jax.clean.inputs import find_input_files

        recipe = kinds.load_recipe(asked.source)
    except ImportError as error:
        if (error.name or "").startswith("llama_jax"):
            raise
        missing = str(error.name).partition(".")[0]
        raise ConfigError(f"cleaning needs the extra `data` ({missing} is missing): pip install llama_jax[data].") from None
    output = Path(asked.output)
    _check_apart(output, asked.input)
    place = stages.Workplace(find_input_files(asked.input, kinds.KINDS[asked.source]), output.absolute())
    done = stages.run_stages(recipe(place, asked), place, settings=_settings(asked), executor=asked.executor,
                             workers=asked.workers or os.cpu_count() or 1,
                             options=executors.parse_executor_options(asked.executor_options))
    console = Console(highlight=False, soft_wrap=True)
    if not done:
        console.print(f"{output}: the tasks are queued or at work; the same command prints the counts when they are done.",
                      markup=False)
        return
    counts = report.collect_counts(output)
    report.write_report(output, counts)
    stages.remove_intermediate(output)
    if asked.explain:
        report.print_examples(output, counts, number=asked.explain, console=Console(highlight=False))
    console.print(report.counts_table(counts))
    if not counts[-1].documents_out:
        raise DataError(f"{output}: nothing was kept of {len(place.files):,} file(s); the table above counts why.")
    console.print(f"{output}: {counts[-1].documents_out:,} documents, {counts[-1].bytes_out:,} bytes of text; next: "
                  f"llama-jax prepare --input {output} --tokenizer TOKENIZER --output SHARDS", markup=False)


def _check_apart(output: Path, inputs: tuple[str, ...]) -> None:
    """Raise ConfigError where the documents would lie among the input, and be read as such by the same command."""
    for path in inputs:
        if Path(path).is_dir() and output.resolve().is_relative_to(Path(path).resolve()):
            raise ConfigError(f"the output {output} lies in the input {path}; name a folder outside of it.")


def _settings(asked: CleanOptions) -> dict[str, Any]:
    """What the documents depend on: the options, and what the files hold that they name."""
    settings = {name: value for name, value in vars(asked).items() if name not in _NOT_SETTINGS}
    return {name: _with_content(value) if name in _FILES else value for name, value in settings.items()}


def _with_content(value: str | tuple[str, ...]) -> Any:
    """The paths of an option; those that exist with what tells whether their content has changed."""
    from llama_jax.clean.claim import identify_input
    from llama_jax.clean.items import InputFile

    if isinstance(value, tuple):
        return [_with_content(path) for path in value]
    return identify_input(InputFile(Path(value), value)) if value and Path(value).exists() else value
