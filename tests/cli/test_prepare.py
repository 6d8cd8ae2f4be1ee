"""`prepare` and `tokenizer` as a user types them: they do what they say, print it, and leave with the right code."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from llama_jax import terminal
from llama_jax.__main__ import main
from llama_jax.cli import prepare as command
from llama_jax.data.manifest import MANIFEST_FILE, read_manifest
from llama_jax.data.prepare import prepare_data
from llama_jax.tokenizer.fertility import measure_fertility
from llama_jax.tokenizer.load import load_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path, play) -> Path:
    """Four megabytes of play: several chunks for each of a few workers."""
    file = tmp_path / "play.jsonl"
    lines = [json.dumps({"text": text, "body": text[:9]}) + "\n" for text in play.split("\n\n")]
    file.write_text("".join(lines) * 20)
    return file


@pytest.fixture
def small(tmp_path, play) -> Path:
    (tmp_path / "small.txt").write_text(play[:50_000])
    return tmp_path / "small.txt"


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    """The folder of a tokenizer."""
    tokenizer.save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_prepare(tmp_path, small, folder, tokenizer, capsys):
    assert run("prepare", "--input", small, "--tokenizer", folder, "--output", tmp_path / "out", "--workers", 1) == 0
    manifest = read_manifest(tmp_path / "out")
    assert capsys.readouterr().out == (f"{tmp_path / 'out'}: 1 documents, 50,000 bytes of text, {manifest.tokens:,} "
                                       "tokens in 1 shard(s)\n")
    tokens = np.fromfile(tmp_path / "out/shard_00000.bin", "<u2")
    assert tokens.tolist() == [1, *tokenizer.encode(small.read_text()), 2]


def test_prepare_passes_every_option_on(tmp_path, folder):
    (tmp_path / "none.jsonl").write_text('{"body": "other"}\n')
    assert run("prepare", "--input", tmp_path / "none.jsonl", "--tokenizer", folder / "tokenizer.model", "--output",
               tmp_path / "out", "--text_key", "body", "--workers", 1, "--shard_tokens", 3) == 0
    assert read_manifest(tmp_path / "out").settings["text_key"] == "body"
    assert read_manifest(tmp_path / "out").settings["shard_tokens"] == 3


def test_tokenizer_train_and_report(tmp_path, small, capsys):
    assert run("tokenizer", "train", "--input", small, "--output", tmp_path / "new", "--vocab_size", 400) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new/tokenizer.model'}: 400 pieces\n"
    assert run("tokenizer", "report", "--tokenizer", tmp_path / "new", "--input", small) == 0
    rows = dict(re.findall(r"\u2502 ([a-z ]+?) +\u2502 +([\d.,]+) \u2502", capsys.readouterr().out))
    wanted = measure_fertility(load_tokenizer(tmp_path / "new"), [small.read_text()])
    assert {name.replace(" ", "_"): float(value.replace(",", "")) for name, value in rows.items()} == {
        name: pytest.approx(value, abs=5e-5) for name, value in wanted.items()
    }


def test_prepare_holds_documents_out_and_verifies_what_is_finished(tmp_path, source, folder, capsys):
    words = ("prepare", "--input", source, "--tokenizer", folder, "--output", tmp_path / "out", "--workers", 1,
             "--heldout_output", tmp_path / "held", "--heldout_fraction", 0.05)

    def printed() -> list[str]:
        """What was printed, but for the progress of a slow machine."""
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]

    assert run(*words) == 0
    train, heldout = read_manifest(tmp_path / "out"), read_manifest(tmp_path / "held")
    lines = [f"{tmp_path / name}: {part.documents:,} documents, {part.bytes:,} bytes of text, {part.tokens:,} tokens in 1 "
             "shard(s)" for name, part in (("out", train), ("held", heldout))]
    assert printed() == lines
    assert 0.02 < heldout.documents / (train.documents + heldout.documents) < 0.08
    assert run(*words) == 0
    assert printed() == [f"{line}, finished before and whole" for line in lines]
    data = bytearray((tmp_path / "held/shard_00000.bin").read_bytes())
    data[100] ^= 1
    (tmp_path / "held/shard_00000.bin").write_bytes(data)
    assert run(*words) == 3
    assert "held/shard_00000.bin is damaged: its checksum" in capsys.readouterr().err


@pytest.mark.parametrize("held", ["tokenizer.model", "tokenizer.json", "manifest.json", "progress.json"])
def test_a_tokenizer_is_never_trained_over_another(tmp_path, small, folder, capsys, held):
    """Shards know the tokenizer that made them by its hash, and would fit no tokenizer afterwards."""
    (folder / held).touch()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert run("tokenizer", "train", "--input", small, "--output", folder, "--vocab_size", 400) == 2
    said = capsys.readouterr().err
    assert re.search(rf"holds (tokenizer.model|tokenizer.model and {held}) already.*name another --output", said)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_shards_do_not_bring_their_tokenizer_over_another(tmp_path, small, folder, capsys):
    assert run("tokenizer", "train", "--input", small, "--output", tmp_path / "other", "--vocab_size", 400) == 0
    before = (tmp_path / "other/tokenizer.model").read_bytes()
    assert run("prepare", "--input", small, "--tokenizer", folder, "--output", tmp_path / "other", "--workers", 1) == 3
    assert "other holds another tokenizer (tokenizer.model), which would be overwritten" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["tokenizer.model"]
    assert (tmp_path / "other/tokenizer.model").read_bytes() == before


def test_what_cleaning_leaves_beside_its_documents_is_not_worth_a_word(tmp_path, small, folder, caplog):
    output = tmp_path / "documents/web"
    (output / ".work").mkdir(parents=True)
    small.rename(output / "small.txt")
    for name in ("settings.json", "perplexity.npz", ".hidden"):
        (output / name).write_text("{}")
    prepare = ("prepare", "--input", output.parent, "--tokenizer", folder, "--workers", 1, "--output")
    assert run(*prepare, tmp_path / "other") == 0  # some other folder: nothing says that cleaning made it
    assert "4 left out" in caplog.messages[-1]
    (output / "report.json").write_text("[]")
    assert run(*prepare, tmp_path / "out") == 0
    assert caplog.messages[-1].endswith("1 left out (hidden, a link to a folder, or of another format): web/.hidden")


def test_what_is_left_out_is_named(tmp_path, small, folder, caplog):
    """By every command that reads a folder of text."""
    (tmp_path / "corpus/.ipynb_checkpoints").mkdir(parents=True)
    small.rename(tmp_path / "corpus/small.txt")
    (tmp_path / "corpus/.ipynb_checkpoints/small-checkpoint.txt").write_text("not this")
    corpus = ("--input", tmp_path / "corpus")
    assert run("prepare", *corpus, "--tokenizer", folder, "--output", tmp_path / "out", "--workers", 1) == 0
    assert run("tokenizer", "train", *corpus, "--output", tmp_path / "new", "--vocab_size", 400) == 0
    assert run("tokenizer", "report", *corpus, "--tokenizer", folder) == 0
    assert len(caplog.messages) == 3 and all("1 left out" in m and ".ipynb_checkpoints/" in m for m in caplog.messages)
    assert [name for name, *_ in read_manifest(tmp_path / "out").settings["files"]] == ["small.txt"]


@pytest.mark.parametrize("arguments, code, sentence", [
    ("prepare --input missing --tokenizer {folder} --output out", 3, "data source missing does not exist."),
    ("prepare --input {small} --tokenizer missing --output out", 3, "no tokenizer at missing: expected"),
    ("prepare --input {small} {small} --tokenizer {folder} --output out", 2, "small.txt twice; name every file once."),
    ("prepare --input {small} --tokenizer {folder} --output {small}", 3, "cannot make the folder {small}: File exists"),
    ("prepare --input {small} --tokenizer {folder} --output out --workers -1", 2, "workers must be at least 0"),
    ("prepare --input {small} --tokenizer {folder} --output out --heldout_fraction 0.1", 2, "go together; name both, or"),
    ("prepare --input {small} --tokenizer {folder} --output out --heldout_output o", 2, "go together; name both, or neither."),
    ("prepare --input {small} --tokenizer {folder} --output out --heldout_output out --heldout_fraction 0.1", 2,
     "out cannot hold both the documents to train on and those held out"),
    ("prepare --input hf://name --tokenizer {folder} --output out", 2, "it should read hf://datasets/OWNER/NAME"),
    ("prepare --input --tokenizer {folder} --output out", 2, "nothing to prepare; name files or folders after"),
    ("tokenizer train --input {small} --output out --vocab_size 100", 2, "vocab_size must be above 259"),
    ("tokenizer train --input {small} --output out --vocab_size 99999", 3, "vocab_size 99999 is too large"),
    ("tokenizer train --input missing --output out --vocab_size 300", 3, "data source missing does not exist."),
    ("tokenizer train --input {small} --output {small}/x --vocab_size 300", 3, "cannot make the folder"),
    ("tokenizer report --tokenizer {small} --input {small}", 3, "is not a SentencePiece model"),
    ("tokenizer report --tokenizer {folder} --input missing", 3, "data source missing does not exist."),
])
def test_mistakes(tmp_path, monkeypatch, small, folder, capsys, arguments, code, sentence):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments.format(small=small, folder=folder).split()) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert sentence.format(small=small) in captured.err


@pytest.mark.parametrize("arguments, words", [
    ("prepare --input a", "--tokenizer"), ("tokenizer train --input a --output b --vocab_size many", "--vocab_size"),
])
def test_wrong_usage(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        run(*arguments.split())
    assert caught.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("command, options", [
    ("prepare", {"input", "tokenizer", "output", "text_key", "document_separator", "workers", "shard_tokens", "heldout_output",
                 "heldout_fraction"}),
    ("tokenizer train", {"input", "output", "vocab_size", "text_key"}),
    ("tokenizer report", {"tokenizer", "input", "text_key", "reference", "output"}),
])
def test_help(capsys, command, options):
    with pytest.raises(SystemExit) as caught:
        run(*command.split(), "--help")
    assert caught.value.code == 0
    assert set(re.findall(r"--(\w+) ", capsys.readouterr().out)) == options | {"help"}


def test_progress_is_plain_lines_without_a_terminal(tmp_path, source, folder, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    run("prepare", "--input", source, "--tokenizer", folder, "--output", tmp_path / "out", "--workers", 1)
    *lines, last = capsys.readouterr().out.splitlines()
    shape = r"([\d,]+) documents  [\d,]+\.\d MB  ([\d,]+) tokens  [\d.]+ MB/s"
    counts = [tuple(int(n.replace(",", "")) for n in re.fullmatch(shape, line).groups()) for line in lines]
    manifest = read_manifest(tmp_path / "out")
    assert len(counts) > 3 and counts == sorted(counts) and counts[-1] == (manifest.documents, manifest.tokens)
    assert last.startswith(f"{tmp_path / 'out'}: ")


def test_progress_is_a_live_line_on_a_terminal(tmp_path, small, folder, capsys, monkeypatch):
    monkeypatch.setattr(command, "Console", lambda **options: Console(**options, force_terminal=True, width=100))
    run("prepare", "--input", small, "--tokenizer", folder, "--output", tmp_path / "out", "--workers", 1)
    out = capsys.readouterr().out
    assert "1 documents  0.1 MB" in out and "\x1b[2K" in out


def test_ctrl_c_ends_in_a_sentence(capsys, small, folder, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "prepare_data", interrupted)
    assert run("prepare", "--input", small, "--tokenizer", folder, "--output", "out") == 130
    assert capsys.readouterr().err == "interrupted; what was finished stays\n"


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for orphans in /proc")
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path, source, folder, tokenizer):
    """SIGKILL of the parent: the workers go too, and the same command finishes what one process would have written."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "llama_jax", "prepare", "--input", source, "--tokenizer", folder, "--output", out,
               "--workers", "2", "--shard_tokens", "300000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: (out / "progress.json").exists() or process.poll() is not None)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / MANIFEST_FILE).exists(), "it was too fast to be killed in the middle"
    assert len(workers) >= 2
    wait_for(lambda: not any(map(is_alive, workers)))

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    prepare_data([str(source)], tokenizer, output=tmp_path / "one", workers=1, shard_tokens=300_000)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()
    }


@pytest.mark.slow
def test_killed_at_random_again_and_again_it_ends_in_the_same_bytes(tmp_path, source, folder):
    """Four workers and two folders, SIGKILL five times: what one process writes without a stop."""
    def command(name: str, workers: int) -> list:
        return [sys.executable, "-m", "llama_jax", "prepare", "--input", source, "--tokenizer", folder, "--output",
                tmp_path / name / "train", "--workers", str(workers), "--shard_tokens", "100000", "--heldout_output",
                tmp_path / name / "heldout", "--heldout_fraction", "0.1"]

    draws = random.Random(0)
    for shards in sorted(draws.sample(range(12), 5)):
        process = subprocess.Popen(command("killed", 4), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda shards=shards: len([*(tmp_path / "killed/train").glob("*.bin")]) >= shards)
        time.sleep(draws.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was too fast to be killed in the middle"
    for name, workers in (("killed", 4), ("whole", 1)):
        subprocess.run(command(name, workers), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for part in ("train", "heldout"):
        assert {file.name: file.read_bytes() for file in (tmp_path / "killed" / part).iterdir() if file.suffix != ".tmp"} == {
            file.name: file.read_bytes() for file in (tmp_path / "whole" / part).iterdir()
        }
