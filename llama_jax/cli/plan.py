"""`llama_jax plan` at work: settle a layout, price it, compile it where asked, print and save the figures."""

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from llama_jax.cli.find_config import find_config
from llama_jax.cli.options import PlanOptions
from llama_jax.cli.parsing import apply_overrides
from llama_jax.config import Config
from llama_jax.config.file import load_config
from llama_jax.errors import ConfigError
from llama_jax.files.atomic import write_atomic
from llama_jax.model.accounting import parameter_count, train_flops_per_token
from llama_jax.plan.compiled import CompiledStep, check_compiler_installed, compile_for_fleet
from llama_jax.plan.cost import collectives, days, hardware_flops_per_token, matmul_flops, seconds_of, traffic
from llama_jax.plan.fleet import Fleet, parse_machine
from llama_jax.plan.layouts import (
    LayoutChoice,
    configured_layout,
    largest_micro_batch,
    micro_batch_choices,
    settle_layout,
    smallest_fleets,
)
from llama_jax.plan.memory import POLICIES, layer_activations
from llama_jax.plan.report import print_plan

ATTEMPTS = 3
"""Micro-batches that are compiled before a plan says that the compiler refuses."""


def run_plan(asked: PlanOptions) -> None:
    """Print the plan, and write it to --json; raises ConfigError for what cannot be planned."""
    fleet = parse_machine(asked.machine)
    config = apply_overrides(load_config(find_config(asked.config)), asked.overrides)
    if asked.compile:
        check_compiler_installed(fleet)
    choice = settle_layout(config, fleet, search=asked.search)
    console, compiled, refused = Console(highlight=False, soft_wrap=True), None, []
    if asked.compile and choice.fits:
        waiting = f"compiling the train step for {fleet.title}"
        with console.status(waiting) if console.is_terminal else nullcontext():
            choice, compiled, refused = _compile_largest(choice)
    figures = _figures(config, choice, compiled=compiled)
    figures["refused_micro_batches"] = refused
    figures["overrides"] = [*asked.overrides, *_decided_overrides(config, choice.config)]
    figures["command"] = " ".join(["python -m llama_jax train --config", asked.config, *figures["overrides"]])
    print_plan(figures, console)
    if asked.json:
        write_atomic(Path(asked.json), (json.dumps(figures, indent=1) + "\n").encode())


def _compile_largest(choice: LayoutChoice) -> tuple[LayoutChoice, CompiledStep, list[int]]:
    """Compile with the choice's micro-batch, or the next smaller ones where the compiler needs more memory than there is.

    Returns:
        The choice as it was compiled, what the compiler says of it, and the micro-batches that it refused; after ATTEMPTS
        refusals the last attempt.
    """
    refused = []
    for attempt in [other for other in micro_batch_choices(choice) if other.micro_batch <= choice.micro_batch][:ATTEMPTS]:
        compiled = compile_for_fleet(attempt.config, attempt.fleet)
        if _fits(attempt, compiled):
            break
        refused.append(attempt.micro_batch)
    return attempt, compiled, refused


def _figures(config: Config, choice: LayoutChoice, *, compiled: CompiledStep | None) -> dict[str, Any]:
    """Every figure of a plan as plain JSON values: bytes, seconds, FLOPs."""
    fleet, machine, c = choice.fleet, choice.fleet.machine, choice.config.model
    attention, largest = choice.attention, largest_micro_batch(choice)
    return {
        "name": config.name,
        "machine": {"name": machine.name, "title": fleet.title, "count": fleet.count, "hosts": fleet.hosts,
                    "memory": machine.memory, "usable": machine.usable, "source": machine.source},
        "model": {
            "parameters": parameter_count(c), "flops_per_token": train_flops_per_token(c, config.data.sequence_length),
            "hardware_flops_per_token": hardware_flops_per_token(choice.config),
            "traffic_per_token": traffic(choice.config, choice.mesh, attention=attention) * fleet.count / choice.cost.tokens,
        },
        "layout": {"mesh": dict(choice.mesh), "accumulation_steps": choice.config.training.accumulation_steps,
                   "micro_batch": choice.micro_batch, "largest_micro_batch": largest.micro_batch if largest else 0,
                   "remat": choice.config.compute.remat, "attention": attention,
                   "configured_total": _configured_total(config, fleet),
                   "as_configured": not _decided_overrides(config, choice.config)},
        "memory": dataclasses.asdict(choice.memory) | {
            "total": choice.memory.total,
            "activations_by_remat": {policy: c.num_layers * layer_activations(choice.config, choice.mesh, remat=policy)
                                     for policy in POLICIES}},
        "collectives": [
            {"axis": axis, **dataclasses.asdict(found), "seconds": seconds_of(axis, found, mesh=choice.mesh, fleet=fleet)}
            for axis, found in collectives(choice.config, choice.mesh)],
        "cost": _costs(choice),
        "compiled": dataclasses.asdict(compiled) if compiled else None,
        "fits": _fits(choice, compiled),
        "would_fit": [] if _fits(choice, compiled) else [
            f"{other.machine.name}:{other.count}" for other in smallest_fleets(config, fleet)],
    }


def _costs(choice: LayoutChoice) -> dict[str, Any]:
    """What one step and the whole run are predicted to take."""
    price, tokens = choice.cost, choice.cost.steps * choice.cost.tokens
    return {
        "compute_seconds": price.compute, "memory_seconds": price.memory, "hidden_network_seconds": price.hidden,
        "exposed_network_seconds": price.exposed, "step_seconds": price.seconds, "bound": price.bound,
        "matmul_flops": matmul_flops(choice.config, choice.fleet.count),
        "tokens_per_second": price.tokens_per_second, "mfu": price.mfu, "tokens": tokens,
        "days": days(tokens, price.tokens_per_second), **dataclasses.asdict(price.energy),
    }


def _configured_total(config: Config, fleet: Fleet) -> int:
    """Bytes of memory per device for the config's own layout; 0 where its mesh or batch does not fit the devices."""
    try:
        return configured_layout(config, fleet).memory.total
    except ConfigError:
        return 0


def _fits(choice: LayoutChoice, compiled: CompiledStep | None) -> bool:
    """Whether the run fits the memory: by the compiler's figures where there are any, else by arithmetic."""
    if compiled is None:
        return choice.fits
    return not compiled.refusal and compiled.peak <= choice.fleet.machine.usable


def _decided_overrides(config: Config, planned: Config) -> list[str]:
    """The overrides that turn `config` into `planned`: mesh, accumulation and rematerialisation policy where they differ."""
    axes = [axis.name for axis in dataclasses.fields(planned.mesh)]
    sizes = {axis: (getattr(config.mesh, axis), getattr(planned.mesh, axis)) for axis in axes}
    # an axis of -1 takes the devices that the others leave: it is right as it is unless one of them changed
    changed = {axis for axis, (old, new) in sizes.items() if old not in (new, -1)}
    words = []
    for axis, (old, new) in sizes.items():
        if axis in changed or (old == -1 and changed):
            words += [f"--mesh.{axis}", str(new)]
    if config.training.accumulation_steps != planned.training.accumulation_steps:
        words += ["--training.accumulation_steps", str(planned.training.accumulation_steps)]
    if config.compute.remat != planned.compute.remat:
        words += ["--compute.remat", planned.compute.remat]
    return words
