"""Real processes that are killed at random moments and started again; in the end they have done what an undisturbed one did."""

import os
import re
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

    PREFIX = "kill"

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
        return self._done(number, self._verdict(place, code, text), begin=begin, moments=", ".join(moments))

    def _done(self, number: int, ended: tuple[str, str], *, begin: float, moments: str) -> Outcome:
        """The outcome of a trial, whose place is kept where something is wrong."""
        if ended[0] == "equal":
            shutil.rmtree(self.folder / f"{self.kind}_{number}", ignore_errors=True)
        return Outcome(f"{self.PREFIX}_{self.kind}", number, *ended, time.monotonic() - begin, moments)

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


class Filled(Killed):
    """The trials of one command on a disk that becomes full: a sentence and no traceback, and with more space all goes on."""

    PREFIX = "full"

    @staticmethod
    def possible() -> bool:
        """Whether small file systems can be mounted here."""
        probe = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
        return os.geteuid() == 0 and probe.returncode == 0

    def trial(self, number: int, kills: int = 3) -> Outcome:
        """Run on a file system of too few bytes, enlarge it, and run again until the command is done."""
        rng, begin = Random(f"full {self.kind} {number}"), time.monotonic()
        place = self._place(str(number))
        used = sum(file.stat().st_size for file in (self.folder / f"{self.kind}_undisturbed").rglob("*") if file.is_file())
        size = int(used * rng.uniform(0.1, 1.2)) + 100_000
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
        try:
            code, text = self._run(place)
            wrong = self._fault_of_refusal(code, text)
            subprocess.run(["mount", "-o", f"remount,size={used * 10 + (64 << 20)}", str(place)], check=True)
            if code and not wrong:
                code, text = self._run(place)
            ended = wrong or self._verdict(place, code, text)
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        return self._done(number, ended, begin=begin, moments=f"{size:,} bytes")

    def _fault_of_refusal(self, code: int, text: str) -> tuple[str, str] | None:
        """What is wrong with how a command ended on a full disk; None where it was done, or said so in a sentence."""
        if "Traceback (most recent call last)" in text:
            return "traceback", text
        if code and not re.search(r"^error: .*(space|full|write)", text, re.M | re.I):
            return "failed", f"exit {code} without a sentence about the disk: {text}"
        return None
