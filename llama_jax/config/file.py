"""Config files: Python with a `get_config()`, or JSON."""

import importlib.util
import json
import traceback
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from llama_jax.config.fields import from_dict
from llama_jax.config.schema import Config
from llama_jax.errors import ConfigError


def load_config(path: Path) -> Config:
    """The Config that `get_config()` of a .py file returns, or that a .json file holds; named after the file."""
    if not path.is_file():
        raise ConfigError(f"no config file {path}.")
    if path.suffix not in (".py", ".json"):
        raise ConfigError(f"--config wants a .py or .json file, got {path}.")
    try:
        config = from_dict(Config, json.loads(path.read_bytes())) if path.suffix == ".json" else run_config(path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from None
    return config if config.name else replace(config, name=path.stem)


def run_config(path: Path) -> Config:
    """What `get_config()` of a Python file returns; whatever goes wrong in it becomes one sentence."""
    spec = importlib.util.spec_from_file_location("llama_jax_config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config() if hasattr(module, "get_config") else None
    except ConfigError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 0
        raise ConfigError(f"line {line} raises {type(error).__name__}: {error}") from None
    if not isinstance(config, Config):
        raise ConfigError("it should define get_config() that returns a llama_jax.config.Config.")
    return config


def field_names(cls: type, prefix: str = "") -> list[str]:
    """Dotted names of all fields below a config class."""
    names = []
    for field in fields(cls):
        inner = field.default_factory
        names += field_names(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else [prefix + field.name]
    return names
