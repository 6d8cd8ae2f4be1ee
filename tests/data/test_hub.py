"""Data sets of the hub, streamed by the `datasets` library, which takes a folder OWNER/NAME here in the hub's place."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from llama_jax.__main__ import main
from llama_jax.data.hub import HubSplit
from llama_jax.data.inputs import find_inputs, fingerprint_inputs, read_input
from llama_jax.data.manifest import PREPARE_PROGRESS
from llama_jax.data.prepare import prepare_data
from llama_jax.data.sources import find_text_files
from llama_jax.errors import ConfigError, DataError

NAME = "hf://datasets/owner/name"


def test_names():
    assert HubSplit.parse(NAME) == HubSplit("owner/name", None, "train")
    assert HubSplit.parse(f"{NAME}/config-1.0:validation") == HubSplit("owner/name", "config-1.0", "validation")
    for name in (NAME, f"{NAME}/config", f"{NAME}:test", f"{NAME}/config:test"):
        assert HubSplit.parse(HubSplit.parse(name).name) == HubSplit.parse(name)


@pytest.mark.parametrize("name", ["hf://owner/name", "hf://datasets/name", f"{NAME}/a/b", f"{NAME}:", f"{NAME}/", "hf://"])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match="is not the name of a data set; it should read hf://datasets/OWNER/NAME"):
        find_inputs(name)


def test_inputs_are_files_then_data_sets(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert find_inputs(f"{NAME}:test", str(tmp_path), NAME) == [
        tmp_path / "a.txt", HubSplit("owner/name", None, "test"), HubSplit("owner/name", None, "train")]
    with pytest.raises(ConfigError, match=f"the inputs name {NAME}:train twice"):
        find_inputs(NAME, f"{NAME}:train")


def test_where_the_hub_is_not_read():
    with pytest.raises(DataError, match=f"{NAME} is not read here; `llama-jax prepare` streams it from the hub"):
        find_text_files(NAME)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"owner/name:train needs the `datasets` library; install it with pip install -e"):
        next(read_input(HubSplit.parse(NAME)))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """The folder that stands for the data set, in the working directory."""
    pytest.importorskip("datasets", reason="needs the extra hub")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "owner/name/data").mkdir(parents=True)
    return tmp_path / "owner/name"


def write_parquet(file: Path, column: pa.Array, name: str = "text") -> None:
    pyarrow.parquet.write_table(pa.table({"id": list(range(len(column))), name: column}), file)


def texts(name: str = NAME, **options) -> list[str]:
    [source] = find_inputs(name)
    return list(read_input(source, **options))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_splits_of_parquet_files(hub, kind, caplog):
    write_parquet(hub / "data/train-00000-of-00002.parquet", pa.array(["one", None, " \n"], kind))
    write_parquet(hub / "data/train-00001-of-00002.parquet", pa.array(["caf\u00e9 \U0001f600", ""], kind))
    write_parquet(hub / "data/validation-00000-of-00001.parquet", pa.array(["three"], kind))
    assert texts() == ["one", "caf\u00e9 \U0001f600"]
    assert texts(f"{NAME}:validation") == ["three"]
    assert "the folder owner/name in the working directory is read in place of the hub's data set" in caplog.text


def test_bytes_are_text_if_they_are_utf8(hub):
    write_parquet(hub / "data/train-00000-of-00001.parquet", pa.array(["caf\u00e9".encode()] * 1500 + [b"\xff"]))
    [source] = find_inputs(NAME)
    documents = read_input(source)
    assert [next(documents) for _ in range(1500)] == ["caf\u00e9"] * 1500
    with pytest.raises(DataError, match=r"owner/name:train, row 1501: the bytes are not UTF-8 \(0xff at offset 0\)"):
        next(documents)


def test_configs_and_json_lines(hub):
    for name, text in (("first", "of the first"), ("second", "of the second")):
        (hub / f"data/{name}.jsonl").write_text(json.dumps({"body": text, "id": 1}) + "\n")
    (hub / "README.md").write_text("---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files: data/{name}.jsonl\n" for name in ("first", "second")) + "---\n")
    assert texts(f"{NAME}/second", text_key="body") == ["of the second"]
    with pytest.raises(DataError, match=r"owner/name/second:train: no column 'text' \(found body, id\); name another"):
        texts(f"{NAME}/second")
    with pytest.raises(DataError, match=r"cannot read .*name/third:train: ValueError: .*third.* not found"):
        texts(f"{NAME}/third")
    with pytest.raises(DataError, match=r"cannot read .*name/first:test: ValueError: Bad split"):
        texts(f"{NAME}/first:test")


def test_no_network(hub):
    with pytest.raises(DataError, match=r"cannot read hf://datasets/nobody/nothing:train: ConnectionError: .*network") as caught:
        texts("hf://datasets/nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_damaged_file(hub):
    write_parquet(hub / "data/train-00000-of-00001.parquet", pa.array(["one"] * 5000))
    file = hub / "data/train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cannot read hf://datasets/owner/name:train: ") as caught:
        texts()
    assert "\n" not in str(caught.value)


class Killed(BaseException):
    """Takes the place of SIGKILL: no code handles it."""


def test_prepared_and_gone_on_with_like_files(hub, tmp_path, play, tokenizer):
    speeches = play.split("\n\n")[:200]
    write_parquet(hub / "data/train-00000-of-00002.parquet", pa.array(speeches[:90]))
    write_parquet(hub / "data/train-00001-of-00002.parquet", pa.array(speeches[90:]))
    (tmp_path / "same.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in speeches))
    options = {"workers": 1, "shard_tokens": 2000}
    prepare_data([str(tmp_path / "same.jsonl")], tokenizer, output=tmp_path / "files", **options)

    def stop(chunk):
        raise Killed

    with pytest.raises(Killed):
        prepare_data([NAME], tokenizer, output=tmp_path / "hub", report=stop, **options)
    assert not (tmp_path / "hub" / PREPARE_PROGRESS).exists()
    manifest = prepare_data([NAME], tokenizer, output=tmp_path / "hub", **options)
    assert manifest.settings["files"] == fingerprint_inputs(find_inputs(NAME))["files"]
    assert manifest.settings["files"][0][:2] == [f"{NAME}:train", 2]
    shards = [file.name for file in sorted((tmp_path / "files").glob("shard_*"))]
    assert len(shards) > 4
    for name in shards:
        assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "files" / name).read_bytes()

    write_parquet(hub / "data/train-00001-of-00002.parquet", pa.array(speeches[91:]))
    with pytest.raises(DataError, match="already holds data made from other text"):
        prepare_data([NAME], tokenizer, output=tmp_path / "hub", **options)


def test_a_tokenizer_is_trained_and_measured_on_a_data_set(hub, tmp_path, play, capsys):
    write_parquet(hub / "data/train-00000-of-00001.parquet", pa.array(play.split("\n\n")[:400]))
    assert main(["tokenizer", "train", "--input", NAME, "--output", "new", "--vocab_size", "400"]) == 0
    assert main(["tokenizer", "report", "--tokenizer", "new", "--input", f"plays={NAME}", "--output", "report"]) == 0
    figures = json.loads((tmp_path / "report/report.json").read_text())
    assert figures["new"]["sources"]["plays"]["documents"] == 400
