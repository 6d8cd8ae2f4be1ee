"""`python -m llama_jax plan`: settle a layout, price it, compile it where asked, print and save the figures."""

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from llama_jax.cli.train import parse
from llama_jax.config import Config
from llama_jax.config.file import load_config
from llama_jax.errors import ConfigError
from llama_jax.files.atomic import write_atomic
from llama_jax.model.accounting import parameter_count, train_flops_per_token
from llama_jax.plan.compiled import CompiledStep, check_compiler_installed, compile_for_fleet
from llama_jax.plan.cost import collectives, days, hardware_flops_per_token, matmul_flops, seconds_of, traffic
from llama_jax.plan.fleet import Fleet, parse_machine
from llama_jax.plan.layouts import Choice, configured, largest_micro_batch, micro_batches, settle, what_would
from llama_jax.plan.memory import REMAT, layer_activations
from llama_jax.plan.options import Plan
from llama_jax.plan.report import print_plan

ATTEMPTS = 3
"""Micro-batches that are compiled before a plan says that the compiler refuses."""


def run_plan(options: Plan, overrides: list[str]) -> None:
    """Print the plan, and write it to options.json; raises ConfigError for what cannot be planned."""
    fleet = parse_machine(options.machine)
    config, _ = parse(load_config(Path(options.config)), overrides)
    if options.compile:
        check_compiler_installed(fleet)
    choice = settle(config, fleet, search=options.search)
    console, compiled, refused = Console(highlight=False, soft_wrap=True), None, []
    if options.compile and choice.fits:
        waiting = f"compiling the train step for {fleet.title}"
        with console.status(waiting) if console.is_terminal else nullcontext():
            choice, compiled, refused = signed(choice)
    figures = describe(config, choice, compiled)
    figures["refused_micro_batches"] = refused
    figures["overrides"] = train_overrides(config, choice.config, overrides)
    figures["command"] = " ".join(["python train.py --config", options.config, *figures["overrides"]])
    print_plan(figures, console)
    if options.json:
        write_atomic(Path(options.json), (json.dumps(figures, indent=1) + "\n").encode())


def signed(choice: Choice) -> tuple[Choice, CompiledStep, list[int]]:
    """The choice compiled, with a smaller micro-batch where the compiler needs more than it may; and those it refused.

    Gives up after ATTEMPTS and returns the last.
    """
    refused = []
    for attempt in [other for other in micro_batches(choice) if other.micro_batch <= choice.micro_batch][:ATTEMPTS]:
        compiled = compile_for_fleet(attempt.config, attempt.fleet)
        if fits(attempt, compiled):
            break
        refused.append(attempt.micro_batch)
    return attempt, compiled, refused


def describe(config: Config, choice: Choice, compiled: CompiledStep | None) -> dict[str, Any]:
    """Every figure of a plan as plain values: bytes, seconds, FLOPs."""
    fleet, machine, c = choice.fleet, choice.fleet.machine, choice.config.model
    attention, largest = choice.attention, largest_micro_batch(choice)
    return {
        "name": config.name,
        "machine": {"name": machine.name, "title": fleet.title, "count": fleet.count, "hosts": fleet.hosts,
                    "memory": machine.memory, "usable": machine.usable, "source": machine.source},
        "model": {
            "parameters": parameter_count(c), "flops_per_token": train_flops_per_token(c, config.data.sequence_length),
            "hardware_flops_per_token": hardware_flops_per_token(choice.config),
            "traffic_per_token": traffic(choice.config, choice.mesh, attention) * fleet.count / choice.cost.tokens,
        },
        "layout": {"mesh": dict(choice.mesh), "accumulation_steps": choice.config.training.accumulation_steps,
                   "micro_batch": choice.micro_batch, "largest_micro_batch": largest.micro_batch if largest else 0,
                   "remat": c.remat, "attention": attention, "configured_total": configured_total(config, fleet),
                   "as_configured": not train_overrides(config, choice.config, [])},
        "memory": dataclasses.asdict(choice.memory) | {
            "total": choice.memory.total,
            "activations_by_remat": {policy: c.num_layers * layer_activations(choice.config, choice.mesh, policy)
                                     for policy in REMAT}},
        "collectives": [
            {"axis": axis, **dataclasses.asdict(found), "seconds": seconds_of(axis, found, choice.mesh, fleet)}
            for axis, found in collectives(choice.config, choice.mesh)],
        "cost": costs(choice),
        "compiled": dataclasses.asdict(compiled) if compiled else None,
        "fits": fits(choice, compiled),
        "would_fit": [] if fits(choice, compiled) else [
            f"{other.machine.name}:{other.count}" for other in what_would(config, fleet)],
    }


def costs(choice: Choice) -> dict[str, Any]:
    """The predicted step, and the whole run."""
    price, tokens = choice.cost, choice.cost.steps * choice.cost.tokens
    return {
        "compute_seconds": price.compute, "memory_seconds": price.memory, "hidden_network_seconds": price.hidden,
        "exposed_network_seconds": price.exposed, "step_seconds": price.seconds, "bound": price.bound,
        "matmul_flops": matmul_flops(choice.config, choice.fleet.count),
        "tokens_per_second": price.tokens_per_second, "mfu": price.mfu, "tokens": tokens,
        "days": days(tokens, price.tokens_per_second), **dataclasses.asdict(price.energy),
    }


def configured_total(config: Config, fleet: Fleet) -> int:
    """Bytes of a device for the config's own layout; 0 where its mesh or rows do not fit the devices."""
    try:
        return configured(config, fleet).memory.total
    except ConfigError:
        return 0


def fits(choice: Choice, compiled: CompiledStep | None) -> bool:
    """By the compiler where it was asked, else by the arithmetic."""
    return choice.fits if compiled is None else not compiled.refusal and compiled.peak <= choice.fleet.machine.usable


def train_overrides(config: Config, planned: Config, given: list[str]) -> list[str]:
    """What train.py must be told so that it runs `planned`: what was typed, then what the plan decided."""
    decided = {f"mesh.{field.name}": getattr(planned.mesh, field.name) for field in dataclasses.fields(planned.mesh)}
    decided |= {"training.accumulation_steps": planned.training.accumulation_steps, "model.remat": planned.model.remat}
    changed = []
    for name, value in decided.items():
        room, field = name.split(".")
        if getattr(getattr(config, room), field) not in (value, -1):
            changed += [f"--{name}", str(value)]
        elif getattr(getattr(config, room), field) == -1 and any(
                getattr(config.mesh, other.name) not in (-1, getattr(planned.mesh, other.name))
                for other in dataclasses.fields(planned.mesh)):
            changed += [f"--{name}", str(value)]  # the axes around it changed: say all of them
    return [*given, *changed]
