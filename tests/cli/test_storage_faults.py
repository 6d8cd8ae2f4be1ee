"""Commands on full storage: one sentence, nothing half-written under its final name, and the same command goes on."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_jax.__main__ import main
from llama_jax.data.manifest import read_manifest
from tests.files.faulty import Fault, failing
from tests.files.test_appended import files_of_at_most

# after an error orbax closes its event loop under tensorstore's last callbacks
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.:pytest.PytestUnraisableExceptionWarning")

FULL, READ_ONLY = errno.ENOSPC, errno.EROFS
OPERATIONS = ["open", "mkdir", "rename"]


def refused(capsys, *arguments) -> str:
    """The sentence with which a command ends that cannot write."""
    assert main(list(map(str, arguments))) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def left(folder: Path) -> list[str]:
    """What a command has left in a folder; the file of a lock that could not be written is hidden and empty."""
    return [entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock")]


@pytest.fixture
def texts(tmp_path) -> Path:
    page = "The harbour lay quiet. Fishermen mended nets. A ferry came in at seven. People went to the market. Then noon came."
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "ab":
        lines = [json.dumps({"text": page.replace("seven", str(n))}) + "\n" for n in range(40)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def tokenizer_folder(tmp_path, tokenizer) -> Path:
    tokenizer.save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.mark.parametrize("to", ["orbax", "hf", "meta"])
def test_convert(tmp_path, folders, capsys, to):
    command = ("convert", "--source", folders["hf"], "--target", tmp_path / "out", "--to", to)
    for size in (0, 1_000, 50_000):
        with files_of_at_most(size):
            error = refused(capsys, *command)
        assert f"{tmp_path / 'out'}: File too large; " in error and (not size or "nothing of it stays" in error)
        assert left(tmp_path) == []
    for operation in OPERATIONS:
        for first in (0, 1, 3):
            with failing(Fault(tmp_path, operation, number=FULL, first=first, count=1)) as fault:
                code = main(list(map(str, command)))
            error = capsys.readouterr().err
            assert code == 3 or not fault.raised or operation == "mkdir"  # a folder that is there need not be made
            if code:
                assert code == 3 and "No space left on device" in error and error.count("\n") == 1
                assert left(tmp_path) == []
            else:
                subprocess.run(["rm", "-r", tmp_path / "out"], check=True)


def test_prepare(tmp_path, texts, tokenizer_folder, capsys):
    command = ("prepare", "--input", texts, "--tokenizer", tokenizer_folder, "--output", tmp_path / "out", "--workers", 1,
               "--shard_tokens", 1_500)
    for size in (0, 200, 2_000, 4_000):
        with files_of_at_most(size):
            assert "File too large" in refused(capsys, *command)
        assert not (tmp_path / "out/manifest.json").exists() and not list((tmp_path / "out").glob("*.tmp"))
    for operation in OPERATIONS[::2]:
        with failing(Fault(tmp_path / "out", operation, number=READ_ONLY)):
            assert "Read-only file system" in refused(capsys, *command)
        assert not (tmp_path / "out/manifest.json").exists()
    assert main(list(map(str, command))) == 0
    assert read_manifest(tmp_path / "out").documents == 80


@pytest.mark.parametrize("operation", OPERATIONS)
def test_clean(tmp_path, texts, capsys, operation):
    command = ("clean", "--source", "c4", "--input", texts, "--output", tmp_path / "out", "--workers", 1)
    for first in (0, 4):
        with failing(Fault(tmp_path / "out", operation, number=FULL, first=first)) as fault:
            code = main(list(map(str, command)))
        error = capsys.readouterr().err.splitlines()
        assert code == (3 if fault.raised else 0)
        assert not code or (error[-1].startswith("error: ") and "No space left on device" in error[-1]), error
        assert not any("Traceback" in line for line in error)
        assert not code or not list((tmp_path / "out").glob("*.zst"))
    assert main(list(map(str, command))) == 0


def test_a_log_on_a_full_disk(tmp_path, texts, tokenizer_folder, monkeypatch, capsys):
    """What is printed is lost, and the command says so instead of a stack trace at the end of Python."""
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is Linux's")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code = main(["prepare", "--input", str(texts), "--tokenizer", str(tokenizer_folder), "--output", str(tmp_path / "out"),
                     "--workers", "1"])
        print("more", flush=True)
    monkeypatch.undo()
    assert code == 3 and capsys.readouterr().err == "error: No space left on device.\n"
    assert read_manifest(tmp_path / "out").documents == 80
