"""Parallelism over devices and processes: the device mesh, the sharding rules, and the processes of a multi-host run.

Importing this package imports no jax: compiler flags (`set_xla_flags`) have to be set before jax starts its devices.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.parallel.attention import attend_over_mesh
    from llama_jax.parallel.checksums import ArrayChecksum, array_checksums, host_checksum
    from llama_jax.parallel.distributed import join_processes
    from llama_jax.parallel.hardware import PEAK_FLOPS, peak_flops
    from llama_jax.parallel.malloc import keep_freed_memory
    from llama_jax.parallel.mesh import check_batch, check_length, check_model, make_mesh, mesh_shape
    from llama_jax.parallel.rules import AXES, RULES, constrain, mesh_axes, named_sharding, spec
    from llama_jax.parallel.vocabulary import look_up
    from llama_jax.parallel.xla_flags import OVERLAP_FLAGS, set_xla_flags

_MODULES = {
    "AXES": "rules",
    "ArrayChecksum": "checksums",
    "OVERLAP_FLAGS": "xla_flags",
    "PEAK_FLOPS": "hardware",
    "RULES": "rules",
    "array_checksums": "checksums",
    "attend_over_mesh": "attention",
    "check_batch": "mesh",
    "check_length": "mesh",
    "check_model": "mesh",
    "constrain": "rules",
    "host_checksum": "checksums",
    "join_processes": "distributed",
    "keep_freed_memory": "malloc",
    "look_up": "vocabulary",
    "make_mesh": "mesh",
    "mesh_axes": "rules",
    "mesh_shape": "mesh",
    "named_sharding": "rules",
    "peak_flops": "hardware",
    "set_xla_flags": "xla_flags",
    "spec": "rules",
}
"""The module of each name, which is imported when the name is first asked for."""

__all__ = [
    "AXES", "OVERLAP_FLAGS", "PEAK_FLOPS", "RULES", "ArrayChecksum", "array_checksums", "attend_over_mesh", "check_batch",
    "check_length", "check_model", "constrain", "host_checksum", "join_processes", "keep_freed_memory", "look_up", "make_mesh",
    "mesh_axes", "mesh_shape", "named_sharding", "peak_flops", "set_xla_flags", "spec",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
