"""A strict climate: eight CPU devices, no silent broadcasting of ranks; warnings are errors (setup.cfg)."""

import base64
import os
import tempfile
from importlib import resources
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network, where the `datasets` library is installed either
# one program is compiled once a session, also for the commands that tests start and for pytest-xdist's workers
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="llama_jax_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import hypothesis
import jax
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from llama_jax.data.sources import read_documents
from llama_jax.tokenizer import bpe
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.training import train_sentencepiece

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# a busy machine is no fault of the code; CI draws the same examples each time: only a change of the code changes its verdict
hypothesis.settings.register_profile("no_clock", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("no_clock")


def pytest_configure(config):
    """Compilation takes less time, of the programs that stay the same; `-m peers` asks what real compilers make of them."""
    if config.getoption("markexpr") != "peers":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # for the commands that tests start
        jax.config.update("jax_disable_most_optimizations", True)
        if jax.__version_info__ < (0, 11):  # a third less time for a train step; later versions know no such flag
            os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"


SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files that the project does not commit; where they are absent the test is skipped."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data next to the checkout: real files that the project does not ship")
    return SHARED_DATA


@pytest.fixture(scope="session")
def play() -> str:
    """The first 200,000 characters of the embedded Tiny Shakespeare."""
    file = Path(str(resources.files("llama_jax.data") / "tinyshakespeare.txt.xz"))
    return next(read_documents(file))[:200_000]


@pytest.fixture(scope="session")
def tokenizer(play) -> Tokenizer:
    """512 pieces, trained on the play."""
    return train_sentencepiece([play], 512)


@pytest.fixture(scope="session")
def byte_level(play) -> tokenizers.Tokenizer:
    """Trained on the play by the library, with Llama 3's special tokens' names."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(bpe.LLAMA3_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([play], trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]))
    return tokenizer


@pytest.fixture(scope="session")
def ranks(byte_level) -> bytes:
    """The same pieces as a file in tiktoken's format: the bytes first, then what was merged, in the order of merging."""
    pieces = [piece for piece, _ in sorted(byte_level.get_vocab().items(), key=lambda item: item[1]) if piece[:2] != "<|"]
    data = [bytes(bpe.BYTE_OF_CHARACTER[c] for c in piece) for piece in pieces]
    data = [piece for piece in data if len(piece) == 1] + [piece for piece in data if len(piece) > 1]
    return b"".join(base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(data))
