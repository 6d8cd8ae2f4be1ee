"""Yarn live against transformers' ROPE_INIT_FUNCTIONS; skipped where torch or transformers is absent."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.ops.rotary import rope_tables
from tests.golden import make_yarn

pytestmark = pytest.mark.peers
pytest.importorskip("torch")
pytest.importorskip("transformers")

GRID = [dict(zip(("head_dim", "theta", "original_length", "factor", "beta_fast", "beta_slow"), values, strict=True))
        for values in itertools.product((8, 64, 128), (100.0, 10_000.0, 500_000.0, 1e6), (64, 2048, 8192), (1.0, 2.5, 40.0),
                                        (32.0, 3.0), (1.0, 2.0))]


def test_frequencies_and_magnitudes():
    for case in GRID:
        theirs = make_yarn.yarn(case)
        cos, sin = (np.float64(table) for table in rope_tables(jnp.int32(1), kind="yarn", **case))
        np.testing.assert_allclose(np.arctan2(sin, cos), theirs["frequencies"], rtol=2e-6, err_msg=str(case))
        np.testing.assert_allclose(np.hypot(cos, sin), theirs["magnitude"], rtol=1e-6, err_msg=str(case))


@pytest.mark.parametrize("name", make_yarn.CASES)
def test_golden_values_are_what_the_script_makes_today(name):
    golden, today = json.loads(make_yarn.FILE.read_text())[name], make_yarn.yarn(make_yarn.CASES[name])
    np.testing.assert_allclose(golden["frequencies"], today["frequencies"], rtol=1e-6)
    assert golden["magnitude"] == pytest.approx(today["magnitude"], rel=1e-12)
