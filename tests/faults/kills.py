"""Real processes that are killed at random moments and started again; in the end they have done what an undisturbed one did."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.faults.inputs import ROOT, Outcome
from tests.faults.scenes import SCENES

MAX_SECONDS = 600
"""A process that runs for longer hangs."""


class Killed:
    """The trials of one command: an undisturbed run once, then runs that are killed."""

    def __init__(self, kind: str, folder: Path):
        self.kind, self.scene, self.folder = kind, SCENES[kind], folder
        self.inputs = folder / f"{kind}_inputs"
        self.inputs.mkdir(parents=True)
        self.scene.prepare(self.inputs)
        place = self._place("undisturbed")
        begin = time.monotonic()
        code, text = self._run(place)
        self.seconds = time.monotonic() - begin
        assert code == 0, f"the undisturbed {kind} fails: {text}"
        self.wanted = self.scene.result(place)

    def _place(self, name: str) -> Path:
        place = self.folder / f"{self.kind}_{name}"
        place.mkdir()
        return place

    def _run(self, place: Path, until: Callable[[float], bool] = lambda seconds: False, *, end: int = signal.SIGKILL
             ) -> tuple[int, str]:
        """(exit code, the end of what it printed) of the command, which gets the signal `end` as soon as `until` holds."""
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        with (place / "log.txt").open("ab") as log:
            at = log.tell()
            process = subprocess.Popen(self.scene.command(self.inputs, place), cwd=ROOT, env=environment, stdout=log, stderr=log,
                                       start_new_session=True)
            begin, sent = time.monotonic(), False
            while process.poll() is None:
                seconds = time.monotonic() - begin
                if seconds > MAX_SECONDS or (not sent and until(seconds)):
                    os.killpg(process.pid, signal.SIGKILL if seconds > MAX_SECONDS else end)
                    sent = True
                time.sleep(0.002)
        with (place / "log.txt").open("rb") as log:
            log.seek(at)
            return process.returncode, log.read()[-3000:].decode(errors="replace")

    def trial(self, number: int, kills: int = 3) -> Outcome:
        """Kill the command `kills` times, some of them while it writes, then let it finish, and compare."""
        rng, begin = Random(f"{self.kind} {number}"), time.monotonic()
        place = self._place(str(number))
        moments = []
        for _ in range(kills):
            until, moment = self._moment(rng, place)
            moments.append(moment)
            code, text = self._run(place, until)
            if code != -signal.SIGKILL:
                break
        else:
            code, text = self._run(place)
        ended = self._verdict(place, code, text)
        seconds = time.monotonic() - begin
        if ended[0] == "equal":
            shutil.rmtree(place)
        return Outcome(f"kill_{self.kind}", number, *ended, seconds, ", ".join(moments))

    def _moment(self, rng: Random, place: Path) -> tuple[Callable[[float], bool], str]:
        """When to kill: after a time, or a few milliseconds after something began to be written for the n-th time."""
        if rng.randrange(2):
            at = rng.random() * self.seconds * 1.1
            return (lambda seconds: seconds >= at), f"after {at:.2f} s"
        nth, wait = rng.choice([1, 1, 2, 5, 10]), rng.random() * 0.05
        seen: set[Path] = set()
        due: list[float] = []

        def writes(seconds: float) -> bool:
            seen.update(place.glob(self.scene.writes))
            if len(seen) >= nth and not due:
                due.append(seconds + wait)
            return bool(due) and seconds >= due[0]

        return writes, f"{wait * 1000:.0f} ms into write {nth}"

    def _verdict(self, place: Path, code: int, text: str) -> tuple[str, str]:
        if code or "Traceback (most recent call last)" in text:
            return ("traceback" if "Traceback" in text else "failed"), f"exit {code}: {text}"
        try:
            found = self.scene.result(place)
        except (OSError, ValueError) as error:
            return "different", f"nothing to compare: {error!r}"
        names = [name for name in self.wanted.keys() | found.keys() if self.wanted.get(name) != found.get(name)]
        return ("different", f"other than undisturbed: {', '.join(sorted(names))}") if names else ("equal", "")
