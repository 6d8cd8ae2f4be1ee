"""All of configs/ planned and compiled for machines that are not here, as one table.

    python benchmarks/plans.py --output docs/PLANS.md --json plans.json [--only gpu|tpu|kept]   (extras plan-gpu, plan-tpu)

Each config on the hardware its docstring names and on a TPU slice, laid out as configured, with smaller micro-batches where
the configured ones are too large. Compilations are kept in the JSON file: the same command goes on where it was stopped.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from llama_jax.config import to_dict
from llama_jax.config.file import load_config
from llama_jax.model.accounting import parameter_count
from llama_jax.plan.compiled import compile_for_fleet
from llama_jax.plan.fleet import parse_machine
from llama_jax.plan.layouts import settle_layout

ROOT = Path(__file__).resolve().parent.parent

PLANS = {
    "tiny": ("h100:1", "v5e:1"), "1b": ("h100:1", "v6e:8"), "7b": ("h100:8", "a100-80g:64", "v5e:64"),
    "13b": ("a100-80g:128", "v5e:128"), "33b": ("a100-80g:1024", "v5p:256"), "65b": ("a100-80g:2048", "v4:1024"),
    "llama2_7b": ("a100-80g:64", "v6e:64"), "llama2_13b": ("a100-80g:128", "v6e:128"),
    "llama2_70b": ("a100-80g:1024", "v5p:512"), "llama3_8b": ("h200:64", "v5p:64"), "llama3_70b": ("b200:1024", "v5p:1024"),
}
"""Machines for each config."""

HEAD = """# Plans of all configs

Made by `python benchmarks/plans.py --output docs/PLANS.md --json plans.json` on {date}, jax {version}, on a machine with
neither GPU nor TPU. Every row is a config as it is; where its micro-batches would not fit, it has more and smaller ones.

`micro-batches x rows` are micro-batches per step, and rows of each per data-parallel group. `arithmetic` and `compiler` are the
memory of one device at the fullest moment of a step, in GB of 10^9 bytes: by arithmetic, and as the machine's own compiler
reports it for the real train step. `compiled in` is the CPU time and memory that compiling took here. The time of a step and
what follows from it are predictions (docs/PLAN.md says how); nothing was run.

"""

COLUMNS = ("config", "parameters", "machine", "mesh", "micro-batches x rows", "attention", "arithmetic", "compiler", "ratio",
           "usable", "compiled in", "step", "tokens/s per device", "MFU", "days", "device-hours", "MWh", "tCO2eq")


def row(name: str, machine: str, kept: dict, *, compiling: bool = True) -> str:
    """One line of the table; `kept` holds compilations by what was compiled. Empty where that is not to be compiled."""
    config, fleet = load_config(ROOT / f"configs/{name}.py"), parse_machine(machine)
    choice = settle_layout(config, fleet, search=False)
    key = json.dumps([machine, to_dict(choice.config)], sort_keys=True)
    if key not in kept:
        if not compiling:
            return ""
        kept[key] = asdict(compile_for_fleet(choice.config, fleet))
    found, price, taken = kept[key], choice.cost, choice.cost.energy
    run_days = price.steps * price.seconds / 86_400
    mesh = " x ".join(f"{axis} {size}" for axis, size in choice.mesh.items() if size > 1) or "-"
    power = ("-", "-") if taken.tonnes is None else (f"{taken.megawatt_hours:,.3g}", f"{taken.tonnes:,.3g}")
    compiler = (f"{found['peak'] / 1e9:.2f}", f"{choice.memory.total / found['peak']:.3f}") if found["peak"] else (
        found["refusal"], "-")
    cells = [
        name, f"{parameter_count(config.model):,}", machine, mesh,
        f"{choice.config.training.accumulation_steps} x {choice.micro_batch}", choice.attention,
        f"{choice.memory.total / 1e9:.2f}", *compiler, f"{fleet.machine.usable / 1e9:.1f}",
        f"{found['cpu_seconds']:.0f} s, {found['host_memory'] / 1e9:.1f} GB", f"{price.seconds:.3g} s",
        f"{price.tokens_per_second / fleet.count:,.0f}", f"{price.mfu:.1%}", f"{run_days:,.3g}", f"{taken.device_hours:,.0f}",
        *power,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Plan all, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", choices=("gpu", "tpu", "kept"), help="one kind of machine, or what the JSON file has")
    options = parser.parse_args()
    kept = json.loads(options.json.read_text()) if options.json.exists() else {}
    lines, missing = [], []
    for name, machines in PLANS.items():
        for machine in machines:
            if options.only in (None, "kept", parse_machine(machine).machine.kind):
                line = row(name, machine, kept, compiling=options.only != "kept")
                (lines if line else missing).append(line or f"{name} on {machine}")
                print(line or f"{name} on {machine}: not compiled yet", flush=True)
                options.json.write_text(json.dumps(kept, indent=1) + "\n")
    table = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *lines]
    table += [f"\nNot compiled yet: {', '.join(missing)}."] if missing else []
    options.output.write_text(HEAD.format(date=date.today(), version=jax.__version__) + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
