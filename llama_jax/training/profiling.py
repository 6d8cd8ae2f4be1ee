"""Profiling of a few train steps with jax's profiler, for TensorBoard or xprof."""

from pathlib import Path

import jax


class StepProfiler:
    """Profiler of the steps that a config's `profile` names ("10:3": steps 10 to 12; empty: none), which writes DIR/profile.

    The training loop waits for the devices before it starts and before it stops a trace, so that a trace holds whole steps and
    no other step's time includes the overhead.
    """

    def __init__(self, profile: str, workdir: Path):
        self.folder = workdir / "profile"
        self._steps = range(0)
        if profile:
            first, _, count = profile.partition(":")
            self._steps = range(int(first), int(first) + int(count))
        self._tracing_since = 0  # first step of the trace under way; 0 where none is

    def warning(self, last_step: int) -> str:
        """A warning if the run ends at `last_step`, before the first step to trace; else empty."""
        if self._steps and self._steps.start > last_step:
            return f"profile: the run ends at step {last_step}, before step {self._steps.start}"
        return ""

    def starts_before(self, step: int) -> bool:
        """Whether a trace should start before this step."""
        return step in self._steps and not self._tracing_since

    def stops_after(self, step: int, last_step: int) -> bool:
        """Whether the trace under way should stop after this step."""
        return self._tracing_since > 0 and (step == last_step or step + 1 not in self._steps)

    def start(self, step: int) -> None:
        """Start a trace whose first step is `step`."""
        jax.profiler.start_trace(str(self.folder))
        self._tracing_since = step

    def stop(self, step: int) -> str:
        """Stop the trace, whose last step is `step`; returns a line for the user."""
        first = self._tracing_since
        self.close()
        return f"profile of steps {first} to {step}: tensorboard --logdir {self.folder}"

    def close(self) -> None:
        """Stop the trace under way, if there is one."""
        if self._tracing_since:
            jax.profiler.stop_trace()
            self._tracing_since = 0
