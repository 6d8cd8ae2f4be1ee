"""Position encodings against their papers' equations in float64 numpy, to 1e-6.

Angles are float32, as in every implementation: each is off by a few times 2^-24 of itself, and so are its sine and cosine.
Comparisons to 1e-6 therefore have angles of a few radians; where angles are large the tolerance is said to grow with them.
"""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import RopeScaling
from llama_jax.errors import ConfigError
from llama_jax.model.positions import Rotary, Rotary3D, Sinusoidal
from llama_jax.ops.bias import alibi_slopes
from llama_jax.ops.rotary import rope3d_tables, rope_tables, rotate
from llama_jax.ops.sinusoidal import sinusoids
from tests.golden import make_yarn

H, HALF = 16, 8
ROUNDING = 2**-21
"""Bound of the relative error of an angle: of theta^(-2i/H) by float32's power, and of its product with the position."""


def unit_vectors(seed: int, count: int) -> np.ndarray:
    """Vectors (count, H) of length 1 that float32 holds."""
    x = np.random.default_rng(seed).standard_normal((count, H))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def as_complex(x: np.ndarray) -> np.ndarray:
    """Element l of the first half is the real part, that of the second half the imaginary part."""
    return np.float64(x[..., :HALF]) + 1j * np.float64(x[..., HALF:])


def frequencies(theta: float, width: int = H) -> np.ndarray:
    return theta ** (-2.0 * np.arange(width // 2) / width)


def scores_of(tables, q_H: np.ndarray, k_H: np.ndarray) -> np.ndarray:
    """Products (T, T) of one query and one key that stand at every position of the tables."""
    T = tables[0].shape[0]
    q, k = (np.asarray(rotate(jnp.broadcast_to(x, (1, T, 1, H)), tables), np.float64)[0, :, 0] for x in (q_H, k_H))
    return q @ k.T


def check(found, wanted, atol=1e-6):
    assert np.all(np.abs(np.asarray(found, np.float64) - wanted) <= atol), np.abs(found - wanted).max()


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 7.0])
def test_rope_scores_depend_on_the_distance_alone(theta):
    """Re(<q e^{i m theta}, k e^{i n theta}>) = Re(sum_l q_l conj(k_l) e^{i (m - n) theta_l}) (Su et al. 2021, 3.4.2)."""
    T = 14
    for q, k in zip(unit_vectors(0, 4), unit_vectors(1, 4), strict=True):
        scores = scores_of(rope_tables(jnp.arange(T), head_dim=H, theta=theta), q, k)
        distances = np.subtract.outer(np.arange(T), np.arange(T))
        pairs = as_complex(q) * as_complex(k).conj()
        check(scores, (pairs * np.exp(1j * distances[..., None] * frequencies(theta))).sum(-1).real)
        for distance in range(-T + 1, T):
            assert np.ptp(np.diagonal(scores, -distance)) < 1e-6, "the same wherever the pair stands"
        assert np.unique(np.round(scores[:, 0], 5)).size == T, "and another for every distance"


def test_the_bound_of_rope_scores_decays_with_distance():
    """The mean over j of |sum of the first j e^{i (m - n) theta_l}|, by which scores are bounded (Su et al. 2021, 3.4.3)."""
    cos, sin = (np.float64(table) for table in rope_tables(jnp.arange(4096), head_dim=128, theta=10_000.0))
    bound = np.abs(np.cumsum(cos + 1j * sin, axis=-1)).mean(-1)
    for end, size in ((256, 32), (3072, 512)):
        assert np.all(np.diff(bound[:end].reshape(-1, size).mean(-1)) < 0)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_tables_at_large_positions_are_off_by_the_rounding_of_the_angle_alone(theta):
    positions = np.array([0, 1, 5, 511, 8191, 131_071])
    angles = np.multiply.outer(positions, frequencies(theta, 128))
    for table, exact in zip(rope_tables(positions, head_dim=128, theta=theta), (np.cos, np.sin), strict=True):
        check(table, exact(angles), 1e-6 + ROUNDING * angles)


