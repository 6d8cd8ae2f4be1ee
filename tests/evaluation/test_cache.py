"""Answers on disk: changed lines are refused, and answers of other models are not used."""

import json
import re
from types import SimpleNamespace

import pytest
from flax import traverse_util

from llama_jax.errors import DataError
from llama_jax.evaluation.cache import AnswerCache, read_answers
from llama_jax.evaluation.results import read_items, read_results
from llama_jax.evaluation.task import GenerationAnswer, GenerationRequest, LikelihoodAnswer, LikelihoodRequest
from llama_jax.formats.open import open_source
from tests.evaluation.conftest import save_run
from tests.evaluation.test_eval import run
from tests.evaluation.test_fingerprint import flat

ASKED = [LikelihoodRequest("a", " b"), LikelihoodRequest("a", " c")]
GIVEN = {0: LikelihoodAnswer(-1.25, 1, False), 1: LikelihoodAnswer(-17.5, 2, True)}


@pytest.fixture
def kept(tmp_path) -> SimpleNamespace:
    """An answers file with two lines: log-probabilities, and a generation."""
    store = AnswerCache(tmp_path, "2-mine")
    keys = store.key(ASKED), store.key([GenerationRequest("a")])
    store.put(keys[0], GIVEN)
    store.put(keys[1], {0: GenerationAnswer(("née\u2028 1.5",), ("stop",), 0)})
    return SimpleNamespace(folder=tmp_path, file=tmp_path / AnswerCache.FILE, keys=keys)


def test_what_is_kept_comes_back(kept):
    store = AnswerCache(kept.folder, "2-mine")
    assert store.get(kept.keys[0]) == GIVEN and store.notes == []
    assert store.get(kept.keys[1]) == {0: GenerationAnswer(("née\u2028 1.5",), ("stop",), 0)}


def test_every_changed_digit_is_noticed(kept):
    """Whichever digit of the file is changed, the file is refused and the error names the line."""
    content = kept.file.read_text()
    places = [match.start() for match in re.finditer(r"\d", content)]
    assert len(places) > 100
    for place in places:
        digit = "7" if content[place] != "7" else "3"
        kept.file.write_text(content[:place] + digit + content[place + 1 :])
        line = content[:place].count("\n") + 1
        with pytest.raises(DataError, match=rf"answers\.jsonl, line {line} is damaged; remove the file to ask everything again, "
                                            "or that line to ask its batch again"):
            AnswerCache(kept.folder, "2-mine")


@pytest.mark.parametrize("damage", [
    lambda line: "", lambda line: "[]", lambda line: "{}", lambda line: "7", lambda line: "null", lambda line: line[:-40],
    lambda line: line.replace('"sha256"', '"sha"'), lambda line: line.replace("false", "true"), lambda line: "[" * 100_000,
    lambda line: line.replace("Score", "Texts"), lambda line: json.dumps(json.loads(line) | {"more": 1})])
def test_damaged_lines(kept, damage):
    first, second = kept.file.read_text().splitlines()
    kept.file.write_text(f"{damage(first)}\n{second}\n")
    with pytest.raises(DataError, match=r"line 1 is damaged"):
        read_answers(kept.file)


def test_removing_the_damaged_line_asks_its_batch_again(kept):
    """The remedy that the error recommends works."""
    kept.file.write_text(kept.file.read_text().splitlines()[1] + "\n")
    store = AnswerCache(kept.folder, "2-mine")
    assert store.get(kept.keys[0]) == {} and len(store.get(kept.keys[1])) == 1


def test_another_models_answers_are_named_not_used_and_not_removed(kept):
    before = kept.file.read_bytes()
    store = AnswerCache(kept.folder, "2-other")
    assert not any(store.get(key) for key in (*kept.keys, store.key(ASKED)))
    assert "2 batches of answers are another model's; they are not used" in store.notes[0]
    assert "remove" in store.notes[1] and "name another --output" in store.notes[1]
    store.put(store.key(ASKED), GIVEN)
    assert kept.file.read_bytes().startswith(before)
    assert AnswerCache(kept.folder, "2-mine").get(kept.keys[0]) == GIVEN


