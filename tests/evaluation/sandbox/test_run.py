"""Programs are stopped by their limits and layers; each layer is also tested without the others."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from llama_jax.errors import ConfigError
from llama_jax.evaluation.sandbox import run as sandbox
from llama_jax.evaluation.sandbox.run import ProgramLimits, run_program, run_programs

SHORT = ProgramLimits(wall_seconds=2)


@pytest.fixture
def layers():
    """A function that skips the test unless the layers that it names work here."""
    def need(*names: str) -> tuple[str, ...]:
        missing = {name: why for name, why in sandbox.available_layers()[1].items() if name in names}
        if missing:
            pytest.skip(f"this system has no {missing}")
        return names
    return need


def test_a_program_passes_or_says_why_not():
    assert run_program("assert sum(range(10)) == 45").result == "passed"
    failed = sandbox.ProgramOutcome(False, "failed: AssertionError: no", "", pytest.approx(0, abs=3))
    assert run_program("assert False, 'no'") == failed
    assert run_program("def f(:").result.startswith("failed: SyntaxError")
    assert run_program("print('a'); import sys; print('b', file=sys.stderr)").output.split() == ["b", "a"]  # as from any pipe


@pytest.mark.parametrize("program", [
    "import sys; sys.exit(0)", "exit()", "import os; os._exit(0)", "raise KeyboardInterrupt",
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "class E(Exception):\n  def __str__(self): 1/0\nraise E"])
def test_leaving_early_is_no_pass(program):
    outcome = run_program(program, SHORT)
    assert not outcome.passed and outcome.result.startswith("failed: ")


def test_a_program_is_alone_in_an_empty_module_with_an_empty_environment(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    program = "import os, sys; assert not os.environ and not os.listdir('.') and __name__ == 'builtins' and not sys.argv[1:]"
    assert run_program(program).result == "passed"
    assert run_program("input()").result.startswith("failed: EOFError")


def test_the_same_program_gives_the_same_order_of_a_set():
    outputs = {run_program("print(set('abcdefgh'))").output for _ in range(3)}
    assert len(outputs) == 1


def test_an_endless_loop_ends_with_the_time_and_with_the_processor():
    begin = time.monotonic()
    assert run_program("while True: pass", ProgramLimits(wall_seconds=0.5)).result == "timed out"
    assert run_program("import time; time.sleep(9)", ProgramLimits(wall_seconds=0.5)).result == "timed out"
    assert run_program("while True: pass", ProgramLimits(wall_seconds=30, cpu_seconds=1)).result == "timed out"
    assert time.monotonic() - begin < 15


def test_ten_gigabytes_are_refused():
    assert run_program("x = bytearray(10 << 30)", SHORT).result.startswith("failed: MemoryError")


def test_printing_a_gigabyte_is_cut():
    outcome = run_program("for _ in range(1024): print('x' * (1 << 20))", SHORT)
    assert outcome.result == "failed: printed more than 1048576 bytes" and outcome.output == "x" * 4096


def test_files_are_small_and_thrown_away(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_program("open('a', 'w').write('here'); assert open('a').read() == 'here'").result == "passed"
    assert run_program("open('a', 'wb').write(bytes(17 << 20))").result.startswith("failed: OSError")
    assert run_program("import os; os.mkdir('a'); os.chmod('a', 0); os.chmod('.', 0)").passed
    assert not list(tmp_path.iterdir())


def test_the_folder_as_a_whole_is_small(layers):
    layers("namespaces")
    program = "for n in range(3): open(str(n), 'wb').write(bytes(10 << 20))"
    assert run_program(program, SHORT).result.startswith("failed: OSError: [Errno 28]")


BOMB = "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(5)\n    n += 1\nfinally: print(n)"


def test_a_fork_bomb_does_not_begin(layers):
    layers("seccomp")
    outcome = run_program(BOMB, SHORT)
    assert outcome.result.startswith("failed: PermissionError") and outcome.output == "0\n"
    assert "PermissionError" in run_program("import subprocess; subprocess.run(['/bin/true'])", SHORT).result


def test_a_fork_bomb_is_small_where_calls_are_not_filtered(layers):
    outcome = run_program(BOMB, SHORT, layers=layers("namespaces", "user"))
    assert outcome.result.startswith("failed: BlockingIOError") and int(outcome.output.split()[-1]) < SHORT.threads


def test_threads_are_fine_and_few(layers):
    program = "import threading, time\nfor _ in range({}): threading.Thread(target=time.sleep, args=(0.1,)).start()"
    assert run_program(program.format(8), SHORT).passed
    layers("user")
    assert run_program(program.format(64), SHORT).result.startswith("failed: RuntimeError: can't start new thread")


@pytest.mark.parametrize("alone", [(), ("namespaces",), ("landlock",)], ids=" ".join)
def test_nothing_is_read_or_written_outside(alone, layers, tmp_path):
    layers(*alone or ("namespaces",))
    secret = tmp_path / "secret"
    secret.write_text("1")
    tmp_path.chmod(0o777)
    for program in f"open({str(tmp_path / 'new')!r}, 'w')", f"open({str(secret)!r}).read()", "open('/etc/passwd').read()", \
                   "import os; open(os.__file__, 'a')", f"import os; os.remove({str(secret)!r})":
        assert not run_program(program, SHORT, layers=alone or None).passed, program
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("alone", [(), ("namespaces",), ("seccomp",)], ids=" ".join)
def test_no_socket_gets_out(alone, layers):
    layers(*alone or ("namespaces",))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        program = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        assert run_program(program, SHORT, layers=alone or None).result.startswith("failed: ")
        assert run_program(program, SHORT, layers=()).passed  # the server is there for who is not kept in
        server.accept()[0].close()


@pytest.mark.parametrize("alone", [(), ("namespaces",), ("seccomp",)], ids=" ".join)
def test_nobody_else_is_killed(alone, layers):
    layers(*alone or ("namespaces",))
    victim = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        for target in "os.getppid()", str(os.getpid()), str(victim.pid), f"-{victim.pid}":
            run_program(f"import os; os.kill({target}, 9)", SHORT, layers=alone or None)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


@pytest.fixture
def jail(tmp_path, monkeypatch):
    """A copy of jail.py, whose processes are found by its path."""
    copy = shutil.copy(Path(sandbox.__file__).with_name("jail.py"), tmp_path)
    monkeypatch.setattr(sandbox, "__file__", str(tmp_path / "sandbox.py"))
    return copy


def living(jail: str) -> list[str]:
    """Ids of the processes that run that copy."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [file.parent.name] if jail.encode() in file.read_bytes() else []
    return found


