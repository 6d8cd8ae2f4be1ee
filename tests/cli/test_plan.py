"""The command `plan`: what it prints, what it writes, what it refuses."""

import json
from pathlib import Path

import pytest

from llama_jax import __main__ as commands
from llama_jax.cli import plan as command
from llama_jax.cli.parsing import apply_overrides, split_overrides
from llama_jax.plan import compiled as compiling
from llama_jax.plan.compiled import CompiledStep
from llama_jax.plan.fleet import parse_machine
from llama_jax.plan.layouts import configured_layout
from llama_jax.plan.memory import Memory
from tests.plan.shipped import shipped_config

ROOT = Path(__file__).parents[2]


def run(*arguments) -> int:
    return commands.main(["plan", *(str(argument) for argument in arguments)])


def test_command(tmp_path, capsys):
    file = tmp_path / "plan.json"
    assert run("--config", ROOT / "configs/65b.py", "--machine", "a100-80g:2048", "--search", "--json", file) == 0
    out, figures = capsys.readouterr().out, json.loads(file.read_text())
    assert "65,285,660,672 parameters" in out and "fits: " in out and figures["fits"]
    assert figures["cost"]["tokens"] == 333_787 * 2048 * 2048
    assert figures["memory"]["total"] == sum(figures["memory"][name] for name in Memory.__dataclass_fields__)
    typed = figures["command"].split()
    assert typed[:5] == ["python", "-m", "llama_jax", "train", "--config"]
    config = apply_overrides(shipped_config("65b"), typed[6:])
    again = configured_layout(config, parse_machine("a100-80g:2048"))
    assert again.memory.total == figures["memory"]["total"]


def test_command_takes_overrides(capsys):
    config = ROOT / "configs/7b.py"
    assert run("--config", config, "--training.batch_size", 512, "--machine", "h100:64", "--compute.remat=full") == 0
    out = capsys.readouterr().out
    assert "remat full" in out and "--training.batch_size 512 --compute.remat=full" in out
    assert split_overrides(["--config", "a.py", "--data.sources", "x", "y", "--search"]) == (
        ["--config", "a.py", "--search"], ["--data.sources", "x", "y"])


def test_what_cannot_fit_is_told_with_what_would(capsys):
    assert run("--config", ROOT / "configs/65b.py", "--machine", "h100:8") == 0
    out = capsys.readouterr().out
    assert "DOES NOT FIT" in out and "it would fit on h100:" in out


@pytest.mark.parametrize("arguments, sentence", [
    ("--machine h101:8", "unknown machine"), ("--machine h100:8 --mesh.fsdp 3", "does not fill 8 device"),
    ("--machine v4:1024 --mesh.tensor 64", "model.num_heads = 32 does not divide by mesh.tensor = 64"),
    ("--machine h100:8 --mesh.tenser 2", "did you mean mesh.tensor"),
    ("--machine h100:8 --training.batch_size 12", "does not divide over")])
def test_bad_input(arguments, sentence, capsys):
    assert run("--config", ROOT / "configs/7b.py", *arguments.split()) == 2
    assert sentence in capsys.readouterr().err


def test_missing_compiler_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    for machine, extra in (("v5e:4", "plan-tpu"), ("h100:8", "plan-gpu")):
        assert run("--config", ROOT / "configs/7b.py", "--machine", machine, "--compile") == 2
        assert f'pip install "llama_jax[{extra}]"' in capsys.readouterr().err


def test_smaller_micro_batches_where_the_compiler_refuses(monkeypatch, tmp_path, capsys):
    file, asked = tmp_path / "plan.json", []

    def compile_for_fleet(config, fleet):
        asked.append(config.training.accumulation_steps)
        refusal = "Ran out of memory on HBM" if len(asked) == 1 else ""
        return CompiledStep(arguments=10**10, temporaries=0, peak=0 if refusal else 2 * 10**10, collectives=(), matmul_flops=1e15,
                        kernels=(), seconds=1.0, cpu_seconds=1.0, host_memory=10**9, refusal=refusal)

    monkeypatch.setattr(command, "compile_for_fleet", compile_for_fleet)
    monkeypatch.setattr(command, "check_compiler_installed", lambda fleet: None)
    assert run("--config", ROOT / "configs/7b.py", "--machine", "h100:8", "--compile", "--json", file) == 0
    figures, out = json.loads(file.read_text()), capsys.readouterr().out
    assert asked == [64, 128] and figures["layout"]["accumulation_steps"] == 128 and figures["refused_micro_batches"] == [4]
    assert "fits: the compiler needs 20.0 GB" in out and "refused micro-batches of 4" in out
    assert "--training.accumulation_steps 128" in out
