"""Description of an attention call (device, shapes, mask, bias), by which a backend is chosen or refused."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import jax
from jax.typing import DTypeLike

from llama_jax.errors import ConfigError


class Description:
    """Base class of `Mask` and `Bias`: dataclasses whose fields are arrays, or None where unused.

    Code that reads one calls `only` to refuse fields that it does not support, so that none is ignored silently. Other modules
    name fields as "mask.segment_ids_BT" or "bias.slopes_N".
    """

    LABEL: ClassVar[str]

    @property
    def used(self) -> frozenset[str]:
        """Full names of the fields that are set, such as "mask.segment_ids_BT"."""
        fields = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
        return frozenset(f"{self.LABEL}.{name}" for name in fields)

    def only(self, known: frozenset[str], reader: str) -> None:
        """Raise ConfigError where a field outside `known` is set; `reader` names the code that would ignore it."""
        if unknown := self.used - known:
            raise ConfigError(f"{reader} knows no {words_for(unknown, type(self))}; attention under such a {self.LABEL} goes "
                              "through `attend`, with a backend that knows it, or auto.")


def words_for(names: frozenset[str], *classes: type[Description]) -> str:
    """Describe the named fields of these classes in words, for error messages."""
    meanings = {f"{cls.LABEL}.{field.name}": field.metadata.get("words") for cls in classes for field in dataclasses.fields(cls)}
    return " and ".join(f"{meanings[name]} ({name})" if meanings.get(name) else name for name in sorted(names))


@dataclass(frozen=True)
class AttentionSpec:
    """The properties of an attention call that decide which backends can compute it."""

    device: jax.Device
    """A device that it runs on, or is compiled for; it need not be present."""
    length: int
    """Tokens T per row."""
    head_dim: int
    """Width H of a head."""
    dtype: DTypeLike
    """Dtype of queries, keys and values."""
    described: frozenset[str] = frozenset()
    """Names of the fields of `Mask` and `Bias` that are set, all of which a backend has to support."""
    sliced: bool = False
    """Whether each device holds only a slice of a row's queries, and all of its keys."""

    @property
    def hardware(self) -> str:
        """Name of the device kind, such as "NVIDIA H100 80GB HBM3", for log lines and errors."""
        return self.device.device_kind


def described_by_training(separate_documents: bool) -> frozenset[str]:
    """The fields of `Mask` that are set in training: document ids where documents are kept apart."""
    return frozenset({"mask.segment_ids_BT"} if separate_documents else ())
