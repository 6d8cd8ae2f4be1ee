"""Conversion is all or nothing, and its memory does not grow with the model."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llama_jax.conversion.convert import convert_weights
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats import hf
from tests.formats.memory import MemorySource, config_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 KB, which fails in every writer as a full disk does."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings("ignore:Exception ignored in.:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("to, shards", [("hf", 1), ("meta", 1), ("meta", 2), ("orbax", 1)])
def test_a_full_disk_leaves_nothing(tmp_path, small_disk, tokenizer, to, shards):
    memory = MemorySource(config_of(ffn_dim=4096), tokenizer)
    with pytest.raises(DataError, match=r"cannot write .*/out: .*; nothing of it stays") as caught:
        convert_weights(memory, tmp_path / "out", to, meta_shards=shards)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_told_before(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"needs 816,896 bytes and .* has 1,000 free; make room"):
        convert_weights(memory, tmp_path / "out", "hf")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_conversion_leaves_nothing(tmp_path, memory, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(hf, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_weights(memory, tmp_path / "out", "hf")
    assert not list(tmp_path.iterdir())


class Zeros(MemorySource):
    """Weights of any size that take no memory."""

    def read(self, tensor) -> np.ndarray:
        return np.zeros(tensor.shape(self.config), np.float32)


PEAK = """
import sys
from pathlib import Path
from llama_jax.conversion.convert import convert_weights
from llama_jax.formats import hf
from llama_jax.formats.open import open_source
from llama_jax.model.accounting import parameter_count
hf.SHARD_BYTES = 10_000_000
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
source = sys.argv[1]
parameter_count(open_source(source).config)  # jax starts here, whatever the model's size
for number, to in enumerate(("hf", "meta", "orbax", "hf")):
    target = Path(sys.argv[2], str(number))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    begin = memory("VmRSS")
    convert_weights(open_source(source), target, to)
    print(memory("VmHWM") - begin)
    source = target
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="measures memory in /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """Of 157 MB in 24 layers the peak is one file of 10 MB, a few tensors of 2 MB, and what orbax takes to begin."""
    config = config_of(8, dim=320, num_layers=24, ffn_dim=1280)
    convert_weights(Zeros(config, params={}), tmp_path / "deep", "meta")
    command = [sys.executable, "-c", PEAK, tmp_path / "deep", tmp_path]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    to_hf, to_meta, to_orbax, from_orbax = map(int, out.split())
    assert max(to_hf, to_meta) < 30_000_000 and max(to_orbax, from_orbax) < 80_000_000, out


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path, tokenizer):
    small = MemorySource(config_of(vocab_size=400), tokenizer)
    with pytest.raises(ConfigError, match="has 512 pieces and the model 400"):
        convert_weights(small, tmp_path / "small", "hf")
