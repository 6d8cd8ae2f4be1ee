"""The real train step compiled for TPUs that are not here (libtpu), beside the plan's arithmetic."""

from dataclasses import replace
from pathlib import Path

import pytest

from llama_jax.config.file import load_config
from llama_jax.plan.compiled import compile_for_fleet
from llama_jax.plan.fleet import parse_machine
from llama_jax.plan.layouts import configured_layout

pytestmark = [pytest.mark.peers, pytest.mark.slow]
pytest.importorskip("libtpu", reason="needs libtpu (extra plan-tpu)")

CONFIG = load_config(Path(__file__).parents[2] / "configs/1b.py")


def test_a_few_layers_on_v5e():
    config = replace(CONFIG, model=replace(CONFIG.model, num_layers=4),
                     training=replace(CONFIG.training, batch_size=32, accumulation_steps=2))
    choice = configured_layout(config, parse_machine("v5e:4"))
    compiled = compile_for_fleet(choice.config, choice.fleet)
    assert not compiled.refusal
    assert choice.memory.total == pytest.approx(compiled.peak, rel=0.15)
    assert compiled.arguments == pytest.approx(choice.memory.state + choice.memory.batch, rel=1e-3)


def test_the_compiler_refuses_what_is_too_large():
    config = replace(CONFIG, training=replace(CONFIG.training, accumulation_steps=1))
    choice = configured_layout(config, parse_machine("v5e:1"))
    compiled = compile_for_fleet(choice.config, choice.fleet)
    assert not choice.fits and "memory" in compiled.refusal
