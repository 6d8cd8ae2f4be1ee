r"""LaTeX source as tokens that join to the source again, and the arguments of commands among them."""

import re

LONGEST_SEARCH = 5_000
"""Tokens within which an optional or delimited argument must end."""
_TOKEN = r"\\(?:[A-Za-z%s]+|[\s\S]|$)|#[1-9]|\$\$|\s+|[^\W_]+|\x01\d+\x02|[\s\S]"
_PLAIN = re.compile(_TOKEN % "")
_INTERNAL = re.compile(_TOKEN % "@")


_MOST_SEARCHES = 100
"""Searches that may find nothing; then none finds anything, so that hostile sources end, too."""


class FrozenToken(str):
    """A command that is not expanded (again), whatever it is defined as."""

    __slots__ = ()


def tokenize_latex(text: str) -> list[str]:
    r"""Split into commands, white space, words, parameters (#1) and single characters; @ is a letter after \makeatletter."""
    tokens: list[str] = []
    pattern = _PLAIN
    for part in re.split(r"(\\makeat(?:letter|other)(?![A-Za-z]))", text):
        tokens += pattern.findall(part)
        pattern = {"\\makeatletter": _INTERNAL, "\\makeatother": _PLAIN}.get(part, pattern)
    return tokens


def join_tokens(tokens: list[str]) -> str:
    """The source again, with a space between a command and a letter that came to stand behind it."""
    parts = []
    before = ""
    for token in tokens:
        if _is_letter(token[0]) and is_word(before):
            parts.append(" ")
        parts.append(token)
        before = token
    return "".join(parts)


def is_word(token: str) -> bool:
    r"""Whether a token is a command of letters (\alpha, not \,), which takes the spaces after it with it."""
    return len(token) > 1 and token[0] == "\\" and (_is_letter(token[1]) or (token[1] == "@" and len(token) > 2))


def _is_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def is_space(tokens: list[str], position: int) -> bool:
    """Whether there is white space at `position` that does not end a paragraph."""
    return position < len(tokens) and tokens[position].isspace() and tokens[position].count("\n") < 2


class LatexReader:
    """Reads the arguments that follow a position in a list of tokens, in time that does not depend on the length of the list.

    A word of which an argument takes the first letter is shortened in the list.
    """

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self._searches = _MOST_SEARCHES
        self.closing: dict[int, int] = {}
        """Position of every { that is closed -> position of its }."""
        opened = []
        for position, token in enumerate(tokens):
            if token == "{":
                opened.append(position)
            elif token == "}" and opened:
                self.closing[opened.pop()] = position

    def skip_spaces(self, position: int) -> int:
        """The position after white space, but not after the end of a paragraph."""
        return position + is_space(self.tokens, position)

    def at(self, position: int) -> str:
        """The token at `position`, "" at the end."""
        return self.tokens[position] if position < len(self.tokens) else ""

    def argument(self, position: int) -> tuple[list[str], int] | None:
        """An argument, in braces or of one token, and the position after it; None where there is none."""
        position = self.skip_spaces(position)
        token = self.at(position)
        if not token or token == "}" or token.isspace():
            return None
        if token == "{":
            end = self.closing.get(position)
            return None if end is None else (self.tokens[position + 1:end], end + 1)
        if len(token) > 1 and token[0].isalnum():
            self.tokens[position] = token[1:]
            return [token[0]], position
        return [token], position + 1

    def optional(self, position: int) -> tuple[list[str], int] | None:
        """An argument in brackets and the position after it; None where there is none."""
        start = self.skip_spaces(position)
        return self.until(["]"], start + 1) if self.at(start) == "[" else None

    def until(self, end: list[str], position: int) -> tuple[list[str], int] | None:
        """The tokens before `end`, without braces around all of them, and the position after `end`; None where `end` is not."""
        start = position
        last = min(len(self.tokens) - len(end) + 1, start + LONGEST_SEARCH) if self._searches else start
        while position < last:
            if _same(self.tokens[position], end[0]) and all(map(_same, self.tokens[position:position + len(end)], end)):
                found = self.tokens[start:position]
                braced = self.closing.get(start) == position - 1 and position - start > 1
                return (found[1:-1] if braced else found), position + len(end)
            if self.tokens[position] == "}":
                return None
            position = self.closing.get(position, position) + 1
        self._searches -= self._searches > 0
        return None


def _same(token: str, other: str) -> bool:
    """Whether two tokens are the same for TeX, to which all white space is."""
    return token == other or (token.isspace() and other.isspace())
