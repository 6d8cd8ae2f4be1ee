"""What `save` writes is the model, bit for bit, wherever its parameters come from; it is there whole or not at all."""

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.core import freeze
from jax.sharding import NamedSharding, PartitionSpec

from llama_jax import load, save
from llama_jax.__main__ import main
from llama_jax.config import ComputeConfig, MeshConfig
from llama_jax.config.presets import VANILLA, path_to_llama
from llama_jax.conversion.convert import convert
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats import new_folder, run, saving
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.open import open_source
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import shardings_of
from llama_jax.parallel.mesh import make_mesh
from tests.formats.memory import config_of, random_tree
from tests.golden.small import FLOAT32

SMALL = replace(VANILLA, vocab_size=512, dim=32, num_layers=2, num_heads=4, num_kv_heads=4, ffn_dim=48, max_length=64)
MODELS = path_to_llama(SMALL) | {
    "shaw": replace(SMALL, position="shaw", relative_clip=5), "learned": replace(SMALL, position="learned"),
    "rope3d tied": config_of(position="rope3d", rope_chunk=7, tied_embeddings=True), "gqa": config_of(2),
}
BFLOAT16 = STORED_DTYPES["bfloat16"]


def assert_same_bits(one, other) -> None:
    def check(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()

    jax.tree.map(check, one, other)


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_comes_back_bit_for_bit(tmp_path, tokenizer, name):
    model, params = Transformer(MODELS[name], FLOAT32), random_tree(MODELS[name], 3)
    save(tmp_path / "mine", model, params, tokenizer)
    back, loaded, own = load(tmp_path / "mine")
    assert (back.config, back.compute, own.sha256) == (model.config, FLOAT32, tokenizer.sha256)
    assert_same_bits(loaded, params)
    assert sorted(entry.name for entry in (tmp_path / "mine").iterdir()) == ["checkpoints", "config.json", "tokenizer.model"]
    assert convert(tmp_path / "mine", tmp_path / "again", to="orbax") is None
    assert_same_bits(load(tmp_path / "again")[1], params)


def boxed(params):
    return jax.tree.map(lambda x: nn.Partitioned(x, names=(None,) * x.ndim), params)


def sharded(params):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    return jax.device_put(params, shardings_of(MODELS["llama"], mesh, tree=params))


def in_another_layout(params):
    """Over a mesh of another program, with layers split as well."""
    mesh = jax.make_mesh((2, 2), ("a", "b"), devices=jax.devices()[:4])
    places = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec(*("a", "b")[: x.ndim])), params)
    return jax.device_put(params, places)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("form", [dict, freeze, boxed, sharded, in_another_layout, jax.device_put])
def test_parameters_of_any_program(tmp_path, form, dtype):
    """Whatever holds them, and also where they are not finite: that is for those to refuse who read them."""
    config = MODELS["llama"]
    params = jax.tree.map(lambda x: x.astype(STORED_DTYPES[dtype]), random_tree(config, 1))
    params["embedding"][1, :3] = [np.nan, np.inf, -0.0]
    save(tmp_path / "mine", Transformer(config), form(params))
    found = open_source(tmp_path / "mine")
    assert found.dtype == STORED_DTYPES[dtype]
    assert_same_bits(load(tmp_path / "mine")[1], jax.tree.map(lambda x: x.astype(np.float32), params))


def test_every_parameter_keeps_its_own_dtype(tmp_path):
    config = MODELS["vanilla"]
    params = random_tree(config, 1)
    params["embedding"] = params["embedding"].astype(BFLOAT16)
    save(tmp_path / "mine", Transformer(config), params)
    arrays = open_source(tmp_path / "mine")._arrays
    assert {name for name, array in arrays.items() if array.dtype.name == "bfloat16"} == {"embedding"}
    assert_same_bits(load(tmp_path / "mine", dtype="bfloat16")[1], jax.tree.map(lambda x: x.astype(BFLOAT16), params))


