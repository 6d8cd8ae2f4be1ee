"""The structure of the package: imports run down and never in a circle; files, functions, signatures and names keep in bounds."""

import ast
import re
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = [
    {"version", "lazy", "errors", "terminal", "interruption", "batch", "files", "ops"},
    {"config", "tokenizer"},
    {"parallel"},
    {"model", "data"},
    {"formats"},
    {"inference", "conversion"},
    {"scoring"},
    {"training", "serving"},
    {"evaluation", "plan"},
    {"report", "clean"},
    {"ablation"},
    {"cli"},
    {"__main__", "__init__"},
]
"""Packages and modules of llama_jax, the lowest first. A module may import its own package and those of lower layers."""

LOWEST = {"errors": 0, "version": 0, "lazy": 0, "terminal": 0, "interruption": 0, "files": 1, "ops": 1, "batch": 1}
"""The lowest layer's own order."""

REFUSED = {"utils", "common", "types", "helpers"}

FILES = sorted((ROOT / "llama_jax").rglob("*.py"))

POSITIONAL = {
    "Attention.__call__", "Block.__call__", "Transformer.__call__", "Transformer.hidden",  # arrays, as flax modules take them
    "make_train_step",  # (model, optimizer, config), as it was always called
    "save",  # (folder, model, params, tokenizer), the last three as `load` returns them
}
"""Functions whose third argument may be positional and that have no keyword-only ones."""

CALLED_BY_OTHERS = {"__exit__", "__call__", "update", "run", "_run_for_rank"}
"""Methods whose signature is another library's: context managers, ASGI, optax, datatrove."""

SHARED_NAMES = {"LOG", "KNOWS", "TASKS", "main", "recipe", "run"}
"""Top-level names that several modules have because they mean the same in each: a logger, the fields of a mask and bias that a
backend heeds, the tasks of a file, an entry point, how a kind of raw data is cleaned, the worker of a command."""


def package_of(file: Path) -> str:
    return file.relative_to(ROOT / "llama_jax").parts[0].removesuffix(".py")


def layer_of(name: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if name in packages)


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def imported_modules(file: Path) -> set[str]:
    """Modules of llama_jax that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the layer"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in whole}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name == "llama_jax" or name.startswith("llama_jax.")}


def imported_packages(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imported_modules(file) if "." in name}


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_imports_run_down(file):
    own = package_of(file)
    for other in imported_packages(file) - {own}:
        assert layer_of(other) <= layer_of(own), f"{own} imports {other}"
        if layer_of(other) == layer_of(own):
            assert layer_of(own) == 0 and LOWEST[other] < LOWEST[own], f"{own} and {other} share a layer"
    if own not in ("__init__", "__main__"):
        assert "llama_jax" not in imported_modules(file), "the package's front page imports this module"


def test_no_circles():
    edges = {name: imported_modules(file) - {name} for name, file in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name):], name])
        if name not in done:
            for other in sorted(edges.get(name, ())):
                visit(other, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_walls_that_matter_most():
    for file in FILES:
        if package_of(file) == "ops":
            assert imported_packages(file) <= {"ops", "errors"}, file
        if package_of(file) == "model":
            assert not imported_packages(file) & {"training", "data"}, file
        if package_of(file) == "training":
            assert "evaluation" not in imported_packages(file), file
    for file in sorted((ROOT / "configs").rglob("*.py")):
        assert imported_packages(file) <= {"config"}, file


@pytest.mark.parametrize("file", [*FILES, ROOT / "train.py", ROOT / "eval.py"], ids=named)
def test_sizes(file):
    text = file.read_text()
    assert text.count("\n") <= 300
    assert file.stem not in REFUSED
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it is for"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
            assert len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) <= 8, node.name  # 7 and self


def functions(tree: ast.AST, owner: str = ""):
    """(qualified name, node) of every function, those inside others too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (f"{owner}.{node.name}" if owner else node.name), node
            yield from functions(node)
        else:
            yield from functions(node, owner)


def rules_of_jax(tree: ast.AST) -> set[str]:
    """Functions with a custom derivative, and the rules given to `defvjp`: jax calls both with positions alone."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "defvjp":
            names |= {argument.id for argument in node.args if isinstance(argument, ast.Name)}
        if isinstance(node, ast.FunctionDef) and any("custom_vjp" in ast.unparse(mark) for mark in node.decorator_list):
            names.add(node.name)
    return names


@pytest.mark.parametrize("file", FILES, ids=named)
def test_more_than_two_arguments_are_named(file):
    tree = ast.parse(file.read_text())
    rules = rules_of_jax(tree)
    for name, node in functions(tree):
        positional = [argument.arg for argument in node.args.posonlyargs + node.args.args]
        positional = positional[1:] if positional[:1] in (["self"], ["cls"]) else positional
        if len(positional) > 2 and not (node.args.kwonlyargs or node.args.vararg):
            assert name in POSITIONAL or node.name in CALLED_BY_OTHERS | rules, f"{name}{tuple(positional)} lacks a *"


def test_public_names_mean_one_thing():
    where = defaultdict(set)
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            leaves = [leaf for target in targets if target is not None for leaf in ast.walk(target)]
            names = {leaf.id for leaf in leaves if isinstance(leaf, ast.Name)}
            names |= {node.name} if hasattr(node, "name") else set()
            for name in names:
                if not name.startswith("_"):
                    where[name].add(named(file))
    several = {name: sorted(files) for name, files in where.items() if len(files) > 1 and name not in SHARED_NAMES}
    assert not several, "\n".join(f"{name}: {', '.join(files)}" for name, files in sorted(several.items()))


FRONTS = [file for file in FILES if file.name == "__init__.py" and file.parent.name != "llama_jax"]


@pytest.mark.parametrize("file", FRONTS, ids=named)
def test_packages_say_what_they_offer(file):
    assert "__all__" in file.read_text()


@pytest.mark.parametrize("file", [file for file in FILES if file.name == "__init__.py"], ids=named)
def test_what_packages_offer_is_there(file):
    package = import_module(module_of(file))
    for name in getattr(package, "__all__", ()):
        assert getattr(package, name) is not None, name
    for block in ast.parse(file.read_text()).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":  # what type checkers are told is true
            told = {alias.name: node.module for node in block.body for alias in node.names}
            assert told == {name: f"{package.__name__}.{module}" for name, module in package._MODULES.items()}


def test_every_folder_is_a_package():
    assert {file.parent for file in FILES} == {file.parent for file in FILES if file.name == "__init__.py"}


def test_private_and_experimental_apis_are_listed():
    table = (ROOT / "docs" / "ARCHITECTURE.md").read_text().partition("## Private and experimental APIs")[2]
    for file in FILES:
        names = re.findall(r"(?:from|import) ((?:jax|flax|optax|orbax)\.(?:_src|experimental|extend|interpreters)(?:\.\w+)*)(.*)",
                           file.read_text())
        for module, rest in names:
            whole = f"{module}{rest}".replace(" import ", ".")
            listed = [row for row in table.splitlines() if f"`{file.relative_to(ROOT / 'llama_jax')!s}`" in row]
            assert any(whole.startswith(row.split("`")[1]) for row in listed), f"{file.name} imports {whole}"
