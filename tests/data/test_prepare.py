"""Shards are a function of the text and the tokenizer: not of workers, interruptions, formats or shard sizes."""

import errno
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from llama_jax.data import prepare as module
from llama_jax.data.manifest import MANIFEST_FILE, PREPARE_PROGRESS, read_manifest
from llama_jax.data.prepare import prepare_data
from llama_jax.errors import ConfigError, DataError
from llama_jax.files import atomic
from llama_jax.tokenizer.load import load_tokenizer


@pytest.fixture
def texts(play) -> list[str]:
    """Two hundred speeches and two documents that are hard to cut."""
    return [*play.split("\n\n")[:200], "caf\u00e9 \U0001f600\n" * 40, "x" * 3000]


@pytest.fixture
def source(tmp_path, texts) -> str:
    file = tmp_path / "source.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Many chunks for the workers, as a large corpus has."""
    monkeypatch.setattr(module, "CHUNK_SIZE", 500)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def tokens_of(folder: Path) -> np.ndarray:
    manifest = read_manifest(folder)
    return np.concatenate([np.fromfile(folder / shard.file, manifest.dtype) for shard in manifest.shards])


def test_holds_each_document_as_bos_ids_eos(tmp_path, source, texts, tokenizer):
    manifest = prepare_data([source], tokenizer, output=tmp_path / "out", workers=1, shard_tokens=900)
    ids = [[1, *tokenizer.encode(text), 2] for text in texts]
    assert tokens_of(tmp_path / "out").tolist() == [i for document in ids for i in document]
    assert manifest.tokens == sum(map(len, ids))
    assert (manifest.documents, manifest.bytes) == (len(texts), sum(len(text.encode()) for text in texts))
    assert manifest == read_manifest(tmp_path / "out")
    written = json.loads((tmp_path / "out" / MANIFEST_FILE).read_text())
    assert [written[name] for name in ("tokens", "documents", "bytes")] == [manifest.tokens, 202, manifest.bytes]
    for shard in manifest.shards:
        stored = np.fromfile(tmp_path / "out" / shard.file, "<u2")
        assert (len(stored), int((stored == 1).sum())) == (shard.tokens, shard.documents)
        assert shard.tokens >= 900 or shard is manifest.shards[-1]
    assert len(manifest.shards) > 5
    assert load_tokenizer(tmp_path / "out").sha256 == manifest.tokenizer_sha256 == tokenizer.sha256


def test_three_workers_write_what_one_writes(tmp_path, source, tokenizer):
    prepare_data([source], tokenizer, output=tmp_path / "one", workers=1, shard_tokens=2000)
    prepare_data([source], tokenizer, output=tmp_path / "three", workers=3, shard_tokens=2000)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


@pytest.mark.parametrize("shard_tokens", [1, 777, 10**9])
def test_the_tokens_do_not_depend_on_the_size_of_shards(tmp_path, source, tokenizer, shard_tokens):
    prepare_data([source], tokenizer, output=tmp_path / "a", workers=1, shard_tokens=2000)
    prepare_data([source], tokenizer, output=tmp_path / "b", workers=1, shard_tokens=shard_tokens)
    np.testing.assert_array_equal(tokens_of(tmp_path / "a"), tokens_of(tmp_path / "b"))


def test_formats_give_the_same_tokens(tmp_path, source, texts, tokenizer):
    lines = Path(source).read_bytes()
    files = {"lines.jsonl.gz": gzip.compress(lines)}
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(lines)
    files["lines.jsonl.zst"] = sink.getvalue().to_pybytes()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pyarrow.parquet.write_table(pa.table({"text": texts}), tmp_path / "table.parquet")
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / f"texts/{number:03d}.txt").write_bytes(text.encode())
    prepare_data([source], tokenizer, output=tmp_path / "wanted", workers=1)
    for name in (*files, "table.parquet", "texts"):
        prepare_data([str(tmp_path / name)], tokenizer, output=tmp_path / f"out-{name}", workers=1)
        np.testing.assert_array_equal(tokens_of(tmp_path / f"out-{name}"), tokens_of(tmp_path / "wanted"), name)


class Killed(BaseException):
    """Takes the place of SIGKILL: no code handles it."""


def die_at(now: Iterator[bool], number: int) -> None:
    """A replacement of fsync that, at a chosen call, leaves half a file and dies."""
    if next(now):
        os.ftruncate(number, 5)
        raise Killed


