"""Whether a short answer is a right one: text without its dress, numbers, and the vote of several samples."""

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
_NUMBER_BODY = rf"""(?:(?<![0-9/])[0-9]++[ ][0-9]++/[0-9]++(?![\w/])       # 3 1/2
    |(?<![0-9/])[0-9]++/[0-9]++(?![\w/])                       # 1/2
    |[0-9]++(?:\.[0-9]++)?[eE][+-]?[0-9]{{1,3}}(?!\w)           # 1e5
    |(?<=[{_CURRENCY}]){_SPACED_NUMBER}                                 # $1 500
    |[0-9]{{1,3}}(?:[ ][0-9]{{3}}){{0,3}}[ ]000(?![\w/]|[.,][0-9])    # 1 000
    |[0-9]++(?:[.,{_THIN_SPACES}][0-9]++)*+                            # 1,234.50
    |(?<!\.)\.[0-9]++)"""
_NUMBER = re.compile(rf"""(?:(?<![\w.)\]%])[{_MINUS}](?=[{_CURRENCY}.]?[0-9])|(?:(?<==[ ])|(?<=\bis[ ]))[{_MINUS}][ ])?
    (?:[{_CURRENCY}][{_MINUS}]?)?{_NUMBER_BODY}""", re.VERBOSE)
"""A number in a text with its sign and currency; a dash after a digit, a letter or a bracket is no sign."""
_STATED_ANSWER = re.compile(rf"""The[ ]answer[ ]is[ ](?:[{_MINUS}0-9 .,{_CURRENCY}()*/+x×÷]++=[ ]?)*
    ([{_MINUS}{_CURRENCY} (\\]*+(?:{_SPACED_NUMBER}|{_NUMBER_BODY}))""", re.VERBOSE)
"""A number where the chain of thought says its answer, perhaps after the sum that it is the result of."""


def short_answer(generation: str) -> str:
    """The generation up to the first line break or comma, without a final dot (section 3, Closed-book Question Answering)."""
    return re.split(r"[\n,]", generation.strip(), maxsplit=1)[0].strip().removesuffix(".")


def short_answer_to_dot(generation: str) -> str:
    """The same as lm-evaluation-harness cuts: at the first dot too, so that "St. Louis" is "St"."""
    return re.split(r"[\n.,]", generation.strip(), maxsplit=1)[0].strip()


def squad_form(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: SQuAD's form, for punctuation and composed letters of Unicode."""
    lower = unicodedata.normalize("NFC", text).lower()
    kept = (c for c in lower if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return " ".join(_ARTICLES.sub(" ", "".join(kept)).split())


def exact_match(answer: str, right: Sequence[str]) -> bool:
    """Whether an answer is one of the right ones in plain form, or letter for letter where nothing is left of that ("A", "+")."""
    form = squad_form(answer) or answer.strip().lower()
    return form in (squad_form(text) or text.strip().lower() for text in right)


def parse_number(text: str) -> Decimal | None:
    """What digits mean with separators of thousands, a sign, a currency or a percent sign, as a decimal or common fraction.

    Commas separate thousands, also where they stand for nothing ("1,8" is 18), but "1.234,5" is written the other way round.
    None where the text means no number.
    """
    dress = re.match(rf"[{_MINUS}{_CURRENCY}(\s\\]*", text)[0]
    body = re.sub(rf"[\s{_THIN_SPACES}]", " ", text[len(dress) :]).rstrip(f" .,%\\{_CURRENCY}")
    try:
        value = _parse_unsigned(body)
    except (InvalidOperation, DivisionByZero):
        return None
    negative = any(sign in dress for sign in _MINUS) and value  # no negative zero
    return value.copy_negate() if negative else value


def _parse_unsigned(body: str) -> Decimal:
    """Value of a number without sign and dress. Raises InvalidOperation where it is none, DivisionByZero for 1/0."""
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
    """The last one that stands in a text."""
    found = _NUMBER.findall(text)
    return parse_number(found[-1]) if found else None


def stated_number(text: str) -> str | None:
    """The number after "The answer is", with all its digits, as text that equal numbers share; None without one."""
    found = _STATED_ANSWER.search(text)
    value = parse_number(found[1]) if found else None
    return None if value is None else number_text(value)


def number_text(value: Decimal) -> str:
    """Digits of a number, all of them; equal numbers are written alike."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The answer that most samples gave, the earliest of equals; samples without one (None) do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None
