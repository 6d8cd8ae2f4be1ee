"""--machine names a fleet that there is."""

import pytest

from llama_jax.errors import ConfigError
from llama_jax.plan.fleet import parse_machine
from llama_jax.plan.topologies import topology_name


@pytest.mark.parametrize("text, name, count, topology", [
    ("h100:8", "h100", 8, "1x1x8"), ("A100-80G:2048", "a100-80g", 2048, "1x256x8"), ("v4:1024", "v4", 1024, "v4:8x8x16"),
    ("v4-2048", "v4", 1024, "v4:8x8x16"), ("v5litepod-256", "v5e", 256, "v5e:16x16"), ("v5p:4", "v5p", 4, "v5p:2x2x1")])
def test_machines(text, name, count, topology):
    fleet = parse_machine(text)
    assert (fleet.machine.name, fleet.count, topology_name(fleet)) == (name, count, topology)


@pytest.mark.parametrize("text, sentence", [
    ("h101:8", "unknown machine 'h101'; did you mean h100"), ("h100", "wants NAME:COUNT"),
    ("h100:12", "whole number of hosts of 8"),
    ("v5e:512", "at most 256"), ("v4:3", "no TPU v4 slice of 3 chips"), ("v4-7", "positive multiple of 2")])
def test_machines_that_are_not(text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_machine(text)
