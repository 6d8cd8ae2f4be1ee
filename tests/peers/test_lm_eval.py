"""lm-evaluation-harness with its Hugging Face model, our `--protocol lm_eval` and our adapter inside it: one result."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from llama_jax.config import ModelConfig
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer
from tests.evaluation.conftest import save_run, small_config
from tests.golden.small import random_params

pytestmark = pytest.mark.peers
pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
lm_eval = pytest.importorskip("lm_eval")

from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from llama_jax.evaluation.answers import Answerer  # noqa: E402
from llama_jax.evaluation.cache import AnswerCache  # noqa: E402
from llama_jax.evaluation.harness import evaluate_tasks  # noqa: E402
from llama_jax.evaluation.lm_eval import LlamaJax  # noqa: E402
from llama_jax.evaluation.requests import prepare_tasks  # noqa: E402
from llama_jax.evaluation.task import Settings  # noqa: E402
from llama_jax.formats.loading import load  # noqa: E402
from tests.golden.make_transformers import hf_model  # noqa: E402

TASKS = Path(lm_eval.__file__).parent / "tasks"
LIMIT = 8

NAMES = {"boolq": "super_glue/boolq/default", "piqa": "piqa/piqa", "siqa": "siqa/siqa", "hellaswag": "hellaswag/hellaswag",
         "winogrande": "winogrande/default", "arc_easy": "arc/arc_easy", "arc_challenge": "arc/arc_challenge",
         "openbookqa": "openbookqa/openbookqa",
         "race_high": "race/race", "mmlu": "mmlu/default/mmlu_world_religions"}
"""The YAML of lm-evaluation-harness for each of our tasks, whose prompts and metrics are used as they are."""


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def labelled(folder: Path, name: str, field: str) -> list[dict]:
    labels = (folder / f"{name}-labels.lst").read_text().split()
    return [row | {field: label} for row, label in zip(lines(folder / f"{name}.jsonl"), labels, strict=True)]


def choices_of(row: dict) -> dict:
    choices = row["question"]["choices"]
    return {"choices": {name: [choice[name] for choice in choices] for name in ("text", "label")},
            "answerKey": row["answerKey"], "question": row["question"]["stem"], "question_stem": row["question"]["stem"]}


def mmlu_rows(file: Path) -> list[dict]:
    import csv

    with file.open(newline="") as stream:
        return [{"question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5])} for row in csv.reader(stream)]


def race_rows(folder: Path) -> list[dict]:
    files = sorted(folder.glob("*.txt"), key=lambda file: int(file.stem))
    passages = [json.loads(file.read_text()) for file in files]
    return [{"article": p["article"], "problems": str([
        {"question": q, "answer": a, "options": o} for q, a, o in zip(p["questions"], p["answers"], p["options"], strict=True)])}
            for p in passages]


def records(data: Path) -> dict[str, dict[str, list[dict]]]:
    """Our files in the columns that the hub has, task -> split -> rows."""
    boolq = [{"passage": f"{row['title']} -- {row['passage']}", "question": row["question"], "label": int(row["answer"])}
             for row in lines(data / "boolq/dev.jsonl")]
    piqa = [row | {"label": int(row["label"])} for row in labelled(data / "piqa", "valid", "label")]
    return {
        "boolq": {"validation": boolq}, "piqa": {"validation": piqa},
        "siqa": {"validation": labelled(data / "siqa", "dev", "label")},
        "hellaswag": {"validation": lines(data / "hellaswag/hellaswag_val.jsonl")},
        "winogrande": {"validation": labelled(data / "winogrande", "dev", "answer")},
        "arc_easy": {"test": [choices_of(row) for row in lines(data / "arc/ARC-Easy-Test.jsonl")]},
        "arc_challenge": {"test": [choices_of(row) for row in lines(data / "arc/ARC-Challenge-Test.jsonl")]},
        "openbookqa": {"test": [choices_of(row) for row in lines(data / "openbookqa/test.jsonl")]},
        "race_high": {"test": race_rows(data / "race/test/high")},
        "mmlu": {"test": mmlu_rows(data / "mmlu/test/world_religions_test.csv"),
                 "dev": mmlu_rows(data / "mmlu/dev/world_religions_dev.csv")},
    }


def write_tasks(folder: Path, data: Path, more: str = "") -> None:
    """Their YAMLs, reading local files; `more` lines end each."""
    for name, splits in records(data).items():
        files = {}
        for split, rows in splits.items():
            files[split] = str(folder / f"{name}_{split}.jsonl")
            Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        unused = "".join(f"{kind}_split: null\n" for kind in ("training", "validation", "test") if kind not in splits)
        (folder / f"{name}.yaml").write_text(
            f"include: {TASKS / NAMES[name]}.yaml\ntask: ours_{name}\ndataset_path: json\ndataset_name: null\ntag: null\n"
            f"{unused}dataset_kwargs:\n  data_files: {json.dumps(files)}\n{more}")


def spelled(tokenizer: Tokenizer) -> transformers.PreTrainedTokenizer:
    """SentencePiece itself behind transformers' interface: its own conversion cuts runs of spaces otherwise."""
    class Spelled(transformers.PreTrainedTokenizer):
        def __init__(self):
            super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>")

        @property
        def vocab_size(self) -> int:
            return tokenizer.vocab_size

        def get_vocab(self) -> dict[str, int]:
            return {tokenizer._processor.IdToPiece(i): i for i in range(tokenizer.vocab_size)}

        def _tokenize(self, text: str, **_) -> list[str]:
            return [tokenizer._processor.IdToPiece(i) for i in tokenizer.encode(text)]

        def _convert_token_to_id(self, token: str) -> int:
            return tokenizer._processor.PieceToId(token)

        def _convert_id_to_token(self, index: int) -> str:
            return tokenizer._processor.IdToPiece(index)

        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            if tokens in (["<s>"], ["</s>"]):  # lm-evaluation-harness asks what these look like in a text
                return tokens[0]
            return tokenizer.decode([self._convert_token_to_id(token) for token in tokens])

        def build_inputs_with_special_tokens(self, ids: list[int], more: list[int] | None = None) -> list[int]:
            return [tokenizer.bos_id, *ids]

    return Spelled()


