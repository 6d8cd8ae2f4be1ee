"""Folders of programs do not stay behind: not with rights taken away, not nested a thousand deep, not after a kill."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from llama_jax.evaluation.sandbox import folders
from llama_jax.evaluation.sandbox.run import run_program


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """Where folders are made in these tests."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


PROGRAMS = {
    "rights": "import os\nos.makedirs('a/b/c')\nopen('a/b/c/f', 'w').close()\nos.chmod('a/b', 0)\nos.chmod('.', 0)",
    "nested": "import os\nfor n in range(1500):\n    os.mkdir('d')\n    os.chdir('d')",
    "link": "import os\nos.symlink('/', 'root')\nos.symlink('/nowhere', 'none')",
    "killed": "import os, signal\nopen('f', 'w').close()\nos.kill(os.getpid(), signal.SIGKILL)",
    "time": "open('f', 'w').close()\nwhile True: pass",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_left_of_a_program(place, name):
    outside = place.parent / f"{place.name}_outside"
    outside.mkdir(mode=0o755)
    run_program(PROGRAMS[name], layers=())
    assert list(place.iterdir()) == [] and oct(outside.stat().st_mode)[-3:] == "755"


def test_links_are_not_followed(place, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("kept")
    with folders.program_folder() as folder:
        os.symlink(outside, Path(folder) / "link")
        os.symlink(outside / "kept", Path(folder) / "file")
    assert (outside / "kept").read_text() == "kept" and not os.path.lexists(folder)


def test_folders_of_a_killed_process_are_removed_by_the_next(place, monkeypatch):
    code = ("from llama_jax.evaluation.sandbox.run import run_program, ProgramLimits\n"
            "run_program('open(\"f\", \"w\").close()\\nwhile True: pass', ProgramLimits(60, 60), layers=())")
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(place)})
    deadline = time.monotonic() + 60
    while not list(place.glob("llama_jax_sandbox_*/f")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    other = place / "llama_jax_sandbox_like.txt"
    other.write_text("no folder")
    assert folders.remove_stale_folders() == 0  # it may be another process's, which is at work
    monkeypatch.setattr(folders, "_STALE_SECONDS", -1)
    assert folders.remove_stale_folders() == 1
    assert list(place.iterdir()) == [other]
