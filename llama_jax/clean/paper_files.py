r"""Joining the files of one paper's source as \input, \include and the like say."""

import posixpath
import re

from llama_jax.clean.items import Dropped
from llama_jax.clean.latex_verbatim import remove_comments, split_latex

LARGEST_TEXT = 8 << 20
"""Bytes of TeX of one paper, and characters of its joined files."""
_DEEPEST_INPUT = 20
_INPUT = re.compile(
    r"\\endinput(?![A-Za-z])"
    r"|\\(?:input|include|subfile|subfileinclude)(?![A-Za-z])\s*\{(?P<name>[^{}\n]{0,300})\}"
    r"|\\input\s+(?P<plain>[^\s{}\\]+)"
    r"|\\(?:sub)?(?:import|inputfrom|includefrom)\*?\s*\{(?P<folder>[^{}\n]{0,300})\}\s*\{(?P<file>[^{}\n]{0,300})\}")
_CLASS = re.compile(r"\\document(?:class|style)(?![A-Za-z])\s*(?:\[[^\]]{0,2000}\])?\s*\{\s*([^{}\s]*)")
_PART_CLASSES = ("standalone", "subfiles")
"""Document classes of figures and chapters that are papers only for whoever works on them."""


def join_paper(files: dict[str, str]) -> tuple[str, str, set[str]]:
    """The main file's name, the paper's text, and the files that are missing. Of several main files, the longest paper."""
    classes = {name: match[1] for name, text in files.items()
               if "\\document" in text and (match := _CLASS.search(remove_comments(text)))}
    names = [name for name, kind in classes.items() if kind not in _PART_CLASSES] or list(classes)
    if not names:
        raise Dropped("no \\documentclass" if files else "no TeX source")
    best = None
    for name in sorted(names):
        missing: set[str] = set()
        joined = _Joiner(files, missing).join(name, posixpath.dirname(name))
        if best is None or len(joined) > len(best[1]):
            best = name, joined, missing
    return best


class _Joiner:
    r"""Puts files in the place of \input and the like."""

    def __init__(self, files: dict[str, str], missing: set[str]):
        self._files, self._missing = files, missing
        self._open: list[str] = []
        self._left = LARGEST_TEXT

    def join(self, name: str, folder: str) -> str:
        """The text of a file with those that it reads; their names are relative to `folder`, else to the file's own."""
        text = self._files[name]
        if self._open:
            text = _part_of(text)
        self._left -= len(text)
        if self._left < 0:
            raise Dropped(f"more than {LARGEST_TEXT >> 20} MiB of TeX")
        self._open.append(name)
        parts = []
        for kind, piece in split_latex(text):
            end = None
            if kind == "text":
                begin = 0
                for match in _INPUT.finditer(piece):
                    parts.append(piece[begin:match.start()])
                    begin = match.end()
                    if match[0] == "\\endinput":
                        end = begin = len(piece)
                        break
                    parts.append(self._read(match, name, folder=folder))
                piece = piece[begin:]
            parts.append(piece)
            if end is not None:
                break
        self._open.pop()
        return "".join(parts)

    def _read(self, match: re.Match[str], reader: str, *, folder: str) -> str:
        wanted = (match["name"] or match["plain"] or match["file"] or "").strip()
        if "#" in wanted or "\\" in wanted or not wanted:
            return match[0]  # a part of a macro
        below = posixpath.join(folder, (match["folder"] or "").strip())
        for start in dict.fromkeys((below, posixpath.dirname(reader))):
            for path in (posixpath.join(start, wanted + ".tex"), posixpath.join(start, wanted)):
                found = posixpath.normpath(path)
                if found in self._files and found not in self._open and len(self._open) < _DEEPEST_INPUT:
                    return self.join(found, below)
        self._missing.add(wanted)
        return ""


def _part_of(text: str) -> str:
    r"""What a file adds where it is read: without a frame of its own (\begin{document}), and without a comment at its end."""
    document = re.search(r"\\begin\s*\{document\}([\s\S]*?)(?:\\end\s*\{document\}|\Z)", text)
    text = (document[1] if document else text).strip("\n").rstrip()
    return re.sub(r"(?<!\\)((?:\\\\)*)%[^\n]*\Z", r"\1", text)
