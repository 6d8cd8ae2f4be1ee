"""Every machine of the table is complete, and agrees with what a run divides by."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from llama_jax.parallel.hardware import peak_flops
from llama_jax.plan.fleet import Fleet, torus_shape
from llama_jax.plan.machines import MACHINES
from llama_jax.plan.topologies import gpu_target_config


def test_every_machine_is_whole():
    for name, machine in MACHINES.items():
        assert machine.name == name and machine.source and 0 < machine.usable < machine.memory
        if machine.kind == "gpu":
            assert f"device_memory_size: {machine.memory}" in gpu_target_config(machine)
        else:
            assert math.prod(torus_shape(Fleet(machine, 64))) == 64


def test_a_machine_is_what_its_table_says_whatever_its_name():
    assert {name: machine.capability for name, machine in MACHINES.items()} == {
        "a100-40g": "8.0", "a100-80g": "8.0", "h100": "9.0", "h200": "9.0", "b200": "10.0", "v4": "", "v5e": "", "v5p": "",
        "v6e": ""}
    for machine in MACHINES.values():
        renamed = replace(machine, name="x-" + machine.name)
        assert renamed.capability == machine.capability and (machine.kind == "gpu") == bool(machine.cuda)
        if machine.kind == "gpu":
            assert gpu_target_config(renamed) == gpu_target_config(machine)
            assert f"major: {machine.capability.split('.')[0]} " in gpu_target_config(machine)


@pytest.mark.parametrize("name, device_kind", [(name, machine.title) for name, machine in MACHINES.items()] + [
    ("v5e", "TPU v5 lite"), ("v5p", "TPU v5"), ("v6e", "TPU v6 lite")])
def test_a_plan_and_a_run_divide_by_the_same_peak(name, device_kind):
    assert MACHINES[name].bfloat16_flops == peak_flops(SimpleNamespace(device_kind=device_kind), "bfloat16")[0]
