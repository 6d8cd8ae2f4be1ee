r"""The macros that a paper defines for itself, expanded where they are used (paper, section 2.1)."""

import re
from itertools import pairwise
from typing import Any

from llama_jax.clean.items import Dropped
from llama_jax.clean.latex_definitions import DEFINITIONS, Definition, Macro, is_program, read_definition
from llama_jax.clean.latex_tokens import FrozenToken, LatexReader, is_space, is_word, join_tokens, tokenize_latex
from llama_jax.clean.latex_verbatim import hide_verbatim, show_verbatim

_GROWTH, _SMALL = 4, 1_000_000
"""Expansion may add this many times the characters of the paper, and as many as are always allowed."""
_DEEPEST = 60
"""Macros within macros, or within arguments of macros."""
_STRUCTURE = frozenset((
    r"\begin", r"\end", r"\documentclass", r"\title", r"\part", r"\chapter", r"\section", r"\subsection", r"\subsubsection",
    r"\paragraph", r"\subparagraph", r"\appendix", r"\item", r"\bibliography", r"\printbibliography"))
"""Commands that stay what they are if a paper redefines them, since that changes their look."""
_FORMULAS = re.compile("(display)?math|(equation|eqnarray|(fl|x)?align(at)?|gather|multline|dmath)[*]?|split|aligned")
"""Environments that are formulas."""
_XSPACE_NONE = re.compile(r"[,.'/?;:!~)\-{}]|\\[ /]|\\(?:footnote|footnotemark|space|xspace)$|^$")
"""What stands behind \\xspace where it makes no space."""


_DISPLAYS = ("\\begin", "\\end", "\\item", "\\[", "$$", "\\par")
"""Commands before which a space means nothing."""


def expand_macros(text: str, metadata: dict[str, Any] | None = None) -> str:
    r"""Replace what a paper defines with \newcommand, \def, \let, \DeclareMathOperator ... by its definition, and drop these.

    Definitions hold from where they stand to the end, or to the next one: groups do not end them. Not expanded are commands of
    the document's structure, such as \section, and macros that are programs (with conditions, or with internal commands). A macro
    within its own expansion stays.

    Raises Dropped where macros make a paper several times longer, or nest too deeply.
    """
    text, hidden = hide_verbatim(text)
    expander = _Expander(_GROWTH * len(text) + _SMALL)
    return show_verbatim(join_tokens(expander.expand(tokenize_latex(text))), hidden)


