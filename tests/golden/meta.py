"""Meta's published model, written again in numpy float64 from its maths: interleaved rotary pairs as complex numbers.

It reads its own files by the rules of the released code (which layer is split where), without our conversion.
"""

import json
from pathlib import Path

import numpy as np

from llama_jax.formats.torchfile import TorchFile

COLUMNS = ("wq", "wk", "wv", "w1", "w3", "output")
"""Layers whose outputs model-parallel ranks share."""
ROWS = ("wo", "w2")
"""Layers whose inputs they share."""


def load(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """(params.json, float64 tensors of all ranks)."""
    params = json.loads((folder / "params.json").read_text())
    ranks = [TorchFile(path) for path in sorted(folder.glob("consolidated.*.pth"))]
    weights = {}
    for name in ranks[0].shapes():
        parts = [rank.read(name).astype(np.float64) for rank in ranks]
        layer = name.split(".")[-2]
        if layer in COLUMNS:
            weights[name] = np.concatenate(parts, 0)
        elif layer in ROWS:
            weights[name] = np.concatenate(parts, 1)
        elif layer == "tok_embeddings":
            weights[name] = np.concatenate(parts, 1 if sum(part.shape[1] for part in parts) == params["dim"] else 0)
        else:
            weights[name] = parts[0]
    for rank in ranks:
        rank.close()
    return params, weights


def frequencies(params: dict) -> np.ndarray:
    """theta^(-2i/H); for Llama 3.1 with its long waves stretched eight times, case by case."""
    width = params["dim"] // params["n_heads"]
    values = params.get("rope_theta", 10_000.0) ** (-np.arange(0, width, 2)[: width // 2] / width)
    if not params.get("use_scaled_rope"):
        return values
    stretched = []
    for value in values:
        wave = 2 * np.pi / value
        if wave < 8192 / 4:
            stretched.append(value)
        elif wave > 8192 / 1:
            stretched.append(value / 8)
        else:
            smooth = (8192 / wave - 1) / (4 - 1)
            stretched.append((1 - smooth) * value / 8 + smooth * value)
    return np.array(stretched)


def logits(params: dict, weights: dict[str, np.ndarray], tokens_BT: np.ndarray) -> np.ndarray:
    """float64 (B, T, V)."""
    heads, kv_heads = params["n_heads"], params.get("n_kv_heads") or params["n_heads"]
    B, T = tokens_BT.shape
    turns_TF = np.exp(1j * np.outer(np.arange(T), frequencies(params)))

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + params["norm_eps"]) * weights[name]

    def rotated(x_BTNH):
        pairs = x_BTNH.reshape(*x_BTNH.shape[:-1], -1, 2)
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * turns_TF[None, :, None, :]
        return np.stack([turned.real, turned.imag], -1).reshape(x_BTNH.shape)

    x = weights["tok_embeddings.weight"][tokens_BT]
    for layer in range(params["n_layers"]):
        at = f"layers.{layer}."
        h = norm(x, at + "attention_norm.weight")
        q, k, v = ((h @ weights[f"{at}attention.{name}.weight"].T).reshape(B, T, count, -1)
                   for name, count in (("wq", heads), ("wk", kv_heads), ("wv", kv_heads)))
        q, k = rotated(q), rotated(k)
        k, v = (np.repeat(some, heads // kv_heads, 2) for some in (k, v))
        scores = np.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(q.shape[-1])
        scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
        weights_BNTS = np.exp(scores - scores.max(-1, keepdims=True))
        weights_BNTS /= weights_BNTS.sum(-1, keepdims=True)
        mixed = np.einsum("bnts,bsnh->btnh", weights_BNTS, v).reshape(B, T, -1)
        x = x + mixed @ weights[at + "attention.wo.weight"].T
        h = norm(x, at + "ffn_norm.weight")
        gate, up = (h @ weights[f"{at}feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[at + "feed_forward.w2.weight"].T
    return norm(x, "norm.weight") @ weights["output.weight"].T
