"""Evaluating tasks: the same as asking one request at a time, killed or not, on one device or eight."""

import json
from dataclasses import replace

import jax
import pytest

from llama_jax.config import MeshConfig
from llama_jax.errors import DataError
from llama_jax.evaluation import harness
from llama_jax.evaluation.answers import Answerer
from llama_jax.evaluation.cache import AnswerCache
from llama_jax.evaluation.harness import distinct_requests, evaluate_tasks, request_chunks
from llama_jax.evaluation.requests import PreparedTask, prepare_tasks, with_prompt_indices
from llama_jax.evaluation.results import results_json, write_results
from llama_jax.evaluation.task import (
    GenerationRequest,
    Item,
    LikelihoodAnswer,
    LikelihoodRequest,
    Settings,
    Verdict,
    judge_each,
)
from llama_jax.formats.loading import load
from llama_jax.scoring import likelihood
from llama_jax.scoring.likelihood import loglikelihood
from tests.evaluation.test_requests import piqa_task, sampled

SETTINGS = Settings()


def quiet(name: str, done: float) -> None:
    pass


class Killed(Exception):
    """Stands for a kill of the process."""


@pytest.fixture
def jobs(eval_data, monkeypatch) -> list[PreparedTask]:
    """Two tasks of six items each, in several chunks of several batches."""
    monkeypatch.setattr(harness, "CHUNK_CHARACTERS", 3000)
    monkeypatch.setitem(likelihood.TOKENS_PER_BATCH, "cpu", 256)
    return prepare_tasks(["siqa", "openbookqa"], str(eval_data), settings=SETTINGS, limit=6)


def test_answers_are_those_of_one_request_at_a_time(jobs, small_run):
    a = small_run.answerer
    done = []
    results = evaluate_tasks(jobs, a, settings=SETTINGS, cache=AnswerCache(None, ""), progress=lambda name, new: done.append(new))
    assert len(list(request_chunks(distinct_requests(jobs)))) > 1
    for result in results:
        for item, answers in zip(result.prepared.items, result.answers, strict=True):
            pairs = [(request.context, request.continuation) for request in item.requests]
            for got, wanted in zip(answers, loglikelihood(a.model, a.params, a.tokenizer, pairs), strict=True):
                assert got.logprob == pytest.approx(wanted.logprob, abs=1e-3)
                assert (got.tokens, got.is_greedy) == (len(wanted.token_logprobs), wanted.is_greedy)
        assert result.numbers["acc_char"].count == 6
    assert sum(done) == pytest.approx(sum(map(harness.request_characters, distinct_requests(jobs))))
    assert all(result.tokens > 0 and result.seconds > 0 for result in results)


def test_killed_and_resumed_equals_uninterrupted(jobs, small_run, tmp_path):
    a = small_run.answerer
    whole = evaluate_tasks(jobs, a, settings=SETTINGS, cache=AnswerCache(tmp_path / "whole", a.fingerprint), progress=quiet)
    lines = (tmp_path / "whole" / AnswerCache.FILE).read_text().count("\n")
    assert lines > 2 * len(list(request_chunks(distinct_requests(jobs)))), "a chunk has several batches"
    store = AnswerCache(tmp_path / "broken", a.fingerprint)
    put, left = store.put, [3]

    def put_and_die(key, answers):
        put(key, answers)
        left[0] -= 1
        if not left[0]:
            raise Killed

    store.put = put_and_die
    with pytest.raises(Killed):
        evaluate_tasks(jobs, a, settings=SETTINGS, cache=store, progress=quiet)
    file = tmp_path / "broken" / AnswerCache.FILE
    assert file.read_text().count("\n") == 3
    with file.open("a") as stream:
        stream.write('{"chunk": "cut sho')
    again = evaluate_tasks(jobs, a, settings=SETTINGS, cache=AnswerCache(tmp_path / "broken", a.fingerprint), progress=quiet)
    assert [result.answers for result in again] == [result.answers for result in whole]
    assert [result.numbers for result in again] == [result.numbers for result in whole]
    assert 0 < again[0].tokens + again[1].tokens < whole[0].tokens + whole[1].tokens
    assert file.read_text() == (tmp_path / "whole" / AnswerCache.FILE).read_text(), "nothing was asked twice"
    third = evaluate_tasks(jobs, replace(a, model=None), settings=SETTINGS,
                           cache=AnswerCache(tmp_path / "broken", a.fingerprint), progress=quiet)
    assert [result.numbers for result in third] == [result.numbers for result in whole]


