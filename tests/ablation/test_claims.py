"""Claims: of any number of processes exactly one gets a piece of work, and the work of one that is gone is taken over by one."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llama_jax.ablation import claims
from llama_jax.ablation.claims import ClaimWatch, Standing, hold_claim, take_claim, this_machine

ELSEWHERE = {"host": "far", "machine": "far 1", "pid": 1, "started": "1", "cores": [0]}


def write_claim(folder: Path, name: str, holder: dict | None) -> Path:
    """A claim as another process would have made it; None: it died before it could write."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(holder) if holder else "")
    return folder / name


def race(folder: Path, generation: int, *, contestants: int = 16) -> list[claims.Claim]:
    """The claims of those who won when all try for one generation at once."""
    gate, won = threading.Barrier(contestants), []

    def try_it() -> None:
        gate.wait()
        won.append(take_claim(folder, "arm.0", generation=generation))

    threads = [threading.Thread(target=try_it) for _ in range(contestants)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [claim for claim in won if claim]


def test_exactly_one_gets_the_work_and_then_the_next(tmp_path):
    watch = ClaimWatch(tmp_path)
    assert watch.standings() == {}
    for generation in range(3):
        (claim,) = race(tmp_path, generation)
        standing = watch.standings()["arm.0"]
        assert (standing.generation, standing.free, standing.holder["pid"]) == (generation, False, os.getpid())
        claim.release()
        assert watch.standings()["arm.0"] == Standing(generation, True, {"released": True})


def test_the_work_of_a_process_that_is_gone_is_free_at_once(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = {"machine": this_machine(), "pid": gone.pid, "started": "1"}
    write_claim(tmp_path, "arm.0.4", here)
    assert ClaimWatch(tmp_path).standings()["arm.0"].free
    write_claim(tmp_path, "arm.0.5", here | {"pid": os.getpid()})  # a process of this number lives, but it began later
    assert ClaimWatch(tmp_path).standings()["arm.0"].free
    assert len(race(tmp_path, 6)) == 1


@pytest.mark.parametrize("holder", [ELSEWHERE, None])
def test_a_claim_of_another_host_is_stale_when_its_heartbeat_stands_still(tmp_path, monkeypatch, holder):
    now = 100.0
    monkeypatch.setattr(claims.time, "monotonic", lambda: now)
    file, watch = write_claim(tmp_path, "arm.0.0", holder), ClaimWatch(tmp_path, timeout=60)
    os.utime(file, (1, 1))  # clocks of hosts may differ by years
    for beat in range(5):
        assert not watch.standings()["arm.0"].free
        now += 50
        os.utime(file, (beat, beat))
    assert not watch.standings()["arm.0"].free
    now += 61
    assert watch.standings()["arm.0"].free
    assert len(race(tmp_path, 1)) == 1 and not watch.standings()["arm.0"].free


def test_names_that_are_part_of_others(tmp_path):
    write_claim(tmp_path, "a.0.1.0", ELSEWHERE)  # arm "a.0", seed 1
    write_claim(tmp_path, "a.0.7", {"released": True})  # arm "a", seed 0
    write_claim(tmp_path, "a.0.7.tmp", ELSEWHERE)
    assert {name: one.generation for name, one in ClaimWatch(tmp_path).standings().items()} == {"a.0": 7, "a.0.1": 0}


HOLDS = """
import sys, time
from pathlib import Path
from llama_jax.ablation.claims import Claim
Path(sys.argv[1]).touch()
claim = Claim(Path(sys.argv[1]), beat=0.05)
print("holds", flush=True)
time.sleep(60)
"""


def test_a_process_whose_work_was_taken_over_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path / "arm.0.0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
    assert holder.stdout.readline() == "holds\n"
    before = (tmp_path / "arm.0.0").stat().st_mtime_ns
    while (tmp_path / "arm.0.0").stat().st_mtime_ns == before:  # its heartbeat
        time.sleep(0.01)
    write_claim(tmp_path, "arm.0.1", ELSEWHERE)
    _, said = holder.communicate(timeout=30)
    assert holder.returncode == 1 and "another process has taken arm.0.0 over" in said


def test_one_after_the_other(tmp_path):
    inside, most = [], []

    def work() -> None:
        with hold_claim(tmp_path, "study", seconds_between_looks=0.01):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5 and sorted(os.listdir(tmp_path)) == [f"study.{n}" for n in range(5)]
