"""Folders that say two things of their weights: read as transformers reads them, and said, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from llama_jax.conversion.convert import convert_weights
from llama_jax.conversion.verify import logits_of_source
from llama_jax.errors import DataError
from llama_jax.files.json_object import read_json_object
from llama_jax.formats import hf, safetensors_files
from llama_jax.formats.base import HEAD_TENSOR
from llama_jax.formats.config_json import config_from_hf
from llama_jax.formats.mapping import tensors
from llama_jax.formats.open import open_source
from llama_jax.formats.safetensors_files import INDEX_FILE, WEIGHTS_FILE
from llama_jax.formats.torchfile import TorchFile, TorchWriter
from tests.formats.memory import MemorySource, config_of
from tests.formats.test_hf import LLAMA2, LLAMA31, NEW, Q, edit, read
from tests.golden.small import random_params

TOKENS_BT = np.random.default_rng(0).integers(0, 512, (2, 30))
FIRST, SECOND = "model-00001-of-00005.safetensors", "model-00002-of-00005.safetensors"


@pytest.fixture
def shards(tmp_path, memory, monkeypatch) -> Path:
    """A folder of five files and their index."""
    monkeypatch.setattr(hf, "SHARD_BYTES", 200_000)
    convert_weights(memory, tmp_path / "shards", "hf")
    monkeypatch.undo()
    return tmp_path / "shards"


@pytest.fixture
def tied(tmp_path, tokenizer) -> Path:
    """One file of a model whose head is its embedding, which is not stored twice."""
    convert_weights(MemorySource(config_of(tied_embeddings=True), tokenizer), tmp_path / "tied", "hf")
    return tmp_path / "tied"


def put(folder: Path, change, name: str = WEIGHTS_FILE) -> None:
    """Write a file anew; `change` may return other tensors or edit those it gets."""
    held = read(folder / name)
    save_file(change(held) or held, folder / name)


@pytest.mark.parametrize("kept", [0, 3, 5])
def test_one_file_goes_before_a_stale_index(tmp_path, shards, tokenizer, caplog, kept):
    """Whether all of the old files still lie there, some, or none."""
    new = MemorySource(config_of(), tokenizer, params=random_params(config_of(), 7))
    convert_weights(new, tmp_path / "new", "hf")
    shutil.copy(tmp_path / "new" / WEIGHTS_FILE, shards)
    for file in sorted(shards.glob("model-0*"))[kept:]:
        file.unlink()
    source = open_source(shards)
    for tensor in tensors(new.config):
        np.testing.assert_array_equal(source.read(tensor), new.read(tensor))
    [said] = caplog.messages
    assert said.startswith(f"{shards}: model.safetensors is read; not read, though it lies there: {INDEX_FILE}")
    assert said.count("-of-00005") == min(kept, 3)


@pytest.mark.parametrize("name", ["old-shards-kept", "resaved-by-transformers-5.24"])
def test_resaved_folders_of_the_shared_data(shared_data, name):
    """The file that was saved last is read: its tensors are those of the model both were made from."""
    source = open_source(shared_data / "faults/resaved" / name)
    wanted = read(shared_data / "faults/resaved" / name / WEIGHTS_FILE)
    for tensor in tensors(source.config):
        np.testing.assert_array_equal(source._stored[tensor.hf].read(tensor.hf), wanted[tensor.hf])


def test_another_head_beside_a_tied_config_is_kept(tied, tmp_path, caplog):
    rng = np.random.default_rng(3)
    head = rng.normal(size=(512, 64)).astype(np.float32)
    put(tied, lambda held: held.update({"lm_head.weight": head}))
    source = open_source(tied)
    assert not source.config.tied_embeddings and ["it is kept as a head of its own" in m for m in caplog.messages] == [True]
    np.testing.assert_array_equal(source.read(HEAD_TENSOR), head.T)
    for to in ("hf", "meta", "orbax"):  # and it goes on to every other format
        convert_weights(source, tmp_path / to, to)
        np.testing.assert_array_equal(open_source(tmp_path / to).read(HEAD_TENSOR), head.T)


def test_the_tied_folder_of_the_shared_data(shared_data):
    source = open_source(shared_data / "faults/tied-other-head")
    wanted = read(source.folder / WEIGHTS_FILE)
    np.testing.assert_array_equal(source.read(HEAD_TENSOR), wanted["lm_head.weight"].T)
    assert not np.array_equal(wanted["lm_head.weight"], wanted["model.embed_tokens.weight"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_equal_head_is_the_embedding_once_more(tied, caplog, dtype):
    before = logits_of_source(open_source(tied), TOKENS_BT)
    put(tied, lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"].astype(dtype)}))
    if dtype == np.float64:
        with pytest.raises(DataError, match=r"lm_head.weight in .* is F64"):
            open_source(tied)
    else:
        assert open_source(tied).config.tied_embeddings and not caplog.messages
        np.testing.assert_array_equal(logits_of_source(open_source(tied), TOKENS_BT), before)


def rename(folder: Path, old: str, new: str) -> None:
    put(folder, lambda held: {new if name == old else name: x for name, x in held.items()})


def move(folder: Path, *, keep: bool) -> None:
    """A tensor of the second file into the first, which the index does not know of."""
    name = next(iter(read(folder / SECOND)))
    tensor = read(folder / SECOND)[name]
    put(folder, lambda held: held.update({name: tensor}), FIRST)
    if not keep:
        put(folder, lambda held: {other: x for other, x in held.items() if other != name}, SECOND)


def say(folder: Path, **values) -> None:
    edit(folder / "config.json", lambda config: config.update(values))


SHARDED = {
    "one tensor in two files": (lambda f: move(f, keep=True), rf"lies in both {FIRST} and {SECOND} of .*files of two models"),
    "not where the index says": (lambda f: move(f, keep=False), rf"lies in {FIRST} of .*, and {INDEX_FILE} says {SECOND}; files"),
    "not in the index": (lambda f: edit(f / INDEX_FILE, lambda v: v["weight_map"].pop(Q)), f"{INDEX_FILE} says nothing of it"),
    "twice in the index": (lambda f: (f / INDEX_FILE).write_text(f'{{"weight_map": {{"{Q}": "{FIRST}", "{Q}": "{SECOND}"}}}}'),
                           f"says {Q} twice, '{FIRST}' and '{SECOND}'"),
    "both formats": (lambda f: ((f / "params.json").write_text("{}"), (f / "consolidated.00.pth").touch()),
                     "holds weights twice, as a Meta folder and as a Hugging Face folder; move one"),
    "a run": (lambda f: (f / "checkpoints/3").mkdir(parents=True), "as a run directory and as a Hugging Face folder"),
}
WHOLE = {
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), r"holds an adapter \(adapter_config.json\)"),
    "a head of another shape": (lambda f: put(f, lambda held: held.update({"lm_head.weight": np.zeros((500, 64), np.float32)})),
                                r"lm_head.weight in .* has the shape \(500, 64\)"),
    "untied without a head": (lambda f: say(f, tie_word_embeddings=False),
                              r"lacks 1 of 30 tensors .* first lm_head.weight; is tie_word_embeddings missing there"),
    "a head and no embedding": (lambda f: rename(f, "model.embed_tokens.weight", "lm_head.weight"),
                                "lacks 1 of 30 tensors .* first model.embed_tokens.weight; is a file missing"),
    "fewer layers in the config": (lambda f: say(f, num_hidden_layers=2), r"a tensor of layer 2, and num_hidden_layers = 2 in "
                                   r"config.json ends at layer 1; one of the two is another model's"),
    "GPTQ": (lambda f: say(f, quantization_config={"quant_method": "gptq", "bits": 4}), "quantization_config = .'quant_method'"),
    "GPTQ unsaid": (lambda f: rename(f, Q, Q.replace("weight", "qweight")), "q_proj.qweight, which belongs to quantised weights"),
    "other file names": (lambda f: say(f, transformers_weights="other.safetensors"), "transformers_weights = 'other.saf"),
    "two values": (lambda f: (f / "config.json").write_text('{"model_type": "llama", "hidden_size": 64, "hidden_size": 32}'),
                   "config.json says hidden_size twice, 64 and 32; remove one of them"),
    "another vocabulary": (lambda f: say(f, vocab_size=576), r"has the shape \(512, 64\), and config.json asks for \(576, 64\)"),
}


@pytest.mark.parametrize("case", SHARDED)
def test_shards_that_disagree_are_refused(shards, case):
    refused(shards, *SHARDED[case])


@pytest.mark.parametrize("case", WHOLE)
def test_one_file_that_disagrees_is_refused(tied, case):
    refused(tied, *WHOLE[case])


def refused(folder: Path, change, sentence: str) -> None:
    open_source(folder)
    change(folder)
    with pytest.raises(DataError, match=sentence) as caught:
        open_source(folder)
    assert "\n" not in str(caught.value)


def test_other_weights_beside_those_that_are_read_are_named(tied, caplog):
    for name in ("pytorch_model.bin", "model.fp16.safetensors", "training_args.bin", "optimizer.pt"):
        (tied / name).touch()
    open_source(tied)
    assert caplog.messages == [f"{tied}: model.safetensors is read; not read, though it lies there: model.fp16.safetensors, "
                               "pytorch_model.bin."]


def test_tensors_that_share_their_bytes_are_refused_by_the_library(tied):
    """The format forbids it; a reader that allowed it could not tell a head from an embedding."""
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}).encode()
    (tied / WEIGHTS_FILE).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(SafetensorError), safetensors_files.safe_open(tied / WEIGHTS_FILE, framework="np"):
        pass
    with pytest.raises(DataError, match="is not a whole safetensors file"):
        open_source(tied)


STRETCH = LLAMA31["rope_scaling"]


@pytest.mark.parametrize("change, named", [
    ({"rope_scaling": STRETCH, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, "do not mean the same"),
    ({"rope_scaling": STRETCH | {"factor": 32.0}, "rope_parameters": STRETCH}, "do not mean the same"),
    ({"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_theta is 10000.0 and"),
    ({"original_max_position_embeddings": 4096, "rope_scaling": STRETCH}, "max_position_embeddings is 4096 and, .* 8192"),
    ({"rope_scaling": {"rope_type": "linear", "type": "llama3", "factor": 2.0}}, "rope_type is 'linear' and type 'llama3'"),
])
def test_rotary_settings_in_two_spellings_must_agree(tmp_path, change, named):
    with pytest.raises(DataError, match=named):
        config_from_hf(LLAMA2 | change, tmp_path / "config.json")


def test_rotary_settings_said_twice_alike(tmp_path):
    both = NEW | {"rope_theta": 500_000, "rope_scaling": STRETCH}
    assert config_from_hf(both, tmp_path) == config_from_hf(NEW, tmp_path) == config_from_hf(LLAMA31, tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_behind_a_byte_order_mark(tied, encoding):
    text = (tied / "config.json").read_text()
    (tied / "config.json").write_text(text, encoding=encoding)
    assert read_json_object(tied / "config.json") == json.loads(text) and open_source(tied).config.tied_embeddings


@pytest.fixture
def meta(tmp_path, folders) -> Path:
    """Two shards."""
    shutil.copytree(folders["meta"], tmp_path / "meta")
    return tmp_path / "meta"


def rewrite(folder: Path, number: int, change) -> None:
    file = TorchFile(folder / f"consolidated.{number:02d}.pth")
    held = {name: np.array(file.read(name)) for name in file.shapes()}
    change(held)
    with TorchWriter(file.path, {name: x.shape for name, x in held.items()}, dtype=np.dtype(np.float32)) as writer:
        for name, x in held.items():
            writer.write(name, x)


NORM, GATE, DOWN = "layers.1.ffn_norm.weight", "layers.1.feed_forward.w1.weight", "layers.1.feed_forward.w2.weight"
META = {
    "uneven parts": ({0: lambda t: t.update({GATE: np.zeros((80, 64))}), 1: lambda t: t.update({GATE: np.zeros((96, 64))})},
                     r"w1.weight in .* has the shapes \[\(80, 64\), \(96, 64\)\], which do not fit together"),
    "another width": ({1: lambda t: t.update({DOWN: np.zeros((60, 88))})}, r"w2.weight in .* has the shapes .* do not fit"),
    "norms of two lengths": ({1: lambda t: t.update({NORM: np.ones(32)})}, r"ffn_norm.weight in .* \[\(64,\), \(32,\)\], which"),
    "norms of two models": ({1: lambda t: t.update({NORM: t[NORM] + 0.5})},
                            r"ffn_norm.weight of .* another in consolidated.01.pth than in consolidated.00.pth; files of"),
    "half a head": ({0: lambda t: t.pop("output.weight")}, "consolidated.00.pth in .* lacks output.weight"),
}


@pytest.mark.parametrize("case", META)
def test_meta_shards_that_disagree_are_refused(meta, tmp_path, case):
    changes, sentence = META[case]
    for number, change in changes.items():
        rewrite(meta, number, change)
    with pytest.raises(DataError, match=sentence):
        convert_weights(open_source(meta), tmp_path / "out", "hf")


def test_meta_shards_of_two_dtypes_lose_nothing(meta):
    """16 and 32 bits side by side are read as 32."""
    file = TorchFile(meta / "consolidated.01.pth")
    held = {name: np.array(file.read(name)) for name in file.shapes()}
    with TorchWriter(file.path, {name: x.shape for name, x in held.items()}, dtype=np.dtype(np.float16)) as writer:
        for name, x in held.items():
            writer.write(name, x)
    source = open_source(meta)
    assert source.dtype == np.float32
    wanted = np.concatenate([TorchFile(meta / "consolidated.00.pth").read(GATE), held[GATE].astype(np.float16)])
    np.testing.assert_array_equal(source._join(next(t for t in tensors(source.config) if t.meta == GATE)), wanted)
