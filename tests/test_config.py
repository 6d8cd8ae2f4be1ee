"""A config checks itself, says what was wanted and what came, and survives JSON."""

import dataclasses
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    Config,
    DataConfig,
    EvalConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    from_dict,
    to_dict,
)
from llama_jax.errors import ConfigError, nearest
from llama_jax.parallel.mesh import check_batch, check_model, make_mesh


def test_the_defaults_are_llama_7b_and_hold_together():
    config = Config()
    assert (config.model.dim, config.model.num_layers, config.model.head_size) == (4096, 32, 128)
    assert from_dict(Config, {}) == replace(config)


@given(
    steps=st.integers(1, 10**6), lr=st.floats(1e-9, 1), seed=st.integers(0, 2**31),
    paths=st.lists(st.text(alphabet="ab._ ", min_size=1).filter(lambda p: p.strip(". ")), min_size=1, max_size=3),
    prompts=st.lists(st.text(), max_size=3),
)
def test_json_gives_the_same_config(steps, lr, seed, paths, prompts):
    config = Config(
        optimizer=OptimizerConfig(peak_lr=lr, warmup_steps=steps - 1),
        data=DataConfig(tuple(f"{number}/{path}" for number, path in enumerate(paths))),
        training=TrainingConfig(num_steps=steps, seed=seed, sample_prompts=tuple(prompts)),
    )
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_a_part_of_a_config_is_enough():
    config = from_dict(Config, {"model": {"dim": 64, "num_heads": 4, "num_kv_heads": 2}, "optimizer": {"peak_lr": 1}})
    assert (config.model.head_size, config.model.num_layers) == (16, 32)
    assert type(config.optimizer.peak_lr) is float


