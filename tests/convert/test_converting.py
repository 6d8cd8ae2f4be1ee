"""convert as a user types it: what it prints, what it refuses, and that nothing half-written stays."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from llama_jax import __main__ as door
from llama_jax.cli import convert as command
from llama_jax.config import Config, from_dict
from llama_jax.convert import convert as stream
from llama_jax.convert.convert import convert_weights
from llama_jax.convert.pooled import PooledSource
from llama_jax.convert.verify import compare_logits
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats import hf
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.loading import load
from llama_jax.formats.mapping import pool_heads, tensors
from llama_jax.formats.open import open_source
from tests.formats.memory import MemorySource, config_of
from tests.golden.small import random_params

ROOT = Path(__file__).parents[2]


def run(*arguments) -> int:
    return door.main(["convert", *map(str, arguments)])


def error_of(capsys, *arguments, code: int) -> str:
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("to", ["orbax", "hf", "meta"])
def test_convert_and_verify(tmp_path, folders, capsys, to):
    source = folders["meta" if to == "hf" else "hf"]
    assert run("--source", source, "--target", tmp_path / "out", "--to", to, "--verify") == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"{source}: {'Meta' if to == 'hf' else 'Hugging Face'} folder, 204,224 parameters, float32",
        "tokenizer: SentencePiece (tokenizer.model), 512 pieces",
        f"{tmp_path / 'out'}: {to}, 816,896 bytes of float32",
        "verify: max error of the logits 0, mean KL 0 nats",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_run_made_by_convert_is_a_run(tmp_path, folders):
    """The shape of what train.py leaves, with a config that is enough to load it."""
    run("--source", folders["hf"], "--target", tmp_path / "run", "--to", "orbax", "--dtype", "bfloat16")
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == [
        "checkpoints", "config.json", "generation_config.json", "tokenizer.model", "tokenizer_config.json"]
    config = from_dict(Config, json.loads((tmp_path / "run/config.json").read_text()))
    assert config.name == "run" and config.model == open_source(folders["hf"]).config
    assert open_source(tmp_path / "run").dtype == STORED_DTYPES["bfloat16"]
    params = load(tmp_path / "run")[1]
    wanted = load(folders["hf"])[1]
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(STORED_DTYPES["bfloat16"])), params, wanted)


def test_rounding_is_measured(tmp_path, folders, capsys):
    assert run("--source", folders["hf"], "--target", tmp_path / "out", "--to", "hf", "--dtype", "bfloat16", "--verify") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    error, divergence = float(line.split("logits ")[1].split(",")[0]), float(line.split("KL ")[1].split()[0])
    assert 1e-4 < error < 0.5 and 0 < divergence < 0.1


def test_a_conversion_that_is_wrong_is_told(tmp_path, folders, capsys, monkeypatch):
    def compare_with_other_weights(source, target):
        return compare_logits(source, MemorySource(target.config, params=random_params(target.config, 1)))

    monkeypatch.setattr(command, "compare_logits", compare_with_other_weights)
    message = error_of(capsys, "--source", folders["hf"], "--target", tmp_path / "o", "--to", "meta", "--verify", code=3)
    assert "is not what" in message and "though nothing was rounded or pooled: max error" in message


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_are_pooled(tmp_path, folders, memory, capsys, kv_heads):
    arguments = ("--source", folders["hf"], "--target", tmp_path / "out", "--to", "orbax", "--num_kv_heads", kv_heads)
    assert run(*arguments, "--verify") == 0
    out = capsys.readouterr().out
    saved = 3 * 2 * (4 - kv_heads) * 8 * 64  # of three layers' keys and values, heads of width 8
    assert out.startswith(f"{folders['hf']}: Hugging Face folder, 204,224 parameters, float32\n")
    assert f"; {204_224 - saved:,} parameters are left\n" in out
    assert f"kv heads: 4 -> {kv_heads}; train a little" in out and "verify: max error" in out
    source = open_source(tmp_path / "out")
    assert source.config.num_kv_heads == kv_heads
    for tensor in tensors(memory.config):
        whole = memory.read(tensor)
        wanted = pool_heads(whole, kv_heads) if "K" in tensor.weight.axes else whole
        np.testing.assert_array_equal(source.read(tensor), wanted)


def test_pooling_equal_heads_changes_nothing(tokenizer):
    """The law of the method: where the heads of a group agree, the pooled model is the model."""
    memory = MemorySource(config_of(8), tokenizer)
    for name in ("wk", "wv"):
        weights = memory.params["layers"]["attention"][name]
        weights[...] = weights[:, :, [0, 0, 0, 0, 4, 4, 4, 4]]
    assert compare_logits(memory, PooledSource(memory, 2)).largest < 1e-5
    assert compare_logits(memory, PooledSource(memory, 1)).largest > 1e-2


def test_context_of_a_meta_folder(tmp_path, folders):
    run("--source", folders["meta"], "--target", tmp_path / "out", "--to", "hf", "--max_length", 128)
    assert open_source(folders["meta"]).config.max_length == 2048
    assert open_source(tmp_path / "out").config.max_length == 128


@pytest.mark.parametrize("arguments, code, sentence", [
    (("--to", "meta", "--num_kv_heads", 3), 2, "--num_kv_heads must divide the 4 kv heads of"),
    (("--to", "meta", "--num_kv_heads", 8), 2, "--num_kv_heads must divide"),
    (("--to", "meta", "--num_kv_heads", -1), 2, "num_kv_heads at least 0"), (("--to", "hf", "--meta_shards", 2), 2, "--to is hf"),
    (("--to", "meta", "--meta_shards", 0), 2, "meta_shards must be positive"),
    (("--to", "meta", "--meta_shards", 3), 2, "choose another --meta_shards"),
])
def test_refusals(tmp_path, folders, capsys, arguments, code, sentence):
    assert sentence in error_of(capsys, "--source", folders["hf"], "--target", tmp_path / "out", *arguments, code=code)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, folders, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("out", "link"):
        assert f"{name} exists; name another --target" in error_of(
            capsys, "--source", folders["hf"], "--target", tmp_path / name, "--to", "hf", code=2)
    inside = folders["hf"] / "sub"
    assert "lies in the source" in error_of(capsys, "--source", folders["hf"], "--target", inside, "--to", "hf", code=2)
    assert not inside.exists() and sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "out"]


def test_without_a_tokenizer(tmp_path, folders, tokenizer, capsys, shared_data):
    source = shared_data / "checkpoints/stories260K/hf"
    assert run("--source", source, "--target", tmp_path / "out", "--to", "meta", "--verify") == 0
    assert "tokenizer: none" in capsys.readouterr().out
    with pytest.raises(DataError, match="no tokenizer at"):
        load(tmp_path / "out")
    small = MemorySource(config_of(vocab_size=400), tokenizer)
    with pytest.raises(ConfigError, match="has 512 pieces and the model 400"):
        convert_weights(small, tmp_path / "small", "hf")


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 KB, which fails in every writer as a full disk does."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings("ignore:Exception ignored in.:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("to, shards", [("hf", 1), ("meta", 1), ("meta", 2), ("orbax", 1)])
def test_a_full_disk_leaves_nothing(tmp_path, small_disk, tokenizer, to, shards):
    memory = MemorySource(config_of(ffn_dim=4096), tokenizer)
    with pytest.raises(DataError, match=r"cannot write .*/out: .*; nothing of it stays") as caught:
        convert_weights(memory, tmp_path / "out", to, meta_shards=shards)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_told_before(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"needs 816,896 bytes and .* has 1,000 free; make room"):
        convert_weights(memory, tmp_path / "out", "hf")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_conversion_leaves_nothing(tmp_path, memory, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(hf, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_weights(memory, tmp_path / "out", "hf")
    assert not list(tmp_path.iterdir())


def test_damage_to_a_run_is_named(tmp_path, folders, memory):
    convert_weights(memory, tmp_path / "run", "orbax")
    for file in (tmp_path / "run/checkpoints/0/state/d").iterdir():
        os.truncate(file, 10)
    with pytest.raises(DataError, match=r"checkpoint .*/0 cannot be read"):
        convert_weights(open_source(tmp_path / "run"), tmp_path / "out", "hf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


class Zeros(MemorySource):
    """Of any size, in no memory."""

    def read(self, tensor) -> np.ndarray:
        return np.zeros(tensor.shape(self.config), np.float32)


PEAK = """
import sys
from pathlib import Path
from llama_jax.formats import hf
from llama_jax.formats import meta
from llama_jax.formats import run as orbax
from llama_jax.convert import convert as stream
from llama_jax.formats.open import open_source
hf.SHARD_BYTES = 10_000_000
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
source = sys.argv[1]
for number, to in enumerate(("hf", "meta", "orbax", "hf")):
    target = Path(sys.argv[2], str(number))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    begin = memory("VmRSS")
    stream.convert_weights(open_source(source), target, to)
    print(memory("VmHWM") - begin)
    source = target
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="measures memory in /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """Of 157 MB in 24 layers the peak is one file of 10 MB, a few tensors of 2 MB, and what orbax takes to begin."""
    config = config_of(8, dim=320, num_layers=24, ffn_dim=1280)
    convert_weights(Zeros(config, params={}), tmp_path / "deep", "meta")
    command = [sys.executable, "-c", PEAK, tmp_path / "deep", tmp_path]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    to_hf, to_meta, to_orbax, from_orbax = map(int, out.split())
    assert max(to_hf, to_meta) < 30_000_000 and max(to_orbax, from_orbax) < 80_000_000, out


def test_every_checkpoint_option_takes_every_format(folders, capsys):
    """The same weights give the same text, and which tokenizer was chosen is said."""
    texts = set()
    for to, form in (("orbax", None), ("hf", "Hugging Face folder"), ("meta", "Meta folder")):
        assert door.main(["generate", "--checkpoint", str(folders[to]), "--prompt", "To be", "--max_new_tokens", "5",
                          "--temperature", "0"]) == 0
        captured = capsys.readouterr()
        texts.add(captured.out)
        said = f"{folders[to]}: {form}; tokenizer: SentencePiece (tokenizer.model), 512 pieces\n"
        assert captured.err == (said if form else "")
    assert len(texts) == 1 and texts.pop().startswith("To be")


def test_a_run_with_a_nan_is_not_passed_on(tmp_path, tokenizer):
    memory = MemorySource(config_of(), tokenizer)
    memory.params["layers"]["attention"]["wq"][1, 2, 3, 4] = np.nan
    convert_weights(memory, tmp_path / "run", "orbax")
    with pytest.raises(DataError, match=r"layers.attention.wq\[1\] in .*checkpoints/0 holds 1 value\(s\) that are NaN"):
        convert_weights(open_source(tmp_path / "run"), tmp_path / "out", "hf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("attention", ["cudnn", "splash", "reference"])
def test_the_backend_that_trained_is_not_inherited(tmp_path, tokenizer, attention):
    """A run of another machine is compared and loaded here: its backend could not even run."""
    source = MemorySource(config_of(attention=attention), tokenizer)
    convert_weights(source, tmp_path / "run", "orbax")
    run_folder = open_source(tmp_path / "run")
    assert run_folder.config.attention == attention and compare_logits(source, run_folder).largest == 0
    model, params, _ = load(tmp_path / "run")
    assert model.config.attention == "auto"
    np.testing.assert_allclose(params["embedding"], source.params["embedding"])
