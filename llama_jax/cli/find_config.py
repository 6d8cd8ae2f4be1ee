"""Configs by name: those that come with the package, and any .py or .json file."""

import ast
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from llama_jax.errors import ConfigError, nearest

_STUDIES = "ablations/"
"""Folder of the packaged studies, which `ablate` takes."""


def packaged_configs() -> dict[str, Path]:
    """The file of every config that comes with the package, by its name: "tiny", "7b", or "FOLDER/NAME"."""
    folder = Path(str(resources.files("llama_jax") / "configs"))
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.py")}
    return dict(sorted(files.items()))


def find_config(text: str) -> Path:
    """The file that --config means: a path that exists, else a packaged config ("tiny", also as "configs/tiny.py")."""
    return _find(text, [name for name in packaged_configs() if not name.startswith(_STUDIES)], prefix="")


def find_study(text: str) -> Path:
    """The file that `ablate --config` means: a path that exists, else a packaged study ("norm", also as "ablations/norm")."""
    studies = [name.removeprefix(_STUDIES) for name in packaged_configs() if name.startswith(_STUDIES)]
    return _find(text, studies, prefix=_STUDIES)


def _find(text: str, names: list[str], *, prefix: str) -> Path:
    """The file `text`, or the packaged config of that name, with or without the prefix; errors list `names`."""
    path, packaged = Path(text), packaged_configs()
    if path.is_file():
        return path
    name = text.removeprefix("configs/").removesuffix(".py")
    for candidate in (prefix + name, name):
        if candidate in packaged:
            return packaged[candidate]
    raise ConfigError(f"there is no config file {text}, and no packaged config of that name{nearest_and_all(name, names)}")


def nearest_and_all(word: str, known: Iterable[str]) -> str:
    """End of a sentence about an unknown `word`: the nearest known words where there are any, and all of them."""
    listed = f"; known: {', '.join(known)}."
    guess = nearest(word, known)
    return guess.removesuffix("?") + listed if guess.startswith("; did you mean") else listed


def list_of_configs() -> str:
    """One line per packaged config that `train` takes: its name, and the first line of its docstring."""
    known = {name: file for name, file in packaged_configs().items() if not name.startswith(_STUDIES)}
    width = max(map(len, known), default=0)
    lines = []
    for name, file in known.items():
        about = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:{width}}  {about.partition(chr(10))[0]}".rstrip())
    return "\n".join(lines)
