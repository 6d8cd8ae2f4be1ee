"""`llama_jax generate` at work: continue a prompt, a file of prompts, or lines typed at the terminal."""

import dataclasses
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import jax

from llama_jax.cli.load_model import load_model
from llama_jax.cli.options import GenerateOptions
from llama_jax.errors import ConfigError
from llama_jax.files.atomic import check_writable
from llama_jax.files.jsonl import json_line, read_jsonl, write_jsonl
from llama_jax.inference.continuation import Generated
from llama_jax.inference.generate import generate, stream
from llama_jax.inference.params import DecodingParams
from llama_jax.inference.prompts import encode_prompt
from llama_jax.inference.sampling import Sampling
from llama_jax.model.decoder import Transformer
from llama_jax.terminal import progress_bar
from llama_jax.tokenizer.base import Tokenizer


class _Generator(NamedTuple):
    """What continues a prompt; the first arguments of `generate` and `stream`."""

    model: Transformer
    params: DecodingParams
    tokenizer: Tokenizer


def run_generate(asked: GenerateOptions) -> None:
    """Continue what is asked for; raises ConfigError unless that is exactly one of the three."""
    if sum([asked.prompt is not None, asked.prompt_file is not None, asked.interactive]) != 1:
        raise ConfigError("give one of --prompt TEXT, --prompt_file FILE and --interactive.")
    if asked.batch_size < 1:
        raise ConfigError(f"batch_size must be positive, got {asked.batch_size}.")
    sampling = Sampling(**dataclasses.asdict(asked.sampling))
    rows = read_jsonl(Path(asked.prompt_file), ("prompt",)) if asked.prompt_file is not None else None
    if asked.output:
        check_writable(Path(asked.output))
    model, params, tokenizer = load_model(asked.checkpoint, asked.tensor, dtype=asked.dtype, verify=asked.verify)
    if asked.prompt is not None:
        encode_prompt(tokenizer, asked.prompt, config=model.config)  # a mistake is told before anything is compiled
    with jax.set_mesh(params.mesh):
        generator = _Generator(model, params, tokenizer)
        if rows is not None:
            _continue_file(asked, rows, generator=generator, sampling=sampling)
        elif asked.interactive:
            _continue_typed_lines(generator, sampling)
        else:
            _continue_prompt(asked, generator, sampling=sampling)


def _continue_prompt(asked: GenerateOptions, generator: _Generator, *, sampling: Sampling) -> None:
    """Stream one sample; several samples, or JSON lines, are printed when they are complete."""
    if sampling.num_samples == 1 and asked.output is None and not asked.logprobs:
        print(asked.prompt, end="", flush=True)
        _print_stream(stream(*generator, asked.prompt, sampling))
        return
    results = generate(*generator, [asked.prompt], sampling)
    _write_rows(asked, [{"prompt": asked.prompt} | row for row in _as_rows(asked, results)])


def _continue_typed_lines(generator: _Generator, sampling: Sampling) -> None:
    """Read a line and print its continuation until the input ends; every line draws its own noise."""
    for place in count():
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return
        except UnicodeDecodeError:
            print("error: that line is not UTF-8.", file=sys.stderr)
            continue
        try:
            _print_stream(stream(*generator, line, sampling, prompt_index=place))
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)


def _continue_file(asked: GenerateOptions, rows: list[dict], *, generator: _Generator, sampling: Sampling) -> None:
    """Continue every line of the file, in batches."""
    for number, row in enumerate(rows, 1):
        try:
            encode_prompt(generator.tokenizer, row["prompt"], config=generator.model.config)
        except ConfigError as error:
            raise ConfigError(f"{asked.prompt_file}, prompt {number}: {error}") from None
    with progress_bar("prompts", lambda done, seconds: f"{done:,.0f} of {len(rows):,}", total=len(rows)) as advance:
        results = generate(*generator, [row["prompt"] for row in rows], sampling, batch_size=asked.batch_size, report=advance)
    made = iter(_as_rows(asked, results))
    _write_rows(asked, [row | next(made) for row in rows for _ in range(sampling.num_samples)])


def _as_rows(asked: GenerateOptions, results: list[Generated]) -> list[dict]:
    """The results as JSON objects."""
    rows, samples = [], asked.sampling.num_samples
    for number, result in enumerate(results):
        row: dict[str, Any] = {"text": result.text, "finish_reason": result.finish_reason}
        if samples > 1:
            row["sample"] = number % samples
        if asked.logprobs:
            row |= {"tokens": result.tokens, "token_logprobs": result.logprobs}
        rows.append(row)
    return rows


def _write_rows(asked: GenerateOptions, rows: list[dict]) -> None:
    """JSON lines to the file that is asked for, or to stdout."""
    if asked.output:
        write_jsonl(Path(asked.output), rows)
    else:
        for row in rows:
            print(json_line(row), end="")


def _print_stream(pieces: Iterator[str]) -> None:
    """Print pieces of text as they come, and end the line."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
