"""Tests of the package llama_jax.clean."""
