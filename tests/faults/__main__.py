"""`python -m tests.faults`: the long runs, which a person starts."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Run what the command line asks for; 0 where nothing failed."""
    from tests.faults.inputs import FINE, run_cases, serve_cases
    from tests.faults.report import write_report
    from tests.faults.targets import TARGETS

    if sys.argv[1:2] == ["serve-cases"]:
        serve_cases(Path(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("what", choices=["inputs"])
    parser.add_argument("--count", type=int, default=10_000, help="number of bad inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--repeat", nargs="+", default=[], metavar="KIND NUMBER", help='cases of a report, as "pth 17"')
    parser.add_argument("--report", type=Path, default=Path("faults"), help="folder of report.md and report.json")
    asked = parser.parse_args()
    cases = [(kind, int(number)) for kind, number in (words.split() for words in asked.repeat)]
    each = -(-asked.count // len(asked.kinds))
    cases = cases or [(kind, asked.seed * 1_000_000 + n) for kind in asked.kinds for n in range(each)]

    def show(outcome) -> None:
        if outcome.ended not in FINE or asked.repeat:
            head = f"{outcome.kind} {outcome.number} {outcome.file}: {outcome.ended}, {outcome.seconds:.2f} s"
            print(f"{head}\n{outcome.text}", flush=True)

    outcomes = run_cases(cases, show)
    write_report(asked.report, outcomes)
    return int(any(outcome.ended not in FINE for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