def test_stopped_at_any_write_it_goes_on_to_the_same_bytes(tmp_path, source, tokenizer, monkeypatch):
    """Preparation is killed while any one of its files is half written, and resumed."""
    prepare_data([source], tokenizer, output=tmp_path / "whole", workers=1, shard_tokens=4000)
    wanted, real = contents(tmp_path / "whole"), os.fsync
    writes = 3 * len(read_manifest(tmp_path / "whole").shards) + 2  # starts and progress.json each, tokenizer and manifest
    assert writes >= 8
    for last in range(writes):
        out = tmp_path / f"stopped-{last}"
        monkeypatch.setattr(atomic.os, "fsync", partial(die_at, iter([*[False] * last, True])))
        with pytest.raises(Killed):
            prepare_data([source], tokenizer, output=out, workers=1, shard_tokens=4000)
        assert len(list(out.glob("*.tmp"))) == 1
        with pytest.raises(DataError, match="is not a prepared folder"):
            read_manifest(out)
        monkeypatch.setattr(atomic.os, "fsync", real)
        prepare_data([source], tokenizer, output=out, workers=1, shard_tokens=4000)
        assert contents(out) == wanted


@pytest.mark.parametrize("damage", ["truncated", "removed", "progress"])
def test_what_an_interruption_damaged_is_made_again(tmp_path, source, tokenizer, damage):
    prepare_data([source], tokenizer, output=tmp_path / "whole", workers=1, shard_tokens=2000)
    out, seen = tmp_path / "out", []

    def stop(chunk):
        seen.append(chunk)
        if len(seen) == 30:
            raise Killed

    with pytest.raises(Killed):
        prepare_data([source], tokenizer, output=out, workers=1, shard_tokens=2000, report=stop)
    shards = sorted(out.glob("shard_*.bin"))
    assert len(shards) > 2
    if damage == "truncated":
        os.truncate(shards[1], 10)
    elif damage == "removed":
        shards[0].unlink()
    else:
        (out / PREPARE_PROGRESS).write_text('{"settings"')
    prepare_data([source], tokenizer, output=out, workers=1, shard_tokens=2000)
    assert contents(out) == contents(tmp_path / "whole")


def test_goes_on_after_the_finished_shards(tmp_path, source, texts, tokenizer):
    out, reported = tmp_path / "out", []

    def stop_after_ten(chunk):
        reported.append(chunk)
        if len(reported) == 10:
            raise Killed

    with pytest.raises(Killed):
        prepare_data([source], tokenizer, output=out, workers=1, shard_tokens=500, report=stop_after_ten)
    finished = json.loads((out / PREPARE_PROGRESS).read_text())["shards"]
    reported.clear()
    manifest = prepare_data([source], tokenizer, output=out, workers=1, shard_tokens=500, report=reported.append)
    assert sum(chunk.documents for chunk in reported) == len(texts) - sum(shard["documents"] for shard in finished)
    prepare_data([source], tokenizer, output=out, workers=1, shard_tokens=500, report=lambda chunk: pytest.fail("done already"))
    assert manifest.documents == len(texts)


def test_reports_every_document_once(tmp_path, source, texts, tokenizer):
    reported = []
    manifest = prepare_data([source], tokenizer, output=tmp_path / "out", workers=2, report=reported.append)
    for name in ("tokens", "documents", "bytes"):
        assert sum(getattr(chunk, name) for chunk in reported) == getattr(manifest, name)


@dataclass
class Ids:
    """A stand-in tokenizer that gives the code points."""

    vocab_size: int
    bos_id, eos_id, sha256, model = 1, 2, "x", b"x"

    def encode_array(self, text: str) -> np.ndarray:
        return np.array([min(ord(letter), self.vocab_size - 1) for letter in text], np.int32)

    def save(self, folder):
        pass


@pytest.mark.parametrize("vocab_size, dtype", [(512, "<u2"), (65_536, "<u2"), (65_537, "<u4")])
def test_two_bytes_where_the_vocabulary_allows_it(tmp_path, vocab_size, dtype):
    (tmp_path / "a.txt").write_text("ab\U0001f600")
    assert prepare_data([str(tmp_path / "a.txt")], Ids(vocab_size), output=tmp_path / "out", workers=1).dtype == dtype
    assert tokens_of(tmp_path / "out").tolist() == [1, 97, 98, vocab_size - 1, 2]


