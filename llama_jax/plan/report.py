"""Prints a plan: tables of memory, collectives and cost, then whether the run fits and the command that runs it."""

from typing import Any

from rich.console import Console
from rich.table import Table

from llama_jax.plan.layouts import MARGIN

Figures = dict[str, Any]
"""A plan as plain values, as `--json` writes it: bytes, seconds, FLOPs."""

_SMALLEST_COLLECTIVE = 1e6
"""Compiled collectives that carry fewer bytes per step are left out of the table."""

_RECOMPUTED = 1.2
"""Compiled matmul FLOPs over the arithmetic's from which on the compiler is said to recompute matmuls."""


def print_plan(figures: Figures, console: Console) -> None:
    """Print all tables and the conclusions."""
    machine, layout, model = figures["machine"], figures["layout"], figures["model"]
    mesh = " x ".join(f"{axis} {size}" for axis, size in layout["mesh"].items())
    console.print(f"{figures['name']} on {machine['title']}, {machine['hosts']:,} host(s)", markup=False)
    console.print(f"{model['parameters']:,} parameters; {_with_si_prefix(model['flops_per_token'])}FLOP per token (with "
                  f"recomputation {_with_si_prefix(model['hardware_flops_per_token'])}FLOP), "
                  f"{_with_si_prefix(model['traffic_per_token'])}B of memory traffic per token besides matmuls", markup=False)
    console.print(f"layout: {mesh}; {layout['accumulation_steps']} micro-batch(es) per step of {layout['micro_batch']} "
                  f"sequence(s) per data-parallel group; remat {layout['remat']}; attention {layout['attention']}", markup=False)
    console.print(_memory_table(figures))
    if figures["collectives"] or figures["compiled"]:
        console.print(_collective_table(figures))
    console.print(_cost_table(figures["cost"], machine["count"]))
    for sentence in _conclusions(figures):
        console.print(sentence, markup=False)


def _memory_table(figures: Figures) -> Table:
    """Bytes of one device: by arithmetic, and beside it as the compiler reports them."""
    memory, compiled = figures["memory"], figures["compiled"]
    table = Table("memory per device", "arithmetic", *(["compiler"] if compiled else []))
    for column in table.columns[1:]:
        column.justify = "right"
    by_compiler = {}
    if compiled and not compiled["refusal"]:
        by_compiler = {"batch": f"{_format_bytes(compiled['arguments'])} state and batch",
                       "workspace": f"{_format_bytes(compiled['peak'] - compiled['arguments'])} all temporaries",
                       "total": _format_bytes(compiled["peak"])}
    rows = {name: memory[name] for name in ("weights", "moments", "batch", "gradients", "activations", "workspace", "total")}
    rows |= {f"activations, remat {policy}": size for policy, size in memory["activations_by_remat"].items()}
    for name, size in rows.items():
        cells = [name, _format_bytes(size)]
        if compiled:
            cells.append(by_compiler.get(name, ""))
        table.add_row(*cells, end_section=name == "workspace")
    return table


def _collective_table(figures: Figures) -> Table:
    """Collectives per step on one device: by arithmetic, and below as compiled."""
    table = Table("collectives per step", "axis", "devices", "times", "arrays", "seconds")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in figures["collectives"]:
        table.add_row(row["kind"], row["axis"], f"{row['devices']:,}", f"{row['count']:,}", _format_bytes(row["bytes"]),
                      f"{row['seconds']:.3g}")
    if figures["compiled"]:
        table.add_section()
        for row in figures["compiled"]["collectives"]:
            if row["bytes"] >= _SMALLEST_COLLECTIVE:
                table.add_row(row["kind"], "compiled", f"{row['devices']:,}", f"{row['count']:,}", _format_bytes(row["bytes"]),
                              "")
    return table


