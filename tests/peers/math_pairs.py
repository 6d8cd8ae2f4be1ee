"""Pairs of MATH answers that are equal by a rewrite or different by a change, from a grammar of what such answers hold."""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Written:
    """An answer, what says the same (by the name of the rewrite), and what does not (by the name of the change)."""

    gold: str
    equal: dict[str, str]
    different: dict[str, str]


@dataclass(frozen=True)
class Pair:
    """A gold answer and another that is right or not, with the rewrite or change and the dress that lie between them."""

    kind: str
    dress: str
    gold: str
    bare: str
    answer: str
    right: bool


def whole(r: random.Random, digits: int = 3) -> int:
    return r.randint(1, 10 ** r.randint(1, digits) - 1)


def fraction(r: random.Random) -> Fraction:
    while (value := Fraction(whole(r, 2), r.randint(2, 40))).denominator == 1:
        pass
    return value


def tex(value: Fraction | int, command: str = "\\frac") -> str:
    value, sign = abs(Fraction(value)), "-" if value < 0 else ""
    return f"{sign}{value.numerator}" if value.denominator == 1 else f"{sign}{command}{{{value.numerator}}}{{{value.denominator}}}"


def integers(r: random.Random) -> Written:
    n = whole(r, 30) + 1
    digits, place = str(n), r.randrange(len(str(n)))
    other = digits[:place] + str((int(digits[place]) + r.randint(1, 9)) % 10) + digits[place + 1 :]
    return Written(digits, {
        "identical": digits, "thousands commas": f"{n:,}", "thousands commas in TeX": f"{n:,}".replace(",", ",\\!"),
        "thousands in braces": f"{n:,}".replace(",", "{,}"), "trailing .0": f"{n}.0", "trailing dot": f"{n}.",
        "leading zero": f"0{n}", "sum": f"{n - 1} + 1", "product": f"2 \\cdot {n // 2}" if n % 2 == 0 else f"1 \\times {n}",
        "plus sign": f"+{n}"}, {
        "next integer": str(n + 1), "one digit": other, "other sign": f"-{n}", "digit more": f"{n}{r.randint(0, 9)}"})


def fractions(r: random.Random) -> Written:
    value, k = fraction(r), r.randint(2, 9)
    p, q = value.numerator, value.denominator
    equal = {"identical": tex(value), "dfrac": tex(value, "\\dfrac"), "tfrac": tex(value, "\\tfrac"), "slash": f"{p}/{q}",
             "not reduced": f"\\frac{{{p * k}}}{{{q * k}}}", "power of -1": f"{p} \\cdot {q}^{{-1}}"}
    if p < 10 and q < 10:
        equal |= {"unbraced fraction": f"\\frac{p}{q}", "spaced fraction": f"\\frac {p} {q}"}
    if p < 10:
        equal["half braced fraction"] = f"\\frac{p}{{{q}}}"
    if 10 ** 12 % q == 0 and q in (2, 4, 5, 8, 10, 20, 25, 40):
        equal |= {"decimal": str(float(value)), "decimal without zero": str(float(value)).removeprefix("0")}
    if p > q:
        w, rest = divmod(p, q)
        equal["mixed number"] = f"{w}\\frac{{{rest}}}{{{q}}}"
    different = {"other numerator": tex(Fraction(p + 1, q)), "upside down": f"\\frac{{{q}}}{{{p}}}", "other sign": tex(-value),
                 "rounded decimal": f"{float(value):.13g}" if q % 3 == 0 else str(float(value) + 0.001),
                 "mixed number against product": f"{p}\\frac{{1}}{{{q}}}" if q > 1 else "0"}
    return Written(tex(value), equal, different)


def roots(r: random.Random) -> Written:
    a, b, n = r.randint(1, 12), r.randint(2, 9), r.choice([2, 3, 5, 6, 7, 10, 11])
    front, dot = ("", "") if a == 1 else (str(a), f"{a} \\cdot ")
    gold = f"{front}\\sqrt{{{n}}}"
    equal = {"identical": gold, "power one half": f"{dot}{n}^{{1/2}}",
             "under the root": f"\\sqrt{{{a * a * n}}}", "rationalised": f"\\frac{{{a * n}}}{{\\sqrt{{{n}}}}}"}
    if n < 10:
        equal["unbraced root"] = f"{front}\\sqrt{n}"
    return Written(gold, equal, {"other radicand": f"{front}\\sqrt{{{n + 1}}}", "other factor": f"{a + 1}\\sqrt{{{n}}}",
                                 "without root": f"{a * n}", "decimal of a root": str(a * n ** 0.5),
                                 "cube root": f"{front}\\sqrt[3]{{{n}}}", "one more": f"{front}\\sqrt{{{n}}} + {10 ** -b:.{b}f}"})


