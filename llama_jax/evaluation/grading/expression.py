"""Values of LaTeX expressions to 650 digits, so that 10^{10} differs from 10^{10}+1 and \\sqrt{8} equals 2\\sqrt{2}."""

import itertools
import re
import zlib
from collections.abc import Callable

from mpmath.ctx_mp import MPContext

CONTEXT = MPContext()
CONTEXT.dps = 650
"""Enough to add the largest and the smallest value of MAGNITUDE without loss."""
MAGNITUDE = 1000
"""Binary exponent beyond which a value is refused, about 10^300."""
NEAR = CONTEXT.mpf(10) ** -330
"""Difference that rounding alone can make."""
LONGEST = 300
"""Characters of an expression whose value is computed."""
POINTS = tuple(CONTEXT.mpf(point) for point in ("0.7548776662", "-0.5698402910", "1.3247179572"))
"""Where expressions with variables are compared; one is negative, which tells \\sqrt{x^2} from x."""

Number = type(CONTEXT.mpf(0)) | type(CONTEXT.mpc(0))

TOKEN = re.compile(r"\d+\.?\d*|\.\d+|\\[a-zA-Z]+|\\[{}]|[a-zA-Z]|[-+*/^_(){}\[\]|!]")
MIXED = re.compile(r"\d+ \\frac { \d+ } { \d+ }")
DIGITS_WITH_LETTERS = re.compile(r"[A-Z]{2}|[A-Z]\d|\d[A-Z\d]*_")
"""Parts of words in capitals and of numbers in another base: 1A0_{16}."""
SAME_AS = {"\\{": "{", "\\}": "}", "\\cdot": "*", "\\times": "*", "\\div": "/", "\\lvert": "|", "\\rvert": "|", "\\vert": "|"}
CONSTANTS = {"\\pi": CONTEXT.pi, "e": CONTEXT.e, "i": CONTEXT.mpc(0, 1)}
FUNCTIONS: dict[str, Callable[[Number], Number]] = {
    f"\\{name}": getattr(CONTEXT, name)
    for name in ("sin", "cos", "tan", "sec", "csc", "cot", "sinh", "cosh", "tanh", "ln", "exp")} | {
    "\\arcsin": CONTEXT.asin, "\\arccos": CONTEXT.acos, "\\arctan": CONTEXT.atan}
ROUNDED = {"\\lfloor": ("\\rfloor", CONTEXT.floor), "\\lceil": ("\\rceil", CONTEXT.ceil)}
CLOSING = {"(": ")", "[": "]", "{": "}"}
SIGNS = ("+", "-", "\\pm", "\\mp")
GREEK = set(re.findall(r"\S+", r"""
    \alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \lambda \mu \nu \xi \rho \sigma \tau \phi \varphi \chi \psi
    \omega \Gamma \Delta \Theta \Lambda \Sigma \Phi \Psi \Omega"""))


class Unreadable(Exception):
    """Not an expression whose value can be computed."""


def same_value(first: str, second: str) -> bool:
    """Whether two expressions have the same value, at every one of POINTS and for both signs of \\pm where they have them."""
    if max(len(first), len(second)) > LONGEST:
        return False
    try:
        one, two = tokens(first), tokens(second)
        signs = (1, -1) if "\\pm" in one or "\\pm" in two else (1,)
        return all(abs(Expression(one, point, sign).read() - Expression(two, point, sign).read()) <= NEAR
                   for point, sign in itertools.product(POINTS, signs))
    except (Unreadable, ArithmeticError, ValueError, TypeError, RecursionError):
        return False


def tokens(text: str) -> list[str]:
    """Numbers, commands, letters and signs of an expression. Raises Unreadable for words and for any other sign."""
    text = text.replace("~", " ")
    letters = re.sub(r"\\[a-zA-Z]+", " ", text)
    words = re.findall(r"[A-Za-z]*[aeiou][A-Za-z]*", letters)
    if DIGITS_WITH_LETTERS.search(letters) or any(len(word) > 2 for word in words):
        raise Unreadable  # words are no products of their letters
    found = TOKEN.findall(text)
    if not found or "".join(found) != "".join(text.split()):
        raise Unreadable
    if "\\pm" not in found:
        found = ["\\pm" if token == "\\mp" else token for token in found]
    return [SAME_AS.get(token, token) for token in found]


def bounded(value: Number) -> Number:
    """The value. Raises Unreadable where it is too large or too small to be computed without loss."""
    if value and not -MAGNITUDE < CONTEXT.mag(value) < MAGNITUDE:
        raise Unreadable
    return value


