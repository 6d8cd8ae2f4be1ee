"""The table of commands: what stands before a command, mistakes in names, and that help comes without jax."""

import dataclasses
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from llama_jax.__main__ import COMMANDS, main
from llama_jax.cli.options import SamplingOptions
from llama_jax.inference.sampling import Sampling
from llama_jax.version import VERSION

ROOT = Path(__file__).parents[2]


def test_every_command_has_its_worker():
    for command in COMMANDS.values():
        module, function = command.worker.split(".")
        assert callable(getattr(import_module(f"llama_jax.cli.{module}"), function))


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"llama_jax {VERSION}\n"


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and re.findall(r"\u2022 (\w+)", out) == list(COMMANDS)
    assert "usage: llama-jax" in out and "--version" in out and "--tyro-write-completion" in out


def test_without_a_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2 and "prepare" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, sentence", [
    ("trian", "unknown command trian; did you mean train; known: train, eval, generate,"),
    ("prepare --inptu a", "unknown argument --inptu; did you mean input"),
    ("generate --checkpoint a --temprature=3", "unknown argument --temprature=3; did you mean temperature"),
    ("eval --task a", "unknown argument --task; did you mean tasks"),
    ("tokenizer train --vocabsize 3", "unknown argument --vocabsize; did you mean vocab_size"),
    ("train --config tiny --model.dimm 3", "unknown argument --model.dimm; did you mean model.dim"),
    ("plan --config tiny --machine h100:1 --serach", "unknown argument --serach; did you mean search"),
    ("plan --config tiny --machine h100:1 --mesh.tenser 2", "did you mean mesh.tensor"),
    ("train", "--config is missing. usage: llama-jax train --config FILE"),
])
def test_mistakes_in_names(capsys, arguments, sentence):
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert sentence in captured.err


@pytest.mark.parametrize("typed", ["--max-new-tokens", "--max_new_tokens"])
def test_names_are_taken_with_hyphens_too(capsys, typed, tmp_path):
    assert main(["generate", "--checkpoint", str(tmp_path), "--no-interactive", "--prompt", "a", typed, "3"]) == 3
    assert "expected a run directory" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *[[name, "--help"] for name in COMMANDS],
                                       ["train", "--config", "tiny", "--help"], ["generate", "--chekpoint", "a"]], ids=" ".join)
def test_no_jax_before_there_is_work(arguments):
    """jax takes seconds to import, and would start its backends in every process that prepares data."""
    script = ("import sys\nfrom llama_jax.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
              "import llama_jax.data.prepare\nassert 'jax' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sampling_options_are_sampling():
    """The same fields with the same defaults; only their help differs."""
    assert dataclasses.asdict(SamplingOptions()) == dataclasses.asdict(Sampling())


@pytest.mark.parametrize("script", [["train.py"], ["eval.py"], ["-m", "llama_jax", "train"], ["-m", "llama_jax", "eval"]],
                         ids=" ".join)
def test_entry_points(tmp_path, script):
    """As people call them: codes and streams of real processes."""
    words = [str(ROOT / script[0]), *script[1:]] if script[0] != "-m" else script
    done = subprocess.run([sys.executable, *words, "--confg", "3"], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    if "train" in script[-1]:
        prog = "python train.py" if len(script) == 1 else "python -m llama_jax train"
        assert f"usage: {prog} --config FILE[.py|.json]|NAME" in done.stderr


def test_ctrl_c_ends_in_a_sentence(capsys, monkeypatch, tmp_path):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("llama_jax.cli.evaluate.run_eval", interrupted)
    assert main(["eval"]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from what was answered\n"
