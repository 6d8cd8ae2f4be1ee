"""The example that goes from raw data of all seven sources to a trained model: it runs, ends with the ledger, and resumes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("commoncrawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_seven_sources(tmp_path, shared_data, documents):
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    command = ["bash", str(ROOT / "examples" / "seven_sources.sh"), str(shared_data / "corpus"), str(tmp_path / "work")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    work = tmp_path / "work"
    for source in SOURCES:
        assert documents(work / "documents" / source), source
        assert json.loads((work / "documents" / source / "report.json").read_text())[0]["documents_in"]
    lines = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "sources" in line][-1]
    assert last["step"] == 200 and len(last["sources"]) == 7
    assert sum(source["realised"] for source in last["sources"].values()) == pytest.approx(1)
    web = next(source for name, source in last["sources"].items() if name.endswith("commoncrawl"))
    assert web["planned"] == pytest.approx(0.67) and web["realised"] == pytest.approx(0.67, abs=0.01)
    made = {file: file.stat().st_mtime_ns for file in work.rglob("*.zst")}
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {file: file.stat().st_mtime_ns for file in work.rglob("*.zst")} == made