@pytest.fixture(scope="module")
def sides(shared_data, tmp_path_factory) -> SimpleNamespace:
    """The same weights behind three interfaces, and lm-evaluation-harness's tasks on our records."""
    folder = tmp_path_factory.mktemp("lm_eval")
    tokenizer = load_tokenizer(shared_data / "tokenizer/llama-tokenizer.model")
    config = ModelConfig(vocab_size=32_000, dim=64, num_layers=3, num_heads=8, num_kv_heads=4, ffn_dim=160, max_length=2048)
    params = random_params(config, 0)
    run = save_run(folder / "run", config, params, tokenizer)
    write_tasks(folder, shared_data / "eval")
    theirs = HFLM(pretrained=hf_model(config, params).eval(), tokenizer=spelled(tokenizer), max_length=config.max_length,
                  device="cpu", batch_size=8, add_bos_token=True)
    return SimpleNamespace(folder=folder, run=run, theirs=theirs, adapter=LlamaJax(checkpoint=str(run)))


def asked(model, sides) -> dict[str, dict]:
    """Accuracies and samples by task, as lm-evaluation-harness gives them."""
    manager = TaskManager(include_path=str(sides.folder), include_defaults=False)
    results = {}
    for shots, names in ((0, [name for name in NAMES if name != "mmlu"]), (5, ["mmlu"])):
        given = lm_eval.simple_evaluate(model=model, tasks=[f"ours_{name}" for name in names], task_manager=manager,
                                        num_fewshot=shots, limit=LIMIT, log_samples=True, bootstrap_iters=0)
        results |= {name: {"numbers": given["results"][f"ours_{name}"], "samples": given["samples"][f"ours_{name}"]}
                    for name in names}
    return results


def ours(sides, data: Path) -> dict[str, dict]:
    """Task -> what `--protocol lm_eval` gives."""
    settings = Settings(protocol="lm_eval")
    jobs = prepare_tasks(list(NAMES), str(data), settings=settings, limit=LIMIT)
    jobs = [replace(job, items=[item for item in job.items if item.tags.get("subject", "world_religions") == "world_religions"])
            for job in jobs]
    answerer = Answerer(*load(sides.run))
    results = evaluate_tasks(jobs, answerer, settings=settings, cache=AnswerCache(None, ""), progress=lambda name, new: None)
    return {result.prepared.task.name: result for result in results}


