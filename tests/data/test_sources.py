"""The same documents from every format, and one clear sentence for whatever cannot be read."""

import gzip
import io
import json
import lzma
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError, DataError

TEXTS = ["one\ntwo\r\n", " caf\u00e9 \U0001f600\t", "a" * 5000]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstd}


def jsonl(texts: list[str], key: str = "text") -> bytes:
    return "".join(json.dumps({key: text, "id": n}) + "\n" for n, text in enumerate(texts)).encode()


def parquet(texts: list[str | None], kind: pa.DataType | None = None) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"id": list(range(len(texts))), "text": pa.array(texts, kind)}), sink)
    return sink.getvalue()


def read(file: Path, **options) -> list[str]:
    return [text for f in find_text_files(str(file)) for text in read_documents(f, **options)]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_every_format_gives_the_same_documents(tmp_path, suffix):
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.txt{suffix}").write_bytes(COMPRESS[suffix](text.encode()))
    (tmp_path / f"lines.jsonl{suffix}").write_bytes(COMPRESS[suffix](jsonl(TEXTS)))
    (tmp_path / "table.parquet").write_bytes(parquet(TEXTS))
    (tmp_path / "large.parquet").write_bytes(parquet(TEXTS, pa.large_string()))
    (tmp_path / "words.parquet").write_bytes(parquet(TEXTS, pa.dictionary(pa.int32(), pa.string())))
    (tmp_path / "views.parquet").write_bytes(parquet(TEXTS, pa.string_view()))
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())):
        (tmp_path / "bytes.parquet").write_bytes(parquet([text.encode() for text in TEXTS], kind))
        assert read(tmp_path / "bytes.parquet") == TEXTS, kind
    assert [text for n in range(3) for text in read(tmp_path / f"{n}.txt{suffix}")] == TEXTS
    for name in (f"lines.jsonl{suffix}", "table.parquet", "large.parquet", "words.parquet", "views.parquet"):
        assert read(tmp_path / name) == TEXTS, name


def test_documents_of_a_text_file_by_a_separator(tmp_path):
    (tmp_path / "a.txt").write_text("<|end|>".join(TEXTS) + "<|end|> <|end|>")
    (tmp_path / "b.jsonl").write_bytes(jsonl(["one<|end|>two"]))
    assert read(tmp_path / "a.txt", separator="<|end|>") == TEXTS
    assert read(tmp_path / "b.jsonl", separator="<|end|>") == ["one<|end|>two"]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_compressed_files_joined_end_to_end_are_read_to_the_end(tmp_path, suffix):
    parts = [COMPRESS[suffix](jsonl([text])) for text in TEXTS]
    (tmp_path / f"joined.jsonl{suffix}").write_bytes(b"".join(parts))
    assert read(tmp_path / f"joined.jsonl{suffix}") == TEXTS


