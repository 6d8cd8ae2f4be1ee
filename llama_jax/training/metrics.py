"""From device sums to the numbers people read, and the clock that is read only when the device is done."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import jax
import optax

from llama_jax.config import Config
from llama_jax.data.mixture import Mixture
from llama_jax.data.windows import TokenSource
from llama_jax.model.accounting import train_flops_per_token
from llama_jax.parallel.hardware import peak_flops
from llama_jax.training.optimizer import learning_rate


def bits_per_byte(nats_per_token: float, predicted_per_byte: float) -> float:
    """Bits a byte of original text, from nats a predicted token and predicted tokens a byte."""
    return nats_per_token / math.log(2) * predicted_per_byte


def mixed_predicted_per_byte(sources: list[TokenSource], shares: list[float]) -> float:
    """Predicted tokens a byte of a mixture by token share: the harmonic mean of its sources'."""
    return sum(shares) / sum(share / source.predicted_per_byte for source, share in zip(sources, shares, strict=True))


def total_peak(config: Config) -> tuple[float, str]:
    """(FLOP/s of all devices together, where the figure is from)."""
    peak, source = peak_flops(jax.devices()[0], config.model.dtype)
    shared = jax.default_backend() == "cpu"  # several CPU devices are the same cores
    return peak * (jax.process_count() if shared else jax.device_count()), source


def perplexity(nats_per_token: float) -> float:
    """exp of a loss; inf where that is beyond a double."""
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


@dataclass
class Meter:
    """Turns steps' metrics into the lines of metrics.jsonl. A step is heard of once the device has done it."""

    config: Config
    mixture: Mixture
    peak: float
    """FLOP/s of all devices together."""
    before: dict[str, Any] = field(default_factory=dict)
    """`state()` as the checkpoint holds it that the run goes on from."""
    resumed: int = 0
    """Step at which the mixture begins."""
    _start: float = field(default_factory=time.perf_counter)

    def __post_init__(self):
        c = self.config
        self._schedule: optax.Schedule = learning_rate(c.optimizer, c.training.num_steps)
        self._step_tokens = c.training.batch_size * c.data.sequence_length
        self._flops = train_flops_per_token(c.model, c.data.sequence_length)
        self._predicted_per_byte = mixed_predicted_per_byte(self.mixture.sources, self.mixture.shares)
        self._nats, self._predicted = self.before.get("nats", 0.0), self.before.get("predicted_tokens", 0.0)

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps, so that a resumed run writes the lines of an uninterrupted one: the loss since the last line
        and the seconds so far."""
        return {"nats": self._nats, "predicted_tokens": self._predicted, "seconds": self.seconds()}

    def seconds(self) -> float:
        """Wall-clock seconds in the training loop over all of the run's sessions; what a killed session did after its last
        checkpoint is done again and counts once."""
        return self.before.get("seconds", 0.0) + time.perf_counter() - self._start

    def begin(self, step: int) -> None:
        """Training begins after `step`, now: the train step is compiled."""
        self._first, self._began = step, time.perf_counter()
        self.restart(step)

    def restart(self, step: int) -> None:
        """Count tokens per second from `step`, which is done and heard of, and from now: a pause has ended."""
        self._counted, self._clock = step, time.perf_counter()

    def add(self, metrics: dict[str, float]) -> None:
        """Hear of a finished step: {loss, tokens, ...} of the train step."""
        self._nats += metrics["loss"] * metrics["tokens"]
        self._predicted += metrics["tokens"]

    def line(self, step: int, metrics: dict[str, float]) -> dict:
        """The training line of metrics.jsonl for a finished step, the last that `add` heard of.

        loss (nats per token), perplexity and bits_per_byte are of all predicted tokens since the last line; grad_norm and
        learning_rate are the step's own; tokens_per_second and mfu are of the steps since the last line or pause (evaluation,
        checkpoint, profile); seconds_left goes by this session's pace, pauses included.
        """
        now = time.perf_counter()
        rate = (step - self._counted) * self._step_tokens / max(now - self._clock, 1e-9)
        pace = (now - self._began) / (step - self._first)
        loss, c = self._nats / self._predicted, self.config
        self._nats = self._predicted = 0.0
        self._counted, self._clock = step, now
        position = self.mixture.position((step - self.resumed) * c.training.batch_size)
        return {
            "tokens": position.tokens,
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_byte": bits_per_byte(loss, self._predicted_per_byte),
            "grad_norm": metrics["grad_norm"],
            "learning_rate": float(self._schedule(step)),
            "tokens_per_second": rate,
            "mfu": rate * self._flops / self.peak,
            "seconds": self.seconds(),
            "seconds_left": (c.training.num_steps - step) * pace,
            "sources": {
                read.name: {"tokens": read.tokens, "epochs": round(read.epochs, 4)} for read in position.sources
            },
        }
