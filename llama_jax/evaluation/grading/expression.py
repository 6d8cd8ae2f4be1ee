"""Compares LaTeX expressions by their numerical values, which a recursive-descent parser computes to 650 digits.

So many digits tell 10^{10} from 10^{10}+1, and show that \\sqrt{8} equals 2\\sqrt{2}. Expressions with variables are compared at
fixed points. What the parser does not understand is not equal to anything.
"""

import itertools
import re
import zlib
from collections.abc import Callable

from mpmath.ctx_mp import MPContext

_CONTEXT = MPContext()
_CONTEXT.dps = 650
"""Decimal digits: enough to add the largest and the smallest value that _MAGNITUDE allows without loss."""
_MAGNITUDE = 1000
"""Largest binary exponent of a value, about 10^300; no larger value is computed."""
_TOLERANCE = _CONTEXT.mpf(10) ** -330
"""Largest difference between two values that are equal but for rounding."""
_LONGEST = 300
"""Characters of an expression that is parsed; a longer one is compared as text only."""
_POINTS = tuple(_CONTEXT.mpf(point) for point in ("0.7548776662", "-0.5698402910", "1.3247179572"))
"""Values at which expressions with variables are compared; a negative one tells \\sqrt{x^2} from x."""

_Number = type(_CONTEXT.mpf(0)) | type(_CONTEXT.mpc(0))

_FACTORIAL_MAX, _BINOMIAL_MAX = 170, 300
"""Largest n of n! and of binomials: 170! is about 10^306."""

_TOKEN = re.compile(r"\d+\.?\d*|\.\d+|\\[a-zA-Z]+|\\[{}]|[a-zA-Z]|[-+*/^_(){}\[\]|!]")
_MIXED = re.compile(r"\d+ \\frac { \d+ } { \d+ }")
"""Tokens of a mixed number, 3\\frac{1}{2}, joined by spaces."""
_MIXED_LENGTH = 8
"""Their number."""
_DIGITS_WITH_LETTERS = re.compile(r"[A-Z]{2}|[A-Z]\d|\d[A-Z\d]*_")
"""Words in capitals, and numbers in another base such as 1A0_{16}: neither is a product of its letters."""
_SAME_AS = {"\\{": "{", "\\}": "}", "\\cdot": "*", "\\times": "*", "\\div": "/", "\\lvert": "|", "\\rvert": "|", "\\vert": "|"}
"""Tokens that mean the same as another."""
_CONSTANTS = {"\\pi": _CONTEXT.pi, "e": _CONTEXT.e, "i": _CONTEXT.mpc(0, 1)}
_FUNCTIONS: dict[str, Callable[[_Number], _Number]] = {
    f"\\{name}": getattr(_CONTEXT, name)
    for name in ("sin", "cos", "tan", "sec", "csc", "cot", "sinh", "cosh", "tanh", "ln", "exp")} | {
    "\\arcsin": _CONTEXT.asin, "\\arccos": _CONTEXT.acos, "\\arctan": _CONTEXT.atan}
_ROUNDED = {"\\lfloor": ("\\rfloor", _CONTEXT.floor), "\\lceil": ("\\rceil", _CONTEXT.ceil)}
"""Opening bracket -> (closing bracket, function of what is inside)."""
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SIGNS = ("+", "-", "\\pm", "\\mp")
_GREEK = set(re.findall(r"\S+", r"""
    \alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \lambda \mu \nu \xi \rho \sigma \tau \phi \varphi \chi \psi
    \omega \Gamma \Delta \Theta \Lambda \Sigma \Phi \Psi \Omega"""))


class _Unreadable(Exception):
    """The text is not an expression whose value can be computed."""


