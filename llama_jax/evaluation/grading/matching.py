"""Grades short answers: exact match after normalisation, numbers in text, and the majority vote of several samples."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, DivisionByZero, InvalidOperation

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_MINUS = "-\N{MINUS SIGN}\N{EN DASH}"
_CURRENCY = "$€£¥₹"
_THIN_SPACES = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_SPACED_NUMBER = r"[0-9]{1,3}(?:[ ][0-9]{3}){1,4}+(?![\w/-]|[.,][0-9])"
"""A number whose thousands are separated by spaces: 1 500."""
_NUMBER_BODY = rf"""(?:(?<![0-9/])[0-9]++[ ][0-9]++/[0-9]++(?![\w/])       # 3 1/2
    |(?<![0-9/])[0-9]++/[0-9]++(?![\w/])                       # 1/2
    |[0-9]++(?:\.[0-9]++)?[eE][+-]?[0-9]{{1,3}}(?!\w)           # 1e5
    |(?<=[{_CURRENCY}]){_SPACED_NUMBER}                                 # $1 500
    |[0-9]{{1,3}}(?:[ ][0-9]{{3}}){{0,3}}[ ]000(?![\w/]|[.,][0-9])    # 1 000
    |[0-9]++(?:[.,{_THIN_SPACES}][0-9]++)*+                            # 1,234.50
    |(?<!\.)\.[0-9]++)"""
"""A number in a text, without sign and currency."""
_NUMBER = re.compile(rf"""(?:(?<![\w.)\]%])[{_MINUS}](?=[{_CURRENCY}.]?[0-9])|(?:(?<==[ ])|(?<=\bis[ ]))[{_MINUS}][ ])?
    (?:[{_CURRENCY}][{_MINUS}]?)?{_NUMBER_BODY}""", re.VERBOSE)
"""A number in a text with its sign and currency; a dash after a digit, a letter or a bracket is not a sign."""
_STATED_ANSWER = re.compile(rf"""The[ ]answer[ ]is[ ](?:[{_MINUS}0-9 .,{_CURRENCY}()*/+x×÷]++=[ ]?)*
    ([{_MINUS}{_CURRENCY} (\\]*+(?:{_SPACED_NUMBER}|{_NUMBER_BODY}))""", re.VERBOSE)
"""The number after "The answer is" in a chain of thought, perhaps after the sum that it is the result of."""


def short_answer(generation: str) -> str:
    """The answer in a generated text as the LLaMA paper takes it (section 3, Closed-book Question Answering).

    That is the text up to the first line break or comma, without a final dot.
    """
    return re.split(r"[\n,]", generation.strip(), maxsplit=1)[0].strip().removesuffix(".")


def short_answer_to_dot(generation: str) -> str:
    """The answer as lm-evaluation-harness takes it: up to the first dot too, so that "St. Louis" becomes "St"."""
    return re.split(r"[\n.,]", generation.strip(), maxsplit=1)[0].strip()


def squad_form(text: str) -> str:
    """SQuAD's normal form of an answer: lower case, no punctuation, no articles, single spaces.

    Unlike SQuAD's script, this removes the punctuation of all of Unicode and composes letters with their accents (NFC).
    """
    lower = unicodedata.normalize("NFC", text).lower()
    kept = (c for c in lower if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return " ".join(_ARTICLES.sub(" ", "".join(kept)).split())


def exact_match(answer: str, right: Sequence[str]) -> bool:
    """Whether an answer equals one of the right ones in SQuAD's form.

    Texts of which that form leaves nothing, as "A" and "+", are compared letter for letter in lower case.
    """
    return _comparable(answer) in (_comparable(text) for text in right)


def _comparable(text: str) -> str:
    return squad_form(text) or text.strip().lower()


def parse_number(text: str) -> Decimal | None:
    """The value of a number with separators of thousands, a sign, a currency or a percent sign, as decimal or fraction.

    Commas separate thousands, even where they are not thousands ("1,8" is 18); in "1.234,5" it is the dots that do. None
    where the text is not a number.
    """
    dress = re.match(rf"[{_MINUS}{_CURRENCY}(\s\\]*", text)[0]
    body = re.sub(rf"[\s{_THIN_SPACES}]", " ", text[len(dress) :]).rstrip(f" .,%\\{_CURRENCY}")
    try:
        value = _parse_unsigned(body)
    except (InvalidOperation, DivisionByZero):
        return None
    is_negative = any(sign in dress for sign in _MINUS) and value  # zero has no sign
    return value.copy_negate() if is_negative else value


def _parse_unsigned(body: str) -> Decimal:
    """Value of a number without sign and currency. Raises InvalidOperation for other text, DivisionByZero for 1/0."""
    if fraction := re.fullmatch(r"(?:([0-9]+) )?([0-9]+)/([0-9]+)", body):
        whole, above, below = (Decimal(part or 0) for part in fraction.groups())
        return whole + above / below
    body = body.replace(" ", "")
    if not re.fullmatch(r"[0-9.,]*[0-9][0-9.,]*(?:[eE][+-]?[0-9]{1,3})?", body):
        raise InvalidOperation  # Decimal would read "nan" and "inf"
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{3})+,[0-9]+|[0-9]{1,3}(\.[0-9]{3}){2,}", body):
        body = body.replace(".", "").replace(",", ".")
    return Decimal(body.replace(",", ""))


def last_number(text: str) -> Decimal | None:
    """The last number in a text; None without one."""
    found = _NUMBER.findall(text)
    return parse_number(found[-1]) if found else None


def stated_number(text: str) -> str | None:
    """The number after "The answer is" in a chain of thought, in the form of `number_text`; None without one."""
    found = _STATED_ANSWER.search(text)
    value = parse_number(found[1]) if found else None
    return None if value is None else number_text(value)


def number_text(value: Decimal) -> str:
    """All digits of a number, without an exponent and without zeros at its end; equal numbers have equal texts."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The answer that most samples gave, the earliest among equals; None, a sample without an answer, does not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None
