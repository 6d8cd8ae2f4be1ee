"""Batch n is the same on any mesh, any number of hosts and from any start."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from llama_jax.config import MeshConfig
from llama_jax.data.batches import batch_of_tokens
from llama_jax.data.loader import batch_sharding, load_batches, load_heldout, local_rows
from llama_jax.data.mixture import Mixture
from llama_jax.data.windows import TokenSource
from llama_jax.parallel.mesh import make_mesh

ROOT = Path(__file__).parents[2]

HOST = """
import json, sys
import jax
host, port, folders = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, host)
from llama_jax.config import MeshConfig
from llama_jax.data.loader import load_batches
from llama_jax.data.mixture import Mixture
from llama_jax.data.windows import TokenSource
from llama_jax.parallel.mesh import make_mesh
mixture = Mixture([TokenSource(folder, 4) for folder in folders], [0.7, 0.3], seed=5)
mesh = make_mesh(MeshConfig(data=2, fsdp=2))
for batch in load_batches(mixture, mesh, batch_size=8, start=3, stop=5):
    shards = batch.tokens.addressable_shards
    print(json.dumps({shard.index[0].start: shard.data.tolist() for shard in shards}))
"""


@pytest.fixture
def mixture(folder_of) -> Mixture:
    a = folder_of("a", [[number % 90 + 3] * (number % 7) for number in range(40)], a_shard=9)
    b = folder_of("b", [[number + 3] * 9 for number in range(20)])
    return Mixture([TokenSource(a, 4), TokenSource(b, 4)], [0.7, 0.3], seed=5)


def by_hand(mixture: Mixture, n: int, batch_size: int):
    return batch_of_tokens(np.stack([mixture.tokens(n * batch_size + row) for row in range(batch_size)]), 1)


@pytest.mark.parametrize("axes", [(1, 1, 1), (8, 1, 1), (2, 4, 1), (1, 2, 4), (2, 1, 2)])
def test_every_mesh_holds_the_same_batches(mixture, axes):
    devices = jax.devices()[: int(np.prod(axes))]
    mesh = make_mesh(MeshConfig(*axes), devices)
    batches = list(load_batches(mixture, mesh, batch_size=8, start=2, stop=6))
    assert len(batches) == 4
    for n, batch in enumerate(batches, 2):
        for field, wanted in zip(batch, by_hand(mixture, n, 8), strict=True):
            np.testing.assert_array_equal(np.asarray(field), wanted)
            assert field.dtype == wanted.dtype and field.sharding == batch_sharding(mesh)
            assert field.addressable_shards[0].data.shape == (8 // (axes[0] * axes[1]), 4)


def test_any_start_goes_on_where_the_other_would_be(mixture):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    whole = list(load_batches(mixture, mesh, batch_size=3, start=0, stop=7))
    late = list(load_batches(mixture, mesh, batch_size=3, start=5, stop=7))
    for one, other in zip(whole[5:], late, strict=True):
        np.testing.assert_array_equal(np.asarray(one.tokens), np.asarray(other.tokens))


def test_batches_of_another_size_hold_the_same_rows(mixture):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    small = [np.asarray(batch.tokens) for batch in load_batches(mixture, mesh, batch_size=2, start=0, stop=6)]
    large = [np.asarray(batch.tokens) for batch in load_batches(mixture, mesh, batch_size=6, start=0, stop=2)]
    np.testing.assert_array_equal(np.concatenate(small), np.concatenate(large))


def test_rows_of_this_host():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert local_rows(mesh, 8) == list(range(8))


def test_two_hosts_hold_the_halves_of_one_hosts_batch(mixture):
    """Two real processes of two devices each, which jax.distributed makes one mesh."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    folders = [str(source.folder) for source in mixture.sources]
    hosts = [subprocess.Popen([sys.executable, "-c", HOST, str(host), port, *folders], cwd=ROOT, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) for host in range(2)]
    outputs = [host.communicate(timeout=120) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    lines = [[json.loads(line) for line in out.splitlines() if line.startswith("{")] for out, _ in outputs]
    for n in (3, 4):
        one, other = lines[0][n - 3], lines[1][n - 3]
        assert not one.keys() & other.keys() and len(one) == len(other) == 2
        rows = [rows for _, rows in sorted((one | other).items(), key=lambda item: int(item[0]))]
        np.testing.assert_array_equal(np.concatenate(rows), by_hand(mixture, n, 8).tokens)


@pytest.mark.parametrize("limit", [0, 1, 2, 99])
def test_heldout_windows_come_once_and_in_order(mixture, limit):
    source = mixture.sources[1]  # 220 tokens, 55 windows: 6 batches of 8 and 7 rows more
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    batches = list(load_heldout(source, mesh, batch_size=8, limit=limit))
    assert len(source) == 55 and len(batches) == (min(limit, 7) or 7)
    wanted = batch_of_tokens(np.stack([source.window(n) for n in range(min(8 * len(batches), 55))]), 1)
    targets = np.concatenate([np.asarray(batch.targets) for batch in batches])
    weights = np.concatenate([np.asarray(batch.weights) for batch in batches])
    np.testing.assert_array_equal(targets[weights == 1], wanted.targets[wanted.weights == 1])
    assert (weights[55:] == 0).all()


def test_heldout_of_one_window_fills_a_batch(folder_of):
    source = TokenSource(folder_of("tiny", [[5, 6]]), 4)
    (batch,) = load_heldout(source, make_mesh(MeshConfig(), jax.devices()[:4]), batch_size=4, limit=0)
    assert batch.weights.tolist() == [[1, 1, 1, 0]] + [[0] * 4] * 3
