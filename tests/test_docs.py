"""What the pages say of the code is there: packages, layers, files, names in files, fields of a config."""

import ast
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import llama_jax
from llama_jax.cli.options import ConvertOptions
from llama_jax.config import ModelConfig
from llama_jax.config.file import field_names
from llama_jax.config.presets import path_to_llama
from llama_jax.config.schema import Config
from llama_jax.model.positions import described_by_position
from llama_jax.ops.attention import BACKENDS
from tests.test_floors import LAYERS, MODULES

ROOT = Path(__file__).parents[1]
PAGES = [file for file in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]) if file.name != "CHANGELOG.md"]
ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
PACKAGES = {file.parent.name for file in (ROOT / "llama_jax").glob("*/__init__.py")}


def section(title: str) -> str:
    return ARCHITECTURE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def file_of(path: str) -> Path:
    """The file or folder that a page means: below the checkout, or below the package."""
    return ROOT / "llama_jax" / path if path.partition("/")[0] in PACKAGES else ROOT / path


def top_level_names(file: Path) -> set[str]:
    names = set()
    for node in ast.parse(file.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)} | {getattr(node, "name", "")}
    return names


def test_the_architecture_page_names_every_package():
    assert set(re.findall(r"^    (\w+)/ ", section("Packages"), re.M)) == PACKAGES


def test_the_architecture_page_has_the_layers_that_are_tested():
    layers = [set(re.findall(r"`(\w+)`", line)) for line in re.findall(r"^\d+\. (.*)", section("Layers"), re.M)]
    assert layers == LAYERS


def test_the_page_on_scale_has_every_attention_backend():
    table = (ROOT / "docs" / "SCALE.md").read_text().partition("## Attention backends\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` ", table, re.M)) == {*BACKENDS}


def test_the_page_on_weights_has_every_format():
    table = (ROOT / "docs" / "CONVERT.md").read_text().partition("\n## ")[0]
    assert set(re.findall(r"^\| [\w ]+ \(`(\w+)`\) ", table, re.M)) == {*get_args(get_type_hints(ConvertOptions)["to"])}


MODULES_PAGE = (ROOT / "docs" / "MODULES.md").read_text()


def test_the_page_on_modules_has_every_public_name():
    table = MODULES_PAGE.partition("## What there is\n")[2].partition("\n## ")[0]
    names = {name for row in re.findall(r"^\| ([^|]*) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert {*llama_jax.__all__} - {"__version__"} <= names


@pytest.mark.parametrize("field", ["norm", "norm_position", "feedforward", "position"])
def test_the_page_on_modules_has_every_choice(field):
    rows = MODULES_PAGE.partition(f"\n| `{field}` |")[2].partition("\n\n")[0].splitlines()[2:]
    choices = [row.split("`")[1] for row in rows]
    assert choices == list(get_args(get_type_hints(ModelConfig)[field]))
    if field == "position":
        for choice, row in zip(choices, rows, strict=True):
            described = described_by_position(ModelConfig(position=choice))
            able = [name for name, backend in BACKENDS.items() if described <= backend.knows]
            assert row.endswith("| all |" if len(able) == len(BACKENDS) else f"| {', '.join(f'`{name}`' for name in able)} |")


def test_the_page_on_modules_has_the_path_to_llama():
    table = MODULES_PAGE.partition("\n| preset |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(.*?)` \|", table, re.M) == list(path_to_llama())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page):
    folders = "|".join(sorted({*PACKAGES, "llama_jax", "tests", "benchmarks", "examples", "docs", "configs", r"\.ci"}))
    for path in re.findall(rf"(?<![\w/.])((?:{folders})/[\w./-]*\w\.(?:py|md))\b", page.read_text()):
        assert file_of(path).is_file(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_that_a_page_puts_in_a_file_are_in_it(page):
    pairs = re.findall(r"`(\w+)(?:\([^`]*\))?`\s+\(?(?:in|of)?\s*`([\w/]+\.py)`", page.read_text())
    for name, path in pairs:
        assert name in top_level_names(file_of(path)), f"{name} in {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_fields_that_a_page_names_are_there(page):
    text = page.read_text()
    for module in re.findall(r"(?<![\w.])(llama_jax(?:\.[a-z_]+)+)(?![\w(/])", text):
        parent, _, name = module.rpartition(".")
        assert module in MODULES or name in MODULES[parent].read_text(), module
    known = {f"--{name}" for name in field_names(Config)}
    sections = {name.partition(".")[0] for name in known if "." in name}
    for option in re.findall(r"--[a-z_]+\.[a-z_]+(?!\.)\b", text):
        assert option.partition(".")[0] not in sections or option in known, option
