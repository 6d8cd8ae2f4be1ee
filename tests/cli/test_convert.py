"""`llama_jax convert` as a user types it: what it prints, what it refuses, and that nothing half-written stays."""

import json

import jax
import numpy as np
import pytest

from llama_jax.__main__ import main
from llama_jax.config import Config, from_dict
from llama_jax.conversion import verify
from llama_jax.conversion.verify import compare_logits
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.loading import load
from llama_jax.formats.mapping import pool_heads, tensors
from llama_jax.formats.open import open_source
from tests.formats.memory import MemorySource
from tests.golden.small import random_params


def run(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


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

    monkeypatch.setattr(verify, "compare_logits", compare_with_other_weights)
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
        wanted = pool_heads(whole, kv_heads) if "kv_heads" in tensor.leaf(memory.config).axes else whole
        np.testing.assert_array_equal(source.read(tensor), wanted)


def test_context_of_a_meta_folder(tmp_path, folders):
    run("--source", folders["meta"], "--target", tmp_path / "out", "--to", "hf", "--max_length", 128)
    assert open_source(folders["meta"]).config.max_length == 2048
    assert open_source(tmp_path / "out").config.max_length == 128


@pytest.mark.parametrize("arguments, code, sentence", [
    (("--to", "meta", "--num_kv_heads", 3), 2, "num_kv_heads must divide the 4 kv heads of"),
    (("--to", "meta", "--num_kv_heads", 8), 2, "num_kv_heads must divide"),
    (("--to", "meta", "--num_kv_heads", -1), 2, "num_kv_heads must divide"),
    (("--to", "hf", "--meta_shards", 2), 2, "and the format is hf"),
    (("--to", "meta", "--meta_shards", 0), 2, "meta_shards must be positive"),
    (("--to", "meta", "--meta_shards", 3), 2, "choose another meta_shards"),
])
def test_refusals(tmp_path, folders, capsys, arguments, code, sentence):
    assert sentence in error_of(capsys, "--source", folders["hf"], "--target", tmp_path / "out", *arguments, code=code)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, folders, capsys):
    (tmp_path / "out/mine").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("out", "link"):
        assert f"{name} exists; name another folder" in error_of(
            capsys, "--source", folders["hf"], "--target", tmp_path / name, "--to", "hf", code=2)
    inside = folders["hf"] / "sub"
    assert "lies in the source" in error_of(capsys, "--source", folders["hf"], "--target", inside, "--to", "hf", code=2)
    assert not inside.exists() and sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "out"]


def test_without_a_tokenizer(tmp_path, capsys, shared_data):
    source = shared_data / "checkpoints/stories260K/hf"
    assert run("--source", source, "--target", tmp_path / "out", "--to", "meta", "--verify") == 0
    assert "tokenizer: none" in capsys.readouterr().out
    assert load(tmp_path / "out")[2] is None
    assert main(["generate", "--checkpoint", str(tmp_path / "out"), "--prompt", "Once"]) == 3
    assert capsys.readouterr().err.startswith(f"error: no tokenizer at {tmp_path}")


def test_every_checkpoint_option_takes_every_format(folders, capsys):
    """The same weights give the same text, and which tokenizer was chosen is said."""
    texts = set()
    for to, form in (("orbax", None), ("hf", "Hugging Face folder"), ("meta", "Meta folder")):
        assert main(["generate", "--checkpoint", str(folders[to]), "--prompt", "To be", "--max_new_tokens", "5",
                          "--temperature", "0"]) == 0
        captured = capsys.readouterr()
        texts.add(captured.out)
        said = f"{folders[to]}: {form}; tokenizer: SentencePiece (tokenizer.model), 512 pieces\n"
        assert captured.err == (said if form else "")
    assert len(texts) == 1 and texts.pop().startswith("To be")
