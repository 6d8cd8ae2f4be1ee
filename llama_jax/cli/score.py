"""`llama_jax score` at work: log-probabilities of a file of continuations."""

import sys
from pathlib import Path

import jax

from llama_jax.cli.load_model import load_model
from llama_jax.cli.options import ScoreOptions
from llama_jax.files.atomic import check_writable
from llama_jax.files.jsonl import read_jsonl, write_jsonl
from llama_jax.scoring.likelihood import loglikelihood
from llama_jax.terminal import progress_bar


def run_score(asked: ScoreOptions) -> None:
    """Score all lines of the input, and write them to the output."""
    rows = read_jsonl(Path(asked.input), ("context", "continuation"))
    check_writable(Path(asked.output))
    model, params, tokenizer = load_model(asked.checkpoint, asked.tensor, data=-1, dtype=asked.dtype, verify=asked.verify)
    pairs = [(row["context"], row["continuation"]) for row in rows]
    shown = progress_bar("requests", lambda done, seconds: f"{done:,.0f} of {len(rows):,}", total=len(rows))
    with jax.set_mesh(params.mesh), shown as advance:
        results = loglikelihood(model, params, tokenizer, pairs, report=advance)
    scored = []
    for result in results:
        new = {"logprob": result.logprob, "token_logprobs": result.token_logprobs, "is_greedy": result.is_greedy}
        if result.truncated:
            new["truncated"] = result.truncated
        scored.append(new)
    lost = [result.truncated for result in results if result.truncated]
    if lost:
        print(f"{len(lost):,} of {len(rows):,} contexts were longer than the model's of {model.config.max_length:,} tokens and "
              f"lost {sum(lost):,} tokens at their beginning", file=sys.stderr)
    write_jsonl(Path(asked.output), (row | new for row, new in zip(rows, scored, strict=True)))
