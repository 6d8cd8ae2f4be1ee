"""Compiles the real train step for accelerators that are not here, in a process of its own, and measures the program."""

import dataclasses
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from llama_jax.config import Config, config_from_dict, to_dict
from llama_jax.errors import ConfigError, LlamaError
from llama_jax.parallel.xla_flags import OVERLAP_FLAGS
from llama_jax.plan.fleet import Fleet, parse_machine
from llama_jax.plan.hlo import Collective, collectives_of_program, custom_calls_of_program, matmul_flops_of_program
from llama_jax.plan.topologies import compile_only_devices

_COMPILER_MODULES = {"tpu": ("libtpu", "plan-tpu"), "gpu": ("jax_plugins.xla_cuda12", "plan-gpu")}
"""The module that brings the compiler for a kind of machine, and the extra of this package that installs it."""

_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
                "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_ID": "0", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""Variables with which libtpu and the CUDA plugin load where there is neither a TPU nor a GPU; an accelerator that is here is
not touched."""


@dataclass(frozen=True)
class CompiledStep:
    """What the compiler reports of one train step on one device. Memory is in bytes."""

    arguments: int
    """Memory of the state and the batch."""
    temporaries: int
    """Memory of all else that the step computes."""
    peak: int
    """Arguments and temporaries at the fullest moment; 0 where the compiler gave up for lack of memory."""
    collectives: tuple[Collective, ...]
    matmul_flops: float
    """Matmul FLOPs per step on one device, without what custom kernels compute."""
    kernels: tuple[str, ...]
    """Names of the custom kernels that the program calls."""
    seconds: float
    """Wall-clock time of lowering and compiling."""
    cpu_seconds: float
    """CPU time of the compiling process, over all cores."""
    host_memory: int
    """Peak resident memory of the compiling process."""
    refusal: str = ""
    """The compiler's message where the program does not fit its machine."""


def check_compiler_installed(fleet: Fleet) -> None:
    """Raise ConfigError where the compiler for the machine is not installed."""
    module, extra = _COMPILER_MODULES[fleet.machine.kind]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError(f"--compile for {fleet.machine.name} needs the package of {module.split('.')[-1]}, which is not "
                          f'installed here: pip install "llama_jax[{extra}]" (from a checkout: pip install -e ".[{extra}]").')


def compile_for_fleet(config: Config, fleet: Fleet) -> CompiledStep:
    """The train step of `config` compiled for `fleet` in a process of its own, whose environment differs from this one's.

    Raises ConfigError where the compiler is not installed or the config does not suit the fleet, LlamaError where it fails.
    """
    check_compiler_installed(fleet)
    request = {"config": to_dict(config), "machine": f"{fleet.machine.name}:{fleet.count}"}
    variable, flags = OVERLAP_FLAGS[fleet.machine.kind]  # the flags that training sets on such a machine
    environment = os.environ | _ENVIRONMENT | {
        "JAX_COMPILATION_CACHE_DIR": "",  # a program from the cache comes without the analysis of its memory
        variable: " ".join(f"{name}={value}" for name, value in flags.items()),
    }
    done = subprocess.run([sys.executable, "-m", "llama_jax.plan.compiled"], input=json.dumps(request), text=True,
                          capture_output=True, env=environment, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reason = _reason_of_failure(done)
        if done.returncode == ConfigError.exit_code:
            raise ConfigError(reason.removeprefix("error: "))
        raise LlamaError(f"compiling for {fleet.machine.name} failed: {reason}")
    values = json.loads(lines[-1])
    values["collectives"] = tuple(Collective(**collective) for collective in values["collectives"])
    values["kernels"] = tuple(values["kernels"])
    return CompiledStep(**values)


def _reason_of_failure(done: subprocess.CompletedProcess) -> str:
    """The last line of a failed process's stderr that names an exception, else its last line."""
    lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
    for line in reversed(lines):
        if re.match(r"[\w.]*([Ee]rror|Exception)\b", line):
            return line
    return lines[-1]


def compile_train_step(config: Config, devices: list[Any]) -> CompiledStep:
    """The train step of `config` compiled in this process for `devices`, which may be compile-only."""
    import jax  # imported here: a plan without --compile is arithmetic and should not wait for orbax and flax

    from llama_jax.parallel.mesh import make_mesh
    from llama_jax.training.compiled import build

    mesh = make_mesh(config.mesh, devices)
    program, begin = build(config, mesh), time.perf_counter()
    with jax.set_mesh(mesh):
        lowered = program.train_step.lower(program.abstract_state, program.abstract_batch)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            seconds, (cpu_seconds, host_memory) = time.perf_counter() - begin, _resources_used()
            return CompiledStep(arguments=0, temporaries=0, peak=0, collectives=(), matmul_flops=0.0, kernels=(), seconds=seconds,
                                cpu_seconds=cpu_seconds, host_memory=host_memory, refusal=_refusal(error))
    memory, text = compiled.memory_analysis(), compiled.as_text()
    collectives, flops, kernels = collectives_of_program(text), matmul_flops_of_program(text), custom_calls_of_program(text)
    seconds, (cpu_seconds, host_memory) = time.perf_counter() - begin, _resources_used()
    return CompiledStep(
        arguments=memory.argument_size_in_bytes, temporaries=memory.temp_size_in_bytes, peak=memory.peak_memory_in_bytes,
        collectives=tuple(collectives), matmul_flops=flops, kernels=tuple(kernels), seconds=seconds, cpu_seconds=cpu_seconds,
        host_memory=host_memory,
    )


def _refusal(error: Exception) -> str:
    """The first sentence of the compiler's message that memory is exhausted."""
    message = re.sub(r"\s+", " ", str(error).split("RESOURCE_EXHAUSTED: ")[-1])
    return message.split(". ")[0].rstrip(".")


def _resources_used() -> tuple[float, int]:
    """CPU seconds and peak resident bytes of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * bytes_per_unit


def main() -> None:
    """Answer one request from stdin, {config, machine}, with a CompiledStep as one line of JSON."""
    request = json.load(sys.stdin)
    config, fleet = config_from_dict(request["config"]), parse_machine(request["machine"])
    print(json.dumps(dataclasses.asdict(compile_train_step(config, compile_only_devices(fleet)))))


if __name__ == "__main__":
    from llama_jax.errors import exit_code_of

    sys.exit(exit_code_of(main))
