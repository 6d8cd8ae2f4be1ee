"""The environment that a launcher starts a process in."""

import os

import pytest


@pytest.fixture
def environment(monkeypatch):
    """The environment without anything that a launcher or a user may have set."""
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("JAX_", "SLURM_", "OMPI_", "XLA_", "LIBTPU_"))}
    monkeypatch.setattr(os, "environ", clean)
    return clean
