"""What `plan` is told; the arithmetic, and jax with it, is imported when it begins."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Say whether a run fits a machine that need not be here, what it costs, and how to lay it out.

    Overrides as train.py takes them (--any.field VALUE) may follow; what is planned is then what they say.
    """

    config: str
    """Config file (.py or .json), as for train.py."""
    machine: str
    """NAME:COUNT, such as h100:8, a100-80g:2048 or v4:1024; a count is GPUs or TPU chips (v4-2048, in cores, is v4:1024)."""
    compile: bool = False
    """Compile the real train step with the machine's own compiler (extras plan-gpu, plan-tpu) and show its figures too."""
    search: bool = False
    """Choose mesh, micro-batch and remat policy: the fastest that fits."""
    json: str = ""
    """File that gets all figures."""

    def run(self, overrides: list[str]) -> None:
        """Plan, and print it."""
        from llama_jax.cli.plan import run_plan

        run_plan(self, overrides)


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(plan's own arguments, overrides): an argument with a dot in its name is an override, and its values follow it."""
    own, overrides = [], []
    target = own
    for argument in arguments:
        if argument.startswith("--"):
            target = overrides if "." in argument.partition("=")[0] else own
        target.append(argument)
    return own, overrides
