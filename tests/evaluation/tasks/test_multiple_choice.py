"""Counts, gold labels and prompts of real records, against expectations written by hand from the files."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from llama_jax.errors import DataError
from llama_jax.evaluation.data import OfficialFiles
from llama_jax.evaluation.requests import prepare_tasks
from llama_jax.evaluation.task import LikelihoodRequest, Settings
from llama_jax.evaluation.tasks.catalogue import all_tasks, choose_tasks
from llama_jax.evaluation.tasks.multiple_choice import arc_question, arc_reader, winogrande_question, without_wikihow_marks


def items_of(name: str, data, protocol: str = "llama", **fields) -> list:
    [job] = prepare_tasks([name], str(data), settings=Settings(protocol=protocol, **fields))
    return job.items


def asked(item) -> tuple[str, list[str], int]:
    """Context, choices and gold of an item that has one context."""
    half = item.requests[: len(item.requests) // 2]
    [context] = {request.context for request in half}
    return context, [request.continuation for request in half], item.gold


def test_counts(eval_data):
    wanted = {"boolq": 100, "piqa": 100, "siqa": 100, "hellaswag": 10, "winogrande": 100, "arc_easy": 30, "arc_challenge": 30,
              "openbookqa": 30, "race_middle": 44, "race_high": 44, "mmlu": 104}
    jobs = prepare_tasks(list(wanted), str(eval_data), settings=Settings())
    assert {job.task.name: len(job.items) for job in jobs} == wanted
    assert all(len(value) == 64 for job in jobs for value in job.hashes.values())


def test_boolq(eval_data):
    context, choices, gold = asked(items_of("boolq", eval_data)[0])
    assert context.startswith("Ethanol fuel -- All biomass goes through at least some of these steps: ")
    assert context.endswith("\nquestion: does ethanol take more energy make that produces?\nanswer:")
    assert choices == [" no", " yes"] and gold == 0
    context, choices, _ = asked(items_of("boolq", eval_data, "lm_eval")[0])
    assert context.endswith("\nQuestion: does ethanol take more energy make that produces?\nAnswer:")


def test_piqa(eval_data):
    context, choices, gold = asked(items_of("piqa", eval_data)[0])
    assert context == "How do I ready a guinea pig cage for it's new occupants?" and gold == 0
    assert choices[1].startswith(" Provide the guinea pig with a cage full of a few inches of bedding made of ripped jeans")
    context, _, _ = asked(items_of("piqa", eval_data, "lm_eval")[0])
    assert context == "Question: How do I ready a guinea pig cage for it's new occupants?\nAnswer:"


def test_siqa_counts_its_labels_from_one(eval_data):
    items = items_of("siqa", eval_data)
    assert asked(items[0]) == ("Tracy didn't go home that evening and resisted Riley's attacks. What does Tracy need to do "
                               "before this?", [" make a new plan", " Go home and see Riley", " Find somewhere to go"], 2)
    assert {item.gold for item in items} == {0, 1, 2}
    context, _, _ = asked(items_of("siqa", eval_data, "lm_eval")[0])
    assert context.startswith("Q: Tracy didn't go home") and context.endswith(" before this?\nA:")


def test_hellaswag(eval_data):
    context, choices, gold = asked(items_of("hellaswag", eval_data)[0])
    assert context == "Roof shingle removal: A man is sitting on a roof. He"
    assert choices[3] == " starts pulling up roofing on a roof." and gold == 3
    assert without_wikihow_marks(" How to x [title] Do y. [step] Then  z.") == "How to x. Do y. Then z."


def test_winogrande_scores_the_rest_after_either_option(eval_data):
    item = items_of("winogrande", eval_data)[0]
    assert item.requests == (
        LikelihoodRequest("Sarah was a much better surgeon than Maria so Sarah", " always got the easier cases."),
        LikelihoodRequest("Sarah was a much better surgeon than Maria so Maria", " always got the easier cases."),
        *[LikelihoodRequest("Answer:", " always got the easier cases.")] * 2)
    assert item.gold == 1
    word = winogrande_question({"sentence": "A _.", "option1": "x", "option2": "y", "label": "1"}, Settings())
    assert (word.contexts, word.continuations, word.gold) == (["A x", "A y"], [" .", " ."], 0)


def test_arc_has_three_to_five_choices_and_numbers_for_letters(eval_data):
    files = OfficialFiles(eval_data, "there")
    rows = [row for kind in ("Easy", "Challenge") for row in arc_reader(kind)(files, "dev")]
    sizes = [len(arc_question(row, Settings()).contexts) for row in rows]
    assert (len(rows), set(sizes)) == (869, {3, 4, 5})
    numbered = [row for row in rows if row["answerKey"] in "12345"]
    assert len(numbered) > 10
    for row in rows:
        texts = {choice["label"]: choice["text"] for choice in row["question"]["choices"]}
        word = arc_question(row, Settings())
        assert word.continuations[word.gold] == " " + texts[row["answerKey"]]
    assert asked(items_of("arc_easy", eval_data)[0])[0] == (
        "Question: Which statement best explains why photosynthesis is the foundation of most food webs?\nAnswer:")


def test_openbookqa_asks_the_bare_stem_and_divides_by_the_answer_context(eval_data):
    item = items_of("openbookqa", eval_data)[0]
    context, choices, gold = asked(item)
    assert context.endswith("they decide the best way to save money is to") and choices[gold] == " quit eating lunch out"
    assert [request.context for request in item.requests[4:]] == ["Answer:"] * 4
    assert {task.name: task.headline["llama"] for task in choose_tasks(["common_sense"])} == {
        "boolq": "acc_answer", "openbookqa": "acc_answer", "piqa": "acc_char", "siqa": "acc_char", "hellaswag": "acc_char",
        "winogrande": "acc_char", "arc_easy": "acc_char", "arc_challenge": "acc_char"}


def test_race_keeps_its_blanks_and_shows_earlier_answers(eval_data):
    items = {item.key: item for item in items_of("race_middle", eval_data)}
    context, choices, gold = asked(items["middle/13/3"])
    assert context.startswith("Article: What is color? Why do some of the things a")
    assert context.endswith("\n\nQ: When something reflects light, we can   _  .\n\nA: see its color\n\nQ: Something looks white "
                            "because it reflects   _  .\n\nA: all light\n\nQ: the dark-colored clothes are warm because   _   is "
                            "taken in.\n\nA:")
    assert choices == [" more light", " less light", " more color", " less color"] and gold == 0
    assert {request.context for request in items["middle/13/3"].requests[4:]} == {"A:"}
    items = {item.key: item for item in items_of("race_middle", eval_data, "lm_eval")}
    context, _, gold = asked(items["middle/34/4"])
    assert len(items) == 12 and gold == 3 and context.endswith(
        "\nWhile Bob was sawing, another man told him to stop working\nAfter hearing the man's words, Bob thought that that was "
        "a foolish person.\nThis story is about   _  .")
    assert "\n\nQuestion: One day Bob was cutting a branch  _  a tree in his garden.\nAnswer: in\n" in context


def test_mmlu_shows_five_of_its_own_subject(eval_data):
    items = items_of("mmlu", eval_data)
    counts = {}
    for item in items:
        counts[item.tags["subject"]] = counts.get(item.tags["subject"], 0) + 1
    assert counts == {"abstract_algebra": 11, "anatomy": 14, "astronomy": 16, "college_computer_science": 11,
                      "high_school_chemistry": 22, "us_foreign_policy": 11, "world_religions": 19}
    context, choices, gold = asked(items[1])
    assert context.startswith("The following are multiple choice questions (with answers) about abstract algebra.\n\n")
    assert context.count("\nAnswer:") == 6 and context.endswith(
        "\n\nFind the order of the factor group Z_6/<3>.\nA. 2\nB. 3\nC. 6\nD. 12\nAnswer:")
    assert choices == [" A", " B", " C", " D"] and gold == 1
    assert {item.tags["category"] for item in items} == {"STEM", "Humanities", "Social Sciences", "Other"}
    assert {item.tags["subject"] for item in items if item.tags["category"] == "Other"} == {"anatomy"}
    [job] = prepare_tasks(["mmlu"], str(eval_data), settings=Settings(num_fewshot=0), limit=3)
    assert len(job.items) == 21 and asked(job.items[0])[0].count("Answer:") == 1


def test_worked_examples_come_from_the_training_file(eval_data, tmp_path):
    (tmp_path / "piqa").mkdir()
    for name in ("valid.jsonl", "valid-labels.lst"):
        (tmp_path / "piqa" / name).write_bytes((eval_data / "piqa" / name).read_bytes())
    (tmp_path / "piqa/train.jsonl").write_text('{"goal": "G", "sol1": "one", "sol2": "two"}\n')
    (tmp_path / "piqa/train-labels.lst").write_text("1\n")
    context, _, _ = asked(items_of("piqa", tmp_path, num_fewshot=1)[0])
    assert context == "G two\n\nHow do I ready a guinea pig cage for it's new occupants?"
    with pytest.raises(DataError, match=r"piqa/train\.jsonl is missing"):
        items_of("piqa", eval_data, num_fewshot=1)


def columns(row: dict, stem: str) -> dict:
    """A record of ARC or OpenBookQA in the hub's form."""
    choices = row["question"]["choices"]
    return {"id": row["id"], stem: row["question"]["stem"], "answerKey": row["answerKey"],
            "choices": {name: [choice[name] for choice in choices] for name in ("text", "label")}}


