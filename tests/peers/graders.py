"""Our graders beside lm-evaluation-harness's and hendrycks/math's rules, on generated answers.

`python -m tests.peers.graders --count 100000 [--hendrycks FOLDER] [--sympy 5000] [--data ../shared/data/eval]` prints every
difference by its reason. FOLDER holds hendrycks/math's math_equivalence.py; without it the harness's copy of it is asked.
--sympy asks the harness's Minerva grader whole, with sympy behind its normal form, on so many pairs (pip install lm-eval[math]).
Each reason stands in docs/EVALUATION.md; a difference without one is reported as unexplained and ends in exit code 1.
"""

import argparse
import ast
import importlib
import json
import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path

import lm_eval
import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter
from lm_eval.tasks.hendrycks_math import utils as hendrycks_math

from llama_jax.evaluation.grading.latex import boxed_answer, equivalent_answers
from llama_jax.evaluation.grading.matching import exact_match, last_number, stated_number
from llama_jax.evaluation.grading.published_forms import hendrycks_form, minerva_form
from llama_jax.evaluation.tasks.reasoning import gsm8k_gold, minerva_final_answer
from tests.peers.answer_texts import Ending, Short, endings, last_endings, short_answers, soup
from tests.peers.math_pairs import Pair, pairs

TASKS = Path(lm_eval.__file__).parent / "tasks"
UNEXPLAINED = "unexplained"
THEY: dict[type, dict[str, str]] = {  # they say equal and we do not: reason -> kinds of items
    Pair: {
        "left sides": r"equations|short_equations|named: (product|letter|multiple)|lists: (last|names)|sums",
        "unread rest": r"lists: other element|roots: one more",
        "inequalities in ASCII": r"ascii_inequalities|named: ASCII|inequalities: other direction",
        "words after a space": r"spaced_texts|texts: words after",
        "the letter a": r"(linear|polynomials): (letter gone|other coefficient)",
        "digits under a bar": r"repeating",
        "several formulas": r"formulas",
        "number systems": r"bases: (without|other)",
        "words as products": r"texts: (letters|other)",
        "mixed numbers": r"fractions: mixed number against"},
    Ending: {
        "dashes": r"range|difference|dash|sum|hyphen|minus sign of Unicode",
        "parts of numbers": r"fraction|mixed number|exponent|spaces between|comma for"},
    Short: {"nothing left": r"(nothing|article alone): (\+|A|the)"}}
WE: dict[type, dict[str, str]] = {  # we say equal and they do not
    Pair: {
        "names": r"named|pairs_of_numbers: names|lists: names|sums",
        "parts": r"(intervals|unions|sets|matrices|pairs_of_numbers): (decimal|slash)",
        "values": r"integers: (trailing|leading|sum|product|plus)|fractions: (not|decimal|power|mixed|slash|dfrac|tfrac)"
                  r"|roots|powers|constants|polynomials: (factored|other|left)|complexes: other|functions|repeating: fraction"
                  r"|equations: other order",
        "writing": r"\w+: (identical|spaces|spaced|without|braced|base|other command|ASCII|command|left|unbraced|half|text"
                   r"|percent|thousands|degrees|letter alone|mbox|unit|and|comma|dollar|in a|power without)"},
    Ending: {
        "the end of the text": r".*/ (nothing|line break)",
        "dashes": r"range|difference|dash|sum|hyphen|minus",
        "numbers written otherwise": r"(dollar|two|leading|percent|unit|euro|exponent|fraction|mixed|in brackets|spaces|comma"
                                     r"|after|plain|thousands|dots|date)"},
    Short: {"articles": r"article", "quotation marks": r"curly", "spaces": r"two spaces", "accents": r"letters and",
             "capital articles": r"upper"}}


def harness_minerva() -> dict:
    """The harness's Minerva rules without its imports of sympy and antlr4, which the normal form does not need."""
    source = ast.parse((TASKS / "minerva_math/utils.py").read_text())
    source.body = [node for node in source.body if not isinstance(node, ast.Try)]
    rules: dict = {}
    exec(compile(source, "minerva_math/utils.py", "exec"), rules)
    return rules


