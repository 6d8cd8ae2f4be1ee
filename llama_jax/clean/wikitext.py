"""Wikitext as plain prose: no links, templates, tables, references, comments and formatting (paper, section 2.1).

What is large and never prose is cut before mwparserfromhell parses the rest, which makes it five times faster.
"""

import re
from collections.abc import Callable
from typing import Any

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

from llama_jax.clean.items import Dropped
from llama_jax.clean.wiki_templates import COMPUTED, is_inline, superscript, template_text
from llama_jax.clean.wiki_words import ALL_SECTIONS, CATEGORIES, DISAMBIGUATION, FILES, SECTIONS

_REDIRECT = re.compile(r"\s*#\w+\s*:?\s*\[\[")
_DISAMBIGUATION = re.compile(r"\{\{\s*(?:" + DISAMBIGUATION + r")\s*[|}]|__DISAMBIG__", re.IGNORECASE)
_VERBATIM_TAGS = "math|nowiki|pre|syntaxhighlight|source|chem|ce"
_DROPPED_TAGS = ("gallery|timeline|score|imagemap|graph|mapframe|maplink|hiero|categorytree|inputbox|indicator|section|references"
                 "|templatestyles|templatedata|style|script|table|ref")
_CODE_BLOCKS = ("pre", "syntaxhighlight", "source")
_INLINE_CODE = re.compile(r"\binline\b|\benclose\s*=\s*[\"']?none\b", re.IGNORECASE)
_PAIRED = re.compile(rf"<(/?)({_VERBATIM_TAGS}|{_DROPPED_TAGS})(?=[\s/>])([^<>]*)>", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TABLE = re.compile(r"^[ \t:*#]*\{\|(?!\|)|^[ \t]*\|\}(?!\})", re.MULTILINE)
_ARGUMENT = re.compile(r"\{\{\{[^{}]*\}\}\}")
_SIMPLE_LINK = re.compile(r"\[\[([^\[\]{}|<>]*)(?:\|([^\[\]{}|]*))?\]\]")
_EXTERNAL = re.compile(r"\[(?:(?:https?|ftps?|irc|gopher)://|//|mailto:|news:)[^\s\[\]]*([^\[\]\n]*)\]", re.IGNORECASE)
_URL = re.compile(r"(?:https?|ftp)://[^\s\[\]{}|<>\"]+", re.IGNORECASE)
_TITLE = re.compile(r"^(={1,6})(.{1,500}?)={1,6}[ \t]*$", re.MULTILINE)
_ITEM = re.compile(r"^[*#:;]+[ \t]*|^-{4,}", re.MULTILINE)
_INTERLANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*|simple")
_BLOCK_TAG = re.compile(r"</?(?:br|hr|p|div|center|blockquote|poem|li|ul|ol|dl|dt|dd|tr|h[1-6])(?![\w-])[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][\w-]*(?:\s[^<>]*|/)?>", re.IGNORECASE)
_RAISED = re.compile(r"<sup(?:\s[^<>]*)?>([-+−0-9]+)</sup\s*>", re.IGNORECASE)

_QUOTES = re.compile(r"'{2,}")
_SWITCH = re.compile(r"__[A-ZÀ-ÞА-Я]{3,}__")
_STRAY = re.compile(r"\[\[|\]\]|\{\{|\}\}")
_BRACKETS = re.compile(r"[\[\]{}]{2,}")
_MARKED = str.maketrans("\6\7\16", "<[:")
_MASK = re.compile("\2(\\d+)\3")
_HEADING = re.compile("\4(\\d)(.*)")
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\xad\u200b\u200e\u200f\ufeff]")
_TIDY = [(re.compile(pattern, re.MULTILINE), text) for pattern, text in [
    (rf" ?\([^()\n]*{COMPUTED}[^()\n]*\)|{COMPUTED}", ""),
    (r"[^\S\n]{2,}|[^\S\n ]", " "),
    (r" ?\( ?(?:[,;:/·–-] ?)*\)", ""),  # what templates leave between parentheses: "( ; )", "(; from Greek)", "(Greek: ,)"
    (r"\( ?(?:[,;:] ?)+", "("),
    (r"[,;](?: ?[,;]){0,9} ?\)", ")"),
    (r"([,;])(?: [,;])+", r"\1"),
    (r": ?(?=[,;)])", ""),
    (r"(?<=[(\[]) ", ""),
    (r" (?=[)\]])", ""),
    (r"^ ?[- ]*- ", "- "),
    (r"^ ?(- |)[,.;:] ", r"\1"),
    (r" +([,.])(?=\s|$)", r"\1"),
    (r"(?<=.)\x04\d", ""),  # a heading within a template is no heading
]]