def same_value(first: str, second: str) -> bool:
    """Whether two expressions have the same value at every point, for either sign of \\pm where they have one.

    False where the value of either cannot be computed.
    """
    if max(len(first), len(second)) > _LONGEST:
        return False
    try:
        one, two = _tokenize(first), _tokenize(second)
        signs = (1, -1) if "\\pm" in one or "\\pm" in two else (1,)
        return all(abs(_value(one, point, sign=sign) - _value(two, point, sign=sign)) <= _TOLERANCE
                   for point, sign in itertools.product(_POINTS, signs))
    except (_Unreadable, ArithmeticError, ValueError, TypeError, RecursionError):
        return False


def _value(tokens: list[str], point: _Number, *, sign: int) -> _Number:
    """Value of an expression whose variables are multiples of `point` and whose \\pm is `sign`. Raises _Unreadable."""
    return _Parser(tokens, point, sign=sign).parse()


def _tokenize(text: str) -> list[str]:
    """Numbers, commands, letters and signs of an expression. Raises _Unreadable for words and all other characters."""
    text = text.replace("~", " ")
    letters = re.sub(r"\\[a-zA-Z]+", " ", text)
    words = re.findall(r"[A-Za-z]*[aeiou][A-Za-z]*", letters)
    if _DIGITS_WITH_LETTERS.search(letters) or any(len(word) > 2 for word in words):
        raise _Unreadable  # a word is not the product of its letters
    found = _TOKEN.findall(text)
    if not found or "".join(found) != "".join(text.split()):
        raise _Unreadable
    if "\\pm" not in found:  # a lone \\mp means the same
        found = ["\\pm" if token == "\\mp" else token for token in found]
    return [_SAME_AS.get(token, token) for token in found]


def _bounded(value: _Number) -> _Number:
    """The value itself. Raises _Unreadable where it is too large or too small to be computed without loss."""
    if value and not -_MAGNITUDE < _CONTEXT.mag(value) < _MAGNITUDE:
        raise _Unreadable
    return value


