"""Every task of this package can be named, belongs where the page says, and is documented."""

import re
from pathlib import Path

import llama_jax.evaluation.tasks as package
from llama_jax.evaluation.tasks import catalogue
from llama_jax.evaluation.tasks.catalogue import TASK_GROUPS, all_tasks

ROOT = Path(__file__).parents[3]


def documented() -> set[str]:
    """Names in the column of tasks of docs/EVALUATION.md, with braces spelt out."""
    table = (ROOT / "docs" / "EVALUATION.md").read_text().partition("\n## Tasks\n")[2].partition("\n\n")[0]
    names = set()
    for row in table.splitlines():
        for name in re.findall(r"`([^`]+)`", row.split("|")[2]):
            before, choices, after = re.fullmatch(r"(\w*)(?:\{([\w,]+)\}(\w*))?", name).groups(default="")
            names |= {f"{before}{choice}{after}" for choice in choices.split(",")}
    return names


def test_every_module_with_tasks_is_in_the_catalogue():
    modules = {file.stem for file in Path(package.__file__).parent.glob("*.py") if "\nTASKS" in file.read_text()}
    assert modules == set(catalogue._MODULES)


def test_tasks_have_names_of_their_own_and_groups_name_tasks():
    tasks = [task for module in catalogue._MODULES
             for task in __import__(f"{package.__name__}.{module}", fromlist=["TASKS"]).TASKS]
    assert len(tasks) == len(all_tasks())
    assert {name for group in TASK_GROUPS.values() for name in group} <= all_tasks().keys()


def test_every_task_is_in_the_table_of_the_page():
    assert documented() == all_tasks().keys()