def wikitext_to_prose(text: str, metadata: dict[str, Any]) -> str:
    """An article as its title and paragraphs; headings are lines of their own, items of lists begin with "- ".

    Formulas stay as LaTeX between dollar signs, code stays. Sections of references and links are removed by their names in the
    article's language (metadata "language"), and so are sections without text.

    Raises Dropped for redirects, disambiguation pages, and pages without prose.
    """
    language = metadata.get("language", "")
    if _REDIRECT.match(text):
        raise Dropped("redirect")
    if _DISAMBIGUATION.search(text):
        raise Dropped("disambiguation page")
    text, verbatim = _set_aside(_COMMENT.sub("", _CONTROL.sub("", text)))
    text = _without_tables(text)
    text = _cut(_ARGUMENT.sub("", text), "{}", keep=lambda inner: _is_shown_template(inner, language))
    text = _without_simple_markup(_cut(text, "[]", keep=_is_shown_link))
    text = _plain(mwparserfromhell.parse(text, skip_style_tags=True), language).translate(_MARKED)
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    text = _BRACKETS.sub(lambda match: "" if _STRAY.search(match[0]) else match[0], text)
    body = "\n".join(_lines(text.split("\n"), SECTIONS.get(language, ALL_SECTIONS)))
    body = re.sub(r"\n{3,}", "\n\n", _MASK.sub(lambda match: verbatim[int(match[1])], body)).strip()
    if not body:
        raise Dropped("no prose")
    return f"{metadata['title']}\n\n{body}" if metadata.get("title") else body


def _set_aside(text: str) -> tuple[str, list[str]]:
    """Remove references, pictures and the like with all that is in them, and put formulas and code, which are no wikitext, into a
    list, with a mark and their number in their place."""
    opened: dict[str, re.Match[str]] = {}
    elements = []
    for match in _PAIRED.finditer(text):
        name = match[2].lower()
        if match[3].endswith("/"):
            elements.append((*match.span(), name, ""))
        elif not match[1]:
            opened[name] = match
        elif opening := opened.pop(name, None):
            content = text[opening.end():match.start()]
            if name in _CODE_BLOCKS and not _INLINE_CODE.search(opening[3]):
                content = "\n" + content.strip("\n") + "\n"
            elements.append((opening.start(), match.end(), name, content))
    pieces, last, verbatim = [], 0, []
    for begin, end, name, content in sorted(elements):
        if begin >= last:  # not within another
            pieces.append(text[last:begin])
            last = end
            if re.fullmatch(_VERBATIM_TAGS, name):
                pieces.append(f"\2{len(verbatim)}\3")
                verbatim.append(_formula(content) if name == "math" else content)
    return "".join(pieces) + text[last:], verbatim


def _formula(content: str) -> str:
    # two braces are no template; in formulas a space between them means nothing
    return "$" + re.sub(r"([{}])(?=\1)", r"\1 ", " ".join(content.split())) + "$"


def _without_tables(text: str) -> str:
    """Remove tables, with those within; one that is never closed ends with the text."""
    pieces, begin, depth = [], 0, 0
    for match in _TABLE.finditer(text):
        if match[0].endswith("{|"):
            if not depth:
                pieces.append(text[begin:match.start()])
            depth += 1
        elif depth:
            depth -= 1
            begin = match.end()
    return "".join(pieces) + ("" if depth else text[begin:])


def _without_simple_markup(text: str) -> str:
    """Links without markup in them, tags, headings and lists as they are shown; other signs "<", "[" and ":" become marks.

    mwparserfromhell gets what is nested: templates, and links around them. It is slow, and takes hours for a page of tags, links
    or lists that nobody closed.
    """
    text = _SIMPLE_LINK.sub(lambda match: _shown_of_link(match[1], match[2] or ""), text)
    text = _URL.sub("", _EXTERNAL.sub(lambda match: match[1].strip(), text))
    text = _RAISED.sub(lambda match: superscript(match[1]), _SWITCH.sub("", text))
    text = _TAG.sub("", _BLOCK_TAG.sub("\n", text))
    text = _TITLE.sub(lambda match: f"\n\4{len(match[1])}{match[2].strip(' =')}\n", text)
    text = _ITEM.sub(lambda match: "- " if match[0].rstrip()[-1] in "*#" else "", text)
    return re.sub(r"(?<!\[)\[(?!\[)", "\7", text.replace("<", "\6").replace(":", "\16"))


