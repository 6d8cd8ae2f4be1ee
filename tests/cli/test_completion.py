"""Shell completion as the README sets it up: bash asks the script that the command wrote."""

import shutil
import subprocess
from pathlib import Path

import pytest

from llama_jax.__main__ import COMMANDS, main

ASK = """
source "$1"
words=$(complete -p llama-jax)  # complete -F FUNCTION llama-jax
function=${words#*-F }
COMP_WORDS=("${@:2}")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
${function% *}
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "llama-jax"
    with pytest.raises(SystemExit) as caught:
        main(["--tyro-write-completion", "bash", str(file)])
    assert not caught.value.code
    return file


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("typed, offered", [
    ("", {"-h", "--help", *COMMANDS}),
    ("t", {"train", "tokenizer"}),
    ("train --model.num_l", {"--model.num_layers"}),
    ("train --config tiny --optimizer.pe", {"--optimizer.peak_lr"}),
    ("train --mesh.", {"--mesh.data", "--mesh.fsdp", "--mesh.tensor", "--mesh.sequence"}),
    ("generate --te", {"--temperature", "--tensor"}),
    ("generate --dtype ", {"stored", "float32", "bfloat16", "int8"}),
    ("convert --to ", {"orbax", "hf", "meta"}),
    ("eval --proto", {"--protocol"}),
    ("plan --co", {"--config", "--compile"}),
    ("tokenizer ", {"-h", "--help", "train", "report"}),
    ("tokenizer train --vo", {"--vocab_size"}),
])
def test_bash(script, typed, offered):
    words = ["llama-jax", *typed.split(" ")]
    done = subprocess.run(["bash", "-c", ASK, "bash", script, *words], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell, words", [("zsh", "#compdef llama-jax"), ("bash", "complete -F")])
def test_scripts_are_written_for(tmp_path, shell, words):
    with pytest.raises(SystemExit):
        main(["--tyro-write-completion", shell, str(tmp_path / "script")])
    text = (tmp_path / "script").read_text()
    assert words in text and "--model.num_layers" in text and "--vocab_size" in text
    [spec] = [line for line in text.splitlines() if line.startswith("COMPLETION_SPEC = ")]
    assert "\\n" not in spec  # a second line of a description would be a completion of its own
