"""Compiler flags are set for the platform, and yield to those that the user has set."""

import pytest

from llama_jax.parallel.xla_flags import describe_xla_flags, set_inference_flags, set_xla_flags


def test_flags_of_the_platform_and_the_users_own_first(environment):
    environment |= {"JAX_PLATFORMS": "cuda,cpu", "XLA_FLAGS": "--xla_gpu_enable_pipelined_all_gather=false --xla_dump_to=d"}
    set_xla_flags()
    flags = environment["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_gpu_enable_pipelined_all_gather=false", "--xla_dump_to=d"]
    assert "--xla_gpu_enable_latency_hiding_scheduler=true" in flags
    assert sum(flag.startswith("--xla_gpu_enable_pipelined_all_gather=") for flag in flags) == 1
    assert "LIBTPU_INIT_ARGS" not in environment
    (line,) = describe_xla_flags()
    assert line.startswith("XLA_FLAGS: --xla_gpu_enable_pipelined")


@pytest.mark.parametrize("platforms, variables", [("cpu", set()), ("tpu", {"LIBTPU_INIT_ARGS"})])
def test_other_platforms(environment, platforms, variables):
    environment["JAX_PLATFORMS"] = platforms
    set_xla_flags()
    assert {"XLA_FLAGS", "LIBTPU_INIT_ARGS"} & set(environment) == variables


def test_inference_on_cpu(environment):
    for platforms, flags in (("cuda", None), ("cpu", "--xla_dump_to=d --xla_cpu_enable_concurrency_optimized_scheduler=false")):
        environment["JAX_PLATFORMS"] = platforms
        environment.pop("XLA_FLAGS", None)
        if flags:
            environment["XLA_FLAGS"] = "--xla_dump_to=d"
        set_inference_flags()
        set_inference_flags()
        assert environment.get("XLA_FLAGS") == flags