def rope3d_64(h: np.ndarray, position: int, *, theta: float, chunk: int) -> np.ndarray:
    """f(h, m, j) = e^{i m theta} (cos(phi_j) h_perp + sin(phi_j) h) as complex numbers (H/2,), as 3D-RPE defines it.

    Position p is token m = p mod chunk of chunk j = p // chunk, h_perp = [-h2, h1] by halves, phi_j = theta^-j (Ma et al. 2024).
    """
    j, m = divmod(position, chunk)
    phi = theta ** -float(j)
    h = np.float64(h)
    h_perp = np.concatenate([-h[HALF:], h[:HALF]])
    return np.exp(1j * m * frequencies(theta)) * as_complex(np.cos(phi) * h_perp + np.sin(phi) * h)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 2.0])
@pytest.mark.parametrize("chunk", [1, 5, 7, 100])
def test_rope3d_scores_are_those_of_its_definition(theta, chunk):
    T = 23
    for q, k in zip(unit_vectors(0, 3), unit_vectors(1, 3), strict=True):
        f_q, f_k = (np.stack([rope3d_64(x, p, theta=theta, chunk=chunk) for p in range(T)]) for x in (q, k))
        wanted = (f_q @ f_k.conj().T).real
        tables = rope3d_tables(jnp.arange(T), head_dim=H, theta=theta, chunk=chunk)
        check(scores_of(tables, q, k), wanted, 2e-6 if chunk == 100 else 1e-6)  # angles of up to 22 radians
        encoding = Rotary3D(theta, RopeScaling(), chunk)
        np.testing.assert_array_equal(encoding.tables(jnp.arange(T), head_dim=H), tables)


