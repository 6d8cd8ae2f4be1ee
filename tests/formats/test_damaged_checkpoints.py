"""Damage to a checkpoint, of any file at any place: found and named, or without effect; never other values."""

import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import CheckpointConfig, Config
from llama_jax.errors import DamagedError, DataError
from llama_jax.formats import sums as module
from llama_jax.formats.checkpoints import Checkpoints, abstract_arrays
from llama_jax.formats.loading import abstract_params, load, load_params
from llama_jax.formats.open import open_source
from llama_jax.formats.run import RunFolder
from llama_jax.formats.sums import SUMS_ITEM, CheckpointSums

CONFIG = Config(name="x")
PROGRESS = {"nats": 0.1 + 0.2, "rows": [1, 2]}
STEP = 7


@pytest.fixture(scope="module")
def state() -> dict:
    key = jax.random.key(0)
    w = jax.random.normal(key, (2, 16, 8))
    return {"step": jnp.int32(STEP), "params": {"embedding": jax.random.normal(key, (16, 8)), "layers": {"w": w}},
            "mu": {"layers": {"w": w.astype(jnp.bfloat16)}}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, state) -> Path:
    """A checkpoint of a run; never written to."""
    folder = tmp_path_factory.mktemp("whole")
    checkpoints = Checkpoints(folder, CheckpointConfig())
    checkpoints.save(STEP, state, config=CONFIG, progress=PROGRESS)
    checkpoints.close()
    return folder


def target(state: dict) -> dict:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return abstract_arrays(state, jax.tree.map(lambda x: place, state))


def files_of(folder: Path) -> list[Path]:
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())


def read_all(folder: Path, state: dict, **options) -> None:
    """Read everything, and require that it is what was saved."""
    checkpoints = Checkpoints(folder, **options)
    try:
        assert checkpoints.config(STEP) == CONFIG and checkpoints.progress(STEP) == PROGRESS
        chex.assert_trees_all_equal(jax.device_get(checkpoints.restore(STEP, target(state))), jax.device_get(state))
    finally:
        checkpoints.close()


def outcome(whole: Path, folder: Path, state: dict, *, damage: Callable[[Path], object], file: Path) -> str:
    """The error after damage to a file of a copy, or "" where the right values came."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    damage(folder / file)
    try:
        read_all(folder, state)
    except DamagedError as error:
        assert str(folder / str(STEP)) in str(error) and "\n" not in str(error)
        return str(error)
    return ""


def flip(file: Path, at: int, bits: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= bits
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [
    Path.unlink,
    lambda file: os.truncate(file, 0),
    lambda file: os.truncate(file, file.stat().st_size // 2),
    lambda file: os.truncate(file, file.stat().st_size - 1),
    lambda file: flip(file, file.stat().st_size // 2, 255),
    lambda file: flip(file, file.stat().st_size // 2, 1),
    lambda file: file.write_bytes(bytes(file.stat().st_size)),
], ids=["missing", "empty", "half", "short", "flipped", "one bit", "zeros"])
def test_every_file_of_a_checkpoint(tmp_path, whole, state, damage):
    found = {str(file): outcome(whole, tmp_path / "copy", state, damage=damage, file=file) for file in files_of(whole)}
    damaged = [name for name, error in found.items() if error]
    assert {f"{STEP}/{item}/metadata" for item in ("config", "progress", SUMS_ITEM)} - set(damaged) == set()
    assert any(name.startswith(f"{STEP}/state/d/") for name in damaged) and len(damaged) >= 5


def random_flips(whole: Path, folder: Path, state: dict, *, count: int, seed: int) -> int:
    """How many random flips were found; the others had no effect, as `outcome` requires."""
    draw, found = random.Random(seed), 0
    for _ in range(count):
        file = draw.choice(files_of(whole))
        at, bits = draw.randrange((whole / file).stat().st_size), draw.choice([1 << draw.randrange(8), draw.randrange(1, 256)])
        found += bool(outcome(whole, folder, state, damage=partial(flip, at=at, bits=bits), file=file))
    return found


def test_random_flips(tmp_path, whole, state):
    assert 3 < random_flips(whole, tmp_path / "copy", state, count=25, seed=0) < 25


@pytest.mark.slow
def test_many_random_flips(tmp_path, whole, state):
    assert 90 < random_flips(whole, tmp_path / "copy", state, count=300, seed=1) < 300


def test_a_value_that_changed_in_the_database_is_found(tmp_path, whole, state):
    """A whole checkpoint whose arrays are another's, as after a write to the wrong place: orbax reads it without an error."""
    other = jax.tree.map(lambda x: x.at[(0,) * x.ndim].add(1) if x.ndim else x, state)
    checkpoints = Checkpoints(tmp_path / "other", CheckpointConfig())
    checkpoints.save(STEP, other, config=CONFIG, progress=PROGRESS)
    checkpoints.close()
    shutil.copytree(whole, tmp_path / "copy")
    shutil.rmtree(tmp_path / f"copy/{STEP}/state")
    shutil.copytree(tmp_path / f"other/{STEP}/state", tmp_path / f"copy/{STEP}/state")
    with pytest.raises(DamagedError, match=r"\(layer 0\) is not what was saved: its checksum is another"):
        Checkpoints(tmp_path / "copy").restore(STEP, target(state))
    with pytest.raises(DamagedError, match=r"params.embedding is not what was saved"):
        Checkpoints(tmp_path / "copy").restore_params(STEP, {"embedding": target(state)["params"]["embedding"]})
    Checkpoints(tmp_path / "copy", verify="never").restore(STEP, target(state))


