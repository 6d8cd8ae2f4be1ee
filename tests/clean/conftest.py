"""What the tests of cleaning share: the documents and counts of an output folder."""

import io
import json
from pathlib import Path

import pytest
import zstandard


@pytest.fixture
def documents():
    """A function: the records of an output folder, in order."""
    def read(output: Path) -> list[dict]:
        records = []
        for file in sorted(output.glob("*.jsonl.zst")):
            with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
                records += [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8")]
        return records
    return read


@pytest.fixture
def untimed():
    """A function: everything that an output folder offers, without times, as {name: bytes}."""
    def read(output: Path) -> dict[str, bytes]:
        contents = {file.name: file.read_bytes() for file in output.iterdir() if file.is_file()}
        counts = json.loads(contents["report.json"])
        for step in counts:
            assert step.pop("seconds") >= 0
            assert step["documents_in"] == step["documents_out"] + sum(number for number, _ in step["dropped"].values()), step
        contents["report.json"] = json.dumps(counts).encode()
        return contents
    return read
