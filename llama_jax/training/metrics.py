"""Training metrics: means of the loss over the steps since the last line, tokens per second, model FLOPs utilisation (MFU)."""

import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import optax

from llama_jax.config import Config
from llama_jax.data.ledger import source_totals
from llama_jax.data.mixture import Mixture
from llama_jax.data.windows import TokenSource
from llama_jax.model.accounting import train_flops_per_token
from llama_jax.parallel.hardware import peak_flops
from llama_jax.training.optimizer import learning_rate


def bits_per_byte(nats_per_token: float, predicted_per_byte: float) -> float:
    """Convert a loss in nats per predicted token to bits per byte of the original text.

    `predicted_per_byte` is the number of predicted tokens per byte.
    """
    return nats_per_token / math.log(2) * predicted_per_byte


def perplexity(nats_per_token: float) -> float:
    """Perplexity: exp of a loss in nats per token, infinite where that overflows float64."""
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


def _bytes_per_predicted(sources: list[TokenSource], shares: Sequence[float]) -> float:
    """Bytes per predicted token of a mixture by token share."""
    return sum(share / source.predicted_per_byte for source, share in zip(sources, shares, strict=True)) / sum(shares)


def total_peak_flops(config: Config) -> tuple[float, str]:
    """Peak FLOP/s of all devices of the run together, and the source of that figure."""
    peak, source = peak_flops(jax.devices()[0], config.compute.dtype)
    if jax.default_backend() == "cpu":  # several CPU devices of a process are the same cores
        return peak * jax.process_count(), source
    return peak * jax.device_count(), source


class TrainingMeter:
    """Turns the metrics of train steps into the training lines of metrics.jsonl.

    It is told of a step only once the devices have finished it, so that its clock measures the devices and not how fast steps
    are dispatched.

    Args:
        config: the run's.
        mixture: the rows that are read from `resume_step` on.
        peak_flops: FLOP/s of all devices together.
        last_step: number of the run's last step.
        resume_step: steps that earlier sessions of the run have done.
        progress: what `progress` gave when the checkpoint of `resume_step` was saved.
    """

    def __init__(self, config: Config, mixture: Mixture, *, peak_flops: float, last_step: int, resume_step: int = 0,
                 progress: dict[str, Any] | None = None):
        progress, self._last_step = progress or {}, last_step
        self._config, self._mixture, self._peak_flops, self._resume_step = config, mixture, peak_flops, resume_step
        self._learning_rate: optax.Schedule = learning_rate(config.optimizer, config.training.num_steps)
        self._tokens_per_step = config.training.batch_size * config.data.sequence_length
        self._flops_per_token = train_flops_per_token(config.model, config.data.sequence_length)
        self._nats = progress.get("nats", 0.0)  # summed over the predicted tokens since the last line
        self._predicted_tokens = progress.get("predicted_tokens", 0.0)
        self._bytes = progress.get("bytes", self._predicted_tokens * _bytes_per_predicted(mixture.sources, mixture.shares(0)))
        self._rows = 0  # of this session
        self._earlier_seconds = progress.get("seconds", 0.0)
        self._session_start = time.perf_counter()

    def progress(self) -> dict[str, float]:
        """The meter's state for a checkpoint, with which a resumed run writes the same lines as an uninterrupted one."""
        return {"nats": self._nats, "predicted_tokens": self._predicted_tokens, "bytes": self._bytes, "seconds": self.seconds()}

    def seconds(self) -> float:
        """Wall-clock seconds in the training loop over all sessions of the run.

        What a killed session did after its last checkpoint is done again, and counts once.
        """
        return self._earlier_seconds + time.perf_counter() - self._session_start

    def start_clock(self, step: int) -> None:
        """Start the clock after `step`, once the first batch has been loaded and the train step compiled."""
        self._clock_start_step, self._clock_start = step, time.perf_counter()
        self.restart_clock(step)

    def restart_clock(self, step: int) -> None:
        """Restart the measurement of tokens per second after `step`, when a pause has ended."""
        self._measured_step, self._measured_since = step, time.perf_counter()

    def add_step(self, metrics: dict[str, float]) -> None:
        """Add a finished step to the sums of the next line: its loss (nats per predicted token) and its predicted tokens.

        How many bytes these stand for follows from the sources of the step's rows.
        """
        before, self._rows = self._rows, self._rows + self._config.training.batch_size
        counts = zip(self._mixture.counts(before), self._mixture.counts(self._rows), strict=True)
        rows = [after - count for count, after in counts]
        self._nats += metrics["loss"] * metrics["tokens"]
        self._predicted_tokens += metrics["tokens"]
        self._bytes += metrics["tokens"] * _bytes_per_predicted(self._mixture.sources, rows)

    def training_line(self, step: int, metrics: dict[str, float]) -> dict[str, Any]:
        """Make the training line of metrics.jsonl for the step that was added last, and reset the sums.

        Returns:
            loss (nats per token), perplexity and bits_per_byte over all predicted tokens since the last line; grad_norm and
            learning_rate of the step itself; tokens_per_second and mfu over the steps since the last line or pause
            (evaluation, checkpoint, profile); seconds over all sessions; seconds_left at this session's pace, pauses included;
            tokens that the run has read, and the ledger of its sources.
        """
        now = time.perf_counter()
        tokens_per_second = (step - self._measured_step) * self._tokens_per_step / max(now - self._measured_since, 1e-9)
        seconds_per_step = (now - self._clock_start) / (step - self._clock_start_step)
        loss = self._nats / self._predicted_tokens
        bits = bits_per_byte(loss, self._predicted_tokens / self._bytes)
        self._nats = self._predicted_tokens = self._bytes = 0.0
        self._measured_step, self._measured_since = step, now
        training = self._config.training
        position = self._mixture.position((step - self._resume_step) * training.batch_size)
        return {
            "tokens": position.tokens,
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_byte": bits,
            "grad_norm": metrics["grad_norm"],
            "learning_rate": float(self._learning_rate(step)),
            "tokens_per_second": tokens_per_second,
            "mfu": tokens_per_second * self._flops_per_token / self._peak_flops,
            "seconds": self.seconds(),
            "seconds_left": (self._last_step - step) * seconds_per_step,
            "sources": {name: read.as_metrics() for name, read in source_totals(position).items()},
        }
