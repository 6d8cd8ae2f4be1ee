"""From device sums to the numbers people read, and the clock that is read only when the device is done."""

import math
import time
from dataclasses import dataclass, field

import jax
import optax

from llama_jax.accounting import peak_flops, train_flops_per_token
from llama_jax.config import Config
from llama_jax.data.mixture import Mixture
from llama_jax.data.packing import TokenSource
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


@dataclass
class Meter:
    """Turns a step's metrics into its line. Every call must follow the read of that step's metrics."""

    config: Config
    mixture: Mixture
    peak: float
    """FLOP/s of all devices together."""
    _start: float = field(default_factory=time.perf_counter)

    def __post_init__(self):
        c = self.config
        self._schedule: optax.Schedule = learning_rate(c.optimizer, c.training.num_steps)
        self._step_tokens = c.training.batch_size * c.data.sequence_length
        self._flops = train_flops_per_token(c.model, c.data.sequence_length)
        self._predicted_per_byte = mixed_predicted_per_byte(self.mixture.sources, self.mixture.shares)

    def restart(self, step: int) -> None:
        """Begin to count tokens at `step`, now (after compilation, evaluation or a checkpoint)."""
        self._counted, self._clock = step, time.perf_counter()

    def line(self, step: int, metrics: dict[str, float]) -> dict:
        """The training line of metrics.jsonl for a finished step."""
        now = time.perf_counter()
        rate = (step - self._counted) * self._step_tokens / max(now - self._clock, 1e-9)
        self._counted, self._clock = step, now
        loss, c = metrics["loss"], self.config
        return {
            "tokens": step * self._step_tokens,
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "bits_per_byte": bits_per_byte(loss, self._predicted_per_byte),
            "grad_norm": metrics["grad_norm"],
            "learning_rate": float(self._schedule(step)),
            "tokens_per_second": rate,
            "mfu": rate * self._flops / self.peak,
            "seconds": now - self._start,
            "seconds_left": (c.training.num_steps - step) * self._step_tokens / max(rate, 1e-9),
            "sources": {
                name: {"tokens": seen.tokens, "epochs": round(seen.epochs, 4)}
                for name, seen in self.mixture.ledger(step * c.training.batch_size).items()
            },
        }
