"""Log of train steps, which reads metrics one step late, so that the devices never wait for Python."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from llama_jax.errors import LlamaError
from llama_jax.training.metrics import TrainingMeter
from llama_jax.training.run import TrainingRun
from llama_jax.training.step import Metrics


class DivergedError(LlamaError):
    """Raised where the loss or the gradient norm of a step is not finite."""


class StepLog:
    """Log of dispatched train steps: reads their metrics from the devices, checks them, and writes the lines that are due.

    jax dispatches a step and returns at once; reading a number of it waits until the devices have computed it. The metrics of a
    step are therefore read after the next step is dispatched, or where training pauses.
    """

    def __init__(self, run: TrainingRun, meter: TrainingMeter):
        self._run, self._meter = run, meter
        self._unread: tuple[int, Metrics] | None = None

    def add_dispatched(self, step: int, metrics: Metrics) -> None:
        """Take the metrics of the step just dispatched, and read those of the step before it."""
        self._read()
        self._unread = step, metrics

    @contextmanager
    def pause(self, step: int) -> Iterator[None]:
        """Context for other work after `step`: reads all dispatched steps first, and excludes the work from tokens per second."""
        self._read()
        yield
        self._meter.restart_clock(step)

    def _read(self) -> None:
        """Wait for the unread step, check that it is finite, and write its line where one is due."""
        if self._unread is None:
            return
        (step, metrics), self._unread = self._unread, None
        values = {name: float(value) for name, value in metrics.items()}
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            raise DivergedError(
                f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}; nothing after the last checkpoint "
                f"({self._run.checkpoints.latest()}) was kept. Lower optimizer.peak_lr or look at the data.")
        self._meter.add_step(values)
        if self._run.is_due(step, self._run.config.training.log_every):
            self._run.writers.write_metrics(step, self._meter.training_line(step, values))