def test_the_stored_values_are_verified_before_a_cast(tmp_path, whole, state):
    asked = jax.tree.map(lambda x: replace_dtype(x, jnp.bfloat16 if x.dtype == jnp.float32 else x.dtype), target(state))
    restored = Checkpoints(whole).restore(STEP, asked)
    assert restored["params"]["embedding"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(restored["params"]["embedding"], state["params"]["embedding"].astype(jnp.bfloat16))


def replace_dtype(struct: jax.ShapeDtypeStruct, dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(struct.shape, dtype, sharding=struct.sharding)


def test_a_folder_with_another_number_is_refused(tmp_path, whole, state):
    shutil.copytree(whole / str(STEP), tmp_path / "9")
    for read in (lambda c: c.config(9), lambda c: c.progress(9), lambda c: c.restore(9, target(state))):
        with pytest.raises(DataError, match=rf"checkpoint .*/9 holds step {STEP}, not 9: it was renamed or copied") as caught:
            read(Checkpoints(tmp_path))
        assert not isinstance(caught.value, DamagedError)


def test_another_state_is_not_called_damaged(whole, state):
    asked = target(state) | {"skipped": target(state)["step"]}
    with pytest.raises(DataError, match="holds another training state than this run's: skipped is in one") as caught:
        Checkpoints(whole).restore(STEP, asked)
    assert not isinstance(caught.value, DamagedError)


def test_earlier_versions_had_no_checksums(tmp_path, whole, state, caplog):
    shutil.copytree(whole, tmp_path / "old")
    shutil.rmtree(tmp_path / f"old/{STEP}/{SUMS_ITEM}")
    with pytest.raises(DamagedError, match="its checksums are missing"):  # orbax's list still names them
        read_all(tmp_path / "old", state)
    file = tmp_path / f"old/{STEP}/_CHECKPOINT_METADATA"
    values = json.loads(file.read_text())
    del values["item_handlers"][SUMS_ITEM]
    file.write_text(json.dumps(values))
    read_all(tmp_path / "old", state)
    assert "old/7 was saved by an earlier version, without checksums" in caplog.text


def test_an_error_of_the_machine_is_not_called_damage(whole, state, monkeypatch):
    checkpoints = Checkpoints(whole)
    for error in (PermissionError(13, "Permission denied"), OSError(5, "Input/output error"), MemoryError(),
                  ValueError("RESOURCE_EXHAUSTED: Too many open files"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")):
        def fail(*arguments, error=error, **options):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints._manager, "restore", fail)
            with pytest.raises(DataError, match=r"cannot be read now .*nothing says that it is damaged") as caught:
                checkpoints.config(STEP)
        assert not isinstance(caught.value, DamagedError)
    checkpoints.close()


def test_a_sample_finds_some_of_the_damage(state, monkeypatch):
    sums = CheckpointSums(1, {}, module._checksums(module.named_arrays(state)))
    changed = jax.tree.map(lambda x: x + 1, state)
    with pytest.raises(DamagedError):
        sums.check_arrays(changed, "sample")
    sums.check_arrays(changed, "never")
    monkeypatch.setattr(module.random, "sample", lambda names, count: names[:count])  # mu.layers.w alone is looked at
    sums.check_arrays({"mu": state["mu"], "params": changed["params"]}, "sample")


def test_sums_survive_json_and_know_their_own_damage(state):
    sums = module.sums_of(3, state, items={"config": {"a": 1.5}})
    values = json.loads(json.dumps(sums.to_json()))
    assert CheckpointSums.from_json(values) == sums
    for bad in (values | {"step": 4}, {}, [], None, {"sha256": ""}, values | {"arrays": {}}):
        with pytest.raises(DamagedError, match="its checksums are damaged"):
            CheckpointSums.from_json(bad)


def damaged_run(folders: dict[str, Path], folder: Path) -> str:
    """A converted run with one bit flipped in a value of a parameter that loads without an error; returns its name."""
    original = RunFolder(folders["orbax"])
    shutil.copytree(folders["orbax"], folder)
    name = "layers.attention.wq"
    array = RunFolder(folder)._arrays[name]
    values = original._arrays[name].read().result()
    values.reshape(-1).view(np.uint8)[-1] ^= 1
    array.write(values).result()
    return name


def test_converted_runs_are_verified_tensor_by_tensor_and_whole(tmp_path, folders):
    name = damaged_run(folders, tmp_path / "run")
    for read in (lambda: load(tmp_path / "run"), lambda: load(tmp_path / "run", dtype="bfloat16")):
        with pytest.raises(DamagedError, match=rf"run/checkpoints/0 cannot be read \(params.{name} \(layer \d\) is not what"):
            read()
    load(tmp_path / "run", verify="never")
    load(folders["orbax"])


def test_a_converted_run_under_another_number(tmp_path, folders):
    shutil.copytree(folders["orbax"] / "checkpoints/0", tmp_path / "checkpoints/5")
    with pytest.raises(DataError, match="holds step 0, not 5"):
        open_source(tmp_path)


def test_files_for_transformers_carry_checksums(tmp_path, folders):
    """A flipped byte anywhere in the file: an error, or the same values."""
    file = folders["hf"] / "model.safetensors"
    data, draw, found = file.read_bytes(), random.Random(0), 0
    header = 8 + int.from_bytes(data[:8], "little")
    places = [draw.randrange(header) for _ in range(60)] + [draw.randrange(header, len(data)) for _ in range(20)]
    shutil.copytree(folders["hf"], tmp_path / "hf")
    right = params_of(folders["hf"])
    for at in places:
        changed = bytearray(data)
        changed[at] ^= 1 << draw.randrange(8)
        (tmp_path / "hf/model.safetensors").write_bytes(changed)
        try:
            params = params_of(tmp_path / "hf")
        except DataError:
            found += 1
        else:
            assert at < header
            chex.assert_trees_all_equal(params, right)
    assert found > 60


def params_of(folder: Path) -> dict:
    source = open_source(folder)
    return jax.device_get(load_params(source, abstract_params(source.config)))
