"""The command line: every field by its dotted name, one sentence and the right code for every mistake."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_jax.__main__ import run_command
from llama_jax.cli.find_config import packaged_configs
from llama_jax.cli.parsing import apply_overrides, parse_train
from llama_jax.cli.train import run_directory
from llama_jax.config import Config, to_dict
from llama_jax.config.file import field_names, load_config
from llama_jax.errors import ConfigError, DataError, LlamaError, exit_code_of
from llama_jax.training import loop

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tiny.py")


def main(arguments: list[str]) -> int:
    return run_command("train", arguments, prog="python train.py")


@pytest.fixture
def runs(monkeypatch) -> list[tuple[Config, Path]]:
    """What `fit` was called with."""
    calls = []
    monkeypatch.setattr(loop, "fit", lambda config, workdir, evaluators: calls.append((config, workdir)))
    return calls


def error_of(capsys, *arguments: str, code: int = 2) -> str:
    """The sentence that a bad command line ends in."""
    assert main(list(map(str, arguments))) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def test_any_field_by_its_dotted_name(runs):
    arguments = ["--model.num_layers", "2", "--optimizer.peak_lr=1e-2", "--data.sources", "a=1", "b=2",
                 "--mesh.fsdp", "-1", "--mesh.data", "1", "--training.sample_prompts", "x y",
                 "--model.tied_embeddings", "True", "--workdir", "W"]
    assert main(["--config", TINY, *arguments]) == 0
    ((config, workdir),) = runs
    assert (config.model.num_layers, config.optimizer.peak_lr, config.mesh.fsdp) == (2, 0.01, -1)
    assert config.data.sources == ("a=1", "b=2") and config.training.sample_prompts == ("x y",)
    assert config.model.tied_embeddings is True and workdir == Path("W")
    assert config.model.dim == load_config(Path(TINY)).model.dim


def test_the_run_is_named_after_the_config(runs):
    assert main([f"--config={TINY}"]) == 0
    assert main(["--name", "other", "--config", TINY]) == 0
    assert [(config.name, str(workdir)) for config, workdir in runs] == [("tiny", "runs/tiny"), ("other", "runs/other")]


def test_a_runs_own_config_json_is_a_config(runs, tmp_path):
    main(["--config", TINY, "--training.seed", "5"])
    (tmp_path / "config.json").write_text(json.dumps(to_dict(runs[0][0])))
    assert main(["--config", str(tmp_path / "config.json"), "--workdir", str(tmp_path)]) == 0
    assert runs[1] == (runs[0][0], tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_json_behind_a_byte_order_mark(runs, tmp_path, encoding):
    (tmp_path / "mine.json").write_text('{"model": {"num_layers": 3}}', encoding=encoding)
    assert main(["--config", str(tmp_path / "mine.json")]) == 0
    assert runs[0][0].model.num_layers == 3


def test_help_lists_every_field_with_a_sentence(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # one column of options
    with pytest.raises(SystemExit) as caught:
        main(["--config", TINY, "--help"])
    text = " ".join(re.sub(r"[^\x00-\x7f]", "", capsys.readouterr().out).split())
    assert caught.value.code == 0
    names = [*field_names(Config), "workdir"]
    assert {"name", "model.dim", "data.sources", "mesh.tensor", "checkpoint.keep_every"} <= set(names)
    for name in names:
        assert re.search(rf"--{re.escape(name)} [^-]*?[A-Z].*?[a-z]\S* .*?\(default: ", text), name
    assert "--optimizer.warmup_steps INT Steps of linear warmup from 0. (default: 50)" in text


def test_help_without_a_config(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and "usage: python train.py --config FILE" in out
    listed = dict(re.findall(r"^  (\S+) +(\S.*)$", out, re.MULTILINE))
    for file in sorted({*(ROOT / "configs").rglob("*.py")} - {*(ROOT / "configs/ablations").glob("*.py")}):
        name = file.relative_to(ROOT / "configs").with_suffix("").as_posix()
        assert file.read_text().startswith(f'"""{listed.pop(name)}\n')
    assert listed == {}