def hendrycks_rules(folder: Path | None) -> tuple[Callable[[str], str], Callable[[str, str], bool]]:
    """Normal form and equality, of hendrycks/math's own file or the harness's copy."""
    if folder is None:
        return hendrycks_math.strip_string, hendrycks_math.is_equiv
    sys.path.insert(0, str(folder))
    original = importlib.import_module("math_equivalence")
    return original._strip_string, original.is_equiv


def compare_forms(count: int, seed: int, folder: Path | None = None) -> Counter:
    """How many texts have another normal form here than there; where theirs raises there is none to compare."""
    theirs, (strip, _), found = harness_minerva()["normalize_final_answer"], hendrycks_rules(folder), Counter()
    answers = [text for pair in pairs(count // 4, seed) for text in (pair.gold, pair.answer)]
    for text in [*soup(count // 2, seed), *answers]:
        found["texts"] += 1
        found["Minerva's form differs"] += minerva_form(text) != theirs(text)
        try:
            found["Hendrycks et al.'s form differs"] += hendrycks_form(text) != strip(text)
        except (IndexError, AssertionError, ValueError):
            found["Hendrycks et al.'s form raises"] += 1
    return found


Item = Pair | Ending | Short
Differences = dict[tuple[str, str, str], list[Item]]
"""(grader, who says equal, reason) -> items."""


def reason(item: Item, ours: bool, *, dressed: bool) -> str:
    """Why the graders differ on such an item."""
    if ours and dressed:
        return "decoration"
    return next((name for name, kinds in (WE if ours else THEY)[type(item)].items() if re.match(kinds, item.kind)), UNEXPLAINED)


def note(found: Differences, item: Item, ours: bool, theirs: dict[str, bool], *, dressed: Iterable[str] = ()) -> None:
    """Writes down who differs from us, and where we are wrong."""
    if ours != item.right:
        found.setdefault(("ours", "the pair's making" if item.right else "we", UNEXPLAINED), []).append(item)
    for grader, verdict in theirs.items():
        if verdict != ours:
            name = reason(item, ours, dressed=grader in dressed)
            found.setdefault((grader, "we" if ours else "they", name), []).append(item)


def compare_math(count: int, seed: int, folder: Path | None = None) -> Differences:
    """Verdicts on pairs of MATH answers."""
    normal, (_, same), found = harness_minerva()["normalize_final_answer"], hendrycks_rules(folder), {}

    def verdicts(answer: str, gold: str) -> dict[str, bool]:
        return {"Hendrycks et al.": same(answer, gold), "Minerva's form": normal(answer) == normal(gold) != ""}

    for pair in pairs(count, seed):
        bare = verdicts(pair.bare, pair.gold) if pair.dress else {}
        note(found, pair, equivalent_answers(pair.answer, pair.gold), verdicts(pair.answer, pair.gold),
             dressed=[grader for grader, verdict in bare.items() if verdict])
    return found


def sympy_verdicts(chunk: list[Pair]) -> list[tuple[bool, bool]]:
    """Verdicts of lm-evaluation-harness's whole Minerva grader on each pair, and on it without its decoration."""
    from lm_eval.tasks.minerva_math import utils

    def verdict(answer: str, gold: str) -> bool:
        return utils.is_equiv(utils.normalize_final_answer(answer), utils.normalize_final_answer(gold))

    return [(verdict(pair.answer, pair.gold), bool(pair.dress) and verdict(pair.bare, pair.gold)) for pair in chunk]


def compare_sympy(count: int, seed: int) -> Differences:
    """Our graders beside the Minerva grader with sympy, whose parser runs in a fresh process for every few pairs.

    A parse that was interrupted spoils those after it.
    """
    found, drawn = {}, pairs(count, seed)
    chunks = [drawn[start : start + 50] for start in range(0, count, 50)]
    with multiprocessing.Pool(2, maxtasksperchild=1) as pool:
        for chunk, verdicts in zip(chunks, pool.imap(sympy_verdicts, chunks, chunksize=1), strict=True):
            for pair, (whole, bare) in zip(chunk, verdicts, strict=True):
                note(found, pair, equivalent_answers(pair.answer, pair.gold), {"Minerva with sympy": whole},
                     dressed=["Minerva with sympy"] if bare else [])
    return found


class Loader(yaml.SafeLoader):
    """YAML whose functions are left out."""


Loader.add_constructor("!function", lambda *_: None)


def exact(task: str) -> Callable[[str, str], bool]:
    """The harness's exact match with a task's settings."""
    [metric] = yaml.load((TASKS / task).read_text(), Loader)["metric_list"]
    settings = {key: value for key, value in metric.items() if key in ("regexes_to_ignore", "ignore_case", "ignore_punctuation")}
    return lambda answer, gold: bool(exact_match_hf_evaluate([answer], [gold], **settings)["exact_match"])


def compare_numbers(count: int, seed: int) -> Differences:
    """Verdicts on texts that end in a number."""
    task, equal, found = yaml.load((TASKS / "gsm8k/gsm8k-cot.yaml").read_text(), Loader), exact("gsm8k/gsm8k-cot.yaml"), {}
    filters = {one["name"]: RegexFilter(one["filter"][0]["regex_pattern"], one["filter"][0].get("group_select", 0))
               for one in task["filter_list"]}

    def theirs(name: str, item: Ending) -> dict[str, bool]:
        [[said]] = filters[name].apply([[item.text]], [{}])
        return {f"GSM8k {name}": equal(said, item.gold)}

    for item in endings(count // 2, seed):
        said = stated_number(item.text)
        note(found, item, said is not None and Decimal(said) == Decimal(item.gold), theirs("strict-match", item))
    for item in last_endings(count // 2, seed):
        last = last_number(item.text)
        note(found, item, last is not None and last == Decimal(item.gold), theirs("flexible-extract", item))
    return found


def compare_short(count: int, seed: int) -> Differences:
    """Verdicts on short answers."""
    found, settings = {}, {"NaturalQuestions": exact("nq_open/nq_open.yaml"), "TriviaQA": exact("triviaqa/default.yaml")}
    for item in short_answers(count, seed):
        theirs = {name: same(item.answer, item.gold) for name, same in settings.items()}
        note(found, item, exact_match(item.answer, [item.gold]), theirs)
    return found


def compare_references(folder: Path) -> Counter:
    """Answers taken out of the real references of MATH and GSM8k below `folder`."""
    rules, found = harness_minerva(), Counter()
    for file in folder.glob("math/test/*/*.json"):
        solution = json.loads(file.read_text())["solution"]
        theirs = rules["remove_boxed"](rules["last_boxed_only_string"](solution))
        said = f"so.\nFinal Answer: The final answer is ${theirs}$. I hope it is correct."
        found["MATH solutions"] += 1
        same = boxed_answer(solution) == theirs and minerva_final_answer(said) == rules["get_unnormalized_answer"](said)
        found["MATH, other answer"] += not same
        found["MATH, not equal to itself"] += not equivalent_answers(minerva_final_answer(said), theirs)
    strict = RegexFilter("#### (\\-?[0-9\\.\\,]+)")
    for file in folder.glob("gsm8k/*.jsonl"):
        for line in file.read_text().splitlines():
            answer = json.loads(line)["answer"]
            [[theirs]] = strict.apply([[answer]], [{}])
            wanted = Decimal(theirs.replace(",", ""))
            found["GSM8k answers"] += 1
            found["GSM8k, other answer"] += not (gsm8k_gold(answer) == last_number(answer) == wanted)
            found["GSM8k, not read in a sentence"] += Decimal(stated_number(f"The answer is {theirs}.") or "NaN") != wanted
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sympy", type=int, default=0)
    parser.add_argument("--hendrycks", type=Path)
    parser.add_argument("--data", type=Path)
    chosen = parser.parse_args()
    print(dict(compare_forms(chosen.count, chosen.seed, chosen.hendrycks)))
    if chosen.data:
        print(dict(compare_references(chosen.data)))
    found = compare_math(chosen.count, chosen.seed, chosen.hendrycks) | compare_numbers(chosen.count, chosen.seed)
    found |= compare_short(chosen.count, chosen.seed) | (compare_sympy(chosen.sympy, chosen.seed) if chosen.sympy else {})
    for (grader, who, name), items in sorted(found.items()):
        kinds = ", ".join(f"{kind} {number}" for kind, number in Counter(item.kind for item in items).most_common(4))
        print(f"{grader} | {who} say equal | {name} | {len(items)} | {kinds}\n    {items[0]}")
    return int(any(name == UNEXPLAINED for _, _, name in found))


if __name__ == "__main__":
    sys.exit(main())
