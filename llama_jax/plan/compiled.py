"""Compiles the real train step for a machine that is not here, in a process of its own, and reports what came out."""

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

from llama_jax.config import Config, from_dict, to_dict
from llama_jax.errors import ConfigError, LlamaError
from llama_jax.parallel.xla_flags import FLAGS
from llama_jax.plan.hlo import Collective, collectives, fused_kernels, matmul_flops
from llama_jax.plan.machines import Fleet, Machine, describe_gpu, parse_machine, topology_name

NEEDS = {"tpu": ("libtpu", "plan-tpu"), "gpu": ("jax_plugins.xla_cuda12", "plan-gpu")}
"""Module that brings the compiler for a kind of machine, and the extra of ours that installs it."""

ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
               "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_ID": "0", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""What lets libtpu and the CUDA plugin load where there is neither TPU nor GPU; a device that is here stays untouched."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one step on one device. Memory is in bytes."""

    arguments: int
    """State and batch."""
    temporaries: int
    peak: int
    """Arguments and temporaries at the fullest moment; 0 where the compiler gave up for want of memory."""
    collectives: tuple[Collective, ...]
    matmul_flops: float
    """Of one device's step, without what the kernels do."""
    kernels: tuple[str, ...]
    """Custom calls of the program."""
    seconds: float
    """Of lowering and compiling."""
    cpu_seconds: float
    """Of all the compiling process did, over all cores."""
    host_memory: int
    """Peak resident memory of the compiling process."""
    refusal: str = ""
    """The compiler's sentence where the program does not fit its machine."""


def check_compiler(fleet: Fleet) -> None:
    """Raise ConfigError where the compiler for the machine is not installed."""
    module, extra = NEEDS[fleet.machine.kind]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError(f"--compile for {fleet.machine.name} needs the package of {module.split('.')[-1]}, which is not "
                          f'installed here: pip install "llama_jax[{extra}]" (from a checkout: pip install -e ".[{extra}]").')


def compile_for(config: Config, fleet: Fleet) -> Compiled:
    """The step of `config` compiled for `fleet`; raises ConfigError without its compiler, LlamaError where it fails."""
    check_compiler(fleet)
    request = {"config": to_dict(config), "machine": f"{fleet.machine.name}:{fleet.count}"}
    variable, flags = FLAGS[fleet.machine.kind]  # those that training sets there
    variables = ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": "",  # a cached program has no analysis of its compilation
                               variable: " ".join(f"{name}={value}" for name, value in flags.items())}
    done = subprocess.run([sys.executable, "-m", "llama_jax.plan.compiled"], input=json.dumps(request), text=True,
                          capture_output=True, env=os.environ | variables, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reasons = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
        reason = next((line for line in reversed(reasons) if re.match(r"[\w.]*([Ee]rror|Exception)\b", line)), reasons[-1])
        raise ConfigError(reason.removeprefix("error: ")) if done.returncode == ConfigError.exit_code else LlamaError(
            f"compiling for {fleet.machine.name} failed: {reason}")
    values = json.loads(lines[-1])
    return Compiled(**values | {"collectives": tuple(Collective(**c) for c in values["collectives"]),
                                "kernels": tuple(values["kernels"])})


def compile_here(config: Config, devices: list) -> Compiled:
    """The step compiled for `devices`, which may be there or only described."""
    import jax

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
            refusal = re.sub(r"\s+", " ", str(error).split("RESOURCE_EXHAUSTED: ")[-1]).split(". ")[0].rstrip(".")
            return Compiled(0, 0, 0, (), 0.0, (), time.perf_counter() - begin, *effort(), refusal)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    return Compiled(
        arguments=memory.argument_size_in_bytes, temporaries=memory.temp_size_in_bytes, peak=memory.peak_memory_in_bytes,
        collectives=tuple(collectives(text)), matmul_flops=matmul_flops(text), kernels=tuple(fused_kernels(text)),
        seconds=time.perf_counter() - begin, cpu_seconds=effort()[0], host_memory=effort()[1],
    )


def effort() -> tuple[float, int]:
    """CPU seconds and peak resident bytes of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def described_devices(fleet: Fleet) -> list:
    """Compile-only devices of a machine that is not here."""
    from jax.experimental import topologies

    if fleet.machine.kind == "tpu":
        options = {"chip_config_name": "megacore"} if fleet.machine.name == "v4" else {}  # else jax sees v4's two cores apart
        if fleet.count == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        return list(topologies.get_topology_desc(topology_name(fleet), platform="tpu", **options).devices)
    ask_about(fleet.machine)
    return list(topologies.get_topology_desc("", platform="cuda", target_config=describe_gpu(fleet.machine),
                                             topology=topology_name(fleet)).devices)


def ask_about(machine: Machine) -> None:
    """Make jax's cuDNN attention ask for the capability of `machine`: it looks at the GPU that is here, and there is none."""
    from jax._src.cudnn import fused_attention_stablehlo

    def numbers(capability: str) -> tuple[int, ...]:
        return tuple(int(part) for part in capability.split("."))

    fused_attention_stablehlo.check_compute_capability = lambda least: numbers(machine.capability) >= numbers(least)
    fused_attention_stablehlo.is_cuda_compute_capability_equal = lambda other: machine.capability == other


def main() -> None:
    """Serve one request on stdin: {config, machine} -> Compiled as one JSON line."""
    request = json.load(sys.stdin)
    config, fleet = from_dict(Config, request["config"]), parse_machine(request["machine"])
    print(json.dumps(dataclasses.asdict(compile_here(config, described_devices(fleet)))))


if __name__ == "__main__":
    from llama_jax.errors import exit_code_of

    sys.exit(exit_code_of(main))
