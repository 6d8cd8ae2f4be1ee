"""C4 (Raffel et al. 2020, section 2.2), the paper's second source: web pages, deduplicated, in one language, by simple rules."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import CITATION_REGEX, END_PUNCTUATION, POLICY_SUBSTRINGS

from llama_jax.clean.duplicates import drop_whole, find_duplicates
from llama_jax.clean.items import Dropped, RawDocument
from llama_jax.clean.json_records import read_records
from llama_jax.clean.language import keep_languages, web_languages
from llama_jax.clean.sentences import split_sentences
from llama_jax.clean.stages import Stage, Workplace
from llama_jax.clean.steps import CountedStep
from llama_jax.errors import ConfigError, DataError

LONGEST_WORD = 1_000
"""Lines with a longer word, in characters, are removed (C4's code)."""
SPAN = 3
"""Sentences of a span of which all but the first are removed (Raffel et al. 2020, section 2.2)."""
_ENDS = (*END_PUNCTUATION, "”", "’")
"""Marks that end a line which is kept: datatrove's, and the curly quotation marks that it lacks."""
_METADATA = ("url", "timestamp", "date_download", "title")


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean C4: lines and pages by rules, language, whole pages once, spans of three sentences once."""
    if options.min_sentences < 0 or options.min_line_words < 0:
        raise ConfigError(f"min_sentences and min_line_words must be at least 0, got {options.min_sentences} and "
                          f"{options.min_line_words}.")
    if options.bad_words:
        bad_words_pattern(options.bad_words)
    enough = partial(check_sentences, least=options.min_sentences)
    language = keep_languages(web_languages(options), threshold=options.language_threshold, model=options.language_model)
    first, pages = find_duplicates(
        place, "duplicates", place.read(read_pages), place.edit("pages", partial(check_page, bad_words=options.bad_words)),
        FilterLines("lines", least_words=options.min_line_words, examples=place.examples()), place.edit("sentences", enough),
        place.edit("language", language), keys=words_of_page, drop=drop_whole)
    second, spans = find_duplicates(place, "spans", *pages, keys=words_of_spans, drop=drop_spans)
    return [*first, *second, place.stage("apart", *spans, place.edit("sentences left", enough), place.write())]


def read_pages(file: Path) -> Iterator[RawDocument | Dropped]:
    """The documents of a file of JSON lines, of which `text` is the text; url, timestamp and title become metadata."""
    return read_records(file, _of_record)


def _of_record(record: dict[str, Any], number: int) -> RawDocument:
    if not isinstance(record.get("text"), str):
        raise Dropped("no `text`")
    more = record["metadata"] if isinstance(record.get("metadata"), dict) else {}
    metadata = {name: value for name in _METADATA if isinstance(value := record.get(name, more.get(name)), str)}
    return RawDocument(record["text"], str(number), metadata)


def check_page(text: str, metadata: dict[str, Any], *, bad_words: str = "") -> str:
    """Drop a page with "lorem ipsum", a curly bracket, or a word of the file `bad_words` (Raffel et al. 2020, section 2.2)."""
    if "lorem ipsum" in text.lower():
        raise Dropped("lorem ipsum")
    if "{" in text or "}" in text:
        raise Dropped("curly bracket")
    if bad_words and bad_words_pattern(bad_words).search(text.lower()):
        raise Dropped("bad word")
    return text


@cache
def bad_words_pattern(file: str) -> re.Pattern:
    """What matches a word or phrase of a file with one per line; raises DataError where it cannot be read or holds none."""
    try:
        words = [" ".join(line.split()) for line in Path(file).read_text(encoding="utf-8").lower().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the bad words in {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}.") from None
    if not any(words):
        raise DataError(f"{file} holds no bad words; wanted is one per line.")
    alternatives = "|".join(re.escape(word) for word in sorted(words) if word)
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")


class FilterLines(CountedStep):
    """Removes from every page the lines that are not sentences, and counts them by reason."""

    def __init__(self, name: str, *, least_words: int, examples: Path):
        super().__init__(name, examples=examples)
        self._least_words = least_words

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            before = document.text
            self.count_in(before)
            with self.track_time():
                document.text, removed = filter_lines(before, least_words=self._least_words)
            for reason, number in removed.items():
                self.stat_update(f"lines removed: {reason}", value=number)
            if document.text:
                yield self.keep(document, before=before)
            else:
                self.drop("no line left", name=document.id, text=before)
        self.save_examples(rank, tasks=world_size)


def filter_lines(text: str, *, least_words: int) -> tuple[str, Counter[str]]:
    """(the lines of `text` that are sentences, reasons of the others with their number).

    Kept are lines of at least `least_words` words that end in a full stop, question, exclamation or quotation mark, without the
    word JavaScript, policy notices, or words of more than LONGEST_WORD characters; marks of citations such as [3] are removed.
    """
    kept, removed = [], Counter()
    for line in text.splitlines():
        if line := line.strip():
            line = CITATION_REGEX.sub("", line).rstrip()
            reason = _why_removed(line, least_words=least_words)
            if reason:
                removed[reason] += 1
            else:
                kept.append(line)
    return "\n".join(kept), removed


def _why_removed(line: str, *, least_words: int) -> str:
    words, lowered = line.split(), line.lower()
    if not line.endswith(_ENDS) or line.endswith(("...", "…")):
        return "no mark at the end"
    if len(words) < least_words:
        return f"under {least_words} words"
    if any(len(word) > LONGEST_WORD for word in words):
        return f"a word over {LONGEST_WORD} characters"
    if "javascript" in lowered:
        return "JavaScript"
    return "policy" if any(phrase in lowered for phrase in POLICY_SUBSTRINGS) else ""


def check_sentences(text: str, metadata: dict[str, Any], *, least: int) -> str:
    """Drop a page of fewer than `least` sentences."""
    if len(split_sentences(text)) < least:
        raise Dropped(f"under {least} sentences")
    return text


def words_of_page(text: str) -> list[str]:
    """The key of a page: its words in lower case, without punctuation."""
    return [_words(text)]


def words_of_spans(text: str) -> list[str]:
    """The key of every span of SPAN sentences, which overlap."""
    words = [_words(sentence) for sentence in split_sentences(text)]
    return ["\n".join(words[begin:begin + SPAN]) for begin in range(len(words) - SPAN + 1)]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def drop_spans(text: str, spans: list[int]) -> str:
    """The text without the sentences of the spans that occurred before, given by the number of their first sentence."""
    gone = {begin + offset for begin in spans for offset in range(SPAN)}
    left = "".join(sentence if number not in gone else "\n" * sentence.endswith("\n")
                   for number, sentence in enumerate(split_sentences(text)))
    lines = [line.strip() for line in left.splitlines()]
    if not any(lines):
        raise Dropped("all of its spans are repeated")
    return "\n".join(line for line in lines if line)
