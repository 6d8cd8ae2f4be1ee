"""Running a study: starts a worker for every run that nobody has claimed, until all runs are measured."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from llama_jax.ablation.check import check_arms
from llama_jax.ablation.claims import ClaimWatch, Standing, hold_claim
from llama_jax.ablation.progress import StudyProgress
from llama_jax.ablation.slots import least_used_core, number_of_jobs, usable_cores, worker_environment
from llama_jax.ablation.study_dir import RunKey, StudyFolder, open_study, write_study
from llama_jax.ablation.worker import STOPPED, TAKEN
from llama_jax.config import Study
from llama_jax.files.atomic import make_folder
from llama_jax.files.lock import this_machine
from llama_jax.interruption import noted_stops

SECONDS_BETWEEN_LOOKS = 0.5
"""Seconds between two looks at the workers, the claims and the measurements."""
_MOST_STARTS = 4
"""Times that a run is started in one session where its process is killed; one that ends with an error is not started again."""


class Outcome(NamedTuple):
    """How one session of a study ended."""

    folder: StudyFolder
    failed: dict[RunKey, str]
    """Runs that ended with an error, and their last words."""
    stopped: str
    """The signal that asked the session to stop; empty where none did."""


class _Worker(NamedTuple):
    process: subprocess.Popen
    slot: int
    cores: list[int]


@dataclass
class _Session:
    """The state of one session, besides the folder's."""

    folder: StudyFolder
    jobs: int
    progress: StudyProgress
    running: dict[RunKey, _Worker] = field(default_factory=dict)
    finished: set[RunKey] = field(default_factory=set)
    failed: dict[RunKey, str] = field(default_factory=dict)
    starts: dict[RunKey, int] = field(default_factory=dict)

    def look(self) -> None:
        """Note which runs are finished and which workers have ended."""
        for key, worker in [*self.running.items()]:
            if worker.process.poll() is not None:
                del self.running[key]
                self._note_end(key, worker.process.returncode)
        for key in self.folder.runs():
            if key not in self.finished and self.folder.is_finished(key):
                self.finished.add(key)
                self.progress.run_finished(key)

    def _note_end(self, key: RunKey, code: int) -> None:
        """Note how a worker ended."""
        if code in (0, TAKEN, STOPPED):
            return
        killed = code < 0
        said = f"killed by {signal.Signals(-code).name}" if killed else _last_words(self.folder.log(key))
        if killed and self.starts[key] < _MOST_STARTS:
            self.progress.say(f"{key}: {said}; it goes on from its last checkpoint")
            return
        self.failed[key] = said
        self.progress.say(f"{key} failed: {said} ({self.folder.log(key)})")

    def start_workers(self, standings: dict[str, Standing]) -> None:
        """Start a worker in every free slot, as long as there is a run that can start."""
        for key in self.folder.runs():
            if len(self.running) >= self.jobs:
                return
            standing = standings.get(key.claim, Standing(-1, True, {}))
            if key in self.finished or key in self.failed or key in self.running or not standing.free or not self._has_start(key):
                continue
            used = [worker.cores for worker in self.running.values()]
            used += [other.holder.get("cores", []) for other in standings.values()
                     if not other.free and other.holder.get("machine") == this_machine()]
            cores = least_used_core(usable_cores(), [core for some in used for core in some])
            slot = min({*range(self.jobs)} - {worker.slot for worker in self.running.values()})
            self.starts[key] = self.starts.get(key, 0) + 1
            process = _start_worker(self.folder, key, generation=standing.generation + 1, cores=cores,
                                    environment=worker_environment(slot, self.jobs))
            self.running[key] = _Worker(process, slot, cores)

    def _has_start(self, key: RunKey) -> bool:
        """Whether the run that this one starts from, if any, is finished."""
        start = self.folder.study.arm(key.arm).starts_from
        return not start or RunKey(start, key.seed) in self.finished

    def is_over(self) -> bool:
        """Whether nothing runs, here or elsewhere, and nothing can start."""
        open_runs = [key for key in self.folder.runs() if key not in self.finished and key not in self.failed]
        if self.running:
            return False
        waiting = [key for key in open_runs if not self._has_start(key)]
        blocked = [key for key in waiting if any(RunKey(start.name, key.seed) in self.failed
                                                 for start in self.folder.study.starts(self.folder.study.arm(key.arm)))]
        for key in blocked:
            self.failed[key] = f"{self.folder.study.arm(key.arm).starts_from} of the same seed, from which it starts, failed"
        return len(open_runs) == len(blocked)


