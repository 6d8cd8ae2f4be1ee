"""Architectures by name: Table 2 of the paper, its successors, two small ones, and the path from the Transformer of 2017.

And parts of configs that several files of configs/ share.
"""

from dataclasses import replace
from typing import Any

from llama_jax.config.model import ComputeConfig, ModelConfig
from llama_jax.config.schema import CheckpointConfig, Config, DataConfig, OptimizerConfig, TrainingConfig


def _llama(dim: int, num_heads: int, *, num_layers: int, ffn_dim: int, norm_eps: float = 1e-5) -> ModelConfig:
    return ModelConfig(dim=dim, num_heads=num_heads, num_kv_heads=num_heads, num_layers=num_layers, ffn_dim=ffn_dim,
                       norm_eps=norm_eps)


def _llama2(dim: int, num_heads: int, *, num_kv_heads: int, num_layers: int, ffn_dim: int) -> ModelConfig:
    return ModelConfig(dim=dim, num_heads=num_heads, num_kv_heads=num_kv_heads, num_layers=num_layers,
                       ffn_dim=ffn_dim, max_length=4096)


def _llama3(dim: int, num_heads: int, *, num_layers: int, ffn_dim: int) -> ModelConfig:
    return ModelConfig(vocab_size=128_256, dim=dim, num_heads=num_heads, num_kv_heads=8, num_layers=num_layers,
                       ffn_dim=ffn_dim, max_length=8192, rope_theta=500_000.0)


VANILLA = ModelConfig(dim=512, num_layers=6, num_heads=8, num_kv_heads=8, ffn_dim=4 * 512, norm="layernorm", norm_position="post",
                      feedforward="relu", use_bias=True, position="sinusoidal")
"""The decoder of the base Transformer (Vaswani et al. 2017, table 3), with LLaMA's vocabulary and an output head of its own."""

STEPS_TO_LLAMA: tuple[tuple[str, dict[str, Any]], ...] = (
    ("prenorm", {"norm_position": "pre"}),
    ("rmsnorm", {"norm": "rmsnorm"}),
    ("swiglu", {"feedforward": "swiglu"}),
    ("rope", {"position": "rope"}),
    ("nobias", {"use_bias": False}),
)
"""What LLaMA changes in the Transformer of 2017, one choice after another (section 2.2): name, fields of `ModelConfig`."""


def path_to_llama(vanilla: ModelConfig = VANILLA) -> dict[str, ModelConfig]:
    """The architectures from a Transformer of 2017 to a LLaMA of its size, in order, each one step after the one before.

    Their names list the steps that were taken, "vanilla+prenorm+rmsnorm"; after the last it is "llama". SwiGLU has 2/3 of the
    feed-forward width, rounded up to a multiple of 8, so that it has as many weights (Shazeer 2020, section 2).
    """
    path, name = {"vanilla": vanilla}, "vanilla"
    for step, changes in STEPS_TO_LLAMA:
        if "feedforward" in changes:  # what `ops.feedforward.equal_width` gives, which a config cannot import: it needs jax
            changes = changes | {"ffn_dim": -(-vanilla.ffn_dim * 2 // (3 * 8)) * 8}
        before, name = path[name], f"{name}+{step}"
        path[name] = replace(before, **changes)
    path["llama"] = path.pop(name)
    return path


PRESETS: dict[str, ModelConfig] = {
    "llama-7b": _llama(4096, 32, num_layers=32, ffn_dim=11_008, norm_eps=1e-6),
    "llama-13b": _llama(5120, 40, num_layers=40, ffn_dim=13_824),
    "llama-33b": _llama(6656, 52, num_layers=60, ffn_dim=17_920),
    "llama-65b": _llama(8192, 64, num_layers=80, ffn_dim=22_016),
    "llama2-7b": _llama2(4096, 32, num_kv_heads=32, num_layers=32, ffn_dim=11_008),
    "llama2-13b": _llama2(5120, 40, num_kv_heads=40, num_layers=40, ffn_dim=13_824),
    "llama2-70b": _llama2(8192, 64, num_kv_heads=8, num_layers=80, ffn_dim=28_672),
    "llama3-8b": _llama3(4096, 32, num_layers=32, ffn_dim=14_336),
    "llama3-70b": _llama3(8192, 64, num_layers=80, ffn_dim=28_672),
    "tinyllama-1b": ModelConfig(dim=2048, num_heads=32, num_kv_heads=4, num_layers=22, ffn_dim=5632),
    "tiny": ModelConfig(vocab_size=1024, dim=128, num_heads=2, num_kv_heads=2, num_layers=4, ffn_dim=384, max_length=128),
    **path_to_llama(),
}
"""Preset name -> architecture; `Transformer(PRESETS[name])` computes it in bfloat16 (`ComputeConfig`)."""


def paper_optimizer(peak_lr: float) -> OptimizerConfig:
    """The paper's optimizer: AdamW with a cosine schedule (section 2.3) and a model size's peak learning rate (Table 2)."""
    return OptimizerConfig(peak_lr=peak_lr, warmup_steps=2000, final_lr_ratio=0.1, beta1=0.9, beta2=0.95,
                           weight_decay=0.1, clip_norm=1.0)


def paper_sources(root: str = "data") -> tuple[str, ...]:
    """The paper's seven data sources with their shares of training tokens (Table 1), as prepared folders below `root`."""
    shares = {"commoncrawl": 0.67, "c4": 0.15, "github": 0.045, "wikipedia": 0.045, "books": 0.045, "arxiv": 0.025,
              "stackexchange": 0.02}
    return tuple(f"{root}/{name}={share}" for name, share in shares.items())


def study_base(model: ModelConfig = PRESETS["tiny"]) -> Config:
    """The run that the studies of configs/ablations/ vary: `model` on Tiny Shakespeare, 200 steps of 16 x 128 tokens.

    That is about one epoch. It is the config `tiny`, shorter, with every step in metrics.jsonl and no samples.
    """
    return Config(
        model=model,
        compute=ComputeConfig(dtype="float32", scan_layers=False),
        optimizer=OptimizerConfig(peak_lr=4e-3, warmup_steps=20),
        data=DataConfig(sources=("embedded:tinyshakespeare",), heldout_fraction=0.1, sequence_length=128),
        training=TrainingConfig(num_steps=200, batch_size=16, log_every=1, heldout_every=50, sample_tokens=0),
        checkpoint=CheckpointConfig(every=100, keep=1),
    )
