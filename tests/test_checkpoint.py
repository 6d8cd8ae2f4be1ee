"""What is saved comes back bit for bit, into any sharding; what is damaged is named."""

import gc
import os
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llama_jax.config import CheckpointConfig, Config, MeshConfig, ModelConfig, RopeScaling
from llama_jax.config.compare import FREE_TO_CHANGE, changes, check_same_model
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.checkpoints import Checkpoints, abstract_arrays
from llama_jax.ops.rotary import STRETCHES
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training.init_from import check_initial_model

# after an error orbax closes its event loop under tensorstore's last callbacks and unfinished reads
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.:pytest.PytestUnraisableExceptionWarning")

CONFIG = Config(name="x")


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    """Those reads are collected here, not in the midst of another module's test."""
    yield
    gc.collect()


@pytest.fixture
def state() -> dict:
    """Floats that JSON or text could not hold, and the dtypes a TrainState has."""
    w = jax.random.normal(jax.random.key(0), (16, 8)) * jnp.float32(1e-30)
    return {"w": w, "mu": w.astype(jnp.bfloat16), "step": jnp.int32(7)}


def sharded(state: dict, axes: MeshConfig, devices: int, spec: PartitionSpec) -> dict:
    mesh = make_mesh(axes, jax.devices()[:devices])
    return jax.tree.map(lambda x: NamedSharding(mesh, spec if x.ndim else PartitionSpec()), state)


def save(folder: Path, state: dict, *steps: int, **options) -> None:
    checkpoints = Checkpoints(folder, CheckpointConfig(**options))
    for step in steps:
        checkpoints.save(step, state, config=CONFIG)
    checkpoints.close()


def test_comes_back_bit_for_bit_into_another_sharding(tmp_path, state):
    one = sharded(state, MeshConfig(), 1, PartitionSpec())
    eight = sharded(state, MeshConfig(data=2, fsdp=2, tensor=2), 8, PartitionSpec(("data", "fsdp"), "tensor"))
    save(tmp_path, jax.device_put(state, one), 5)
    for target in (eight, one):
        checkpoints = Checkpoints(tmp_path)
        back = checkpoints.restore(5, abstract_arrays(state, target))
        checkpoints.close()
        chex.assert_trees_all_equal(jax.device_get(back), jax.device_get(state))
        chex.assert_trees_all_equal_shapes_and_dtypes(back, state)
        assert jax.tree.map(lambda x: x.sharding, back) == target


def test_the_config_comes_along(tmp_path, state):
    save(tmp_path, state, 3)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 3 and checkpoints.config(3) == CONFIG
    checkpoints.close()


def test_keeps_the_newest_and_the_multiples(tmp_path, state):
    save(tmp_path, state, *range(1, 9), keep=2, keep_every=3)
    assert sorted(int(folder.name) for folder in tmp_path.iterdir()) == [3, 6, 7, 8]


def test_saving_a_step_again_does_nothing(tmp_path, state):
    save(tmp_path, state, 4, 4)
    save(tmp_path, state, 4)
    assert [folder.name for folder in tmp_path.iterdir()] == ["4"]


def test_saving_does_not_wait_for_arrays_that_change(tmp_path, state):
    """The train step donates its state: what is being saved must be a copy."""
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    wanted = jax.device_get(state)
    checkpoints.save(1, state, config=CONFIG)
    jax.tree.map(lambda x: x.delete(), state)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    back = checkpoints.restore(1, abstract_arrays(wanted, sharded(wanted, MeshConfig(), 1, PartitionSpec())))
    checkpoints.close()
    chex.assert_trees_all_equal(jax.device_get(back), wanted)


def test_an_unfinished_checkpoint_is_none(tmp_path, state):
    save(tmp_path, state, 4)
    shutil.copytree(tmp_path / "4", tmp_path / "5.orbax-checkpoint-tmp-1")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 4
    checkpoints.close()


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("part", ["state", "config"])
def test_damage_is_named_and_an_older_step_still_reads(tmp_path, state, part):
    """Every file of the newest checkpoint emptied, as a full disk leaves it."""
    save(tmp_path, state, 4, 8)
    for file in files_of(tmp_path / "8" / part):
        os.truncate(file, 0)
    target = abstract_arrays(state, sharded(state, MeshConfig(), 1, PartitionSpec()))
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(DataError, match=r"checkpoint .*/8 cannot be read \(.+\); remove it to go on") as caught:
        checkpoints.restore(8, target) if part == "state" else checkpoints.config(8)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(np.asarray(checkpoints.restore(4, target)["w"]), np.asarray(state["w"]))
    checkpoints.close()


