"""Runs generated programs apart from everything: limits always, kernel layers where the system has them, and says which."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from llama_jax.errors import ConfigError
from llama_jax.evaluation.sandbox.folders import program_folder, remove_stale_folders

SANDBOX_LAYERS = ("namespaces", "user", "landlock", "seccomp")
"""Layers of confinement that Linux offers, the outermost first; `jail` says what each does."""

_READABLE = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/etc/ld.so.cache", "/dev/null", "/dev/zero",
             "/dev/urandom")
"""What a program may read besides the Python installation."""

_START_SECONDS = 60
"""Time to start an interpreter, which is long on a busy machine; the program's own time runs from its first line."""

_KEPT_OUTPUT = 4096
"""Bytes of a program's output that are kept: there may be tens of thousands of programs."""

_READ_BYTES = 1 << 16
"""Most bytes that are read from a pipe at once."""

_PROBE = "import bisect, ctypes, decimal, hashlib, random, threading\nopen('here', 'w').write('1')"
"""A program that fails where a layer lets too little through."""

_HAZARDS = {
    "the network": {"namespaces", "seccomp"},
    "reading other files": {"namespaces", "landlock"},
    "writing outside its folder": {"namespaces", "landlock"},
    "the size of its folder as a whole": {"namespaces"},
    "signals to other processes": {"namespaces", "seccomp"},
    "starting processes": {"seccomp"},
}
"""What a program could do, and the layers each of which prevents it."""


@dataclass(frozen=True)
class ProgramLimits:
    """Limits on the resources of one program."""

    wall_seconds: float = 3.0
    """The limit of OpenAI's human-eval."""
    cpu_seconds: int = 3
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Size of one file, and with the layer `namespaces` of the whole folder."""
    threads: int = 32
    """Threads and processes together, where the system can count those of one program."""
    output_bytes: int = 1 << 20
    """Bytes that it may print."""


@dataclass(frozen=True)
class ProgramOutcome:
    """Outcome of running a program in the sandbox."""

    passed: bool
    """It ran to its end without an exception."""
    result: str
    """One of "passed", "timed out", or "failed: " and the reason."""
    output: str
    """The beginning of what it printed."""
    seconds: float
    """Wall time, without the start of the interpreter."""


def run_program(
    program: str, limits: ProgramLimits = ProgramLimits(), *, layers: Sequence[str] | None = None
) -> ProgramOutcome:
    """Run Python source in an empty module, as OpenAI's human-eval does.

    The verdict comes from inside the program's process, as human-eval's does: a program that sets out to forge it can.

    Args:
        layers: Which of SANDBOX_LAYERS to use; None: all that work here.

    Raises:
        ConfigError: A layer that is asked for does not work, or no program can be started.
    """
    layers = available_layers()[0] if layers is None else tuple(layers)
    with program_folder() as folder:
        answer_read, answer_write = os.pipe()
        # the limit on a user's processes is right where the user has no others: in a user namespace, or as a new user
        counted = ("namespaces" if os.geteuid() else "user") in layers
        order = {"program": program, "limits": asdict(limits), "layers": layers, "readable": readable_paths(),
                 "answer": answer_write, "parent": os.getpid(), "counted": counted}
        variables = {"PYTHONHASHSEED": "0"}
        if "LD_LIBRARY_PATH" in os.environ:
            variables["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", str(Path(__file__).with_name("jail.py"))], cwd=folder, env=variables,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(answer_write,),
            start_new_session=True)
        os.close(answer_write)
        try:
            with suppress(BrokenPipeError), process.stdin as orders:  # a jail that dies first has said why, which is read below
                orders.write(json.dumps(order).encode())
            answer, output, ending, seconds = _watch(answer_read, process.stdout.fileno(), limits=limits)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it is not reaped yet, so the number is still its own
            process.wait()
            process.stdout.close()
            os.close(answer_read)
    text = output[:_KEPT_OUTPUT].decode(errors="replace")
    started, _, verdict = answer.decode(errors="replace").partition("\n")
    if started != "started":
        raise ConfigError(f"the sandbox cannot start programs with {', '.join(layers) or 'limits alone'}: "
                          f"{(started or text)[-500:] or 'it gave no sign of life'}")
    result = ending or verdict or _verdict_of_status(process.returncode)
    return ProgramOutcome(result == "passed", result, text, seconds)


def _watch(answer: int, output: int, *, limits: ProgramLimits) -> tuple[bytes, bytes, str, float]:
    """Read two pipes until they close, the time is up, or one holds too much.

    Returns:
        The content of both, the verdict where the program was ended early (else empty), and the seconds that it ran.
    """
    held = {answer: b"", output: b""}
    begin, ending = 0.0, ""
    deadline = time.monotonic() + _START_SECONDS
    with selectors.DefaultSelector() as pipes:
        for pipe in held:
            pipes.register(pipe, selectors.EVENT_READ)
        while pipes.get_map() and not ending:
            ready = pipes.select(deadline - time.monotonic())
            for key, _ in ready:
                new = os.read(key.fd, _READ_BYTES)
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
    """Verdict on a program that ended without one, from the exit status of its process."""
    number = -code if code < 0 else code - 128
    if number == signal.SIGXCPU:
        return "timed out"
    if number in set(signal.Signals):
        return f"failed: ended by {signal.Signals(number).name}"
    return f"failed: left with status {code} before its end"


def run_programs(
    programs: Sequence[str], limits: ProgramLimits = ProgramLimits(), *, workers: int | None = None,
    report: Callable[[int], None] | None = None,
) -> list[ProgramOutcome]:
    """Outcomes of programs, in order; `workers` of them run at a time.

    Args:
        workers: None: as many as there are processors.
        report: Called with how many more have ended.
    """
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
    """The layers that work together here, and for each of the others the reason why not; tried once per process.

    Raises ConfigError where programs cannot be run at all.
    """
    if os.name != "posix":
        raise ConfigError("programs are run on Linux and macOS only; without --allow_code_execution they are written to files.")
    remove_stale_folders()
    working: list[str] = []
    missing: dict[str, str] = {}
    patient = ProgramLimits(wall_seconds=_START_SECONDS, cpu_seconds=_START_SECONDS)
    for layer in SANDBOX_LAYERS:
        if sys.platform != "linux":
            reason = "it needs Linux"
        elif layer == "user" and os.geteuid():
            reason = "only root can change its user, and this is not root"
        else:
            reason = _probe([*working, layer], patient)
        if reason:
            missing[layer] = reason
        else:
            working.append(layer)
    return tuple(working), missing


def _probe(layers: Sequence[str], limits: ProgramLimits) -> str:
    """Why a harmless program does not run with these layers; empty where it does."""
    try:
        outcome = run_program(_PROBE, limits, layers=layers)
    except ConfigError as error:
        return str(error).partition(": ")[2]
    return "" if outcome.passed else outcome.result


def describe_isolation() -> list[str]:
    """Sentences for the user about what isolates programs on this machine, and what does not."""
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
