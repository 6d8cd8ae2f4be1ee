"""Templates of Wikipedia that stand in the middle of sentences, as the words that readers see."""

import re
from collections.abc import Callable

Arguments = dict[str, str]
"""The arguments of a template by name; those without a name are "1", "2", ..."""


def superscript(text: str) -> str:
    """Digits and signs raised, as in 10⁶; other text, such as the "th" of 4th, as it is."""
    return text.translate(_RAISED) if re.fullmatch(r"[-+−0-9]+", text) else text


_RAISED = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_UNITS = {"km2": "km²", "m2": "m²", "cm2": "cm²", "mm2": "mm²", "m3": "m³", "cm3": "cm³", "km3": "km³", "sqmi": "sq mi",
          "sqft": "sq ft", "sqin": "sq in", "cuft": "cu ft", "cumi": "cu mi", "acre": "acres", "C": "°C", "F": "°F",
          "C-change": "°C", "F-change": "°F", "foot": "feet", "mile": "miles", "nmi": "nautical miles", "lbs": "lb",
          "/sqmi": "per square mile", "PD/sqmi": "per square mile", "/km2": "per km²", "PD/km2": "per km²",
          "impgal": "imp gal", "USgal": "US gal", "ST": "short tons", "LT": "long tons", "MT": "tonnes", "t": "tonnes",
          "kn": "knots", "mi/h": "mph", "kph": "km/h"}
_BETWEEN = {"-": "–", "–": "–", "to": " to ", "to(-)": " to ", "and": " and ", "and(-)": " and ", "or": " or ", "by": " by ",
            "x": " × ", "×": " × ", "*": " × ", "+/-": " ± ", "±": " ± "}
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
           "December")


def _list(arguments: Arguments) -> list[str]:
    """The arguments without a name, in order."""
    return [arguments[str(number)] for number in range(1, len(arguments) + 1) if str(number) in arguments]


def _convert(arguments: Arguments) -> str:
    """{{convert|5|to|10|km|mi}} is "5 to 10 km"; the second unit is left out."""
    values, text = _list(arguments), ""
    while len(values) > 2 and values[1] in _BETWEEN:
        text += values[0] + _BETWEEN[values[1]]
        values = values[2:]
    while len(values) >= 2 and re.match(r"[-−+]?[\d.,/+ ]+$", values[0]):  # 6 ft 2 in: numbers and units take turns
        text += f"{values[0]} {_UNITS.get(values[1], values[1])} "
        values = values[2:]
    return text.strip() or " ".join(values[:2])


def _as_of(arguments: Arguments) -> str:
    year, month, day, *_ = [*_list(arguments), "", "", ""]
    if month.isdigit() and 0 < int(month) < 13:
        month = _MONTHS[int(month) - 1]
    words = arguments.get("alt") or " ".join(["Since" if "since" in arguments else "As of", *filter(None, (day, month, year))])
    return words[:1].lower() + words[1:] if "lc" in arguments else words


def _fraction(arguments: Arguments) -> str:
    values = _list(arguments)
    return f"1/{values[0]}" if len(values) == 1 else " ".join([*values[:-2], "/".join(values[-2:])])


def _number(arguments: Arguments) -> str:
    """{{val|5.0|e=6|u=m}} is 5.0×10⁶ m."""
    power, unit = arguments.get("e", ""), arguments.get("u") or arguments.get("ul") or ""
    return f"{arguments.get('1', '')}{power and '×10' + superscript(power)} {unit}".rstrip()


def _power_of_ten(arguments: Arguments) -> str:
    return "×10" + superscript(arguments["1"]) if arguments.get("1") else "e"  # without a number, the French ending of XIXe


def _nihongo(arguments: Arguments) -> str:
    first, *others = _list(arguments)[:3] or [""]
    inner = ", ".join(filter(None, others))
    return f"{first} ({inner})" if first and inner else first or inner


