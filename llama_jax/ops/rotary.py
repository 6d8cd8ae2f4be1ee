"""Rotary position embedding: tables of cosines and sines, and the rotation of queries and keys by them (Su et al. 2021)."""

import math

import jax.numpy as jnp
from jax import Array

from llama_jax.errors import ConfigError

SCALING_KINDS = {
    "none": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_length"),
    "yarn": ("factor", "beta_fast", "beta_slow", "original_length"),
}
"""Kind of frequency scaling for long contexts -> the fields of `config.RopeScaling` that it needs."""


def rope_tables(
    positions_BT: Array, *, head_dim: int, theta: float, kind: str | None = None, **scaling: float
) -> tuple[Array, Array]:
    """Compute the rotary tables cos and sin of position * theta^(-2i/H), each float32 (B, T, H/2) (Su et al. 2021, 3.4.2).

    Positions of any other shape, such as (T,), give tables of that shape and H/2. `kind` "linear", "llama3" or "yarn" scales the
    frequencies as the fields of `config.RopeScaling` say, and yarn multiplies both tables by 0.1 ln(factor) + 1; fields that a
    named kind does not need are ignored. Raises ConfigError for an odd width, an unknown kind, and fields that are unknown,
    lacking, or given without a kind.
    """
    frequencies = _frequencies(head_dim, theta, kind=kind, scaling=scaling)
    angles = jnp.multiply.outer(jnp.asarray(positions_BT, jnp.float32), frequencies)
    return _cos_and_sin(angles, kind=kind, scaling=scaling)


def rope3d_tables(
    positions_BT: Array, *, head_dim: int, theta: float, chunk: int, kind: str | None = None, **scaling: float
) -> tuple[Array, Array]:
    """Compute the tables of 3D-RPE for `rotate`, each float32 (B, T, H/2) (Ma et al. 2024); see `rope_tables` for the scaling.

    Position p is token m = p mod chunk of chunk j = p // chunk. The paper maps a vector h to e^{i m theta_l} (cos(phi_j) i h +
    sin(phi_j) h) with phi_j = theta^(-j), which is a rotation by m theta_l - phi_j and a quarter turn, which all queries and keys
    have in common and which is left out. Within a chunk scores equal rope's.
    """
    frequencies = _frequencies(head_dim, theta, kind=kind, scaling=scaling)
    positions_BT = jnp.asarray(positions_BT)
    angles = jnp.multiply.outer((positions_BT % chunk).astype(jnp.float32), frequencies)
    of_chunk_BT = theta ** -(positions_BT // chunk).astype(jnp.float32)
    return _cos_and_sin(angles - of_chunk_BT[..., None], kind=kind, scaling=scaling)


def _cos_and_sin(angles: Array, *, kind: str | None, scaling: dict[str, float]) -> tuple[Array, Array]:
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if kind != "yarn":
        return cos, sin
    magnitude = yarn_magnitude(scaling["factor"])
    return magnitude * cos, magnitude * sin


def yarn_magnitude(factor: float, strength: float = 1.0) -> float:
    """What YaRN multiplies rotated queries and keys by, 0.1 * strength * ln(factor) + 1 (Peng et al. 2023, section 3.4)."""
    return 0.1 * strength * math.log(max(factor, 1.0)) + 1.0


def _frequencies(head_dim: int, theta: float, *, kind: str | None, scaling: dict[str, float]) -> Array:
    """The scaled frequencies, float32 (H/2,)."""
    _check_scaling(kind, scaling)
    if head_dim <= 0 or head_dim % 2 or not theta > 0:
        raise ConfigError(f"rotary tables want an even width of a head and a positive theta, got {head_dim} and {theta}.")
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    needed = {name: scaling[name] for name in SCALING_KINDS[kind or "none"]}
    if kind == "linear":
        frequencies /= scaling["factor"]
    elif kind == "llama3":
        frequencies = _llama3_frequencies(frequencies, **needed)
    elif kind == "yarn":
        frequencies = _yarn_frequencies(frequencies, theta=theta, **needed)
    return frequencies


def _check_scaling(kind: str | None, scaling: dict[str, float]) -> None:
    """Raise ConfigError where the fields of `scaling` are not those that a kind needs."""
    if kind is not None and kind not in SCALING_KINDS:
        raise ConfigError(f"unknown kind {kind!r} of rope scaling; known: {', '.join(SCALING_KINDS)}.")
    known = list(dict.fromkeys(name for names in SCALING_KINDS.values() for name in names))
    if unknown := sorted(set(scaling) - set(known)):
        raise ConfigError(f"rope scaling has no field {', '.join(unknown)}; its fields: {', '.join(known)}.")
    if scaling and kind is None:
        raise ConfigError(f"rope scaling by {', '.join(scaling)} wants a kind: {', '.join(SCALING_KINDS)}.")
    if lacking := [name for name in SCALING_KINDS[kind or "none"] if name not in scaling]:
        raise ConfigError(f"rope scaling of kind {kind} wants {', '.join(lacking)} too.")
    needed = {name: scaling[name] for name in SCALING_KINDS[kind or "none"]}
    ordered = (needed.get("low_freq_factor", 0) < needed.get("high_freq_factor", 1)
               and needed.get("beta_slow", 0) < needed.get("beta_fast", 1))
    if not ordered or not all(0 < value < math.inf for value in needed.values()):
        raise ConfigError("rope scaling wants positive numbers, a high_freq_factor above low_freq_factor and a beta_fast above "
                          "beta_slow, got " + ", ".join(f"{name}={value}" for name, value in needed.items()) + ".")


def _llama3_frequencies(
    frequencies: Array, *, factor: float, low_freq_factor: float, high_freq_factor: float, original_length: int
) -> Array:
    """Scale frequencies as Llama 3.1's released code does: low ones divided by `factor`, high ones kept, linear in between."""
    turns = original_length * frequencies / (2 * math.pi)
    kept = jnp.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return kept * frequencies + (1 - kept) * frequencies / factor


def _yarn_frequencies(
    frequencies: Array, *, theta: float, factor: float, beta_fast: float, beta_slow: float, original_length: int
) -> Array:
    """Scale frequencies as YaRN's released code does (Peng et al. 2023): high ones kept, low ones divided by `factor`.

    In between it is linear in the index of the pair, from the last that turns beta_fast times within original_length to the first
    that turns beta_slow times, both rounded outwards.
    """
    half = frequencies.shape[0]

    def index_of(turns: float) -> float:
        return half * math.log(original_length / (turns * 2 * math.pi)) / math.log(theta)

    low = max(math.floor(index_of(beta_fast)), 0)
    high = min(math.ceil(index_of(beta_slow)), 2 * half - 1)
    divided = jnp.clip((jnp.arange(half, dtype=jnp.float32) - low) / max(high - low, 1e-3), 0, 1)
    return (1 - divided) * frequencies + divided * frequencies / factor


def rotate(x_BTNH: Array, tables: tuple[Array, Array]) -> Array:
    """Rotate the pairs (x[i], x[i + H/2]) of every head by the tables' angles; computed in float32, returned in x's dtype.

    Tables are (B or 1, T, H/2), or (T, H/2) for all rows; other shapes raise ConfigError. An element is paired with the one H/2
    further on, as in Hugging Face checkpoints; Meta's pair neighbours (2i, 2i + 1), so conversion permutes their projections.
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
