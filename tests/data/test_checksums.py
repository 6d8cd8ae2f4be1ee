"""Every file of a prepared folder has a checksum, and damage that leaves its size alone is found and named."""

import hashlib
import json
from pathlib import Path

import pytest

from llama_jax.data.manifest import MANIFEST_FILE, PREPARE_PROGRESS, read_manifest, verify_shards
from llama_jax.data.prepare import prepare_data
from llama_jax.errors import DataError


@pytest.fixture
def source(tmp_path, play) -> str:
    file = tmp_path / "play.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in play.split("\n\n")[:200]))
    return str(file)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def flip_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def drop_checksums(shards: list[dict]) -> list[dict]:
    """The shards as earlier versions listed them."""
    return [{name: value for name, value in shard.items() if "sha256" not in name} for shard in shards]


def unfinished(folder: Path, shards: int) -> None:
    """Take a finished folder back to where only its first shards were."""
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    progress = {"settings": manifest["settings"] | {"tokenizer": manifest["tokenizer_sha256"]},
                "shards": manifest["shards"][:shards]}
    (folder / PREPARE_PROGRESS).write_text(json.dumps(progress))
    (folder / MANIFEST_FILE).unlink()


def test_the_manifest_has_the_hash_of_every_file(tmp_path, source, tokenizer):
    manifest = prepare_data([source], tokenizer, output=tmp_path / "out", workers=1, shard_tokens=2000)
    assert len(manifest.shards) > 3
    for shard in manifest.shards:
        assert shard.sha256 == hashlib.sha256((tmp_path / "out" / shard.file).read_bytes()).hexdigest()
        assert shard.starts_sha256 == hashlib.sha256((tmp_path / "out" / shard.starts).read_bytes()).hexdigest()
    seen = []
    assert verify_shards(tmp_path / "out", report=seen.append) == manifest
    assert tuple(seen) == manifest.shards


@pytest.mark.parametrize("name", ["shard_00001.bin", "shard_00002.starts"])
def test_damage_of_the_same_size_is_named(tmp_path, source, tokenizer, name):
    prepare_data([source], tokenizer, output=tmp_path / "out", workers=1, shard_tokens=2000)
    flip_bit(tmp_path / "out" / name)
    read_manifest(tmp_path / "out")  # it looks at sizes only
    with pytest.raises(DataError, match=rf"out/{name} is damaged: its checksum is not the one in manifest.json"):
        verify_shards(tmp_path / "out")


@pytest.mark.parametrize("name", ["shard_00001.bin", "shard_00001.starts"])
def test_a_damaged_shard_is_made_again_when_work_goes_on(tmp_path, source, tokenizer, name):
    prepare_data([source], tokenizer, output=tmp_path / "out", workers=1, shard_tokens=2000)
    wanted, made = contents(tmp_path / "out"), []
    unfinished(tmp_path / "out", 3)
    flip_bit(tmp_path / "out" / name)
    prepare_data([source], tokenizer, output=tmp_path / "out", workers=1, shard_tokens=2000, report=made.append)
    assert contents(tmp_path / "out") == wanted
    manifest = read_manifest(tmp_path / "out")
    assert sum(chunk.documents for chunk in made) == manifest.documents - manifest.shards[0].documents


def test_folders_of_earlier_versions_load_and_go_on(tmp_path, source, tokenizer):
    """They list no checksums: their shards are kept, and those made now have them."""
    prepare_data([source], tokenizer, output=tmp_path / "out", workers=1, shard_tokens=2000)
    manifest = json.loads((tmp_path / "out" / MANIFEST_FILE).read_text())
    whole = read_manifest(tmp_path / "out")
    earlier = {name: value for name, value in manifest.items() if name != "sha256"}
    (tmp_path / "out" / MANIFEST_FILE).write_text(json.dumps(earlier | {"shards": drop_checksums(manifest["shards"])}))
    old = verify_shards(tmp_path / "out")
    assert old.tokens == whole.tokens and not any(shard.sha256 or shard.starts_sha256 for shard in old.shards)

    unfinished(tmp_path / "out", 2)
    shards = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("shard_0000[01].*")}
    again = prepare_data([source], tokenizer, output=tmp_path / "out", workers=1, shard_tokens=2000)
    assert shards == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("shard_0000[01].*")}
    assert again.shards == (*old.shards[:2], *whole.shards[2:])


def test_a_missing_file_is_named(tmp_path, source, tokenizer):
    prepare_data([source], tokenizer, output=tmp_path / "out", workers=1, shard_tokens=2000)
    (tmp_path / "out/shard_00001.starts").unlink()
    with pytest.raises(DataError, match=r"shard_00001.starts should hold the beginnings of \d+ documents"):
        verify_shards(tmp_path / "out")