def _circa(arguments: Arguments) -> str:
    return " – ".join(f"c. {value}" for value in _list(arguments)[:2]) or "c."


def _joined(arguments: Arguments) -> str:
    return "".join(_list(arguments))


def _cited(arguments: Arguments) -> str:
    """{{harvtxt|Boolos|Jeffrey|1974}} is "Boolos and Jeffrey (1974)"."""
    *authors, year = _list(arguments) or [""]
    return f"{', '.join(authors[:-1])}{' and ' if authors[1:] else ''}{authors[-1]} ({year})" if authors else year


def _harvs(arguments: Arguments) -> str:
    if "txt" not in _list(arguments):
        return ""
    shown = [arguments[name] for name in ("last", "last1", "last2", "last3", "last4", "year") if name in arguments]
    return _cited({str(number): value for number, value in enumerate(shown, 1)})


def _same(names: str, text: str) -> dict[str, str]:
    return dict.fromkeys(names.split("|"), text)


COMPUTED = "\5"
"""Stands for a value that MediaWiki computes, such as an age; the parenthesis that it stands in is removed with it."""

PATTERNS = {
    **_same("nowrap|nobr|nobreak|nowr|small|smaller|big|bigger|larger|midsize|normal|sc|smallcaps|smallcaps all|small-caps|abbr"
            "|tooltip|noitalic|no italic|nobold|underline|sic|not a typo|typo|as written|proper name|unicode|polytonic|nastaliq"
            "|coptic|cuneiform|hebrew|arabic|ipa|ipa link|ipalink|strong|em|mvar|math|bigmath|var|vanchor|visible anchor|linktext"
            "|ill|illm|interlanguage link|interlanguage link multi|center|plainlist|flag|flagcountry|flagu|ce|chem2|sub|railgauge"
            "|track gauge|nts|fs|key press|keypress|kbd|vr|formatprice", "{1}"),
    **_same("lang|script|rtl-lang|native phrase", "{text|2}"),
    **_same("transl|transliteration|resize|columns-list|wikt-lang", "{-1}"),
    **_same("quote|quotation|bquote|blockquote|cquote|centered pull quote|poemquote|poem quote", "\n{text|quote|1}\n"),
    **_same("inflation|inflation/year|inflation-year|age|age in years|currentyear|pop density|to usd", COMPUTED),
    **_same("ndash|endash|en dash|–", "–"), **_same("mdash|emdash|em dash|—", "—"), **_same("·|•|dot|bullet|middot", " · "),
    **_same("snd|snds|spnd|spaced ndash|spaced en dash|spaced en dash space", " – "), "mdashb": " — ", "spaced mdash": " — ",
    **_same("nbsp|space|spaces|thinsp|thin space|hair space|hairsp", " "), **_same("ellipsis|...", "..."),
    "'s": "'s", "'": "'", "\"'": "\"'", "' \"": "' \"", "\" '": "\" '", "-\"": "\"", "=": "=", "!": "|", "eqm": "⇌",
    "angbr": "⟨{1}⟩", "angle bracket": "⟨{1}⟩", "angbr ipa": "⟨{1}⟩", "ipablink": "[{1}]", "ipaslink": "/{1}/",
    "bracket": "[{1}]", "vol.": "vol. {1}", "carbon": "C", "hydrogen": "H", "bibleref": "{1} {2}", "ship": "{1} {2}",
    **_same("us$|usd", "US${1}"), **_same("gbp|£", "£{1}"), **_same("eur|€|euro", "€{1}"), "inr": "₹{1}",
    **_same("nuclide|nuclide2|simplenuclide", "{1}-{2}"), **_same("sclass|sclass2", "{1}-class {2}"),
    **{name: f"{name.upper()} {{1}}" for name in ("hms", "uss", "ss", "rms", "hmas", "hmcs", "usns", "ms", "mv")},
}
"""Name in lower case -> what is shown, {1} for the first argument, {-1} for the last, {text|2} for one or else the other."""

