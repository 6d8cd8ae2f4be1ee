"""What attention is asked for: everything that decides whether a backend can serve."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import jax
from jax.typing import DTypeLike

from llama_jax.errors import ConfigError


class Description:
    """Base of `Mask` and `Bias`: dataclasses of arrays, in which a field that is None says nothing.

    What any other field says must be known to the code that reads it; `only` refuses the rest. Fields are named
    "mask.segment_ids_BT", "bias.slopes_N" and the like wherever they are spoken of from outside.
    """

    LABEL: ClassVar[str]

    @property
    def used(self) -> frozenset[str]:
        """Names of the fields that say something."""
        fields = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
        return frozenset(f"{self.LABEL}.{name}" for name in fields)

    def only(self, known: frozenset[str], reader: str) -> None:
        """Raise ConfigError where a field that is not among the `known` ones says something that `reader` would ignore."""
        if unknown := self.used - known:
            raise ConfigError(f"{reader} knows no {words_for(unknown, type(self))}; attention under such a {self.LABEL} goes "
                              "through `attend`, with a backend that knows it, or auto.")


def words_for(names: frozenset[str], *classes: type[Description]) -> str:
    """What fields of these classes mean, each with its name, for error messages."""
    meanings = {f"{cls.LABEL}.{field.name}": field.metadata.get("words") for cls in classes for field in dataclasses.fields(cls)}
    return " and ".join(f"{meanings[name]} ({name})" if meanings.get(name) else name for name in sorted(names))


@dataclass(frozen=True)
class AttentionSpec:
    """Self-attention of rows of one length on one kind of device."""

    device: jax.Device
    """A device it runs on, or is compiled for: it need not be present."""
    length: int
    """Tokens T per row."""
    head_dim: int
    """Width H of a head."""
    dtype: DTypeLike
    """Dtype of queries, keys and values."""
    described: frozenset[str] = frozenset()
    """Names of the fields of `Mask` and `Bias` that say something: a backend serves where it knows them all."""
    sliced: bool = False
    """Each device has a slice of a row's queries, and all of its keys."""

    @property
    def hardware(self) -> str:
        """The kind of device, for log lines and errors."""
        return self.device.device_kind


def described_by_training(separate_documents: bool) -> frozenset[str]:
    """The fields of `Mask` that training rows use."""
    return frozenset({"mask.segment_ids_BT"} if separate_documents else ())
