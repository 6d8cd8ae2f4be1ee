"""The report of a run of bad inputs or faults: counts by kind, and every failure with what repeats it."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def write_report(folder: Path, outcomes: Sequence) -> str:
    """Write report.md and report.json; returns the Markdown."""
    counts = Counter((outcome.kind, outcome.ended) for outcome in outcomes)
    endings = sorted({ended for _, ended in counts})
    lines = ["| kind | cases | " + " | ".join(endings) + " | slowest, s |", "|---" * (len(endings) + 3) + "|"]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        numbers = [str(counts[kind, ended]) for ended in endings]
        lines.append(f"| {kind} | {len(own)} | {' | '.join(numbers)} | {max(outcome.seconds for outcome in own):.1f} |")
    failures = [outcome for outcome in outcomes if outcome.ended not in ("accepted", "refused", "equal")]
    lines += ["", f"{len(outcomes)} cases, {len(failures)} failures.", ""]
    for failure in failures:
        lines += [f"## {failure.kind} {failure.number}: {failure.ended}", f"`{failure.file}`", "```", failure.text, "```"]
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    (folder / "report.md").write_text(text)
    (folder / "report.json").write_text(json.dumps([outcome._asdict() for outcome in outcomes], indent=1) + "\n")
    return text
