"""Where sentences end, by punctuation and capitals: enough to count them and to compare spans of them, in any language."""

import re

_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s) | [。！？]+[」』”’]*""", re.VERBOSE)
_OPENING = "\"'“‘«([¿¡-–—•*"
_ABBREVIATIONS = """
mr mrs ms dr prof sr jr st mt rev gen col capt lt sgt gov sen rep hon pres vs etc e.g i.e cf al fig no nr vol pp p ed eds inc ltd
co corp dept est approx jan feb mar apr jun jul aug sep sept oct nov dec
""".split()  # noqa: SIM905


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, each with the white space after it, so that they join to the text again.

    A full stop ends a sentence where white space and no small letter follow, unless it is part of an abbreviation or an initial;
    a line ends one, too.
    """
    sentences = []
    for line in text.splitlines(keepends=True):
        begin = 0
        for match in _END.finditer(line):
            rest = line[match.end():]
            following = rest.lstrip()
            if following and not _ends_here(line[begin:match.end()], following):
                continue
            end = match.end() + len(rest) - len(following)
            sentences.append(line[begin:end])
            begin = end
        if line[begin:]:
            sentences.append(line[begin:])
    return sentences


def _ends_here(sentence: str, following: str) -> bool:
    """Whether a sentence ends between these two texts, of which the first ends with a punctuation mark."""
    if sentence[-1] != ".":
        return not following[0].islower()
    word = sentence.split()[-1].rstrip(".").lstrip(_OPENING).lower()
    initial = len(word) == 1 and word.isalpha() and sentence.rstrip(".")[-1:].isupper()
    return not initial and word not in _ABBREVIATIONS and not following.lstrip(_OPENING)[:1].islower()
