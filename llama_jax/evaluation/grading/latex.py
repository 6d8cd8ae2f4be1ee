"""Whether two LaTeX answers say the same: two published normal forms, a form of our own, and values where both have one."""

import re

from llama_jax.evaluation.grading.expression import same_value

_MINERVA_REPLACED = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"), (",\\text{and}", ","),
    ("\\text{and}", ","), ("\\text{m}", "\\text{}"))
_MINERVA_REMOVED = (
    "square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue", "points",
           "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students",
           "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}",
           "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots")
"""Minerva, appendix D."""
_UNIT_WORDS = "|".join(text for text in _MINERVA_REMOVED if text.isalpha())

_LONGEST = 3000
"""Characters of an answer that is normalised; a longer one equals only itself."""
_LONGEST_IN_PARTS = 300
"""Characters of an answer that is compared part by part."""


def boxed_answer(solution: str) -> str | None:
    """What stands in the last \\boxed of a solution (or \\fbox), None without one. Escaped braces close nothing."""
    starts = [found.end() for found in re.finditer(r"\\(?:boxed|fbox) *", solution)]
    if not starts:
        return None
    rest = solution[starts[-1] :]
    if not rest.startswith("{"):
        return rest.partition("$")[0].strip() or None
    depth = 0
    for sign in re.finditer(r"\\.|[{}]", rest, re.DOTALL):
        depth += (sign[0] == "{") - (sign[0] == "}")
        if depth == 0:
            return rest[1 : sign.start()]
    return None


def minerva_form(answer: str) -> str:
    """Normal form of Lewkowycz et al. 2022, appendix D. Words for units are taken out of words only, not of commands."""
    if len(answer) > _LONGEST:
        return answer
    answer = answer.split("=")[-1]
    answer = re.sub(rf"(?<!\\)\b(?:{_UNIT_WORDS})\b", "", answer)
    for old, new in _MINERVA_REPLACED:
        answer = answer.replace(old, new)
    for text in _MINERVA_REMOVED:
        if text in answer:
            pieces = re.split(r"(\\[a-zA-Z]+)", answer) if text.isalpha() else [answer]
            pieces[::2] = [piece.replace(text, "") for piece in pieces[::2]]
            answer = "".join(pieces)
    answer = re.sub(r".*?\$(.*?)\$.*", r"$\1$", answer)
    for command in "text", "textbf", "overline":
        answer = re.sub(rf"\\{command}\{{(.*?)\}}", r"\1", answer)
    answer = re.sub(r"\\boxed\{(.*)\}", r"\1", answer)
    answer = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", answer)
    answer = re.sub(r"sqrt(\[[^]]*\])(\w)", r"sqrt\1{\2}", answer)
    answer = re.sub(r"sqrt([^{[])", r"sqrt{\1}", answer).replace("$", "")
    return answer.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+", answer) else answer


