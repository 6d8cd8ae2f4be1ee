"""Planning a run before it is started: memory, time, energy and layout on accelerators that need not be here (docs/PLAN.md).

Names are imported from their modules when they are first used: the process that compiles a train step runs `plan.compiled`.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.plan.compiled import CompiledStep, compile_for_fleet, compile_train_step
    from llama_jax.plan.cost import Cost, Energy
    from llama_jax.plan.fleet import Fleet, parse_machine
    from llama_jax.plan.hlo import Collective, collectives_of_program, custom_calls_of_program, matmul_flops_of_program
    from llama_jax.plan.layouts import LayoutChoice, configured_layout, fastest_layout, settle_layout
    from llama_jax.plan.machines import MACHINES, Machine
    from llama_jax.plan.memory import Memory, estimate_memory
    from llama_jax.plan.report import print_plan

_MODULES = {
    "LayoutChoice": "layouts",
    "Collective": "hlo",
    "CompiledStep": "compiled",
    "Cost": "cost",
    "Energy": "cost",
    "Fleet": "fleet",
    "MACHINES": "machines",
    "Machine": "machines",
    "Memory": "memory",
    "collectives_of_program": "hlo",
    "compile_for_fleet": "compiled",
    "compile_train_step": "compiled",
    "configured_layout": "layouts",
    "custom_calls_of_program": "hlo",
    "estimate_memory": "memory",
    "fastest_layout": "layouts",
    "matmul_flops_of_program": "hlo",
    "parse_machine": "fleet",
    "print_plan": "report",
    "settle_layout": "layouts",
}
"""The module of each name, which is imported when the name is first asked for."""

__all__ = [
    "MACHINES",
    "Collective",
    "CompiledStep",
    "Cost",
    "Energy",
    "Fleet",
    "LayoutChoice",
    "Machine",
    "Memory",
    "collectives_of_program",
    "compile_for_fleet",
    "compile_train_step",
    "configured_layout",
    "custom_calls_of_program",
    "estimate_memory",
    "fastest_layout",
    "matmul_flops_of_program",
    "parse_machine",
    "print_plan",
    "settle_layout",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