def run_study(study: Study, path: Path, *, seeds: int | None, jobs: int, vary_data: bool) -> Outcome:
    """Run what is left of a study in the folder `path`, and wait for what others run there.

    Args:
        study: arms and measurements.
        path: the study folder; created if it does not exist.
        seeds: runs per arm; None: 3, or as many as before.
        jobs: workers at one time on this host; 0: as the machine allows.
        vary_data: whether seeds change the order of the data too.

    Raises:
        ConfigError: the folder holds another study, or an arm cannot run on this machine.
        DataError: the data are missing, damaged or do not fit.
    """
    folder = open_study(path, study, seeds=seeds, vary_data=vary_data)
    jobs = number_of_jobs(jobs)
    if not all(map(folder.is_finished, folder.runs())):
        check_arms(study, jobs)
    make_folder(path)
    with hold_claim(folder.claims, "study"):
        folder = open_study(path, study, seeds=seeds, vary_data=vary_data)  # another process may have begun it meanwhile
        write_study(folder)
        folder.prepare()
    with StudyProgress(folder, jobs) as progress, _stop_signals() as stops:
        session = _Session(folder, jobs, progress)
        watch = ClaimWatch(folder.claims)
        try:
            while not stops and not session.is_over():
                session.look()
                standings = watch.standings()
                session.start_workers(standings)
                progress.show(session.running, standings)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            _stop_workers(session, stops)
    return Outcome(folder, session.failed, stops[0] if stops else "")


def _start_worker(folder: StudyFolder, key: RunKey, *, generation: int, cores: list[int],
                  environment: dict[str, str]) -> subprocess.Popen:
    """Start the process of a run. It has a session of its own, so that Ctrl-C reaches it only through this process."""
    log = folder.log(key)
    make_folder(log.parent)
    command = [sys.executable, "-m", "llama_jax.ablation.worker", folder.path, key.arm, key.seed, generation, *cores]
    with log.open("a") as output:
        return subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                env=environment, start_new_session=True)


def _stop_workers(session: _Session, stops: list[str]) -> None:
    """Ask all workers to save and stop, and wait for them; a second signal ends them at once."""
    for worker in session.running.values():
        worker.process.send_signal(signal.SIGTERM)
    if session.running:
        session.progress.say(f"{' '.join(stops[:1]) or 'error'}: {len(session.running)} run(s) save a checkpoint and stop")
    while any(worker.process.poll() is None for worker in session.running.values()):
        if len(stops) > 1:
            for worker in session.running.values():
                worker.process.kill()
        time.sleep(0.1)


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Collect the names of stop requests in a list: of this process where it is a command, else of SIGINT, SIGTERM and SIGHUP."""
    noted = noted_stops(second_ends=False)
    if noted is not None:
        yield noted
        return
    caught: list[str] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, frame: caught.append(signal.Signals(number).name))
              for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_words(log: Path) -> str:
    """The last line of a worker's log that names an error, without "error: "; else its last line."""
    with log.open("rb") as stream:
        stream.seek(max(os.fstat(stream.fileno()).st_size - 4096, 0))
        lines = stream.read().decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if re.match(r"error: |[\w.]*(Error|Exception)\b", line)]
    return [*(lines or ["it printed nothing"]), *errors][-1].removeprefix("error: ")
