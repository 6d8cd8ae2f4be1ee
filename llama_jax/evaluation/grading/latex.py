"""Grades LaTeX answers to MATH: two published normal forms, a normal form that keeps more, and numerical values.

Two answers are equal if they have the same `minerva_form` or `hendrycks_form` (`published_forms`) and that form loses nothing of
what either of them says, or if their `normal_form` is the same, or has equal values part by part (`expression.same_value`).
"""

import re
from typing import NamedTuple

from llama_jax.evaluation.grading.expression import same_value
from llama_jax.evaluation.grading.published_forms import LONGEST_NORMALISED, UNIT_WORDS, hendrycks_form, minerva_form

_LONGEST_IN_PARTS = 300
"""Characters of an answer that is compared part by part."""


def boxed_answer(solution: str) -> str | None:
    """The content of the last \\boxed (or \\fbox) of a solution; None without one. Escaped braces close nothing."""
    starts = [found.end() for found in re.finditer(r"\\(?:boxed|fbox) *", solution)]
    if not starts:
        return None
    rest = solution[starts[-1] :]
    if not rest.startswith("{"):
        return rest.partition("$")[0].strip() or None
    depth = 0
    for sign in re.finditer(r"\\.|[{}]", rest, re.DOTALL):
        if sign[0] == "{":
            depth += 1
        elif sign[0] == "}":
            depth -= 1
        if depth == 0:
            return rest[1 : sign.start()]
    return None


_COMMAND = r"\\(?!frac|sqrt|begin|end)[A-Za-z]+"
_UNIT = r"(?<=\S)\s*\\(?:text|mbox|textrm|mathrm)\{ [^{}]*(?:\}(?:\^\{?\d\}?)?\s*\.?\s*)?$"
"""Words at the right end, perhaps cut off, which Hendrycks et al. take for a unit."""
_FORMULA = r"[^\d$+*=/^-]*\$([^$]*)\$[^\d$+*=/^-]*"
"""A formula in a sentence without another number."""
_REWRITES = tuple((re.compile(pattern), new) for pattern, new in (
    (r"\\\$|\\displaystyle|\\!|[\"\n]", ""),  # dollar signs of money, commands and characters that mean nothing
    (rf"^{_FORMULA}$", r"\1"),  # the formula of a sentence
    (r"\$|(?<!\\)\\[()\[\]]", ""),  # delimiters of math mode: $ \( \[
    (r"^\s*\\(?:boxed|fbox)\{(.*)\}\s*$", r"\1"),  # a box around it
    (_UNIT, ""),  # words at the end
    (rf"(?<=[^\s{{(])\s*(?:\b(?:{UNIT_WORDS})\b|\\(?:text|mbox|textrm|mathrm)\{{\s*(?:{UNIT_WORDS})\s*\}})", ""),
    (r",?\s*\\(?:text|mbox)\{\s*,?\s*and\s*\}", ","),  # "1 and 2" is "1,2"
    (r"\\(?:text|mbox|textrm|mathrm|textbf|mathbf|textit)\{([^{}]*)\}", r"\1"),  # fonts
    (r"\\(?:left|right)(?![A-Za-z])\.?", ""),  # sizes of brackets
    (r"(?<!\\)\\\\(?=[A-Za-z]+\{)", r"\\"),  # a doubled backslash before a command: \\frac{
    (r"\\\\", r"\\cr "),  # ends of a matrix's rows
    (r"\\[,;: ]|\\q?quad|~", " "),  # commands for spaces
    (r"\{,\}", ","),  # thousands: 1{,}000
    (r"\\[dtc]frac", r"\\frac"),
    (r"\^\s*\{?\s*\\circ\s*\}?|°|\\?%", ""),  # degrees and percent
    (rf"([_^])\s*(-?\d+|{_COMMAND}|[A-Za-z])", r"\1{\2}"),  # x^2 is x^{2}
    (r"\\overline\s*(\d)", r"\\overline{\1}"),
    (rf"({_COMMAND})\s+(?=[A-Za-z])", r"\1~"),  # the space that ends a command: \pi r
    (r"\s+|~$|\.\s*$", ""),  # all other spaces, and a final dot
    (rf"\\frac({_COMMAND}|[A-Za-z\d])", r"\\frac{\1}"),  # \frac12 is \frac{1}{2}
    (rf"(\\frac\{{[^{{}}]*\}})({_COMMAND}|[A-Za-z\d])", r"\1{\2}"),
    (rf"\\sqrt(\[[^]]*\])?({_COMMAND}|[A-Za-z\d])", r"\\sqrt\1{\2}"),
    (r"^\(([\dA-Z]+)\)_", r"\1_"),  # number systems: (1A)_{16} is 1A_{16}
    (r"(?<![\d.])\.(?=\d)", "0."),  # .5 is 0.5
    (r"^(-?\d+)/(\d+)$", r"\\frac{\1}{\2}")))  # 1/2 is a fraction
