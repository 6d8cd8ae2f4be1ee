"""`llama_jax inspect` at work: what a checkpoint holds, read tensor by tensor, on the terminal and as JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from llama_jax.cli.options import InspectOptions
from llama_jax.config import ModelConfig
from llama_jax.config.compare import different_from_default, flat
from llama_jax.config.fields import to_dict
from llama_jax.errors import DataError
from llama_jax.files.atomic import check_writable, write_atomic
from llama_jax.formats.base import WeightSource
from llama_jax.formats.mapping import Tensor, tensors
from llama_jax.formats.names import formats_that_hold, tensors_called
from llama_jax.formats.open import open_source
from llama_jax.formats.run import RunFolder
from llama_jax.formats.summary import corner, percentiles, summarize
from llama_jax.model.accounting import parameter_count, parameters_by_part
from llama_jax.ops.rotary import SCALING_KINDS
from llama_jax.report.page import print_tables
from llama_jax.report.tables import Table, transposed
from llama_jax.terminal import progress_bar
from llama_jax.tokenizer.load import NoTokenizer

_CORNER = 6
"""Rows and columns of the values that `--tensor` shows."""
_WIDTH = 260
"""Characters of a line where the output is no terminal: enough for every column."""

_Figures = dict[str, Any]
"""_Figures by name, as they are in the JSON file."""


def run_inspect(asked: InspectOptions) -> None:
    """Read what is asked for, print it, and write it to --json; raises ConfigError for a tensor that the model does not have."""
    if asked.json:
        check_writable(Path(asked.json))
    source = open_source(asked.checkpoint, verify=asked.verify)
    chosen = tensors_called(asked.tensor, source.config) if asked.tensor else list(tensors(source.config))
    figures = _about_model(source)
    figures["tensors"] = _about_tensors(source, chosen, closely=bool(asked.tensor))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    if asked.tensor:
        print_tables(console, _tables_of_one(figures["tensors"]))
    else:
        print_tables(console, [*_tables_of_model(figures, source.config), _table_of_tensors(figures["tensors"], console.width)])
    if asked.json:
        write_atomic(Path(asked.json), (json.dumps(figures, indent=1, allow_nan=False) + "\n").encode())


def _about_model(source: WeightSource) -> _Figures:
    """What is known before a tensor is read."""
    config = source.config
    return {
        "checkpoint": str(source.folder),
        "format": source.format,
        "step": source.step if isinstance(source, RunFolder) else None,
        "config": to_dict(config),
        "differs_from_default": {name: json.loads(value) for name, value in different_from_default(config)},
        "compute": to_dict(source.compute),
        "parameters": parameter_count(config),
        "parameters_by_part": parameters_by_part(config),
        "tokenizer": _about_tokenizer(source),
    }


def _about_tokenizer(source: WeightSource) -> _Figures | None:
    """Kind, vocabulary and special ids of the folder's tokenizer, or why it cannot be read; None where there is none."""
    try:
        tokenizer = source.tokenizer()
    except NoTokenizer:
        return None
    except DataError as error:
        return {"error": str(error)}
    special = sorted({tokenizer.bos_id, *tokenizer.eos_ids})
    pieces = {str(token): tokenizer.piece(token) for token in special if token < tokenizer.vocab_size}
    return {"kind": tokenizer.KIND, "file": tokenizer.FILE, "vocab_size": tokenizer.vocab_size, "bos_id": tokenizer.bos_id,
            "eos_id": tokenizer.eos_id, "eos_ids": list(tokenizer.eos_ids), "pieces": pieces,
            "prompts_begin_with": list(tokenizer.begin), "sha256": tokenizer.sha256}


def _about_tensors(source: WeightSource, chosen: list[Tensor], *, closely: bool) -> list[_Figures]:
    """Read tensors one after another, and keep their statistics; `closely` adds percentiles and a corner of the values."""
    held, rows = formats_that_hold(source.config), []
    with progress_bar("tensors", lambda done, seconds: f"{done:,.0f} of {len(chosen):,}", total=len(chosen)) as advance:
        for tensor in chosen:
            names = {"name": tensor.ours, "hf": tensor.hf if "hf" in held else None,
                     "meta": tensor.meta if "meta" in held else None}
            rows.append(names | _figures_of(source.read(tensor, check_finite=False), closely=closely))
            advance(1)
    return rows


def _figures_of(array: np.ndarray, *, closely: bool) -> _Figures:
    figures = {"shape": list(array.shape), "dtype": array.dtype.name, "bytes": array.nbytes, **summarize(array)._asdict()}
    return figures | ({"percentiles": percentiles(array), "corner": corner(array, _CORNER)} if closely else {})


