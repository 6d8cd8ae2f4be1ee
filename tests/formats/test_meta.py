"""Meta folders: the published maths on our export, shards of every kind, and files that are damaged or hostile."""

import io
import json
import os
import pickle
import pickletools
import shutil
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llama_jax.config import RopeScaling
from llama_jax.config.presets import PRESETS
from llama_jax.conversion.convert import convert_weights
from llama_jax.conversion.verify import logits_of_source
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.base import EMBEDDING_TENSOR
from llama_jax.formats.meta import MetaFolder
from llama_jax.formats.open import open_source
from llama_jax.formats.params_json import config_from_meta, config_to_meta, meta_ffn_dim
from llama_jax.formats.torch_pickle import state_dict_pickle
from llama_jax.formats.torchfile import TorchFile, TorchWriter
from tests.formats.memory import MemorySource, config_of
from tests.golden import meta

STRETCHED = {"rope_theta": 500_000.0, "rope_scaling": RopeScaling("llama3"), "max_length": 131_072}


@pytest.mark.parametrize("kv_heads, shards, fields", [
    (8, 1, {}), (4, 4, {"tied_embeddings": True}), (1, 8, {"rope_theta": 123.0}), (2, 2, STRETCHED),
])
def test_metas_own_maths_agrees_with_our_load(tmp_path, tokenizer, kv_heads, shards, fields):
    memory = MemorySource(config_of(kv_heads, **fields), tokenizer)
    convert_weights(memory, tmp_path / "meta", "meta", meta_shards=shards)
    tokens_BT = np.random.default_rng(0).integers(0, 512, (2, 40))
    wanted = meta.logits(*meta.load(tmp_path / "meta"), tokens_BT)
    source = open_source(tmp_path / "meta")
    assert source.config.rope_scaling == memory.config.rope_scaling
    np.testing.assert_allclose(logits_of_source(source, tokens_BT), wanted, atol=1e-4)


def test_a_vocabulary_split_by_rows_is_read_too(tmp_path, memory):
    """Llama 3's code divides the embedding by rows, LLaMA's by columns."""
    convert_weights(memory, tmp_path / "meta", "meta", meta_shards=2)
    files = sorted((tmp_path / "meta").glob("*.pth"))
    parts = [TorchFile(file) for file in files]
    tensors = [{name: np.array(part.read(name)) for name in part.shapes()} for part in parts]
    whole = np.concatenate([shard["tok_embeddings.weight"] for shard in tensors], 1)
    for file, shard, rows in zip(files, tensors, np.split(whole, 2), strict=True):
        shard["tok_embeddings.weight"] = rows
        with TorchWriter(file, {name: x.shape for name, x in shard.items()}, dtype=np.dtype(np.float32)) as writer:
            for name, x in shard.items():
                writer.write(name, x)
    source = open_source(tmp_path / "meta")
    np.testing.assert_array_equal(source.read(EMBEDDING_TENSOR), memory.read(EMBEDDING_TENSOR))


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("tiny",)])
def test_params_json_of_every_preset_means_itself(tmp_path, name):
    config = PRESETS[name]
    if name.startswith("vanilla"):
        with pytest.raises(ConfigError, match=r"params.json of Meta cannot express this model \(model\."):
            config_to_meta(config)
        return
    values = config_to_meta(config)
    assert meta_ffn_dim(config.dim, values["multiple_of"], multiplier=values.get("ffn_dim_multiplier")) == config.ffn_dim
    back = config_from_meta(values, tmp_path, vocab_size=config.vocab_size, ffn_dim=config.ffn_dim, tied=False)
    assert replace(back, max_length=config.max_length) == config


@pytest.mark.parametrize("values, ffn", [  # as released
    ({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-06, "vocab_size": -1}, 11_008),
    ({"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80,
      "norm_eps": 1e-05, "vocab_size": -1}, 28_672),
    ({"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 1024,
      "ffn_dim_multiplier": 1.3, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": True}, 14_336),
])
def test_released_params_json(tmp_path, values, ffn):
    vocab = max(values["vocab_size"], 0) or 32_000
    config = config_from_meta(values, tmp_path, vocab_size=vocab, ffn_dim=ffn, tied=False)
    assert (config.ffn_dim, config.num_layers) == (ffn, values["n_layers"])
    assert config.rope_scaling.kind == ("llama3" if values.get("use_scaled_rope") else "none")


@pytest.mark.parametrize("config, sentence", [
    (config_of(head_dim=10), "heads of width dim / num_heads = 8, and this model's are 10 wide"),
    (config_of(rope_scaling=RopeScaling("linear")), "cannot express this rope scaling"),
    (config_of(ffn_dim=177), None), (config_of(dim=8192, ffn_dim=28_672), None), (config_of(ffn_dim=1), None),
])
def test_what_metas_format_cannot_hold(config, sentence):
    if sentence:
        with pytest.raises(ConfigError, match=sentence):
            config_to_meta(config)
    else:
        values = config_to_meta(config)
        assert meta_ffn_dim(config.dim, values["multiple_of"], multiplier=values.get("ffn_dim_multiplier")) == config.ffn_dim


def test_shards_must_divide(tmp_path, memory):
    with pytest.raises(ConfigError, match=r"cannot be divided into 3 Meta shards; choose another meta_shards"):
        convert_weights(memory, tmp_path / "meta", "meta", meta_shards=3)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path, folders) -> Path:
    """Two shards, to be spoilt."""
    shutil.copytree(folders["meta"], tmp_path / "meta")
    return tmp_path / "meta"


def edit(folder: Path, **values) -> None:
    old = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps(old | values))


