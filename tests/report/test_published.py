"""The published tables are complete, consistent with each other and have their stars, and a user's row fills them."""

import csv

import pytest

from llama_jax.evaluation.tasks.knowledge import MMLU_CATEGORY, MMLU_SUBJECTS
from llama_jax.report.evaluation import evaluation_tables
from llama_jax.report.published import PUBLISHED_TABLES, published_table
from tests.evaluation.test_eval import error_of, run

BY_NUMBER = {table.number: table for table in PUBLISHED_TABLES}


def column(number: str, title: str) -> dict[str, float | None]:
    table = BY_NUMBER[number]
    [place] = [n for n, one in enumerate(table.columns) if one.title == title]
    return {name: values[place] for name, values in table.rows}


def test_all_of_them_are_there():
    assert list(BY_NUMBER) == [str(number) for number in range(3, 17)]
    rows = {number: len(table.rows) for number, table in BY_NUMBER.items()}
    assert rows == {"3": 10, "4": 10, "5": 6, "6": 8, "7": 10, "8": 9, "9": 11, "10": 11, "11": 4, "12": 3, "13": 4, "14": 7,
                    "15": 6, "16": 8}
    assert all(len(values) == len(table.columns) for table in PUBLISHED_TABLES for _, values in table.rows)


def test_the_stars_of_table_8():
    table = BY_NUMBER["8"]
    assert table.starred == {("PaLM 8B", one.title) for one in table.columns} | {
        ("PaLM 62B", "HumanEval @100"), ("PaLM 62B", "MBPP @80")}
    grid = published_table(table)
    assert grid.rows[1] == ["PaLM 8B", "3.6*", "18.7*", "5.0*", "35.7*"]
    assert grid.rows[2] == ["PaLM 62B", "15.9", "46.3*", "21.4", "63.2*"]
    assert any(note.startswith("* ") for note in grid.notes)
    assert not any(other.starred for other in PUBLISHED_TABLES if other is not table)


def test_what_two_tables_say_is_the_same():
    """Table 16 repeats Table 9's categories for LLaMA, Table 10 the averages."""
    for name in MMLU_SUBJECTS:
        nine, sixteen = column("9", name), column("16", name)
        assert all(nine[f"LLaMA {size}"] == sixteen[f"LLaMA {size}"] for size in ("7B", "13B", "33B", "65B"))
    averages, tuned = column("9", "Average"), column("10", "MMLU")
    assert tuned["LLaMA 65B"] == averages["LLaMA 65B"] == column("16", "All")["LLaMA 65B"]
    assert tuned["Chinchilla 70B"] == averages["Chinchilla 70B"] and tuned["LLaMA-I 65B"] == column("16", "All")["LLaMA-I 65B"]


def test_table_16_has_the_57_subjects_of_the_four_categories():
    table = BY_NUMBER["16"]
    assert [one.metric for one in table.columns[:57]] == [f"subject={subject}" for subject in sorted(MMLU_CATEGORY)]
    assert [one.title for one in table.columns[57:]] == ["Humanities", "STEM", "Social Sciences", "Other", "All"]
    assert {name: len(subjects.split()) for name, subjects in MMLU_SUBJECTS.items()} == {
        "STEM": 18, "Humanities": 13, "Social Sciences": 12, "Other": 14}
    assert all(10 < value < 100 for _, values in table.rows for value in values)


QUESTIONS = dict(zip(sorted(MMLU_CATEGORY), (
    100, 135, 152, 100, 265, 144, 100, 100, 100, 173, 102, 100, 235, 114, 145, 378, 126, 100, 310, 203, 100, 165, 198, 193, 390,
    270, 238, 151, 545, 216, 204, 237, 223, 131, 121, 108, 163, 112, 103, 234, 100, 783, 346, 895, 306, 311, 324, 282, 1534, 272,
    612, 110, 245, 201, 100, 166, 171), strict=True))
