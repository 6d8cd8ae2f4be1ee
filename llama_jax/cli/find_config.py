"""Configs by name: those that come with the package, and any .py or .json file."""

import ast
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from llama_jax.errors import ConfigError, nearest


def packaged_configs() -> dict[str, Path]:
    """The file of every config that comes with the package, by its name: "tiny", "7b", or "FOLDER/NAME"."""
    folder = Path(str(resources.files("llama_jax") / "configs"))
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.py")}
    return dict(sorted(files.items()))


def find_config(text: str) -> Path:
    """The file that --config means: a path that exists, else a packaged config ("tiny", also as "configs/tiny.py")."""
    path = Path(text)
    if path.is_file():
        return path
    known = packaged_configs()
    name = text.removeprefix("configs/").removesuffix(".py")
    if name in known:
        return known[name]
    raise ConfigError(f"there is no config file {text}, and no packaged config of that name{nearest_and_all(name, known)}")


def nearest_and_all(word: str, known: Iterable[str]) -> str:
    """End of a sentence about an unknown `word`: the nearest known words where there are any, and all of them."""
    listed = f"; known: {', '.join(known)}."
    guess = nearest(word, known)
    return guess.removesuffix("?") + listed if guess.startswith("; did you mean") else listed


def list_of_configs() -> str:
    """One line per packaged config: its name, and the first line of its docstring."""
    known = packaged_configs()
    width = max(map(len, known), default=0)
    lines = []
    for name, file in known.items():
        about = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:{width}}  {about.partition(chr(10))[0]}".rstrip())
    return "\n".join(lines)