@pytest.mark.parametrize("theta", [10_000.0, 2.0])
@pytest.mark.parametrize("chunk", [5, 12])
def test_rope3d_is_rope_within_a_chunk(theta, chunk):
    T = 23
    q, k = unit_vectors(2, 2)
    scores = scores_of(rope3d_tables(jnp.arange(T), head_dim=H, theta=theta, chunk=chunk), q, k)
    rope = scores_of(rope_tables(jnp.arange(T), head_dim=H, theta=theta), q, k)
    same = np.equal.outer(np.arange(T) // chunk, np.arange(T) // chunk)
    check(scores[same], rope[same])
    assert np.abs(scores - rope)[~same].min() > 1e-4 and np.abs(scores - rope)[~same].max() > 0.1


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_rope3d_is_scaled_as_rope_is(kind):
    """With linear interpolation, as its authors stretch chunks; and in a single chunk it is rope's, but for phi_0 = 1."""
    scaling = RopeScaling(kind, 4.0, original_length=32)
    plain, other = Rotary(50.0, scaling), Rotary3D(50.0, scaling, 100)
    (cos, sin), (cos3d, sin3d) = (encoding.tables(jnp.arange(9), head_dim=H) for encoding in (plain, other))
    turned = (np.float64(cos3d) + 1j * np.float64(sin3d)) * np.exp(1j)
    check(turned.real, cos)
    check(turned.imag, sin)


def sinusoids_64(position: int, dim: int) -> np.ndarray:
    """PE(pos, 2i) = sin(pos / 10000^(2i / D)), PE(pos, 2i + 1) = cos of the same (Vaswani et al. 2017, 3.5)."""
    encoded = np.empty(dim)
    for i in range(dim // 2):
        angle = position / 10_000 ** (2 * i / dim)
        encoded[2 * i], encoded[2 * i + 1] = math.sin(angle), math.cos(angle)
    return encoded


@pytest.mark.parametrize("dim", [2, 16, 512])
def test_sinusoids_are_their_equation(dim):
    found = np.asarray(sinusoids(jnp.arange(9), dim))
    assert found.dtype == np.float32
    check(found, np.stack([sinusoids_64(p, dim) for p in range(9)]))
    far = np.array([[100, 511], [2047, 8191]])
    wanted = np.stack([[sinusoids_64(p, dim) for p in row] for row in far])
    angles = np.multiply.outer(far, np.repeat(frequencies(10_000.0, dim), 2))
    check(sinusoids(far, dim), wanted, 1e-6 + ROUNDING * angles)


def test_sinusoids_are_added_to_scaled_embeddings():
    x = np.random.default_rng(0).standard_normal((2, 5, 64)).astype(np.float32) / 8
    positions = np.array([[0, 1, 2, 0, 1], [4, 3, 2, 1, 0]])
    wanted = np.float64(x) * 64**0.5 + np.stack([[sinusoids_64(p, 64) for p in row] for row in positions])
    check(Sinusoidal().on_embedding(jnp.asarray(x), jnp.asarray(positions)), wanted)


@pytest.mark.parametrize("dim", [0, 7])
def test_sinusoids_of_an_odd_width_are_refused(dim):
    with pytest.raises(ConfigError, match=f"sinusoids want an even width, a sine and a cosine for each frequency, got {dim}"):
        sinusoids(jnp.arange(3), dim)


def alibi_slopes_64(heads: int) -> list[float]:
    """A geometric sequence from 2^(-8/n) with that ratio for n heads, a power of two.

    For any other n: those of the next power of two p below it, and then the first, third, ... of 2p (Press et al. 2022, 3, and
    footnote).
    """
    if heads & (heads - 1) == 0:
        return [2 ** (-8 / heads * h) for h in range(1, heads + 1)]
    below = 1 << (heads.bit_length() - 1)
    return alibi_slopes_64(below) + alibi_slopes_64(2 * below)[::2][: heads - below]


def test_slopes_of_alibi_are_the_papers():
    for heads in (*range(1, 18), 20, 24, 32, 40, 52, 63, 64, 71, 112, 128):
        np.testing.assert_allclose(alibi_slopes(heads), alibi_slopes_64(heads), rtol=1e-6)
    np.testing.assert_allclose(alibi_slopes(8), [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256])  # section 3
    np.testing.assert_allclose(alibi_slopes(6), [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])


@pytest.mark.parametrize("name", make_yarn.CASES)
def test_yarn_is_that_of_transformers(name):
    """At position 1 a table's angle is its frequency; its length is what yarn multiplies both tables by."""
    golden = json.loads(make_yarn.FILE.read_text())[name]
    case = make_yarn.BETAS | make_yarn.CASES[name]
    cos, sin = (np.float64(table) for table in rope_tables(jnp.int32(1), kind="yarn", **case))
    np.testing.assert_allclose(np.arctan2(sin, cos), golden["frequencies"], rtol=2e-6)  # both round: 1e-6 each
    np.testing.assert_allclose(np.hypot(cos, sin), golden["magnitude"], rtol=1e-6)


@pytest.mark.parametrize("name", make_yarn.CASES)
def test_yarn_is_its_equation(name):
    """The ramp of Peng et al. 2023, section 3.2, over the index of the pair, as the released code rounds its ends."""
    c = make_yarn.BETAS | make_yarn.CASES[name]

    def turning(times: float) -> float:
        """The index of the pair that turns this often within the original length."""
        return c["head_dim"] / 2 * np.log(c["original_length"] / (2 * np.pi * times)) / np.log(c["theta"])

    first, last = max(np.floor(turning(c["beta_fast"])), 0), min(np.ceil(turning(c["beta_slow"])), c["head_dim"] - 1)
    interpolated = np.clip((np.arange(c["head_dim"] // 2) - first) / (last - first), 0, 1)
    plain = frequencies(c["theta"], c["head_dim"])
    wanted = (1 - interpolated) * plain + interpolated * plain / c["factor"]
    positions, magnitude = np.arange(4), 1 + 0.1 * np.log(c["factor"])
    cos, sin = rope_tables(positions, kind="yarn", **c)
    check(cos, magnitude * np.cos(np.multiply.outer(positions, wanted)))
    check(sin, magnitude * np.sin(np.multiply.outer(positions, wanted)))
