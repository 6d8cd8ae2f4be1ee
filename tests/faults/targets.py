"""What is damaged: for each kind of file a good folder, which files of it are damaged, and how the product uses it."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from tests.faults.mutations import NUMBERS, WORDS, damage_json

TEXT = "The quick brown fox jumps over the lazy dog. It was 1,234 years ago; naïve café, 龘 and \U0001f99d!\n"


class Target(NamedTuple):
    """One kind of input."""

    make: Callable[[Path], None]
    """Writes good files into an empty folder."""
    use: Callable[[Path], Any]
    """Reads the folder as the product does."""
    damaged: tuple[str, ...]
    """Glob patterns of the files that are damaged."""
    summed: bool = False
    """Whether the files carry checksums: `use` then returns a hash of all that it read, and damage must not change it."""


def train_tokenizer():
    from llama_jax.tokenizer.training import train_sentencepiece

    rng = Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(1, 8))) for _ in range(300)]
    return train_sentencepiece([TEXT * 20 + " ".join(rng.choices(words, k=5000))], 512)


def make_prepared(folder: Path) -> None:
    from llama_jax.data.prepare import prepare_data

    text = folder / "in.jsonl"
    text.write_text("".join(json.dumps({"text": f"{n} {TEXT}" * (1 + n % 3)}) + "\n" for n in range(60)))
    tokenizer = train_tokenizer()
    prepare_data([str(text)], tokenizer, output=folder / "out", shard_tokens=1500, workers=1)


def use_prepared(folder: Path) -> str:
    from llama_jax.data.manifest import verify_shards
    from llama_jax.data.windows import TokenSource

    source = TokenSource(folder / "out", 32)
    source.check_fits(source.manifest.tokenizer_sha256, source.manifest.vocab_size)
    for index in range(min(len(source), 50)):
        source.row([source.span(index)])
    verify_shards(folder / "out")
    tokens, starts = source.read(0, source.manifest.tokens)
    return hashlib.sha256(tokens.tobytes() + starts.tobytes() + repr(source.manifest).encode()).hexdigest()


def make_sentencepiece(folder: Path) -> None:
    train_tokenizer().save(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "bos_token": "<s>", "eos_token":
                                                              {"content": "</s>"}}))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": [2, 5]}))


def make_tokenizer_json(folder: Path) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator([TEXT * 20], trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<unk>"]))
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": {"content": "<s>"}, "unk_token": "<unk>"}))
    (folder / "config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))


def make_tiktoken(folder: Path) -> None:
    pieces = [bytes([byte]) for byte in range(256)] + [b"th", b"he", b"the"]
    (folder / "tokenizer.model").write_bytes(b"".join(base64.b64encode(piece) + b" %d\n" % rank
                                                      for rank, piece in enumerate(pieces)))


def use_tokenizer(folder: Path) -> None:
    from llama_jax.tokenizer.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    str(tokenizer), tokenizer.begin, tokenizer.eos_ids
    ids = tokenizer.encode(TEXT)
    tokenizer.decode(ids)
    for token in [*ids[:20], tokenizer.bos_id, tokenizer.eos_id, 0, tokenizer.vocab_size - 1]:
        tokenizer.piece(token), tokenizer.content(token, first=True), tokenizer.is_byte(token)


def _convert(folder: Path, to: str) -> None:
    from llama_jax.conversion.convert import convert_weights
    from tests.formats.memory import MemorySource, config_of

    convert_weights(MemorySource(config_of(num_layers=2), train_tokenizer()), folder / "model", to)


def use_weights(folder: Path) -> str:
    from llama_jax.formats.base import tokenizer_of
    from llama_jax.formats.mapping import tensors
    from llama_jax.formats.open import open_source

    source = open_source(folder / "model")
    tokenizer = tokenizer_of(source)
    hashed = hashlib.sha256(repr((source.config, tokenizer and tokenizer.sha256)).encode())
    for tensor in tensors(source.config):
        hashed.update(source.read(tensor).tobytes())
    return hashed.hexdigest()


def make_split_hf(folder: Path) -> None:
    """A Hugging Face folder whose weights lie in two files with an index."""
    from safetensors.numpy import load_file, save_file

    _convert(folder, "hf")
    model = folder / "model"
    weights = load_file(model / "model.safetensors")
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, model / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def make_config(folder: Path) -> None:
    from llama_jax.config import Config, DataConfig, ModelConfig, to_dict
    from llama_jax.config.study import Arm, Study

    config = Config(name="x", model=ModelConfig(rope_theta=5e5), data=DataConfig(heldout_fraction=0.1), profile="10:3")
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    (folder / "study.json").write_text(json.dumps(to_dict(Study(name="s", arms=(Arm("a", config), Arm("b", config)),
                                                                baseline="a", lengths=(32, 64)))))


def use_config(folder: Path) -> None:
    from llama_jax.config import to_dict
    from llama_jax.config.file import load_config, load_study

    config = load_config(folder / "config.json")
    json.dumps(to_dict(config), allow_nan=False)
    load_study(folder / "study.json")


def make_records(folder: Path) -> None:
    from llama_jax.evaluation.cache import AnswerCache
    from llama_jax.evaluation.task import GenerationAnswer, GenerationRequest, LikelihoodRequest
    from tests.report.test_compare import likes, piqa, written

    items = [piqa(n, n % 2) for n in range(6)]
    for name, choice in (("a", 0), ("b", 1)):
        written(folder / name, items, likes(items, choice))
    results = json.loads((folder / "b/results.json").read_text())
    del results["tasks"]["piqa"]["items_sha256"]  # as earlier versions wrote it: the items are used without a checksum
    (folder / "b/results.json").write_text(json.dumps(results))
    cache = AnswerCache(folder / "a", "2-a")
    cache.put(cache.key([LikelihoodRequest("a", " b")]), {0: next(iter(likes(items, 0).values()))})
    cache.put(cache.key([GenerationRequest("a")]), {0: GenerationAnswer(("née\u2028 1.5",), ("stop",), 0)})


def use_records(folder: Path) -> None:
    from rich.console import Console

    from llama_jax.evaluation.cache import AnswerCache
    from llama_jax.evaluation.results import earlier_tasks, read_results
    from llama_jax.evaluation.task import Settings
    from llama_jax.report.compare import compare_evaluations
    from llama_jax.report.evaluation import evaluation_tables
    from llama_jax.report.page import print_tables

    results = read_results(folder / "a")
    earlier_tasks(folder / "a", Settings(), fingerprint="2-a")
    print_tables(Console(file=io.StringIO()), [*evaluation_tables(results), compare_evaluations(folder / "a", folder / "b")])
    AnswerCache(folder / "a", "2-a")


_DATA = {
    "boolq/dev.jsonl": [{"question": "is it", "title": "It", "answer": True, "passage": "It is."}],
    "piqa/valid.jsonl": [{"goal": "Eat", "sol1": "chew", "sol2": "run"}],
    "hellaswag/hellaswag_val.jsonl": [{"activity_label": "A", "ctx_a": "He", "ctx_b": "then", "ctx": "He then", "ind": 1,
                                       "endings": ["a", "b", "c", "d"], "label": 2}],
    "arc/ARC-Easy-Test.jsonl": [{"id": "1", "question": {"stem": "Why?", "choices": [{"text": "x", "label": "A"},
                                                                                   {"text": "y", "label": "B"}]},
                                 "answerKey": "B"}],
    "nq_open/NQ-open.dev.jsonl": [{"question": "who wrote it", "answer": ["me", "I"]}],
    "gsm8k/test.jsonl": [{"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\n#### 2"}],
    "lambada/lambada_test.jsonl": [{"text": "the end is near"}],
    "realtoxicityprompts/prompts.jsonl": [{"prompt": {"text": "He said"}}],
    "mbpp/mbpp.jsonl": [{"task_id": 11, "text": "Add.", "code": "def f(): pass", "test_list": ["assert f() is None"],
                         "test_setup_code": ""}],
}
_DATA_TASKS = ["boolq", "piqa", "hellaswag", "arc_easy", "natural_questions_0shot", "gsm8k", "lambada",
               "realtoxicityprompts_basic",
               "triviaqa_0shot", "humaneval_1"]


def make_evaluation_data(folder: Path) -> None:
    for name, rows in _DATA.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    (folder / "piqa/valid-labels.lst").write_text("0\n1\n0\n1\n")
    (folder / "triviaqa").mkdir()
    rows = [{"Question": "Who?", "QuestionId": f"q{n}", "Answer": {"Value": "Me", "Aliases": ["I"], "NormalizedAliases": ["i"]}}
            for n in range(3)]
    for name in ("web-dev.json", "wikipedia-dev.json"):
        (folder / "triviaqa" / name).write_text(json.dumps({"Data": rows}))
    (folder / "humaneval").mkdir()
    programs = [{"task_id": f"HumanEval/{n}", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    pass\n",
                 "test": "def check(c): pass"} for n in range(3)]
    (folder / "humaneval/HumanEval.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in
                                                                                programs).encode()))


def use_evaluation_data(folder: Path) -> None:
    from llama_jax.errors import DataError
    from llama_jax.evaluation.requests import prepare_tasks
    from llama_jax.evaluation.task import Settings

    for task in _DATA_TASKS:
        with contextlib.suppress(DataError):
            prepare_tasks([task], str(folder), settings=Settings())


def make_texts(folder: Path) -> None:
    lines = "".join(json.dumps({"text": f"{n} {TEXT}"}) + "\n" for n in range(20)).encode()
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "c.txt.xz").write_bytes(lzma.compress(TEXT.encode() * 20))
    (folder / "d.txt").write_text(TEXT)
    with pyarrow.output_stream(folder / "e.jsonl.zst", compression="zstd") as stream:
        stream.write(lines)
    pyarrow.parquet.write_table(pyarrow.table({"text": [TEXT] * 20, "n": list(range(20))}), folder / "f.parquet")


def use_texts(folder: Path) -> None:
    from llama_jax.data.sources import find_text_files, read_documents
    from llama_jax.errors import DataError
    from llama_jax.files.jsonl import read_jsonl

    for file in find_text_files(str(folder)):
        with contextlib.suppress(DataError):
            sum(map(len, read_documents(file)))
    read_jsonl(folder / "a.jsonl", ("text",))


def make_metrics(folder: Path) -> None:
    lines = [{"step": n, "tokens": n * 512, "loss": 3.0, "sources": {"a": n}} for n in range(10, 110, 10)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def use_metrics(folder: Path) -> None:
    from llama_jax.training.metrics_file import open_metrics

    open_metrics(folder / "metrics.jsonl", 60).close()


def make_body(folder: Path) -> None:
    bodies = [{"prompt": "Hello", "max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "n": 2, "seed": 7, "stop": ["a", "b"],
               "logprobs": 3, "echo": True, "stream": True, "stream_options": {"include_usage": True}, "user": "me",
               "metadata": {"a": "b"}, "best_of": 2, "logit_bias": {}},
              {"prompt": [[1, 2, 3], "text"], "max_tokens": 0}, {"prompt": [1, 2], "suffix": "", "frequency_penalty": 0}]
    for number, body in enumerate(bodies):
        (folder / f"{number}.json").write_text(json.dumps(body))


def use_body(folder: Path) -> None:
    from llama_jax.serving.protocol import decode_body, parse_request

    for file in sorted(folder.glob("*.json")):
        request = parse_request(decode_body(file.read_bytes()), max_completions=128)
        request.sampling(max_tokens=1, seed=1 if request.seed is None else request.seed)


@cache
def _client():
    """A client of the whole server with a small model behind it, without a socket."""
    from starlette.testclient import TestClient

    from llama_jax.inference.params import decoding_params
    from llama_jax.serving.engine import Engine
    from llama_jax.serving.server import RequestLimits, Server
    from tests.golden.models import small_model

    (model, params), tokenizer = small_model(2), train_tokenizer()
    engine = Engine(model, decoding_params(model, params), tokenizer=tokenizer, slots=4, queue=100)
    limits = RequestLimits(body_bytes=1 << 20, max_completions=16)
    return TestClient(Server(engine, tokenizer, name="small", limits=limits).app(), raise_server_exceptions=False)


def use_server(folder: Path) -> None:
    """Asks the server with each body: the answer is 200, or a refusal."""
    for file in sorted(folder.glob("*.json")):
        _ask_server(file.read_bytes())


@cache
def _ask_server(body: bytes) -> None:
    """Ask with a body; good ones are asked once. Raises RequestError where it is refused."""
    from llama_jax.serving.protocol import RequestError

    answer = _client().post("/v1/completions", content=body)
    if answer.status_code >= 500 or (answer.status_code == 200 and "server_error" in answer.text):
        raise AssertionError(f"{answer.status_code}: {answer.text[:1000]}")
    if answer.status_code != 200:
        raise RequestError(answer.status_code, answer.json()["error"]["message"])


_COMMAND_LINES = [
    ["train", "--config", "tiny", "--training.num_steps", "20", "--optimizer.warmup_steps", "2", "--model.dim", "64",
     "--optimizer.peak_lr", "1e-3",
     "--data.sources", "a.txt=0.5", "b.txt=0.5", "--mesh.data", "1", "--eval.tasks", "piqa"],
    ["eval", "--checkpoint", "runs/x", "--tasks", "piqa,boolq", "--limit", "3", "--num_fewshot", "0", "--seed", "1"],
    ["generate", "--checkpoint", "runs/x", "--prompt", "a", "--max_new_tokens", "5", "--temperature", "0.5", "--top_k", "3"],
    ["score", "--checkpoint", "runs/x", "--input", "a.jsonl", "--output", "b.jsonl", "--tensor", "1"],
    ["serve", "--checkpoint", "runs/x", "--port", "8000", "--slots", "4", "--max_body", "1000"],
    ["convert", "--source", "a", "--target", "b", "--to", "hf", "--num_kv_heads", "2", "--meta_shards", "1"],
    ["inspect", "--checkpoint", "a", "--tensor", "x"],
    ["plan", "--config", "7b", "--machine", "h100:8", "--mesh.fsdp", "8"],
    ["ablate", "--config", "norm", "--seeds", "3", "--jobs", "2", "--training.num_steps", "2000"],
    ["prepare", "--input", "a.txt", "--tokenizer", "t", "--output", "o", "--workers", "2", "--shard_tokens", "1000",
     "--heldout_fraction", "0.1"],
    ["tokenizer", "train", "--input", "a.txt", "--output", "o", "--vocab_size", "512"],
]


def make_command_lines(folder: Path) -> None:
    for number, words in enumerate(_COMMAND_LINES):
        (folder / f"{number:02d}.args").write_text("\n".join(words))


def damage_command_line(data: bytes, rng: Random) -> bytes:
    """Another command line, one word per line: values at the edges of their kinds, words that are missing or twice."""
    words = damage_json(data.decode().split("\n"), rng) if rng.randrange(3) == 0 else data.decode().split("\n")
    if isinstance(words, list) and len(words) > 1:
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(1, len(words))] = str(rng.choice([*NUMBERS, *WORDS, "1_000", "0x10", "true", "None", "-5"]))
    words = words if isinstance(words, list) else [words]
    return "\n".join(str(word) for word in words).encode(errors="replace")


def use_command_line(folder: Path) -> None:
    """Parses the command lines; what a command then does with its options is the business of other kinds."""
    for file in sorted(folder.glob("*.args")):
        _parse_command_line(file.read_bytes())


@cache
def _parse_command_line(words: bytes) -> None:
    """Parse a command line, one word per line; good ones are parsed once. Raises ConfigError where it is refused."""
    from llama_jax.__main__ import COMMANDS
    from llama_jax.cli.find_config import find_config, find_study
    from llama_jax.cli.parsing import apply_overrides, override_study, parse_options
    from llama_jax.config.file import load_config, load_study
    from llama_jax.errors import ConfigError, exit_code_of

    name, *arguments = words.decode().split("\n")
    if name not in COMMANDS:
        return
    command = COMMANDS[name]
    parse = command.parse or partial(parse_options, command.options)

    def parse_all() -> None:
        asked = parse(arguments, prog="llama-jax")
        if name == "plan":
            apply_overrides(load_config(find_config(asked.config)), asked.overrides)
        if name == "ablate":
            override_study(load_study(find_study(asked.config)), asked.overrides)

    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = exit_code_of(parse_all)
    if code:
        raise ConfigError(said.getvalue())


def make_run(folder: Path) -> None:
    _convert(folder, "orbax")


def use_run(folder: Path) -> str:
    """Reads a run directory in both ways, and its tokenizer."""
    import jax

    from llama_jax.formats.loading import load

    hashed = hashlib.sha256(use_weights(folder).encode())
    for leaf in jax.tree.leaves(load(folder / "model")[1]):
        hashed.update(np.asarray(leaf).tobytes())
    return hashed.hexdigest()


TARGETS: dict[str, Target] = {
    "manifest": Target(make_prepared, use_prepared, ("out/manifest.json",), summed=True),
    "shards": Target(make_prepared, use_prepared, ("out/shard_*",), summed=True),
    "sentencepiece": Target(make_sentencepiece, use_tokenizer, ("tokenizer.model", "tokenizer.model", "*.json")),
    "tokenizer_json": Target(make_tokenizer_json, use_tokenizer, (
        "tokenizer.json", "tokenizer.json", "*config.json", "special*")),
    "tiktoken": Target(make_tiktoken, use_tokenizer, ("tokenizer.model",)),
    "safetensors": Target(make_split_hf, use_weights, ("model/*.safetensors", "model/*.safetensors", "model/config.json",
                                                       "model/model.safetensors.index.json")),
    "pth": Target(partial(_convert, to="meta"), use_weights, ("model/*.pth", "model/*.pth", "model/params.json")),
    "run": Target(make_run, use_run, ("model/checkpoints/**/*", "model/checkpoints/0/**/d/*"), summed=True),
    "config": Target(make_config, use_config, ("*.json",)),
    "records": Target(make_records, use_records, (
        "a/results.json", "b/results.json", "a/items/*", "b/items/*", "a/answers.jsonl")),
    "evaluation_data": Target(make_evaluation_data, use_evaluation_data, ("*/*",)),
    "texts": Target(make_texts, use_texts, ("*",)),
    "metrics": Target(make_metrics, use_metrics, ("metrics.jsonl",)),
    "http_body": Target(make_body, use_body, ("*.json",)),
    "http_server": Target(make_body, use_server, ("*.json",)),
    "command_line": Target(make_command_lines, use_command_line, ("*.args",)),
}
"""Every kind of input, by name."""
