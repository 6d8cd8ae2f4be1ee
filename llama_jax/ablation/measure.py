"""What is measured of a finished run, all but its timing the same on every attempt: held-out losses, loss by position, the hash
of the tokens it read, stability, memory, cache and decoding speed."""

import hashlib
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llama_jax.ablation.decoding import cache_bytes_per_token, decoding_speed
from llama_jax.ablation.study_dir import RunKey, StudyFolder
from llama_jax.batch import Batch
from llama_jax.config import Config
from llama_jax.data.corpus import Corpus, open_corpus
from llama_jax.data.loader import load_heldout
from llama_jax.data.mixture import Mixture
from llama_jax.data.windows import TokenSource
from llama_jax.model.accounting import parameter_count, train_flops_per_token
from llama_jax.model.tree import parameters
from llama_jax.parallel.mesh import make_mesh
from llama_jax.parallel.rules import ways
from llama_jax.training.compiled import build
from llama_jax.training.metrics_file import METRICS_FILE, read_metrics
from llama_jax.training.step import Params, make_loss

SPIKE_FACTOR = 1.2
"""A line of metrics counts as a spike where its loss exceeds this times the median of the SPIKE_WINDOW lines before it."""
SPIKE_WINDOW = 20
"""Lines that a loss is compared with to tell a spike; the first of a run are compared with those there are."""
BUCKETS_PER_ROW = 4
"""Buckets of positions per length of training rows in the loss by position."""


def measure_run(folder: StudyFolder, key: RunKey, *, params: Params | None, peak_bytes: int, reason: str = "") -> dict[str, Any]:
    """Measure a run that has ended.

    Args:
        folder: the study.
        key: the run; its metrics.jsonl is read.
        params: the parameters after its last step; None where it diverged.
        peak_bytes: memory of its compiled train step.
        reason: why it ended before its last step.

    Returns:
        The content of measurements.json (docs/ABLATIONS.md lists the fields).
    """
    config = folder.config(key)
    corpus = open_corpus(config.data, config.model.vocab_size, workdir=folder.run_dir(key), padded=bool(config.init_from))
    mixture = corpus.mixture(seed=config.training.seed)
    rows = config.training.num_steps * config.training.batch_size
    speed = None
    measured: dict[str, Any] = {}
    if params is not None:
        measured = _heldout(folder, config, corpus=corpus, params=params)
        by_position = {str(length): _loss_by_position(folder, config, corpus=corpus, params=params, length=length)
                       for length in folder.study.lengths}
        measured["by_position"] = {length: buckets for length, (buckets, _) in by_position.items()}
        measured["by_position_missing"] = {length: why for length, (_, why) in by_position.items() if why}
        if folder.study.decode:
            with jax.set_mesh(make_mesh(config.mesh)):
                speed = decoding_speed(config, params, source=corpus.heldout[0])
        if not all(math.isfinite(nll) for nll, _ in measured["heldout"]):
            measured, reason = {}, "the held-out loss is not finite."
    lines = read_metrics(folder.run_dir(key) / METRICS_FILE)
    bytes_and_predictions = [(s.manifest.bytes, s.manifest.tokens - s.manifest.documents) for s in corpus.heldout]
    return {
        "arm": key.arm, "seed": key.seed, "status": "diverged" if reason else "done", "reason": reason,
        "steps": max((line["step"] for line in lines), default=0),
        "parameters": parameter_count(config.model),
        "flops_per_token": train_flops_per_token(config.model, config.data.sequence_length),
        **measured,
        "bytes_per_token": sum(size for size, _ in bytes_and_predictions) / sum(count for _, count in bytes_and_predictions),
        "stream_sha256": stream_digest(mixture, rows), "stream_rows": rows,
        **_from_metrics(lines, corpus),
        "peak_bytes": peak_bytes, "cache_bytes_per_token": cache_bytes_per_token(config),
        "timing": _timing(lines) | {"decode_tokens_per_second": speed},
    }


def _heldout(folder: StudyFolder, config: Config, *, corpus: Corpus, params: Params) -> dict[str, Any]:
    """nll in nats and number of tokens of every held-out batch, and a hash of what the batches hold.

    Batches have the baseline's rows, so that they are the same in every arm.
    """
    training = folder.study.arm(folder.study.baseline).config.training
    mesh = make_mesh(config.mesh)
    program, sums, digest = build(config, mesh), [], hashlib.sha256()
    for source in corpus.heldout:
        for batch in load_heldout(source, mesh, batch_size=training.batch_size, limit=training.heldout_batches):
            with jax.set_mesh(mesh):
                values = program.eval_step(params, batch)
            sums.append([float(values["nll"]), float(values["tokens"])])
            _add_arrays(digest, (batch.tokens, batch.targets, batch.weights))
    return {"heldout": sums, "heldout_sha256": digest.hexdigest()}