"""(pattern, replacement), applied in this order: decoration and units go, spaces go, arguments get braces."""


def normal_form(answer: str) -> str:
    """An answer without decoration and spaces and with every argument in braces, which still says all that the answer says."""
    if len(answer) > LONGEST_NORMALISED:
        return answer
    for pattern, new in _REWRITES:
        answer = pattern.sub(new, answer)
    answer = _without_name(answer)
    return answer.replace(",", "") if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", answer) else answer


_LETTER = r"(?:[A-Za-z]|\\(?!frac|sqrt|pm|cos|sin|tan|log|ln|det)[A-Za-z]+)"
_NAME = re.compile(rf"""\$?\s*(?:m?\s*\\(?:angle|triangle|overline|text|mathbf|vec)[~\s]*)*
    (?:{_LETTER}|[A-Z]{{2,}}|[A-Za-z]{{4,}}|\{{[A-Za-z ]+\}})  # x, \theta, AB, area, \text{{Area}}
    (?:_\{{?\w+\}}?|'|\^\{{-1\}})*
    (?:\((?:[\w,~ ]|{_LETTER})*\))?\s*~?\s*""", re.VERBOSE)
"""The name of what is asked for, which may stand on the left side of the only "="."""


def _without_name(text: str) -> str:
    """The right side of an equation whose left side is a name or empty; every other text as it is."""
    left, equals, right = text.partition("=")
    return right if equals and "=" not in right and (not left or _NAME.fullmatch(left)) else text


def _minerva_loses(answer: str) -> bool:
    """Whether Minerva's form drops part of what is said: a left side, a letter "a", a bar over digits, a second formula."""
    dollars = answer.replace("\\$", "")
    return bool("=" in _without_name(answer)
                or re.search(r"(?<![A-Za-z]{2})an? (?![A-Za-z]{2})", re.sub(r"\\[A-Za-z]+", r"\\", answer))
                or re.search(r"\\overline\s*\{?\s*\d", answer)
                or (dollars.count("$") > 1 and not re.fullmatch(_FORMULA, dollars)))


def _hendrycks_loses(answer: str) -> bool:
    """Whether Hendrycks et al.'s form drops part of what is said: a short left side or words, unless a name or a unit."""
    short = answer.count("=") == 1 and len(answer.partition("=")[0]) <= 2
    return (short and "=" in _without_name(answer)) or "\\text{ " in re.sub(_UNIT, "", answer)


def equivalent_answers(first: str | None, second: str | None) -> bool:
    """Whether two answers are equal: in a normal form, or in value. A missing or empty answer equals nothing.

    A published form decides where it keeps what both answers say. Otherwise the parts of `normal_form` are compared: elements
    of tuples, intervals, sets and matrices, and the sides of equations and inequalities.
    """
    one, two = normal_form(first or ""), normal_form(second or "")
    if not one or not two:
        return False
    for form, loses in (minerva_form, _minerva_loses), (hendrycks_form, _hendrycks_loses):
        if form(first) == form(second) != "" and not loses(first) and not loses(second):
            return True
    return _equal_forms(one, two)


