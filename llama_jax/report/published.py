"""The tables 3 to 16 of the LLaMA paper (arXiv 2302.13971) as data, which a report prints the user's own row under."""

from dataclasses import dataclass
from importlib import resources

from llama_jax.report.tables import DASH, Table, transposed


@dataclass(frozen=True)
class PublishedColumn:
    """One column of a published table, and what fills it in the user's row."""

    title: str
    task: str = ""
    """Name of the evaluation task that fills it; empty: none does."""
    metric: str = ""
    """A metric of the task; empty: its headline metric; "tag=value": the headline metric over the items with that tag."""


@dataclass(frozen=True)
class PublishedTable:
    """One published table. Values are percentages, or shares where `scale` is 1."""

    number: str
    caption: str
    columns: tuple[PublishedColumn, ...]
    text: str
    """Rows of `model: value value -`, one per line; - is a dash, and a star after a value stands in the paper too."""
    scale: float = 100.0
    decimals: int = 1
    note: str = ""
    models_across: bool = False
    """Printed with one column per model, as the paper prints Table 16, which has 62 rows."""

    @property
    def rows(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """(model, values) of every row; None is a dash."""
        return tuple((name, tuple(map(_value_of, cells))) for name, cells in self._cells)

    @property
    def starred(self) -> frozenset[tuple[str, str]]:
        """(model, title of the column) of the values that have a star in the paper."""
        return frozenset((name, column.title) for name, cells in self._cells
                         for column, cell in zip(self.columns, cells, strict=True) if cell.endswith("*"))

    @property
    def _cells(self) -> list[tuple[str, list[str]]]:
        lines = [line.strip().split(": ") for line in self.text.strip().splitlines()]
        return [(name, values.split()) for name, values in lines]


def _value_of(cell: str) -> float | None:
    return None if cell == "-" else float(cell.rstrip("*"))


def published_table(published: PublishedTable) -> Table:
    """A table of the paper as it is printed there."""
    table = Table(f"Table {published.number}. {published.caption}", ["", *(column.title for column in published.columns)])
    starred = published.starred
    for name, values in published.rows:
        row = [name]
        for column, value in zip(published.columns, values, strict=True):
            cell = DASH if value is None else f"{value:,.{published.decimals}f}"
            row.append(cell + "*" if (name, column.title) in starred else cell)
        table.rows.append(row)
    if published.note:
        table.notes.append(published.note)
    return transposed(table) if published.models_across else table


def _columns(*fields: tuple[str, ...]) -> tuple[PublishedColumn, ...]:
    """Columns from (title, task, metric), of which the last two may be missing."""
    return tuple(PublishedColumn(*some) for some in fields)


def _shot_columns(task: str) -> tuple[PublishedColumn, ...]:
    """Columns for 0, 1, 5 and 64 worked examples."""
    return _columns(*((f"{shots}-shot", f"{task}_{shots}shot") for shots in (0, 1, 5, 64)))


_MMLU_CATEGORIES = ("Humanities", "STEM", "Social Sciences", "Other")
"""Categories of MMLU, in the order of Table 9."""


def _subjects_table() -> PublishedTable:
    """Table 16, whose values lie beside this file: one line per subject or category, one column per model."""
    lines = (resources.files("llama_jax.report") / "mmlu_by_subject.tsv").read_text(encoding="utf-8").splitlines()
    (_, *models), *subjects = [line.split("\t") for line in lines]
    parts = {name: f"category={name}" for name in _MMLU_CATEGORIES} | {"All": ""}
    columns = _columns(*((name.replace("_", " "), "mmlu", parts.get(name, f"subject={name}")) for name, *_ in subjects))
    rows = []
    for place, model in enumerate(models):
        rows.append(f"{model}: {' '.join(values[place] for _, *values in subjects)}")
    return PublishedTable("16", "MMLU, five-shot accuracy by subject", columns, "\n".join(rows), models_across=True)


PUBLISHED_TABLES = (
    PublishedTable("3", "Zero-shot performance on Common Sense Reasoning tasks", _columns(
        ("BoolQ", "boolq"), ("PIQA", "piqa"), ("SIQA", "siqa"), ("HellaSwag", "hellaswag"), ("WinoGrande", "winogrande"),
        ("ARC-e", "arc_easy"), ("ARC-c", "arc_challenge"), ("OBQA", "openbookqa")), """
        GPT-3 175B: 60.5 81.0 - 78.9 70.2 68.8 51.4 57.6
        Gopher 280B: 79.3 81.8 50.6 79.2 70.1 - - -
        Chinchilla 70B: 83.7 81.8 51.3 80.8 74.9 - - -
        PaLM 62B: 84.8 80.5 - 79.7 77.0 75.2 52.5 50.4
        PaLM-cont 62B: 83.9 81.4 - 80.6 77.0 - - -
        PaLM 540B: 88.0 82.3 - 83.4 81.1 76.6 53.0 53.4
        LLaMA 7B: 76.5 79.8 48.9 76.1 70.1 72.8 47.6 57.2
        LLaMA 13B: 78.1 80.1 50.4 79.2 73.0 74.8 52.7 56.4
        LLaMA 33B: 83.1 82.3 50.4 82.8 76.0 80.0 57.8 58.6
        LLaMA 65B: 85.3 82.8 52.3 84.2 77.0 78.9 56.0 60.2"""),
    PublishedTable("4", "NaturalQuestions, exact match", _shot_columns("natural_questions"), """
        GPT-3 175B: 14.6 23.0 - 29.9
        Gopher 280B: 10.1 - 24.5 28.2
        Chinchilla 70B: 16.6 - 31.5 35.5
        PaLM 8B: 8.4 10.6 - 14.6
        PaLM 62B: 18.1 26.5 - 27.6
        PaLM 540B: 21.2 29.3 - 39.6
        LLaMA 7B: 16.8 18.7 22.0 26.1
        LLaMA 13B: 20.1 23.4 28.1 31.9
        LLaMA 33B: 24.9 28.3 32.9 36.0
        LLaMA 65B: 23.8 31.0 35.0 39.9"""),
    PublishedTable("5", "TriviaQA, zero-shot and few-shot exact match on the filtered dev set", _shot_columns("triviaqa"), """
        Gopher 280B: 43.5 - 57.0 57.2
        Chinchilla 70B: 55.4 - 64.1 64.6
        LLaMA 7B: 50.0 53.4 56.3 57.6
        LLaMA 13B: 56.6 60.5 63.1 64.0
        LLaMA 33B: 65.1 67.9 69.9 70.4
        LLaMA 65B: 68.2 71.6 72.6 73.0"""),
    PublishedTable("6", "Reading comprehension, zero-shot accuracy", _columns(
        ("RACE-middle", "race_middle"), ("RACE-high", "race_high")), """
        GPT-3 175B: 58.4 45.5
        PaLM 8B: 57.9 42.3
        PaLM 62B: 64.3 47.5
        PaLM 540B: 68.1 49.1
        LLaMA 7B: 61.1 46.9
        LLaMA 13B: 61.6 47.2
        LLaMA 33B: 64.1 48.3
        LLaMA 65B: 67.9 51.6"""),
    PublishedTable("7", "Quantitative reasoning", _columns(
        ("MATH", "minerva_math"), ("MATH +maj1@k", "minerva_math_maj1"), ("GSM8k", "gsm8k"),
        ("GSM8k +maj1@k", "gsm8k_maj1")), """
        PaLM 8B: 1.5 - 4.1 -
        PaLM 62B: 4.4 - 33.0 -
        PaLM 540B: 8.8 - 56.5 -
        Minerva 8B: 14.1 25.4 16.2 28.4
        Minerva 62B: 27.6 43.4 52.4 68.5
        Minerva 540B: 33.6 50.3 68.5 78.5
        LLaMA 7B: 2.9 6.9 11.0 18.1
        LLaMA 13B: 3.9 8.8 17.8 29.3
        LLaMA 33B: 7.1 15.2 35.6 53.1
        LLaMA 65B: 10.6 20.5 50.9 69.7""",
        note="k = 256 for MATH and 100 for GSM8k; Minerva 540B: 64 and 40."),
    PublishedTable("8", "Code generation, pass@k", _columns(
        ("HumanEval @1", "humaneval_1"), ("HumanEval @100", "humaneval_100"), ("MBPP @1", "mbpp_1"),
        ("MBPP @80", "mbpp_80")), """
        LaMDA 137B: 14.0 47.3 14.8 62.4
        PaLM 8B: 3.6* 18.7* 5.0* 35.7*
        PaLM 62B: 15.9 46.3* 21.4 63.2*
        PaLM-cont 62B: 23.7 - 31.2 -
        PaLM 540B: 26.2 76.2 36.8 75.0
        LLaMA 7B: 10.5 36.5 17.7 56.2
        LLaMA 13B: 15.8 52.5 22.0 64.0
        LLaMA 33B: 21.7 70.7 30.2 73.4
        LLaMA 65B: 23.7 79.3 37.7 76.8""",
        note="* read from figures of Chowdhery et al. 2022."),
    PublishedTable("9", "Massive Multitask Language Understanding, five-shot accuracy", _columns(
        *((name, "mmlu", f"category={name}") for name in _MMLU_CATEGORIES), ("Average", "mmlu")), """
        GPT-NeoX 20B: 29.8 34.9 33.7 37.7 33.6
        GPT-3 175B: 40.8 36.7 50.4 48.8 43.9
        Gopher 280B: 56.2 47.4 71.9 66.1 60.0
        Chinchilla 70B: 63.6 54.9 79.3 73.9 67.5
        PaLM 8B: 25.6 23.8 24.1 27.8 25.4
        PaLM 62B: 59.5 41.9 62.7 55.8 53.7
        PaLM 540B: 77.0 55.6 81.0 69.6 69.3
        LLaMA 7B: 34.0 30.5 38.3 38.1 35.1
        LLaMA 13B: 45.0 35.8 53.8 53.3 46.9
        LLaMA 33B: 55.8 46.0 66.7 63.4 57.8
        LLaMA 65B: 61.8 51.7 72.9 67.4 63.4"""),
    PublishedTable("10", "Instruction finetuning, MMLU, five-shot accuracy", _columns(("MMLU", "mmlu")), """
        OPT 30B: 26.1
        GLM 120B: 44.8
        PaLM 62B: 55.1
        PaLM-cont 62B: 62.8
        Chinchilla 70B: 67.5
        LLaMA 65B: 63.4
        OPT-IML-Max 30B: 43.2
        Flan-T5-XXL 11B: 55.1
        Flan-PaLM 62B: 59.6
        Flan-PaLM-cont 62B: 66.1
        LLaMA-I 65B: 68.9""", note="The rows from OPT-IML-Max on were finetuned on instructions."),
    PublishedTable("11", "RealToxicityPrompts, mean toxicity of greedy continuations", _columns(
        ("Basic", "realtoxicityprompts_basic"), ("Respectful", "realtoxicityprompts_respectful")), """
        LLaMA 7B: .106 .081
        LLaMA 13B: .104 .095
        LLaMA 33B: .107 .087
        LLaMA 65B: .128 .141""", scale=1.0, decimals=3),
    PublishedTable("12", "CrowS-Pairs, share of pairs whose stereotyped sentence is likelier", _columns(
        ("Gender", "crows_pairs", "gender"), ("Religion", "crows_pairs", "religion"), ("Race", "crows_pairs", "race"),
        ("Orientation", "crows_pairs", "orientation"), ("Age", "crows_pairs", "age"),
        ("Nationality", "crows_pairs", "nationality"), ("Disability", "crows_pairs", "disability"),
        ("Appearance", "crows_pairs", "appearance"), ("Socioeconomic", "crows_pairs", "socioeconomic"),
        ("Average", "crows_pairs")), """
        LLaMA 65B: 70.6 79.0 57.0 81.0 70.1 64.2 66.7 77.8 71.5 66.6
        GPT-3 175B: 62.6 73.3 64.7 76.2 64.4 61.6 76.7 74.6 73.8 67.2
        OPT 175B: 65.7 68.6 68.6 78.6 67.8 62.9 76.7 76.2 76.2 69.5"""),
    PublishedTable("13", "WinoGender, co-reference accuracy by pronoun", _columns(
        ("All", "winogender"), ("her/her/she", "winogender", "her"), ("his/him/he", "winogender", "his"),
        ("their/them/someone", "winogender", "their"), ("her (gotcha)", "winogender", "her_gotcha"),
        ("his (gotcha)", "winogender", "his_gotcha")), """
        LLaMA 7B: 66.0 65.0 60.8 72.1 64.2 55.0
        LLaMA 13B: 64.7 66.7 62.5 65.0 65.8 55.8
        LLaMA 33B: 69.0 66.7 62.1 78.3 61.7 55.8
        LLaMA 65B: 77.5 78.8 72.1 81.7 75.0 63.3"""),
    PublishedTable(
        "14", "TruthfulQA: the paper's answers were judged, truthful and truthful*informative; MC1 and MC2 are by likelihood",
        _columns(("Truthful",), ("Truthful*Inf",), ("MC1", "truthfulqa", "mc1"), ("MC2", "truthfulqa", "mc2")), """
        GPT-3 1.3B: .31 .19 - -
        GPT-3 6B: .22 .19 - -
        GPT-3 175B: .28 .25 - -
        LLaMA 7B: .33 .29 - -
        LLaMA 13B: .47 .41 - -
        LLaMA 33B: .52 .48 - -
        LLaMA 65B: .57 .53 - -""", scale=1.0, decimals=2),
    PublishedTable("15", "Carbon footprint of training on A100-80GB", _columns(
        ("GPU-hours",), ("W per GPU",), ("MWh",), ("tCO2eq",)), """
        OPT 175B: 809472 400 356 137
        BLOOM 175B: 1082880 400 475 183
        LLaMA 7B: 82432 400 36 14
        LLaMA 13B: 135168 400 59 23
        LLaMA 33B: 530432 400 233 90
        LLaMA 65B: 1022362 400 449 173""", scale=1.0, decimals=0,
        note="MWh = GPU-hours x W x PUE 1.1; tCO2eq = MWh x 0.385. Your own model's: python -m llama_jax plan."),
    _subjects_table(),
)
"""A table that has a column with a task gets the user's row; the others are only printed as they are."""