def _loss_by_position(folder: StudyFolder, config: Config, *, corpus: Corpus, params: Params,
                      length: int) -> tuple[list[list[float]] | None, str]:
    """([first position, nll sum, tokens] per bucket, "") of held-out rows of `length` tokens, or (None, why there is none).

    Positions are those that the model is given: they count from the beginning of a document, or of the row where documents are
    not kept apart.
    """
    trained, training = config.data.sequence_length, folder.study.arm(folder.study.baseline).config.training
    longer = replace(config.model, max_length=max(length, config.model.max_length))
    if parameters(longer) != parameters(config.model):
        return None, f"this model has parameters for {config.model.max_length} positions, and none beyond"
    longer_config = replace(config, model=longer, data=replace(config.data, sequence_length=length))
    mesh = make_mesh(config.mesh)
    at_least = ways("batch", mesh)
    batch_size = -(-max(1, training.batch_size * trained // length) // at_least) * at_least
    limit = -(-training.heldout_batches * training.batch_size * trained // (batch_size * length))
    losses = jax.jit(_token_losses(longer_config, mesh))
    width = max(1, trained // BUCKETS_PER_ROW)
    nll, tokens = np.zeros(-(-length // width)), np.zeros(-(-length // width))
    for source in corpus.heldout:
        rows = TokenSource(source.folder, length)
        for batch in load_heldout(rows, mesh, batch_size=batch_size, limit=limit):
            with jax.set_mesh(mesh):
                nll_BT, weights_BT = np.asarray(losses(params, batch)), np.asarray(batch.weights)
            positions = np.asarray(batch.positions) if config.training.separate_documents else np.arange(length)[None, :]
            buckets = np.broadcast_to(positions // width, weights_BT.shape)[weights_BT > 0]
            nll += np.bincount(buckets, nll_BT[weights_BT > 0].astype(np.float64), minlength=len(nll))
            tokens += np.bincount(buckets, minlength=len(tokens))
    if not np.isfinite(nll).all():
        return None, "the loss is not finite"
    return [[number * width, float(nll[number]), float(tokens[number])] for number in np.flatnonzero(tokens).tolist()], ""


def _token_losses(config: Config, mesh: Mesh):
    """(params, batch) -> the loss of every target, float32 (B, T): the derivative of their weighted sum in the weights.

    In that way logits exist for a part of the tokens at a time, as in training.
    """
    loss = make_loss(build(config, mesh).model, replace(config.training, z_loss=0.0))

    def losses(params: Params, batch: Batch) -> jax.Array:
        return jax.grad(lambda weights_BT: loss(params, batch._replace(weights=weights_BT))[0])(jnp.asarray(batch.weights))

    return losses


def stream_digest(mixture: Mixture, rows: int) -> str:
    """SHA-256 of the first `rows` rows of a mixture, in order: inputs, targets, where segments begin, what is predicted.

    Which rows a run reads is a pure function of its data, shares and seed, whatever sessions it had; batches of another size
    that hold the same rows have the same hash.
    """
    digest = hashlib.sha256()
    for n in range(rows):
        row = mixture.row(n)
        _add_arrays(digest, (row.tokens, row.targets, row.starts, row.predicted))
    return digest.hexdigest()


def _add_arrays(digest: Any, arrays: Iterable[Any]) -> None:
    """Add arrays to a hash, all numbers as little-endian int32."""
    for array in arrays:
        digest.update(np.asarray(array).astype("<i4").tobytes())


def _from_metrics(lines: list[dict[str, Any]], corpus: Corpus) -> dict[str, Any]:
    """Curves and stability of a run, from its metrics.jsonl."""
    training = [line for line in lines if line.get("loss") is not None]
    return {
        "largest_grad_norm": max((line["grad_norm"] for line in training), default=0.0),
        "spikes": _count_spikes([line["loss"] for line in training]),
        "curve": [[line["step"], line["loss"]] for line in training],
        "heldout_curve": list(_heldout_curve(lines, corpus)),
    }


def _count_spikes(losses: list[float]) -> int:
    """Number of losses that exceed SPIKE_FACTOR times the median of the SPIKE_WINDOW before them."""
    return sum(loss > SPIKE_FACTOR * statistics.median(losses[max(n - SPIKE_WINDOW, 0) : n])
               for n, loss in enumerate(losses) if n)


def _heldout_curve(lines: list[dict[str, Any]], corpus: Corpus) -> Iterator[list[float]]:
    """[step, held-out loss] of every evaluation; several sources by their numbers of tokens."""
    weights = {source.name: source.predictions for source in corpus.heldout}
    for line in lines:
        losses = {name.partition("/")[2]: value for name, value in line.items() if name.partition("/")[0] == "heldout_loss"}
        if "" in losses:
            losses = dict.fromkeys(weights, losses[""])
        if losses and None not in losses.values():
            yield [line["step"], sum(losses[name] * weight for name, weight in weights.items()) / sum(weights.values())]


def _timing(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Median tokens per second of the lines of metrics, and seconds of training over all sessions."""
    speeds = [line["tokens_per_second"] for line in lines if line.get("tokens_per_second")]
    return {"tokens_per_second": statistics.median(speeds) if speeds else 0.0,
            "seconds": max((line["seconds"] for line in lines if line.get("seconds")), default=0.0)}