def _cut(text: str, brackets: str, *, keep: Callable[[str], bool]) -> str:
    """Remove what stands between double brackets, unless `keep` of it, and double brackets without a partner."""
    opening, closing = re.escape(brackets[0] * 2), re.escape(brackets[1] * 2)
    one = re.escape(brackets[1])
    pairs, opened, cuts = [], [], []
    for match in re.finditer(f"{opening}|{closing}(?={closing}|(?!{one}))", text):  # of three that close, the last two
        if match[0] == brackets[0] * 2:
            opened.append(match.start())
        elif opened:
            pairs.append((opened.pop(), match.end()))
        else:
            cuts.append((match.start(), match.end()))
    cuts += [(begin, begin + 2) for begin in opened]
    end_of_last = 0
    for begin, end in sorted(pairs):
        if begin >= end_of_last:  # not within another
            end_of_last = end
            if not keep(text[begin + 2:end - 2]):
                cuts.append((begin, end))
    pieces, last = [], 0
    for begin, end in sorted(cuts):
        if begin >= last:
            pieces.append(text[last:begin])
            last = end
    return "".join(pieces) + text[last:]


def _template_name(inner: str) -> str:
    return inner.partition("|")[0].strip().replace("_", " ").lower()


def _is_shown_template(inner: str, language: str) -> bool:
    name = _template_name(inner)
    return is_inline(name, language) or name.startswith("formatnum:")


def _is_shown_link(inner: str) -> bool:
    """Whether a link is part of the text: no picture, category, or link to the same article in another language."""
    target, label, _ = inner.partition("|")
    namespace, colon, _ = target.strip().partition(":")
    if not colon or not namespace:
        return True
    name = namespace.strip().lower()
    return name not in FILES and name not in CATEGORIES and bool(label or not _INTERLANGUAGE.fullmatch(namespace))


def _plain(code: Wikicode | str | None, language: str) -> str:
    """The text of parsed wikitext."""
    if code is None:
        return ""
    return "".join([_plain_node(node, language) for node in code.nodes])


def _plain_node(node: nodes.Node, language: str) -> str:
    if isinstance(node, nodes.Text):
        return _STRAY.sub("", _QUOTES.sub(lambda match: "'" if len(match[0]) == 4 else "", node.value))
    if isinstance(node, nodes.Wikilink):
        return _link(node, language)
    if isinstance(node, nodes.HTMLEntity):
        return _CONTROL.sub("", node.normalize())
    if isinstance(node, nodes.Template):
        name = _template_name(_plain(node.name, language).translate(_MARKED))
        if name.startswith("formatnum:"):
            return name.removeprefix("formatnum:")
        arguments = {str(parameter.name).strip().lower(): _plain(parameter.value, language).strip() for parameter in node.params}
        return template_text(name, arguments, language=language)
    return str(node)


def _link(node: nodes.Wikilink, language: str) -> str:
    if not _is_shown_link(f"{node.title}|" if node.text is not None else str(node.title)):
        return ""
    return _shown_of_link(_plain(node.title, language), _plain(node.text, language))


def _shown_of_link(title: str, label: str) -> str:
    return label or title.strip().lstrip(":#").replace("_", " ")


def _lines(lines: list[str], unwanted: frozenset[str]) -> list[str]:
    """Lines with words, without unwanted sections and headings that have no text below them."""
    kept: list[str] = []
    headings: list[tuple[int, str]] = []
    removed = 9  # level of the heading whose section is removed
    for line in map(str.strip, lines):
        if match := _HEADING.match(line):
            level, title = int(match[1]), match[2].strip()
            if level > removed:
                continue
            removed = level if title.lower().strip(" :.") in unwanted else 9
            headings = [heading for heading in headings if heading[0] < level]
            if removed == 9 and title:
                headings.append((level, title))
        elif removed < 9 or (line and not re.search(r"[^\W_]", line)) or line.startswith(("|", "{|", "!!")):
            continue
        elif not line:
            kept.append("")
        else:
            for _, title in headings:
                kept += ["", title, ""]
            headings = []
            kept.append(line)
    return kept