"""Number of questions of the official test set by subject."""


def test_categories_and_average_are_means_over_questions():
    """The means that the paper prints for every model follow from its 57 subjects, grouped and weighted as here."""
    assert sum(QUESTIONS.values()) == 14_042
    groups = {name: subjects.split() for name, subjects in MMLU_SUBJECTS.items()} | {"All": list(QUESTIONS)}
    for model, values in BY_NUMBER["16"].rows:
        by_subject = dict(zip(QUESTIONS, values, strict=False))
        for category, subjects in groups.items():
            rights = sum(by_subject[subject] * QUESTIONS[subject] for subject in subjects)
            mean = rights / sum(QUESTIONS[subject] for subject in subjects)
            assert mean == pytest.approx(column("16", category)[model], abs=0.07), (model, category)


def test_table_16_against_the_papers(shared_data):
    table = BY_NUMBER["16"]
    with (shared_data / "paper/table16_mmlu.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    for (model, values) in table.rows:
        assert [f"{value:.1f}" for value in values] == [row[model] for row in rows]
    groups = {"stem": "STEM", "humanities": "Humanities", "social_sciences": "Social Sciences", "other": "Other"}
    printed = {row["subject"]: groups[row["category"]] for row in rows if row["category"] != "-"}
    assert printed | {"anatomy": "Other"} == MMLU_CATEGORY  # under STEM in the paper's list, not in its means


def test_table_15_is_the_papers_formula():
    for name, (hours, watts, megawatt_hours, tons) in BY_NUMBER["15"].rows:
        assert hours * watts * 1.1 / 1e6 == pytest.approx(megawatt_hours, abs=1.6), name
        assert megawatt_hours * 0.385 == pytest.approx(tons, abs=0.6), name


def entry(numbers: dict, by: dict) -> dict:
    return {"title": "MMLU", "metric": "acc_raw", "items": 14042, "size": 14042, "percent": True, "numbers": numbers, "by": by,
            "truncated_items": 0, "truncated_tokens": 0, "seconds": 1.0, "tokens": 9, "prompts_sha256": "0" * 64, "data": {}}


def test_a_users_mmlu_fills_tables_9_10_and_16():
    def value(x: float) -> dict:
        return {"acc_raw": {"value": x, "stderr": 0.01, "count": 100}}

    by = {"category": {"Humanities": value(0.5), "STEM": value(0.25)}, "subject": {"anatomy": value(0.75)}}
    report = {"model": {"name": "mine"}, "settings": {"protocol": "llama"}, "tasks": {"mmlu": entry(value(0.4), by)}}
    found = {grid.title.split(".")[0]: grid for grid in evaluation_tables(report)}
    assert found["Table 9"].rows[-1] == ["mine", "50.0 ± 1.0", "25.0 ± 1.0", "–", "–", "40.0 ± 1.0"]
    assert found["Table 10"].rows[-1] == ["mine", "40.0 ± 1.0"] and found["Table 10"].highlighted == {11}
    by_subject = found["Table 16"]
    assert by_subject.header[-1] == "mine" and by_subject.rows[1] == [
        "anatomy", "48.0", "56.3", "70.4", "37.0", "45.9", "51.9", "57.8", "62.2", "75.0 ± 1.0"]
    assert by_subject.rows[0][-1] == "–" and by_subject.rows[-1][-1] == "40.0 ± 1.0"
    assert not {"Table 15", "Table 14", "Table 7"} & found.keys()


def test_the_listing(capsys):
    assert run("--tables", "7,15", "16") == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("Minerva 540B", "1,022,362", "us foreign policy", "Table 7."))
    assert "Table 9" not in printed
    assert run("--tables", "all") == 0
    assert capsys.readouterr().out.count("Table ") >= 14
    assert "the paper has no table 2 here; there are 3, 4" in error_of(capsys, 2, "--tables", "2")
