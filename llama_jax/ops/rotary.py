"""Where a token stands: rotary tables and the rotation of queries and keys."""

import math

import jax.numpy as jnp
from jax import Array

from llama_jax.errors import ConfigError

STRETCHES = {
    "none": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_length"),
}
"""Kinds of stretched frequencies, and which fields of `config.RopeScaling` each needs."""


def rope_tables(
    positions_BT: Array, *, head_dim: int, theta: float, kind: str | None = None, **stretch: float
) -> tuple[Array, Array]:
    """cos and sin of position * theta^(-2i/H), each float32 (B, T, H/2) (Su et al. 2021, section 3.4.2).

    Positions of any other shape, such as (T,), give tables of that shape and H/2. `kind` "linear" or "llama3" stretches the
    frequencies as the fields of `config.RopeScaling` say; fields that a named kind does not need are not looked at. Raises
    ConfigError for an odd width, an unknown kind, and fields that are unknown, lacking, or given without a kind.
    """
    check_stretch(kind, stretch)
    if head_dim <= 0 or head_dim % 2 or not theta > 0:
        raise ConfigError(f"rotary tables want an even width of a head and a positive theta, got {head_dim} and {theta}.")
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if kind == "linear":
        frequencies /= stretch["factor"]
    elif kind == "llama3":
        frequencies = llama3_frequencies(frequencies, **stretch)
    angles = jnp.multiply.outer(jnp.asarray(positions_BT, jnp.float32), frequencies)
    return jnp.cos(angles), jnp.sin(angles)


def check_stretch(kind: str | None, stretch: dict[str, float]) -> None:
    """Raise ConfigError where `stretch` is not what a kind of stretched frequencies needs."""
    if kind is not None and kind not in STRETCHES:
        raise ConfigError(f"unknown kind {kind!r} of rope scaling; known: {', '.join(STRETCHES)}.")
    known = STRETCHES["llama3"]
    if unknown := sorted(set(stretch) - set(known)):
        raise ConfigError(f"rope scaling has no field {', '.join(unknown)}; its fields: {', '.join(known)}.")
    if stretch and kind is None:
        raise ConfigError(f"rope scaling by {', '.join(stretch)} wants a kind: {', '.join(STRETCHES)}.")
    if lacking := [name for name in STRETCHES[kind or "none"] if name not in stretch]:
        raise ConfigError(f"rope scaling of kind {kind} wants {', '.join(lacking)} too.")
    needed = {name: stretch[name] for name in STRETCHES[kind or "none"]}
    if not all(0 < value < math.inf for value in needed.values()) \
            or not needed.get("low_freq_factor", 0) < needed.get("high_freq_factor", 1):
        raise ConfigError("rope scaling wants positive numbers, and a high_freq_factor above low_freq_factor, got "
                          + ", ".join(f"{name}={value}" for name, value in needed.items()) + ".")


def llama3_frequencies(
    frequencies: Array, *, factor: float, low_freq_factor: float, high_freq_factor: float, original_length: int
) -> Array:
    """Slow pairs divided by `factor`, fast ones kept, and a straight line between them (Llama 3.1's released code)."""
    turns = original_length * frequencies / (2 * math.pi)
    kept = jnp.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return kept * frequencies + (1 - kept) * frequencies / factor


def rotate(x_BTNH: Array, tables: tuple[Array, Array]) -> Array:
    """Turn the pairs (x[i], x[i + H/2]) of every head by the tables' angles; computed in float32, returned as x's dtype.

    Tables are (B or 1, T, H/2), or (T, H/2) for all rows alike; others raise ConfigError. Halves, not neighbours, form the
    pairs: the layout of the Hugging Face checkpoints. Conversion permutes Meta's.
    """
    wanted = (*x_BTNH.shape[:-2], x_BTNH.shape[-1] / 2)
    padded = [(1,) * (len(wanted) - table.ndim) + table.shape for table in tables]
    if any(shape[-2:] != wanted[-2:] or len(shape) != len(wanted)
           or any(size not in (1, full) for size, full in zip(shape, wanted, strict=True)) for shape in padded):
        raise ConfigError(f"rotary tables {' and '.join(str(table.shape) for table in tables)} do not fit x {x_BTNH.shape}: they "
                          "want its tokens and half the width of its heads, (B or 1, T, H/2) or (T, H/2).")
    cos, sin = (table.reshape(*shape[:-1], 1, shape[-1]) for table, shape in zip(tables, padded, strict=True))
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)