def test_other_work_is_never_mixed_in(tmp_path, source, tokenizer, play):
    out = tmp_path / "out"
    prepare_data([source], tokenizer, output=out, workers=1)
    before = contents(out)
    for options in ({"shard_tokens": 5}, {"text_key": "body"}):
        with pytest.raises(DataError, match="already holds data made from other text, settings or tokenizer"):
            prepare_data([source], tokenizer, output=out, workers=1, **options)
    with pytest.raises(DataError, match="already holds"):
        prepare_data([source], Ids(512), output=out, workers=1)
    text = Path(source).read_text()
    Path(source).write_text(text.replace("speak", "spoke"))  # the same name, the same size
    with pytest.raises(DataError, match="already holds"):
        prepare_data([source], tokenizer, output=out, workers=1)
    assert contents(out) == before

    (out / MANIFEST_FILE).unlink()
    (out / PREPARE_PROGRESS).write_text(json.dumps({"settings": {"other": 1}, "shards": []}))
    with pytest.raises(DataError, match="holds the beginning of other work"):
        prepare_data([source], tokenizer, output=out, workers=1)


@pytest.mark.parametrize("name, content", [
    ("empty.txt", ""), ("blank.txt", " \n\t\n"), ("none.jsonl", '{"text": ""}\n'),
])
def test_nothing_to_tokenise_is_refused(tmp_path, tokenizer, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"no text in {name}: every document is blank"):
        prepare_data([str(tmp_path / name)], tokenizer, output=tmp_path / "out", workers=1)


def test_bad_input_in_the_middle_keeps_what_is_done(tmp_path, source, tokenizer):
    whole = Path(source).read_text()
    Path(source).write_text(whole[:-200] + "{broken\n")
    with pytest.raises(DataError, match="line 202: not JSON"):
        prepare_data([source], tokenizer, output=tmp_path / "out", workers=2, shard_tokens=500)
    assert json.loads((tmp_path / "out" / PREPARE_PROGRESS).read_text())["shards"]
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()


def test_usage(tmp_path, source, tokenizer):
    for options, sentence in [
        ({"workers": -1}, "workers must be at least 0"), ({"shard_tokens": 0}, "shard_tokens at least 1"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            prepare_data([source], tokenizer, output=tmp_path / "out", **options)
    with pytest.raises(ConfigError, match=r"the inputs name .*source.jsonl twice"):
        prepare_data([source, f"{tmp_path}/./source.jsonl"], tokenizer, output=tmp_path / "out")
    with pytest.raises(ConfigError, match="nothing to prepare"):
        prepare_data([], tokenizer, output=tmp_path / "out")


def test_places_that_cannot_be_written(tmp_path, source, tokenizer, monkeypatch):
    with pytest.raises(DataError, match=r"cannot make the folder .*source.jsonl/out: Not a directory"):
        prepare_data([source], tokenizer, output=Path(source) / "out", workers=1)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*shard_00000.bin: No space left on device\."):
        prepare_data([source], tokenizer, output=tmp_path / "out", workers=1)
    assert not list((tmp_path / "out").iterdir())


def test_worker_processes_import_no_jax(tmp_path, source, tokenizer):
    """Nor does the command itself: its start would take seconds longer, and each worker a few hundred megabytes more."""
    tokenizer.save(tmp_path / "tok")
    command = [sys.executable, "-m", "llama_jax", "prepare", "--input", source, "--tokenizer", str(tmp_path / "tok"),
               "--output", str(tmp_path / "out"), "--workers", "2"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},
                          text=True, capture_output=True, check=True)
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert imported.count("llama_jax.data.workers") >= 2  # in the command, and in each worker that had something to do
    assert not [name for name in imported if name.split(".")[0] in ("jax", "jaxlib", "flax", "grain")]


LONG_LINE = r"""
import re, sys
from pathlib import Path
from llama_jax.data.prepare import prepare_data
from llama_jax.tokenizer.load import load_tokenizer
manifest = prepare_data([sys.argv[1]], load_tokenizer(sys.argv[2]), output=Path(sys.argv[3]), workers=1)
print(manifest.bytes, int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads its peak memory from /proc")
@pytest.mark.parametrize("name", ["line.txt", "line.jsonl"])
def test_a_line_of_fifty_megabytes_takes_half_a_gigabyte(tmp_path, play, tokenizer, name):
    """The line has no space and no line end; SentencePiece alone would take 50 bytes of memory per character."""
    text = ("".join(play.split()) * 400)[:50_000_000]
    (tmp_path / name).write_text(text if name == "line.txt" else json.dumps({"text": text}))
    tokenizer.save(tmp_path)
    command = [sys.executable, "-c", LONG_LINE, tmp_path / name, tmp_path, tmp_path / "out"]
    output = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True).stdout
    size, megabytes = map(int, output.split())
    assert size == len(text) == 50_000_000
    assert megabytes < 1000
    ids = tokens_of(tmp_path / "out")
    assert tokenizer.decode(ids[1:200_000]) == text[: len(tokenizer.decode(ids[1:200_000]))]
