"""Values of LaTeX expressions to 650 digits, so that 10^{10} differs from 10^{10}+1 and \\sqrt{8} equals 2\\sqrt{2}."""

import itertools
import re
import zlib
from collections.abc import Callable

from mpmath.ctx_mp import MPContext

_CONTEXT = MPContext()
_CONTEXT.dps = 650
"""Enough to add the largest and the smallest value of MAGNITUDE without loss."""
_MAGNITUDE = 1000
"""Binary exponent beyond which a value is refused, about 10^300."""
_TOLERANCE = _CONTEXT.mpf(10) ** -330
"""Difference that rounding alone can make."""
_LONGEST = 300
"""Characters of an expression whose value is computed."""
_POINTS = tuple(_CONTEXT.mpf(point) for point in ("0.7548776662", "-0.5698402910", "1.3247179572"))
"""Where expressions with variables are compared; one is negative, which tells \\sqrt{x^2} from x."""

_Number = type(_CONTEXT.mpf(0)) | type(_CONTEXT.mpc(0))

_TOKEN = re.compile(r"\d+\.?\d*|\.\d+|\\[a-zA-Z]+|\\[{}]|[a-zA-Z]|[-+*/^_(){}\[\]|!]")
_MIXED = re.compile(r"\d+ \\frac { \d+ } { \d+ }")
_DIGITS_WITH_LETTERS = re.compile(r"[A-Z]{2}|[A-Z]\d|\d[A-Z\d]*_")
"""Parts of words in capitals and of numbers in another base: 1A0_{16}."""
_SAME_AS = {"\\{": "{", "\\}": "}", "\\cdot": "*", "\\times": "*", "\\div": "/", "\\lvert": "|", "\\rvert": "|", "\\vert": "|"}
_CONSTANTS = {"\\pi": _CONTEXT.pi, "e": _CONTEXT.e, "i": _CONTEXT.mpc(0, 1)}
_FUNCTIONS: dict[str, Callable[[_Number], _Number]] = {
    f"\\{name}": getattr(_CONTEXT, name)
    for name in ("sin", "cos", "tan", "sec", "csc", "cot", "sinh", "cosh", "tanh", "ln", "exp")} | {
    "\\arcsin": _CONTEXT.asin, "\\arccos": _CONTEXT.acos, "\\arctan": _CONTEXT.atan}
_ROUNDED = {"\\lfloor": ("\\rfloor", _CONTEXT.floor), "\\lceil": ("\\rceil", _CONTEXT.ceil)}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SIGNS = ("+", "-", "\\pm", "\\mp")
_GREEK = set(re.findall(r"\S+", r"""
    \alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \lambda \mu \nu \xi \rho \sigma \tau \phi \varphi \chi \psi
    \omega \Gamma \Delta \Theta \Lambda \Sigma \Phi \Psi \Omega"""))


class _Unreadable(Exception):
    """Not an expression whose value can be computed."""


def same_value(first: str, second: str) -> bool:
    """Whether two expressions have the same value, at every one of POINTS and for both signs of \\pm where they have them."""
    if max(len(first), len(second)) > _LONGEST:
        return False
    try:
        one, two = _tokenize(first), _tokenize(second)
        signs = (1, -1) if "\\pm" in one or "\\pm" in two else (1,)
        return all(abs(_Parser(one, point, sign).read() - _Parser(two, point, sign).read()) <= _TOLERANCE
                   for point, sign in itertools.product(_POINTS, signs))
    except (_Unreadable, ArithmeticError, ValueError, TypeError, RecursionError):
        return False


def _tokenize(text: str) -> list[str]:
    """Numbers, commands, letters and signs of an expression. Raises Unreadable for words and for any other sign."""
    text = text.replace("~", " ")
    letters = re.sub(r"\\[a-zA-Z]+", " ", text)
    words = re.findall(r"[A-Za-z]*[aeiou][A-Za-z]*", letters)
    if _DIGITS_WITH_LETTERS.search(letters) or any(len(word) > 2 for word in words):
        raise _Unreadable  # words are no products of their letters
    found = _TOKEN.findall(text)
    if not found or "".join(found) != "".join(text.split()):
        raise _Unreadable
    if "\\pm" not in found:
        found = ["\\pm" if token == "\\mp" else token for token in found]
    return [_SAME_AS.get(token, token) for token in found]


def _bounded(value: _Number) -> _Number:
    """The value. Raises Unreadable where it is too large or too small to be computed without loss."""
    if value and not -_MAGNITUDE < _CONTEXT.mag(value) < _MAGNITUDE:
        raise _Unreadable
    return value


