"""The other processes of a run: joining them, and noticing when one is lost."""

import itertools
import os
import sys
import threading
import time

import jax
from jax._src.distributed import global_state  # its key-value store has no public door

from llama_jax.errors import ConfigError, LlamaError
from llama_jax.parallel.xla_flags import platforms

BEAT_SECONDS, LOST_SECONDS = 5, 30
"""How often a process of several says that it lives, and after how long without a word it counts as lost."""


def join() -> None:
    """Join the other processes of the run, where a launcher says that there are any.

    Reads JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, or what SLURM, Open MPI or
    a TPU pod set. Raises ConfigError where they do not make sense, LlamaError where the others do not come.
    """
    arguments = coordinator()
    if arguments is None:
        return
    try:
        # jax's own watch ends a process with a stack trace of C++, from half of its time on; ours comes first, with a sentence
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=4 * LOST_SECONDS)
    except (RuntimeError, ValueError) as error:  # jax's own errors are RuntimeErrors
        raise LlamaError(f"the processes of this run did not find each other: {first_line(error)}") from None
    if jax.process_count() > 1:
        threading.Thread(target=watch, daemon=True).start()


def watch() -> None:
    """Say every few seconds that this process lives; leave once another has been silent for too long."""
    client, folder = global_state.client, "llama_jax/alive/"
    heard: dict[str, tuple[str, float]] = {}
    for beat in itertools.count():
        try:
            client.key_value_set(f"{folder}{jax.process_index()}", str(beat), allow_overwrite=True)
            beats = client.key_value_dir_get(folder)
        except RuntimeError:  # the run ends, or process 0 is gone: then jax ends this process at once
            return
        now = time.monotonic()
        for process, value in beats:
            if heard.get(process, ("", now))[0] != value:
                heard[process] = value, now
            elif now - heard[process][1] > LOST_SECONDS:
                leave(f"{lost()} (process {process.rpartition('/')[2]} has been silent for {LOST_SECONDS} seconds).")
        time.sleep(BEAT_SECONDS)


def lost() -> str:
    """What to say where another process has failed."""
    return (f"process {jax.process_index()}: another process of this run is gone; start all of them again with the same command, "
            "and they go on from the newest checkpoint")


def coordinator() -> dict | None:
    """Arguments of jax.distributed.initialize: explicit ones, none for jax to find its own; None for a single process."""
    variables = os.environ
    if address := variables.get("JAX_COORDINATOR_ADDRESS"):
        count, number = (_number(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
        if not number < count:
            raise ConfigError(f"JAX_PROCESS_ID must be below JAX_NUM_PROCESSES, got {number} and {count}.")
        return {"coordinator_address": address, "num_processes": count, "process_id": number}
    slurm = "SLURM_STEP_NODELIST" in variables and int(variables.get("SLURM_NTASKS", "1")) > 1
    open_mpi = int(variables.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    return {} if slurm or open_mpi or "tpu" in platforms() else None


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ConfigError(f"JAX_COORDINATOR_ADDRESS is set, so {name} must be a whole number, got {value!r}.")
    return int(value)


def first_line(error: BaseException) -> str:
    """What an error of jax says before it goes into detail."""
    return str(error).strip().partition("\n")[0]


def leave(message: str) -> None:
    """End this process at once with exit code 1: what waits for a lost process at exit would wait for minutes."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(1)