def _cost_table(cost: Figures, devices: int) -> Table:
    """The predicted time of a step, and what the whole run takes."""
    table = Table("prediction", "")
    table.columns[1].justify = "right"
    energy = "no power is published"
    if cost["megawatt_hours"] is not None:
        energy = f"{cost['megawatt_hours']:,.3g} MWh, {cost['tonnes']:,.3g} tCO2eq"
    rows = {
        "compute": f"{cost['compute_seconds']:.3g} s",
        "memory traffic": f"{cost['memory_seconds']:.3g} s",
        "overlapped collectives": f"{cost['hidden_network_seconds']:.3g} s",
        "exposed collectives": f"{cost['exposed_network_seconds']:.3g} s",
        "step": f"{cost['step_seconds']:.3g} s, bound by {cost['bound']}",
        "tokens/s": f"{cost['tokens_per_second']:,.0f}, {cost['tokens_per_second'] / devices:,.0f} per device",
        "MFU": f"{cost['mfu']:.1%}",
        "run": f"{cost['tokens']:,} tokens in {cost['days']:,.3g} days",
        "device-hours": f"{cost['device_hours']:,.0f}",
        "energy": energy,
    }
    for name, value in rows.items():
        table.add_row(name, value, end_section=name in ("exposed collectives", "MFU"))
    return table


def _conclusions(figures: Figures) -> list[str]:
    """Sentences: whether the run fits, what the compiler found, and the command that runs it."""
    sentences = [_whether_it_fits(figures)]
    if figures["compiled"]:
        sentences += _about_compilation(figures["compiled"], figures["cost"])
    layout, fits = figures["layout"], figures["fits"]
    if figures["refused_micro_batches"]:
        refused = ", ".join(map(str, figures["refused_micro_batches"]))
        sentences.append(f"the compiler refused micro-batches of {refused} sequence(s), which fitted by arithmetic")
    elif fits:
        sentences.append(f"largest micro-batch that fits: {layout['largest_micro_batch']} sequence(s)")
    if fits and layout["configured_total"] > figures["machine"]["usable"]:
        sentences.append(f"as configured it would need {_format_bytes(layout['configured_total'])}")
    if fits:
        how = "as configured" if layout["as_configured"] else "not as configured; run it with"
        sentences.append(f"{how}: {figures['command']}")
    elif figures["would_fit"]:
        sentences.append(f"it would fit on {', '.join(figures['would_fit'])}")
    else:
        sentences.append("it would fit on no machine of the table in this number; take fewer parameters or more devices")
    return sentences


def _whether_it_fits(figures: Figures) -> str:
    """Needed against usable memory: by the compiler where it ran, else by arithmetic."""
    machine, memory, compiled = figures["machine"], figures["memory"], figures["compiled"]
    fits = "fits" if figures["fits"] else "DOES NOT FIT"
    available = f"{_format_bytes(machine['usable'])} that a program gets of {_format_bytes(machine['memory'])}"
    if not compiled:
        return (f"{fits}: {_format_bytes(memory['total'])} of the {available}, by arithmetic, which keeps {MARGIN - 1:.0%} of "
                "margin")
    if compiled["refusal"]:
        return f"DOES NOT FIT: the compiler says: {compiled['refusal']}."
    return (f"{fits}: the compiler needs {_format_bytes(compiled['peak'])} of the {available}; by arithmetic it is "
            f"{_format_bytes(memory['total'])} ({memory['total'] / compiled['peak']:.2f} times as much)")


def _about_compilation(compiled: Figures, cost: Figures) -> list[str]:
    """What compiling took, and how the program's matmul FLOPs compare with the arithmetic's."""
    kernels = f"; kernels: {', '.join(compiled['kernels'])}" if compiled["kernels"] else ""
    sentences = [f"compiled in {compiled['seconds']:.0f} s ({compiled['cpu_seconds']:.0f} s of CPU time) with "
                 f"{_format_bytes(compiled['host_memory'])} of memory on this machine{kernels}"]
    if compiled["refusal"]:
        return sentences
    sentences.append(f"matmul FLOPs per step and device: {_with_si_prefix(compiled['matmul_flops'])}FLOP compiled, without those "
                     f"of kernels; {_with_si_prefix(cost['matmul_flops'])}FLOP by arithmetic, without attention")
    if compiled["matmul_flops"] > _RECOMPUTED * cost["matmul_flops"]:
        sentences.append("the compiler recomputes matmuls to save memory: smaller micro-batches are likely faster")
    return sentences


def _format_bytes(size: float) -> str:
    """Bytes with a unit, in powers of ten as data sheets count: 8e10 -> '80.0 GB'."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.3g} MB"


def _with_si_prefix(value: float) -> str:
    """A number with the prefix of its unit: 1.3e12 -> '1.3 T'."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value:.3g} "
