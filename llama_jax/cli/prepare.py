"""`llama_jax prepare` at work: text into token shards, with the pace on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from llama_jax.cli.options import PrepareOptions
from llama_jax.data.manifest import Shard
from llama_jax.data.prepare import ReportChunk, prepare_data
from llama_jax.terminal import progress_bar
from llama_jax.tokenizer.load import load_tokenizer


def run_prepare(asked: PrepareOptions) -> None:
    """Prepare, and print what came out."""
    console = Console(highlight=False, soft_wrap=True)
    with _reported_chunks(console) as report:
        manifest = prepare_data(list(asked.input), load_tokenizer(asked.tokenizer), output=Path(asked.output), report=report,
                                text_key=asked.text_key, separator=asked.document_separator, workers=asked.workers,
                                shard_tokens=asked.shard_tokens)
    console.print(f"{asked.output}: {manifest.documents:,} documents, {manifest.bytes:,} bytes of text, "
                  f"{manifest.tokens:,} tokens in {len(manifest.shards)} shard(s)", markup=False)


@contextmanager
def _reported_chunks(console: Console) -> Iterator[ReportChunk]:
    """A progress bar that counts documents and tokens beside bytes of text; how much is left is not known."""
    documents = tokens = 0

    def describe(size: float, seconds: float) -> str:
        megabytes = size / 1e6
        return f"{documents:,} documents  {megabytes:,.1f} MB  {tokens:,} tokens  {megabytes / max(seconds, 1e-9):.1f} MB/s"

    with progress_bar("", describe, console=console) as advance:
        def report(chunk: Shard) -> None:
            nonlocal documents, tokens
            documents += chunk.documents
            tokens += chunk.tokens
            advance(chunk.bytes)

        yield report
