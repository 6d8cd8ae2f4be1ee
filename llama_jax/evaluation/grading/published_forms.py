"""The two published normal forms of answers to MATH, under which two answers count as equal if their forms are equal.

`minerva_form` is that of Minerva (Lewkowycz et al. 2022, arXiv 2206.14858, appendix D), in lm-evaluation-harness
`normalize_final_answer` of minerva_math. `hendrycks_form` is that of the authors of MATH (Hendrycks et al. 2021), `_strip_string`
of math_equivalence.py in hendrycks/math, in lm-evaluation-harness `strip_string` of hendrycks_math. Both give the same text as
these functions, letter for letter (tests/peers/graders.py compares them); docs/EVALUATION.md lists what they lose.
"""

import re

_MINERVA_REPLACED = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"), (",\\text{and}", ","),
    ("\\text{and}", ","), ("\\text{m}", "\\text{}"))
"""SUBSTITUTIONS of Minerva's appendix D, in its order."""
_MINERVA_REMOVED = (
    "square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue", "points",
    "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students",
    "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}",
    "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots")
"""REMOVED_EXPRESSIONS of Minerva's appendix D, in its order."""

UNIT_WORDS = "|".join(text for text in _MINERVA_REMOVED if text.isalpha())
"""The words among them as a regular expression: units and the like."""

LONGEST_NORMALISED = 3000
"""Characters of an answer that is normalised; a longer one is its own form."""


def minerva_form(answer: str) -> str:
    """Minerva's normal form. It keeps what follows the last "=", and removes units and articles."""
    if len(answer) > LONGEST_NORMALISED:
        return answer
    answer = answer.split("=")[-1]
    answer = re.sub(rf"(?<!\\)\b(?:{UNIT_WORDS})\b", "", answer)
    for old, new in _MINERVA_REPLACED:
        answer = answer.replace(old, new)
    for text in _MINERVA_REMOVED:
        if text in answer:
            # a word is removed from the text between commands, not from the names of commands: "ft" stays in \left
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
    """Hendrycks et al.'s normal form. It puts the arguments of fractions and roots in braces, and removes spaces and units."""
    if len(answer) > LONGEST_NORMALISED:
        return answer
    for old, new in (("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""),
                     ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", "")):
        answer = answer.replace(old, new)
    answer = answer.partition("\\text{ ")[0].replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if answer.startswith("."):
        answer = "0" + answer
    if answer.count("=") == 1 and len(answer.partition("=")[0]) <= 2:
        answer = answer.partition("=")[2]
    answer = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", answer).replace(" ", "")
    head, *fractions = answer.split("\\frac")
    if all(len(text) > 1 or text.startswith("{") for text in fractions):  # else none of them gets braces
        answer = head + "".join(rf"\frac{_with_braces(text)}" for text in fractions)
    if answer == "0.5":
        answer = "\\frac{1}{2}"
    return re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", answer)


def _with_braces(arguments: str) -> str:
    """The text after a \\frac, with its first two characters in braces where they are its arguments."""
    if arguments.startswith("{"):
        return arguments
    above, below = arguments[0], arguments[1]
    return f"{{{above}}}{below if below == '{' else f'{{{below}}}'}{arguments[2:]}"
