"""`llama_jax inspect` as a user types it: its figures are numpy's in every format, and what is wrong is shown, not refused."""

import io
import json
import os
import weakref
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from llama_jax.__main__ import main
from llama_jax.cli import inspect as command
from llama_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig
from llama_jax.conversion.convert import convert_weights
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.hf import HFFolder
from llama_jax.formats.mapping import tensors
from llama_jax.formats.summary import PERCENTILES
from llama_jax.model.accounting import parameter_count, parameters_by_part
from llama_jax.model.decoder import Transformer
from llama_jax.report.page import print_tables
from tests.formats.memory import MemorySource, config_of

STATISTICS = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}


def inspect(tmp_path: Path, folder: Path, *arguments) -> dict:
    """What the command writes as JSON, which must be JSON without NaN."""
    file = tmp_path / "figures.json"
    assert main(["inspect", "--checkpoint", str(folder), "--json", str(file), *map(str, arguments)]) == 0
    return json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(name))


def save_run(folder: Path, config: ModelConfig) -> dict:
    """A run directory with the initial parameters of a model that other formats cannot hold."""
    params = jax.jit(Transformer(config).init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    with closing(Checkpoints(folder / "checkpoints", CheckpointConfig())) as checkpoints:
        checkpoints.save(1, {"params": params}, config=Config(model=config, data=DataConfig(sequence_length=32)))
    return params


@pytest.mark.parametrize("to, named", [("orbax", "run directory"), ("hf", "Hugging Face folder"), ("meta", "Meta folder")])
def test_figures_are_numpys(tmp_path, folders, memory, tokenizer, capsys, to, named):
    figures = inspect(tmp_path, folders[to])
    assert (figures["format"], figures["parameters"], figures["step"]) == (named, 204_224, 0 if to == "orbax" else None)
    rows = figures["tensors"]
    assert [(row["name"], row["hf"], row["meta"]) for row in rows] == [(t.ours, t.hf, t.meta) for t in tensors(memory.config)]
    for tensor, row in zip(tensors(memory.config), rows, strict=True):
        values = memory.read(tensor).astype(np.float64)
        assert row["shape"] == list(values.shape) and row["dtype"] == "float32" and row["bytes"] == 4 * values.size
        for name, statistic in STATISTICS.items():
            assert row[name] == pytest.approx(statistic(values), rel=1e-9, abs=1e-12), (row["name"], name)
        assert row["non_finite"] == 0
    assert figures["parameters_by_part"] == {"embedding": 512 * 64, "attention": 3 * 64 * 8 * (2 * 8 + 2 * 4),
                                             "feed-forward": 9 * 64 * 176, "norms": 7 * 64, "head": 512 * 64}
    assert figures["tokenizer"] | {"kind": "SentencePiece", "vocab_size": 512, "bos_id": 1, "eos_id": 2,
                                   "sha256": tokenizer.sha256} == figures["tokenizer"]
    out = capsys.readouterr().out
    for text in (f"{named}{', step 0' if to == 'orbax' else ''}, 204,224 parameters", "BOS", "1 <s>", "2 </s>",
                 "model.layers.2.self_attn.q_proj.weight", "layers.2.feed_forward.w3.weight", "layers.attention.wq[2]",
                 "30 tensors, 816,896 bytes", f"{rows[5]['std']:.4g}", "SentencePiece (tokenizer.model)"):
        assert text in out, text


def test_a_step_of_a_run(tmp_path, folders, capsys):
    whole, step = inspect(tmp_path, folders["orbax"]), inspect(tmp_path, folders["orbax"] / "checkpoints" / "0")
    assert whole == step


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("to", ["orbax", "hf", "meta"])
def test_dtypes_as_stored(tmp_path, memory, to, dtype):
    convert_weights(memory, tmp_path / "out", to, dtype=dtype)
    rows = inspect(tmp_path, tmp_path / "out")["tensors"]
    for tensor, row in zip(tensors(memory.config), rows, strict=True):
        values = memory.read(tensor).astype(STORED_DTYPES[dtype]).astype(np.float64)
        assert row["dtype"] == dtype and row["bytes"] == 2 * values.size and row["mean"] == pytest.approx(values.mean(), rel=1e-9)


@pytest.mark.parametrize("to", ["orbax", "hf", "meta"])
def test_what_is_not_finite_is_shown(tmp_path, tokenizer, capsys, to):
    source = MemorySource(config_of(), tokenizer)
    wq, values = source.params["layers"]["attention"]["wq"], source.params["layers"]["feedforward_norm"]["scale"]
    wq[1, 0, 0, :3] = [np.nan, np.inf, -np.inf]
    values[2] = np.nan
    convert_weights(source, tmp_path / "out", to, meta_shards=2 if to == "meta" else 1)
    rows = {row["name"]: row for row in inspect(tmp_path, tmp_path / "out")["tensors"]}
    assert {name: row["non_finite"] for name, row in rows.items() if row["non_finite"]} == {
        "layers.attention.wq[1]": 3, "layers.feedforward_norm.scale[2]": 64}
    finite = wq[1][np.isfinite(wq[1])].astype(np.float64)
    assert rows["layers.attention.wq[1]"]["mean"] == pytest.approx(finite.mean(), rel=1e-9)
    assert rows["layers.feedforward_norm.scale[2]"]["max"] is None
    assert "2 tensor(s) hold values that are NaN or infinite" in capsys.readouterr().out
    [row] = inspect(tmp_path, tmp_path / "out", "--tensor", "layers.1.attention.wq")["tensors"]
    assert row["corner"][0][:4] == ["nan", "inf", "-inf", pytest.approx(float(wq[1, 0, 0, 3]))]
    shown = capsys.readouterr().out
    assert " nan " in shown and " -inf " in shown


def test_one_tensor(tmp_path, folders, memory, capsys):
    wanted = memory.params["layers"]["attention"]["wk"]
    for name in ("layers.attention.wk[2]", "layers.2.attention.wk.weight", "model.layers.2.self_attn.k_proj.weight"):
        [row] = inspect(tmp_path, folders["meta"], "--tensor", name)["tensors"]
        assert row["name"] == "layers.attention.wk[2]"
        assert row["std"] == pytest.approx(wanted[2].astype(np.float64).std(), rel=1e-9)
        assert list(row["percentiles"]) == [f"{percent:g}" for percent in PERCENTILES]
        np.testing.assert_allclose(list(row["percentiles"].values()), np.percentile(wanted[2], PERCENTILES), rtol=1e-5)
        np.testing.assert_array_equal(np.float32(row["corner"]), wanted[2, 0, :6, :6])
    out = capsys.readouterr().out
    for text in ("layers.attention.wk[2] at [0, i, j]", "99.9%", "64 x 4 x 8", f"{wanted[2, 0, 1, 1]:.4g}"):
        assert text in out, text
    rows = inspect(tmp_path, folders["hf"], "--tensor", "layers.attention.wk")["tensors"]
    assert [row["name"] for row in rows] == [f"layers.attention.wk[{n}]" for n in range(3)]
    [row] = inspect(tmp_path, folders["hf"], "--tensor", "norm")["tensors"]
    np.testing.assert_array_equal(np.float32(row["corner"]), memory.params["final_norm"]["scale"][:6])


def test_models_that_only_a_run_directory_holds(tmp_path, capsys):
    """The vanilla Transformer: biases, LayerNorm and no final norm; their names elsewhere are dashes."""
    config = ModelConfig(vocab_size=64, dim=32, num_layers=2, num_heads=4, num_kv_heads=4, ffn_dim=48, max_length=32,
                         use_bias=True, norm="layernorm", norm_position="post", feedforward="relu", position="learned",
                         tied_embeddings=True)
    params = save_run(tmp_path / "run", config)
    figures = inspect(tmp_path, tmp_path / "run")
    assert all(row["hf"] is None and row["meta"] is None for row in figures["tensors"])
    assert sum(np.prod(row["shape"]) for row in figures["tensors"]) == figures["parameters"] == parameter_count(config)
    assert figures["parameters_by_part"]["head"] == 0 and figures["parameters_by_part"]["embedding"] == 64 * 32 + 32 * 32
    assert figures["parameters_by_part"]["norms"] == 2 * 2 * 2 * 32 and figures["tokenizer"] is None
    rows = {row["name"]: row for row in figures["tensors"]}
    assert rows["layers.attention_norm.bias[1]"]["max"] == 0
    assert rows["position_embedding"]["std"] == pytest.approx(np.float64(params["position_embedding"]).std(), rel=1e-6)
    out = capsys.readouterr().out
    for text in ("layernorm", "the head is the embedding", "none"):
        assert text in out, text
    [line] = [line for line in out.splitlines() if "layers.feedforward.b_in[1]" in line or "layers.feedforward.b_up[1]" in line]
    assert [cell.strip() for cell in line.split("│")][2:4] == ["-", "-"]
    assert figures["differs_from_default"]["norm"] == "layernorm" and "relative_clip" not in figures["differs_from_default"]


def test_parts_are_all_parameters():
    for config in (config_of(), config_of(tied_embeddings=True), config_of(norm="layernorm", use_bias=True, position="shaw")):
        assert sum(parameters_by_part(config).values()) == parameter_count(config)


def test_what_is_wrong_with_a_tokenizer_is_shown(tmp_path, memory, capsys):
    convert_weights(memory, tmp_path / "out", "hf")
    assert main(["inspect", "--checkpoint", str(tmp_path / "out"), "--tensor", "head"]) == 0
    (tmp_path / "out" / "tokenizer.json").unlink()
    (tmp_path / "out" / "tokenizer.model").write_bytes(b"damaged")
    assert "error" in inspect(tmp_path, tmp_path / "out")["tokenizer"] and "damaged" in capsys.readouterr().out
    (tmp_path / "out" / "tokenizer.model").unlink()
    assert inspect(tmp_path, tmp_path / "out")["tokenizer"] is None
    other = MemorySource(replace(memory.config, vocab_size=520))
    convert_weights(other, tmp_path / "more", "hf")
    memory.tokenizer().save(tmp_path / "more")
    assert inspect(tmp_path, tmp_path / "more")["tokenizer"]["vocab_size"] == 512
    assert "the model has 520 ids" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, code, sentence", [
    (("--tensor", "layers.attention.wz"), 2, "no tensor layers.attention.wz; did you mean layers.attention.w"),
    (("--tensor", "model.layers.3.mlp.up_proj"), 2, "its layers are 0 to 2"),
    (("--json", "/dev/null/no/figures.json"), 3, "cannot make the folder"),
    (("--tensro", "head"), 2, "unknown argument --tensro; did you mean tensor"),
])
def test_mistakes(folders, capsys, arguments, code, sentence):
    assert main(["inspect", "--checkpoint", str(folders["hf"]), *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert sentence in captured.err


def test_no_checkpoint(tmp_path, capsys):
    assert main(["inspect", "--checkpoint", str(tmp_path / "no")]) == 3
    assert "no checkpoint at" in capsys.readouterr().err


def test_memory_holds_one_tensor(folders, monkeypatch):
    """The tensor before is let go before the next is read."""
    alive, read = [], HFFolder.read

    def watched(self, tensor, **options):
        assert not any(reference() is not None for reference in alive)
        array = read(self, tensor, **options).copy()
        alive.append(weakref.ref(array))
        return array

    monkeypatch.setattr(HFFolder, "read", watched)
    assert main(["inspect", "--checkpoint", str(folders["hf"])]) == 0 and len(alive) == 30


@pytest.mark.parametrize("width, header", [(260, "Hugging Face"), (140, "name, in Hugging Face's and in Meta's form")])
def test_names_are_lines_where_columns_do_not_fit(tmp_path, folders, width, header):
    figures = inspect(tmp_path, folders["hf"])
    console = Console(file=io.StringIO(), width=width)
    print_tables(console, [command._table_of_tensors(figures["tensors"], width)])
    lines = console.file.getvalue().splitlines()
    assert header in lines[2] and max(map(len, lines)) <= width
    assert any("model.layers.1.post_attention_layernorm.weight" in line for line in lines)


def test_it_runs_where_nothing_may_be_written(folders, capsys):
    before = sorted(os.listdir(folders["hf"]))
    assert main(["inspect", "--checkpoint", str(folders["hf"])]) == 0
    assert sorted(os.listdir(folders["hf"])) == before and capsys.readouterr().err == ""