def lose_shard(folder: Path, number: int) -> None:
    (folder / f"consolidated.{number:02d}.pth").unlink()


def flip(folder: Path) -> None:
    """A bit in the midst of the numbers."""
    file = folder / "consolidated.01.pth"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def outside(folder: Path) -> None:
    (folder / "consolidated.01.pth").rename(folder.parent / "elsewhere")
    (folder / "consolidated.01.pth").symlink_to(folder.parent / "elsewhere")


def rewrite(folder: Path, change) -> None:
    file = TorchFile(folder / "consolidated.00.pth")
    tensors = {name: np.array(file.read(name)) for name in file.shapes()}
    change(tensors)
    with TorchWriter(file.path, {n: x.shape for n, x in tensors.items()}, dtype=np.dtype(np.float32)) as writer:
        for name, x in tensors.items():
            writer.write(name, x)


def put_nan(tensors: dict) -> None:
    tensors["layers.1.attention.wo.weight"][3, 3] = np.nan


DAMAGE = {
    "first shard gone": (lambda f: lose_shard(f, 0), r"lacks consolidated.00.pth, which belongs to the 2 files"),
    "last shard gone": (lambda f: lose_shard(f, 1), r"\(512, 32\) in each of 1 .* says dim 64; is a file missing"),
    "truncated": (lambda f: os.truncate(f / "consolidated.01.pth", 9000), "consolidated.01.pth is damaged, or not in torch's"),
    "empty": (lambda f: os.truncate(f / "consolidated.01.pth", 0), "consolidated.01.pth is damaged"),
    "a bit": (flip, r"consolidated.01.pth is damaged.*\(Bad CRC"),
    "a link": (outside, "consolidated.01.pth leads outside of"),
    "NaN": (lambda f: rewrite(f, put_nan), r"layers.1.attention.wo.weight in .* holds 1 value\(s\) that are NaN"),
    "a tensor gone": (lambda f: rewrite(f, lambda t: t.pop("norm.weight")), "consolidated.00.pth in .* lacks norm.weight"),
    "a tensor more": (lambda f: rewrite(f, lambda t: t.update(bias=np.zeros(3))), "holds bias, which a LLaMA of 3 layers"),
    "too few layers": (lambda f: edit(f, n_layers=2), r"holds layers.2.* which a LLaMA of 2 layers does not have"),
    "too many layers": (lambda f: edit(f, n_layers=4), r"lacks layers.3.attention_norm.weight"),
    "another width": (lambda f: edit(f, dim=128), r"embeddings.weight in .* has the shape \(512, 32\) in each of 2 .* dim 128"),
    "another ffn": (lambda f: edit(f, multiple_of=1024), "do not give the feed-forward width 176"),
    "other heads": (lambda f: edit(f, n_kv_heads=8), r"wk.weight in .* has the shape \(32, 64\) over 2 .* asks for \(64"),
    "another vocabulary": (lambda f: edit(f, vocab_size=99), "vocab_size is 99, and the embedding has 512 rows"),
    "an unknown key": (lambda f: edit(f, n_experts=8), "n_experts asks for something that this model does not have"),
    "a wrong value": (lambda f: edit(f, dim="big"), "says dim 'big'"),
    "a wrong count": (lambda f: edit(f, n_layers="3"), "n_layers should be int, got '3'"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(folder, tmp_path, case):
    damage, sentence = DAMAGE[case]
    damage(folder)
    with pytest.raises(DataError, match=sentence) as caught:
        convert_weights(open_source(folder), tmp_path / "out", "meta")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert not [entry for entry in tmp_path.iterdir() if "unfinished" in entry.name]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch executed",)


def archive(path: Path, content: bytes, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a/data.pkl", content)
        for name, data in more.items():
            out.writestr(f"a/data/{name.removeprefix('n')}", data)
    return path


def tensor_pickle(global_name: bytes, shape=(2,), stride=(1,), count: int = 2, storage: bytes = b"FloatStorage") -> bytes:
    """{"x": rebuild(storage, ...)} with parts that a file can choose."""
    good = state_dict_pickle({"x": (2,)}, np.dtype(np.float32))
    number = lambda n: pickle.BININT + struct.pack("<i", n)  # noqa: E731
    tuples = lambda values: pickle.MARK + b"".join(map(number, values)) + pickle.TUPLE  # noqa: E731
    good = good.replace(b"FloatStorage", storage).replace(b"torch._utils\n_rebuild_tensor_v2", global_name)
    good = good.replace(number(2) + pickle.TUPLE + pickle.BINPERSID, number(count) + pickle.TUPLE + pickle.BINPERSID)
    return good.replace(tuples((2,)) + tuples((1,)), tuples(shape) + tuples(stride))


TENSOR = b"torch._utils\n_rebuild_tensor_v2"


@pytest.mark.parametrize("name", [
    b"os\nsystem", b"builtins\neval", b"builtins\ngetattr", b"torch\nload", b"torch._utils\n_rebuild", b"numpy\nload",
    b"torch.storage\n_load_from_bytes", b"posix\nsystem"])
def test_no_other_name_is_looked_up(tmp_path, name):
    path = archive(tmp_path / "consolidated.00.pth", tensor_pickle(name), n0=b"12345678")
    with pytest.raises(DataError, match=rf"asks to run {name.decode().replace(chr(10), '.')}, which no file of weights needs; "
                                        "nothing was run"):
        TorchFile(path)


def test_a_pickle_that_would_execute_is_not_executed(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive(folder / "consolidated.00.pth", pickle.dumps({"norm.weight": Hostile()}, 2))
    with pytest.raises(DataError, match=r"00.pth asks to run (posix|nt).system, .* nothing was run. Do not trust"):
        MetaFolder(folder)
    with pytest.raises(DataError, match=r"asks to run builtins.exec"):
        TorchFile(archive(tmp_path / "x.pth", b"\x80\x02cbuiltins\nexec\nX\x01\x00\x00\x001\x85R."))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [
    tensor_pickle(TENSOR, shape=(3,)), tensor_pickle(TENSOR, stride=(2,)), tensor_pickle(TENSOR, shape=(-2,)),
    tensor_pickle(TENSOR, stride=(-1,)), tensor_pickle(TENSOR, shape=(2, 2), stride=(1,)), b"", b"\x80\x02", b"\x80\x02]." ,
    b"\x80\x02}.trailing"[:3], tensor_pickle(TENSOR)[:-9],
    # a tuple that is built once more, with attributes a file chooses
    tensor_pickle(TENSOR)[:-2] + b"}X\x05\x00\x00\x00shapeK\x09sbu.",
])
def test_lists_that_lie_are_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"is damaged|should hold tensors by name") as caught:
        TorchFile(archive(tmp_path / "x.pth", content, n0=b"12345678"))
    assert "\n" not in str(caught.value)


def test_a_storage_of_another_size_is_refused(tmp_path):
    for count in (2, 1 << 30):
        file = TorchFile(archive(tmp_path / "x.pth", tensor_pickle(TENSOR, count=count), n0=b"123456789"))
        with pytest.raises(DataError, match="storage 0 does not have the size of its tensors"):
            file.read("x")
        file.close()


def test_other_dtypes_are_named(tmp_path):
    file = TorchFile(archive(tmp_path / "x.pth", tensor_pickle(TENSOR, storage=b"LongStorage"), n0=b"12345678"))
    with pytest.raises(DataError, match=r"x in .* is a Long tensor; weights should be float32, bfloat16 or float16"):
        file.shapes()


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "old.pth").write_bytes(pickle.dumps(119547037146038801333356, 2))
    with pytest.raises(DataError, match=r"old.pth is damaged, or not in torch's zip format .* save it again with a newer torch"):
        TorchFile(tmp_path / "old.pth")
    with zipfile.ZipFile(tmp_path / "empty.pth", "w"):
        pass
    with pytest.raises(DataError, match=r"empty.pth holds no tensors \(no data.pkl\)"):
        TorchFile(tmp_path / "empty.pth")


def test_storages_are_aligned_and_the_pickle_is_a_pickle(tmp_path):
    shapes = {"a": (3, 5), "b": (7,), "c": (1,)}
    with TorchWriter(tmp_path / "x.pth", shapes, dtype=np.dtype(np.float16)) as writer:
        for name, shape in shapes.items():
            writer.write(name, np.ones(shape, np.float16))
    content = (tmp_path / "x.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pth") as out:
        assert out.testzip() is None and out.namelist()[0] == "x/data.pkl"
        for info in out.infolist():
            name, extra = struct.unpack("<HH", content[info.header_offset + 26 :][:4])
            assert (info.header_offset + 30 + name + extra) % 64 == 0
        pickletools.dis(out.read("x/data.pkl"), io.StringIO())


def test_big_storages_are_counted_in_long_numbers():
    count = pickle.LONG1 + b"\x05" + (1 << 32).to_bytes(5, "little")
    assert count in state_dict_pickle({"x": (1 << 20, 1 << 12)}, np.dtype(np.float32))


def test_the_tokenizer_of_the_first_releases_lies_above(tmp_path, folders, tokenizer):
    shutil.copytree(folders["meta"], tmp_path / "7B")
    (tmp_path / "7B/tokenizer.model").rename(tmp_path / "tokenizer.model")
    assert open_source(tmp_path / "7B").tokenizer().sha256 == tokenizer.sha256