def hendrycks_form(answer: str) -> str:
    """Normal form of Hendrycks et al. 2021 (MATH)."""
    if len(answer) > _LONGEST:
        return answer
    for old, new in (("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""),
                     ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", "")):
        answer = answer.replace(old, new)
    answer = answer.partition("\\text{ ")[0].replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    answer = "0" + answer if answer.startswith(".") else answer
    if answer.count("=") == 1 and len(answer.partition("=")[0]) <= 2:
        answer = answer.partition("=")[2]
    answer = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", answer).replace(" ", "")
    head, *fractions = answer.split("\\frac")
    if all(len(text) > 1 or text.startswith("{") for text in fractions):  # else nothing is put in braces
        answer = head + "".join(rf"\frac{_with_braces(text)}" for text in fractions)
    answer = "\\frac{1}{2}" if answer == "0.5" else answer
    return re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", answer)


def _with_braces(arguments: str) -> str:
    """What follows a \\frac, with its first two signs in braces where they are its arguments."""
    if arguments.startswith("{"):
        return arguments
    above, below = arguments[0], arguments[1]
    return f"{{{above}}}{below if below == '{' else f'{{{below}}}'}{arguments[2:]}"


_COMMAND = r"\\(?!frac|sqrt|begin|end)[A-Za-z]+"
_UNIT = r"(?<=\S)\s*\\(?:text|mbox|textrm|mathrm)\{ [^{}]*(?:\}(?:\^\{?\d\}?)?\s*\.?\s*)?$"
"""Words at the right end, perhaps cut off, which Hendrycks et al. take for a unit."""
_FORMULA = r"[^\d$+*=/^-]*\$([^$]*)\$[^\d$+*=/^-]*"
"""A formula in a sentence without another number."""
_REWRITES = tuple((re.compile(pattern), new) for pattern, new in (
    (r"\\\$|\\displaystyle|\\!|[\"\n]", ""),
    (rf"^{_FORMULA}$", r"\1"),
    (r"\$|(?<!\\)\\[()\[\]]", ""),
    (r"^\s*\\(?:boxed|fbox)\{(.*)\}\s*$", r"\1"),
    (_UNIT, ""),
    (rf"(?<=[^\s{{(])\s*(?:\b(?:{_UNIT_WORDS})\b|\\(?:text|mbox|textrm|mathrm)\{{\s*(?:{_UNIT_WORDS})\s*\}})", ""),
    (r",?\s*\\(?:text|mbox)\{\s*,?\s*and\s*\}", ","),
    (r"\\(?:text|mbox|textrm|mathrm|textbf|mathbf|textit)\{([^{}]*)\}", r"\1"),
    (r"\\(?:left|right)(?![A-Za-z])\.?", ""),
    (r"(?<!\\)\\\\(?=[A-Za-z]+\{)", r"\\"),
    (r"\\\\", r"\\cr "),
    (r"\\[,;: ]|\\q?quad|~", " "),
    (r"\{,\}", ","),
    (r"\\[dtc]frac", r"\\frac"),
    (r"\^\s*\{?\s*\\circ\s*\}?|°|\\?%", ""),
    (rf"([_^])\s*(-?\d+|{_COMMAND}|[A-Za-z])", r"\1{\2}"),
    (r"\\overline\s*(\d)", r"\\overline{\1}"),
    (rf"({_COMMAND})\s+(?=[A-Za-z])", r"\1~"),
    (r"\s+|~$|\.\s*$", ""),
    (rf"\\frac({_COMMAND}|[A-Za-z\d])", r"\\frac{\1}"),
    (rf"(\\frac\{{[^{{}}]*\}})({_COMMAND}|[A-Za-z\d])", r"\1{\2}"),
    (rf"\\sqrt(\[[^]]*\])?({_COMMAND}|[A-Za-z\d])", r"\\sqrt\1{\2}"),
    (r"^\(([\dA-Z]+)\)_", r"\1_"),
    (r"(?<![\d.])\.(?=\d)", "0."),
    (r"^(-?\d+)/(\d+)$", r"\\frac{\1}{\2}")))
"""Patterns and what replaces them, in this order: dress, units, spaces, arguments in braces."""


def normal_form(answer: str) -> str:
    """An answer without its dress, every argument in braces and without spaces, but with all that it says."""
    if len(answer) > _LONGEST:
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
"""What a lone left side may be: the name of what is asked for."""


def _without_name(text: str) -> str:
    """The right side where all that stands left of the only "=" is a name."""
    left, equals, right = text.partition("=")
    return right if equals and "=" not in right and (not left or _NAME.fullmatch(left)) else text


def _minerva_loses(answer: str) -> bool:
    """Whether Minerva's form drops some of what is said: a left side, a letter "a", a bar over digits, a second formula."""
    dollars = answer.replace("\\$", "")
    return bool("=" in _without_name(answer)
                or re.search(r"(?<![A-Za-z]{2})an? (?![A-Za-z]{2})", re.sub(r"\\[A-Za-z]+", r"\\", answer))
                or re.search(r"\\overline\s*\{?\s*\d", answer)
                or (dollars.count("$") > 1 and not re.fullmatch(_FORMULA, dollars)))


def _hendrycks_loses(answer: str) -> bool:
    """Whether Hendrycks et al.'s form drops some of what is said: a short left side that is no name, words that are no unit."""
    short = answer.count("=") == 1 and len(answer.partition("=")[0]) <= 2
    return (short and "=" in _without_name(answer)) or "\\text{ " in re.sub(_UNIT, "", answer)


def equivalent_answers(first: str | None, second: str | None) -> bool:
    """Whether two answers are the same in a normal form, or of the same value; a missing or empty one equals nothing.

    A published form decides where it keeps what both answers say; docs/EVALUATION.md lists what they lose. Else the parts of
    our own form are compared: elements of tuples, intervals, sets and matrices, sides of equations and inequalities.
    """
    one, two = normal_form(first or ""), normal_form(second or "")
    if not one or not two:
        return False
    for form, loses in (minerva_form, _minerva_loses), (hendrycks_form, _hendrycks_loses):
        if form(first) == form(second) != "" and not loses(first) and not loses(second):
            return True
    return _equal_forms(one, two)


def _equal_forms(first: str, second: str) -> bool:
    """Whether two normal forms are equal, as text, as values, or part by part."""
    first, second = _without_name(first), _without_name(second)
    if first == second:
        return first != ""
    if not first or not second or max(len(first), len(second)) > _LONGEST_IN_PARTS:
        return False
    one, two = _parts(first), _parts(second)
    if one[0] or two[0]:
        return one[0] == two[0] and all(_equal_forms(a, b) for a, b in zip(one[1], two[1], strict=True))
    return same_value(one[1][0], two[1][0])


_RELATION = r"\\(?:leqslant|leq|le|geqslant|geq|ge|neq|ne|approx|equiv|in|to)(?![A-Za-z])~?|[<>!:]?=|[<>≤≥≠]"
_RELATION_SIGNS = {
    "\\leqslant": "≤", "\\leq": "≤", "\\le": "≤", "<=": "≤", "\\geqslant": "≥", "\\geq": "≥", "\\ge": "≥", ">=": "≥",
             "\\neq": "≠", "\\ne": "≠", "!=": "≠", ":=": "="}
_BRACKETS = re.compile(r"(\\\{|[(\[])(.*)(\\\}|[)\]])")
_MATRIX = re.compile(r"\\begin\{(\w+)\}(.*)\\end\{\1\}")


def _parts(text: str) -> tuple[list[str], list[str]]:
    """Separators (with brackets) and parts of an answer that consists of several; no separators where it is one expression."""
    for pattern in (",", r"\\cup~?", _RELATION):
        signs, pieces = _split_outside_brackets(text, pattern)
        if signs:
            return _value_of_chain([_RELATION_SIGNS.get(sign.rstrip("~"), sign.rstrip("~")) for sign in signs], pieces)
    if matrix := _MATRIX.fullmatch(text):
        signs, pieces = _split_outside_brackets(matrix[2], r"\\cr~?|&")
        return [matrix[1], *signs], pieces
    if brackets := _BRACKETS.fullmatch(text):
        signs, pieces = _split_outside_brackets(brackets[2], ",")
        if signs:
            return [brackets[1], *signs, brackets[3]], pieces
    return [], [text]


def _value_of_chain(signs: list[str], pieces: list[str]) -> tuple[list[str], list[str]]:
    """The same parts, or the last one alone where all are equal numbers, perhaps after a name: x = 2 + 3 = 5."""
    if set(signs) != {"="}:
        return signs, pieces
    sides = pieces[1:] if len(pieces) > 2 and _NAME.fullmatch(pieces[0]) else pieces
    if all(same_value(side, pieces[-1]) for side in sides[:-1]):
        return _parts(pieces[-1])
    return signs, pieces


def _split_outside_brackets(text: str, pattern: str) -> tuple[list[str], list[str]]:
    """Separators and pieces of a text, cut where the pattern stands outside of all brackets."""
    signs, pieces, depth, start = [], [], 0, 0
    for found in re.finditer(rf"(?P<sign>{pattern})|\\?[(\[{{]|\\?[)\]}}]", text):
        if found["sign"] is None:
            depth += 1 if found[0][-1] in "([{" else -1
        elif depth == 0:
            signs.append(found[0])
            pieces.append(text[start : found.start()])
            start = found.end()
    return signs, [*pieces, text[start:]]
