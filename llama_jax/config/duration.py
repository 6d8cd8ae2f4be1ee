"""Durations as people write them: 3h50m."""

import re

from llama_jax.config.fields import require

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?=[0-9])" + "".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit})?" for unit in _SECONDS))


def parse_duration(text: str, *, where: str) -> float:
    """Seconds of a duration such as 3h50m, 90s or 1d12h; raises ConfigError, which begins with `where`, for other texts."""
    match = _DURATION.fullmatch(text)
    numbers = match.groups(default="0") if match else ()
    seconds = sum(float(number) * unit for number, unit in zip(numbers, _SECONDS.values(), strict=False))
    require(0 < seconds < 1e9, f"{where} must be a duration such as 3h50m, 90s or 1d12h, got {text!r}.")
    return seconds
