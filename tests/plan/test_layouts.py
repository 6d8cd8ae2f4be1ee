"""Which layout a plan takes."""

from dataclasses import replace

from llama_jax.plan.fleet import parse_machine
from llama_jax.plan.layouts import (
    configured_layout,
    fastest_layout,
    largest_micro_batch,
    layouts,
    micro_batch_choices,
    settle_layout,
)
from tests.plan.shipped import ONE, shipped_config


def test_search_finds_the_fastest_that_fits():
    config, fleet = shipped_config("7b"), parse_machine("h100:8")
    best = fastest_layout(config, fleet)
    others = [other for choice in layouts(config, fleet) for other in micro_batch_choices(choice)]
    assert best.fits and len(others) > 50
    assert best.cost.seconds == min(other.cost.seconds for other in others if other.fits)
    assert any(not other.fits for other in others)
    largest = largest_micro_batch(best)
    t = largest.config.training
    assert largest.fits and largest.micro_batch >= best.micro_batch
    double = replace(largest.config, training=replace(t, accumulation_steps=t.accumulation_steps // 2))
    assert not configured_layout(double, fleet).fits


def test_settles_on_smaller_micro_batches_first():
    config, fleet = shipped_config("7b"), parse_machine("h100:8")
    choice = settle_layout(config, fleet, search=False)
    assert not configured_layout(config, fleet).fits and choice.fits
    assert choice.config.compute.remat == "linear" and choice.mesh == ONE | {"fsdp": 8}
