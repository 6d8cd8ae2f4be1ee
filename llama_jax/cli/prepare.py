"""`llama_jax prepare` at work: text into token shards, with the pace on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from llama_jax.cli.data_options import PrepareOptions
from llama_jax.data.hash_split import HashSplit
from llama_jax.data.manifest import MANIFEST_FILE, Shard, read_manifest, verify_shards
from llama_jax.data.prepare import ReportChunk, prepare_data
from llama_jax.errors import ConfigError
from llama_jax.terminal import progress_bar
from llama_jax.tokenizer.load import load_tokenizer


def run_prepare(asked: PrepareOptions) -> None:
    """Prepare, and print what came out; verify what had been finished before."""
    console = Console(highlight=False, soft_wrap=True)
    output, folders = Path(asked.output), [Path(asked.output)]
    if bool(asked.heldout_output) != bool(asked.heldout_fraction):
        raise ConfigError("heldout_output and heldout_fraction go together; name both, or neither.")
    if asked.heldout_output:
        output = HashSplit(folders[0], Path(asked.heldout_output), asked.heldout_fraction)
        folders.append(output.heldout)
    finished = [folder for folder in folders if (folder / MANIFEST_FILE).is_file()]
    with _reported_chunks(console) as report:
        prepare_data(list(asked.input), load_tokenizer(asked.tokenizer), output=output, report=report,
                     text_key=asked.text_key, separator=asked.document_separator, workers=asked.workers,
                     shard_tokens=asked.shard_tokens)
    for folder in folders:
        if folder in finished:
            with _reported_chunks(console) as report:
                manifest, words = verify_shards(folder, report=report), ", finished before and whole"
        else:
            manifest, words = read_manifest(folder), ""
        console.print(f"{folder}: {manifest.documents:,} documents, {manifest.bytes:,} bytes of text, "
                      f"{manifest.tokens:,} tokens in {len(manifest.shards)} shard(s){words}", markup=False)


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
