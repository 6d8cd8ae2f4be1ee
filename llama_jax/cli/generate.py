"""The commands that use a model, at work: generate and score."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llama_jax.config import MeshConfig
from llama_jax.errors import ConfigError
from llama_jax.files.atomic import check_writable
from llama_jax.files.jsonl import json_line, read_jsonl, write_jsonl
from llama_jax.formats.loading import load_source
from llama_jax.formats.mapping import tensors
from llama_jax.formats.open import open_source
from llama_jax.formats.run import RunFolder
from llama_jax.inference.generate import Generated, generate, prompt_ids, stream
from llama_jax.inference.options import Generate, Score, Serve
from llama_jax.inference.params import Weights, make_weights
from llama_jax.inference.sampling import Sampling
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.malloc import keep_freed_memory
from llama_jax.scoring.likelihood import loglikelihood
from llama_jax.tokenizer.base import Tokenizer


def run_generate(asked: Generate) -> None:
    """Continue the prompt, the file of prompts, or what is typed."""
    if sum([asked.prompt is not None, asked.prompt_file is not None, asked.interactive]) != 1:
        raise ConfigError("give one of --prompt TEXT, --prompt_file FILE and --interactive.")
    if asked.batch_size < 1:
        raise ConfigError(f"batch_size must be positive, got {asked.batch_size}.")
    names = ("max_new_tokens", "temperature", "top_p", "top_k", "min_p", "num_samples", "seed", "stop")
    sampling = Sampling(**{name: getattr(asked, name) for name in names})
    rows = read_jsonl(Path(asked.prompt_file), ("prompt",)) if asked.prompt_file is not None else None
    if asked.output:
        check_writable(Path(asked.output))
    model, params, tokenizer = load_asked(asked.checkpoint, asked.tensor)
    if asked.prompt is not None:
        prompt_ids(tokenizer, asked.prompt, model.config)  # a mistake is told before anything is compiled
    with jax.set_mesh(params["embedding"].sharding.mesh):
        weights = make_weights(model.config, params, int8=asked.quantize == "int8")
        del params  # nobody else holds them
        if rows is not None:
            continue_file(asked, rows, model, weights, tokenizer, sampling)
        elif asked.interactive:
            continue_typed(model, weights, tokenizer, sampling)
        else:
            continue_prompt(asked, model, weights, tokenizer, sampling)


def continue_prompt(asked: Generate, model: Transformer, weights: Weights, tokenizer: Tokenizer, sampling: Sampling) -> None:
    """Stream one sample; several, or JSON lines, come when they are whole."""
    if sampling.num_samples == 1 and asked.output is None and not asked.logprobs:
        print(asked.prompt, end="", flush=True)
        show(stream(model, weights, tokenizer, asked.prompt, sampling))
        return
    results = generate(model, weights, tokenizer, [asked.prompt], sampling)
    write(asked, [{"prompt": asked.prompt} | row for row in as_rows(asked, results)])


def continue_typed(model: Transformer, weights: Weights, tokenizer: Tokenizer, sampling: Sampling) -> None:
    """A line in, its continuation out, until the input ends; every line has a place of its own."""
    for place in count():
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return
        except UnicodeDecodeError:
            print("error: that line is not UTF-8.", file=sys.stderr)
            continue
        try:
            show(stream(model, weights, tokenizer, line, sampling, place=place))
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)


def continue_file(asked: Generate, rows: list[dict], model: Transformer, weights: Weights, tokenizer: Tokenizer,
          sampling: Sampling) -> None:
    """Every line of the file, in batches."""
    for number, row in enumerate(rows, 1):
        try:
            prompt_ids(tokenizer, row["prompt"], model.config)
        except ConfigError as error:
            raise ConfigError(f"{asked.prompt_file}, prompt {number}: {error}") from None
    with progress("prompts", len(rows)) as report:
        results = generate(model, weights, tokenizer, [row["prompt"] for row in rows], sampling,
                           batch_size=asked.batch_size, report=report)
    made = iter(as_rows(asked, results))
    write(asked, [row | next(made) for row in rows for _ in range(sampling.num_samples)])


def as_rows(asked: Generate, results: list[Generated]) -> list[dict]:
    """The results as JSON objects."""
    rows = []
    for number, result in enumerate(results):
        row: dict[str, Any] = {"text": result.text, "finish_reason": result.finish_reason}
        if asked.num_samples > 1:
            row["sample"] = number % asked.num_samples
        if asked.logprobs:
            row |= {"tokens": result.tokens, "token_logprobs": result.logprobs}
        rows.append(row)
    return rows


def write(asked: Generate, rows: list[dict]) -> None:
    """JSON lines to the file that is asked for, or to stdout."""
    if asked.output:
        write_jsonl(Path(asked.output), rows)
    else:
        for row in rows:
            print(json_line(row), end="")


def run_score(asked: Score) -> None:
    """Score all lines and write them."""
    rows = read_jsonl(Path(asked.input), ("context", "continuation"))
    check_writable(Path(asked.output))
    model, params, tokenizer = load_asked(asked.checkpoint, asked.tensor, data=-1)
    with jax.set_mesh(params["embedding"].sharding.mesh), progress("requests", len(rows)) as report:
        pairs = [(row["context"], row["continuation"]) for row in rows]
        results = loglikelihood(model, params, tokenizer, pairs, report=report)
    scored = [{"logprob": r.logprob, "token_logprobs": r.token_logprobs, "is_greedy": r.is_greedy}
              | ({"truncated": r.truncated} if r.truncated else {}) for r in results]
    lost = [r.truncated for r in results if r.truncated]
    if lost:
        print(f"{len(lost):,} of {len(rows):,} contexts were longer than the model's of {model.config.max_length:,} tokens and "
              f"lost {sum(lost):,} tokens at their beginning", file=sys.stderr)
    write_jsonl(Path(asked.output), (row | new for row, new in zip(rows, scored, strict=True)))


def run_serve(asked: Serve) -> None:
    """Load, compile, listen."""
    try:
        import uvicorn

        from llama_jax.serving.engine import Engine
        from llama_jax.serving.server import Limits, Server, to_stderr
    except ModuleNotFoundError as error:
        raise ConfigError(f'serving needs {error.name}; install it with pip install -e ".[serve]".') from None
    if min(asked.slots, asked.queue, asked.max_body, asked.max_samples) < 1:
        raise ConfigError("slots, queue, max_body and max_samples must be positive.")
    model, params, tokenizer = load_asked(asked.checkpoint, asked.tensor)
    mesh = params["embedding"].sharding.mesh
    with jax.set_mesh(mesh):
        weights = make_weights(model.config, params, int8=asked.quantize == "int8")
        del params  # nobody else holds them
        engine = Engine(model.config, weights, tokenizer, slots=asked.slots, queue=asked.queue, mesh=mesh)
        key = asked.api_key or os.environ.get("LLAMA_JAX_API_KEY", "")
        limits = Limits(body_bytes=asked.max_body, samples=asked.max_samples, api_key=key)
        name = asked.model_name or Path(asked.checkpoint).resolve().name
        print(f"{name}: {asked.slots} slots of {model.config.max_length} tokens, http://{asked.host}:{asked.port}/v1", flush=True)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn obeys them, then raises them again
            signal.signal(number, lambda number, frame: None)
        server = Server(engine, tokenizer, name, limits, log=None if asked.quiet else to_stderr)
        uvicorn.run(server.app(), host=asked.host, port=asked.port, log_level="warning", timeout_keep_alive=30)


def show(pieces: Iterator[str]) -> None:
    """Print a stream as it comes."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def load_asked(checkpoint: str, tensor: int, *, data: int = 1) -> tuple[Transformer, Any, Tokenizer]:
    """A loaded model on a mesh of data x tensor devices; data -1 takes all there are. Only the caller holds the parameters."""
    if not 0 < tensor <= jax.device_count():
        raise ConfigError(f"tensor must lie in [1, {jax.device_count()}], the devices there are, got {tensor}.")
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    source = open_source(checkpoint)
    with progress("tensors", sum(1 for _ in tensors(source.config))) as report:
        model, params, tokenizer = load_source(source, MeshConfig(data=data, tensor=tensor), report=report)
    if source.format != RunFolder.format:  # a choice was made that a run does not leave
        print(f"{checkpoint}: {source.format}; tokenizer: {tokenizer}", file=sys.stderr)
    return model, params, tokenizer


@contextmanager
def progress(unit: str, total: int) -> Iterator[Any]:
    """A bar on stderr where it is a terminal; the result is called with how many more are done."""
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(unit, total=total)
        yield lambda count: bar.advance(task, count)
