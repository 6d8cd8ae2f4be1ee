"""Meta's params.json, read into a ModelConfig and written from one."""

import math
from pathlib import Path
from typing import Any

from llama_jax.config import ModelConfig, RopeScaling
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.base import check_reads_back
from llama_jax.formats.json_fields import JsonFields, model_config_from

_KNOWN_KEYS = {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "norm_eps",
               "rope_theta", "use_scaled_rope", "rope_scaling_factor", "rope_high_freq_factor", "max_seq_len", "max_batch_size"}

_RELEASED_MULTIPLES = ((256, None), (1024, 1.3), (4096, 1.3), (256, 1.5), (1024, 1.0), (1024, 1.4), (32, None))
"""(multiple_of, ffn_dim_multiplier) of released models, which are tried before others."""

_MAX_MULTIPLIER = 1000
_FACTOR, _HIGH_FREQ_FACTOR = 8.0, 4.0
"""What use_scaled_rope means where rope_scaling_factor and rope_high_freq_factor are absent."""


def config_from_meta(
    values: dict[str, Any], file: Path, *, vocab_size: int, ffn_dim: int, tied: bool
) -> ModelConfig:
    """The ModelConfig of a params.json; vocab_size, ffn_dim and tied are what only the tensors tell.

    Where max_seq_len is absent, as in every release, the context is guessed: 2,048 tokens (LLaMA 1), 8,192 for rope_theta
    500,000 (Llama 3), 131,072 for use_scaled_rope (Llama 3.1). Raises DataError where the file describes something else than
    a LLaMA, or contradicts the tensors.
    """
    if unknown := values.keys() - _KNOWN_KEYS:
        raise DataError(f"{file}: {', '.join(sorted(unknown))} asks for something that this model does not have.")
    fields = JsonFields(values, file)
    dim, heads = fields.get("dim", int), fields.get("n_heads", int)
    theta = fields.get("rope_theta", float, default=10_000.0)
    if fields.get("use_scaled_rope", bool, default=False):
        scaling = RopeScaling("llama3", factor=fields.get("rope_scaling_factor", float, default=_FACTOR),
                              high_freq_factor=fields.get("rope_high_freq_factor", float, default=_HIGH_FREQ_FACTOR))
        length = 131_072
    else:
        scaling = RopeScaling()
        length = 8192 if theta == 500_000.0 else 2048
    if min(dim, heads) < 1:
        raise DataError(f"{file}: dim and n_heads must be positive, got {dim} and {heads}.")
    config = model_config_from(
        file,
        vocab_size=vocab_size,
        dim=dim,
        num_layers=fields.get("n_layers", int),
        num_heads=heads,
        num_kv_heads=fields.get("n_kv_heads", int, default=heads),
        ffn_dim=ffn_dim,
        rope_theta=theta,
        rope_scaling=scaling,
        max_length=fields.get("max_seq_len", int, default=length),
        norm_eps=fields.get("norm_eps", float, default=1e-5),
        tied_embeddings=tied,
    )
    _check_against_tensors(fields, config)
    return config


def _check_against_tensors(fields: JsonFields, config: ModelConfig) -> None:
    """Raise DataError where the file gives another vocabulary or feed-forward width than the tensors have."""
    told = fields.get("vocab_size", int, default=-1)
    if told not in (-1, config.vocab_size):
        raise DataError(f"{fields.file}: vocab_size is {told}, and the embedding has {config.vocab_size} rows.")
    multiple = fields.get("multiple_of", int, default=256)
    multiplier = fields.get("ffn_dim_multiplier", float, default=None)
    possible = multiple > 0 and (multiplier is None or 0 < multiplier < _MAX_MULTIPLIER)
    if not possible or meta_ffn_dim(config.dim, multiple, multiplier=multiplier) != config.ffn_dim:
        raise DataError(f"{fields.file}: multiple_of and ffn_dim_multiplier do not give the feed-forward width {config.ffn_dim} "
                        "of the tensors.")


def meta_ffn_dim(dim: int, multiple_of: int, *, multiplier: float | None) -> int:
    """The feed-forward width that Meta's code computes: 2/3 of 4 dim, times the multiplier, rounded up to a multiple."""
    width = int(2 * 4 * dim / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    return multiple_of * math.ceil(width / multiple_of)


def config_to_meta(config: ModelConfig) -> dict[str, Any]:
    """The values of params.json; raises ConfigError for a model that Meta's format cannot describe."""
    c, scaling = config, config.rope_scaling
    if c.head_size * c.num_heads != c.dim:
        raise ConfigError(f"Meta's format has heads of width dim / num_heads = {c.dim / c.num_heads:g}, and this model's are "
                          f"{c.head_size} wide (model.head_dim); convert to hf or orbax.")
    released = RopeScaling("llama3")  # params.json has no keys for two of its numbers
    expressible = scaling.kind == "none" or (
        scaling.kind == "llama3"
        and scaling.low_freq_factor == released.low_freq_factor
        and scaling.original_length == released.original_length
    )
    if not expressible:
        raise ConfigError(f"Meta's format cannot express this rope scaling (model.rope_scaling = {scaling}); convert to hf or "
                          "orbax.")
    values = {"dim": c.dim, "n_layers": c.num_layers, "n_heads": c.num_heads, "n_kv_heads": c.num_kv_heads,
              "vocab_size": c.vocab_size, "norm_eps": c.norm_eps, "rope_theta": c.rope_theta}
    # a pair that always gives ffn_dim, for widths of no released model
    own = (math.gcd(c.ffn_dim, 256), (c.ffn_dim + 0.5) / int(2 * 4 * c.dim / 3))
    for multiple_of, multiplier in (*_RELEASED_MULTIPLES, own):
        if meta_ffn_dim(c.dim, multiple_of, multiplier=multiplier) == c.ffn_dim:
            break
    values["multiple_of"] = multiple_of
    if multiplier is not None:
        values["ffn_dim_multiplier"] = multiplier
    if scaling.kind == "llama3":
        values["use_scaled_rope"] = True
        if scaling.factor != _FACTOR:
            values["rope_scaling_factor"] = scaling.factor
        if scaling.high_freq_factor != _HIGH_FREQ_FACTOR:
            values["rope_high_freq_factor"] = scaling.high_freq_factor
    read_back = config_from_meta(values, Path("params.json"), vocab_size=c.vocab_size, ffn_dim=c.ffn_dim, tied=c.tied_embeddings)
    check_reads_back(config, read_back, format="params.json of Meta")
    return values
