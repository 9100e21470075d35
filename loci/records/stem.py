"""A compact English stemmer: Porter2 with a table of irregular forms.

Paper: Porter, "Snowball: A language for stemming algorithms", 2001 (the English stemmer).
Differs: without its rarest exceptions; irregular verbs and plurals get the stem of their base form.
"""

from __future__ import annotations

import re
from functools import lru_cache

_VOWELS = "aeiouy"
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")
_SHORT_END = re.compile(r"(?:^[aeiouy][^aeiouy]|[^aeiouy][aeiouy][^aeiouywxY]|^past)$")
_REGION = re.compile(r"[aeiouy][^aeiouy]")
_R1_PREFIX = re.compile(r"^(gener|commun|arsen|past|univers|later|emerg|organ|inter)")
_STEP2 = (
    ("ization", "ize"), ("ational", "ate"), ("fulness", "ful"), ("ousness", "ous"), ("iveness", "ive"),
    ("tional", "tion"), ("biliti", "ble"), ("lessli", "less"), ("entli", "ent"), ("ation", "ate"),
    ("alism", "al"), ("aliti", "al"), ("ousli", "ous"), ("iviti", "ive"), ("fulli", "ful"), ("ogist", "og"),
    ("enci", "ence"), ("anci", "ance"), ("abli", "able"), ("izer", "ize"), ("ator", "ate"), ("alli", "al"),
    ("bli", "ble"),
)  # fmt: skip
_STEP3 = (
    ("ational", "ate"), ("tional", "tion"), ("alize", "al"), ("icate", "ic"), ("iciti", "ic"),
    ("ical", "ic"), ("ness", ""), ("ful", ""),
)  # fmt: skip
_STEP4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous", "ive", "ize",
    "al", "er", "ic",
)  # fmt: skip

#: Irregular forms, as "base form form"; every form gets the stem of its base.
_IRREGULAR = """
buy bought|bring brought|catch caught|teach taught|think thought|fight fought|seek sought|sell sold|tell told
go went gone|see saw seen|take took taken|give gave given|get got gotten|make made|come came|become became
begin began begun|break broke broken|build built|choose chose chosen|draw drew drawn|drink drank drunk
drive drove driven|eat ate eaten|fall fell fallen|feel felt|find found|fly flew flown|forget forgot forgotten
grow grew grown|hear heard|hold held|keep kept|know knew known|lead led|leave left|lend lent|lose lost
mean meant|meet met|pay paid|ride rode ridden|ring rang rung|rise rose risen|run ran|say said|send sent
shoot shot|show shown|sing sang sung|sit sat|sleep slept|speak spoke spoken|spend spent|stand stood
steal stole stolen|swim swam swum|throw threw thrown|understand understood|wake woke woken|wear wore worn
win won|write wrote written|freeze froze frozen|hide hid hidden|bite bit bitten|bleed bled|feed fed|shake shook
man men|woman women|child children|foot feet|tooth teeth|mouse mice|person people|wife wives|life lives
knife knives|leaf leaves|half halves|shelf shelves|wolf wolves|die dying|lie lying|tie tying
paint painting painter|photo photograph photography pic picture|mom mother mum|dad father
"""


def _r1(word: str, start: int = 0) -> int:
    """The index after the first non-vowel that follows a vowel at or after start."""
    found = _REGION.search(word, start)
    return found.end() if found else len(word)


def _porter2(word: str) -> str:
    """The Porter2 stem of a lower-case word."""
    if len(word) <= 2:
        return word
    if word[0] == "y":
        word = "Y" + word[1:]
    word = re.sub(r"([aeiouy])y", r"\1Y", word)
    prefix = _R1_PREFIX.match(word)
    r1 = prefix.end() if prefix else _r1(word)
    r2 = _r1(word, r1)
    word = _past(_plural(word), r1)
    if len(word) > 2 and word[-1] in "yY" and word[-2] not in _VOWELS:
        word = word[:-1] + "i"
    word = _last(_nominal(_adverbial(word, r1), r1, r2), r1, r2)
    return word.lower()


def _plural(word: str) -> str:
    """Step 1a."""
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and any(c in _VOWELS for c in word[:-2]):
        return word[:-1]
    return word


def _past(word: str, r1: int) -> str:
    """Step 1b: -ed and -ing."""
    if word.endswith(("eed", "eedly")):
        cut = word[: word.rindex("eed")]
        return cut + "ee" if len(cut) >= r1 else word
    end = next((end for end in ("ingly", "edly", "ing", "ed") if word.endswith(end)), "")
    cut = word[: -len(end)] if end else word
    if not end or not any(c in _VOWELS for c in cut):
        return word
    if cut.endswith(("at", "bl", "iz")):
        return cut + "e"
    if cut.endswith(_DOUBLES) and cut[:-2] not in ("a", "e", "o"):
        return cut[:-1]
    return cut + "e" if len(cut) <= r1 and _SHORT_END.search(cut) else cut


def _adverbial(word: str, r1: int) -> str:
    """Step 2."""
    for end, new in _STEP2:
        if word.endswith(end):
            return word[: -len(end)] + new if len(word) - len(end) >= r1 else word
    if word.endswith("ogi") and len(word) - 3 >= r1 and word[-4:-3] == "l":
        return word[:-1]
    if word.endswith("li") and len(word) - 2 >= r1 and word[-3:-2] and word[-3] in "cdeghkmnrt":
        return word[:-2]
    return word


def _nominal(word: str, r1: int, r2: int) -> str:
    """Steps 3 and 4."""
    for end, new in _STEP3:
        if word.endswith(end):
            word = word[: -len(end)] + new if len(word) - len(end) >= r1 else word
            break
    else:
        if word.endswith("ative") and len(word) - 5 >= r2:
            word = word[:-5]
    for end in _STEP4:
        if word.endswith(end):
            return word[: -len(end)] if len(word) - len(end) >= r2 else word
    if word.endswith("ion") and len(word) - 3 >= r2 and word[-4:-3] in ("s", "t"):
        return word[:-3]
    return word


def _last(word: str, r1: int, r2: int) -> str:
    """Step 5: final e and double l."""
    if word.endswith("e"):
        long = len(word) - 1 >= r2 or (len(word) - 1 >= r1 and not _SHORT_END.search(word[:-1]))
        return word[:-1] if long else word
    return word[:-1] if word.endswith("ll") and len(word) - 1 >= r2 else word


_FORMS = {form: group.split()[0] for group in re.split(r"[|\n]", _IRREGULAR) for form in group.split()[1:]}


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a lower-case word.

    >>> {stem("bought"), stem("buying"), stem("buys")}
    {'buy'}
    """
    return _porter2(_FORMS.get(word, word))