def test_another_model_is_asked_anew(jobs, small_run, tmp_path):
    a = small_run.answerer
    other = replace(a, params=jax.tree.map(lambda x: x * 1.01, a.params))
    assert a.fingerprint != other.fingerprint == replace(other).fingerprint
    store = AnswerCache(tmp_path, a.fingerprint)
    key = store.key([LikelihoodRequest("a", "b")])
    store.put(key, {0: LikelihoodAnswer(-1.0, 1, False)})
    assert AnswerCache(tmp_path, a.fingerprint).get(key) == {0: LikelihoodAnswer(-1.0, 1, False)}
    other_key = AnswerCache(None, other.fingerprint).key([LikelihoodRequest("a", "b")])
    assert not AnswerCache(tmp_path, other.fingerprint).get(other_key)


def test_a_damaged_cache_is_named(tmp_path):
    (tmp_path / AnswerCache.FILE).write_text('{"chunk": 1}\n')
    with pytest.raises(DataError, match=r"answers\.jsonl, line 1 is damaged; remove the file"):
        AnswerCache(tmp_path, "")


def test_eight_devices_equal_one(jobs, small_run):
    one = evaluate_tasks(jobs, small_run.answerer, settings=SETTINGS, cache=AnswerCache(None, ""), progress=quiet)
    model, params, tokenizer = load(small_run.folder, MeshConfig(data=4, tensor=2))
    with jax.set_mesh(params["embedding"].sharding.mesh):
        answerer = Answerer(model, params, tokenizer)
        eight = evaluate_tasks(jobs, answerer, settings=SETTINGS, cache=AnswerCache(None, ""), progress=quiet)
        prompts = [GenerationRequest(text, max_tokens=8) for text in ("First", "Second Citizen:", "All")]
        made, _ = answerer.generations(prompts)
    for a, b in zip(one, eight, strict=True):
        for mine, theirs in zip(a.answers, b.answers, strict=True):
            assert [x.logprob for x in mine] == pytest.approx([x.logprob for x in theirs], abs=1e-3)
    assert [answer.texts for answer in made] == [answer.texts for answer in small_run.answerer.generations(prompts)[0]]


def test_equal_questions_get_different_samples_in_any_company(small_run):
    task = piqa_task()
    items = {name: with_prompt_indices(name, sampled(4)) for name in ("a", "b")}

    def texts(*names: str) -> list[tuple[str, ...]]:
        jobs = [PreparedTask(replace(task, name=name, judge=judge_each(lambda item, given: Verdict({}))), items[name], {})
                for name in names]
        return [[answers[k].texts for answers in result.answers] for k in (0, 1)
                for result in evaluate_tasks(jobs, small_run.answerer, settings=SETTINGS,
                                            cache=AnswerCache(None, ""), progress=quiet)]

    greedy, other_greedy, a, b = texts("a", "b")
    assert len({text for some in (*a, *b) for text in some}) == 24 and len({*greedy, *other_greedy}) == 1
    assert texts("b")[1] == b and texts("b", "a")[2:] == [b, a]


def test_equal_requests_are_asked_once(eval_data):
    [job] = prepare_tasks(["boolq"], str(eval_data), settings=SETTINGS)
    asked = [request for chunk in request_chunks(distinct_requests([job, job])) for request in chunk]
    assert len(asked) == len(set(asked)) == 2 * 100 + 2


def test_chunks_keep_a_context_together():
    items = [Item(str(n), tuple(LikelihoodRequest(f"{n}" * 500_000, c) for c in "abcd")) for n in range(3)]
    job = PreparedTask(piqa_task(), items, {})
    contexts = [[request.context[0] for request in chunk] for chunk in request_chunks(distinct_requests([job]))]
    assert contexts == [["0"] * 4, ["1"] * 4, ["2"] * 4]


def test_items_are_written_with_prompts_and_scores(jobs, small_run, tmp_path):
    results = evaluate_tasks(jobs[:1], small_run.answerer, settings=SETTINGS, cache=AnswerCache(None, ""), progress=quiet)
    write_results(tmp_path, results_json(results, SETTINGS, model={"name": "m", "fingerprint": "f"}), results=results)
    rows = [json.loads(line) for line in (tmp_path / "items/siqa.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and rows[0]["gold"] == 2 and rows[0]["key"] == "0"
    first, bare = rows[0]["asked"]
    assert first["prompt"].startswith("Tracy didn't go home") and bare["prompt"] == "Answer:"
    assert first["choices"][2] == bare["choices"][2] == " Find somewhere to go"
    assert first["logprobs"] == [answer.logprob for answer in results[0].answers[0][:3]]
    assert rows[0]["prediction"]["raw"] == first["logprobs"].index(max(first["logprobs"]))
