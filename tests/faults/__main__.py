"""Faults done to the product on purpose: bad inputs of every kind, and real processes that are killed.

    python -m tests.faults --minutes 60 [--seed N] [--kinds pth kill_train ...]     all kinds in turn, until the time is up
    python -m tests.faults --count 10000 [--seed N] [--kinds ...]                   so many bad inputs
    python -m tests.faults --repeat "pth 17" "kill_train 3"                         cases of a report once more
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.inputs import FINE, Outcome, Watched, serve_cases
from tests.faults.kills import Filled, Killed
from tests.faults.report import write_report
from tests.faults.scenes import SCENES
from tests.faults.targets import TARGETS

PROCESSES = {f"{faults.PREFIX}_{name}": (faults, name) for faults in (Killed, Filled) for name in SCENES}
ROUND = 40
"""Bad inputs of a kind before the next kind has its turn."""


def begin_trials(kind: str, folder: Path) -> Killed:
    """The trials of a kind of fault that concerns processes, after their undisturbed run."""
    faults, name = PROCESSES[kind]
    return faults(name, folder / kind)


def run_rounds(kinds: list[str], folder: Path, *, first: int) -> Iterator[Outcome]:
    """Outcomes without end: some bad inputs of each kind, one killed process of each, and again with the next numbers."""
    child, begun = Watched(folder), {}
    number = 0
    try:
        while True:
            for kind in kinds:
                if kind in PROCESSES:
                    if kind not in begun:
                        begun[kind] = begin_trials(kind, folder)
                    yield begun[kind].trial(first + number)
                else:
                    for case in range(ROUND):
                        yield child.run(kind, first + number * ROUND + case)
            number += 1
    finally:
        child.stop()


def repeat_cases(cases: list[str], folder: Path) -> Iterator[Outcome]:
    """Outcomes of single cases, each "KIND NUMBER"."""
    child, begun = Watched(folder), {}
    try:
        for case in cases:
            kind, number = case.split()
            if kind in PROCESSES and kind not in begun:
                begun[kind] = begin_trials(kind, folder)
            yield begun[kind].trial(int(number)) if kind in PROCESSES else child.run(kind, int(number))
    finally:
        child.stop()


def main() -> int:
    """Run what the command line asks for; 0 where nothing failed."""
    if sys.argv[1:2] == ["serve-cases"]:
        serve_cases(Path(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--count", type=int, default=0, help="number of bad inputs, of all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="other seeds are other cases")
    parser.add_argument("--kinds", nargs="+", choices=[*TARGETS, *PROCESSES], default=[])
    parser.add_argument("--repeat", nargs="+", default=[], metavar="CASE")
    parser.add_argument("--report", type=Path, default=Path("faults"), help="folder of report.md and report.json")
    asked = parser.parse_args()
    if not (asked.repeat or asked.count or asked.minutes < float("inf")):
        parser.error("give --minutes, --count or --repeat")
    possible = [kind for kind, (faults, _) in PROCESSES.items() if faults is Killed or Filled.possible()]
    kinds = asked.kinds or ([*TARGETS] if asked.count else [*TARGETS, *possible])
    deadline, outcomes = time.monotonic() + 60 * asked.minutes, []
    with tempfile.TemporaryDirectory(prefix="llama_jax_faults_") as folder:
        place = Path(folder)
        cases = repeat_cases(asked.repeat, place) if asked.repeat else run_rounds(kinds, place, first=asked.seed * 1_000_000)
        for outcome in cases:
            outcomes.append(outcome)
            if outcome.ended not in FINE or asked.repeat:
                head = f"{outcome.kind} {outcome.number} {outcome.file}: {outcome.ended}, {outcome.seconds:.2f} s"
                print(f"{head}\n{outcome.text}", flush=True)
            if len(outcomes) == asked.count or time.monotonic() > deadline:
                break
        cases.close()
    print(write_report(asked.report, outcomes).partition("\n## ")[0])
    return int(any(outcome.ended not in FINE for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
