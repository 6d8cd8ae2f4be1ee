"""The real train step compiled for NVIDIA GPUs that are not here (CUDA plugin), beside the plan's arithmetic."""

from pathlib import Path

import pytest

from llama_jax.config.file import load_config
from llama_jax.plan.compiled import compile_for_fleet
from llama_jax.plan.fleet import parse_machine
from llama_jax.plan.layouts import settle_layout

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.cuda]
pytest.importorskip("jax_plugins.xla_cuda12", reason="needs the CUDA plugin (extra plan-gpu, 4.4 GB)")


@pytest.mark.parametrize("name, machine", [
    ("7b", "h100:8"), ("65b", "a100-80g:2048"), ("1b", "h200:1"), ("llama3_70b", "b200:512")])
def test_fits_and_the_arithmetic_agrees(name, machine):
    config, fleet = load_config(Path(__file__).parents[2] / f"configs/{name}.py"), parse_machine(machine)
    choice = settle_layout(config, fleet, search=False)
    compiled = compile_for_fleet(choice.config, fleet)
    assert choice.fits and compiled.peak <= fleet.machine.usable
    assert choice.memory.total == pytest.approx(compiled.peak, rel=0.15)
    assert compiled.arguments == choice.memory.state + choice.memory.batch
    assert compiled.seconds < 120 and compiled.host_memory < 8e9
