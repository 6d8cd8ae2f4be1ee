"""Multi-process runs: processes join through jax.distributed, and a heartbeat timeout detects the loss of one.

jax has a heartbeat of its own, but it ends a process with a C++ stack trace. The one here is faster and ends with an error
message that says what to do.
"""

import itertools
import os
import sys
import threading
import time
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # jax has no public access to its key-value store

from llama_jax.errors import ConfigError, LlamaError
from llama_jax.parallel.xla_flags import accelerator_platforms

HEARTBEAT_SECONDS = 5
"""Seconds between two heartbeats of a process."""

HEARTBEAT_TIMEOUT = 30
"""Seconds without a heartbeat after which a process counts as lost."""

_HEARTBEATS = "llama_jax/alive/"
"""Prefix of the keys in jax's key-value store under which each process counts its heartbeats."""


def join_processes() -> None:
    """Join the other processes of this run, where a launcher started several; does nothing in a run of one process.

    Reads JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, or what SLURM, Open MPI or a
    TPU pod set.

    Raises:
        ConfigError: these variables contradict each other.
        LlamaError: the other processes do not come.
    """
    arguments = coordinator_arguments()
    if arguments is None:
        return
    try:
        # jax ends a process from half of its own heartbeat timeout on; it must not do so before ours has
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=4 * HEARTBEAT_TIMEOUT)
    except (RuntimeError, ValueError) as error:  # jax's own errors are RuntimeErrors
        raise LlamaError(f"the processes of this run did not find each other: {first_line(error)}") from None
    if jax.process_count() > 1:
        threading.Thread(target=_exchange_heartbeats, daemon=True).start()


def coordinator_arguments() -> dict[str, Any] | None:
    """Arguments for jax.distributed.initialize, from the environment.

    None for a run of one process; empty where jax finds the coordinator itself (SLURM, Open MPI, TPU pods). Raises ConfigError
    where JAX_COORDINATOR_ADDRESS is set and the other variables do not fit it.
    """
    variables = os.environ
    if address := variables.get("JAX_COORDINATOR_ADDRESS"):
        num_processes, process_id = _whole_number("JAX_NUM_PROCESSES"), _whole_number("JAX_PROCESS_ID")
        if process_id >= num_processes:
            raise ConfigError(f"JAX_PROCESS_ID must be below JAX_NUM_PROCESSES, got {process_id} and {num_processes}.")
        return {"coordinator_address": address, "num_processes": num_processes, "process_id": process_id}
    slurm = "SLURM_STEP_NODELIST" in variables and int(variables.get("SLURM_NTASKS", "1")) > 1
    open_mpi = int(variables.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    if slurm or open_mpi or "tpu" in accelerator_platforms():
        return {}
    return None


def _whole_number(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal():
        raise ConfigError(f"JAX_COORDINATOR_ADDRESS is set, so {variable} must be a whole number, got {value!r}.")
    return int(value)


def _exchange_heartbeats() -> None:
    """Send a heartbeat every HEARTBEAT_SECONDS; end this process once another has sent none for HEARTBEAT_TIMEOUT.

    A heartbeat is a count in the key-value store that process 0 serves. Clocks of different machines are never compared: a
    process is alive when its count has changed since this one last looked.
    """
    client = global_state.client
    seen: dict[str, tuple[str, float]] = {}  # key of a process -> (its newest count, when this process first saw that)
    for beat in itertools.count():
        try:
            client.key_value_set(f"{_HEARTBEATS}{jax.process_index()}", str(beat), allow_overwrite=True)
            counts = client.key_value_dir_get(_HEARTBEATS)
        except RuntimeError:  # the run ends, or process 0 is gone: then jax ends this process at once
            return
        now = time.monotonic()
        for process, count in counts:
            if process not in seen or seen[process][0] != count:
                seen[process] = count, now
            elif now - seen[process][1] > HEARTBEAT_TIMEOUT:
                exit_at_once(f"{lost_process_message()} (process {process.rpartition('/')[2]} has sent no heartbeat for "
                             f"{HEARTBEAT_TIMEOUT} seconds).")
        time.sleep(HEARTBEAT_SECONDS)


def is_first_process() -> bool:
    """Whether this process is the only one of its run, or the one that writes its files; asks no device."""
    return global_state.process_id == 0


def is_one_of_several() -> bool:
    """Whether the run has several processes; asks no device."""
    return (global_state.num_processes or 1) > 1


def announces_preemption() -> bool:
    """Whether this run has several processes to which jax announces a SIGTERM that one of them got, so that all stop together."""
    return (global_state.num_processes or 1) > 1 and global_state.preemption_sync_manager is not None


def lost_process_message() -> str:
    """The start of the error message for the loss of another process of the run."""
    return (f"process {jax.process_index()}: another process of this run is gone; start all of them again with the same command, "
            "and they go on from the newest checkpoint")


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, without the details that jax appends."""
    return str(error).strip().partition("\n")[0]


def exit_at_once(message: str) -> NoReturn:
    """Print an error and end this process with exit code 1, without cleaning up.

    An orderly exit would wait minutes for the lost process in the barriers of jax.distributed.
    """
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(1)
