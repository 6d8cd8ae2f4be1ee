r"""What TeX does not read as TeX: comments, and text to the letter such as \verb|%| and listings."""

import re
from collections.abc import Iterator
from typing import Any

_LISTINGS = r"verbatim\*?|[BLS]?Verbatim\*?|lstlisting\*?|minted\*?|pyverbatim|tcblisting"
_UNREAD = r"comment|filecontents\*?"
"""Environments that are no part of the text: remarks, and files that the paper writes."""
_LONGEST_LINE = 2_000
"""Characters in which \\verb|...| must end."""
_SPECIAL = re.compile(
    rf"\\begin\s*\{{(?P<name>{_LISTINGS}|{_UNREAD})\}}"
    r"|\\(?:verb\*?|lstinline(?:\[[^\]\n]{0,200}\])?|mintinline(?:\[[^\]\n]{0,200}\])?\{\w{0,30}\})(?P<mark>[^\sA-Za-z*])"
    r"|\\(?:url|nolinkurl|path|href)\s*\{[^{}\n]*\}"  # where % is a character of the address
    r"|\\[\s\S]"
    r"|(?P<comment>%[^\n]*)")


def split_latex(text: str) -> Iterator[tuple[str, str]]:
    """The pieces of a source in order, each "text", "verbatim" or "comment"; joined, they are the source.

    A comment is a % and the rest of its line, without its end, or one of the environments `comment` and `filecontents`.
    """
    begin, position = 0, 0
    absent: set[str] = set()  # ends that are not there, so that no search for them is repeated
    while match := _SPECIAL.search(text, position):
        position = match.end()
        kind, end = "", position
        if match["comment"]:
            kind = "comment"
        elif (name := match["name"]) and name not in absent:
            end = text.find(f"\\end{{{name}}}", position)
            kind = "comment" if re.fullmatch(_UNREAD, name) else "verbatim"
            if end < 0:
                absent.add(name)
                continue
            end += len(name) + 6
        elif mark := match["mark"]:
            end = text.find("}" if mark == "{" else mark, position, position + _LONGEST_LINE) + 1
            if not end or "\n" in text[position:end]:
                continue
            kind = "verbatim"
        if kind:
            yield "text", text[begin:match.start()]
            yield kind, text[match.start():end]
            begin = position = end
    yield "text", text[begin:]


def hide_verbatim(text: str) -> tuple[str, list[str]]:
    """Put a placeholder in the place of every verbatim piece; returns the text and the pieces. Comments stay."""
    kept, hidden = [], []
    for kind, piece in split_latex(text):
        if kind == "verbatim":
            kept.append(f"\x01{len(hidden)}\x02")
            hidden.append(piece)
        else:
            kept.append(piece)
    return "".join(kept), hidden


def show_verbatim(text: str, hidden: list[str]) -> str:
    """Undo `hide_verbatim`."""
    return re.sub(r"\x01(\d+)\x02", lambda match: hidden[int(match[1])], text)


def remove_comments(text: str, metadata: dict[str, Any] | None = None) -> str:
    r"""Remove % comments, the environments `comment` and `filecontents`, and what \iffalse ... \fi encloses.

    As in TeX, a comment takes the end of its line and the spaces that begin the next line with it, unless that line is empty; a
    line that holds a comment alone goes as a whole. `\%`, `\verb|%|`, listings and addresses in \url keep theirs.
    """
    marked = "".join("\0" if kind == "comment" else piece for kind, piece in split_latex(text))
    marked, hidden = hide_verbatim(marked)
    marked = re.sub(r"(?m)^[ \t]*\0(?:[ \t]*\0)*[ \t]*(?:\n|\Z)", "", marked)
    marked = re.sub(r"\0\n(?![ \t]*\n)[ \t]*", "", marked)
    return show_verbatim(_remove_false(marked.replace("\0", "")), hidden)


_CONDITION = re.compile(r"\\(?:(?P<word>iffalse|if[A-Za-z@]*|else|fi)(?![A-Za-z@])|[\s\S])")
_NO_CONDITION = re.compile(r"iff|ifthenelse|iftoggle|ifbool|ifdef.+|ifstr.+|ifnum.+|ifempty|ifblank")
"""Commands whose name begins like a condition's and that no \fi ends."""


def _remove_false(text: str) -> str:
    r"""Remove \iffalse ... \fi, and of \iffalse ... \else ... \fi all but what is after \else."""
    kept, begin = [], 0
    depth = 0  # conditions open since \iffalse, itself among them
    alternative = 0  # where the text after its \else begins
    for match in _CONDITION.finditer(text):
        word = match["word"]
        if not word or _NO_CONDITION.fullmatch(word):
            continue
        if not depth:
            if word == "iffalse":
                depth, start, alternative = 1, match.start(), 0
        elif word == "fi":
            depth -= 1
            if not depth:
                kept += [text[begin:start], text[alternative:match.start()] if alternative else ""]
                begin = match.end()
                if not alternative and text[start - 1:start] == "\n" and text.startswith("\n", begin):
                    begin += 1  # it stood on lines of its own
        elif word == "else":
            alternative = match.end() if depth == 1 else alternative
        else:
            depth += 1
    return "".join(kept) + text[begin:]
