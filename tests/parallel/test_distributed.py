"""A process learns from its environment that it is one of several."""

import pytest

from llama_jax.errors import ConfigError
from llama_jax.parallel.distributed import coordinator_arguments


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
    assert coordinator_arguments() == arguments


@pytest.mark.parametrize("variables, sentence", [
    ({"JAX_NUM_PROCESSES": "2"}, "so JAX_PROCESS_ID must be a whole number, got ''"),
    ({"JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "so JAX_NUM_PROCESSES must be a whole number, got 'two'"),
    ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID must be below JAX_NUM_PROCESSES, got 2 and 2"),
])
def test_half_a_description_is_refused(environment, variables, sentence):
    environment |= {"JAX_COORDINATOR_ADDRESS": "h:1"} | variables
    with pytest.raises(ConfigError, match=sentence):
        coordinator_arguments()
