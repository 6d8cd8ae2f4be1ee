"""What a query may see, as a description; materialised only where a backend needs it."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax

from llama_jax.errors import ConfigError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """Causal attention, optionally within segments, and along the branches of trees.

    A field that is None says nothing; what any other field says must be known to the code that reads the mask (`only`).
    """

    segment_ids_BT: Array | None = dataclasses.field(default=None, metadata={"words": "documents that do not see each other"})
    """int32 document of each token, any numbers: equal ones see each other. None where a row is one document."""
    ends_BT: Array | None = dataclasses.field(default=None, metadata={"words": "tree masks"})
    """int32 index of the row at which the tree below each token ends, laid out depth first: tokens from there on do not
    see it. None where nothing branches."""

    @property
    def used(self) -> frozenset[str]:
        """Names of the fields that say something."""
        return frozenset(field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None)

    def only(self, known: frozenset[str], reader: str) -> None:
        """Raise ConfigError where a field that is not among the `known` ones says something that `reader` would ignore."""
        if unknown := self.used - known:
            raise ConfigError(f"{reader} knows no {self.words(unknown)}; attention under such a mask goes through `attend`, "
                              "with a backend that knows it, or auto.")

    @classmethod
    def words(cls, names: frozenset[str]) -> str:
        """Fields for people, each with its name."""
        words = {field.name: field.metadata.get("words") for field in dataclasses.fields(cls)}
        return " and ".join(f"{words[name]} (mask.{name})" if words.get(name) else f"mask.{name}" for name in sorted(names))

    def materialize(self, length: int, first: Array | int = 0, count: int | None = None) -> Array:
        """bool (B or 1, T, S) of what may be seen, for S = length and the `count` queries from `first` (default: all)."""
        index = jnp.arange(length)
        if count is None:
            return self.block(index, index, self, self)
        return self.block(first + jnp.arange(count), index, self.tile(first, count), self)

    def tile(self, start: Array | int, size: int) -> "Mask":
        """The description of tokens start .. start + size - 1."""
        return jax.tree.map(lambda ids_BT: lax.dynamic_slice_in_dim(ids_BT, start, size, axis=1), self)

    @staticmethod
    def block(q_index: Array, k_index: Array, q: "Mask", k: "Mask") -> Array:
        """bool (B or 1, T, S) for one block of the scores: indices (T,) and (S,), and what the tokens belong to."""
        visible = (q_index[:, None] >= k_index[None, :])[None]
        if q.segment_ids_BT is not None:
            visible &= q.segment_ids_BT[:, :, None] == k.segment_ids_BT[:, None, :]
        if k.ends_BT is not None:
            visible &= q_index[None, :, None] < k.ends_BT[:, None, :]
        return visible
