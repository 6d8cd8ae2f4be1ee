"""MATH answers that consist of parts or words, with what says the same and what does not."""

import random
from fractions import Fraction

from tests.peers.math_answers import Written, fraction, tex, whole


def pairs_of_numbers(r: random.Random) -> Written:
    a, b = fraction(r), whole(r)
    gold = f"({tex(a)},{b})"
    return Written(gold, {"identical": gold, "left and right": f"\\left({tex(a)}, {b}\\right)", "spaces": f"( {tex(a)} , {b} )",
                          "slash": f"({a.numerator}/{a.denominator},{b})", "names inside": f"(x = {tex(a)}, y = {b})"},
                   {"other order": f"({b},{tex(a)})", "other bracket": f"[{tex(a)},{b})",
                    "one element more": f"({tex(a)},{b},{b})",
                    "other element": f"({tex(a)},{b + 1})", "without brackets": f"{tex(a)},{b}"})


def lists(r: random.Random) -> Written:
    found = r.sample(range(-20, 100), r.randint(2, 4))
    gold = ",".join(map(str, found))
    return Written(gold, {"identical": gold, "spaces": ", ".join(map(str, found)),
                          "and": f"{', '.join(map(str, found[:-1]))} \\text{{ and }} {found[-1]}",
                          "comma and and": f"{', '.join(map(str, found[:-1]))}, \\text{{ and }} {found[-1]}",
                          "names": ", ".join(f"{x} = {value}" for x, value in zip("wxyz", found, strict=False))},
                   {"other order": ",".join(map(str, found[::-1])), "last alone": str(found[-1]),
                    "digits together": "".join(map(str, found)).replace("-", "") or "0", "other element": f"{gold}1",
                    "names and other values": ", ".join(f"{x} = {value + (place == 0)}" for place, (x, value) in enumerate(
                        zip("wxyz", found, strict=False)))})


def sets(r: random.Random) -> Written:
    a, b = r.randint(1, 9), r.choice(["\\frac{1}{2}", "\\frac{3}{4}"])
    gold = f"\\{{{a},{b}\\}}"
    return Written(gold, {"identical": gold, "spaces": f"\\{{{a}, {b}\\}}", "left and right": f"\\left\\{{{a},{b}\\right\\}}",
                          "decimal": f"\\{{{a},{'0.5' if '2' in b else '0.75'}\\}}"},
                   {"other element": f"\\{{{a + 1},{b}\\}}", "other bracket": f"({a},{b})"})


def intervals(r: random.Random) -> Written:
    a, b = sorted(r.sample(range(-30, 60), 2))
    left, right = r.choice("(["), r.choice(")]")
    gold = f"{left}{a},{b}{right}"
    return Written(gold, {"identical": gold, "left and right": f"\\left{left}{a}, {b}\\right{right}",
                          "decimal": f"{left}{a}.0,{b}{right}"},
                   {"other end": f"{left}{a},{b + 1}{right}", "other bracket": f"{'[' if left == '(' else '('}{a},{b}{right}",
                    "infinite": f"{left}{a},\\infty)"})


def unions(r: random.Random) -> Written:
    a, b = sorted(r.sample(range(-30, 60), 2))
    gold = f"(-\\infty,{a})\\cup({b},\\infty)"
    return Written(gold, {"identical": gold, "spaces": gold.replace("\\cup", " \\cup ").replace(",", ", "),
                          "left and right": gold.replace("(", "\\left(").replace(")", "\\right)"),
                          "decimal": f"(-\\infty,{a}.0)\\cup({b},\\infty)"},
                   {"other end": f"(-\\infty,{a})\\cup({b + 1},\\infty)", "other bracket": gold.replace(f"{a})", f"{a}]")})


def matrices(r: random.Random) -> Written:
    cells = [[str(whole(r, 2)) for _ in range(2)] for _ in range(r.randint(1, 3))]
    def matrix(rows: list[list[str]], kind: str = "pmatrix") -> str:
        inner = " \\\\ ".join(" & ".join(row) for row in rows)
        return f"\\begin{{{kind}}} {inner} \\end{{{kind}}}"
    return Written(matrix(cells), {"identical": matrix(cells), "spaces": matrix(cells).replace(" ", ""),
                                   "decimal": matrix([[f"{cells[0][0]}.0", cells[0][1]], *cells[1:]])},
                   {"other element": matrix([[cells[0][0], f"{cells[0][1]}1"], *cells[1:]]),
                    "other matrix": matrix(cells, "vmatrix"),
                    "rows joined": matrix([[cell for row in cells for cell in row], ["0", "0"]])})


UNITS = ("cm", "inches", "feet", "hours", "degrees", "pounds", "birds", "apples", "m", "meters per second")


def units(r: random.Random) -> Written:
    n, unit = whole(r), r.choice(UNITS)
    gold = f"{n}\\text{{ {unit}}}"
    return Written(gold, {"identical": gold, "without unit": str(n), "unit with exponent": f"{n}\\text{{ cm}}^2",
                          "mbox": f"{n} \\mbox{{ {unit}}}" if unit in ("cm", "inches", "feet", "hours") else str(n)},
                   {"other number": f"{n + 1}\\text{{ {unit}}}", "number gone": f"\\text{{{unit}}}"})


