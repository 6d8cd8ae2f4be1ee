"""Imports only run down the floors of docs/ARCHITECTURE.md; rooms, files and functions keep their size."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = [
    {"version", "errors", "fields", "config", "batch", "ops", "allocator", "runtime"},
    {"presets", "accounting", "sharding", "data"},
    {"model", "checkpoint"},
    {"convert"},
    {"inference"},
    {"training"},
    {"evaluation", "plan"},
    {"__main__", "__init__"},
]
"""Packages and modules of llama_jax, the ground first. A module may import its own room and lower floors."""

REFUSED = {"utils", "common", "types", "helpers"}

FILES = sorted((ROOT / "llama_jax").rglob("*.py"))


def room(file: Path) -> str:
    return file.relative_to(ROOT / "llama_jax").parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def imported_rooms(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules |= {f"{node.module}.{alias.name}" if node.module == "llama_jax" else node.module for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        assert not (isinstance(node, ast.ImportFrom) and node.level), "relative imports hide the floor"
    return {module.split(".")[1] for module in modules if module.startswith("llama_jax.")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_down(file):
    own = room(file)
    for other in imported_rooms(file) - {own}:
        assert floor(other) <= floor(own), f"{own} imports {other}"
        assert floor(other) < floor(own) or floor(own) <= 1, f"{own} and {other} share a floor"


def test_walls_that_matter_most():
    for file in FILES:
        if room(file) == "ops":
            assert imported_rooms(file) <= {"ops", "errors"}, file
        if room(file) == "model":
            assert not imported_rooms(file) & {"training", "data"}, file
        if room(file) == "training":
            assert "evaluation" not in imported_rooms(file), file
    for file in sorted((ROOT / "configs").rglob("*.py")):
        assert imported_rooms(file) <= {"config", "presets"}, file


@pytest.mark.parametrize("file", [*FILES, ROOT / "train.py", ROOT / "eval.py"], ids=lambda file: str(file.relative_to(ROOT)))
def test_sizes(file):
    text = file.read_text()
    assert text.count("\n") <= 300
    assert file.stem not in REFUSED
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it is for"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
            assert len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) <= 8, node.name  # 7 and self


def test_private_and_experimental_apis_are_listed():
    table = (ROOT / "docs" / "ARCHITECTURE.md").read_text().partition("## Private and experimental APIs")[2]
    for file in FILES:
        names = re.findall(r"(?:from|import) ((?:jax|flax|optax|orbax)\.(?:_src|experimental|extend|interpreters)(?:\.\w+)*)(.*)",
                           file.read_text())
        for module, rest in names:
            whole = f"{module}{rest}".replace(" import ", ".")
            listed = [row for row in table.splitlines() if f"`{file.relative_to(ROOT / 'llama_jax')!s}`" in row]
            assert any(whole.startswith(row.split("`")[1]) for row in listed), f"{file.name} imports {whole}"
