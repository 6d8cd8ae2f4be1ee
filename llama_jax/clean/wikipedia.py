"""Wikipedia (paper, section 2.1): articles of MediaWiki's XML dumps as plain prose, in the paper's twenty languages."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.parsers import expat

from llama_jax.clean.items import MAX_BYTES, DamagedInput, Dropped, RawDocument, open_raw
from llama_jax.clean.stages import Stage, Workplace
from llama_jax.clean.wikitext import wikitext_to_prose

WIKIPEDIA_LANGUAGES = ("bg", "ca", "cs", "da", "de", "en", "es", "fr", "hr", "hu", "it", "nl", "pl", "pt", "ro", "ru", "sl", "sr",
                       "sv", "uk")
"""The languages of the paper, by the names of their Wikipedias."""
LONGEST_PAGE = 10 << 20
"""Most characters of a page; MediaWiki itself takes no more than two million bytes."""
_BLOCK = 1 << 16
_DEEPEST = 50
"""Most elements within each other; a dump has five."""


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean dumps of Wikipedia."""
    languages = WIKIPEDIA_LANGUAGES if options.languages is None else options.languages
    language = place.edit("language", partial(keep_language, languages=languages))
    return [place.stage("wikipedia", place.read(read_wikipedia), language, place.edit("prose", wikitext_to_prose), place.write())]


def keep_language(text: str, metadata: dict[str, Any], *, languages: tuple[str, ...]) -> str:
    """Drop the pages of a dump in another language than `languages`, unless these are none."""
    if languages and metadata["language"] not in languages:
        raise Dropped(f"language {metadata['language'] or 'unknown'}")
    return text


def read_wikipedia(file: Path) -> Iterator[RawDocument | Dropped]:
    """Yield the articles of a dump as wikitext, the last revision of each, in memory that no dump can make grow.

    The metadata has `title`, `language`, `url` and `timestamp` (of the revision). Redirects and pages of other namespaces are
    Dropped.

    Raises:
        DamagedInput: what is no XML, ends early, or declares a document type: no dump does, and entities can make a file explode.
    """
    dump = _Dump(file.name)
    with open_raw(file) as stream:
        last = False
        while not last:
            block = stream.read1(_BLOCK)  # what there is before the place where a file is damaged
            last = not block
            damage = dump.feed(block)
            yield from dump.items
            dump.items.clear()
            if damage:
                raise DamagedInput(damage)


class _Dump:
    """What an XML parser has seen of a dump; `items` are the pages that are complete."""

    _WANTED = {"siteinfo/dbname", "siteinfo/base", "page/title", "page/ns", "page/id", "revision/text", "revision/timestamp",
               "revision/model"}

    def __init__(self, name: str):
        self.items: list[RawDocument | Dropped] = []
        self._name = name
        self._site: dict[str, str] = {}
        self._page: dict[str, str] = {}
        self._open: list[str] = []  # elements, the outermost first
        self._pieces: list[str] | None = None  # the text of the element that is open, if it is wanted
        self._length = self._fed = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data
        self._parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, block: bytes) -> str:
        """Parse the next bytes, or the end where there are none; returns what is wrong with them."""
        self._fed += len(block)
        try:
            self._parser.Parse(block, not block)
        except expat.ExpatError as error:
            return f"damaged XML: {error}"
        except DamagedInput as error:
            return str(error)
        return f"a tag of more than {MAX_BYTES >> 20} MiB" if self._fed - self._parser.CurrentByteIndex > MAX_BYTES else ""

    def _doctype(self, *_: Any) -> None:
        raise DamagedInput("it declares a document type")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        wanted = f"{self._open[-1]}/{tag}" in self._WANTED if self._open else False
        self._open.append(tag)
        if len(self._open) > _DEEPEST:
            raise DamagedInput(f"more than {_DEEPEST} elements within each other")
        self._pieces, self._length = ([] if wanted else None), 0
        if tag == "mediawiki":
            self._site["lang"] = attributes.get("xml:lang", "")
        elif tag == "page":
            self._page = {}
        elif tag == "redirect":
            self._page["redirect"] = "yes"

    def _data(self, text: str) -> None:
        if self._pieces is not None:
            self._length += len(text)
            if self._length <= LONGEST_PAGE:
                self._pieces.append(text)

    def _end(self, tag: str) -> None:
        self._open.pop()
        if self._pieces is not None:
            value = "".join(self._pieces)
            (self._page if "page" in self._open else self._site)[tag] = value  # a later revision replaces an earlier one
            if tag == "text":
                self._page["long"] = "yes" if self._length > LONGEST_PAGE else ""
        self._pieces = None
        if tag == "page":
            self.items.append(self._item())

    def _item(self) -> RawDocument | Dropped:
        page = self._page
        if page.get("ns", "0") != "0":
            return Dropped("not an article")
        if "redirect" in page:
            return Dropped("redirect")
        if page.get("model", "wikitext") != "wikitext":
            return Dropped("not wikitext")
        if page.get("long"):
            return Dropped(f"a page of more than {LONGEST_PAGE >> 20} million characters")
        if not page.get("text", "").strip() or not page.get("title", "").strip():
            return Dropped("no text or title")
        language = _language(self._site, self._name)
        base = self._site.get("base", "").rpartition("/")[0] or f"https://{language}.wikipedia.org/wiki"
        metadata = {"title": page["title"].strip(), "language": language, "timestamp": page.get("timestamp", ""),
                    "url": f"{base}/{quote(page['title'].strip().replace(' ', '_'), safe='/:(),')}"}
        return RawDocument(page["text"], page.get("id", ""), metadata)


def _language(site: dict[str, str], name: str) -> str:
    """A language by the dump's name of the database ("enwiki"), else what it says of all its text, else the file's name."""
    database = re.fullmatch(r"(\w+)wiki", site.get("dbname", ""))
    named = re.match(r"([a-z_-]+)wiki", name)
    language = (database and database[1]) or site.get("lang") or (named and named[1]) or ""
    return language.replace("_", "-").lower()
