"""Reads llama2.c's checkpoint of stories260K by its own description of the format, without our conversion."""

from pathlib import Path

import numpy as np

from llama_jax.config import ModelConfig


def halves(matrix_LIO: np.ndarray, heads: int) -> np.ndarray:
    """(L, out, in) whose rows rotate as neighbours (2i, 2i + 1) -> (L, in, heads, width) that rotate as halves."""
    L, O, I = matrix_LIO.shape
    pairs = matrix_LIO.reshape(L, heads, O // heads // 2, 2, I)
    return pairs.transpose(0, 4, 1, 3, 2).reshape(L, I, heads, O // heads)


def load_llama2c(file: Path) -> tuple[ModelConfig, dict]:
    """A llama2.c version-0 file: seven int32, then float32 matrices as [out, in]."""
    data = file.read_bytes()
    dim, ffn, layers, heads, kv_heads, vocab, length = np.frombuffer(data, "<i4", 7).tolist()
    values, at = np.frombuffer(data, "<f4", offset=28), 0

    def take(*shape: int) -> np.ndarray:
        nonlocal at
        at += int(np.prod(shape))
        return values[at - int(np.prod(shape)) : at].reshape(shape)

    L, D, kv = layers, dim, dim // heads * kv_heads
    embedding, attention_norm = take(vocab, D), take(L, D)
    wq, wk, wv, wo = take(L, D, D), take(L, kv, D), take(L, kv, D), take(L, D, D)
    feedforward_norm = take(L, D)
    w_gate, w_down, w_up, final_norm = take(L, ffn, D), take(L, D, ffn), take(L, ffn, D), take(D)
    config = ModelConfig(vocab_size=vocab, dim=dim, num_layers=layers, num_heads=heads, num_kv_heads=kv_heads,
                         ffn_dim=ffn, max_length=length, tied_embeddings=True)
    H = config.head_size
    return config, {
        "embedding": embedding,
        "layers": {
            "attention_norm": {"scale": attention_norm},
            "attention": {"wq": halves(wq, heads), "wk": halves(wk, kv_heads),
                          "wv": wv.transpose(0, 2, 1).reshape(L, D, kv_heads, H),
                          "wo": wo.transpose(0, 2, 1).reshape(L, heads, H, D)},
            "feedforward_norm": {"scale": feedforward_norm},
            "feedforward": {"w_gate": w_gate.transpose(0, 2, 1), "w_up": w_up.transpose(0, 2, 1),
                            "w_down": w_down.transpose(0, 2, 1)},
        },
        "final_norm": {"scale": final_norm},
    }
