r"""Papers of arXiv as LaTeX (paper, section 2.1, after Lewkowycz et al. 2022): no comments, nothing before the first section, no
bibliography, and macros expanded."""

import re
from typing import Any

from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexWalkerParseError

from llama_jax.clean.items import Dropped
from llama_jax.clean.latex_macros import expand_macros
from llama_jax.clean.latex_verbatim import hide_verbatim, remove_comments, show_verbatim
from llama_jax.clean.papers import read_papers
from llama_jax.clean.stages import Stage, Workplace

_SECTION = re.compile(r"\\(?:part|chapter|section)\*?\s*[\[{]")
_TITLE = re.compile(r"\\title\s*(?:\[[^\[\]]*\])?\s*\{")
_LONGEST_TITLE = 500
_BIBLIOGRAPHY = "thebibliography|references|REFERENCES|bibdiv|biblist"
_BIBLIOGRAPHY_PARTS = (
    rf"\\begin\s*\{{({_BIBLIOGRAPHY})\}}[\s\S]*?(?:\\end\s*\{{\1\}}|\Z)"
    r"|\\(?:bibliography|bibliographystyle|nobibliography\*?|nocite)\s*\{[^{}]*\}"
    r"|\\(?:printbibliography|putbib)(?![A-Za-z])(?:\s*\[[^\[\]]*\])?")
_BIBLIOGRAPHY_HEADING = r"\\(?:chapter|section)\*?\s*\{\s*(?:References|Bibliography)\s*\}\s*(?=\0)"


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean papers."""
    return [place.stage("papers", place.read(read_papers), place.edit("comments", remove_comments),
                        place.edit("macros", expand_macros), place.edit("body", keep_body), place.write())]


def keep_body(text: str, metadata: dict[str, Any]) -> str:
    r"""Keep what is from the first \part, \chapter or \section on, without bibliography; white space is made uniform.

    Appendices stay, also behind the bibliography: the paper removes the bibliography, and they are text. The title goes to the
    metadata. Raises Dropped for a paper without sections.
    """
    text, hidden = hide_verbatim(text)
    start = re.search(r"\\begin\s*\{document\}", text)
    metadata["title"] = _title_of(text)
    body = text[start.end() if start else 0:]
    body = re.split(r"\\end\s*\{document\}", body, maxsplit=1)[0]
    body = re.sub(_BIBLIOGRAPHY_PARTS, "\0", body)
    body = re.sub(_BIBLIOGRAPHY_HEADING, "", body).replace("\0", "")
    section = _SECTION.search(body)
    if not section:
        raise Dropped("no section")
    body = "\n".join(line.rstrip() for line in body[section.start():].split("\n"))
    return show_verbatim(re.sub(r"\n{3,}", "\n\n", body).strip(), hidden)


def _title_of(text: str) -> str:
    r"""The argument of \title as plain text, "" where it is none."""
    found = _TITLE.search(text)
    if not found:
        return ""
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[found.end():found.end() + _LONGEST_TITLE]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            return _plain_text(text[found.end():found.end() + brace.start()])
    return ""


def _plain_text(latex: str) -> str:
    """A few words of LaTeX as plain text, "" for what pylatexenc does not understand."""
    try:
        return " ".join(LatexNodes2Text().latex_to_text(latex).split())
    except (ValueError, RecursionError, LatexWalkerParseError):
        return ""