def gone(jail: str) -> bool:
    """Whether all of them end within ten seconds."""
    deadline = time.monotonic() + 10
    while living(jail) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not living(jail)


def test_a_program_that_outlives_its_time_leaves_nobody_behind(jail, layers):
    program = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(77)\ntime.sleep(9)"
    assert run_program(program, ProgramLimits(wall_seconds=0.5), layers=layers("namespaces")).result == "timed out"
    assert gone(jail)


@pytest.mark.parametrize("alone", [(), ("namespaces",), ("seccomp",)], ids=" ".join)
def test_nothing_outlives_the_process_that_runs_it(alone, jail, layers):
    chosen = layers(*alone) or None
    script = (f"from llama_jax.evaluation.sandbox import run as sandbox\nsandbox.__file__ = {sandbox.__file__!r}\n"
              f"sandbox.available_layers(); print('ready', flush=True)\n"
              f"sandbox.run_program('while True: pass', sandbox.ProgramLimits(30, 30), layers={chosen})")
    runner = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True)
    try:
        assert runner.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while len(living(jail)) < (1 if alone == ("seccomp",) else 3) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert living(jail)
    finally:
        runner.kill()
        runner.communicate()
    assert gone(jail)


NO_NAMESPACES = "for f in /proc/sys/user/max_*_namespaces; do echo 0 > $f; done; "
"""Forbids further namespaces inside a user namespace, as some containers do."""


@pytest.mark.parametrize("options, before, working, said", [
    ("--map-user=1000 --map-group=1000", "", "('namespaces', 'landlock', 'seccomp')", "user is not used: only root can"),
    ("--map-user=1000 --map-group=1000 --keep-caps", NO_NAMESPACES, "('landlock', 'seccomp')", "the size of its folder"),
    ("--map-root-user", NO_NAMESPACES, "('landlock', 'seccomp')", "user is not used: refused: setuid"),
], ids=["a user", "a user without namespaces", "root of a container"])
def test_others_than_root_of_the_machine(options, before, working, said, layers):
    """The layers that are left in a user namespace, where this process has fewer rights, still confine a program."""
    layers("namespaces", "landlock", "seccomp")
    if not shutil.which("unshare"):
        pytest.skip("unshare(1) is missing")
    names = ["here", *(os.path.join(folder, "x") for folder in (tempfile.gettempdir(), "/dev/shm", "/root"))]
    script = ("from llama_jax.evaluation.sandbox.run import available_layers, describe_isolation, run_program\n"
              "print(available_layers()[0], *describe_isolation())\n"
              f"for name in {names!r}: print(run_program(f'open({{name!r}}, \"w\")').passed)\n")
    command = f"{before}exec {shlex.quote(sys.executable)} -c {shlex.quote(script)}"
    done = subprocess.run(["unshare", "--user", *options.split(), "sh", "-c", command], capture_output=True, text=True,
                          cwd=Path(__file__).parents[3], timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(working) and said in done.stdout
    assert done.stdout.split()[-4:] == ["True", "False", "False", "False"]


def test_what_is_open_is_said(monkeypatch):
    reasons = {layer: "it is not here" for layer in ("namespaces", "user", "landlock")}
    monkeypatch.setattr(sandbox, "available_layers", lambda: (("seccomp",), reasons))
    text = "\n".join(sandbox.describe_isolation())
    assert "Closed to it by seccomp: the network, signals to other processes, starting processes." in text
    assert "NOT closed to it here: reading other files, writing outside its folder, the size of its folder" in text
    assert "landlock is not used: it is not here." in text


def test_a_layer_that_fails_runs_nothing(monkeypatch):
    monkeypatch.setattr(sandbox, "readable_paths", lambda: ["/nowhere/at/all"])
    if sys.platform != "linux":
        pytest.skip("layers need Linux")
    with pytest.raises(ConfigError, match="the sandbox cannot start programs with landlock: refused"):
        run_program("print('ran')", layers=("landlock",))


def test_many_keep_their_order():
    heard = []
    outcomes = run_programs([f"print({n})" for n in range(8)], SHORT, report=heard.append)
    assert [outcome.output for outcome in outcomes] == [f"{n}\n" for n in range(8)] and sum(heard) == 8
