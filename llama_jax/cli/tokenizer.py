"""`llama_jax tokenizer train` and `tokenizer report` at work."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llama_jax.cli.data_options import TokenizerOptions, TokenizerReportOptions, TokenizerTrainOptions
from llama_jax.data.manifest import MANIFEST_FILE, PREPARE_PROGRESS
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError
from llama_jax.files.atomic import make_folder
from llama_jax.tokenizer.fertility import measure_fertility
from llama_jax.tokenizer.load import TOKENIZER_FILES, load_tokenizer
from llama_jax.tokenizer.training import train_sentencepiece


def run_tokenizer(asked: TokenizerOptions) -> None:
    """Run `tokenizer train` or `tokenizer report`, as the options ask."""
    if isinstance(asked.command, TokenizerTrainOptions):
        _train(asked.command)
    else:
        _report(asked.command)


def _train(asked: TokenizerTrainOptions) -> None:
    """Train, save, and say where."""
    output = Path(asked.output)
    make_folder(output)  # before the work, so that a path that cannot be written is told at once
    held = [name for name in (*TOKENIZER_FILES, MANIFEST_FILE, PREPARE_PROGRESS) if (output / name).exists()]
    if held:
        raise ConfigError(f"{output} holds {' and '.join(held)} already, and shards or a run may have been made with it; "
                          "name another --output, or remove it first.")
    tokenizer = train_sentencepiece(_texts(asked.input, asked.text_key), asked.vocab_size)
    tokenizer.save(asked.output)
    print(f"{output / tokenizer.FILE}: {tokenizer.vocab_size:,} pieces")


def _report(asked: TokenizerReportOptions) -> None:
    """Print one row per figure."""
    figures = measure_fertility(load_tokenizer(asked.tokenizer), _texts(asked.input, asked.text_key))
    table = Table("measure", "value")
    table.columns[1].justify = "right"
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
    Console(highlight=False).print(table)


def _texts(paths: tuple[str, ...], text_key: str) -> Iterator[str]:
    """The documents of all files that `paths` name."""
    return (text for file in find_text_files(*paths) for text in read_documents(file, text_key=text_key))