class Expression:
    """Recursive descent through sums, products (also unwritten ones), powers, fractions, roots and functions.

    Every method reads from the tokens to come and returns a value. `point` stands for all variables, each of which is a
    multiple of it; `sign` is what \\pm means.
    """

    def __init__(self, found: list[str], point: Number, sign: int):
        self.tokens, self.place = found, 0
        self.point, self.sign = point, sign
        self.bars = 0

    def read(self) -> Number:
        """All of it."""
        value = self.sum()
        if self.place < len(self.tokens):
            raise Unreadable
        return value

    @property
    def next(self) -> str:
        """The token to come, empty at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        """The token to come, which must be the wanted one."""
        token = self.next
        if not token or (wanted and token != wanted):
            raise Unreadable
        self.place += 1
        return token

    def sum(self) -> Number:
        """Terms with signs between."""
        value = self.product()
        while self.next in SIGNS:
            value = bounded(value + self.taken_sign() * self.product())
        return value

    def taken_sign(self) -> int:
        """1 or -1 for the sign to come."""
        return {"+": 1, "-": -1, "\\pm": self.sign, "\\mp": -self.sign}[self.take()]

    def product(self) -> Number:
        """Factors with *, / or nothing between."""
        value = self.signed()
        while self.next and self.next not in SIGNS and not self.closes():
            divide = self.next == "/"
            if self.next in ("*", "/"):
                self.take()
            factor = self.signed()
            value = bounded(value / factor if divide else value * factor)
        return value

    def closes(self) -> bool:
        """Whether the token to come ends a group."""
        return self.next in (")", "]", "}", "\\rfloor", "\\rceil") or (self.next == "|" and self.bars > 0)

    def signed(self) -> Number:
        """A power, with signs before it or without."""
        return self.taken_sign() * self.signed() if self.next in SIGNS else self.power()

    def power(self) -> Number:
        """base^exponent, with factorials; a whole number before a proper fraction is a mixed number."""
        if MIXED.fullmatch(" ".join(self.tokens[self.place : self.place + 8])):
            whole, _, _, above, _, _, below, _ = map(CONTEXT.mpf, [
                token if token.isdigit() else 0 for token in self.tokens[self.place : self.place + 8]])
            if above < below:
                self.place += 8
                return whole + above / below
        base = self.factorial(self.atom())
        return raised(base, self.exponent()) if self.next == "^" else base

    def exponent(self) -> Number:
        """What follows a ^."""
        self.take("^")
        return self.signed() if self.next == "-" else self.atom()

    def factorial(self, value: Number) -> Number:
        """n!, where a "!" comes."""
        if self.next != "!":
            return value
        self.take()
        if self.next == "!" or not CONTEXT.isint(value) or not 0 <= value <= 170:
            raise Unreadable
        return CONTEXT.factorial(value)

    def atom(self) -> Number:
        """A number, a variable, a group, a fraction, a root, a function of its argument."""
        token = self.take()
        if token in CLOSING:
            return self.group(CLOSING[token])
        if token == "|":
            self.bars += 1
            value = self.sum()
            self.bars -= 1
            self.take("|")
            return abs(value)
        if token in ROUNDED:
            closing, function = ROUNDED[token]
            return function(self.group(closing))
        if token == "\\frac":
            above, below = self.atom(), self.atom()
            return bounded(above / below)
        if token == "\\binom":
            above, below = self.atom(), self.atom()
            if not (CONTEXT.isint(above) and CONTEXT.isint(below) and 0 <= below <= above <= 300):
                raise Unreadable
            return CONTEXT.binomial(above, below)
        if token == "\\sqrt":
            order = self.atom() if self.next == "[" else CONTEXT.mpf(2)
            return root(self.atom(), order)
        if token in FUNCTIONS or token in ("\\log", "\\lg"):
            return self.function(token)
        if token in CONSTANTS:
            return +CONSTANTS[token]
        if token.isalpha() or token in GREEK:
            return self.variable(token)
        if token[0].isdigit() or token[0] == ".":
            return bounded(CONTEXT.mpf(token)) + self.repeating(token)
        raise Unreadable

    def repeating(self, decimal: str) -> Number:
        """What digits under a bar add to the decimal before them."""
        if self.next != "\\overline":
            return CONTEXT.mpf(0)
        self.take()
        self.take("{")
        digits = self.take()
        self.take("}")
        if "." not in decimal or not digits.isdigit():
            raise Unreadable
        return CONTEXT.mpf(digits) / ((10 ** len(digits) - 1) * 10 ** len(decimal.partition(".")[2]))

    def group(self, closing: str) -> Number:
        """A sum up to its closing bracket."""
        bars, self.bars = self.bars, 0
        value = self.sum()
        self.take(closing)
        self.bars = bars
        return value

    def function(self, name: str) -> Number:
        """A function, its power or its base, and its argument: what is in brackets, else the unwritten product that follows."""
        base, exponent = CONTEXT.mpf(10), CONTEXT.mpf(1)
        if name == "\\log" and self.next == "_":
            self.take()
            base = self.atom()
        elif self.next == "^":
            exponent = self.exponent()
            if exponent == -1:
                raise Unreadable  # the inverse function or the reciprocal
        bare = self.next not in CLOSING
        argument = self.power()
        while bare and (self.next.isalnum() or self.next in ("\\frac", "\\sqrt", "\\pi") or self.next in GREEK):
            argument = bounded(argument * self.power())
        value = CONTEXT.log(argument) / CONTEXT.log(base) if name in ("\\log", "\\lg") else FUNCTIONS[name](argument)
        return raised(bounded(value), exponent)

    def variable(self, name: str) -> Number:
        """A multiple of the point that depends on the name, with its index."""
        if self.next == "_":
            self.take()
            start, _ = self.place, self.atom()
            name += "".join(self.tokens[start : self.place])
        return self.point * (1 + CONTEXT.mpf(zlib.crc32(name.encode())) / 2**32)


def raised(base: Number, exponent: Number) -> Number:
    """base^exponent. Raises Unreadable before anything too large is computed."""
    size = max(1, abs(CONTEXT.mag(base))) if base else 1
    if abs(exponent) * size > 10 * MAGNITUDE:
        raise Unreadable
    return bounded(base**exponent)


def root(value: Number, order: Number) -> Number:
    """The real root of a real number where there is one, else the principal one."""
    if order in (3, 5, 7) and CONTEXT.im(value) == 0 and CONTEXT.re(value) < 0:
        return -CONTEXT.root(-CONTEXT.re(value), int(order))
    return CONTEXT.sqrt(value) if order == 2 else raised(value, 1 / order)
