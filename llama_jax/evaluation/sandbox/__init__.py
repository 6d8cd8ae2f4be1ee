"""Runs generated programs confined by limits and by the layers that the Linux kernel offers."""

from llama_jax.evaluation.sandbox.run import (
    SANDBOX_LAYERS,
    ProgramLimits,
    ProgramOutcome,
    available_layers,
    describe_isolation,
    run_program,
    run_programs,
)

__all__ = [
    "SANDBOX_LAYERS", "ProgramLimits", "ProgramOutcome", "available_layers", "describe_isolation", "run_program", "run_programs",
]
