"""Whether every arm of a study can run on this machine, found in a process of its own before the first run starts.

`python -m llama_jax.ablation.check` reads a request from stdin; the process that starts the runs holds no devices.
"""

import json
import os
import subprocess
import sys

from llama_jax.ablation.slots import worker_environment
from llama_jax.config import Config, Study, from_dict, to_dict
from llama_jax.errors import ConfigError, LlamaError


def check_arms(study: Study, jobs: int) -> None:
    """Raise ConfigError for the first arm whose model, rows or backend do not suit the devices, or whose memory does not fit.

    Memory is estimated by arithmetic (`plan.memory`), and compared with what a device has; on CPU, with the host's memory over
    `jobs` workers. Raises LlamaError where jax does not start.
    """
    request = json.dumps({"study": to_dict(study), "jobs": jobs})
    environment = worker_environment(0, jobs) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run([sys.executable, "-m", "llama_jax.ablation.check"], input=request, text=True, capture_output=True,
                          env=environment, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"the process that looks at the arms ended with {done.returncode}"])[-1]
        error = ConfigError if done.returncode == ConfigError.exit_code else LlamaError
        raise error(reason.removeprefix("error: "))


def _check_arm(config: Config, *, jobs: int) -> None:
    """Raise ConfigError where a run of this config does not suit the devices of this process."""
    import jax

    from llama_jax.parallel.mesh import make_mesh
    from llama_jax.plan.memory import estimate_memory
    from llama_jax.training.compiled import build

    mesh, device = make_mesh(config.mesh), jax.devices()[0]
    attention = build(config, mesh).attention.partition(" ")[0]
    needed = estimate_memory(config, dict(mesh.shape), attention=attention, kind=device.platform).total
    limit, whose = (device.memory_stats() or {}).get("bytes_limit", 0), f"a {device.device_kind} has"
    if device.platform == "cpu":
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jobs
        whose = f"this host has for each of {jobs} job(s)"
    if limit and needed > limit:
        raise ConfigError(f"its train step takes about {needed / 2**30:.1f} GiB, more than the {limit / 2**30:.1f} GiB that "
                          f"{whose}; lower its batch, or raise training.accumulation_steps or compute.remat.")


def main() -> None:
    """Check the arms of one request from stdin, {study, jobs}."""
    request = json.load(sys.stdin)
    for arm in from_dict(Study, request["study"]).arms:
        try:
            _check_arm(arm.config, jobs=request["jobs"])
        except ConfigError as error:
            raise ConfigError(f"arm {arm.name}: {error}") from None


if __name__ == "__main__":
    from llama_jax.errors import exit_code_of

    sys.exit(exit_code_of(main))
