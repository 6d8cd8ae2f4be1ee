"""Which licence a repository has: Apache, BSD and MIT are kept, as in the paper's section 2.1; others are refused by name."""

import re
from collections.abc import Sequence

from llama_jax.clean.items import Dropped

LICENCE_FILE = re.compile(r"(un)?licen[cs]es?([-_.].*)?|copying([-_.].*)?", re.IGNORECASE)
"""The whole name of a file that holds a licence."""
_MAIN_FILE = re.compile(r"(licen[cs]es?|copying)(\.(txt|md|rst))?", re.IGNORECASE)
_NO_LICENCE_FILE = re.compile(r".*\.(py|js|ts|c|h|cc|cpp|go|rs|java|rb|sh|json|html?|xml|ya?ml|png|svg|spdx)", re.IGNORECASE)

UNKNOWN_LICENCE = "licence: unknown"
"""Reason to drop what lies under a licence that is not recognised."""

_REFUSED = {
    "AGPL": r"gnu affero general public licen[cs]e|\bagpl",
    "LGPL": r"gnu (lesser|library)( general public)? licen[cs]e|gnu (lesser|library) general public|\blgpl",
    "GPL": r"gnu general public licen[cs]e|\bgnu gpl|\bgplv?[- ]?[123]|under the( terms of the)? gpl",
    "MPL": r"mozilla public licen[cs]e",
    "EPL": r"eclipse public licen[cs]e",
    "EUPL": r"european union public licen[cs]e",
    "CDDL": r"common development and distribution licen[cs]e",
    "Creative Commons": r"creative commons|creativecommons\.org",
    "SSPL": r"server side public licen[cs]e",
    "Business Source": r"business source licen[cs]e",
    "Commons Clause": r"commons clause",
    "Elastic": r"elastic licen[cs]e",
    "RAIL": r"responsible ai licen[cs]e|\brail(-[ms])? licen[cs]e",
    "JSON": r"shall be used for good, not evil",
    "PSF": r"python software foundation licen[cs]e|python was created in the early 1990s",
    "Artistic": r"the artistic licen[cs]e",
    "Boost": r"boost software licen[cs]e",
    "Unlicense": r"free and unencumbered software released into the public domain",
    "WTFPL": r"do what the fuck you want to public licen[cs]e",
    "zlib": r"provided ['‘’\"“”]*as-is['‘’\"“”]*, without any express or implied warranty\. in no event will the authors",
    "ISC": r"permission to use, copy, modify, and(/or)? distribute this software for any purpose with or without fee is hereby "
           r"granted, provided that",
}
"""What the licences that are refused say of themselves."""

_KEPT = {
    "apache": r"apache licen[cs]e,? v(ersion )?2\.0|apache software licen[cs]e|"
              r"version 2\.0, january 2004 https?://www\.apache\.org/licenses|licensed under the apache licen[cs]e",
    "bsd": r"redistribution and use in source and binary forms.{0,60} with or without modification,? are permitted|"
           r"permission to use, copy, modify, and(/or)? distribute this software for any purpose with or without fee is hereby "
           r"granted(?!, provided)",
    "mit": r"permission is hereby granted,? free of charge,? to any person obtaining a copy of this software and associated "
           r"documentation files|permission is hereby granted,? free of charge,? to any person obtaining a copy.{0,60} to deal "
           r"in the software without restriction",
}
"""Sentences that grant the rights of the licences that are kept."""

_SHORT = 600
"""A file with fewer characters may name its licence instead of holding it."""
_NAMED = {
    "apache": r"\bapache([- ]software)?([- ]licen[cs]e)?,?[- ]*(v(ersion)? ?)?2(\.0)?\b",
    "bsd": r"\b[0-4][- ]clause[- ]bsd\b|\bbsd[- ]([0-4][- ]clause|licen[cs]e)\b|\b(new|modified|simplified|revised)[- ]bsd\b",
    "mit": r"\bmit[- ]licen[cs]e|\blicen[cs]ed? ?(under( the)?|:)? mit\b|^mit$",
}
"""Names of the licences that are kept."""
_CHOICE = re.compile(r"\beither\b(?! express)|\bat your (option|choice)\b")
"""What a file says that leaves the choice between licences."""
_KEPT_NAME = re.compile(r"(apache|bsd|0bsd|mit)(?![a-z])")