OF_LANGUAGE = {
    "de": {'"': "„{1}“", "zitat": "\n{text|1}\n", "ens": "englisch {1}", "las": "lateinisch {1}", "frs": "französisch {1}"},
    "es": {"unidad": "{1} {2}", "siglo": "siglo {1}", **_same("versalita|esd", "{1}"), "cita": "\n{1}\n"},
    "fr": {**_same("s|s-|-s|-s-|siècle", "{1}e siècle"), **_same("date|date-", "{1} {2} {3}"), "1er": "1er {1}",
           **_same("er|ère|re", "er"), **_same("nombre|unité", "{1} {2}"), "lien": "{texte|trad|1}", "langue": "{texte|2}",
           **_same("romain|petites capitales|pc|exp|ind", "{1}"), "citation": "« {1} »", "citation bloc": "\n{1}\n",
           "n°": "no", "av jc": "av. J.-C.", "ap jc": "apr. J.-C."},
    "it": {"lingua": "{2}", "m": "{1} {2}", "maiuscoletto": "{1}", "citazione": "\n{1}\n", "sic": ""},
    "pl": {"j": "{2}", "k": "{1}", "język": "{2}", "cytat": "\n{1}\n"},
    "pt": {"fmtn": "{1} {2}", "séc": "século {1}", "dc": "d.C.", "ac": "a.C.", **_same("citação|quote", "\n{1}\n")},
    "ru": {"s": "{1}", "num": "{1} {2}", **_same("нп|нп5|не переведено 5|iw", "{2|1}"), "цитата": "\n{1}\n"},
    "uk": {"s": "{1}", "num": "{1} {2}", **_same("нп|нп5|не перекладено|iw", "{2|1}"), "цитата": "\n{1}\n"},
}
"""Language -> further names, or names that mean something else there."""

FUNCTIONS: dict[str, Callable[[Arguments], str]] = {
    "convert": _convert, "cvt": _convert, "as of": _as_of, "asof": _as_of, "circa": _circa, "ca.": _circa, "c.": _circa,
    "frac": _fraction, "fraction": _fraction, "sfrac": _fraction, "val": _number, "e": _power_of_ten, "nihongo": _nihongo,
    "nihongo2": _nihongo, "harvtxt": _cited, "harvcoltxt": _cited, "harvs": _harvs, "gaps": _joined, "chem": _joined,
    "sup": lambda arguments: superscript(arguments.get("1", "")),
    "hlist": lambda arguments: ", ".join(_list(arguments)),
    "music": lambda arguments: {"flat": "♭", "sharp": "♯", "natural": "♮", "b": "♭", "#": "♯"}.get(arguments.get("1", ""), ""),
}
"""The same for what a pattern cannot say."""


def pattern_of(name: str, language: str) -> str | None:
    """The pattern of a template; None where it stands in no sentence, or a function makes its text."""
    if name.startswith("lang-"):
        return "{1}"
    return OF_LANGUAGE.get(language, {}).get(name, PATTERNS.get(name))


def is_inline(name: str, language: str) -> bool:
    """Whether a template is part of a sentence."""
    return name in FUNCTIONS or pattern_of(name, language) is not None


def template_text(name: str, arguments: Arguments, *, language: str) -> str:
    """What a reader sees of a template with these arguments, which are plain text; nothing of one that is in no sentence."""
    pattern = pattern_of(name, language)
    if pattern is None:
        return FUNCTIONS[name](arguments) if name in FUNCTIONS else ""
    last = next(reversed(_list(arguments)), "")

    def value(match: re.Match[str]) -> str:
        return next((arguments[key] for key in match[1].split("|") if arguments.get(key)), last if match[1] == "-1" else "")

    return re.sub(r"\{([^{}]+)\}", value, pattern).rstrip(" ") if "{" in pattern else pattern
