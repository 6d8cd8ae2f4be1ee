"""The options of the commands that make token shards and tokenizers, as plain data (see `llama_jax.cli.options`)."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from llama_jax.cli.options import TextFiles, TextKey, TokenizerPath


@dataclass(frozen=True)
class PrepareOptions:
    """Tokenise text into a folder of token shards to train on. The same command again continues after an interruption.

    On a folder that is finished, it reads all shards and compares them with their checksums.
    """

    input: Annotated[tuple[str, ...], tyro.conf.arg(help=(
        "Files of text, or folders of them: .txt (one document per file), .jsonl, .parquet; each may end in .gz, .zst or .xz "
        "too. Or hf://datasets/OWNER/NAME[/CONFIG][:SPLIT], which is streamed from the Hugging Face hub (extra hub)."))]
    tokenizer: TokenizerPath
    output: str
    """Folder to make; data.sources names it."""
    text_key: TextKey = "text"
    document_separator: str = ""
    """Text between the documents of a .txt file, such as <|endoftext|>; empty: a file is one document."""
    workers: int = 0
    """Number of processes; 0: one per core. The shards do not depend on it."""
    shard_tokens: int = 1 << 26
    """Every shard but the last holds at least this many tokens."""
    heldout_output: str = ""
    """Folder for held-out documents, which data.heldout names; empty: none are held out."""
    heldout_fraction: float = 0.0
    """Share of the documents that go to heldout_output, chosen by a hash of their text: added data moves no document."""


@dataclass(frozen=True)
class TokenizerTrainOptions:
    """Train a SentencePiece tokenizer with LLaMA's settings: BPE, numbers split into digits, byte fallback."""

    input: TextFiles
    output: str
    """Folder that gets tokenizer.model; an existing tokenizer is never overwritten."""
    vocab_size: int
    """Size of the vocabulary, including 3 control pieces and 256 bytes."""
    text_key: TextKey = "text"


@dataclass(frozen=True)
class TokenizerReportOptions:
    """Measure how finely a tokenizer splits texts: bytes per token, tokens per word, byte tokens, unknown tokens, digits."""

    tokenizer: TokenizerPath
    input: Annotated[tuple[str, ...], tyro.conf.arg(help=(
        "Texts as PATH, or as NAME=PATH to count them under a name; NAME may be SOURCE/LANGUAGE. PATH is what "
        "prepare reads: a file, a folder, or hf://datasets/OWNER/NAME[/CONFIG][:SPLIT]."))]
    text_key: TextKey = "text"
    reference: str = ""
    """Folder or file of another tokenizer to compare with."""
    output: str = ""
    """Folder for report.md, report.html, report.json and a plot; empty: the tables are only printed."""


@dataclass(frozen=True)
class TokenizerOptions:
    """Train or measure a tokenizer."""

    command: (
        Annotated[TokenizerTrainOptions, tyro.conf.subcommand("train")]
        | Annotated[TokenizerReportOptions, tyro.conf.subcommand("report")]
    )
