"""Wikitext as prose: what stays, what goes, and that no markup is left, whatever the wikitext."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_jax.clean.items import Dropped
from llama_jax.clean.wiki_words import SECTIONS
from llama_jax.clean.wikipedia import WIKIPEDIA_LANGUAGES
from llama_jax.clean.wikitext import wikitext_to_prose


def prose(text: str, language: str = "en") -> str:
    return wikitext_to_prose(text, {"language": language})


@pytest.mark.parametrize(("wikitext", "text"), [
    ("'''Bold''' and ''italic'' and '''''both''''' of Jane's ''''apostrophe'''",
     "Bold and italic and both of Jane's 'apostrophe"),
    ("A [[dog]], two [[dog]]s, [[Canis lupus|wolves]], [[:Category:Dogs|all]], [[Dog#Size|its ''size'']].",
     "A dog, two dogs, wolves, all, its size."),
    ("One [[File:Dog.jpg|thumb|200px|A [[dog]] and [[Cat|its {{circa|1900}} cat]] [http://x.org there]]]two.", "One two."),
    ("Ein Hund.[[Datei:Hund.jpg|mini|Hund]][[Bild:Hund.jpg]]", "Ein Hund."),
    ("Dogs.[[Category:Dogs| ]]\n[[de:Hund]]\n[[be-x-old:Сабака]] [[Kategorie:Hunde]]", "Dogs."),
    ("[[Re:Zero]] and [[Star Trek: Picard|Picard]]", "Re:Zero and Picard"),
    ("See [http://x.org the site], [http://x.org] and http://x.org/a?b=c#d now.", "See the site, and now."),
    ("A<ref>b {{cite web|url=http://x.org}}</ref> c<ref name=\"a/b\"/> d<ref name=x />.<references/>", "A c d."),
    ("A<!-- no --> b <!-- not closed", "A b"),
    ("Big<br/>and <span style=\"color:red\">red</span> and <small>small</small> H<sub>2</sub>O 10<sup>-6</sup> 4<sup>th</sup>",
     "Big\nand red and small H2O 10⁻⁶ 4th"),
    ("Caf&eacute;&nbsp;au lait &lt;b&gt; &amp; 5&#8211;6 &mdash; x", "Café au lait <b> & 5–6 — x"),
    ("* one\n** two\n# three\n; term\n: definition\n:: deeper", "- one\n- two\n- three\nterm\ndefinition\ndeeper"),
    ("Energy <math>E = \\frac{m}{\\sqrt{c^{2}}}</math> is {{math|''E'' {{=}} ''mc''<sup>2</sup>}}",
     "Energy $E = \\frac{m}{\\sqrt{c^{2} } }$ is E = mc²"),
    ("Use <nowiki>[[this]]</nowiki>:\n<syntaxhighlight lang=\"python\">\nif a == b:\n    print({{1}})\n</syntaxhighlight>",
     "Use [[this]]:\n\nif a == b:\n    print({{1}})"),
    ('the instruction <source lang="cbmbas" inline>LET [] = []</source> is', "the instruction LET [] = [] is"),
    ('call <syntaxhighlight lang=c enclose="none">f()</syntaxhighlight> now', "call f() now"),
    ("__NOTOC__Call <code>__init__</code>.", "Call __init__."),
    ("a  b\u00a0\u200bc\n\n\n\n\nd", "a b c\n\nd"),
])
def test_markup(wikitext, text):
    assert prose(wikitext) == text


@pytest.mark.parametrize(("wikitext", "text"), [
    ("The {{lang|fr|mot ''juste''}} is {{convert|5|km}} or {{convert|6|ft|2|in|cm|abbr=on}} or {{cvt|5|to|10|km2|sqmi}} away.",
     "The mot juste is 5 km or 6 ft 2 in or 5 to 10 km² away."),
    ("Born {{circa|384|322}}, {{nowrap|in [[Rome]]}}; {{as of|2014|5|lc=y}}, {{As of|2015}}.",
     "Born c. 384 – c. 322, in Rome; as of May 2014, As of 2015."),
    ("{{frac|1|2}} {{frac|2}} {{frac|3|1|4}} {{val|6.2|e=18|u=m}} 10{{e|-3}} {{chem|H|2|O}}",
     "1/2 1/2 3 1/4 6.2×10¹⁸ m 10×10⁻³ H2O"),
    ("{{nihongo|Tokyo|東京|Tōkyō}}, {{transl|ar|ALA|Allāh}}, {{lang-el|Θεός}}, {{USS|Hornet|CV-12}}",
     "Tokyo (東京, Tōkyō), Allāh, Θεός, USS Hornet"),
    ("1990{{ndash}}95{{snd}}so {{mdash}} it{{'s}} {{formatnum: 3003}} m", "1990–95 – so — it's 3003 m"),
    ("As {{harvtxt|Boolos|Jeffrey|1974}} say{{sfn|Boolos|1974|p=3}}{{citation needed|date=May 2010}}.",
     "As Boolos and Jeffrey (1974) say."),
    ("Said:\n{{quote|To be [[or]] not.|Hamlet}}", "Said:\n\nTo be or not."),
    ("{{Infobox x\n| name = {{lang|fr|x}}\n| b = [[c]]\n}}\nText.\n{{Navbox|a=[[b]]}}\n{{DEFAULTSORT:Text}}", "Text."),
    ("'''Albedo''' ({{IPAc-en|æ|l}}; from {{lang-la|albus}}) ({{IPAc-en|a}}) is (Greek: {{IPA-el|a}}, ''a'') white.",
     "Albedo (from albus) is (Greek, a) white."),
    ("It costs $5 (${{Inflation|US|5|1929}} in {{CURRENTYEAR}} dollars) now.", "It costs $5 now."),
    ("A {{unknown template|with {{nested|a}}}}, b", "A, b"),
])
def test_templates(wikitext, text):
    assert prose(wikitext) == text


def test_templates_of_a_language():
    assert prose("au {{s|XIX}}", "fr") == "au XIXe siècle"
    assert prose("в {{s|1 000 км}}", "ru") == "в 1 000 км"
    assert prose("{{zitat|Sein}}", "de") == "Sein"


TABLE = """{| class="wikitable"
! a !! b
|-
| c || {| style="x"
| inner
|}
|}"""


@pytest.mark.parametrize("table", [TABLE, TABLE.replace("{|", ":{|", 1), "{|\n| {{x|\n|}}\n|}", TABLE + "\n" + TABLE])
def test_tables(table):
    assert prose(f"Before.\n{table}\nAfter.") == "Before.\n\nAfter."


def test_broken_tables():
    assert prose("Before.\n{|\n| a || b\n|-\n| never closed") == "Before."
    assert prose("Before.\n|-\n| a || b\n|}\nAfter.") == "Before.\nAfter."


def test_sections():
    text = """Lead.