def powers(r: random.Random) -> Written:
    b, e = r.randint(2, 12), r.randint(2, 40)
    gold = f"{b}^{{{e}}}"
    equal = {"identical": gold, "power without braces": f"{b}^{e}", "power written out": str(b**e)}
    return Written(gold, equal, {"power and one": str(b**e + 1), "power less one": f"{b**e - 1:,}", "other exponent": f"{b}^{{{e + 1}}}",
                                 "product for power": f"{b} \\cdot {e}" if (b, e) != (2, 2) else "5"})


def constants(r: random.Random) -> Written:
    value = Fraction(whole(r, 2), r.randint(1, 8))
    p, q = value.numerator, value.denominator
    gold = f"{p}\\pi" if q == 1 else f"\\frac{{{p}\\pi}}{{{q}}}"
    return Written(gold, {"identical": gold, "factor before": f"{tex(value)}\\pi", "factor with a space": f"{tex(value)} \\pi",
                          "dot before a letter": f"{tex(value)} \\cdot \\pi"},
                   {"other factor": f"{tex(value + 1)}\\pi", "decimal of pi": str(float(value) * 3.141592653589793),
                    "without pi": tex(value), "other letter": f"{tex(value)}\\phi"})


def polynomials(r: random.Random) -> Written:
    a, b, x = r.randint(1, 9), r.randint(1, 9), r.choice("xyzntab")
    gold = f"{x}^2 + {a + b}{x} + {a * b}"
    return Written(gold, {"identical": gold, "factored": f"({x}+{a})({x}+{b})", "other order": f"{a * b} + {a + b}{x} + {x}^2",
                          "without spaces": gold.replace(" ", ""), "braced exponent": gold.replace("^2", "^{2}"),
                          "left and right": f"\\left({x}+{a}\\right)\\left({x}+{b}\\right)"},
                   {"other coefficient": f"{x}^2 + {a + b + 1}{x} + {a * b}", "letter gone": f"{x}^2 + {a + b} + {a * b}",
                    "other letter": gold.replace(x, "k"), "large constant": f"{x}^2 + {a + b}{x} + {a * b + 10 ** -9:.9f}"})


def linear(r: random.Random) -> Written:
    p, q, k, n = r.randint(2, 9), r.randint(2, 9), r.randint(1, 9), whole(r)
    gold = r.choice([f"a + {n}", f"{p}a - {n}", f"{p}a + {q}b + {n}"])
    return Written(gold, {"identical": gold, "without spaces": gold.replace(" ", "")},
                   {"letter gone": gold.replace("a ", ""), "other coefficient": gold.replace(str(n), str(n + k))})


def equations(r: random.Random) -> Written:
    a, b, c, d = (r.randint(2, 9) for _ in range(4))
    gold = f"{a}x - {b}y + {c}z + {d} = 0"
    return Written(gold, {"identical": gold, "without spaces": gold.replace(" ", ""),
                          "other order": f"{a}x + {c}z - {b}y + {d} = 0"},
                   {"other equation": "x + y - z + 2 = 0", "right side alone": "0", "other coefficient": f"{a}x - {b + 1}y + {c}z + {d} = 0"})


def short_equations(r: random.Random) -> Written:
    a, n = r.randint(2, 9), whole(r)
    return Written(f"{a}x = {n}", {"identical": f"{a}x = {n}", "without spaces": f"{a}x={n}"},
                   {"right side alone": str(n), "other left side": f"{a + 1}x = {n}", "other left side, tight": f"{a + 1}x={n}"})


def sums(r: random.Random) -> Written:
    a, b = whole(r), whole(r)
    return Written(str(a + b), {"sum with its value": f"{a} + {b} = {a + b}", "name, sum and value": f"n = {a} + {b} = {a + b}"},
                   {"sum with another value": f"{a} + {b} = {a + b + 1}"})


def named(r: random.Random) -> Written:
    n, x = whole(r), r.choice("xyzknr")
    return Written(str(n), {"name": f"{x} = {n}", "name without spaces": f"{x}={n}", "name with index": f"{x}_1 = {n}",
                            "name with braced index": f"{x}_{{10}} = {n}", "function": f"f({x}) = {n}", "angle": f"\\angle ABC = {n}",
                            "segment": f"AB = {n}", "Greek name": f"\\theta = {n}", "word": f"\\text{{Area}} = {n}",
                            "name before commas": f"{x} = {n:,}"},
                   {"name and other value": f"{x} = {n + 1}", "product of letters": f"{x}w = {n}", "letter squared": f"{x}^2 = {n}",
                    "multiple of the name": f"2{x} = {n}", "name and inequality": f"{x} > {n}", "ASCII inequality": f"{x}<={n}"})


def inequalities(r: random.Random) -> Written:
    n, x = whole(r), r.choice("xyt")
    return Written(f"{x} \\le {n}", {"identical": f"{x} \\le {n}", "other command": f"{x} \\leq {n}", "ASCII sign": f"{x} <= {n}"},
                   {"other direction": f"{x} \\ge {n}", "other direction, ASCII": f"{x}>={n}", "strict": f"{x} < {n}",
                    "other bound": f"{x} \\le {n + 1}", "bound alone": str(n)})