def lose(file: Path) -> None:
    file.unlink()


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(255 - byte for byte in content[len(content) // 2 :])
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [lose, spoil])
def test_no_damage_to_the_arrays_goes_unnoticed(tmp_path, state, damage):
    """Whatever file is hit: the arrays are the right ones or it is an error."""
    save(tmp_path / "whole", state, 4)
    target = abstract_arrays(state, sharded(state, MeshConfig(), 1, PartitionSpec()))
    noticed = []
    for number, file in enumerate(files_of(tmp_path / "whole/4/state")):
        shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        damage(tmp_path / str(number) / file.relative_to(tmp_path / "whole"))
        checkpoints = Checkpoints(tmp_path / str(number))
        try:
            chex.assert_trees_all_equal(jax.device_get(checkpoints.restore(4, target)), jax.device_get(state))
        except DataError as error:
            noticed.append(str(error))
        checkpoints.close()
    assert len(noticed) >= 2 and all("cannot be read" in sentence for sentence in noticed)


def test_an_empty_folder_is_named(tmp_path, state):
    save(tmp_path, state, 4)
    (tmp_path / "9").mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 9
    with pytest.raises(DataError, match="/9 cannot be read"):
        checkpoints.config(9)
    checkpoints.close()


def test_another_model_is_refused():
    wanted = replace(CONFIG, model=replace(CONFIG.model, num_layers=3, num_kv_heads=8))
    with pytest.raises(ConfigError, match=r"model \(model.num_layers 32 -> 3, model.num_kv_heads 32 -> 8\); use"):
        check_same_model(CONFIG, wanted)


@pytest.mark.parametrize("section, field, value", [
    ("compute", "attention", "chunked"), ("compute", "remat", "full"), ("compute", "scan_layers", False),
    ("compute", "dtype", "float32"), ("compute", "loss_chunk", 8), ("model", "max_length", 4096),
])
def test_what_does_not_touch_the_parameters_may_change(section, field, value):
    assert section == "compute" or field in FREE_TO_CHANGE
    check_same_model(CONFIG, replace(CONFIG, **{section: replace(getattr(CONFIG, section), **{field: value})}))


@pytest.mark.parametrize("saved, wanted", [
    ({"rope_scaling": RopeScaling(factor=2.0)}, {"rope_scaling": RopeScaling(original_length=4096, high_freq_factor=9.0)}),
    ({"rope_scaling": RopeScaling("linear", factor=2.0)}, {"rope_scaling": RopeScaling("linear", 2.0, low_freq_factor=2.0)}),
    ({"dim": 64, "num_heads": 4, "num_kv_heads": 4}, {"dim": 64, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16}),
])
def test_fields_that_mean_nothing_for_the_model_may_change(saved, wanted):
    saved, wanted = (replace(CONFIG, model=ModelConfig(**fields)) for fields in (saved, wanted))
    check_same_model(saved, wanted)
    check_same_model(wanted, saved)
    check_initial_model(saved.model, wanted.model, folder="a folder")  # for init_from
    assert changes(saved, wanted)  # said all the same


@pytest.mark.parametrize("wanted, sentence", [
    (RopeScaling("linear", factor=4.0), "model.rope_scaling.factor 2.0 -> 4.0"),
    (RopeScaling("none", factor=2.0), 'model.rope_scaling.kind "linear" -> "none"'),
    (RopeScaling("llama3", factor=2.0), 'model.rope_scaling.kind "linear" -> "llama3"'),
])
def test_fields_that_its_kind_uses_may_not_change(wanted, sentence):
    saved = replace(CONFIG, model=ModelConfig(rope_scaling=RopeScaling("linear", factor=2.0)))
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_same_model(saved, replace(CONFIG, model=ModelConfig(rope_scaling=wanted)))


@pytest.mark.parametrize("field", ["factor", "low_freq_factor", "high_freq_factor", "original_length"])
def test_llama3_uses_all_its_fields(field):
    other = replace(CONFIG, model=ModelConfig(rope_scaling=replace(RopeScaling("llama3"), **{field: 3})))
    with pytest.raises(ConfigError, match=f"model.rope_scaling.{field} "):
        check_same_model(replace(CONFIG, model=ModelConfig(rope_scaling=RopeScaling("llama3"))), other)


def test_every_kind_and_field_of_rope_scaling_is_known():
    """A kind or a field that is added to RopeScaling must be placed."""
    assert set(STRETCHES) == set(get_args(get_type_hints(RopeScaling)["kind"]))
    assert {"kind", *STRETCHES["llama3"]} == {field.name for field in fields(RopeScaling)}


def test_what_the_loop_saves_beside_the_state(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    checkpoints.save(1, state, config=CONFIG)  # as earlier versions did
    checkpoints.save(2, state, config=CONFIG, progress={"nats": 0.1 + 0.2, "rows": [1, 2]})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.progress(1) == {} and checkpoints.progress(2) == {"nats": 0.1 + 0.2, "rows": [1, 2]}
    for file in files_of(tmp_path / "2/progress"):
        os.truncate(file, 0)
    with pytest.raises(DataError, match="/2 cannot be read"):
        checkpoints.progress(2)
    checkpoints.close()


def test_changes_are_listed():
    wanted = replace(CONFIG, optimizer=replace(CONFIG.optimizer, peak_lr=0.1), name="y")
    assert changes(CONFIG, wanted) == ['name: "x" -> "y"', "optimizer.peak_lr: 0.0003 -> 0.1"]
    assert changes(CONFIG, CONFIG) == []