class _Parser:
    """A recursive-descent parser of sums, products (with or without a sign), powers, fractions, roots and functions.

    Every method takes tokens from the front of those that are left and returns the value of what it took, or raises
    _Unreadable. `point` stands for all variables, each of which is a multiple of it; `sign` is the meaning of \\pm.
    """

    def __init__(self, tokens: list[str], point: _Number, *, sign: int):
        self.tokens, self.place = tokens, 0
        self.point, self.sign = point, sign
        self.open_bars = 0
        """How many | of absolute values are open in the current group."""

    def parse(self) -> _Number:
        """The value of the whole expression."""
        value = self.sum()
        if self.place < len(self.tokens):
            raise _Unreadable
        return value

    @property
    def next(self) -> str:
        """The next token, which is not taken; empty at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        """Take the next token, which must be `wanted` where one is named."""
        token = self.next
        if not token or (wanted and token != wanted):
            raise _Unreadable
        self.place += 1
        return token

    def sum(self) -> _Number:
        """Terms joined by signs."""
        value = self.product()
        while self.next in _SIGNS:
            value = _bounded(value + self.taken_sign() * self.product())
        return value

    def taken_sign(self) -> int:
        """Take a sign: 1 or -1."""
        return {"+": 1, "-": -1, "\\pm": self.sign, "\\mp": -self.sign}[self.take()]

    def product(self) -> _Number:
        """Factors joined by *, / or nothing."""
        value = self.signed()
        while self.next and self.next not in _SIGNS and not self.closes():
            divide = self.next == "/"
            if self.next in ("*", "/"):
                self.take()
            factor = self.signed()
            value = _bounded(value / factor if divide else value * factor)
        return value

    def closes(self) -> bool:
        """Whether the next token ends a group."""
        return self.next in (")", "]", "}", "\\rfloor", "\\rceil") or (self.next == "|" and self.open_bars > 0)

    def signed(self) -> _Number:
        """A power, after any number of signs."""
        if self.next in _SIGNS:
            return self.taken_sign() * self.signed()
        return self.power()

    def power(self) -> _Number:
        """base^exponent, where the base may be a factorial; a whole number before a proper fraction is a mixed number."""
        coming = self.tokens[self.place : self.place + _MIXED_LENGTH]
        if _MIXED.fullmatch(" ".join(coming)):
            whole, above, below = (_CONTEXT.mpf(token) for token in coming if token.isdigit())
            if above < below:
                self.place += _MIXED_LENGTH
                return whole + above / below
        base = self.factorial(self.atom())
        return _power(base, self.exponent()) if self.next == "^" else base

    def exponent(self) -> _Number:
        """^ and the exponent after it."""
        self.take("^")
        return self.signed() if self.next == "-" else self.atom()

    def factorial(self, value: _Number) -> _Number:
        """n! where "!" follows n, else n."""
        if self.next != "!":
            return value
        self.take()
        if self.next == "!" or not _CONTEXT.isint(value) or not 0 <= value <= _FACTORIAL_MAX:
            raise _Unreadable
        return _CONTEXT.factorial(value)

    def atom(self) -> _Number:
        """A number, a variable, a group in brackets, a fraction, a root, or a function with its argument."""
        token = self.take()
        if token in _CLOSING:
            return self.group(_CLOSING[token])
        if token == "|":
            self.open_bars += 1
            value = self.sum()
            self.open_bars -= 1
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
            if not (_CONTEXT.isint(above) and _CONTEXT.isint(below) and 0 <= below <= above <= _BINOMIAL_MAX):
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
        """What repeating digits, \\overline{3}, add to the decimal before them; 0 where none follow."""
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
        """A sum up to its closing bracket, which is taken too."""
        open_bars, self.open_bars = self.open_bars, 0  # a | inside the group closes none that is open outside
        value = self.sum()
        self.take(closing)
        self.open_bars = open_bars
        return value

    def function(self, name: str) -> _Number:
        """A function of its argument, which is in brackets or is the product that follows: \\sin 2x, \\sin^2 x, \\log_2 8."""
        base, exponent = _CONTEXT.mpf(10), _CONTEXT.mpf(1)
        if name == "\\log" and self.next == "_":
            self.take()
            base = self.atom()
        elif self.next == "^":
            exponent = self.exponent()
            if exponent == -1:
                raise _Unreadable  # the inverse function, or the reciprocal?
        is_bare = self.next not in _CLOSING
        argument = self.power()
        while is_bare and (self.next.isalnum() or self.next in ("\\frac", "\\sqrt", "\\pi") or self.next in _GREEK):
            argument = _bounded(argument * self.power())
        value = _CONTEXT.log(argument) / _CONTEXT.log(base) if name in ("\\log", "\\lg") else _FUNCTIONS[name](argument)
        return _power(_bounded(value), exponent)

    def variable(self, name: str) -> _Number:
        """A multiple of the point that depends on the variable's name with its index: x_1 and x_2 differ."""
        if self.next == "_":
            self.take()
            start, _ = self.place, self.atom()
            name += "".join(self.tokens[start : self.place])
        return self.point * (1 + _CONTEXT.mpf(zlib.crc32(name.encode())) / 2**32)


def _power(base: _Number, exponent: _Number) -> _Number:
    """base^exponent. Raises _Unreadable before anything too large is computed."""
    size = max(1, abs(_CONTEXT.mag(base))) if base else 1
    if abs(exponent) * size > 10 * _MAGNITUDE:
        raise _Unreadable
    return _bounded(base**exponent)


def _root(value: _Number, order: _Number) -> _Number:
    """The real root of a real number where there is one, else the principal root."""
    if order in (3, 5, 7) and _CONTEXT.im(value) == 0 and _CONTEXT.re(value) < 0:
        return -_CONTEXT.root(-_CONTEXT.re(value), int(order))
    return _CONTEXT.sqrt(value) if order == 2 else _power(value, 1 / order)
