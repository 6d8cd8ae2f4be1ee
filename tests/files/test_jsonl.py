"""JSON lines are read whatever editors put around them, and written as they come."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.errors import DataError
from llama_jax.files.jsonl import json_line, read_jsonl, write_jsonl

MARK = b"\xef\xbb\xbf"
ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Text whose characters include halves of surrogate pairs."""
JSON = st.recursive(st.none() | st.integers() | ANY_TEXT, lambda x: st.lists(x) | st.dictionaries(ANY_TEXT, x))


def test_marks_line_ends_and_blank_lines_are_no_content(tmp_path):
    rows = [{"prompt": "one"}, {"prompt": "\ufefftwo\u2028\x85"}, {"prompt": "three"}]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    for number, content in enumerate((
        b"\n".join(lines), MARK + b"\n".join(lines) + b"\n", b"\r\n".join(lines) + b"\r\n", b"\n \n".join(lines) + b"\n\n\t\n",
        b"".join(MARK + line + b"\r\n" for line in lines),  # files joined end to end
    )):
        (tmp_path / f"{number}.jsonl").write_bytes(content)
        assert read_jsonl(tmp_path / f"{number}.jsonl", ("prompt",)) == rows


@pytest.mark.parametrize("content, sentence", [
    (b'{"a": "x"}\n{"a": "\\ud83d"}', r"line 2: 'a' holds half a surrogate pair, '\\ud83d', which UTF-8 cannot encode"),
    ('{"a": "x"}'.encode("utf-16"), "line 1: not UTF-8 but UTF-16"),
    ('{"a": "x"}'.encode("utf-16-le"), "line 1: not UTF-8 but UTF-16"),
    (b'{"a": "\0"}', r"line 1: not JSON \(Invalid control character"),
    (b"[" * 100_000, r"line 1: not JSON"), (b'{"a": ' + b"1" * 5000 + b"}", r"line 1: not JSON \(Exceeds the limit"),
    (b'\n\n["a"]', "line 3: expected an object with the text 'a'"), (b'{"a": null}', "line 1: expected an object"),
    (b'{"a": "x"', r"line 1: not JSON \(Expecting ',' delimiter at column 10\)"),
])
def test_bad_lines_are_named(tmp_path, content, sentence):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_jsonl(tmp_path / "a.jsonl", ("a",))
    assert "\n" not in str(caught.value)


@given(st.dictionaries(ANY_TEXT, JSON))
def test_every_row_comes_back(row):
    """Rows with halves of surrogate pairs are included, because rows that are only passed on may contain them."""
    assert json.loads(json_line(row)) == json.loads(json.dumps(row)) and json_line(row).count("\n") == 1


def test_rows_are_written_as_they_come(tmp_path):
    """Peak memory does not grow with the number of rows, of which 40 MB are written here."""
    peaks = []
    for count in (400, 4000):
        tracemalloc.start()
        write_jsonl(tmp_path / "x.jsonl", ({"text": f"{n}" + "x" * 10_000} for n in range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len((tmp_path / "x.jsonl").read_bytes().splitlines()) == 4000 and peaks[1] < peaks[0] + 100_000 < 1_000_000