def is_licence_file(name: str) -> bool:
    """Whether a file of this name holds a licence: LICENSE, LICENCE.txt, COPYING.md, LICENSE-MIT ..."""
    return bool(LICENCE_FILE.fullmatch(name)) and not _NO_LICENCE_FILE.fullmatch(name)


def recognise_licence(text: str) -> str:
    """apache, bsd or mit: the licence that `text`, the content of a file, grants; several are joined by a plus sign.

    It goes by the sentences that grant rights, not by names alone, because a text may name other licences. A text that holds one
    that is refused is refused as a whole: which of the code it covers cannot be told.

    Raises Dropped with the name of the licence, or UNKNOWN_LICENCE.
    """
    plain = _plain(text)
    refused = {name: match.start() for name, pattern in _REFUSED.items() if (match := re.search(pattern, plain))}
    if refused:
        raise Dropped(f"licence: {min(refused, key=lambda name: refused[name])}")  # its title stands before what it mentions
    found = [name for name, pattern in _KEPT.items() if re.search(pattern, plain)]
    if not found and len(plain) < _SHORT:
        found = [name for name, pattern in _NAMED.items() if re.search(pattern, plain)]
    if not found:
        raise Dropped(UNKNOWN_LICENCE)
    return "+".join(found)


def _plain(text: str) -> str:
    """A text in lower case on one line, without the marks of comments."""
    return " ".join(re.sub(r"[^\S\n]*\n[\s#*/;>|-]*", " ", text.lower()).split())


def licence_of_files(files: dict[str, str]) -> str:
    """The licence of a folder, given its licence files as {name: text}.

    LICENSE or COPYING, also with .txt, .md or .rst, decides, and where there are both, both must be kept. Files with other names,
    such as LICENSE-MIT, count where these are missing or only refer to them in a few lines; LICENSE.python or LICENSE-3rd-party
    beside a LICENSE is about parts, which most often lie in folders of their own. Where these lines leave the choice between
    licences, one that is kept is enough; and beside one that is kept, the Unlicense, which asks nothing, takes nothing away.
    Raises Dropped where the licence is not kept.
    """
    short = [_plain(text) for name, text in files.items() if _MAIN_FILE.fullmatch(name) and len(text) < _SHORT]
    main = [text for name, text in files.items() if _MAIN_FILE.fullmatch(name) and len(text) >= _SHORT]
    texts = main or [text for text in files.values() if len(text) >= _SHORT] or list(files.values())
    texts = [text for text in texts if not re.search(_REFUSED["Unlicense"], _plain(text))] or texts
    found: set[str] = set()
    for text in texts:
        try:
            found.update(recognise_licence(text).split("+"))
        except Dropped:
            if main or not any(_CHOICE.search(text) for text in short):
                raise
    if not found:
        raise Dropped(UNKNOWN_LICENCE)
    return "+".join(sorted(found))


def permit_named(licence: str | Sequence[str] | None) -> None:
    """Raise Dropped unless a record's licence, as SPDX writes it (MIT, `MIT OR GPL-2.0-only`) or a list of them, is kept.

    Of licences joined by OR one is enough; of a list, or joined by AND, all must be kept.
    """
    names = [licence] if isinstance(licence, str) else list(licence or ())
    if not any(isinstance(name, str) and name.strip() for name in names):
        raise Dropped("no licence")
    for name in names:
        choices = re.split(r"\s+or\s+", str(name).strip().strip("()").lower())
        if not any(all(_KEPT_NAME.match(part.strip(" ()")) for part in re.split(r"\s+and\s+", choice)) for choice in choices):
            raise Dropped(f"licence: {_family(str(name))}")


def _family(name: str) -> str:
    """The name under which a refused licence is counted: GPL for gpl-2.0, GPL-3.0-or-later ..."""
    for family in _REFUSED:
        if name.lower().startswith((family.lower(), family.lower().replace(" ", "-"))):
            return family
    return "Creative Commons" if name.lower().startswith("cc") else name[:20]
