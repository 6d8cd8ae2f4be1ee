"""What `import llama_jax` offers: names that programs rely on, seen alike by people, Python and type checkers."""

import ast
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import llama_jax

ROOT = Path(__file__).parents[1]
RELIED_ON = {
    "Attention", "Block", "FeedForward", "Mask", "PRESETS", "RMSNorm", "Sampling", "Transformer", "attend", "generate",
    "learning_rate", "load", "loglikelihood", "make_optimizer", "make_train_step", "next_token_loss", "rolling_loglikelihood",
    "rope_tables", "rotate",
}
"""Names that never go away."""


def test_what_the_package_offers_is_there():
    assert RELIED_ON <= set(llama_jax.__all__) <= set(dir(llama_jax))
    for name in llama_jax.__all__:
        assert getattr(llama_jax, name) is not None
    with pytest.raises(AttributeError, match="module 'llama_jax' has no attribute 'genrate'"):
        _ = llama_jax.genrate


def test_type_checkers_see_what_python_finds():
    """The imports that only type checkers read name the modules that are imported when a name is first asked for."""
    tree = ast.parse((ROOT / "llama_jax/__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.name: node.module.removeprefix("llama_jax.") for node in block.body for alias in node.names}
    assert seen == llama_jax._MODULES
    assert set(llama_jax.__all__) == {*seen, "PRESETS", "__version__"}
    assert (resources.files("llama_jax") / "py.typed").is_file()


def test_importing_it_imports_no_jax():
    script = "import sys, llama_jax\nassert llama_jax.PRESETS['tiny'] and dir(llama_jax) and 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
