"""`python -m llama_jax COMMAND`: what is done before and after training."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from llama_jax.convert.options import Convert
from llama_jax.data.manifest import MANIFEST_FILE, Shard
from llama_jax.data.prepare import PREPARE_PROGRESS, prepare_data
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError, exit_code_of
from llama_jax.files.atomic import make_folder
from llama_jax.inference.options import Generate, Score, Serve
from llama_jax.plan.options import Plan, split_overrides
from llama_jax.tokenizer.fertility import measure_fertility
from llama_jax.tokenizer.load import TOKENIZER_FILES, load_tokenizer
from llama_jax.tokenizer.training import train_sentencepiece

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is printed where there is no terminal."""


@dataclass(frozen=True)
class Prepare:
    """Tokenise text into a folder of shards that data.sources can name. The same command again goes on."""

    input: tuple[str, ...]
    """Files or folders: .txt (one document each), .jsonl, .parquet, also .gz .zst .xz."""
    tokenizer: str
    """Folder or file of the tokenizer: SentencePiece, tiktoken or tokenizer.json."""
    output: str
    """Folder to make."""
    text_key: str = "text"
    """Where a JSON line or Parquet row holds its text."""
    workers: int = 0
    """Processes; 0: one a core. The shards do not depend on it."""
    shard_tokens: int = 1 << 26
    """Least tokens a shard, but the last one."""

    def run(self) -> None:
        """Prepare, and print what came out."""
        console = Console(highlight=False, soft_wrap=True)
        with progress(console) as report:
            manifest = prepare_data(list(self.input), load_tokenizer(self.tokenizer), output=Path(self.output), report=report,
                               text_key=self.text_key, workers=self.workers, shard_tokens=self.shard_tokens)
        console.print(f"{self.output}: {manifest.documents:,} documents, {manifest.bytes:,} bytes of text, "
                      f"{manifest.tokens:,} tokens in {len(manifest.shards)} shard(s)", markup=False)


@dataclass(frozen=True)
class TrainTokenizer:
    """Train a SentencePiece tokenizer with LLaMA's settings: BPE, digits split one by one, byte fallback."""

    input: tuple[str, ...]
    """Files or folders of text, as for `prepare`."""
    output: str
    """Folder that gets tokenizer.model; one that is there is never overwritten."""
    vocab_size: int
    """Pieces in all, with 3 control pieces and 256 bytes."""
    text_key: str = "text"
    """Where a JSON line or Parquet row holds its text."""

    def run(self) -> None:
        """Train, save, and say where."""
        output = Path(self.output)
        make_folder(output)  # before the work, not after it
        if held := [name for name in (*TOKENIZER_FILES, MANIFEST_FILE, PREPARE_PROGRESS) if (output / name).exists()]:
            raise ConfigError(f"{output} holds {' and '.join(held)} already, and shards or a run may have been made with it; "
                              "name another --output, or remove it first.")
        tokenizer = train_sentencepiece(texts_of(self.input, self.text_key), self.vocab_size)
        tokenizer.save(self.output)
        print(f"{Path(self.output) / tokenizer.FILE}: {tokenizer.vocab_size:,} pieces")


@dataclass(frozen=True)
class ReportTokenizer:
    """Measure how finely a tokenizer cuts texts."""

    tokenizer: str
    """Folder or file of the tokenizer: SentencePiece, tiktoken or tokenizer.json."""
    input: tuple[str, ...]
    """Files or folders of text, as for `prepare`."""
    text_key: str = "text"
    """Where a JSON line or Parquet row holds its text."""

    def run(self) -> None:
        """One row a number."""
        figures = measure_fertility(load_tokenizer(self.tokenizer), texts_of(self.input, self.text_key))
        table = Table("measure", "value")
        table.columns[1].justify = "right"
        for name, value in figures.items():
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
        Console(highlight=False).print(table)


@dataclass(frozen=True)
class TokenizerCommands:
    """Train or measure a tokenizer."""

    command: (
        Annotated[TrainTokenizer, tyro.conf.subcommand("train")]
        | Annotated[ReportTokenizer, tyro.conf.subcommand("report")]
    )

    def run(self) -> None:
        """The chosen one."""
        self.command.run()


Command = (
    Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[TokenizerCommands, tyro.conf.subcommand("tokenizer")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
)


def texts_of(paths: tuple[str, ...], text_key: str) -> Iterator[str]:
    """Documents of all files that `paths` name."""
    return (text for file in find_text_files(*paths) for text in read_documents(file, text_key=text_key))


@dataclass
class Counter:
    """Running totals of what `prepare` reports, as a line."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    begin: float = field(default_factory=time.perf_counter)

    def add(self, chunk: Shard) -> str:
        """The line after one more chunk."""
        self.documents += chunk.documents
        self.tokens += chunk.tokens
        self.bytes += chunk.bytes
        size, seconds = self.bytes / 1e6, max(time.perf_counter() - self.begin, 1e-9)
        return f"{self.documents:,} documents  {size:,.1f} MB  {self.tokens:,} tokens  {size / seconds:.1f} MB/s"


@contextmanager
def progress(console: Console) -> Iterator[Callable[[Shard], None]]:
    """A reporter for `prepare`: a live line on a terminal, else a plain one now and then."""
    counter, printed = Counter(), time.perf_counter()

    def plain(chunk: Shard) -> None:
        nonlocal printed
        line = counter.add(chunk)
        if time.perf_counter() - printed >= SECONDS_BETWEEN_LINES:
            printed = time.perf_counter()
            console.print(line, markup=False)

    if not console.is_terminal:
        yield plain
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("reading")
        yield lambda chunk: bar.update(task, description=counter.add(chunk))


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code; tyro leaves with 2 on its own where the usage is wrong."""
    overrides: list[str] = []
    if arguments[:1] == ["plan"]:
        arguments, overrides = split_overrides(arguments)
    command = tyro.cli(Command, prog="python -m llama_jax", args=arguments, use_underscores=True,
                       config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes))
    try:
        return exit_code_of(partial(command.run, overrides) if isinstance(command, Plan) else command.run)
    except KeyboardInterrupt:
        print("interrupted; what was finished stays", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
