"""Which format a folder of weights has, and that importing the formats is light."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llama_jax import formats
from llama_jax.conversion.convert import convert_weights
from llama_jax.errors import DataError
from llama_jax.formats.open import open_source
from llama_jax.formats.safetensors_files import WEIGHTS_FILE
from tests.formats.memory import MemorySource, config_of

ROOT = Path(__file__).parents[2]


def test_the_package_offers_what_it_names():
    assert sorted(formats.__all__) == sorted(formats._MODULES) and all(getattr(formats, name) for name in formats.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        formats.nothing  # noqa: B018


def test_importing_the_package_needs_no_jax():
    code = "import sys; import llama_jax.formats; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_folder_without_anything(tmp_path):
    with pytest.raises(DataError, match=r"no checkpoint at .*expected a run directory .* a Hugging Face folder .* a Meta folder"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        open_source(tmp_path / "nowhere")


def test_a_run_into_which_other_weights_were_copied(tmp_path, folders, tokenizer):
    """Its steps can still be named; what is called checkpoints/<number> elsewhere is no step."""
    convert_weights(MemorySource(config_of(tied_embeddings=True), tokenizer), tmp_path / "tied", "hf")
    run = shutil.copytree(folders["orbax"], tmp_path / "run")
    shutil.copy(tmp_path / "tied" / WEIGHTS_FILE, run)
    with pytest.raises(DataError, match="holds weights twice, as a run directory and as a Hugging Face folder; move"):
        open_source(run)
    assert open_source(run / "checkpoints/0").format == "run directory"
    assert open_source(shutil.copytree(tmp_path / "tied", tmp_path / "checkpoints/100")).format == "Hugging Face folder"
