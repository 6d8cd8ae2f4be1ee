"""Held-out documents by hash: the split is a function of each text, whatever else there is and however often work stops."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.data import prepare as module
from llama_jax.data.hash_split import HashSplit, is_held_out
from llama_jax.data.manifest import PREPARE_PROGRESS, read_manifest, verify_shards
from llama_jax.data.prepare import prepare_data
from llama_jax.errors import ConfigError, DataError

FRACTION = 0.1


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Many chunks, as a large corpus has."""
    monkeypatch.setattr(module, "CHUNK_SIZE", 500)


def write_jsonl(file: Path, texts: list[str]) -> str:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def documents_of(folder: Path, tokenizer) -> list[str]:
    """The texts of a prepared folder, from its tokens."""
    texts = []
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        tokens = np.fromfile(folder / shard.file, manifest.dtype)
        starts = np.fromfile(folder / shard.starts, "<i8").tolist()
        texts += [tokenizer.decode(tokens[a + 1 : b - 1]) for a, b in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    return texts


def split_into(folder: Path, fraction: float = FRACTION) -> HashSplit:
    return HashSplit(folder / "train", folder / "heldout", fraction)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_rule():
    """SHA-256 of "abc" begins with ba7816bf8f01cfea (FIPS 180-2, appendix B.1): 0.72839 of 2^64."""
    assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf8f01cfea")
    assert is_held_out("abc", 0.72840) and not is_held_out("abc", 0.72838)
    assert not is_held_out("abc", 0.0)


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_holds_out_the_same_and_more(text, a, b):
    assert is_held_out(text, min(a, b)) <= is_held_out(text, max(a, b))


def test_every_document_is_in_one_folder(tmp_path, play, tokenizer):
    texts = play.split("\n\n")[:400]
    split = split_into(tmp_path)
    manifest = prepare_data([write_jsonl(tmp_path / "a.jsonl", texts)], tokenizer, output=split, workers=1, shard_tokens=2000)
    assert documents_of(split.train, tokenizer) == [text for text in texts if not is_held_out(text, FRACTION)]
    assert documents_of(split.heldout, tokenizer) == [text for text in texts if is_held_out(text, FRACTION)]
    assert manifest == read_manifest(split.train)
    parts = [verify_shards(folder) for folder in (split.train, split.heldout)]
    assert [part.settings["part"] for part in parts] == ["train", "heldout"]
    assert {part.settings["heldout_by_hash"] for part in parts} == {FRACTION}
    assert sum(part.documents for part in parts) == 400
    assert sum(part.bytes for part in parts) == sum(len(text.encode()) for text in texts)


def test_the_share_is_that_of_fair_draws():
    """10,000 different documents: within five standard deviations of the binomial distribution."""
    held_out = sum(is_held_out(f"document {number}", FRACTION) for number in range(10_000))
    assert abs(held_out - 1000) < 5 * math.sqrt(10_000 * FRACTION * (1 - FRACTION))


def test_added_data_moves_no_document(tmp_path, play, tokenizer):
    texts = play.split("\n\n")[:300]
    more = ["a new first document", *texts[::-1], "and a new last one", *play.split("\n\n")[300:500]]
    for name, some in (("few", texts), ("more", more)):
        (tmp_path / name).mkdir()
        prepare_data([write_jsonl(tmp_path / f"{name}.jsonl", some)], tokenizer, output=split_into(tmp_path / name), workers=1)
    few, many = (set(documents_of(tmp_path / name / "heldout", tokenizer)) for name in ("few", "more"))
    assert few == many & set(texts) and few
    assert not many & set(documents_of(tmp_path / "more/train", tokenizer))


def test_duplicates_fall_on_the_same_side(tmp_path, play, tokenizer):
    texts = play.split("\n\n")[:100]
    split = split_into(tmp_path)
    prepare_data([write_jsonl(tmp_path / "a.jsonl", texts * 3)], tokenizer, output=split, workers=1)
    train, heldout = (documents_of(folder, tokenizer) for folder in (split.train, split.heldout))
    assert len(train) + len(heldout) == 300 and not set(train) & set(heldout)


class Killed(BaseException):
    """Takes the place of SIGKILL: no code handles it."""


@pytest.mark.parametrize("chunks", [1, 17, 40, 55])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(tmp_path, play, tokenizer, chunks):
    source, seen = write_jsonl(tmp_path / "a.jsonl", play.split("\n\n")[:300]), []
    options = {"workers": 1, "shard_tokens": 900}
    prepare_data([source], tokenizer, output=split_into(tmp_path / "whole"), **options)

    def stop(chunk):
        seen.append(chunk)
        if len(seen) == chunks:
            raise Killed

    with pytest.raises(Killed):
        prepare_data([source], tokenizer, output=split_into(tmp_path / "out"), report=stop, **options)
    kept = 0
    for part in ("train", "heldout"):
        if (tmp_path / "out" / part / PREPARE_PROGRESS).exists():
            progress = json.loads((tmp_path / "out" / part / PREPARE_PROGRESS).read_text())
            kept += sum(shard["documents"] for shard in progress["shards"])
    seen.clear()
    prepare_data([source], tokenizer, output=split_into(tmp_path / "out"), report=seen.append, **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert sum(chunk.documents for chunk in seen) == 300 - kept
    prepare_data([source], tokenizer, output=split_into(tmp_path / "out"), report=lambda chunk: pytest.fail("done"), **options)


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_stopped_between_the_two_manifests(tmp_path, play, tokenizer, part):
    """The folder that is finished stays as it is, and the other is made."""
    source = write_jsonl(tmp_path / "a.jsonl", play.split("\n\n")[:300])
    prepare_data([source], tokenizer, output=split_into(tmp_path / "whole"), workers=1)
    wanted = contents(tmp_path / "whole")
    for file in (tmp_path / "whole" / part).iterdir():
        file.unlink()
    prepare_data([source], tokenizer, output=split_into(tmp_path / "whole"), workers=1)
    assert contents(tmp_path / "whole") == wanted


def test_four_workers_write_what_one_writes(tmp_path, play, tokenizer):
    source = write_jsonl(tmp_path / "a.jsonl", play.split("\n\n")[:400])
    for workers in (1, 4):
        prepare_data([source], tokenizer, output=split_into(tmp_path / str(workers)), workers=workers, shard_tokens=2000)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_another_split_is_other_work(tmp_path, play, tokenizer):
    source = write_jsonl(tmp_path / "a.jsonl", play.split("\n\n")[:300])
    prepare_data([source], tokenizer, output=split_into(tmp_path), workers=1)
    before = contents(tmp_path)
    for output in (split_into(tmp_path, 0.2), tmp_path / "train", HashSplit(tmp_path / "heldout", tmp_path / "train", FRACTION)):
        with pytest.raises(DataError, match="already holds data made from other text, settings or tokenizer"):
            prepare_data([source], tokenizer, output=output, workers=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, math.nan])
def test_fractions_that_split_nothing(tmp_path, fraction):
    with pytest.raises(ConfigError, match="heldout_fraction must be between 0 and 1, got"):
        split_into(tmp_path, fraction)


def test_mistakes(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="out cannot hold both the documents to train on and those held out"):
        HashSplit(tmp_path / "out", tmp_path / "x/../out", FRACTION)
    source = write_jsonl(tmp_path / "a.jsonl", ["abc"])
    with pytest.raises(DataError, match=r"heldout_fraction 0\.1 holds out 0 of 1 documents; choose another"):
        prepare_data([source], tokenizer, output=split_into(tmp_path), workers=1)
    with pytest.raises(DataError, match=r"heldout_fraction 0\.9 holds out 1 of 1 documents; choose another"):
        prepare_data([source], tokenizer, output=split_into(tmp_path / "other", 0.9), workers=1)
