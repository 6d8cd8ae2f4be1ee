"""The compiler's flags, and how a process learns that it is one of several."""

import os

import pytest

from llama_jax.errors import ConfigError
from llama_jax.parallel import distributed as runtime


@pytest.fixture
def environment(monkeypatch):
    """The environment without anything that a launcher or a user may have set."""
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("JAX_", "SLURM_", "OMPI_", "XLA_", "LIBTPU_"))}
    monkeypatch.setattr(os, "environ", clean)
    return clean


def test_flags_of_the_platform_and_the_users_own_first(environment):
    environment |= {"JAX_PLATFORMS": "cuda,cpu", "XLA_FLAGS": "--xla_gpu_enable_pipelined_all_gather=false --xla_dump_to=d"}
    runtime.set_flags()
    flags = environment["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_gpu_enable_pipelined_all_gather=false", "--xla_dump_to=d"]
    assert "--xla_gpu_enable_latency_hiding_scheduler=true" in flags
    assert sum(flag.startswith("--xla_gpu_enable_pipelined_all_gather=") for flag in flags) == 1
    assert "LIBTPU_INIT_ARGS" not in environment
    (line,) = runtime.flags_in_use()
    assert line.startswith("XLA_FLAGS: --xla_gpu_enable_pipelined")


@pytest.mark.parametrize("platforms, variables", [("cpu", set()), ("tpu", {"LIBTPU_INIT_ARGS"})])
def test_other_platforms(environment, platforms, variables):
    environment["JAX_PLATFORMS"] = platforms
    runtime.set_flags()
    assert {"XLA_FLAGS", "LIBTPU_INIT_ARGS"} & set(environment) == variables


@pytest.mark.parametrize("variables, arguments", [
    ({}, None),
    ({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
     {"coordinator_address": "h:1", "num_processes": 2, "process_id": 1}),
    ({"SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "16"}, {}),
    ({"SLURM_STEP_NODELIST": "a1", "SLURM_NTASKS": "1"}, None),
    ({"OMPI_COMM_WORLD_SIZE": "4"}, {}),
])
def test_who_else_is_there(environment, variables, arguments):
    environment |= {"JAX_PLATFORMS": "cpu"} | variables
    assert runtime.coordinator() == arguments


@pytest.mark.parametrize("variables, sentence", [
    ({"JAX_NUM_PROCESSES": "2"}, "so JAX_PROCESS_ID must be a whole number, got ''"),
    ({"JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "so JAX_NUM_PROCESSES must be a whole number, got 'two'"),
    ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID must be below JAX_NUM_PROCESSES, got 2 and 2"),
])
def test_half_a_description_is_refused(environment, variables, sentence):
    environment |= {"JAX_COORDINATOR_ADDRESS": "h:1"} | variables
    with pytest.raises(ConfigError, match=sentence):
        runtime.coordinator()
