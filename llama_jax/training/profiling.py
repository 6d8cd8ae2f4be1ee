"""A trace of a few steps for TensorBoard's profiler and xprof."""

from pathlib import Path

import jax


class Profiler:
    """Writes DIR/profile of the steps that `profile` of the config names; does nothing where it names none.

    The training loop lets the devices come to rest before it starts and stops a trace, so that a trace holds whole steps and
    its overhead is in no other step's time.
    """

    def __init__(self, profile: str, workdir: Path):
        self.folder = workdir / "profile"
        first, _, count = profile.partition(":")
        self._steps = range(int(first), int(first) + int(count)) if profile else range(0)
        self._first = 0  # of the trace that is under way

    def missed(self, last: int) -> str:
        """What to tell the user where no step of a run of `last` steps would be traced; empty where one will."""
        wanted = self._steps
        return f"profile: the run ends at step {last}, before step {wanted.start}" if wanted and wanted.start > last else ""

    def starts(self, step: int) -> bool:
        """Whether a trace should start before this step."""
        return step in self._steps and not self._first

    def stops(self, step: int, last: int) -> bool:
        """Whether the trace that is under way should stop after this step, of a run of `last`."""
        return bool(self._first) and (step == last or step + 1 not in self._steps)

    def start(self, step: int) -> None:
        """Begin a trace whose first step is `step`."""
        jax.profiler.start_trace(str(self.folder))
        self._first = step

    def stop(self, step: int) -> str:
        """End the trace, whose last step is `step`; what to tell the user."""
        first = self._first
        self.close()
        return f"profile of steps {first} to {step}: tensorboard --logdir {self.folder}"

    def close(self) -> None:
        """End a trace that is under way."""
        if self._first:
            jax.profiler.stop_trace()
            self._first = 0