def logprobs(sample: dict) -> list[float]:
    return [float(value) for value, _ in sample["filtered_resps"]]


def test_one_result_three_ways(sides, shared_data):
    hugging_face, adapter = asked(sides.theirs, sides), asked(sides.adapter, sides)
    mine = ours(sides, shared_data / "eval")
    assert set(mine) == set(hugging_face) == set(NAMES)
    compared = 0
    for name, result in mine.items():
        theirs, through = hugging_face[name], adapter[name]
        assert len(result.prepared.items) == len(theirs["samples"]) == len(through["samples"]) == LIMIT
        for item, answers, sample, other in zip(result.prepared.items, result.answers, theirs["samples"], through["samples"],
                                                strict=True):
            count = len(answers) // 2
            got = [answer.logprob for answer in answers[:count]]
            prompts = [(request.context, request.continuation) for request in item.requests[:count]]
            assert prompts == [tuple(one) for one in sample["arguments"]], name
            np.testing.assert_allclose(got, logprobs(sample), atol=1e-3)
            np.testing.assert_allclose(logprobs(other), logprobs(sample), atol=1e-3)
            assert np.argmax(got) == np.argmax(logprobs(sample)) == np.argmax(logprobs(other))
            compared += count
        for metric, field in (("acc_raw", "acc,none"), ("acc_char", "acc_norm,none")):
            if field in theirs["numbers"]:
                assert result.numbers[metric].value == theirs["numbers"][field] == through["numbers"][field], (name, metric)
    assert compared > 200


def test_rolling_and_generation(sides, monkeypatch):
    from lm_eval.api.instance import Instance

    texts = ["First Citizen: before we proceed any further, hear me speak.", "a"]
    rolling = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    with monkeypatch.context() as patch:
        patch.setattr(sides.theirs, "add_bos_token", False)  # it sets BOS before a rolling text itself, and would score a second
        theirs = sides.theirs.loglikelihood_rolling(rolling, disable_tqdm=True)
    np.testing.assert_allclose(sides.adapter.loglikelihood_rolling(rolling, disable_tqdm=True), theirs, atol=1e-3)
    wanted = {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": False}
    prompts = [Instance("generate_until", {}, (text, wanted), 0) for text in texts]
    ours, theirs = (side.generate_until(prompts, disable_tqdm=True) for side in (sides.adapter, sides.theirs))
    assert [text.lstrip() for text in ours] == [text.lstrip() for text in theirs]  # theirs loses the space between words
    wanted = {"max_gen_toks": 8, "do_sample": True, "temperature": 1.0}

    def samples(*documents: int) -> list[str]:
        asked = [Instance("generate_until", {}, ("a", wanted), 0, ("some_task", n, 2)) for n in documents]
        return sides.adapter.generate_until(asked, disable_tqdm=True)

    drawn = samples(0, 0, 1, 1, 2)  # two repeats of a document as lm-evaluation-harness makes them
    assert len(set(drawn)) == 5 and samples(2, 1) == [drawn[4], drawn[2]]


def test_the_harness_cache_of_another_model_is_refused(tokenizer, tmp_path):
    """--use_cache files answers by request alone; ours notes whose they are. Another seed is another owner too."""
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CachingLM

    from llama_jax.errors import DataError

    def asked() -> list:
        return [Instance("loglikelihood", {}, (context, " king"), 0) for context in ("the", "my")]

    config = small_config(tokenizer.vocab_size)
    runs = [str(save_run(tmp_path / f"run{seed}", config, random_params(config, seed), tokenizer)) for seed in (0, 1)]
    first = LlamaJax(checkpoint=runs[0])
    cache = CachingLM(first, str(tmp_path / "answers.db"))
    given = cache.loglikelihood(asked())
    again = CachingLM(LlamaJax(checkpoint=runs[0]), str(tmp_path / "answers.db"))
    assert again.loglikelihood(asked()) == given
    for model in (LlamaJax(checkpoint=runs[1]), LlamaJax(checkpoint=runs[0], seed=1)):
        with pytest.raises(DataError, match=r"answers\.db holds \d answers of another model.*name another --use_cache"):
            CachingLM(model, str(tmp_path / "answers.db"))
        assert CachingLM(model, str(tmp_path / f"{model._seed}.db")).loglikelihood(asked())
