"""Config files: Python files that define `get_config()` or `get_study()`, and JSON files, also those of earlier versions."""

import importlib.util
import re
import traceback
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from llama_jax.config.fields import from_dict
from llama_jax.config.schema import Config
from llama_jax.config.study import Study
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.json_object import read_json_object

MOVED_FIELDS = {
    "model.dtype": "compute.dtype",
    "model.attention": "compute.attention",
    "model.remat": "compute.remat",
    "model.scan_layers": "compute.scan_layers",
    "training.loss_chunk": "compute.loss_chunk",
}
"""Old name of a field -> its current name. Old names are accepted in JSON, which an earlier version may have written; on the
command line and in Python they are errors that give the new name."""


_COMMAND_OF = {"get_config": "train", "get_study": "ablate"}
"""Function that a Python config file defines -> the command that reads it."""


def config_from_dict(values: Any) -> Config:
    """Make a Config from the JSON values that this or an earlier version wrote; raises ConfigError for anything else."""
    if isinstance(values, dict):
        values = {section: dict(fields) if isinstance(fields, dict) else fields for section, fields in values.items()}
        for old, new in MOVED_FIELDS.items():
            _move_field(values, old, new=new)
    return from_dict(Config, values)


def _move_field(values: dict[str, Any], old: str, *, new: str) -> None:
    """Move a field from its old to its new dotted name, where it stands under the old one."""
    (old_section, old_name), (section, name) = old.split("."), new.split(".")
    fields, target = values.get(old_section), values.setdefault(section, {})
    if not isinstance(fields, dict) or old_name not in fields or not isinstance(target, dict):
        return
    if name in target:
        raise ConfigError(f"{old} and {new} are the same field; remove {old}, its name in earlier versions.")
    target[name] = fields.pop(old_name)


def moved_hint(name: str) -> str:
    """Say where a renamed field is now, for error messages; empty if it was never renamed.

    `name` is the old name, dotted or its last part alone.
    """
    new = next((new for old, new in MOVED_FIELDS.items() if name in (old, old.rpartition(".")[2])), "")
    return f"it stands under {new.partition('.')[0]} now: {new}" if new else ""


def load_config(path: Path) -> Config:
    """Read a Config from a .py file that defines `get_config()`, or from a .json file; a run without a name gets the file's."""
    return _load_file(path, "get_config", cls=Config)


def load_study(path: Path) -> Study:
    """Read a Study from a .py file that defines `get_study()`, or from a .json file; one without a name gets the file's."""
    return _load_file(path, "get_study", cls=Study)


def _load_file(path: Path, function: str, *, cls: type) -> Any:
    """The instance of `cls` that a .py file's `function` returns, or that a .json file describes."""
    if not path.is_file():
        raise ConfigError(f"no config file {path}.")
    if path.suffix not in (".py", ".json"):
        raise ConfigError(f"--config wants a .py or .json file, got {path}.")
    try:
        loaded = _from_json(path, cls) if path.suffix == ".json" else _run_config_file(path, function, cls=cls)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except DataError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from None
    return loaded if loaded.name else replace(loaded, name=path.stem)


def _from_json(path: Path, cls: type) -> Any:
    values = read_json_object(path)
    return config_from_dict(values) if cls is Config else from_dict(cls, values)


def _run_config_file(path: Path, function: str, *, cls: type) -> Any:
    """Run a Python config file and return its `function()`; raises ConfigError with the line for whatever goes wrong in it."""
    spec = importlib.util.spec_from_file_location("llama_jax_config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        loaded = getattr(module, function)() if hasattr(module, function) else None
    except ConfigError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 0
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        hint = moved_hint(unknown[1]) if unknown else ""
        raise ConfigError(f"line {line} raises {type(error).__name__}: {error}{'; ' * bool(hint)}{hint}") from None
    if not isinstance(loaded, cls):
        other = next((command for other, command in _COMMAND_OF.items() if other != function and hasattr(module, other)), "")
        hint = f" (`llama-jax {other}` takes this file)" if other else ""
        raise ConfigError(f"it should define {function}() that returns a llama_jax.config.{cls.__name__}{hint}.")
    return loaded


def field_names(cls: type, prefix: str = "") -> list[str]:
    """List the dotted names of all fields of a config class, those of nested configs included."""
    names = []
    for field in fields(cls):
        inner = field.default_factory
        names += field_names(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else [prefix + field.name]
    return names
