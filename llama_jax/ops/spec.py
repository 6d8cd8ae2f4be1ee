"""What attention is asked for: all that decides whether a backend can serve."""

from dataclasses import dataclass

import jax
from jax.typing import DTypeLike


@dataclass(frozen=True)
class Problem:
    """Self-attention of rows of one length on one kind of device."""

    device: jax.Device
    """A device it runs on, or is compiled for: it need not be here."""
    length: int
    """Tokens T a row."""
    head_dim: int
    """Width H of a head."""
    dtype: DTypeLike
    """Of queries, keys and values."""
    mask: frozenset[str] = frozenset()
    """Names of the fields of `Mask` that say something: a backend serves where it knows them all."""
    sliced: bool = False
    """A device has a slice of a row's queries against all of its keys."""

    @property
    def hardware(self) -> str:
        """The device for people."""
        return self.device.device_kind


def mask_of(separate_documents: bool) -> frozenset[str]:
    """The fields of `Mask` that training rows use."""
    return frozenset({"segment_ids_BT"} if separate_documents else ())
