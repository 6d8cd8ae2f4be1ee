"""Whether a short answer is a right one: text without its dress, numbers, and the vote of several samples."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, DivisionByZero, InvalidOperation

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
MINUS = "-\N{MINUS SIGN}\N{EN DASH}"
CURRENCY = "$€£¥₹"
THIN = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
SPACED = r"[0-9]{1,3}(?:[ ][0-9]{3}){1,4}+(?![\w/-]|[.,][0-9])"
BODY = rf"""(?:(?<![0-9/])[0-9]++[ ][0-9]++/[0-9]++(?![\w/])       # 3 1/2
    |(?<![0-9/])[0-9]++/[0-9]++(?![\w/])                       # 1/2
    |[0-9]++(?:\.[0-9]++)?[eE][+-]?[0-9]{{1,3}}(?!\w)           # 1e5
    |(?<=[{CURRENCY}]){SPACED}                                 # $1 500
    |[0-9]{{1,3}}(?:[ ][0-9]{{3}}){{0,3}}[ ]000(?![\w/]|[.,][0-9])    # 1 000
    |[0-9]++(?:[.,{THIN}][0-9]++)*+                            # 1,234.50
    |(?<!\.)\.[0-9]++)"""
NUMBER = re.compile(rf"""(?:(?<![\w.)\]%])[{MINUS}](?=[{CURRENCY}.]?[0-9])|(?:(?<==[ ])|(?<=\bis[ ]))[{MINUS}][ ])?
    (?:[{CURRENCY}][{MINUS}]?)?{BODY}""", re.VERBOSE)
"""A number in a text with its sign and currency; a dash after a digit, a letter or a bracket is no sign."""
ANSWER = re.compile(rf"""The[ ]answer[ ]is[ ](?:[{MINUS}0-9 .,{CURRENCY}()*/+x×÷]++=[ ]?)*
    ([{MINUS}{CURRENCY} (\\]*+(?:{SPACED}|{BODY}))""", re.VERBOSE)
"""A number where the chain of thought says its answer, perhaps after the sum that it is the result of."""


def answer_of(generation: str) -> str:
    """The generation up to the first line break or comma, without a final dot (section 3, Closed-book Question Answering)."""
    return re.split(r"[\n,]", generation.strip(), maxsplit=1)[0].strip().removesuffix(".")


def cut_at_dot(generation: str) -> str:
    """The same as lm-evaluation-harness cuts: at the first dot too, so that "St. Louis" is "St"."""
    return re.split(r"[\n.,]", generation.strip(), maxsplit=1)[0].strip()


def plain(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: SQuAD's form, for punctuation and composed letters of Unicode."""
    lower = unicodedata.normalize("NFC", text).lower()
    kept = (c for c in lower if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return " ".join(ARTICLES.sub(" ", "".join(kept)).split())


def exact_match(answer: str, right: Sequence[str]) -> bool:
    """Whether an answer is one of the right ones in plain form, or letter for letter where nothing is left of that ("A", "+")."""
    form = plain(answer) or answer.strip().lower()
    return form in (plain(text) or text.strip().lower() for text in right)


def number(text: str) -> Decimal | None:
    """What digits mean with separators of thousands, a sign, a currency or a percent sign, as a decimal or common fraction.

    Commas separate thousands, also where they stand for nothing ("1,8" is 18), but "1.234,5" is written the other way round.
    None where the text means no number.
    """
    dress = re.match(rf"[{MINUS}{CURRENCY}(\s\\]*", text)[0]
    body = re.sub(rf"[\s{THIN}]", " ", text[len(dress) :]).rstrip(f" .,%\\{CURRENCY}")
    try:
        value = unsigned(body)
    except (InvalidOperation, DivisionByZero):
        return None
    negative = any(sign in dress for sign in MINUS) and value  # no negative zero
    return value.copy_negate() if negative else value


def unsigned(body: str) -> Decimal:
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
    found = NUMBER.findall(text)
    return number(found[-1]) if found else None


def thought_number(text: str) -> str | None:
    """The number after "The answer is", with all its digits, as text that equal numbers share; None without one."""
    found = ANSWER.search(text)
    value = number(found[1]) if found else None
    return None if value is None else written(value)


def written(value: Decimal) -> str:
    """Digits of a number, all of them; equal numbers are written alike."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def majority(answers: Sequence[str | None]) -> str | None:
    """The answer that most samples gave, the earliest of equals; samples without one (None) do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None
