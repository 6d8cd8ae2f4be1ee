"""Checksums that a checkpoint carries: of every array, and of its JSON items; what is read is compared with them."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llama_jax.config import Verification
from llama_jax.errors import DamagedError
from llama_jax.files.atomic import write_atomic
from llama_jax.model.tree import LAYERS, name_of
from llama_jax.parallel.checksums import ArrayChecksum, array_checksums, host_checksum

SUMS_ITEM = "sums"
"""The item of a checkpoint that holds its checksums as JSON; checkpoints of earlier versions have none."""

_SAMPLED = 8
"""One array in so many is compared where a sample is asked for."""


@dataclass(frozen=True)
class CheckpointSums:
    """The checksums of one checkpoint."""

    step: int
    """Number of the step that was saved."""
    items: Mapping[str, str]
    """SHA-256 of each JSON item."""
    arrays: Mapping[str, ArrayChecksum]
    """Checksums of the state's arrays by dotted name; a parameter stacked over layers has a pair of them for each layer."""

    def to_json(self) -> dict[str, Any]:
        """The values of the JSON item; `sha256` is that of the others."""
        arrays = {name: {"shape": list(array.shape), "dtype": array.dtype, "sums": [f"{a:08x}{b:08x}" for a, b in array.parts]}
                  for name, array in self.arrays.items()}
        values = {"step": self.step, "items": dict(self.items), "arrays": arrays}
        return values | {"sha256": json_sha256(values)}

    @staticmethod
    def from_json(values: Any) -> "CheckpointSums":
        """Read what `to_json` made; raises DamagedError where the values are not those."""
        try:
            given = dict(values)
            if given.pop("sha256") != json_sha256(given):
                raise ValueError("their own checksum is another")
            arrays = {name: ArrayChecksum(tuple(array["shape"]), array["dtype"],
                                          tuple((int(part[:8], 16), int(part[8:], 16)) for part in array["sums"]))
                      for name, array in given["arrays"].items()}
            return CheckpointSums(given["step"], given["items"], arrays)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise DamagedError(f"its checksums are damaged: {reason}") from None

    def check_item(self, name: str, value: Any) -> None:
        """Raise DamagedError unless a JSON item is the one that was saved."""
        if self.items.get(name) != json_sha256(value):
            raise DamagedError(f"its {name} is not what was saved")

    def check_arrays(self, tree: Any, verify: Verification) -> None:
        """Compare arrays on devices, which have the dtypes that they were saved in; raises DamagedError where one differs."""
        arrays = chosen(named_arrays(tree), verify)
        for name, found in _checksums(arrays).items():
            saved = self._of(name)
            if saved != found:
                layers = [str(n) for n, (a, b) in enumerate(zip(saved.parts, found.parts, strict=False)) if a != b]
                where = f" (layer {', '.join(layers[:5])})" if len(saved.parts) > 1 and layers else ""
                raise DamagedError(f"{name}{where} is not what was saved: its checksum is another")

    def check_tensor(self, name: str, array: np.ndarray, *, layer: int | None) -> None:
        """Compare one array of the host, or one layer of a stacked one, likewise."""
        saved = self._of(name)
        shape = saved.shape if layer is None else saved.shape[1:]
        found = host_checksum(array, layer=layer)
        if (shape, saved.dtype, saved.parts[layer or 0]) != (array.shape, array.dtype.name, found):
            where = "" if layer is None else f" (layer {layer})"
            raise DamagedError(f"{name}{where} is not what was saved: its checksum is another")

    def _of(self, name: str) -> ArrayChecksum:
        if name not in self.arrays:
            raise DamagedError(f"it holds {name}, of which it has no checksum")
        return self.arrays[name]


def sums_of(step: int, state: Any, *, items: Mapping[str, Any]) -> CheckpointSums:
    """The checksums of a state of arrays on devices, and of JSON items by name. It waits until the state is computed."""
    return CheckpointSums(step, {name: json_sha256(value) for name, value in items.items()}, _checksums(named_arrays(state)))


@dataclass(frozen=True)
class TensorSums:
    """Checksums of one array of the host, collected while its layers are written."""

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: dict[int, tuple[int, int]]

    def add(self, array: np.ndarray, *, layer: int | None) -> None:
        """Take the whole array (layer None), or one layer of it."""
        self.parts[layer or 0] = host_checksum(array, layer=layer)

    def result(self) -> ArrayChecksum:
        """The checksums of the array, all of whose layers were added."""
        return ArrayChecksum(self.shape, self.dtype.name, tuple(self.parts[n] for n in sorted(self.parts)))


def write_sums(step: Path, sums: CheckpointSums) -> None:
    """Replace the checksums of a checkpoint that is being made, as orbax stores a JSON item."""
    write_atomic(step / SUMS_ITEM / "metadata", json.dumps(sums.to_json()).encode())


def named_arrays(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by dotted name."""
    return {name_of(path): leaf for path, leaf in jax.tree.flatten_with_path(tree)[0]}


def chosen(arrays: dict[str, Any], verify: Verification) -> dict[str, Any]:
    """Those of some arrays that are verified."""
    if verify == "full":
        return arrays
    count = -(-len(arrays) // _SAMPLED) if verify == "sample" else 0
    return {name: arrays[name] for name in random.sample(sorted(arrays), count)}


def is_chosen(verify: Verification) -> bool:
    """Whether the tensor that is read next is verified."""
    return verify == "full" or (verify == "sample" and random.randrange(_SAMPLED) == 0)


def _checksums(arrays: Mapping[str, Any]) -> dict[str, ArrayChecksum]:
    return array_checksums(arrays, stacked=[name for name in arrays if LAYERS in name.split(".")])


def json_sha256(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
