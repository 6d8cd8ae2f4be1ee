"""Texts that end in a number, short answers, and LaTeX tokens in no order: what graders are compared on."""

import random
import string
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Ending:
    """A text, the gold number, and whether the text says it."""

    kind: str
    text: str
    gold: str
    right: bool


WRITTEN: dict[str, Callable[[Decimal], str]] = {
    "plain": str,
    "thousands commas": lambda n: f"{n:,}",
    "dollar before": lambda n: f"${n:,}".replace("$-", "-$"),
    "dollar before a sign": lambda n: f"${n}",
    "dollar after a space": lambda n: f"{n} $",
    "two decimals": lambda n: f"{n:.2f}",
    "minus sign of Unicode": lambda n: str(n).replace("-", "\N{MINUS SIGN}"),
    "leading zero": lambda n: str(n).replace("-", "-0") if n < 0 else f"0{n}",
    "percent": lambda n: f"{n}%",
    "unit": lambda n: f"{n}kg",
    "unit after a space": lambda n: f"{n} kg",
    "euro": lambda n: f"\N{EURO SIGN}{n}",
    "exponent": lambda n: f"{n}e0",
    "fraction": lambda n: f"{n * 2}/2",
    "mixed number": lambda n: f"{n} 0/2",
    "in brackets": lambda n: f"({n})",
    "spaces between thousands": lambda n: f"${n * 1000:,}".replace(",", " "),
    "comma for the decimal point": lambda n: f"{n * 1000:,}".replace(",", ".") + ",0",
    "after a word": lambda n: f"about {n}",
    "after a sum": lambda n: f"{n - 7} + 7 = {n}"}
ENDS = {"dot": ".", "nothing": "", "ellipsis": " ...", "comma": ", of course", "exclamation mark": "!", "line break": "\n",
        "two dots": ".."}
STARTS = ("", "3 + 4 = 7. ", "It costs $5. ")
THOUSANDFOLD = ("spaces between thousands", "comma for the decimal point")


def endings(count: int, seed: int, *, lead: str = "The answer is ") -> list[Ending]:
    """So many texts, half of them with the gold number after `lead`."""
    r, found = random.Random(seed), []
    while len(found) < count:
        written, end = r.choice(list(WRITTEN)), r.choice(list(ENDS))
        n = Decimal(r.randint(1, 10 ** r.randint(1, 12)) * (-1 if r.random() < 0.2 else 1))
        if (n < 0 and written in ("mixed number", *THOUSANDFOLD)) or (written == "after a word" and "answer" in lead):
            continue
        gold = n * 1000 if written in THOUSANDFOLD else n
        right = r.random() < 0.5
        gold = gold if right else r.choice([gold + 1, -gold, gold * 10])
        sign = ", negative" if n < 0 else ""
        text = f"{r.choice(STARTS)}{lead}{WRITTEN[written](n)}{ENDS[end]}"
        found.append(Ending(f"{written}{sign} / {end}", text, str(gold), right))
    return found


def last_endings(count: int, seed: int) -> list[Ending]:
    """The same without the words of the chain of thought, and sums, ranges and bullets, whose last number has no sign."""
    r, found = random.Random(seed), endings(count // 2, seed, lead="So it is ")
    while len(found) < count:
        a, b, right = r.randint(2, 999), r.randint(2, 999), r.random() < 0.5
        kind, text = r.choice([
            ("range", f"between {a}-{b}."), ("difference", f"{a} - {b}"), ("sum", f"{a}-3-4={b}"), ("dash", f"{a}\N{EN DASH}{b}"),
            ("bullet", f"first\n- {b} apples"), ("hash", f"#### {b}"), ("annotation", f"<<{a}-1={b}>> eggs"),
            ("date", f"on 5/{a}/{b}"), ("dots before", f"...{b}"), ("hyphen of a word", f"a-{b} x")])
        found.append(Ending(kind, text, str(b if right else r.choice([-b, b + 1])), right))
    return found


@dataclass(frozen=True)
class Short:
    """A gold answer and another, with what was done to it."""

    kind: str
    gold: str
    answer: str
    right: bool


WORDS = ("Paris", "Vitamin A", "The Beatles", "Grey’s Anatomy", "U.S.A.", "Bohemian Rhapsody", "An American in Paris",
         "1914–1918", "J. K. Rowling", "hepatitis B", "A", "rock-and-roll", "Theatre Royal", "the", "+", "António",
         "Mrs. Dalloway", "Planet of the Apes")
RIGHT: dict[str, Callable[[str], str]] = {
    "identical": str, "upper case": str.upper, "lower case": str.lower, "exclamation mark": lambda text: text + "!",
    "article before": lambda text: f"the {text}", "two spaces": lambda text: text.replace(" ", "  "),
    "quotes": lambda text: f'"{text}"', "curly quotes": lambda text: f"“{text}”",
    "letters and accents apart": lambda text: unicodedata.normalize("NFD", text),
    "article gone": lambda text: text.removeprefix("The ")}
WRONG: dict[str, Callable[[str], str]] = {
    "word more": lambda text: f"{text} Street", "other word": lambda text: "Rome", "letter more": lambda text: f"{text}s",
    "nothing": lambda text: "", "article alone": lambda text: "an", "digit more": lambda text: f"{text}1"}


def short_answers(count: int, seed: int) -> list[Short]:
    """So many, half of them right."""
    r, found = random.Random(seed), []
    while len(found) < count:
        gold, right = r.choice(WORDS), r.random() < 0.5
        name, change = r.choice(list((RIGHT if right else WRONG).items()))
        if not right or name == "identical" or gold not in ("A", "the", "+"):
            found.append(Short(f"{name}: {gold}", gold, change(gold), right))
    return found


COMMANDS = ("frac sqrt text dfrac tfrac left right boxed overline textbf mbox pi circ cdot ! ; , % $ infty begin{pmatrix} "
            "end{pmatrix} ldots dots mathrm{th} log text{ text{and} sqrt[3] \\ { }")
PIECES = [*string.ascii_letters, *string.digits, *"{}[]()$^_=+-*/.,!|<>%\"' \n", *("\\" + word for word in COMMANDS.split()),
          "\\ ", "a ", "an ", "units", "cm", "12", "1,000", "square", "\\text{ cm}", "\\frac{1}{2}", "x = ", "^{\\circ}", "{,}",
          ",\\!", ".$"]


def soup(count: int, seed: int) -> list[str]:
    """Texts of LaTeX tokens in no order, on which normal forms have to agree all the same."""
    r = random.Random(seed)
    return ["".join(r.choice(PIECES) for _ in range(r.randint(1, 24))) for _ in range(count)]
