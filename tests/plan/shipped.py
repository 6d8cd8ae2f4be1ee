"""What tests of plans share: the configs that come with the project, and a mesh of one device."""

from pathlib import Path

from llama_jax.config import Config, load_config
from llama_jax.parallel.rules import AXES

ROOT = Path(__file__).parents[2]

ONE = dict.fromkeys(AXES, 1)
"""Mesh axes and their sizes on one device."""


def shipped_config(name: str) -> Config:
    """configs/NAME.py"""
    return load_config(ROOT / f"configs/{name}.py")