def _equal_forms(first: str, second: str) -> bool:
    """Whether two answers in `normal_form` are equal: as text, as values, or part by part."""
    first, second = _without_name(first), _without_name(second)
    if first == second:
        return first != ""
    if not first or not second or max(len(first), len(second)) > _LONGEST_IN_PARTS:
        return False
    one, two = _split_answer(first), _split_answer(second)
    if one.separators or two.separators:
        return one.separators == two.separators and all(
            _equal_forms(a, b) for a, b in zip(one.pieces, two.pieces, strict=True))
    return same_value(one.pieces[0], two.pieces[0])


_RELATION = r"\\(?:leqslant|leq|le|geqslant|geq|ge|neq|ne|approx|equiv|in|to)(?![A-Za-z])~?|[<>!:]?=|[<>≤≥≠]"
_RELATION_SIGNS = {
    "\\leqslant": "≤", "\\leq": "≤", "\\le": "≤", "<=": "≤", "\\geqslant": "≥", "\\geq": "≥", "\\ge": "≥", ">=": "≥",
    "\\neq": "≠", "\\ne": "≠", "!=": "≠", ":=": "="}
"""Replace every spelling of a relation, such as \\leq, by one sign."""
_BRACKETS = re.compile(r"(\\\{|[(\[])(.*)(\\\}|[)\]])")
_MATRIX = re.compile(r"\\begin\{(\w+)\}(.*)\\end\{\1\}")


class _Parts(NamedTuple):
    """An answer that consists of several, as a tuple or an equation."""

    separators: list[str]
    """Signs between the pieces, and the brackets around them; empty for a single expression."""
    pieces: list[str]


def _split_answer(text: str) -> _Parts:
    """The parts of an answer in `normal_form`."""
    for pattern in (",", r"\\cup~?", _RELATION):
        found = _split_outside_brackets(text, pattern)
        if found.separators:
            signs = [sign.rstrip("~") for sign in found.separators]
            return _last_of_equal(_Parts([_RELATION_SIGNS.get(sign, sign) for sign in signs], found.pieces))
    if matrix := _MATRIX.fullmatch(text):
        found = _split_outside_brackets(matrix[2], r"\\cr~?|&")
        return _Parts([matrix[1], *found.separators], found.pieces)
    if brackets := _BRACKETS.fullmatch(text):
        found = _split_outside_brackets(brackets[2], ",")
        if found.separators:
            return _Parts([brackets[1], *found.separators, brackets[3]], found.pieces)
    return _Parts([], [text])


def _last_of_equal(parts: _Parts) -> _Parts:
    """The last side of x = 2 + 3 = 5, a chain whose sides (but for a name) have one value; any other parts as they are."""
    if set(parts.separators) != {"="}:
        return parts
    pieces = parts.pieces
    sides = pieces[1:] if len(pieces) > 2 and _NAME.fullmatch(pieces[0]) else pieces
    if all(same_value(side, pieces[-1]) for side in sides[:-1]):
        return _split_answer(pieces[-1])
    return parts


def _split_outside_brackets(text: str, pattern: str) -> _Parts:
    """A text cut where the pattern matches outside of all brackets."""
    separators, pieces, depth, start = [], [], 0, 0
    for found in re.finditer(rf"(?P<sign>{pattern})|\\?[(\[{{]|\\?[)\]}}]", text):
        if found["sign"] is None:
            depth += 1 if found[0][-1] in "([{" else -1
        elif depth == 0:
            separators.append(found[0])
            pieces.append(text[start : found.start()])
            start = found.end()
    return _Parts(separators, [*pieces, text[start:]])