@pytest.mark.parametrize("values, sentence", [
    ({"modle": {}}, "unknown key modle; did you mean model?"),
    ({"model": {"num_layer": 2}}, "unknown key model.num_layer; did you mean num_layers"),
    ({"training": {"xyzzy": 2}}, "unknown key training.xyzzy; known: accumulation_steps, batch_size,"),
    ({"model": {"dim": 64.0}}, "model.dim should be int, got 64.0"),
    ({"model": {"dim": True}}, "model.dim should be int, got True"),
    ({"model": {"dim": None}}, "model.dim should be int, got None"),
    ({"model": {"tied_embeddings": 1}}, "model.tied_embeddings should be bool, got 1"),
    ({"optimizer": {"peak_lr": "3e-4"}}, "optimizer.peak_lr should be float, got '3e-4'"),
    ({"data": {"sources": "a.txt"}}, "data.sources should be a list, got 'a.txt'"),
    ({"data": {"sources": ["a", 3]}}, r"data.sources\[1\] should be str, got 3"),
    ({"compute": {"dtype": "float16"}}, r"compute.dtype cannot be 'float16'; did you mean bfloat16 or float32\?"),
    ({"compute": {"dtype": []}}, r"compute.dtype cannot be \[\]; known: bfloat16, float32\."),
    ({"model": [1]}, r"model. should be an object, got \[1\]"),
    ([], r"the config should be an object, got \[\]"),
])
def test_what_does_not_belong_is_named(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        from_dict(Config, values)


CHECKS = [
    (ModelConfig, {"dim": 0}, "model.dim must be positive, got 0"),
    (ModelConfig, {"num_layers": -1}, "model.num_layers must be positive, got -1"),
    (ModelConfig, {"num_heads": 32, "num_kv_heads": 5}, "of model.num_kv_heads, got 32 query heads and 5 kv heads"),
    (ModelConfig, {"dim": 100}, "model.dim must be a multiple of model.num_heads .* got 100 and 32"),
    (ModelConfig, {"dim": 96, "num_heads": 32}, "must be even .* got 3"),
    (ModelConfig, {"head_dim": -2}, "model.dim must be a multiple|head"),
    (ModelConfig, {"rope_theta": 0.0}, "must be positive, got 0.0 and"),
    (ModelConfig, {"norm_eps": float("nan")}, "must be positive, got .* nan"),
    (ComputeConfig, {"loss_chunk": 0}, "compute.loss_chunk must be positive, got 0"),
    (OptimizerConfig, {"peak_lr": 0.0}, "optimizer.peak_lr must be positive, got 0.0"),
    (OptimizerConfig, {"peak_lr": float("nan")}, "optimizer.peak_lr must be positive, got nan"),
    (OptimizerConfig, {"warmup_steps": -1}, "optimizer.warmup_steps must be at least 0, got -1"),
    (OptimizerConfig, {"final_lr_ratio": 1.5}, r"optimizer.final_lr_ratio must lie in \[0, 1\], got 1.5"),
    (OptimizerConfig, {"beta1": 1.0}, r"optimizer.beta1 must lie in \[0, 1\), got 1.0"),
    (OptimizerConfig, {"beta2": -0.1}, r"optimizer.beta2 must lie in \[0, 1\), got -0.1"),
    (OptimizerConfig, {"eps": 0.0}, "optimizer.eps must be positive"),
    (OptimizerConfig, {"clip_norm": 0.0}, "optimizer.clip_norm must be positive"),
    (OptimizerConfig, {"weight_decay": -0.1}, "optimizer.weight_decay must be at least 0"),
    (DataConfig, {"sources": ()}, "data.sources is empty; name at least one"),
    (DataConfig, {"sources": ("",)}, "data.sources: '' names no path"),
    (DataConfig, {"sources": ("=0.5",)}, "data.sources: '=0.5' names no path"),
    (DataConfig, {"sources": ("a=0.5", "b")}, "give a share to every source or to none"),
    (DataConfig, {"sources": ("a=half",)}, "'a=half' should be PATH or PATH=SHARE with a number"),
    (DataConfig, {"sources": ("a=0",)}, "the share of 'a' must be positive, got 0"),
    (DataConfig, {"sources": ("a=-1",)}, "the share of 'a' must be positive, got -1"),
    (DataConfig, {"sources": ("a=inf",)}, "the share of 'a' must be positive, got inf"),
    (DataConfig, {"sources": ("a=nan",)}, "the share of 'a' must be positive, got nan"),
    (DataConfig, {"sources": ("a=1", "a=2")}, "name a twice; give every source once"),
    (DataConfig, {"sources": ("x/a", "./x//a")}, "name x/a twice"),
    (DataConfig, {"sources": ("a",), "heldout": ("a/",)}, "name a twice; .*keep what is held out apart"),
    (DataConfig, {"sequence_length": 1}, "data.sequence_length must be at least 2, got 1"),
    (EvalConfig, {"every": -1}, "eval.every and eval.limit must be at least 0, got EvalConfig"),
    (DataConfig, {"heldout_fraction": 1.0}, r"data.heldout_fraction must lie in \[0, 1\), got 1.0"),
    (TrainingConfig, {"num_steps": 0}, "training.num_steps must be positive, got 0"),
    (TrainingConfig, {"log_every": 0}, "training.log_every must be positive"),
    (TrainingConfig, {"seed": -1}, "training.seed must be at least 0, got -1"),
    (TrainingConfig, {"init_seed": -2}, "training.init_seed must be at least 0, or -1 to be training.seed, got -2"),
    (TrainingConfig, {"z_loss": -1.0}, "training.z_loss must be at least 0"),
    (TrainingConfig, {"batch_size": 8, "accumulation_steps": 3}, "of training.accumulation_steps, got 8 and 3"),
    (MeshConfig, {"data": 0}, "mesh axes must be positive, at most one of them -1, got data=0"),
    (MeshConfig, {"data": -1, "fsdp": -1}, "at most one of them -1, got data=-1 fsdp=-1"),
    (CheckpointConfig, {"every": 0}, "checkpoint.every .* must be positive .* got 0, 2 and 0"),
    (CheckpointConfig, {"keep_every": -1}, "got 1000, 2 and -1"),
    (Config, {"data": DataConfig(sequence_length=4096)}, "must not exceed model.max_length, got 4096 and 2048"),
    (Config, {"training": TrainingConfig(num_steps=2000)}, "must be below training.num_steps, got 2000 and 2000"),
]


@pytest.mark.parametrize("cls, values, sentence", CHECKS, ids=[f"{cls.__name__}-{list(v)}" for cls, v, _ in CHECKS])
def test_checks(cls, values, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        cls(**values)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_every_section_has_a_check():
    sections = {type(getattr(Config(), f.name)) for f in dataclasses.fields(Config)}
    assert sections - {str} == {cls for cls, _, _ in CHECKS} - {Config}


def test_shares():
    assert DataConfig(("a/b=0.5", "c=d=2")).shares() == [("a/b", 0.5), ("c=d", 2.0)]
    assert DataConfig(("a", "embedded:tinyshakespeare")).shares() == [("a", None), ("embedded:tinyshakespeare", None)]


def test_nearest():
    assert nearest("batchsize", ["batch_size", "seed"]) == "; did you mean batch_size?"
    assert nearest("qqq", ["b", "a"]) == "; known: a, b."


@pytest.mark.parametrize("axes, sentence", [
    ({"data": 3}, r"the mesh data 3 x fsdp 1 x tensor 1 x sequence 1 does not fill 8 device\(s\); set --mesh.data, --mesh.fsdp"),
    ({"data": 4, "fsdp": 4}, "does not fill 8"),
    ({"data": -1, "tensor": 3}, "the mesh data -1 x fsdp 1 x tensor 3 x sequence 1 does not fill 8"),
    ({"data": -1, "tensor": 16}, "does not fill 8"),
])
def test_a_mesh_that_does_not_fill_the_devices(axes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_mesh(MeshConfig(**axes))


def test_one_axis_may_take_what_is_left():
    assert dict(make_mesh(MeshConfig(data=2, fsdp=-1)).shape) == {"data": 2, "fsdp": 4, "tensor": 1, "sequence": 1}
    assert dict(make_mesh(MeshConfig(data=2, fsdp=4, tensor=-1)).shape) == {"data": 2, "fsdp": 4, "tensor": 1, "sequence": 1}


def test_rows_and_parameters_must_divide_over_the_mesh():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    check_batch(16, 4, mesh=mesh)
    with pytest.raises(ConfigError, match=r"micro-batch of 6 sequences \(.*batch_size 12 / .* not divide over .* 4"):
        check_batch(12, 2, mesh=mesh)
    check_model(ModelConfig(), mesh)
    with pytest.raises(ConfigError, match=r"model.num_kv_heads = 1 does not divide by mesh.tensor = 2; choose"):
        check_model(ModelConfig(num_kv_heads=1), mesh)
    with pytest.raises(ConfigError, match=r"model.vocab_size = 32001 does not divide by mesh.tensor = 2"):
        check_model(ModelConfig(vocab_size=32_001), mesh)
