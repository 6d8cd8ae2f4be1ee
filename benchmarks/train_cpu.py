"""Training speed on a CPU: our train step beside transformers, Levanter and MaxText, in turns on one machine.

    python benchmarks/train_cpu.py --levanter_python PATH --maxtext_python PATH

Each side is a process of its own (`train_peers.py`) and only one works at a time: in every round each runs a few
steps, so that a slow minute of the machine hits all of them. A ratio is the median over rounds of our tokens/s divided
by theirs in the same round, each taken at its median step. Run it on an otherwise idle machine: a busy neighbour can
make torch's steps five times as long and XLA's twice; the last column says how many cores other programs kept busy, at
worst. Levanter (1.2.dev1644, with jax 0.10.2, gitpython and chex) and MaxText (0.2.5) want environments of their own;
a side whose package is missing is left out.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from train_peers import SHAPES, SIDES, Shape

DISTURBED = 0.15  # cores kept busy by other programs; an idle machine showed at most 0.08
ROOT = Path(__file__).resolve().parent.parent
# Fresh temporaries cost more in page faults than in arithmetic. With 2 MiB pages, and freed memory kept rather than
# given back to the system, transformers and MaxText gain a tenth and steps repeat to a few percent, not to a half.
MALLOC = {"hugetlb": 1, "mmap_threshold": 8 << 30, "trim_threshold": 16 << 30, "arena_max": 1}
ENVIRONMENT = {
    "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in MALLOC.items()),
    "JAX_PLATFORMS": "cpu",
    "TOKENIZERS_PARALLELISM": "false",
}


class Worker:
    """One side as a process that works only when asked."""

    def __init__(self, side: str, shape: str, dtype: str, python: str, env: dict[str, str]):
        self.side = side
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [python, ROOT / "benchmarks" / "train_peers.py", side, shape, dtype],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env,
        )  # fmt: skip
        self.status, _, said = self._answer().partition(" ")
        self.said = said
        self.rounds: list[list[float]] = []
        self.others: list[float] = []

    def work(self, steps: int) -> None:
        begin, before = time.perf_counter(), seconds_of_others(self.process.pid)
        print(f"go {steps}", file=self.process.stdin, flush=True)
        self.rounds.append(json.loads(self._answer()))
        self.others.append((seconds_of_others(self.process.pid) - before) / (time.perf_counter() - begin))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def _answer(self) -> str:
        line = self.process.stdout.readline().strip()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"{self.side} ended before it answered:\n{self.log.read()[-2000:]}")
        return line


def seconds_of_others(pid: int) -> float:
    """CPU seconds that our cores have spent on anything but this process; 0 where Linux' /proc is not."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0.0
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    busy = 0
    for name, *ticks in map(str.split, lines):
        if name in cores:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, ticks[:8])
            busy += user + nice + system + irq + softirq + steal
    return (busy - sum(map(int, own))) / os.sysconf("SC_CLK_TCK")


def matmul_flops(size: int = 2048) -> float:
    """FLOP/s of one float32 matmul of numpy's: what the two cores give at this moment."""
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    a @ a
    start = time.perf_counter()
    a @ a
    return 2 * size**3 / (time.perf_counter() - start)


@contextlib.contextmanager
def workers(args: argparse.Namespace, shape: str, dtype: str, env: dict[str, str]) -> Iterator[list[Worker]]:
    """The sides that are installed, built and warm, one after another."""
    with contextlib.ExitStack() as stack:
        ready = []
        for side in args.sides:
            python = getattr(args, f"{side}_python", None) or sys.executable
            worker = Worker(side, shape, dtype, python, env)
            stack.callback(worker.close)
            if worker.status == "ready":
                ready.append(worker)
            else:
                print(f"{side} is left out: {worker.said}", flush=True)
        yield ready


def measure(args: argparse.Namespace, shape: str, dtype: str, env: dict[str, str]) -> list[dict]:
    """One row per side: its seconds per step, round by round."""
    with workers(args, shape, dtype, env) as sides:
        ceilings = []
        for number in range(args.rounds):
            ceilings.append(matmul_flops())
            for index in range(len(sides)):  # another side opens each round, so none always follows the same one
                sides[(index + number) % len(sides)].work(args.steps)
        return [row(worker, shape, dtype, statistics.median(ceilings)) for worker in sides]


def row(worker: Worker, shape: str, dtype: str, ceiling: float) -> dict:
    size: Shape = SHAPES[shape]
    steps = [second for turn in worker.rounds for second in turn]
    speed = size.tokens / statistics.median(steps)
    return {
        "shape": shape,
        "dtype": dtype,
        "side": worker.side,
        "seconds": worker.rounds,
        "median": statistics.median(steps),
        "min": min(steps),
        "max": max(steps),
        "tokens_per_second": speed,
        "gflops": speed * size.flops_per_token / 1e9,
        "percent_of_float32_matmul": 100 * speed * size.flops_per_token / ceiling,
        "cores_of_others": worker.others,
        "versions": json.loads(worker.said),
    }


def ratios(rows: list[dict]) -> dict[str, list[float]]:
    """Our tokens/s over theirs, a number a round, by the name of the comparison."""
    rounds = {
        (row["shape"], row["dtype"], row["side"]): [statistics.median(turn) for turn in row["seconds"]] for row in rows
    }
    return {
        f"train-{shape}-{dtype}-{side}": [
            their / our for our, their in zip(rounds[shape, dtype, "ours"], theirs, strict=True)
        ]
        for (shape, dtype, side), theirs in rounds.items()
        if side != "ours" and (shape, dtype, "ours") in rounds
    }


def print_table(rows: list[dict]) -> None:
    print(
        f"\n{'':14}{'side':14}{'s/step':>8}{'min':>8}{'max':>8}"
        f"{'tokens/s':>10}{'GFLOP/s':>9}{'% of f32 matmul':>17}{'others':>8}"
    )
    for row in rows:
        print(
            f"{row['shape']:2}{row['dtype']:12}{row['side']:14}{row['median']:8.3f}{row['min']:8.3f}{row['max']:8.3f}"
            f"{row['tokens_per_second']:10.0f}{row['gflops']:9.0f}{row['percent_of_float32_matmul']:17.0f}"
            f"{max(row['cores_of_others']):8.2f}"
        )
    if any(max(row["cores_of_others"]) > DISTURBED for row in rows):
        print("warning: other programs were busy meanwhile (last column, in cores); do not trust these ratios")


def cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="steps a side runs in each round")
    parser.add_argument("--threads", type=int, default=2, help="cores that all sides may use")
    for side in ("transformers", "levanter", "maxtext"):
        parser.add_argument(f"--{side}_python", metavar="PATH", help=f"interpreter that has {side}; default: this one")
    parser.add_argument("--json", type=Path, metavar="F", help="write every measured second here")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if hasattr(os, "sched_setaffinity"):  # children inherit it, and XLA sizes its thread pool by it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    settings = ENVIRONMENT | {"OMP_NUM_THREADS": str(args.threads)}
    env = os.environ | settings | {"PYTHONPATH": str(ROOT)}
    rows = [row for shape in args.shapes for dtype in args.dtypes for row in measure(args, shape, dtype, env)]
    compared = ratios(rows)
    print_table(rows)
    for name, values in compared.items():
        print(f"ratio {name}: {statistics.median(values):.2f} (ours / theirs, median of {len(values)})")
    if args.json:
        result = {
            "date": datetime.date.today().isoformat(),
            "cpu": cpu_model(),
            "threads": args.threads,
            "environment": settings,
            "rows": rows,
            "ratios": compared,
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