== History ==
Old.
=== Empty ===
== Only subsections ==
=== ''Full'' [[one]] ===
* item
== See also ==
* [[Other]]
=== Below it ===
Gone.
== References ==
{{reflist}}
== External links ==
* [http://x.org x]
== After ==
Kept.
"""
    assert prose(text) == "Lead.\n\nHistory\n\nOld.\n\nOnly subsections\n\nFull one\n\n- item\n\nAfter\n\nKept."


def test_sections_go_by_language():
    text = "Text.\n== Weblinks ==\n* [http://x.org x]\n== References ==\nMore."
    assert prose(text, "de") == "Text.\n\nReferences\n\nMore."
    assert prose(text, "en") == "Text.\n\nWeblinks\n\n- x"
    assert prose(text, "tlh") == "Text.", "an unknown language has the names of all"
    assert prose("Текст.\n== Примечания ==\nx\n== См. также ==\n* y", "ru") == "Текст."
    assert set(SECTIONS) == set(WIKIPEDIA_LANGUAGES)


def test_the_title_comes_first():
    assert wikitext_to_prose("It is.", {"title": "Thing", "language": "en"}) == "Thing\n\nIt is."


@pytest.mark.parametrize(("wikitext", "language", "reason"), [
    ("#REDIRECT [[Other]]", "en", "redirect"),
    ("#WEITERLEITUNG [[Other]]", "de", "redirect"),
    ("'''A''' may mean:\n* [[B]]\n{{disambiguation|geo}}", "en", "disambiguation page"),
    ("A:\n* [[B]]\n{{Disambig}}", "en", "disambiguation page"),
    ("A:\n* [[B]]\n{{Place name disambiguation}}", "en", "disambiguation page"),
    ("A:\n* [[B]]\n{{Begriffsklärung}}", "de", "disambiguation page"),
    ("A:\n* [[B]]\n{{Неоднозначность}}", "ru", "disambiguation page"),
    ("A\n__DISAMBIG__", "en", "disambiguation page"),
    ("{{Infobox}}\n== References ==\n{{reflist}}", "en", "no prose"),
    ("", "en", "no prose"),
])
def test_what_is_dropped(wikitext, language, reason):
    with pytest.raises(Dropped, match=reason):
        prose(wikitext, language)


def test_articles_that_mention_disambiguation_stay():
    assert prose("{{other uses disambiguation-x}}A [[word]]{{disambiguation needed|date=May}}.") == "A word."


BROKEN = ["{{", "}}", "[[", "]]", "<ref>a", "<ref name=", "{|\n", "|}\n", "''", "<b>", "a <", "{{lang|fr|", "[[b|", "<math>",
          "</math>", "<!--", "(, ", ", ", "[http://x", "[//a ", "news:a ", "==\n", "=", "* ", "*#:;", "&amp", "{{{a|", "<math>{{",
          "\n* ", "\n{", " ", "- "]


@pytest.mark.parametrize("piece", BROKEN)
def test_broken_markup_takes_no_time(piece):
    """20 kB of markup that nobody closed, for which mwparserfromhell alone takes minutes."""
    for text in (piece * (20_000 // len(piece)), "a" + piece * (20_000 // len(piece)) + "a"):
        begin = time.process_time()
        try:
            result = prose(text)
        except Dropped:
            result = ""
        assert "{{" not in result and "[[" not in result
        assert time.process_time() - begin < 10


PIECES = ["{{", "}}", "[[", "]]", "{|\n", "\n|}", "<ref>", "</ref>", "|", "''", "'''", "\n== ", " ==\n", "a", " ", "lang|fr|",
          "\n* ", "<!--", "-->", "<math>", "</math>", "File:x", "{", "}", "[", "]", "http://x.y", "&amp;", "<b>", "</b>"]


@given(st.lists(st.sampled_from(PIECES), max_size=30))
@example(["a", "]", " ", "]"])
@example(["''", "&amp;", "{{lang|fr|", "\n== ", " ", " ==\n", "}}"])
def test_no_double_brackets_are_left(pieces):
    """Any mixture of markup gives text without templates and links, or is dropped."""
    try:
        result = prose("".join(pieces))
    except Dropped:
        return
    plain = result if "<math>" not in pieces else ""
    assert "\2" not in result and "\4" not in result and "\5" not in result
    assert "{{" not in plain and "]]" not in plain
