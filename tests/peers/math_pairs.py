"""Pairs of MATH answers that are equal by a rewrite or different by a change."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.peers.math_answers import EXPRESSIONS
from tests.peers.math_shapes import SHAPES, complexes, functions, repeating


@dataclass(frozen=True)
class Pair:
    """A gold answer and another that is right or not, with the rewrite or change and the dress that lie between them."""

    kind: str
    dress: str
    gold: str
    bare: str
    answer: str
    right: bool


DRESS: dict[str, Callable[[str], str]] = {
    "dollars": lambda text: f"${text}$", "boxed": lambda text: f"\\boxed{{{text}}}", "spaces around": lambda text: f" {text} ",
    "boxed in dollars": lambda text: f"$\\boxed{{{text}}}$", "sentence": lambda text: f"the answer is ${text}$",
    "final dot in dollars": lambda text: f"${text}.$", "final dot": lambda text: f"{text}.",
    "unit word": lambda text: f"{text} units",
    "dollars in pieces": lambda text: text.replace("=", "$ = $").join("$$")}
MEASURED = {*EXPRESSIONS[:8], complexes, functions, repeating}
"""Kinds that a word for a unit may follow."""


def pairs(count: int, seed: int) -> list[Pair]:
    """So many pairs, half of them right."""
    r, found = random.Random(seed), []
    while len(found) < count:
        kind = r.choice(EXPRESSIONS + SHAPES)
        written, right = kind(r), r.random() < 0.5
        name, bare = r.choice(list((written.equal if right else written.different).items()))
        dress = r.choice(list(DRESS)) if "$" not in bare and r.random() < 0.4 else ""
        if dress == "unit word" and kind not in MEASURED:
            dress = ""
        answer = DRESS[dress](bare) if dress else bare
        found.append(Pair(f"{kind.__name__}: {name}", dress, written.gold, bare, answer, right))
    return found
