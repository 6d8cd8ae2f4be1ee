"""MATH answers that are one expression, with what says the same and what does not."""

import random
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Written:
    """An answer, what says the same (by the name of the rewrite), and what does not (by the name of the change)."""

    gold: str
    equal: dict[str, str]
    different: dict[str, str]


def whole(r: random.Random, digits: int = 3) -> int:
    return r.randint(1, 10 ** r.randint(1, digits) - 1)


def fraction(r: random.Random) -> Fraction:
    while (value := Fraction(whole(r, 2), r.randint(2, 40))).denominator == 1:
        pass
    return value


def tex(value: Fraction | int, command: str = "\\frac") -> str:
    sign, above, below = "-" if value < 0 else "", abs(Fraction(value)).numerator, Fraction(value).denominator
    return f"{sign}{above}" if below == 1 else f"{sign}{command}{{{above}}}{{{below}}}"


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
    return Written(gold, equal, {"power and one": str(b**e + 1), "power less one": f"{b**e - 1:,}",
                                 "other exponent": f"{b}^{{{e + 1}}}",
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
                   {"other equation": "x + y - z + 2 = 0", "right side alone": "0",
                    "other coefficient": f"{a}x - {b + 1}y + {c}z + {d} = 0"})


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
                            "name with braced index": f"{x}_{{10}} = {n}", "function": f"f({x}) = {n}",
                            "angle": f"\\angle ABC = {n}", "segment": f"AB = {n}", "Greek name": f"\\theta = {n}",
                            "word": f"\\text{{Area}} = {n}",
                            "name before commas": f"{x} = {n:,}"},
                   {"name and other value": f"{x} = {n + 1}", "product of letters": f"{x}w = {n}",
                    "letter squared": f"{x}^2 = {n}", "multiple of the name": f"2{x} = {n}", "name and inequality": f"{x} > {n}",
                    "ASCII inequality": f"{x}<={n}"})


def inequalities(r: random.Random) -> Written:
    n, x = whole(r), r.choice("xyt")
    return Written(f"{x} \\le {n}", {"identical": f"{x} \\le {n}", "other command": f"{x} \\leq {n}",
                                      "ASCII sign": f"{x} <= {n}"},
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
                                        "base in brackets": f"({digits})_{{{base}}}",
                                        "base as text": f"{digits}_{{\\text{{{base}}}}}"},
                   {"without base": digits, "other base": f"{digits}_{{{base + 1}}}", "other digits": f"{digits}0_{{{base}}}"})


EXPRESSIONS = (integers, fractions, roots, powers, constants, polynomials, linear, equations, short_equations, sums, named,
               inequalities, ascii_inequalities, bases)