class _Expander:
    def __init__(self, budget: int):
        self.macros: dict[str, Macro] = {}
        self.budget = budget
        self.formula = False
        """Whether what was read last stands in a formula, where spaces mean nothing and stay as they are."""

    def expand(self, tokens: list[str], *, active: frozenset[str] = frozenset(), depth: int = 0) -> list[str]:
        """Expand all of `tokens`; the macros in `active` are being expanded around them."""
        if depth > _DEEPEST:
            raise Dropped("macros that nest too deeply")
        reader = LatexReader(tokens)
        out: list[str] = []
        position = 0
        while position < len(tokens):
            token = tokens[position]
            position += 1
            if token in self.macros and not isinstance(token, FrozenToken):
                if token in active:
                    out.append(FrozenToken(token))
                else:
                    position = self._call(token, position, reader=reader, out=out, active=active, depth=depth)
            elif token in DEFINITIONS and (definition := read_definition(token, position, reader=reader)):
                self._define(definition)
                position = _close_gap(out, definition.end, reader=reader)
            elif token == "\\xspace":
                position = self._xspace(position, reader=reader, out=out, depth=depth)
            else:
                self._watch_formulas(token, position, reader=reader)
                out.append(token)
        return out

    def _watch_formulas(self, token: str, position: int, *, reader: LatexReader) -> None:
        if token in ("$", "$$"):
            self.formula = not self.formula
        elif token in ("\\(", "\\[", "\\)", "\\]"):
            self.formula = token in ("\\(", "\\[")
        elif token in ("\\begin", "\\end") and reader.closing.get(position, position + 9) < position + 5:
            if _FORMULAS.fullmatch("".join(reader.tokens[position + 1:reader.closing[position]])):
                self.formula = token == "\\begin"
        elif token.count("\n") > 1 and token.isspace():
            self.formula = False

    def _call(self, name: str, position: int, *, reader: LatexReader, out: list[str], active: frozenset[str], depth: int) -> int:
        """Put the expansion of a macro into `out`, or its name where its arguments are not there; returns where to go on."""
        macro = self.macros[name]
        found = _arguments(macro, position, reader=reader)
        if found is None:
            out.append(name)
            return position
        arguments, end = found
        formula, self.formula = self.formula, self.formula or "\\ensuremath" in macro.body
        arguments = [self.expand(argument, active=active, depth=depth + 1) for argument in arguments]
        self.formula = formula
        self.budget -= len(name) + _size(macro.body, arguments)
        if self.budget < 0:
            raise Dropped("macros that grow without end")
        body = _filled(macro.body, arguments)
        result = self.expand(body, active=active | {name}, depth=depth + 1)
        out += result
        last = out[-1] if result else ""
        if last == "\\xspace" or (last in self.macros and not isinstance(last, FrozenToken)):
            reader.tokens[end - 1] = out.pop()  # what follows decides, or its arguments follow
            return end - 1
        if end == position and is_word(name):
            end = self._after_name(out, end, reader=reader)
        return end if result else _close_gap(out, end, reader=reader)

    def _after_name(self, out: list[str], position: int, *, reader: LatexReader) -> int:
        r"""What TeX makes of the spaces that end the name of a macro without arguments, and what authors do against it.

        TeX drops the spaces; "\name\ " (or at the end of a line) and "\name{}" become what they print. Returns where to go on.
        """
        after = reader.skip_spaces(position)
        last = out[-1] if out else ""
        if self.formula or is_word(last) or _ends_environment(out) or reader.at(after) in _DISPLAYS:
            return position
        if reader.at(position) in ("\\ ", "\\\n"):
            reader.tokens[position] = reader.at(position)[1]
            return position
        return position + 2 if reader.closing.get(position) == position + 1 else after

    def _xspace(self, position: int, *, reader: LatexReader, out: list[str], depth: int) -> int:
        r"""\xspace: a space, unless what follows makes it needless. At the end of a macro or argument, that is not known yet."""
        if position == len(reader.tokens) and depth:
            out.append("\\xspace")
            return position
        after = reader.skip_spaces(position)
        following = reader.at(after)
        if self.formula or _XSPACE_NONE.match(following) or following.isspace():
            return self._after_name(out, position, reader=reader)
        out.append(" ")
        return after

    def _define(self, definition: Definition) -> None:
        name, meaning = definition.name, definition.meaning
        if name in _STRUCTURE or (definition.only_new and name in self.macros):
            return
        before = self.macros.pop(name, None)
        if isinstance(meaning, str):
            known = before if meaning == name else self.macros.get(meaning)
            meaning = known or Macro([FrozenToken(meaning)])
        if meaning and not is_program(meaning):
            self.macros[name] = meaning


def _arguments(macro: Macro, position: int, *, reader: LatexReader) -> tuple[list[list[str]], int] | None:
    """The arguments of a call and the position after them; None where they are not there."""
    found = []
    if macro.default is not None:
        given = reader.optional(position)
        value, position = given or (list(macro.default), position)
        found.append(value)
    start = list(macro.delimiters[0]) if macro.delimiters else []
    if macro.delimiters:
        position = reader.skip_spaces(position)
    if start:
        before = reader.until(start, position)
        if not before or before[0]:
            return None
        position = before[1]
    for number in range(len(found), macro.arguments):
        end = list(macro.delimiters[number + 1]) if macro.delimiters else []
        taken = reader.until(end, position) if end else reader.argument(position)
        if not taken:
            return None
        found.append(taken[0])
        position = taken[1]
    return found, position


def _filled(body: list[str], arguments: list[list[str]]) -> list[str]:
    """The body with its arguments in it."""
    filled: list[str] = []
    for token in body:
        if number := _parameter(token):
            filled += arguments[number - 1] if number <= len(arguments) else []
        else:
            filled.append(token)
    return filled


def _size(body: list[str], arguments: list[list[str]]) -> int:
    """Characters of `_filled`, before it is made."""
    sizes = [sum(map(len, argument)) for argument in arguments]
    return sum(sizes[number - 1] if 0 < number <= len(sizes) else len(token) for token in body for number in (_parameter(token),))


def _parameter(token: str) -> int:
    """The number of a parameter (#1), 0 for other tokens."""
    return int(token[1]) if len(token) == 2 and token[0] == "#" else 0


def _ends_environment(tokens: list[str]) -> bool:
    r"""Whether the last tokens are \begin{...} or \end{...}."""
    last = tokens[-8:]
    return last[-1:] == ["}"] and any(token == "{" and before in ("\\begin", "\\end") for before, token in pairwise(last))


def _close_gap(out: list[str], position: int, *, reader: LatexReader) -> int:
    """After something that leaves nothing: skip white space that would be a second one, or an empty line that was none."""
    if is_space(reader.tokens, position) and (not out or out[-1].isspace()):
        return position + 1
    return position