def signs(r: random.Random) -> Written:
    n = whole(r)
    gold, equal = r.choice([
        (f"{n}^\\circ", {"degrees in braces": f"{n}^{{\\circ}}", "without degrees": str(n)}),
        (f"{n}\\%", {"without percent": str(n), "percent unescaped": f"{n}%"}),
        (f"\\${n}", {"without dollar": str(n), "dollar": f"${n}", "dollars": f"{n} dollars"})])
    return Written(gold, {"identical": gold} | equal, {"other number": str(n + 1), "hundredth": f"{n / 100}"})


def texts(r: random.Random) -> Written:
    word = r.choice(["east", "Monday", "even", "Evelyn", "parabola", "circle", "square", "odd"])
    gold = f"\\text{{{word}}}"
    return Written(gold, {"identical": gold, "without text": word, "textbf": f"\\textbf{{{word}}}"},
                   {"other word": "\\text{west}", "letters shuffled": f"\\text{{{word[1]}{word[0]}{word[2:]}}}",
                    "words after a space": "\\text{ west}"})


def spaced_texts(r: random.Random) -> Written:
    a, b = r.sample(["east", "Monday", "even", "Evelyn", "parabola"], 2)
    n = whole(r)
    return r.choice([
        Written(f"\\text{{ {a}}}", {"identical": f"\\text{{ {a}}}", "without space": f"\\text{{{a}}}"},
                {"other word": f"\\text{{ {b}}}"}),
        Written(f"{n}\\text{{ or }}{n + 2}", {"identical": f"{n}\\text{{ or }}{n + 2}", "spaces": f"{n} \\text{{ or }} {n + 2}"},
                {"other second value": f"{n}\\text{{ or }}{n + 3}", "first alone": str(n)})])


def letters(r: random.Random) -> Written:
    a, b = r.sample("ABCDE", 2)
    return Written(f"\\text{{({a})}}", {"identical": f"\\text{{({a})}}", "textbf": f"\\textbf{{({a})}}", "letter alone": a},
                   {"other letter": f"\\text{{({b})}}", "lower case": a.lower()})


def complexes(r: random.Random) -> Written:
    a, b = whole(r), r.randint(2, 99)
    return Written(f"{a}+{b}i", {"identical": f"{a}+{b}i", "other order": f"{b}i + {a}", "spaces": f"{a} + {b}i"},
                   {"conjugate": f"{a}-{b}i", "swapped": f"{b}+{a}i" if a != b else "0", "without i": f"{a + b}"})


def functions(r: random.Random) -> Written:
    b, e, n = r.randint(2, 7), r.randint(2, 5), r.randint(3, 12)
    factorial = 1
    for k in range(2, n + 1):
        factorial *= k
    gold, equal = r.choice([
        (str(e), {"logarithm": f"\\log_{b} {b**e}", "logarithm in braces": f"\\log_{{{b}}}{{{b**e}}}"}),
        (str(factorial), {"factorial": f"{n}!"}), (str(n * (n - 1) // 2), {"binomial": f"\\binom{{{n}}}{{2}}"}),
        ("\\frac{1}{2}", {"sine": "\\sin\\frac{\\pi}{6}"}),
        (str(n), {"absolute value": f"|-{n}|", "order of bars": f"\\left|{n}\\right|"}),
        (f"{n}\\pm\\sqrt{{{b}}}", {"plus or minus": f"{n} \\pm \\sqrt{{{b}}}", "minus or plus": f"{n} \\mp \\sqrt{{{b}}}"}),
        ("-3", {"cube root of a negative": "\\sqrt[3]{-27}"}), (f"{n}\\sin 2x", {"function of a product": f"{n}\\sin(2x)"}),
        (f"{n}\\pi r^2", {"letter after a command": f"{n} \\pi r^2", "order of letters": f"{n}r^2\\pi"}),
        (f"{n}xyz", {"order of letters": f"{n}zyx"})])
    return Written(gold, equal, {"other value": f"{gold}+1", "plus alone": "1+\\sqrt{2}" if "pm" in gold else f"{gold}2"})


def repeating(r: random.Random) -> Written:
    n, d = r.randint(1, 8), r.randint(1, 9)
    gold = f"0.{d}\\overline{{{n}}}"
    return Written(gold, {"identical": gold, "unbraced bar": f"0.{d}\\overline{n}", "fraction": tex(Fraction(9 * d + n, 90))},
                   {"bar gone": f"0.{d}{n}", "bar over all": f"0.\\overline{{{d}{n}}}" if n != d else "0"})


def formulas(r: random.Random) -> Written:
    a, b = whole(r), whole(r) + 1000
    return Written(str(a), {"in a sentence": f"there are ${a}$ ways", "in a formula": f"\\({a}\\)"},
                   {"one of two": f"${a}$ or ${b}$", "sign before the formula": f"-${a}$"})


SHAPES = (pairs_of_numbers, lists, sets, intervals, unions, matrices, units, signs, texts, spaced_texts, letters, complexes,
          functions, repeating, formulas)