@pytest.mark.slow
def test_all_commands_read_it(tmp_path, tokenizer, capsys):
    """A vocabulary that is padded beyond the tokenizer's, in an empty folder that is there already."""
    config = replace(MODELS["shaw"], vocab_size=576)
    (tmp_path / "mine").mkdir()
    save(tmp_path / "mine", Transformer(config, FLOAT32), random_tree(config, 0), tokenizer)
    checkpoint = ["--checkpoint", str(tmp_path / "mine")]
    assert main(["generate", *checkpoint, "--prompt", "To be", "--max_new_tokens", "3"]) == 0
    (tmp_path / "in.jsonl").write_text('{"context": "To", "continuation": " be"}\n')
    assert main(["score", *checkpoint, "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]) == 0
    (tmp_path / "text.txt").write_text("To be or not to be.")
    assert main(["eval", *checkpoint, "--tasks", "perplexity", "--text_files", str(tmp_path / "text.txt")]) == 0
    assert main(["inspect", *checkpoint]) == 0
    assert capsys.readouterr().out.startswith("To be")


REFUSED = {
    "a file": (lambda f, m, p: ((f / "x").write_text(""), save(f / "x", m, p)), "x exists; name another folder, nothing is"),
    "a folder that holds something": (lambda f, m, p: ((f / "x/y").mkdir(parents=True), save(f / "x", m, p)), "x exists; name"),
    "a link to nowhere": (lambda f, m, p: ((f / "x").symlink_to(f / "nowhere"), save(f / "x", m, p)), "x exists; name another"),
    "a layer short": (lambda f, m, p: save(f / "x", m, jax.tree.map(lambda x: x[:1], p)), "parameters: embedding should"),
    "another tree": (lambda f, m, p: save(f / "x", m, {"params": p}), "not the model's parameters: embedding should be"),
    "float64": (lambda f, m, p: save(f / "x", m, jax.tree.map(lambda x: x.astype(np.float64), p)),
                "embedding is float64, and parameters are saved as float32, bfloat16, float16; cast it first"),
    "another library's tokenizer": (lambda f, m, p: save(f / "x", m, p, dict), "load_tokenizer gives, or None, got <class"),
    "integers": (lambda f, m, p: save(f / "x", m, p | {"head": jnp.zeros(p["head"].shape, jnp.int8)}), "head is int8, and param"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path, case):
    attempt, sentence = REFUSED[case]
    config = MODELS["llama"]
    with pytest.raises(ConfigError, match=sentence):
        attempt(tmp_path, Transformer(config), random_tree(config, 0))
    assert [entry.name for entry in tmp_path.iterdir()] in ([], ["x"])


def test_a_tokenizer_of_more_pieces_is_refused(tmp_path, tokenizer):
    config = config_of(vocab_size=300)
    with pytest.raises(ConfigError, match="the tokenizer has 512 pieces and the model 300 ids"):
        save(tmp_path / "x", Transformer(config), random_tree(config, 0), tokenizer)
    assert not list(tmp_path.iterdir())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name, count", [("_recreate_array", 1), ("_recreate_array", 12), ("_write_shapes_into_metadata", 1)])
def test_a_kill_leaves_nothing_that_loads(tmp_path, monkeypatch, name, count):
    """At the first array, at the last, and when all are there: no folder under the name, nor one that passes for a model."""
    config, calls, whole = MODELS["llama"], [], getattr(run, name)

    def killed(*arguments, **options):
        calls.append(name)
        if len(calls) == count:
            raise Killed
        return whole(*arguments, **options)

    monkeypatch.setattr(run, name, killed)
    monkeypatch.setattr(new_folder.shutil, "rmtree", lambda *arguments, **options: None)  # which a kill does not reach
    with pytest.raises(Killed):
        save(tmp_path / "mine", Transformer(config), random_tree(config, 0))
    monkeypatch.undo()
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".mine.") and left.name.endswith(".unfinished")
    for folder in (left, tmp_path / "mine"):
        with pytest.raises(DataError, match="no checkpoint at"):
            load(folder)
    shutil.rmtree(left)
    save(tmp_path / "mine", Transformer(config), random_tree(config, 0))
    assert_same_bits(load(tmp_path / "mine")[1], random_tree(config, 0))


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    config = MODELS["llama"]
    monkeypatch.setattr(new_folder.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"x needs 1\d\d,\d\d\d bytes and .* has 1,000 free; make room or name another folder"):
        save(tmp_path / "x", Transformer(config), random_tree(config, 0))
    assert not list(tmp_path.iterdir())


def test_several_processes_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(saving.jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="save works in programs of one process, and this one runs in several"):
        save(tmp_path / "x", Transformer(MODELS["llama"], ComputeConfig()), random_tree(MODELS["llama"], 0))
