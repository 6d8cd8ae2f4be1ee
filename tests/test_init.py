"""What `import llama_jax` offers: names that programs rely on, seen alike by people, Python and type checkers."""

import ast
import inspect
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import llama_jax

ROOT = Path(__file__).parents[1]
RELIED_ON = {
    "Attention", "Block", "FeedForward", "LayerNorm", "Mask", "PRESETS", "RMSNorm", "Sampling", "Transformer", "attend",
    "convert", "generate", "learning_rate", "load", "loglikelihood", "make_optimizer", "make_train_step", "next_token_loss",
    "rolling_loglikelihood", "rope_tables", "rotate", "save",
}
"""Names that never go away."""


def test_what_the_package_offers_is_there():
    assert RELIED_ON <= set(llama_jax.__all__) <= set(dir(llama_jax))
    for name in llama_jax.__all__:
        assert getattr(llama_jax, name) is not None
    with pytest.raises(AttributeError, match="module 'llama_jax' has no attribute 'genrate'"):
        _ = llama_jax.genrate


@pytest.mark.parametrize("name", sorted(llama_jax._MODULES))
def test_every_name_says_what_it_is_and_of_which_types(name):
    """A docstring, and a type for every argument or field and for what comes back."""
    item = getattr(llama_jax, name)
    if not callable(item):
        return
    assert item.__doc__ and "." in item.__doc__.split("\n\n")[0], "it begins with a sentence"
    for call in (item, *([item.__call__] if "__call__" in vars(item) else [])):
        signature = inspect.signature(call)
        untyped = {parameter.name for parameter in signature.parameters.values() if parameter.annotation is parameter.empty}
        assert untyped <= {"self"}
        assert inspect.isclass(call) or signature.return_annotation is not signature.empty


def test_convert_is_a_function_whatever_is_imported():
    """The package that holds it has another name, because importing that would put a module in the function's place."""
    script = "import llama_jax.conversion.convert, llama_jax.cli.convert\nassert llama_jax.convert.__name__ == 'convert'"
    script += "\nassert callable(llama_jax.convert) and callable(llama_jax.convert) and 'convert' not in vars(llama_jax)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


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
