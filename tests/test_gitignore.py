"""What the commands of the documentation make is no change to the repository."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONS = re.compile(r"--(?:output|target|workdir|json)[ =]([\w./-]+)(?!\S*:)")
DEFAULTS = ["runs/tiny/config.json", "evals/TinyLlama/results.json", "data/eval/boolq/dev.jsonl", ".venv/bin/python"]


def ignored(paths: list[str]) -> set[str]:
    done = subprocess.run(["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    return set(done.stdout.splitlines())


def made_by_the_documentation() -> list[str]:
    text = "".join(file.read_text() for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
    places = {place for place in OPTIONS.findall(text) if place != "DIR" and not place.startswith(("/", "docs/"))}
    return sorted(place + "made" if place.endswith("/") else place if "." in place else f"{place}/made" for place in places)


def test_what_the_documented_commands_make_is_ignored():
    made = made_by_the_documentation() + DEFAULTS
    assert len(made) > 10
    assert set(made) - ignored(made) == set()


def test_no_file_of_the_project_is_ignored():
    """An ignored folder of the project's own name, as data/, would hide new files."""
    files = [str(file.relative_to(ROOT)) for folder in ("llama_jax", "tests", "configs", "docs", "benchmarks", ".ci")
             for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert ignored(files) == set()
