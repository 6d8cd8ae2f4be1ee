"""What a type checker sees of the package's public names."""

import subprocess
import sys
from pathlib import Path

import pytest

import llama_jax

pytestmark = pytest.mark.peers

FILE = Path(__file__).parent / "public_names.py"
PYRIGHT = Path(sys.executable).parent / "pyright"


def test_every_public_name_is_used():
    used = FILE.read_text()
    assert [name for name in llama_jax.__all__ if name not in used] == []


@pytest.mark.skipif(not PYRIGHT.exists(), reason="needs pyright (pyright[nodejs] where there is no node)")
def test_pyright_knows_them():
    words = [PYRIGHT, "--pythonpath", sys.executable, FILE]
    done = subprocess.run(words, cwd=FILE.parents[2], capture_output=True, text=True)
    assert done.returncode == 0 and "0 errors" in done.stdout, done.stdout + done.stderr
