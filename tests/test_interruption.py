"""Stop requests in real processes: one sentence, the right exit code, no temporary files, whatever the main thread does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HEAD = """
import os, sys, time
from pathlib import Path
from llama_jax.interruption import *
from llama_jax.interruption import watch_stop_signals
watch_stop_signals()
def ready():
    print("ready", flush=True)
"""


def start(program: str, *arguments: object) -> subprocess.Popen:
    """Start a program, and return when it has printed that it is ready."""
    process = subprocess.Popen([sys.executable, "-c", HEAD + program, *map(str, arguments)], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": ""})
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def stopped(process: subprocess.Popen, *numbers: int) -> tuple[int, str, str]:
    """Send signals 30 ms apart; (exit code, rest of stdout, stderr)."""
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.03)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


@pytest.mark.parametrize("number, said", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped by SIGTERM"),
                                          (signal.SIGHUP, "stopped by SIGHUP"), (signal.SIGUSR1, "stopped by SIGUSR1")])
def test_a_command_ends_with_a_sentence_and_the_code_of_shells(number, said):
    process = start("end_when_stopped('the same command goes on'); ready(); time.sleep(60)")
    assert stopped(process, number) == (128 + number, "", f"{said}; the same command goes on\n")


def test_what_was_printed_is_not_lost():
    process = start("end_when_stopped('x'); print('the last line'); os.write(1, b'ready\\n'); time.sleep(60)")
    assert stopped(process, signal.SIGTERM) == (143, "the last line\n", "stopped by SIGTERM; x\n")


def test_a_signal_before_the_command_line_is_read_is_not_forgotten():
    process = start("ready(); time.sleep(0.5); end_when_stopped('nothing was begun', code=0); time.sleep(60)")
    assert stopped(process, signal.SIGTERM) == (0, "", "stopped by SIGTERM; nothing was begun\n")


def test_it_ends_while_the_main_thread_is_inside_a_function_in_c():
    """As in a compiler."""
    program = "import hashlib; end_when_stopped('x', code=7); ready(); hashlib.pbkdf2_hmac('sha512', b'', b'', 10**9)"
    begin = time.monotonic()
    assert stopped(start(program), signal.SIGTERM)[0] == 7 and time.monotonic() - begin < 20


def test_a_second_interrupt_ends_at_once_also_where_requests_are_only_noted():
    noting = start("noted = noted_stops(); ready(); time.sleep(60)")
    assert stopped(noting, signal.SIGINT, signal.SIGINT) == (130, "", "interrupted again; stopped at once\n")
    saving = start("end_when_stopped('x', code=0)\nwith acting_when_stopped(lambda name: time.sleep(60) or 'saved'):\n"
                   "    ready(); time.sleep(60)")
    assert stopped(saving, signal.SIGTERM, signal.SIGINT) == (130, "", "interrupted again; stopped at once\n")


def test_a_second_sigterm_does_not_hinder_a_save(tmp_path):
    """Some supervisors send it again while they wait."""
    program = """
def save(name):
    time.sleep(0.3)
    Path(sys.argv[1]).write_text(name)
    return "saved"
end_when_stopped("x", code=0)
with acting_when_stopped(save):
    ready(); time.sleep(60)
"""
    code, _, errors = stopped(start(program, tmp_path / "saved"), signal.SIGTERM, signal.SIGTERM)
    assert (code, errors) == (0, "stopped by SIGTERM; saved\n") and (tmp_path / "saved").read_text() == "SIGTERM"


def test_requests_are_noted_and_acted_upon_later():
    program = """
noted = noted_stops(); ready()
while not noted:
    time.sleep(0.01)
print(noted)
with acting_when_stopped(lambda name: f"saved after {name}"):
    time.sleep(60)
"""
    said = "stopped by SIGUSR1; saved after SIGUSR1\n"
    assert stopped(start(program), signal.SIGUSR1) == (128 + signal.SIGUSR1, "['SIGUSR1']\n", said)


def test_a_block_that_ends_waits_for_the_action():
    """Else the main thread would go on to change what is being saved."""
    program = """
noted_stops()
with acting_when_stopped(lambda name: time.sleep(0.5) or "saved"):
    ready(); time.sleep(0.2)
print("went on", flush=True); time.sleep(60)
"""
    assert stopped(start(program), signal.SIGTERM) == (143, "", "stopped by SIGTERM; saved\n")


def test_an_action_that_fails_says_why():
    program = """
from llama_jax.errors import DataError
def fail(name):
    raise DataError("the disk is full.")
with acting_when_stopped(fail):
    ready(); time.sleep(60)
"""
    assert stopped(start(program), signal.SIGTERM) == (3, "", "error: the disk is full.\n")


def test_temporary_files_are_removed_and_finished_ones_stay(tmp_path):
    program = """
from llama_jax.files.atomic import atomic_stream, write_atomic
folder = Path(sys.argv[1])
write_atomic(folder / "whole", b"whole")
end_when_stopped("x")
(folder / "begun").mkdir(); (folder / "begun" / "part").write_text("p")
with removed_when_stopped(folder / "begun"), atomic_stream(folder / "half") as stream:
    stream.write(b"half"); ready(); time.sleep(60)
"""
    assert stopped(start(program, tmp_path), signal.SIGTERM)[0] == 143
    assert [file.name for file in tmp_path.iterdir()] == ["whole"]


def test_a_clock_stops_in_time():
    program = """
end_when_stopped("x", code=0); stop_at(PROCESS_START + 3, "--stop_after 3s")
from llama_jax import interruption
interruption.set_aside(2.0)
print(interruption._watch.aside); os.write(1, b"ready\\n"); time.sleep(60)
"""
    begin = time.monotonic()
    said = stopped(start(program))
    assert said == (0, "1.5\n", "stopped by --stop_after 3s; x\n"), "half of the time, at most, is set aside"
    assert time.monotonic() - begin < 30


def test_signals_of_a_forked_process_are_its_own():
    program = """
import signal
noted = noted_stops(); child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(5)); ready(); time.sleep(60)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), noted, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", HEAD + program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    os.kill(child, signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "5 []\n"
