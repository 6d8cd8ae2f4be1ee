"""What is saved comes back bit for bit, into any sharding; what is damaged is named."""

import gc
import os
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llama_jax.config import CheckpointConfig, Config, MeshConfig
from llama_jax.errors import DataError
from llama_jax.formats.checkpoints import Checkpoints, abstract_arrays
from llama_jax.parallel.mesh import make_mesh

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
