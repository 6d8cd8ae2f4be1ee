"""`llama_jax tokenizer train` and `tokenizer report` at work."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llama_jax.cli.data_options import TokenizerOptions, TokenizerReportOptions, TokenizerTrainOptions
from llama_jax.data.inputs import find_inputs, read_input
from llama_jax.data.manifest import MANIFEST_FILE, PREPARE_PROGRESS
from llama_jax.errors import ConfigError
from llama_jax.files.atomic import make_folder
from llama_jax.report.page import print_tables
from llama_jax.report.tokenizers import MeasuredTokenizer, digit_sentence, tokenizer_tables, write_tokenizer_report
from llama_jax.tokenizer.fertility import count_tokens
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
    """Print the figures of one text, or tables of several; write the report where a folder is named."""
    sources = _named_inputs(asked.input)
    paths = [path for path in (asked.tokenizer, asked.reference) if path]
    labels = [Path(path).resolve().name for path in paths]
    if len(set(labels)) < len(labels):
        labels = ["tokenizer", "reference"]
    measured = [_measure(path, label, sources=sources, text_key=asked.text_key)
                for path, label in zip(paths, labels, strict=True)]
    if len(sources) == len(measured) == 1:
        _print_figures(measured[0])
    else:
        print_tables(Console(highlight=False, width=None if sys.stdout.isatty() else 180), tokenizer_tables(measured))
        print(*map(digit_sentence, measured), sep="\n")
    if asked.output:
        write_tokenizer_report(Path(asked.output), measured)
        print(f"{asked.output}: report.md, report.html, report.json")


def _named_inputs(inputs: tuple[str, ...]) -> dict[str, list[str]]:
    """Paths by name, from NAME=PATH or PATH; a path that exists as it is typed has no name, though there be a = in it."""
    sources: dict[str, list[str]] = {}
    for text in inputs:
        name, equals, path = text.partition("=")
        if not equals or os.path.exists(text):
            name, path = "text", text
        if not name.strip("/") or not path:
            raise ConfigError(f"--input {text}: expected PATH or NAME=PATH, with NAME as SOURCE or SOURCE/LANGUAGE.")
        sources.setdefault(name, []).append(path)
    if not sources:
        raise ConfigError("there is nothing to measure; name files or folders after --input.")
    return sources


def _measure(path: str, label: str, *, sources: dict[str, list[str]], text_key: str) -> MeasuredTokenizer:
    """Count with the tokenizer at `path`."""
    tokenizer = load_tokenizer(path)
    counts = count_tokens(tokenizer, {name: _texts(tuple(paths), text_key) for name, paths in sources.items()})
    return MeasuredTokenizer(label, tokenizer, counts)


def _print_figures(measured: MeasuredTokenizer) -> None:
    """One row per figure."""
    counts = measured.total
    figures = {"vocab_size": measured.tokenizer.vocab_size, "bytes": counts.bytes, "words": counts.words,
               "tokens": counts.tokens} | counts.ratios()
    table = Table("measure", "value")
    table.columns[1].justify = "right"
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
    Console(highlight=False).print(table)


def _texts(paths: tuple[str, ...], text_key: str) -> Iterator[str]:
    """The documents of all files and data sets that `paths` name."""
    return (text for source in find_inputs(*paths) for text in read_input(source, text_key=text_key))
