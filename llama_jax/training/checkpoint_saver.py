"""Saving the checkpoints of a run, so that training outlives storage that is full, read-only, slow or away for a while."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from llama_jax.config import Config
from llama_jax.errors import StorageError
from llama_jax.files.storage import STORAGE_ERRORS, check_room, reason_of
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.unfinished import remove_unfinished
from llama_jax.training.step import TrainState

PATIENCE = 60.0
"""Seconds that training waits for a checkpoint that is still being written when the next is due, before it does without that."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds between a failed save and the next try: the first after a success, and the most, to which they double."""
_ELSEWHERE = "another process of the run could not write"
_DONE, _FAILED, _WRITING = range(3)


class CheckpointSaver:
    """Saves checkpoints in the background; where that fails, training goes on and a later step is saved instead.

    A save is refused before it begins where the disk lacks the room for it. Existing checkpoints are removed only after a newer
    one is finished. All processes of a run must call the methods at the same steps.

    Args:
        checkpoints: those of the run.
        config: the run's, which is saved with every checkpoint.
        report: takes sentences for the log.
    """

    def __init__(self, checkpoints: Checkpoints, config: Config, *, report: Callable[[str], None]):
        self._checkpoints, self._config, self._report = checkpoints, config, report
        self._saved = checkpoints.latest() or 0
        self._writing = 0  # the step that is being written; 0 where none is
        self._pause = 0.0  # seconds from the last failure to the next try; 0 where nothing has failed since a success
        self._next_try, self._give_up = 0.0, math.inf
        self._reason = ""

    def is_due(self, *, ask_others: bool) -> bool:
        """Whether a save that failed should be tried again now; the log is told how the save under way went.

        Args:
            ask_others: whether the processes of a run ask each other, which waits for all of them; where False, the answer in a
                run of several processes is no. Must be the same in all processes.
        """
        if jax.process_count() > 1 and not ask_others:
            return False
        self._look(wait=0.0)
        return self._pause > 0 and _agreed(time.monotonic() >= self._next_try) > 0

    def save(self, step: int, state: TrainState, *, progress: dict[str, Any]) -> None:
        """Begin to save a step in the background, where the storage allows; the arrays are copied before this returns."""
        if not self._look(wait=PATIENCE):
            self._report(f"step {step}: not saved, because the checkpoint of step {self._writing} is still being written; "
                         f"{self._risk(step)}")
            return
        if step != self._saved:
            self._begin(step, state, progress=progress)

    def save_for_good(self, step: int, state: TrainState, *, progress: dict[str, Any]) -> None:
        """Save a step and wait until that is done, trying again for `checkpoint.retry_seconds`; then raises StorageError."""
        self._look(wait=math.inf)
        self._give_up, self._pause = time.monotonic() + self._config.checkpoint.retry_seconds, 0.0
        while step != self._saved:
            time.sleep(self._pause)
            self._begin(step, state, progress=progress)
            self._look(wait=math.inf)
            if step != self._saved and _agreed(time.monotonic() >= self._give_up):
                raise StorageError(f"the checkpoint of step {step} could not be saved ({self._reason}); {self._risk(step)}. Make "
                                   "room, or repair the storage; the same command goes on from the newest checkpoint.",
                                   self._reason)
        self._give_up = math.inf

    def _begin(self, step: int, state: TrainState, *, progress: dict[str, Any]) -> None:
        """Begin to save a step, unless the storage refuses that at once."""
        refusal = ""
        if jax.process_index() == 0:
            try:
                remove_unfinished(self._checkpoints.folder)
                check_room(self._checkpoints.folder, sum(x.nbytes for x in jax.tree.leaves(state)))
            except (StorageError, OSError) as error:
                refusal = reason_of(error)
        if _agreed(bool(refusal)):
            self._fail(step, refusal or _ELSEWHERE)
            return
        try:
            self._checkpoints.save(step, state, config=self._config, progress=progress)
        except jax.errors.JaxRuntimeError:
            raise
        except STORAGE_ERRORS as error:
            if jax.process_count() > 1:  # the others are waiting inside the save
                raise StorageError(f"the checkpoint of step {step} could not be saved ({reason_of(error)}).",
                                   reason_of(error)) from None
            self._fail(step, reason_of(error))
        else:
            self._writing = step

    def _look(self, *, wait: float) -> bool:
        """Whether no save is under way any more, after waiting up to `wait` seconds; tells the log how it went."""
        if not self._writing:
            return True
        end = time.monotonic() + wait
        while self._checkpoints.is_saving() and time.monotonic() < end:
            time.sleep(0.01)
        error, status = None, _WRITING
        if not self._checkpoints.is_saving():
            error = self._checkpoints.finish_saving()
            status = _FAILED if error and self._checkpoints.latest() != self._writing else _DONE
        status = _agreed(status)
        if status == _WRITING:
            return False
        step, self._writing = self._writing, 0
        if status == _FAILED:
            self._fail(step, reason_of(error) if error else _ELSEWHERE)
        else:
            if error:
                self._report(f"step {step} is saved, but an older checkpoint could not be removed ({reason_of(error)})")
            elif self._pause:
                self._report(f"step {step} is saved; nothing is at risk any more")
            self._saved, self._pause = step, 0.0
        return True

    def _fail(self, step: int, reason: str) -> None:
        """Say that the save of a step failed, and when it is tried again."""
        now, self._reason = time.monotonic(), reason
        pause = min(2 * self._pause, LONGEST_PAUSE) or FIRST_PAUSE
        self._pause = max(min(pause, self._give_up - now), 0.1)
        self._next_try = now + self._pause
        then = f"trying again in {self._pause:.0f} s" if now < self._give_up else "giving up"
        self._report(f"step {step}: its checkpoint could not be saved ({reason}); {self._risk(step)}; {then}")

    def _risk(self, step: int) -> str:
        if not self._saved:
            return f"there is no checkpoint yet, and all {step} steps would be lost"
        return f"the newest checkpoint is step {self._saved}, and {step - self._saved} steps would be lost"


def _agreed(value: int) -> int:
    """The largest value of all processes of a run."""
    if jax.process_count() == 1:
        return int(value)
    return int(multihost_utils.process_allgather(np.array([value])).max())
