"""Batches on devices: each host reads only its own rows, ahead of time, and makes global arrays of them on the mesh."""

from collections.abc import Iterator

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from llama_jax.batch import Batch
from llama_jax.data.batches import batch_of_rows
from llama_jax.data.mixture import Mixture
from llama_jax.data.windows import TokenSource
from llama_jax.parallel.rules import spec


def load_batches(mixture: Mixture, mesh: Mesh, *, batch_size: int, start: int, stop: int) -> Iterator[Batch]:
    """Yield batches start .. stop - 1 as global arrays; batch n holds rows n * batch_size onwards of the mixture."""
    rows = local_rows(mesh, batch_size)

    def host_batch(n: int) -> Batch:
        return batch_of_rows([mixture.row(int(n) * batch_size + row) for row in rows])

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    for batch in grain.MapDataset.range(start, stop).map(host_batch).to_iter_dataset(ahead):
        yield _to_devices(batch, mesh, batch_size=batch_size)


def load_heldout(source: TokenSource, mesh: Mesh, *, batch_size: int, limit: int) -> Iterator[Batch]:
    """Yield the windows of `source` once, in order, in at most `limit` batches (0: all of them).

    The last batch is filled with copies of the last window, which have weight 0.
    """
    rows = local_rows(mesh, batch_size)
    count = -(-len(source) // batch_size)
    for n in range(min(count, limit) if limit else count):
        windows = [n * batch_size + row for row in rows]
        batch = batch_of_rows([source.row([source.span(min(window, len(source) - 1))]) for window in windows])
        exists = np.array([window < len(source) for window in windows], np.float32)
        yield _to_devices(batch._replace(weights=batch.weights * exists[:, None]), mesh, batch_size=batch_size)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of each (B, T) field of a Batch."""
    return NamedSharding(mesh, spec("batch", "seq"))


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """Numbers of the rows of a batch of which this process's devices hold at least a part, ascending."""
    slices = NamedSharding(mesh, spec("batch")).addressable_devices_indices_map((batch_size,)).values()
    return sorted({row for rows, in slices for row in range(*rows.indices(batch_size))})


def _to_devices(batch: Batch, mesh: Mesh, *, batch_size: int) -> Batch:
    """Make global arrays of shape (batch_size, T) to which this host contributes its rows.

    A row whose tokens are divided between hosts is read by each of them, and each contributes its own tokens.
    """
    sharding = batch_sharding(mesh)
    places = {row: place for place, row in enumerate(local_rows(mesh, batch_size))}

    def to_global(x: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, slice]) -> np.ndarray:
            rows = [places[row] for row in range(*index[0].indices(batch_size))]
            return x[rows, index[1]]

        return jax.make_array_from_callback((batch_size, x.shape[1]), sharding, part)

    return jax.tree.map(to_global, batch)