def test_the_package_brings_the_configs_of_the_repository():
    folder = ROOT / "configs"
    assert {name: file.resolve() for name, file in packaged_configs().items()} == {
        file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.py")}


@pytest.mark.parametrize("name", ["tiny", "configs/tiny.py", "configs/tiny", "tiny.py"])
def test_a_packaged_config_by_its_name(runs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # a folder is no config
    assert main(["--config", name]) == 0
    assert runs == [(load_config(Path(TINY)), Path("runs/tiny"))]


@pytest.mark.parametrize("name", ["tiny.py", "configs/tiny.py"])
def test_a_file_wins_over_a_name(runs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / name).write_text("from llama_jax.config import Config\ndef get_config():\n    return Config(name='mine')\n")
    assert main(["--config", name]) == 0
    assert runs[0][0].name == "mine"


def test_unknown_configs_are_answered_with_the_nearest_and_all(capsys):
    said = error_of(capsys, "--config", "llama2_7B")
    assert "no config file llama2_7B, and no packaged config of that name; did you mean llama2_7b" in said
    assert "; known: 13b, 1b, 33b, 65b, 7b, data/seven, llama2_13b, " in said


@pytest.mark.parametrize("arguments, sentence", [
    (["--model.dimm", "3"], "unknown argument --model.dimm; did you mean model.dim"),
    (["--seq_lenght=3"], "unknown argument --seq_lenght=3; did you mean data.sequence_length"),
    (["--wrokdir", "x"], "unknown argument --wrokdir; did you mean workdir?"),
    (["--model.attention", "reference"], "--model.attention is --compute.attention now."),
    (["--model.remat=full"], "--model.remat is --compute.remat now."),
    (["--model.dtype", "float32"], "--model.dtype is --compute.dtype now."),
    (["--model.scan-layers", "True"], "--model.scan_layers is --compute.scan_layers now."),
    (["--training.loss_chunk", "8"], "--training.loss_chunk is --compute.loss_chunk now."),
    (["stray"], "unexpected argument 'stray'; overrides read --any.field VALUE."),
    (["--model.num_heads=4", "--model.num_kv_heads=3"], "of model.num_kv_heads, got 4 query heads and 3 kv heads."),
    (["--training.batch_size", "0"], "training.batch_size must be positive, got 0."),
    (["--data.sequence_length=64", "--model.max_length=32"], "must not exceed model.max_length, got 64 and 32."),
    (["--data.sources", "a", "a"], "name a twice"),
    (["--data.sources", "wiki=1", "books=0", "--data.stages", "1e6: boks=1"], "'boks' is no source of data.sources; did you mean "
     "books?"),
    (["--data.stage", "1e6: tinyshakespeare=1"], "unknown argument --data.stage; did you mean data.stages"),
    (["--data.on_max_epochs", "stopp"], "data.on_max_epochs cannot be 'stopp'; did you mean stop?"),
    (["--compute.dtype", "float16"], "compute.dtype cannot be 'float16'; did you mean bfloat16 or float32?"),
    (["--model.norm-position=pos", "--model.dim", "64"], "model.norm_position cannot be 'pos'; did you mean post?"),
    (["--model.rope_scaling.kind", "linaer"], "model.rope_scaling.kind cannot be 'linaer'; did you mean linear?"),
])
def test_bad_overrides(capsys, runs, arguments, sentence):
    assert sentence in error_of(capsys, "--config", TINY, *arguments)
    assert not runs


@pytest.mark.parametrize("arguments, words", [(["--model.dim", "abc"], "--model.dim"), (["--compute.dtype"], "--compute.dtype")])
def test_values_that_cannot_be_read_end_in_usage(capsys, runs, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(["--config", TINY, *arguments])
    assert caught.value.code == 2 and words in capsys.readouterr().err and not runs


@pytest.mark.parametrize("name, content, sentence", [
    ("a.py", "import nothing_here", "a.py: line 1 raises ModuleNotFoundError: No module named 'nothing_here'"),
    ("a.py", "x = 1\ndef get_config():\n    return 1 / 0", "a.py: line 3 raises ZeroDivisionError: division by zero"),
    ("a.py", "def get_config(:", "a.py: line 1 raises SyntaxError: invalid syntax"),
    ("a.py", "x = 1", "a.py: it should define get_config() that returns a llama_jax.config.Config."),
    ("a.py", "def get_config():\n    return 3", "a.py: it should define get_config()"),
    ("a.py", "from llama_jax.config import *\ndef get_config():\n    return ModelConfig(dim=-1)",
     "a.py: model.dim must be positive, got -1."),
    ("a.json", '{"model": {"dim": 3,,}}', "a.json is not JSON (Expecting property name"),
    ("a.json", "", "a.json is not JSON (Expecting value"),
    ("a.json", "[]", "a.json should hold an object, got []."),
    ("a.json", '{"model": {"dimm": 3}}', "a.json: unknown key model.dimm; did you mean dim"),
    ("a.json", b"\xff", "a.json is not JSON ('utf-8' codec can't decode"),
    ("a.yaml", "a: 1", "--config wants a .py or .json file, got"),
])
def test_bad_config_files(capsys, runs, tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert sentence in error_of(capsys, "--config", tmp_path / name)


def test_no_config(capsys, tmp_path):
    assert "there is no config file none.py, and no packaged config of that name" in error_of(capsys, "--config", "none.py")
    assert f"there is no config file {tmp_path}, and" in error_of(capsys, "--config", tmp_path)
    assert "--config is missing. usage: python train.py --config FILE" in error_of(capsys, "--model.dim", "3")
    assert "--config is missing" in error_of(capsys, "--config")


@pytest.mark.parametrize("error, code", [(ConfigError, 2), (DataError, 3), (LlamaError, 1)])
def test_exit_codes(capsys, error, code):
    def fail():
        raise error("what is wrong.")

    assert exit_code_of(fail) == code
    assert capsys.readouterr().err == "error: what is wrong.\n"
    assert exit_code_of(lambda: None) == 0


@pytest.mark.parametrize("arguments, code, sentence", [
    (["--data.sources", "missing.txt"], 3, "data source missing.txt does not exist."),
    (["--data.tokenizer", "missing"], 3, "no tokenizer at missing: expected a SentencePiece file or a folder"),
    (["--training.batch_size", "12", "--training.accumulation_steps", "2"], 2, "micro-batch of 6 sequences"),
    (["--mesh.data", "3"], 2, "does not fill 8 device(s)"),
    (["--mesh.tensor", "8", "--model.num_heads=2", "--model.num_kv_heads=2"], 2,
     "model.num_heads = 2 does not divide by mesh.tensor = 8"),
])
def test_mistakes_that_only_the_run_can_see(capsys, tmp_path, arguments, code, sentence):
    assert sentence in error_of(capsys, "--config", TINY, "--workdir", tmp_path / "run", *arguments, code=code)


def test_train_py_itself(tmp_path):
    """train.py as people call it: the code and the streams of a real process."""
    process = subprocess.run([sys.executable, ROOT / "train.py", "--config", TINY, "--model.dimm", "3"], cwd=tmp_path,
                             env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("error: unknown argument --model.dimm")
    assert not list(tmp_path.iterdir())


def test_parse_leaves_what_is_not_named():
    config = load_config(Path(TINY))
    assert apply_overrides(config, []) == config
    asked = parse_train(["--config", TINY], prog="train")
    assert (asked.fields, run_directory(asked)) == (config, Path("runs/tiny"))
