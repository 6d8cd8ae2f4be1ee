"""`generate` and `score` as a user types them, on a run directory; `serve` as a process that a signal ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import jax
import numpy as np
import pytest

import llama_jax
from llama_jax.__main__ import main
from llama_jax.cli import generate as command
from llama_jax.cli.load_model import load_model
from llama_jax.config import CheckpointConfig, Config, DataConfig
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.serving.engine import Engine
from llama_jax.tokenizer.training import train_sentencepiece
from tests.golden.models import small_model
from tests.golden.small import FLOAT32

# what orbax leaves behind when it is told of a damaged or missing checkpoint
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.:pytest.PytestUnraisableExceptionWarning")

ROOT = Path(__file__).parents[2]
SAMPLING = llama_jax.Sampling(max_new_tokens=12, temperature=0.8, top_p=0.95, seed=5)
TYPED = ("--max_new_tokens", "12", "--seed", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer) -> Path:
    """A run directory with two steps; the parameters of step 3 are twice those of step 9."""
    run = tmp_path_factory.mktemp("run")
    model, params = small_model(2)
    checkpoints = Checkpoints(run / "checkpoints", CheckpointConfig())
    config = Config(name="small", model=model.config, compute=FLOAT32, data=DataConfig(sequence_length=64))
    for step, factor in ((3, 2.0), (9, 1.0)):
        state = {"params": jax.tree.map(lambda x, by=factor: x * by, params), "step": np.int32(step)}
        checkpoints.save(step, state, config=config)
    checkpoints.close()
    tokenizer.save(run)
    return run


@pytest.fixture
def loaded(folder):
    """(model, params, tokenizer) as the commands load them: what was compiled for one serves the other."""
    loaded = load_model(str(folder), tensor=1)
    with jax.set_mesh(loaded[1].mesh):
        yield loaded


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_load_takes_a_run_and_a_step(folder, tokenizer):
    wanted = small_model(2)[1]["head"]
    for path, factor in ((folder, 1.0), (folder / "checkpoints/9", 1.0), (folder / "checkpoints/3", 2.0)):
        model, params, loaded = llama_jax.load(path)
        np.testing.assert_array_equal(params["head"], factor * wanted)
        assert model.config == small_model(2)[0].config and loaded.sha256 == tokenizer.sha256


def test_a_prompt_streams(folder, loaded, capsys):
    assert run("generate", "--checkpoint", folder, "--prompt", "ROMEO:", *TYPED) == 0
    [wanted] = llama_jax.generate(*loaded, ["ROMEO:"], SAMPLING)
    assert capsys.readouterr() == (f"ROMEO:{wanted.text}\n", "")


def test_samples_and_log_probabilities_are_json_lines(folder, capsys):
    assert run("generate", "--checkpoint", folder, "--prompt", "ROMEO:", *TYPED, "--num_samples", 3, "--logprobs") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["sample"] for row in rows] == [0, 1, 2] and len({row["text"] for row in rows}) == 3
    assert all(row["prompt"] == "ROMEO:" and len(row["tokens"]) == len(row["token_logprobs"]) == 12 for row in rows)


def test_a_file_of_prompts(folder, loaded, tmp_path):
    prompts = [f"Prompt {n}: {'word ' * (n % 7)}" for n in range(6)]
    source = write(tmp_path / "in.jsonl", [{"prompt": prompt, "id": n} for n, prompt in enumerate(prompts)])
    assert run("generate", "--checkpoint", folder, "--prompt_file", source, *TYPED, "--batch_size", 4, "--num_samples", 2,
               "--output", tmp_path / "new/out.jsonl") == 0
    rows = lines(tmp_path / "new/out.jsonl")
    choice = llama_jax.Sampling(max_new_tokens=12, temperature=0.8, top_p=0.95, seed=5, num_samples=2)
    wanted = llama_jax.generate(*loaded, prompts, choice, batch_size=4)
    assert [row["text"] for row in rows] == [result.text for result in wanted]
    assert [(row["id"], row["sample"]) for row in rows] == [(n, k) for n in range(6) for k in (0, 1)]


def test_a_byte_order_mark_is_no_part_of_a_file(folder, tmp_path, capsys):
    """Files of prompts and of pairs may have one; what else a row holds comes back, also half a surrogate pair."""
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "ROMEO:", "context": "The king", "continuation": " lives", '
                                        b'"id": "\\ud83d"}\r\n')
    assert run("generate", "--checkpoint", folder, "--prompt_file", tmp_path / "in.jsonl", *TYPED) == 0
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["prompt"], row["id"]) == ("ROMEO:", "\ud83d") and row["text"]
    assert run("score", "--checkpoint", folder, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl") == 0
    [row] = lines(tmp_path / "out.jsonl")
    assert (row["context"], row["id"]) == ("The king", "\ud83d") and row["logprob"] < 0


def test_the_marked_file_of_the_shared_data(folder, shared_data, capsys):
    assert run("generate", "--checkpoint", folder, "--prompt_file", shared_data / "faults/bom_prompts.jsonl", *TYPED) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "ROMEO:"


def test_equal_lines_of_a_file_get_different_texts(folder, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [{"prompt": "ROMEO:"}] * 3)
    for batch in (1, 16):
        assert run("generate", "--checkpoint", folder, "--prompt_file", source, *TYPED, "--batch_size", batch,
                   "--output", tmp_path / f"{batch}.jsonl") == 0
    assert len({row["text"] for row in lines(tmp_path / "1.jsonl")}) == 3
    assert lines(tmp_path / "1.jsonl") == lines(tmp_path / "16.jsonl")


def test_typed_lines_are_continued_and_mistakes_survived(folder, loaded, monkeypatch, capsys):
    typed = iter(["ROMEO:", "", "x " * 500, "ROMEO:"])

    def type_line(prompt: str) -> str:
        for line in typed:
            return line
        raise EOFError

    monkeypatch.setattr("builtins.input", type_line)
    assert run("generate", "--checkpoint", folder, "--interactive", *TYPED) == 0
    wanted = llama_jax.generate(*loaded, ["ROMEO:"] * 4, SAMPLING)  # each line has a place of its own
    captured = capsys.readouterr()
    assert captured.out == f"{wanted[0].text}\n{wanted[3].text}\n" and wanted[0].text != wanted[3].text
    assert re.fullmatch(r"error: the prompt is empty.*\nerror: the prompt has \d+ tokens.*\n", captured.err)


def test_int8_and_devices_go_the_whole_way(folder, capsys):
    for extra in (("--dtype", "int8"), ("--tensor", "2")):
        assert run("generate", "--checkpoint", folder, "--prompt", "ROMEO:", *TYPED, "--temperature", 0, *extra) == 0
        assert capsys.readouterr().out.startswith("ROMEO:")


def test_score(folder, tokenizer, tmp_path):
    pairs = [("The king", " is dead"), ("The king", " lives"), ("", "First")]
    source = write(tmp_path / "in.jsonl", [{"context": a, "continuation": b, "id": n} for n, (a, b) in enumerate(pairs)])
    assert run("score", "--checkpoint", folder, "--input", source, "--output", tmp_path / "out.jsonl") == 0
    model, params = small_model(2)
    for row, result in zip(lines(tmp_path / "out.jsonl"), llama_jax.loglikelihood(model, params, tokenizer, pairs), strict=True):
        assert set(row) == {"context", "continuation", "id", "logprob", "token_logprobs", "is_greedy"}
        assert row["logprob"] == pytest.approx(result.logprob, abs=1e-5)
        assert row["token_logprobs"] == pytest.approx(result.token_logprobs, abs=1e-5)
        assert row["is_greedy"] == result.is_greedy


def test_score_tells_what_contexts_lost(folder, tokenizer, tmp_path, capsys):
    long = "word " * 100
    source = write(tmp_path / "in.jsonl", [{"context": long, "continuation": " a"}, {"context": "b", "continuation": " a"}])
    assert run("score", "--checkpoint", folder, "--input", source, "--output", tmp_path / "out.jsonl") == 0
    rows, lost = lines(tmp_path / "out.jsonl"), 1 + len(tokenizer.encode(long.strip() + "  a")) - 1 - 64
    assert rows[0]["truncated"] == lost and "truncated" not in rows[1]
    assert capsys.readouterr().err == (f"1 of 2 contexts were longer than the model's of 64 tokens and lost {lost:,} tokens at "
                                       "their beginning\n")


MISTAKES = [
    ("generate", 2, "give one of --prompt TEXT, --prompt_file FILE and --interactive."),
    ("generate --prompt a --interactive", 2, "give one of --prompt TEXT"),
    ("generate --prompt=", 2, "the prompt is empty"),
    ("generate --prompt a --temperature -1", 2, "temperature must"),
    ("generate --prompt a --top_p 1.5", 2, "top_p must"),
    ("generate --prompt a --max_new_tokens -1", 2, "max_new_tokens must"),
    ("generate --prompt a --num_samples 0", 2, "num_samples must"),
    ("generate --prompt a --batch_size 0", 2, "batch_size must be positive"),
    ("generate --prompt a --tensor 99", 2, "tensor must lie in [1, 8]"),
    ("generate --prompt_file {long}", 2, "long.jsonl, prompt 2: the prompt has"),
    ("generate --prompt_file missing", 3, "cannot read missing: No such file or directory."),
    ("generate --prompt_file {bad}", 3, "bad.jsonl, line 2: not JSON"),
    ("generate --prompt_file {latin}", 3, "latin.jsonl, line 1: not UTF-8."),
    ("score --input {long} --output out", 3, "long.jsonl, line 1: expected an object with the text 'context'."),
    ("score --input {empty} --output out", 3, "request 1 has an empty continuation"),
    ("generate --prompt_file {half}", 3, "half.jsonl, line 1: 'prompt' holds half a surrogate pair"),
    ("generate --prompt a --output .", 3, "cannot write .: it is a folder; name a file."),
    ("score --input {pair} --output {pair}/out", 3, "cannot make the folder"),
    ("serve --slots 0", 2, "slots, queue, max_body, max_samples and max_connections must be positive."),
]


@pytest.mark.parametrize("arguments, code, sentence", MISTAKES)
def test_mistakes(folder, tmp_path, monkeypatch, capsys, arguments, code, sentence):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "long.jsonl", [{"prompt": "fine"}, {"prompt": "long " * 100}])
    write(tmp_path / "empty.jsonl", [{"context": "a", "continuation": ""}])
    write(tmp_path / "pair.jsonl", [{"context": "a", "continuation": "b"}])
    write(tmp_path / "half.jsonl", [{"prompt": "a\ud83d"}])
    (tmp_path / "bad.jsonl").write_text('{"prompt": "fine"}\n{"prompt": \n')
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}\n'.encode("latin-1"))
    words = arguments.format(**{file.stem: file for file in tmp_path.glob("*.jsonl")}).split()
    assert run(words[0], "--checkpoint", folder, *words[1:]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and sentence in captured.err
    assert not (tmp_path / "out").exists()


def test_checkpoints_that_are_not_there_or_do_not_fit(folder, tmp_path, play, capsys):
    def error(path: Path, code: int) -> str:
        assert run("generate", "--checkpoint", path, "--prompt", "a") == code
        return capsys.readouterr().err

    assert "there is no such folder" in error(tmp_path / "none", 3)
    assert "expected a run directory" in error(tmp_path, 3)
    assert "expected a run directory" in error(folder / "checkpoints", 3)
    other = tmp_path / "other"
    other.mkdir()
    (other / "checkpoints").symlink_to(folder / "checkpoints")
    assert "no tokenizer at" in error(other, 3)
    train_sentencepiece([play], 400).save(other)
    assert "has 400 pieces and the model 512" in error(other, 2)


@pytest.fixture(scope="module")
def bfloat16(tmp_path_factory, tokenizer) -> dict[str, Path]:
    """Run and Hugging Face folder of a model that computes in bfloat16."""
    root = tmp_path_factory.mktemp("bfloat16")
    model, params = small_model(2)
    checkpoints = Checkpoints(root / "orbax/checkpoints", CheckpointConfig())
    config = Config(model=model.config, data=DataConfig(sequence_length=64))
    checkpoints.save(1, {"params": params, "step": np.int32(1)}, config=config)
    checkpoints.close()
    tokenizer.save(root / "orbax")
    assert run("convert", "--source", root / "orbax", "--target", root / "hf", "--to", "hf", "--dtype", "bfloat16") == 0
    return {"orbax": root / "orbax", "hf": root / "hf"}


def float32_bytes() -> int:
    return sum(array.nbytes for array in jax.live_arrays() if array.dtype == np.float32)


@pytest.mark.parametrize("dtype", ["stored", "int8"])
@pytest.mark.parametrize("kind", ["orbax", "hf"])
def test_no_float32_weights_stay(bfloat16, monkeypatch, capsys, kind, dtype):
    """While generate decodes and serve listens, what is left in float32 is less than one matrix: norms and scales."""
    seen, before, engines = [], 0, []

    def spy(*arguments, **named):
        seen.append(float32_bytes() - before)
        return iter(())

    class Spied(Engine):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            engines.append(self)

    monkeypatch.setattr(command, "stream", spy)
    monkeypatch.setattr("uvicorn.run", spy)
    monkeypatch.setattr("llama_jax.serving.engine.Engine", Spied)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    matrix = 4 * 512 * 32
    try:
        for words in (["generate", "--prompt", "A"], ["serve"]):
            before = float32_bytes()
            assert run(words[0], "--checkpoint", bfloat16[kind], *words[1:], "--dtype", dtype) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for engine in engines:
            engine.stop()
    assert len(seen) == 2 and len(engines) == 1 and max(seen) < matrix / 4


@pytest.mark.parametrize("quiet", [False, True])
def test_serve_answers_until_a_signal_and_finishes_what_runs(folder, quiet):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "llama_jax", "serve", "--checkpoint", folder, "--port", str(port), "--slots", "2"]
    words += ["--quiet"] * quiet
    server = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=os.environ | {"LLAMA_JAX_API_KEY": "secret"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer secret"}, timeout=60) as client:
            end = time.monotonic() + 60
            while True:
                try:
                    assert client.get("/health").status_code == 200
                    break
                except httpx.ConnectError:
                    assert server.poll() is None and time.monotonic() < end, "the server does not come up"
                    time.sleep(0.1)
            assert client.get("/v1/models", headers={"Authorization": "Bearer other"}).status_code == 401
            body = {"model": folder.name, "prompt": "ROMEO:", "max_tokens": 50, "stream": True}
            with client.stream("POST", "/v1/completions", json=body) as response:
                pieces = response.iter_lines()
                assert next(pieces).startswith("data: ")
                server.send_signal(signal.SIGTERM)
                rest = [line for line in pieces if line]
            assert rest[-1] == "data: [DONE]"
        output, errors = server.communicate(timeout=60)
        assert re.search(rf"^{folder.name}: 2 slots of 64 tokens, http://127.0.0.1:{port}/v1$", output, re.MULTILINE)
        assert server.returncode == 0
        told = [line.split()[2:5] for line in errors.splitlines()]  # one line per request and nothing else
        wanted = [["GET", "/health", "200"], ["GET", "/v1/models", "401"], ["POST", "/v1/completions", "200"]]
        assert told == ([] if quiet else wanted)
    finally:
        server.kill()