def _tables_of_model(figures: _Figures, config: ModelConfig) -> list[Table]:
    """The folder, its config, parameters by part, and tokenizer."""
    step = "" if figures["step"] is None else f", step {figures['step']}"
    title = f"{figures['checkpoint']}: {figures['format']}{step}, {figures['parameters']:,} parameters"
    table = Table(title, ["config.model", "value", "LLaMA's default"])
    used = ("kind", *SCALING_KINDS[config.rope_scaling.kind])
    default = flat(to_dict(ModelConfig())) | {"head_dim": "dim / num_heads"}
    for name, value in (flat(figures["config"]) | {"head_dim": str(config.head_size)}).items():
        if not name.startswith("rope_scaling.") or name.removeprefix("rope_scaling.") in used:
            differs = name in figures["differs_from_default"]
            table.rows.append([name, value.strip('"'), default[name].strip('"') if differs else ""])
    total = figures["parameters"]
    parts = [[part, f"{count:,}", f"{count / total:.1%}"] for part, count in figures["parameters_by_part"].items()]
    notes = ["the head is the embedding (tied_embeddings)"] if config.tied_embeddings else []
    return [table, Table("parameters", ["part", "number", "share"], [*parts, ["all", f"{total:,}", ""]], notes=notes),
            _table_of_tokenizer(figures["tokenizer"], config.vocab_size)]


def _table_of_tokenizer(tokenizer: _Figures | None, ids: int) -> Table:
    """Facts of the tokenizer beside a model of so many `ids`."""
    if tokenizer is None:
        return Table("tokenizer", ["tokenizer", "none"])
    if "error" in tokenizer:
        return Table("tokenizer", ["tokenizer", "damaged"], notes=[tokenizer["error"]])

    def shown(tokens: list[int]) -> str:
        return ", ".join(f"{token} {tokenizer['pieces'].get(str(token), '(no piece)')}" for token in tokens) or "none"

    rows = [["vocabulary", f"{tokenizer['vocab_size']:,}"], ["BOS", shown([tokenizer["bos_id"]])],
            ["EOS", shown([tokenizer["eos_id"]])], ["texts end at", shown(tokenizer["eos_ids"])],
            ["prompts begin with", shown(tokenizer["prompts_begin_with"])]]
    differs = [f"the model has {ids:,} ids"] if tokenizer["vocab_size"] != ids else []
    return Table("tokenizer", ["tokenizer", f"{tokenizer['kind']} ({tokenizer['file']})"], rows, notes=differs)


_STATISTICS = ["mean", "std", "min", "max", "non_finite"]


def _table_of_tensors(tensors: list[_Figures], width: int) -> Table:
    """One row per tensor; the names in other formats are columns where `width` characters hold them, else lines of the first."""
    names = [[row["name"], row["hf"] or "-", row["meta"] or "-"] for row in tensors]
    figures = [[_shape(row), row["dtype"], f"{row['bytes']:,}", *_cells(row, _STATISTICS)] for row in tensors]
    header = ["name", "Hugging Face", "Meta", "shape", "dtype", "bytes", *map(_title, _STATISTICS)]
    rows = [[*named, *cells] for named, cells in zip(names, figures, strict=True)]
    if sum(max(map(len, column)) + 3 for column in zip(header, *rows, strict=True)) >= width:
        header = ["name, in Hugging Face's and in Meta's form", *header[3:]]
        rows = [["\n".join(named), *cells] for named, cells in zip(names, figures, strict=True)]
    marked = {place for place, row in enumerate(tensors) if row["non_finite"]}
    notes = [f"{len(marked):,} tensor(s) hold values that are NaN or infinite; statistics are of the others"] if marked else []
    size = sum(row["bytes"] for row in tensors)
    return Table(f"{len(tensors):,} tensors, {size:,} bytes", header, rows, highlighted=marked, notes=notes)


def _tables_of_one(tensors: list[_Figures]) -> list[Table]:
    """Statistics and percentiles of a tensor, or of each layer's, and the first values of the first."""
    first, shares = tensors[0], list(tensors[0]["percentiles"])
    header = ["name", *map(_title, _STATISTICS), *(f"{share}%" for share in shares)]
    rows = [[row["name"], *_cells(row, _STATISTICS), *_cells(row["percentiles"], shares)] for row in tensors]
    statistics = Table("statistics and percentiles of the finite values", header, rows)
    about = Table(first["name"], ["name", first["name"]], [
        ["Hugging Face", first["hf"] or "-"], ["Meta", first["meta"] or "-"], ["shape", _shape(first)],
        ["dtype", first["dtype"]], ["bytes", f"{first['bytes']:,}"]])
    if len(tensors) == 1:
        about.rows += transposed(statistics).rows
    axes = ["0"] * (len(first["shape"]) - 2) + ["i", "j"][-len(first["shape"]):]
    values = first["corner"] if len(first["shape"]) > 1 else [first["corner"]]
    shown = Table(f"{first['name']} at [{', '.join(axes)}]", ["", *map(str, range(len(values[0])))],
                  [[str(n), *map(_number, row)] for n, row in enumerate(values)])
    return [about, shown] if len(tensors) == 1 else [about, statistics, shown]


def _shape(row: _Figures) -> str:
    return " x ".join(map(str, row["shape"]))


def _title(name: str) -> str:
    return name.replace("_", "-")


def _cells(figures: _Figures, names: list[str]) -> list[str]:
    return [_number(figures[name]) for name in names]


def _number(value: float | int | str | None) -> str:
    """A figure in few characters: what is not there is a dash, and what is not finite its name."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{float(value):.4g}"
