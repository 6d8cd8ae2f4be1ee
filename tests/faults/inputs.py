"""Thousands of bad inputs, each used in a child process that is watched: a clear error or a result, and nothing else.

A case is a kind of input and a number; the number seeds the damage, so that a case can be repeated.
"""

import json
import os
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.faults.mutations import DAMAGE_BY_SUFFIX, damage_answers, damage_bytes

ROOT = Path(__file__).parents[2]
CASE_SECONDS = 60
"""A case that takes longer hangs. Most take milliseconds; a busy machine may be twenty times slower."""
MEMORY_BYTES = 2 << 30
"""Most memory that a case may add."""
MAX_MESSAGE = 2010
"""Longest error message that is still for people."""
FINE = ("accepted", "refused", "equal")
"""Outcomes that are right: a result, an error of ours, or what an undisturbed process leaves."""


class Outcome(NamedTuple):
    """What became of a case."""

    kind: str
    number: int
    ended: str
    """accepted, refused, traceback, unclear (a message), silent (other content was read), memory, crash or hang; of processes
    that were killed equal, different or failed."""
    text: str
    """The error message, or the end of the traceback."""
    seconds: float
    file: str = ""


def damage_file(kind: str, file: Path, rng: Random) -> bytes:
    """The damaged content of a file."""
    from tests.faults.targets import damage_command_line

    by_name = {".args": damage_command_line, "answers.jsonl": damage_answers}
    damage = by_name.get(file.suffix) or by_name.get(file.name) or DAMAGE_BY_SUFFIX.get(file.suffix, damage_bytes)
    try:
        return damage(file.read_bytes(), rng)
    except ValueError:  # no JSON lies in a file that is called so
        return damage_bytes(file.read_bytes(), rng)


def use_damaged(kind: str, number: int, folder: Path, *, wanted: Any) -> Outcome:
    """Damage one file of a good folder, use the folder, and mend the file again.

    Args:
        wanted: What using the good folder returns.
    """
    from tests.faults.targets import TARGETS

    target, rng = TARGETS[kind], Random(f"{kind} {number}")
    files = sorted(file for file in folder.glob(rng.choice(target.damaged)) if file.is_file())
    file = rng.choice(files)
    good = file.read_bytes()
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    file.write_bytes(damage_file(kind, file, rng))
    try:
        ended, text, result = _outcome_of(lambda: target.use(folder))
        if ended == "accepted" and target.summed and result != wanted:
            ended, text = "silent", "other content was read, and nothing was said"
    finally:
        file.write_bytes(good)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if grown > MEMORY_BYTES:
        ended, text = "memory", f"{grown / 2**30:.1f} GiB; {text}"
    return Outcome(kind, number, ended, text, time.perf_counter() - begin, str(file.relative_to(folder)))


def _outcome_of(use: Callable[[], Any]) -> tuple[str, str, Any]:
    """(how it ended, the error, what it returned)."""
    from llama_jax.errors import LlamaError
    from llama_jax.serving.protocol import RequestError

    try:
        return "accepted", "", use()
    except (LlamaError, RequestError) as error:
        text = str(error)
        return ("refused" if 10 <= len(text) <= MAX_MESSAGE else "unclear"), text, None
    except SystemExit as error:
        return ("refused" if error.code in (0, 2) else "traceback"), f"exit {error.code}", None
    except BaseException:
        return "traceback", traceback.format_exc()[-3000:], None


def serve_cases(seeds: Path) -> None:
    """The child: reads "KIND NUMBER" lines from stdin, and answers each with an Outcome as a line of JSON."""
    from tests.faults.targets import TARGETS

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    folders: dict[str, Path] = {}
    wanted: dict[str, Any] = {}
    for line in sys.stdin:
        kind, number = line.split()
        if kind not in folders:
            folders[kind] = Path(tempfile.mkdtemp(prefix=f"{kind}_", dir=seeds))
            if not (seeds / f"{kind}.done").exists():
                (seeds / kind).mkdir(exist_ok=True)
                TARGETS[kind].make(seeds / kind)
                (seeds / f"{kind}.done").touch()
            shutil.copytree(seeds / kind, folders[kind], dirs_exist_ok=True)
            wanted[kind] = TARGETS[kind].use(folders[kind])  # the good folder is accepted, and what is imported late is here
            _limit_memory()
        print(json.dumps(use_damaged(kind, int(number), folders[kind], wanted=wanted[kind])), file=answers, flush=True)


def _limit_memory() -> None:
    """Limit the address space to what is in use now and twice MEMORY_BYTES: allocators reserve more than they fill."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MEMORY_BYTES, resource.RLIM_INFINITY))


class Watched:
    """A child that serves cases, started again when it dies or hangs."""

    def __init__(self, seeds: Path):
        self._seeds, self._child = seeds, None

    def run(self, kind: str, number: int) -> Outcome:
        """The outcome of a case."""
        begin = time.perf_counter()
        if self._child is None:
            self._start()
        self._child.stdin.write(f"{kind} {number}\n".encode())
        self._child.stdin.flush()
        # the first case of a kind makes the good folder too
        ready = self._selector.select(CASE_SECONDS * 5 if kind not in self._seen else CASE_SECONDS)
        self._seen.add(kind)
        line = self._child.stdout.readline() if ready else b""
        if line:
            return Outcome(*json.loads(line))
        ended = "crash" if ready else "hang"
        log = self.stop()
        return Outcome(kind, number, ended, log, time.perf_counter() - begin)

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONFAULTHANDLER": "1", "MPLBACKEND": "Agg"}
        self._child = subprocess.Popen([sys.executable, "-m", "tests.faults", "serve-cases", str(self._seeds)], cwd=ROOT,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._child.stdout, selectors.EVENT_READ)
        self._seen: set[str] = set()

    def stop(self) -> str:
        """End the child; returns the end of what it printed."""
        if self._child is None:
            return ""
        self._child.stdin.close()
        try:
            code = self._child.wait(1)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        self._child.stdout.close()
        self._selector.close()
        self._child = None
        self._log.seek(0)
        with self._log as log:
            return f"exit {code}: " + log.read()[-3000:].decode(errors="replace")


def run_cases(cases: Iterable[tuple[str, int]], report: Callable[[Outcome], None] = lambda outcome: None, *,
              seconds: float = float("inf")) -> list[Outcome]:
    """Outcomes of cases, one after the other in one child; those that are left when the time is up are not run."""
    outcomes, deadline = [], time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="llama_jax_inputs_") as folder:
        child = Watched(Path(folder))
        try:
            for kind, number in cases:
                if time.monotonic() > deadline:
                    break
                outcomes.append(child.run(kind, number))
                report(outcomes[-1])
        finally:
            child.stop()
    return outcomes