class _Parser:
    """Recursive descent through sums, products (also unwritten ones), powers, fractions, roots and functions.

    Every method reads from the tokens to come and returns a value. `point` stands for all variables, each of which is a
    multiple of it; `sign` is what \\pm means.
    """

    def __init__(self, found: list[str], point: _Number, sign: int):
        self.tokens, self.place = found, 0
        self.point, self.sign = point, sign
        self.bars = 0

    def read(self) -> _Number:
        """All of it."""
        value = self.sum()
        if self.place < len(self.tokens):
            raise _Unreadable
        return value

    @property
    def next(self) -> str:
        """The token to come, empty at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        """The token to come, which must be the wanted one."""
        token = self.next
        if not token or (wanted and token != wanted):
            raise _Unreadable
        self.place += 1
        return token

    def sum(self) -> _Number:
        """Terms with signs between."""
        value = self.product()
        while self.next in _SIGNS:
            value = _bounded(value + self.taken_sign() * self.product())
        return value

    def taken_sign(self) -> int:
        """1 or -1 for the sign to come."""
        return {"+": 1, "-": -1, "\\pm": self.sign, "\\mp": -self.sign}[self.take()]

    def product(self) -> _Number:
        """Factors with *, / or nothing between."""
        value = self.signed()
        while self.next and self.next not in _SIGNS and not self.closes():
            divide = self.next == "/"
            if self.next in ("*", "/"):
                self.take()
            factor = self.signed()
            value = _bounded(value / factor if divide else value * factor)
        return value

    def closes(self) -> bool:
        """Whether the token to come ends a group."""
        return self.next in (")", "]", "}", "\\rfloor", "\\rceil") or (self.next == "|" and self.bars > 0)

    def signed(self) -> _Number:
        """A power, with signs before it or without."""
        return self.taken_sign() * self.signed() if self.next in _SIGNS else self.power()

    def power(self) -> _Number:
        """base^exponent, with factorials; a whole number before a proper fraction is a mixed number."""
        if _MIXED.fullmatch(" ".join(self.tokens[self.place : self.place + 8])):
            whole, _, _, above, _, _, below, _ = map(_CONTEXT.mpf, [
                token if token.isdigit() else 0 for token in self.tokens[self.place : self.place + 8]])
            if above < below:
                self.place += 8
                return whole + above / below
        base = self.factorial(self.atom())
        return _power(base, self.exponent()) if self.next == "^" else base

    def exponent(self) -> _Number:
        """What follows a ^."""
        self.take("^")
        return self.signed() if self.next == "-" else self.atom()

    def factorial(self, value: _Number) -> _Number:
        """n!, where a "!" comes."""
        if self.next != "!":
            return value
        self.take()
        if self.next == "!" or not _CONTEXT.isint(value) or not 0 <= value <= 170:
            raise _Unreadable
        return _CONTEXT.factorial(value)

    def atom(self) -> _Number:
        """A number, a variable, a group, a fraction, a root, a function of its argument."""
        token = self.take()
        if token in _CLOSING:
            return self.group(_CLOSING[token])
        if token == "|":
            self.bars += 1
            value = self.sum()
            self.bars -= 1
            self.take("|")
            return abs(value)
        if token in _ROUNDED:
            closing, function = _ROUNDED[token]
            return function(self.group(closing))
        if token == "\\frac":
            above, below = self.atom(), self.atom()
            return _bounded(above / below)
        if token == "\\binom":
            above, below = self.atom(), self.atom()
            if not (_CONTEXT.isint(above) and _CONTEXT.isint(below) and 0 <= below <= above <= 300):
                raise _Unreadable
            return _CONTEXT.binomial(above, below)
        if token == "\\sqrt":
            order = self.atom() if self.next == "[" else _CONTEXT.mpf(2)
            return _root(self.atom(), order)
        if token in _FUNCTIONS or token in ("\\log", "\\lg"):
            return self.function(token)
        if token in _CONSTANTS:
            return +_CONSTANTS[token]
        if token.isalpha() or token in _GREEK:
            return self.variable(token)
        if token[0].isdigit() or token[0] == ".":
            return _bounded(_CONTEXT.mpf(token)) + self.repeating(token)
        raise _Unreadable

    def repeating(self, decimal: str) -> _Number:
        """What digits under a bar add to the decimal before them."""
        if self.next != "\\overline":
            return _CONTEXT.mpf(0)
        self.take()
        self.take("{")
        digits = self.take()
        self.take("}")
        if "." not in decimal or not digits.isdigit():
            raise _Unreadable
        return _CONTEXT.mpf(digits) / ((10 ** len(digits) - 1) * 10 ** len(decimal.partition(".")[2]))

    def group(self, closing: str) -> _Number:
        """A sum up to its closing bracket."""
        bars, self.bars = self.bars, 0
        value = self.sum()
        self.take(closing)
        self.bars = bars
        return value

    def function(self, name: str) -> _Number:
        """A function, its power or its base, and its argument: what is in brackets, else the unwritten product that follows."""
        base, exponent = _CONTEXT.mpf(10), _CONTEXT.mpf(1)
        if name == "\\log" and self.next == "_":
            self.take()
            base = self.atom()
        elif self.next == "^":
            exponent = self.exponent()
            if exponent == -1:
                raise _Unreadable  # the inverse function or the reciprocal
        bare = self.next not in _CLOSING
        argument = self.power()
        while bare and (self.next.isalnum() or self.next in ("\\frac", "\\sqrt", "\\pi") or self.next in _GREEK):
            argument = _bounded(argument * self.power())
        value = _CONTEXT.log(argument) / _CONTEXT.log(base) if name in ("\\log", "\\lg") else _FUNCTIONS[name](argument)
        return _power(_bounded(value), exponent)

    def variable(self, name: str) -> _Number:
        """A multiple of the point that depends on the name, with its index."""
        if self.next == "_":
            self.take()
            start, _ = self.place, self.atom()
            name += "".join(self.tokens[start : self.place])
        return self.point * (1 + _CONTEXT.mpf(zlib.crc32(name.encode())) / 2**32)


def _power(base: _Number, exponent: _Number) -> _Number:
    """base^exponent. Raises Unreadable before anything too large is computed."""
    size = max(1, abs(_CONTEXT.mag(base))) if base else 1
    if abs(exponent) * size > 10 * _MAGNITUDE:
        raise _Unreadable
    return _bounded(base**exponent)


def _root(value: _Number, order: _Number) -> _Number:
    """The real root of a real number where there is one, else the principal one."""
    if order in (3, 5, 7) and _CONTEXT.im(value) == 0 and _CONTEXT.re(value) < 0:
        return -_CONTEXT.root(-_CONTEXT.re(value), int(order))
    return _CONTEXT.sqrt(value) if order == 2 else _power(value, 1 / order)