def test_answers_of_an_earlier_version_are_named_and_not_used(tmp_path):
    key = AnswerCache(None, "2-mine").key(ASKED)
    (tmp_path / AnswerCache.FILE).write_text(json.dumps({"chunk": key, "answers": [[0, "Score", -1.0, 1, False, 0]]}) + "\n")
    store = AnswerCache(tmp_path, "2-mine")
    assert store.get(key) == {}
    assert "1 batches of answers are from an earlier version of llama_jax, without checksums" in store.notes[0]


@pytest.mark.parametrize("other", [
    GenerationRequest("b"), *(GenerationRequest("a", **changed) for changed in (
        {"stop": ("\n",)}, {"max_tokens": 9}, {"temperature": 0.1}, {"top_p": 0.9}, {"top_k": 1}, {"num_samples": 2},
        {"seed": 1})),
    LikelihoodRequest("a", "b")])
def test_everything_that_is_asked_counts(other):
    store = AnswerCache(None, "2-mine")
    assert store.key([other]) != store.key([GenerationRequest("a")])


def numbers_of(folder) -> dict:
    return {name: task["numbers"] for name, task in read_results(folder)["tasks"].items()}


def test_a_second_model_in_the_folder_of_a_killed_evaluation(small_run, eval_data, tmp_path, capsys):
    """The first left answers and no report. The second, which shares embeddings and norms with it, gets its own numbers."""
    a = small_run.answerer
    params = flat(a.params)
    params["layers.feedforward.w_down"] = -3 * params["layers.feedforward.w_down"]
    merged = save_run(tmp_path / "merged", a.model.config, traverse_util.unflatten_dict(params, sep="."), a.tokenizer)
    common = ("--tasks", "openbookqa", "--data_dir", eval_data, "--limit", 8)
    assert run("--checkpoint", small_run.folder, *common, "--output", tmp_path / "one") == 0
    (tmp_path / "one/results.json").unlink()
    assert run("--checkpoint", merged, *common, "--output", tmp_path / "alone") == 0
    capsys.readouterr()
    assert run("--checkpoint", merged, *common, "--output", tmp_path / "one") == 0
    said = capsys.readouterr().err
    assert "batches of answers are another model's; they are not used" in said
    assert numbers_of(tmp_path / "one") == numbers_of(tmp_path / "alone")
    one, alone = ([row["asked"] for row in read_items(tmp_path / name, "openbookqa").values()] for name in ("one", "alone"))
    assert one == alone
    assert run("--checkpoint", small_run.folder, *common, "--output", tmp_path / "one") == 2
    assert "holds results of another model (merged, step 1); name another --output" in capsys.readouterr().err


def test_damage_is_told_before_the_model_is_loaded(small_run, eval_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("llama_jax.cli.evaluate.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / AnswerCache.FILE).write_text("{}\n")
    assert run("--checkpoint", small_run.folder, "--tasks", "piqa", "--data_dir", eval_data, "--output", tmp_path) == 3
    assert "line 1 is damaged" in capsys.readouterr().err


def test_the_step_is_settled_once(small_run, eval_data, tmp_path, monkeypatch):
    """Name, folder and weights are those of one step, even if the run saves a newer one during the evaluation."""
    asked = []
    monkeypatch.setattr("llama_jax.cli.load_model.open_source",
                        lambda path, **options: asked.append(path) or open_source(path, **options))
    assert run("--checkpoint", small_run.folder, "--tasks", "piqa", "--data_dir", eval_data, "--limit", 2, "--output",
               tmp_path) == 0
    assert asked == [str(small_run.folder / "checkpoints/1")]
    assert read_results(tmp_path)["model"]["checkpoint"].endswith("checkpoints/1")


def test_results_of_an_earlier_version_are_refused_with_the_reason(small_run, eval_data, tmp_path, capsys):
    arguments = ("--checkpoint", small_run.folder, "--tasks", "piqa", "--data_dir", eval_data, "--limit", 2, "--output", tmp_path)
    assert run(*arguments) == 0
    report = json.loads((tmp_path / "results.json").read_text())
    report["model"]["fingerprint"] = "ab" * 32
    (tmp_path / "results.json").write_text(json.dumps(report))
    capsys.readouterr()
    assert run(*arguments) == 2
    assert "or of this one under the fingerprint that another version of llama_jax gave it" in capsys.readouterr().err
