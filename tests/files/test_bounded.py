"""Files of more than was asked for are not read, and compressed ones only up to what texts become."""

import gzip
import io
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest

from llama_jax.data.sources import read_documents
from llama_jax.errors import ConfigError, DataError
from llama_jax.evaluation.data import OfficialFiles
from llama_jax.files import bounded, jsonl
from llama_jax.files.bounded import read_bounded
from llama_jax.files.json_kinds import EntriesOf, IfThere, ListOf, json_fault, show_value
from llama_jax.files.json_object import read_json_object


@pytest.fixture
def small(monkeypatch):
    """One MiB is the least that every compressed file may become, so that the tests write little."""
    monkeypatch.setattr(bounded, "_ALWAYS_EXPANDED", 1 << 20)


def test_files_up_to_a_size(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"x" * 100)
    assert read_bounded(file, 100) == b"x" * 100
    with pytest.raises(DataError, match="has 100 bytes, and a file of this kind at most 99; it is another, get it again"):
        read_bounded(file, 99)
    with pytest.raises(DataError, match=r"cannot read .*missing: No such file"):
        read_bounded(tmp_path / "missing")


def test_a_file_whose_size_the_system_does_not_tell_is_read_up_to_the_limit():
    from pathlib import Path

    with pytest.raises(DataError, match="has 1,001 bytes, and a file of this kind at most 1,000"):
        read_bounded(Path("/dev/zero"), 1000)


ZEROS = bytes(3 << 20)


@pytest.mark.parametrize("suffix, compress", [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_what_becomes_a_thousand_times_as_large_is_not_read_on(tmp_path, small, suffix, compress):
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / f"{name}{suffix}").write_bytes(compress(ZEROS))
        with pytest.raises(DataError, match="more than 100 times as large when it is decompressed, which no text does"):
            list(read_documents(tmp_path / f"{name}{suffix}"))


def test_zstd_and_parquet_too(tmp_path, small):
    with pyarrow.output_stream(tmp_path / "a.txt.zst", compression="zstd") as stream:
        stream.write(ZEROS)
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"{n} {'a' * 30_000}" for n in range(300)]}), tmp_path / "a.parquet",
                                compression="zstd", use_dictionary=False)
    for name in ("a.txt.zst", "a.parquet"):
        with pytest.raises(DataError, match="more than 100 times as large"):
            list(read_documents(tmp_path / name))


def test_evaluation_data(tmp_path, small):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(ZEROS))
    with pytest.raises(DataError, match="more than 100 times as large"):
        OfficialFiles(tmp_path).read_jsonl("a.jsonl.gz")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 1000))
    assert len(OfficialFiles(tmp_path).read_jsonl("b.jsonl.gz")) == 1000


def test_text_that_repeats_a_little_is_read(tmp_path, small):
    text = "".join(f"{n} the quick brown fox jumps over the lazy dog\n" for n in range(60_000))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert next(read_documents(tmp_path / "a.txt.gz")) == text


def test_lines_of_json_have_a_length(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_JSON_LINE", 1000)
    (tmp_path / "a.jsonl").write_text('{"text": "b"}\n' + json.dumps({"text": "c" * 2000}) + "\n")
    with pytest.raises(DataError, match=r"a.jsonl, line 2: longer than 0 MiB, which no line of JSON should be"):
        list(read_documents(tmp_path / "a.jsonl"))
    assert list(jsonl.lines_of(io.BytesIO(b"a\n\nb"), tmp_path)) == [b"a\n", b"\n", b"b"]


@pytest.mark.parametrize("content, sentence", [
    ("[" * 100_000, "is not JSON"), ('{"a": 1, "a": 2}', "says a twice, 1 and 2"), ("[1]", r"should hold an object, got \[1\]"),
    ('{"a": ' + "1" * 5000 + "}", "is not JSON"), ("\xff", "is not JSON"), ("", "is not JSON"),
])
def test_objects(tmp_path, content, sentence):
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=sentence):
        read_json_object(tmp_path / "a.json")


def test_kinds():
    kind = {"a": float, "b": IfThere(ListOf(str)), "c": EntriesOf((int, None))}
    assert json_fault({"a": 1, "c": {}}, kind) == "" == json_fault({"a": 0.5, "b": [], "c": {"x": None, "y": 3}, "d": 1}, kind)
    assert json_fault({"a": True, "c": {}}, kind) == "'a' should be a number, got True"
    assert json_fault({"a": 1, "b": ["x", 2], "c": {}}, kind) == "'b[1]' should be a text, got 2"
    assert json_fault({"a": 1, "c": {"x": "1"}}, kind) == "'c.x' should be a whole number or null, got '1'"
    assert json_fault({"c": {}}, kind) == "expected an object with 'a', 'c', and 'a' is missing"
    assert json_fault({"a": 2**63, "c": {}}, kind) == "'a' should be a number, got one of 64 bits"
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert json_fault({"a": deep, "c": {}}, kind) == "'a' should be a number, got a list nested too deeply to be shown"
    assert len(show_value("x" * 10_000)) < 200
    while deep:  # taken apart one by one, as the interpreter would take it apart recursively
        deep = deep[0]


def test_long_messages_are_cut():
    assert len(str(ConfigError("x" * 10_000))) < 2100 and str(DataError("short")) == "short"
