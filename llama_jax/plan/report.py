"""Prints the figures of a plan: tables for the eye, then sentences."""

from typing import Any

from rich.console import Console
from rich.table import Table

from llama_jax.plan.layouts import MARGIN

Figures = dict[str, Any]


def print_report(figures: Figures, console: Console) -> None:
    """All tables and the verdict."""
    machine, layout, model = figures["machine"], figures["layout"], figures["model"]
    mesh = " x ".join(f"{axis} {size}" for axis, size in layout["mesh"].items())
    console.print(f"{figures['name']} on {machine['title']}, {machine['hosts']:,} host(s)", markup=False)
    console.print(f"{model['parameters']:,} parameters; a token takes {count(model['flops_per_token'])}FLOP (with recomputation "
                  f"{count(model['hardware_flops_per_token'])}FLOP) and moves {count(model['traffic_per_token'])}B of device "
                  "memory besides matmuls", markup=False)
    console.print(f"layout: {mesh}; {layout['accumulation_steps']} micro-batch(es) a step of {layout['micro_batch']} "
                  f"sequence(s) a group of devices; remat {layout['remat']}; attention {layout['attention']}", markup=False)
    console.print(memory_table(figures))
    if figures["collectives"] or figures["compiled"]:
        console.print(collective_table(figures))
    console.print(cost_table(figures["cost"], machine["count"]))
    for sentence in verdict(figures):
        console.print(sentence, markup=False)


def memory_table(figures: Figures) -> Table:
    """Bytes of one device, the compiler's beside the arithmetic's."""
    memory, compiled = figures["memory"], figures["compiled"]
    table = Table("memory a device", "arithmetic", *(["compiler"] if compiled else []))
    for column in table.columns[1:]:
        column.justify = "right"
    theirs = {}
    if compiled and not compiled["refusal"]:
        theirs = {"batch": f"{gigabytes(compiled['arguments'])} state and batch",
                  "workspace": f"{gigabytes(compiled['peak'] - compiled['arguments'])} all temporaries",
                  "total": gigabytes(compiled["peak"])}
    for name in ("weights", "moments", "batch", "gradients", "activations", "workspace", "total"):
        table.add_row(name, gigabytes(memory[name]), *([theirs.get(name, "")] if compiled else []), 
                      end_section=name == "workspace")
    for policy, size in memory["activations_by_remat"].items():
        table.add_row(f"activations, remat {policy}", gigabytes(size), *([""] if compiled else []))
    return table


def collective_table(figures: Figures) -> Table:
    """What a step sends, by arithmetic and as compiled."""
    table = Table("collectives a step", "axis", "devices", "times", "arrays", "seconds")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in figures["collectives"]:
        table.add_row(row["kind"], row["axis"], f"{row['devices']:,}", f"{row['count']:,}", gigabytes(row["bytes"]),
                      f"{row['seconds']:.3g}")
    if figures["compiled"]:
        table.add_section()
        for row in figures["compiled"]["collectives"]:
            if row["bytes"] >= 1e6:
                table.add_row(row["kind"], "compiled", f"{row['devices']:,}", f"{row['count']:,}", gigabytes(row["bytes"]), "")
    return table


def cost_table(cost: Figures, devices: int) -> Table:
    """The predicted step and the whole run."""
    table = Table("prediction", "")
    table.columns[1].justify = "right"
    rows = {
        "compute": f"{cost['compute_seconds']:.3g} s", "memory traffic": f"{cost['memory_seconds']:.3g} s",
        "collectives that overlap": f"{cost['hidden_network_seconds']:.3g} s",
        "collectives that wait": f"{cost['exposed_network_seconds']:.3g} s",
        "step": f"{cost['step_seconds']:.3g} s, bound by {cost['bound']}",
        "tokens/s": f"{cost['tokens_per_second']:,.0f}, {cost['tokens_per_second'] / devices:,.0f} a device",
        "MFU": f"{cost['mfu']:.1%}", "run": f"{cost['tokens']:,} tokens in {cost['days']:,.3g} days",
        "device-hours": f"{cost['device_hours']:,.0f}",
        "energy": "no power is published" if cost["megawatt_hours"] is None else
                  f"{cost['megawatt_hours']:,.3g} MWh, {cost['tonnes']:,.3g} tCO2eq",
    }
    for name, value in rows.items():
        table.add_row(name, value, end_section=name in ("collectives that wait", "MFU"))
    return table


def verdict(figures: Figures) -> list[str]:
    """Does it fit, and what to type."""
    machine, memory, layout, compiled = (figures[name] for name in ("machine", "memory", "layout", "compiled"))
    space = f"{gigabytes(machine['usable'])} that a program gets of {gigabytes(machine['memory'])}"
    lines = []
    if compiled and compiled["refusal"]:
        lines.append(f"DOES NOT FIT: the compiler says: {compiled['refusal']}.")
    elif compiled:
        lines.append(f"{'fits' if figures['fits'] else 'DOES NOT FIT'}: the compiler needs {gigabytes(compiled['peak'])} of the "
                     f"{space}; arithmetic said {gigabytes(memory['total'])} ({memory['total'] / compiled['peak']:.2f} of it)")
    else:
        lines.append(f"{'fits' if figures['fits'] else 'DOES NOT FIT'}: {gigabytes(memory['total'])} of the {space}, by "
                     f"arithmetic, which wants {MARGIN - 1:.0%} to spare")
    if compiled:
        lines.append(f"compiled in {compiled['seconds']:.0f} s ({compiled['cpu_seconds']:.0f} of CPU) with "
                     f"{gigabytes(compiled['host_memory'])} of memory here"
                     + (f"; kernels: {', '.join(compiled['kernels'])}" if compiled["kernels"] else ""))
    if compiled and not compiled["refusal"]:
        lines.append(f"matmuls of a device's step: {count(compiled['matmul_flops'])}FLOP compiled, without what kernels do; "
                     f"{count(figures['cost']['matmul_flops'])}FLOP by arithmetic, attention aside")
        if compiled["matmul_flops"] > 1.2 * figures["cost"]["matmul_flops"]:
            lines.append("the compiler computes matmuls again to save memory: smaller micro-batches are likely faster")
    if figures["refused_micro_batches"]:
        refused = ", ".join(map(str, figures["refused_micro_batches"]))
        lines.append(f"the compiler refused micro-batches of {refused} sequence(s), which fitted by arithmetic")
    elif figures["fits"]:
        lines.append(f"largest micro-batch that fits: {layout['largest_micro_batch']} sequence(s)")
    if figures["fits"] and layout["configured_total"] > machine["usable"]:
        lines.append(f"as configured it would need {gigabytes(layout['configured_total'])}")
    if figures["fits"]:
        lines.append(f"{'as configured' if layout['as_configured'] else 'not as configured; run it so'}: {figures['command']}")
    elif figures["would_fit"]:
        lines.append(f"it would fit on {', '.join(figures['would_fit'])}")
    else:
        lines.append("no machine of the table would hold it in this number; fewer parameters, or more devices")
    return lines


def gigabytes(size: float) -> str:
    """Bytes as people say them, in powers of ten as data sheets do."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.3g} MB"


def count(value: float) -> str:
    """1.3e12 -> '1.3 T'."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value:.3g} "