def ascii_inequalities(r: random.Random) -> Written:
    n, x = whole(r), r.choice("xyt")
    return Written(f"{x}<={n}", {"identical": f"{x}<={n}", "command": f"{x} \\le {n}"},
                   {"other direction, ASCII": f"{x}>={n}", "bound alone": str(n)})


def bases(r: random.Random) -> Written:
    base = r.randint(2, 16)
    digits = "".join(r.choice("0123456789ABCDEF"[:base]) for _ in range(r.randint(2, 12))).lstrip("0") or "10"
    return Written(f"{digits}_{base}", {"identical": f"{digits}_{base}", "braced base": f"{digits}_{{{base}}}",
                                        "base in brackets": f"({digits})_{{{base}}}", "base as text": f"{digits}_{{\\text{{{base}}}}}"},
                   {"without base": digits, "other base": f"{digits}_{{{base + 1}}}", "other digits": f"{digits}0_{{{base}}}"})


def pairs_of_numbers(r: random.Random) -> Written:
    a, b = fraction(r), whole(r)
    gold = f"({tex(a)},{b})"
    return Written(gold, {"identical": gold, "left and right": f"\\left({tex(a)}, {b}\\right)", "spaces": f"( {tex(a)} , {b} )",
                          "slash": f"({a.numerator}/{a.denominator},{b})", "names inside": f"(x = {tex(a)}, y = {b})"},
                   {"other order": f"({b},{tex(a)})", "other bracket": f"[{tex(a)},{b})", "one element more": f"({tex(a)},{b},{b})",
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
    return Written(gold, {"identical": gold, "left and right": f"\\left{left}{a}, {b}\\right{right}", "decimal": f"{left}{a}.0,{b}{right}"},
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
                   {"other element": matrix([[cells[0][0], f"{cells[0][1]}1"], *cells[1:]]), "other matrix": matrix(cells, "vmatrix"),
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
        Written(f"\\text{{ {a}}}", {"identical": f"\\text{{ {a}}}", "without space": f"\\text{{{a}}}"}, {"other word": f"\\text{{ {b}}}"}),
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
        ("\\frac{1}{2}", {"sine": "\\sin\\frac{\\pi}{6}"}), (str(n), {"absolute value": f"|-{n}|", "order of bars": f"\\left|{n}\\right|"}),
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


KINDS: tuple[Callable[[random.Random], Written], ...] = (
    integers, fractions, roots, powers, constants, polynomials, linear, equations, short_equations, sums, named, inequalities,
    ascii_inequalities, bases, pairs_of_numbers, lists, sets, intervals, unions, matrices, units, signs, texts, spaced_texts, letters,
    complexes, functions, repeating)
DRESS: dict[str, Callable[[str], str]] = {
    "dollars": lambda text: f"${text}$", "boxed": lambda text: f"\\boxed{{{text}}}", "spaces around": lambda text: f" {text} ",
    "boxed in dollars": lambda text: f"$\\boxed{{{text}}}$", "sentence": lambda text: f"the answer is ${text}$",
    "final dot in dollars": lambda text: f"${text}.$", "final dot": lambda text: f"{text}.", "unit word": lambda text: f"{text} units",
    "dollars in pieces": lambda text: text.replace("=", "$ = $").join("$$")}
NO_UNITS = {texts, letters, spaced_texts, matrices, inequalities, ascii_inequalities, units, signs, lists, sets, unions, intervals,
            pairs_of_numbers}


def pairs(count: int, seed: int) -> list[Pair]:
    """So many pairs, half of them right."""
    r, found = random.Random(seed), []
    while len(found) < count:
        kind = r.choice(KINDS)
        written, right = kind(r), r.random() < 0.5
        name, bare = r.choice(list((written.equal if right else written.different).items()))
        dress, answer = "", bare
        if r.random() < 0.4 and "$" not in bare and not (dress := r.choice(list(DRESS))) == "unit word" or kind not in NO_UNITS and dress:
            answer = DRESS[dress](bare)
        else:
            dress = ""
        found.append(Pair(f"{kind.__name__}: {name}", dress, written.gold, bare, answer, right))
    return found


PIECES = [*string.ascii_letters, *string.digits, *"{}[]()$^_=+-*/.,!|<>%\"' \n", *("\\" + word for word in (
    "frac sqrt text dfrac tfrac left right boxed overline textbf mbox pi circ cdot ! ; , % $ infty begin{pmatrix} end{pmatrix} "
    "ldots dots mathrm{th} log text{ text{and} sqrt[3] \\ { }").split()), "\\ ", "a ", "an ", "units", "cm", "12", "1,000", "square",
          "\\text{ cm}", "\\frac{1}{2}", "x = ", "^{\\circ}", "{,}", ",\\!", ".$"]


def soup(count: int, seed: int) -> list[str]:
    """Texts of LaTeX tokens in no order, on which normal forms have to agree all the same."""
    r = random.Random(seed)
    return ["".join(r.choice(PIECES) for _ in range(r.randint(1, 24))) for _ in range(count)]
