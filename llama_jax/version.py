"""The version, alone so that setup.cfg can read it without importing jax."""

VERSION = "0.1.0"
