"""Kinds of JSON values: what a file should hold is written down once, and a value of another kind is told in words."""

from typing import Any, NamedTuple

from llama_jax.files.encoding import is_unicode

JsonKind = Any
"""What a JSON value must be: a Python type, where `float` takes whole numbers too; [kind], a list of at least one value of that
kind; {name: kind}, an object with these fields and perhaps others; a tuple of kinds, a value of one of them; None, null.
`object` accepts every value."""


class ListOf(NamedTuple):
    """A list of values of one kind, which may be empty."""

    kind: JsonKind


class EntriesOf(NamedTuple):
    """An object of any names whose values are of one kind."""

    kind: JsonKind


class IfThere(NamedTuple):
    """A field of an object that may be missing."""

    kind: JsonKind


_KIND_WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "an object",
               None: "null"}
_MAX_SHOWN = 100
"""Characters of a value that an error message shows."""
_MAX_NUMBER = 2**63
"""Whole numbers of a file lie below it: larger ones are no counts, and no float or array holds them."""


def show_value(value: Any) -> str:
    """The repr of a value from a file, cut to what fits into an error message, however large or nested the value is."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested too deeply to be shown"
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + " ..."


def json_fault(value: Any, kind: JsonKind, *, name: str = "") -> str:
    """Says in words what is wrong with a JSON value that should be of `kind`; empty where nothing is.

    Args:
        name: Name of the field that holds the value, for the words.
    """
    where = f"{name!r} should be" if name else "expected"
    if isinstance(kind, EntriesOf):
        if not isinstance(value, dict):
            return f"{where} an object, got {show_value(value)}"
        found = (json_fault(inner, kind.kind, name=f"{name}.{key:.60}" if name else key[:60]) for key, inner in value.items())
        return next(filter(None, found), "")
    if isinstance(kind, ListOf):
        if value == []:
            return ""
        kind = [kind.kind]
    if isinstance(kind, tuple):
        if not any(json_fault(value, one) == "" for one in kind):
            return f"{where} {' or '.join(_KIND_WORDS.get(one, 'another') for one in kind)}, got {show_value(value)}"
        return ""
    if isinstance(kind, dict):
        return _object_fault(value, kind, name=name)
    if isinstance(kind, list):
        if not isinstance(value, list) or not value:
            return f"{where} a list that is not empty, got {show_value(value)}"
        found = (json_fault(one, kind[0], name=f"{name}[{place}]") for place, one in enumerate(value))
        return next(filter(None, found), "")
    return _plain_fault(value, kind, where=where)


def _object_fault(value: Any, kinds: dict[str, JsonKind], *, name: str) -> str:
    """What is wrong with an object that should have the fields `kinds`."""
    where = f"{name!r} should be" if name else "expected"
    wanted = [key for key, kind in kinds.items() if not isinstance(kind, IfThere)]
    if not isinstance(value, dict):
        return f"{where} an object with {', '.join(map(repr, wanted))}, got {show_value(value)}"
    if missing := [key for key in wanted if key not in value]:
        return f"{where} an object with {', '.join(map(repr, wanted))}, and {missing[0]!r} is missing"
    for key, kind in kinds.items():
        kind = kind.kind if isinstance(kind, IfThere) else kind
        if key in value and (fault := json_fault(value[key], kind, name=f"{name}.{key}" if name else key)):
            return fault
    return ""


def _plain_fault(value: Any, kind: JsonKind, *, where: str) -> str:
    """What is wrong with a value that should be of a Python type, or null."""
    if kind is None:
        return "" if value is None else f"{where} null, got {show_value(value)}"
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (kind in (int, float) and isinstance(value, bool)):  # bool is a subclass of int
        return f"{where} {_KIND_WORDS[kind]}, got {show_value(value)}"
    if kind in (int, float) and isinstance(value, int) and abs(value) >= _MAX_NUMBER:
        return f"{where} {_KIND_WORDS[kind]}, got one of {value.bit_length()} bits"
    if isinstance(value, str) and not is_unicode(value):
        return f"{where} valid Unicode text, and holds half of a surrogate pair"
    return ""
