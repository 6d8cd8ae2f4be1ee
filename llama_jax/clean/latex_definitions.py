r"""Definitions of macros in LaTeX source: \newcommand, \def, \let, \DeclareMathOperator and their kin."""

import re
from typing import NamedTuple

from llama_jax.clean.latex_tokens import LatexReader, is_space, is_word

_PREFIXES = ("\\long", "\\global", "\\outer", "\\protected")
_COMMANDS = ("\\newcommand", "\\renewcommand", "\\providecommand", "\\DeclareRobustCommand", "\\DeclareMathOperator")
_PLAIN = ("\\def", "\\gdef", "\\edef", "\\xdef")
DEFINITIONS = frozenset((*_COMMANDS, *_PLAIN, *_PREFIXES, "\\let"))
"""Commands that begin a definition."""
_LONGEST_PARAMETERS = 40
"""Tokens between the name and the body that \\def defines."""
_PROGRAM = frozenset((
    *_COMMANDS, *_PLAIN, "\\let", "\\futurelet", "\\expandafter", "\\noexpand", "\\csname", "\\catcode", "\\newenvironment",
    "\\else", "\\fi", "\\or", "\\loop", "\\repeat", "\\advance", "\\global", "\\the", "#"))


class Macro(NamedTuple):
    """What a command is replaced by."""

    body: list[str]
    arguments: int = 0
    default: list[str] | None = None
    """What the first argument is where it is not given in brackets."""
    delimiters: tuple[tuple[str, ...], ...] = ()
    r"""Of \def: what must stand before the first argument and after each; () is nothing."""


class Definition(NamedTuple):
    """A definition that was read."""

    name: str
    meaning: Macro | str | None
    r"""A macro, another command that this one is the same as (\let), or None where TeX alone knows what it means."""
    end: int
    """The position after it."""
    only_new: bool = False
    r"""Whether it counts only where there is no other (\providecommand)."""


def is_program(macro: Macro) -> bool:
    r"""Whether a macro has conditions, definitions or internal commands (with @), so that its text is no text of the paper."""
    return any(token in _PROGRAM or (is_word(token) and "@" in token) or (token.startswith("\\if") and token != "\\iff")
               for token in macro.body)


def read_definition(command: str, position: int, *, reader: LatexReader) -> Definition | None:
    """Read the definition that `command` begins and that goes on at `position`; None where it is none that is understood."""
    while command in _PREFIXES:
        position = reader.skip_spaces(position)
        command = reader.at(position)
        position += 1
    if command in _PLAIN:
        return _read_plain(command, position, reader=reader)
    if command == "\\let":
        return _read_let(position, reader=reader)
    return _read_command(command, position, reader=reader) if command in _COMMANDS else None


def _read_command(command: str, position: int, *, reader: LatexReader) -> Definition | None:
    r"""\newcommand*{\name}[2][default]{body}, and \DeclareMathOperator*{\name}{body}."""
    starred = reader.at(position) == "*"
    named = reader.argument(position + starred)
    if not named or len(named[0]) != 1 or named[0][0][0] != "\\":
        return None
    (name,), position = named
    count, default = 0, None
    if command != "\\DeclareMathOperator" and (given := reader.optional(position)):
        number, position = "".join(given[0]).strip(), given[1]
        if not re.fullmatch("[0-9]", number):
            return None
        count = int(number)
        if second := reader.optional(position):
            default, position = second
    body = reader.argument(position)
    if not body:
        return None
    if command == "\\DeclareMathOperator":
        return Definition(name, Macro(["\\operatorname", *("*" * starred), "{", *body[0], "}"]), body[1])
    return Definition(name, Macro(body[0], count, default), body[1], only_new=command == "\\providecommand")


def _read_plain(command: str, position: int, *, reader: LatexReader) -> Definition | None:
    r"""\def\name#1,#2;{body}."""
    name = reader.at(position)
    start = position + 1
    window = range(start, min(start + _LONGEST_PARAMETERS, len(reader.tokens)))
    opening = next((at for at in window if reader.tokens[at] == "{"), 0)
    body = reader.argument(opening) if opening else None
    if name[:1] != "\\" or not body:
        return None
    parameters = reader.tokens[start + (is_word(name) and is_space(reader.tokens, start)):opening]
    numbers = [token for token in parameters if token[0] == "#"]
    if command in ("\\edef", "\\xdef") or numbers != [f"#{number}" for number in range(1, len(numbers) + 1)]:
        return Definition(name, None, body[1])
    delimiters: list[list[str]] = [[]]
    for token in parameters:
        if token[0] == "#":
            delimiters.append([])
        else:
            delimiters[-1].append(token)
    return Definition(name, Macro(body[0], len(numbers), None, tuple(map(tuple, delimiters)) if any(delimiters) else ()), body[1])


def _read_let(position: int, *, reader: LatexReader) -> Definition | None:
    r"""\let\name=\other."""
    position = reader.skip_spaces(position)
    name = reader.at(position)
    position = reader.skip_spaces(position + 1)
    position = reader.skip_spaces(position + (reader.at(position) == "="))
    other = reader.at(position)
    if name[:1] != "\\" or other[:1] != "\\":
        return None
    return Definition(name, None if other in ("\\relax", "\\undefined", "\\@undefined") else other, position + 1)
