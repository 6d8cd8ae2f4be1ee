"""Every file of configs/ is Table 2 (or its paper's) to the letter, builds and lowers without an array."""

import math
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from llama_jax.batch import Batch
from llama_jax.config import PRESETS, Config, MeshConfig, Study, from_dict, to_dict
from llama_jax.config.file import load_config, load_study
from llama_jax.model.accounting import parameter_count
from llama_jax.parallel.mesh import check_batch, check_model, make_mesh
from llama_jax.training.compiled import build

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("configs/*.py"), *ROOT.glob("configs/data/*.py")])
STUDIES = sorted(ROOT.glob("configs/ablations/*.py"))

TABLE_2 = {  # dim, heads, layers, ffn, peak learning rate, tokens
    "7b": (4096, 32, 32, 11008, 3e-4, 1.0e12), "13b": (5120, 40, 40, 13824, 3e-4, 1.0e12),
    "33b": (6656, 52, 60, 17920, 1.5e-4, 1.4e12), "65b": (8192, 64, 80, 22016, 1.5e-4, 1.4e12),
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_builds_and_lowers_on_its_mesh(file):
    config = load_config(file)
    mesh = make_mesh(config.mesh)
    check_model(config.model, mesh)
    check_batch(config.training.batch_size, config.training.accumulation_steps, mesh=mesh)
    rows = jax.ShapeDtypeStruct((config.training.batch_size, config.data.sequence_length), jnp.int32)
    batch = Batch(*[rows] * 4, jax.ShapeDtypeStruct(rows.shape, jnp.float32))
    program = build(replace(config, mesh=MeshConfig()), mesh)
    with jax.set_mesh(mesh):
        state, metrics = program.train_step.eval_shape(program.abstract_state, batch)
        program.train_step.lower(program.abstract_state, batch)
    assert metrics["loss"].shape == ()
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, program.abstract_state.params)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_round_trips_and_says_how_to_run(file):
    config = load_config(file)
    assert from_dict(Config, to_dict(config)) == config
    assert f"python train.py --config {file.relative_to(ROOT)}" in file.read_text()


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_study_builds_round_trips_and_says_what_it_asks(file):
    study, text = load_study(file), file.read_text()
    assert study.name == file.stem and from_dict(Study, to_dict(study)) == study
    assert f"python -m llama_jax ablate --config {file.relative_to(ROOT)}" in text
    for field in ("Paper:", "Question:", "Arms:", "Expected:", "Hours:"):
        assert f"\n{field}" in text
    words = " ".join(text.split())
    assert words.count(study.hours) == 2, "the docstring says how long it takes"
    for arm in study.arms:
        build(arm.config, make_mesh(MeshConfig()))
    steps = {arm.config.training.num_steps * arm.config.training.batch_size for arm in study.arms if not arm.starts_from}
    assert len(steps) == 1, "arms read equally many rows"


def test_the_feed_forward_layers_have_equal_parameters():
    (count,) = {parameter_count(arm.config.model) for arm in load_study(ROOT / "configs/ablations/feedforward.py").arms}
    assert count == parameter_count(PRESETS["tiny"])


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2(name):
    config = load_config(ROOT / f"configs/{name}.py")
    m, o, t = config.model, config.optimizer, config.training
    assert (m.dim, m.num_heads, m.num_layers, m.ffn_dim, o.peak_lr) == TABLE_2[name][:5]
    assert (m.vocab_size, m.max_length, config.data.sequence_length, m.num_kv_heads) == (32_000, 2048, 2048, m.num_heads)
    assert t.batch_size * config.data.sequence_length == 4 * 2**20
    assert t.num_steps == math.ceil(TABLE_2[name][5] / (4 * 2**20))
    assert (o.beta1, o.beta2, o.weight_decay, o.clip_norm, o.warmup_steps, o.final_lr_ratio) == (.9, .95, .1, 1., 2000, .1)
    shares = dict(config.data.shares())
    assert sum(shares.values()) == pytest.approx(1.0) and shares["data/commoncrawl"] == 0.67


TABLE_1 = {"commoncrawl": 67.0, "c4": 15.0, "github": 4.5, "wikipedia": 4.5, "books": 4.5, "arxiv": 2.5, "stackexchange": 2.0}


@pytest.mark.parametrize("name", [*TABLE_2, "data/seven"])
def test_table_1(name):
    shares = load_config(ROOT / f"configs/{name}.py").data.shares()
    assert {path: round(100 * share, 9) for path, share in shares} == {f"data/{name}": share for name, share in TABLE_1.items()}


def test_head_width_follows_the_heads():
    config = load_config(ROOT / "configs/7b.py")
    assert config.model.head_size == 128
    assert replace(config.model, num_heads=64, num_kv_heads=64).head_size == 64
