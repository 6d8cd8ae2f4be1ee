"""The programs of examples/: short, listed on the page about modules, and they print what their docstrings show."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL = """--training.num_steps 60 --training.batch_size 8 --training.heldout_every 60 --training.sample_prompts ROMEO:
    --data.sequence_length 64 --checkpoint.every 60 --optimizer.warmup_steps 10"""
"""The quick start's model, trained for seconds: its losses fall, and its texts are words at best."""


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text()))


def command(file: Path) -> list[str]:
    """Its command as the docstring has it, without what is optional."""
    [line] = re.findall(rf"^    python (examples/{file.name}.*)", docstring(file), re.M)
    return shlex.split(re.sub(r"\[.*\]", "", line))


def run(words: list[str], folder: Path) -> str:
    """What Python prints for these words in a folder, where warnings and implicit changes of a rank are errors."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUMPY_RANK_PROMOTION": "raise"}
    done = subprocess.run([sys.executable, "-W", "error", *words], cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    """The number that the pattern's group matches, in each line that it matches."""
    return [float(number) for number in re.findall(pattern, text, re.M)]


def form(text: str) -> list[str]:
    """Lines without their numbers and quoted texts."""
    return [re.sub(r"\d[\d.,]*(e-?\d+)?", "#", re.sub(r"'.*'|\".*\"", "''", line)) for line in text.splitlines()]


def check_lift(printed: str, _: Path) -> None:
    errors = numbers(r"squared error (\S+)$", printed)
    assert errors[-1] < errors[0] / 20
    [(after_one, after_all)] = re.findall(r"after 1 value (\S+), after \d+ values (\S+)", printed)
    assert float(after_all) < float(after_one) / 5
    [moved] = numbers(r"by at most (\S+)$", printed)
    assert moved < 1e-3


def check_nnx(printed: str, _: Path) -> None:
    errors = numbers(r"squared error (\S+)$", printed)
    assert errors[-1] < errors[0] / 10


def check_own_loop(printed: str, _: Path) -> None:
    losses = numbers(r"loss (\S+) nats", printed)
    assert losses[-1] < losses[0] - 2
    assert "(2, 64, 96) of w_gate (2, 64, 192)" in printed


def check_lora(printed: str, _: Path) -> None:
    losses = numbers(r"loss (\S+) nats", printed)
    assert losses[-1] < losses[0] - 1
    [after] = re.findall(r"^after: (.*)", printed, re.M)
    letters = after.replace("\\n", "")  # after so little training there may be none but line ends
    assert sum(map(str.isupper, letters)) >= sum(map(str.islower, letters))


def check_logit_lens(printed: str, folder: Path) -> None:
    nats = numbers(r"(\S+) nats per token", printed)
    assert nats[-1] < nats[0] - 0.3
    [difference] = numbers(r"by at most (\S+)$", printed)
    assert difference < 1e-3
    for name in ("logit_lens.png", "attention.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"


def check_resize_vocabulary(printed: str, folder: Path) -> None:
    [difference] = numbers(r"by at most (\S+)$", printed)
    assert difference < 1e-4
    [(chance, most)] = re.findall(r"probability of (\S+), at most .* = (\S+)$", printed, re.M)
    assert float(chance) <= float(most)
    before, after = re.findall(r"^(?:before|after): (.*)", printed, re.M)
    assert before == after
    assert (folder / "out/resized/checkpoints/0").is_dir()


CHECKS = {"lift": check_lift, "nnx": check_nnx, "own_loop": check_own_loop, "lora": check_lora, "logit_lens": check_logit_lens,
          "resize_vocabulary": check_resize_vocabulary}
"""Example -> what its numbers have to say: (printed, folder) -> None."""


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_they_are_short_and_listed(file):
    assert len(file.read_text().splitlines()) < 100
    assert command(file) and file.stem in CHECKS
    assert f"| `examples/{file.name}` | " in (ROOT / "docs" / "MODULES.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with runs/tiny and nothing else, in which all examples run."""
    folder = tmp_path_factory.mktemp("examples")
    run(["-m", "llama_jax", "train", "--config", "tiny", *SMALL.split()], folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_they_print_what_they_show(file, folder):
    script, *options = command(file)
    printed = run([str(ROOT / script), *options], folder)
    shown = docstring(file).partition("\nprints\n\n")[2]
    assert form(printed) == [line.removeprefix("    ") for line in form(shown)]
    CHECKS[file.stem](printed, folder)
