"""Attention with relative vectors and with ALiBi as their papers write it, in float64 numpy: a vector for every pair of tokens.

Slow and large on purpose, and with nothing of the package in it: what the backends are compared with.
"""

from typing import NamedTuple

import numpy as np


class Gradients(NamedTuple):
    """Gradients of sum(output * d_out) for queries, keys, values and the vectors (0 .. clip, H) on keys and on values."""

    q_BTNH: np.ndarray
    k_BSKH: np.ndarray
    v_BSKH: np.ndarray
    keys_RH: np.ndarray
    values_RH: np.ndarray


def offsets_of(positions_S: np.ndarray, queries: range, *, clip: int) -> np.ndarray:
    """clip(j - i) to [-clip, clip] for every pair of a query i and a key j, by their positions; plus clip, as an index (T, S)."""
    offsets_TS = np.zeros((len(queries), len(positions_S)), int)
    for row, i in enumerate(queries):
        for j in range(len(positions_S)):
            offsets_TS[row, j] = clip + max(-clip, min(clip, int(positions_S[j]) - int(positions_S[i])))
    return offsets_TS


def both_sides(vectors_RH: np.ndarray) -> np.ndarray:
    """The paper's table w_-k .. w_k from the vectors for distances 0 .. k; nothing reads those of later keys, NaN."""
    later = np.full_like(vectors_RH[1:], np.nan, dtype=np.float64)
    return np.concatenate([np.float64(vectors_RH[::-1]), later])


def relative_attention(
    q_BTNH, k_BSKH, v_BSKH, *, keys_RH, values_RH, positions_BS, documents_BS, d_out, first: int = 0
) -> tuple[np.ndarray, Gradients]:
    """Outputs and gradients of Shaw et al. 2018, equations 3 and 4, with clip k = R - 1, causal and within documents.

    e_ij = q_i (k_j + a^K_ij)^T / sqrt(H), alpha = softmax(e), z_i = sum_j alpha_ij (v_j + a^V_ij), a_ij = w_clip(j - i). Query
    head n has kv head n // (N / K). `first` is the index of the first query in the row.
    """
    q, k, v, g = (np.float64(x) for x in (q_BTNH, k_BSKH, v_BSKH, d_out))
    (B, T, N, H), group, clip = q.shape, q.shape[2] // k.shape[2], len(keys_RH) - 1
    out, d = np.zeros_like(q), Gradients(*(np.zeros(np.shape(x)) for x in (q, k, v, both_sides(keys_RH), both_sides(values_RH))))
    for b in range(B):
        index_TS = offsets_of(positions_BS[b], range(first, first + T), clip=clip)
        a_keys_TSH, a_values_TSH = both_sides(keys_RH)[index_TS], both_sides(values_RH)[index_TS]
        for t, n in np.ndindex(T, N):
            i, kv = first + t, n // group
            seen = [j for j in range(i + 1) if documents_BS[b][j] == documents_BS[b][i]]
            keys, values = k[b, seen, kv] + a_keys_TSH[t, seen], v[b, seen, kv] + a_values_TSH[t, seen]
            e = keys @ q[b, t, n] / H**0.5
            alpha = np.exp(e - e.max()) / np.exp(e - e.max()).sum()
            out[b, t, n] = alpha @ values
            d_alpha = values @ g[b, t, n]
            d_e = alpha * (d_alpha - alpha @ d_alpha) / H**0.5
            d.q_BTNH[b, t, n] = d_e @ keys
            d_keys, d_values = np.outer(d_e, q[b, t, n]), np.outer(alpha, g[b, t, n])
            d.k_BSKH[b, seen, kv] += d_keys
            d.v_BSKH[b, seen, kv] += d_values
            np.add.at(d.keys_RH, index_TS[t, seen], d_keys)
            np.add.at(d.values_RH, index_TS[t, seen], d_values)
    return out, d._replace(keys_RH=d.keys_RH[clip::-1], values_RH=d.values_RH[clip::-1])


def alibi_attention(q_BTNH, k_BSKH, v_BSKH, *, slopes_N, positions_BS, documents_BS) -> np.ndarray:
    """softmax(q_i k_j^T / sqrt(H) - m_n (i - j)) v, causal and within documents (Press et al. 2022, section 3)."""
    q, k, v = (np.float64(x) for x in (q_BTNH, k_BSKH, v_BSKH))
    (B, T, N, H), group, out = q.shape, q.shape[2] // k.shape[2], np.zeros_like(q)
    for b, i, n in np.ndindex(B, T, N):
        seen = [j for j in range(i + 1) if documents_BS[b][j] == documents_BS[b][i]]
        lowered = [slopes_N[n] * (positions_BS[b][i] - positions_BS[b][j]) for j in seen]
        e = k[b, seen, n // group] @ q[b, i, n] / H**0.5 - lowered
        alpha = np.exp(e - e.max())
        out[b, i, n] = alpha / alpha.sum() @ v[b, seen, n // group]
    return out
