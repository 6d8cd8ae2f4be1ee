"""Durations as people write them."""

import pytest

from llama_jax.config.duration import parse_duration
from llama_jax.errors import ConfigError


@pytest.mark.parametrize("text, seconds", [("3h50m", 13_800), ("90s", 90), ("1d12h", 129_600), ("0.5h", 1800),
                                           ("1d2h3m4s", 93_784)])
def test_seconds(text, seconds):
    assert parse_duration(text, where="stop_after") == seconds


@pytest.mark.parametrize("text", ["", "3", "h", "50m3h", "3h50", "-1h", "0s", "1e9h", "3 h", "3h 50m", "9999999d", "٣h", "nan"])
def test_other_texts(text):
    with pytest.raises(ConfigError, match="stop_after must be a duration such as 3h50m, 90s or 1d12h, got"):
        parse_duration(text, where="stop_after")