def by_question(rows: list[dict], level: str) -> list[dict]:
    """RACE in the hub's form."""
    return [{"example_id": row["id"], "article": row["article"], "question": q, "options": o, "answer": a}
            for row in rows for q, o, a in zip(row["questions"], row["options"], row["answers"], strict=True)]


AS_ON_THE_HUB = {
    "boolq": lambda row: {"question": row["question"], "passage": f"{row['title']} -- {row['passage']}",
                          "label": int(row["answer"])},
    "piqa": lambda row: row | {"label": int(row["label"])}, "siqa": dict,
    "hellaswag": lambda row: row | {"label": str(row["label"])},
    "winogrande": lambda row: {key: row[key] for key in ("sentence", "option1", "option2")} | {"answer": row["label"]},
    "arc_easy": lambda row: columns(row, "question"), "openbookqa": lambda row: columns(row, "question_stem"),
    "mmlu": lambda row: {"subject": row["subject"], "question": row["question"], "choices": [row[x] for x in "ABCD"],
                         "answer": "ABCD".index(row["answer"])},
}


@pytest.mark.parametrize("name", [*AS_ON_THE_HUB, "race_middle"])
def test_the_hubs_rows_make_the_same_items(eval_data, name):
    task, settings = all_tasks()[name], Settings()
    records = task.read(OfficialFiles(eval_data, ""), settings)

    def rows(path: str, config: str | None, split: str) -> list[dict]:
        if name.startswith("race"):
            return by_question(records.test, config)
        return [AS_ON_THE_HUB[name](row) for row in (records.shots if split == "dev" else records.test)]

    assert task.build(task.hub(rows, settings), settings) == task.build(records, settings)


def test_what_the_folder_lacks_comes_from_the_hub(eval_data, tmp_path, monkeypatch):
    class Split(list):
        _fingerprint = "f00d"

    rows = [AS_ON_THE_HUB["piqa"](row) for row in all_tasks()["piqa"].read(OfficialFiles(eval_data, ""), Settings()).test]
    library = ModuleType("datasets")
    library.__spec__ = ModuleSpec("datasets", None)
    library.load_dataset = lambda path, config, split: Split(rows)
    monkeypatch.setitem(sys.modules, "datasets", library)
    [job] = prepare_tasks(["piqa"], str(tmp_path), settings=Settings())
    assert job.items == items_of("piqa", eval_data) and job.hashes == {"hub:baber/piqa/None/validation": "f00d"}

    def unreachable(path, config, split):
        raise ConnectionError("no route")

    library.load_dataset = unreachable
    with pytest.raises(DataError, match=r"put it there. And the hub did not give baber/piqa .*ConnectionError: no route"):
        prepare_tasks(["piqa"], str(tmp_path), settings=Settings())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"put it there. .*pip install -e .*\[hub\]"):
        prepare_tasks(["piqa"], str(tmp_path), settings=Settings())
