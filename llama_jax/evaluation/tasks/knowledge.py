"""Knowledge of 57 subjects (Table 9): MMLU, five-shot, by subject, by category and over all questions."""

from llama_jax.evaluation.choices import ChoiceQuestion, choice_item, judge_choices
from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.task import Item, Settings, Task, TaskRecords, headline_metrics, judge_each

_LETTERS = "ABCD"
_COLUMNS = ("question", *_LETTERS, "answer")
_SHOTS = 5

MMLU_SUBJECTS = {
    "STEM": "abstract_algebra astronomy college_biology college_chemistry college_computer_science "
            "college_mathematics college_physics computer_security conceptual_physics electrical_engineering "
            "elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science "
            "high_school_mathematics high_school_physics high_school_statistics machine_learning",
    "Humanities": "formal_logic high_school_european_history high_school_us_history high_school_world_history "
                  "international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory "
                  "professional_law world_religions",
    "Social Sciences": "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
                       "high_school_microeconomics high_school_psychology human_sexuality professional_psychology "
                       "public_relations security_studies sociology us_foreign_policy",
    "Other": "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
             "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology",
}
"""The four categories of Hendrycks et al. 2021 as their evaluation code forms them (hendrycks/test, categories.py). There anatomy
is a subject of health and so in "Other": Table 16 of the LLaMA paper prints it under STEM, but the means of Tables 9 and 16
follow from the 57 subjects only with anatomy in "Other". lm-evaluation-harness counts it as STEM."""

MMLU_CATEGORY = {subject: name for name, subjects in MMLU_SUBJECTS.items() for subject in subjects.split()}
"""The category of every subject."""


def _read_subject(files: OfficialFiles, split: str, *, subject: str) -> list[dict]:
    """The questions of one subject."""
    name = f"mmlu/{split}/{subject}_{split}.csv"
    rows = files.read_table(name, *_COLUMNS, header=False)
    for number, row in enumerate(rows, 1):
        files.require(row["answer"] in tuple(_LETTERS), f"the answer should be A to D, got {row['answer']!r}",
                      file=name, record=number)
    return [{"subject": subject} | row for row in rows]


def _read_mmlu(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """The subjects that the test folder holds, and their worked examples."""
    names = files.matching("mmlu/test/*_test.csv")
    subjects = sorted(name.rpartition("/")[2].removesuffix("_test.csv") for name in names)
    for subject in subjects:
        files.require(subject in MMLU_CATEGORY, f"{subject} is none of the 57 subjects",
                      file=f"mmlu/test/{subject}_test.csv", record=1)
    wanted = _SHOTS if settings.num_fewshot is None else settings.num_fewshot
    shots = [row for subject in subjects for row in _read_subject(files, "dev", subject=subject)] if wanted else []
    return TaskRecords([row for subject in subjects for row in _read_subject(files, "test", subject=subject)], shots)


def _hub_mmlu(rows: HubRows, settings: Settings) -> TaskRecords:
    """Read the questions of all subjects from the Hugging Face hub."""
    def split(name: str) -> list[dict]:
        records = []
        for row in rows("cais/mmlu", "all", name):
            choices = dict(zip(_LETTERS, row["choices"], strict=True))
            records.append({"subject": row["subject"], "question": row["question"], "answer": _LETTERS[row["answer"]]} | choices)
        return records

    return TaskRecords(split("test"), split("dev"))


def _mmlu_question(row: dict) -> ChoiceQuestion:
    """The question with its lettered choices; the letters are what is scored."""
    choices = "".join(f"{letter}. {row[letter]}\n" for letter in _LETTERS)
    return ChoiceQuestion([f"{row['question'].strip()}\n{choices}Answer:"] * 4, [f" {letter}" for letter in _LETTERS],
                          _LETTERS.index(row["answer"]))


def _build_mmlu(records: TaskRecords, settings: Settings) -> list[Item]:
    """Every question after the first worked examples of its subject."""
    wanted = _SHOTS if settings.num_fewshot is None else settings.num_fewshot
    shots: dict[str, list[str]] = {}
    for row in records.shots:
        shots.setdefault(row["subject"], []).append(_mmlu_question(row).solved + "\n\n")
    items, counts = [], {}
    for row in records.test:
        subject = row["subject"]
        number = counts.get(subject, 0)
        counts[subject] = number + 1
        head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        prefix = head + "".join(shots.get(subject, [])[:wanted])
        items.append(choice_item(f"{subject}/{number}", _mmlu_question(row), prefix=prefix,
                                 tags={"category": MMLU_CATEGORY[subject], "subject": subject}))
    return items


TASKS = (
    Task("mmlu", "MMLU", _read_mmlu, _build_mmlu, judge_each(judge_choices), headline_metrics("acc_raw"),
         origin="https://people.eecs.berkeley.edu/~hendrycks/data.tar (its dev and test folders as mmlu/dev and mmlu/test)",
         hub=_hub_mmlu, num_fewshot=_SHOTS, most_fewshot=_SHOTS, limit_by="subject", size=14_042),
)