@pytest.mark.parametrize("name", ["x.txt.gz", "x.jsonl.xz", "x.jsonl.zst", "x.txt.zst", "x.parquet"])
def test_no_cut_short_file_passes_for_whole(tmp_path, name):
    """A truncated file must never give fewer documents without an error."""
    suffix = Path(name).suffix
    whole = parquet(TEXTS) if suffix == ".parquet" else COMPRESS[suffix](jsonl([f"{n} {n * n}" for n in range(50)]))
    for length in range(1, len(whole), max(len(whole) // 60, 1)):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"{name} is damaged or not what its name says \(.+\); make it again"):
            read(tmp_path / name)


NAMES = st.sampled_from(["x.txt.gz", "x.txt.xz", "x.txt.zst", "x.parquet", "x.jsonl"])


@given(data=st.binary(max_size=200), name=NAMES)
def test_garbage_is_refused_in_one_sentence(tmp_path_factory, data, name):
    file = tmp_path_factory.getbasetemp() / name
    file.write_bytes(b"\x81garbage" + data)
    with pytest.raises(DataError, match=name) as caught:
        read(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("name, content, sentence", [
    ("a.txt", b"good\n\xff\xfe", r"a.txt is not UTF-8: byte 0xff at offset 5; convert it first"),
    ("a.jsonl", jsonl(["x"]) + b'{"text": "\xc3("}', r"a.jsonl is not UTF-8: byte 0xc3 at offset 33"),
    ("a.jsonl", jsonl(["x"]) + b'{"text": "y"\n', r"a.jsonl, line 2: not JSON \(.* at column \d+\); mend or remove"),
    ("a.jsonl", b"[" * 100_000, r"a.jsonl, line 1: not JSON"),
    ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", r"a.jsonl, line 1: not JSON"),
    ("a.jsonl", jsonl(["x"], "body"), r"line 1: no string under 'text' \(found body, id\); name another with"),
    ("a.jsonl", b'{"text": null}', r"line 1: no string under 'text' \(found text\)"),
    ("a.jsonl", b'["text"]', r"line 1: no string under 'text' \(found a list\)"),
    ("a.jsonl", b'{"text": "a\\ud800b"}', r"line 1: 'text' holds half a surrogate pair, '\\ud800'"),
    ("a.parquet", parquet(["x"]).replace(b"text", b"body"), r"no column 'text' \(found id, body\); name another"),
    ("a.parquet", parquet([1, 2], pa.int64()), r"column 'text' holds int64, not strings"),
    ("a.parquet", parquet([["x"]]), r"column 'text' holds list<.*>, not strings"),
    ("a.parquet", parquet([{"text": "x"}]), r"column 'text' holds struct<text: string>, not strings"),
    ("a.parquet", parquet([None]), r"column 'text' holds null, not strings"),
    ("a.parquet", parquet([b"caf\xc3\xa9", b"x\xff"]), r"a.parquet, row 2: the bytes are not UTF-8 \(0xff at offset 1\)"),
    ("a.txt", "a text".encode("utf-16"), r"a.txt is not UTF-8 but UTF-16; convert it first, for example with iconv -f UTF-16"),
    ("a.txt", "a text".encode("utf-16-le"), "a.txt is not UTF-8 but UTF-16"),
    ("a.jsonl", jsonl(["x"]).decode().encode("utf-16-be"), "a.jsonl is not UTF-8 but UTF-16"),
    ("a.csv", b"x", r"holds nothing to read; known are .txt, .jsonl and .parquet"),
])
def test_bad_content_is_named(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_documents_before_a_broken_line_are_given(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(["one", "two"]) + b"{")
    found = []
    with pytest.raises(DataError, match="line 3"):
        found.extend(read_documents(tmp_path / "a.jsonl"))
    stream = read_documents(tmp_path / "a.jsonl")
    assert [next(stream), next(stream)] == ["one", "two"]


def test_missing_places(tmp_path):
    for path, sentence in [
        (tmp_path / "none.txt", "none.txt does not exist"),
        (tmp_path, "holds nothing to read"),
        ("embedded:hamlet", "no embedded text 'embedded:hamlet'"),
    ]:
        with pytest.raises(DataError, match=sentence):
            find_text_files(str(path))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match="holds nothing to read"):
        find_text_files(str(tmp_path))
    with pytest.raises(DataError, match=r"cannot read .*folder.txt: Is a directory"):
        list(read_documents(tmp_path / "folder.txt"))


def test_blank_documents_and_marks_of_byte_order_are_no_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl(["", "one", " \n\t", "two"]) + b"\n  \n")
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfthree")
    (tmp_path / "c.txt").write_bytes(b" \n\n")
    (tmp_path / "d.txt").write_bytes(b"")
    (tmp_path / "e.parquet").write_bytes(parquet([None, "four", ""]))
    assert read(tmp_path) == ["one", "two", "three", "four"]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for name in ("b.txt", "a.jsonl", "c/a.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jsonl(["x"]))
    assert [str(file.relative_to(tmp_path)) for file in find_text_files(str(tmp_path))] == ["a.jsonl", "b.txt", "c/a.txt"]


def test_another_key(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(["one"], "body"))
    assert read(tmp_path / "a.jsonl", text_key="body") == ["one"]


def test_the_embedded_text_is_tiny_shakespeare():
    (text,) = read_documents(find_text_files("embedded:tinyshakespeare")[0])
    assert len(text) == 1_115_394 and text.startswith("First Citizen:\nBefore we proceed any further")


def long_window(data: bytes, bits: int) -> bytes:
    """A zstd frame of one stored block whose window is 2**bits bytes (RFC 8878, section 3.1.1.1.2)."""
    return b"\x28\xb5\x2f\xfd\0" + bytes([bits - 10 << 3]) + (len(data) << 3 | 1).to_bytes(3, "little") + data


@pytest.mark.parametrize("before", [b"", zstd(b"x\n"), b"\x50\x2a\x4d\x18\x02\0\0\0ab"])
def test_a_long_window_is_not_called_damage(tmp_path, before):
    """This holds, too, if frames with an ordinary window, or skippable frames, come before."""
    (tmp_path / "a.txt.zst").write_bytes(before + long_window(b"text", 27))
    assert read(tmp_path)[0].endswith("text")
    (tmp_path / "a.txt.zst").write_bytes(before + long_window(b"text", 31))
    with pytest.raises(DataError, match=r"a window above 128 MiB.* compress it again: zstd -dc --long=31 a.txt.zst \| zstd"):
        read(tmp_path)


@pytest.fixture
def untidy(tmp_path) -> Path:
    """A folder with the traces of notebooks, git, macOS, editors and links."""
    folder = tmp_path / "corpus"
    for name in ("train.jsonl", ".ipynb_checkpoints/copy.jsonl", ".git/notes.txt", ".hidden.txt", "deep/._more.jsonl",
                 "deep/more.jsonl", "__MACOSX/train.jsonl", "notes.md", "train.jsonl~", "X.TXT", "elsewhere/far.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jsonl([name]))
    (folder / "elsewhere").rename(tmp_path / "elsewhere")
    (folder / "far").symlink_to(tmp_path / "elsewhere")
    (folder / "deep/loop").symlink_to(folder)
    (folder / "gone.txt").symlink_to(tmp_path / "gone.txt")
    (folder / "near.jsonl").symlink_to(tmp_path / "elsewhere/far.jsonl")
    return folder


def test_what_is_hidden_is_left_out_and_named(untidy, caplog):
    assert read(untidy) == ["deep/more.jsonl", "elsewhere/far.jsonl", "train.jsonl"]
    [said] = {record.message for record in caplog.records}
    assert said == (f"{untidy}: 11 left out (hidden, a link to a folder, or of another format): .git/, .hidden.txt, "
                    ".ipynb_checkpoints/, X.TXT, __MACOSX/ and 6 more")


def test_what_is_named_itself_is_read_though_it_is_hidden(untidy, caplog):
    assert read(untidy / ".hidden.txt") and read(untidy / ".git") and not caplog.records
    (untidy / "only").mkdir()
    (untidy / "only/.x.txt").write_text("x")
    with pytest.raises(DataError, match=r"only holds nothing to read \(left out: .x.txt\); known are"):
        find_text_files(str(untidy / "only"))


def test_a_file_is_read_once_whatever_links_there_are(untidy):
    (untidy / "again.jsonl").symlink_to("train.jsonl")
    with pytest.raises(ConfigError, match=r"the inputs name .*train.jsonl twice; name every file once"):
        find_text_files(str(untidy))
    with pytest.raises(ConfigError, match=r"far.jsonl twice"):
        find_text_files(str(untidy / "near.jsonl"), str(untidy.parent / "elsewhere"))


def test_a_folder_that_cannot_be_opened_is_named(untidy, monkeypatch):
    real = os.scandir

    def locked(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match=r"cannot read .*corpus/deep: Permission denied\."):
        find_text_files(str(untidy))


def test_the_column_is_found_by_its_name(tmp_path):
    """A column is not found by its place, because Parquet reads a dot in a name as the way into a struct."""
    pyarrow.parquet.write_table(pa.table({"a": [{"b": "struct"}], "a.b": ["text"]}), tmp_path / "x.parquet")
    assert read(tmp_path, text_key="a.b") == ["text"]
    pyarrow.parquet.write_table(pa.table([pa.array(["x"]), pa.array(["y"])], names=["text", "text"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet: 2 columns are called 'text'; rename all but one"):
        read(tmp_path)
