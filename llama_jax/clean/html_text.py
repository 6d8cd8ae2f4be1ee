"""Plain text of the HTML that Stack Exchange makes of its posts: the layout stays readable, and no tag stays."""

import re
from collections.abc import Callable
from typing import Any

from lxml import etree

from llama_jax.clean.items import Dropped

_BREAK = "\0"
"""Stands for <br> while spaces and line ends are made one; HTML cannot hold it."""
_GROUPS = {"html", "head", "body", "div", "p", "section", "article", "header", "footer", "main", "center", "figure", "figcaption",
           "details", "summary", "dl", "dt", "dd", "li", "form", "fieldset"}
"""Elements that only begin and end a paragraph."""
_UNSEEN = {"script", "style", "title", "template"}
_NO_DESCRIPTION = {"", "enter image description here", "alt text", "image"}
"""What the editor of Stack Exchange writes where nobody described an image."""


def html_to_text(html: str, metadata: dict[str, Any] | None = None) -> str:
    r"""The text of a post. Paragraphs are separated by empty lines; code, lists, quotes and headings look as in Markdown.

    Code blocks are fenced by ```, and inline code stands in backticks, both to the letter (`<` too). A link is its text, followed
    by the address in parentheses where that says more. An image is its description, if it has one. Superscripts get ^, struck
    text ~~; other emphasis is dropped.

    Raises Dropped for HTML nested more than 256 levels deep.
    """
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    root = etree.fromstring(b"<div>" + html.encode(errors="replace") + b"</div>", parser)
    if any(error.type_name == "ERR_RESOURCE_LIMIT" for error in parser.error_log):
        raise Dropped("nested too deeply")
    return "\n\n".join(_blocks(root))


def _blocks(element: etree._Element) -> list[str]:
    """The paragraphs, lists, code blocks ... inside an element."""
    blocks: list[str] = []
    line = [element.text or ""]

    def end_paragraph() -> None:
        if text := _one_line("".join(line)):
            blocks.append(text)
        line.clear()

    for child in element:
        if child.tag in _GROUPS or child.tag in _BLOCKS:
            end_paragraph()
            blocks += _BLOCKS.get(child.tag, _blocks)(child)
        else:
            line.append(_inline(child))
        line.append(child.tail or "")
    end_paragraph()
    return blocks


def _one_line(text: str) -> str:
    """Make one space of white space, and line ends of <br>."""
    return "\n".join(" ".join(line.split()) for line in text.split(_BREAK)).strip()


def _inline(element: etree._Element) -> str:
    """An element within a line."""
    tag = element.tag
    if tag in _UNSEEN:
        return ""
    if tag == "br":
        return _BREAK
    if tag == "img":
        description = _one_line(element.get("alt", ""))
        return "" if description.lower() in _NO_DESCRIPTION else f"[image: {description}]"
    text = (element.text or "") + "".join(_inline(child) + (child.tail or "") for child in element)
    if not text.strip():
        return text
    if tag == "code":
        fence = "``" if "`" in text else "`"
        return fence + text + fence
    if tag == "a":
        return text + _address(element, _one_line(text))
    if tag == "sup" and len("".join(element.itertext()).split()) == 1:
        return f"^{text}"  # 10^6 is not 106; several words are small print
    if tag in ("s", "strike", "del"):
        return f"~~{text}~~"
    return text


def _address(link: etree._Element, text: str) -> str:
    """" (address)" of a link, or nothing where its text is the address, or where it leads to a place on the site."""
    address = link.get("href", "").strip()
    if "://" not in address or "post-tag" in link.get("class", ""):
        return ""
    shown = text.partition("://")[2] or text
    return "" if shown.rstrip("/") == address.partition("://")[2].rstrip("/") else f" ({address})"


def _code_block(element: etree._Element) -> list[str]:
    code = "".join(element.itertext()).strip("\r\n").rstrip()
    longest = max(map(len, re.findall("`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}\n{code}\n{fence}"] if code else []


def _listing(element: etree._Element) -> list[str]:
    """A list as one block; what is inside an item is indented below its marker."""
    first = element.get("start", "1")
    number = int(first) if first.isdecimal() and len(first) < 10 else 1
    loose = any(child.find("p") is not None or child.find("pre") is not None for child in element)
    items = []
    for child in element:
        is_item = child.tag == "li"
        marker = f"{number}. " if element.tag == "ol" else "- "
        number += is_item
        text = ("\n\n" if loose else "\n").join(_blocks(child) if is_item else _BLOCKS.get(child.tag, _blocks)(child))
        if text:
            indented = text.replace("\n", "\n" + " " * len(marker))
            items.append((marker if is_item else " " * len(marker)) + re.sub(r"(?m)^ +$", "", indented))
    return [("\n\n" if loose else "\n").join(items)] if items else []


def _quote(element: etree._Element) -> list[str]:
    text = "\n\n".join(_blocks(element))
    return [re.sub("(?m)^> $", ">", re.sub("(?m)^", "> ", text))] if text else []


def _table(element: etree._Element) -> list[str]:
    """A line per row, its cells separated by |."""
    rows = ([_one_line(_inline(cell)) for cell in row.iter("td", "th")] for row in element.iter("tr"))
    lines = [" | ".join(cells) for cells in rows if any(cells)]
    return ["\n".join(lines)] if lines else []


def _heading(element: etree._Element) -> list[str]:
    text = " ".join(_blocks(element))
    return ["#" * int(element.tag[1]) + " " + text] if text else []


def _rule(element: etree._Element) -> list[str]:
    return ["---"]


_BLOCKS: dict[str, Callable[[etree._Element], list[str]]] = {
    "pre": _code_block, "ul": _listing, "ol": _listing, "blockquote": _quote, "table": _table, "hr": _rule,
    **{f"h{level}": _heading for level in range(1, 7)},
}
"""How the elements that are not text within a line look."""
