"""Phrases to speak: words of one language out of Unicode's CLDR (``babel``), alone and joined, each text once.

Names of territories, languages, scripts, currencies, units, cities, time zones, months, days and eras; and lists of two
or three names of a kind, as the language writes them ("lunes y martes", "metros por segundo"). What cannot be learned
letter by letter is left out: digits (CLDR has no words for numbers), abbreviations, brackets, and names that CLDR does
not have in the language's own script.
"""

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from babel import Locale
from babel.lists import format_list
from babel.units import get_unit_name

_Key = TypeVar("_Key", int, str)
_MAX_NAME = 60
"""Letters; longer names take longer to say than a clip may be."""
_OWN_SCRIPT_SHARE = 0.1
"""Of all letters in the names of territories: Japanese has three scripts of its own, Russian one."""
_WEIGHTS = {1: 0.4, 2: 0.4, 3: 0.2}
"""How often a phrase is one name, two, three, as long as there are some left."""


@dataclass(frozen=True)
class Phrases:
    """All phrases of a language.

    Attributes:
        locale: Whose words these are.
        names: Kind -> names, sorted; a name stands under one kind only.
        per: How the language joins two units ("{0} por {1}"), or None where CLDR does not say.
    """

    locale: Locale
    names: dict[str, tuple[str, ...]]
    per: str | None

    @property
    def num_names(self) -> int:
        return sum(map(len, self.names.values()))

    def __len__(self) -> int:
        """How many phrases there are, before a few that read the same are told apart."""
        lists = sum(self._num_lists(kind, length) for kind in self.names for length in (2, 3))
        return self.num_names + lists

    def draw(self, seed: int) -> Iterator[str]:
        """Every phrase once, in an order that depends on the seed, names and lists mixed; lazily."""
        rng = random.Random(f"{self.locale}:{seed}")  # noqa: S311 - reproducible, not secret
        every_name = {name for names in self.names.values() for name in names}
        sources = {1: self._draw_names(rng), 2: self._draw_lists(2, rng), 3: self._draw_lists(3, rng)}
        seen: set[str] = set()
        while sources:
            length = _pick({length: _WEIGHTS[length] for length in sources}, rng)
            phrase = next(sources[length], None)
            if phrase is None:
                del sources[length]
            elif phrase not in seen and (length == 1 or phrase not in every_name):
                seen.add(phrase)
                yield phrase

    def _draw_names(self, rng: random.Random) -> Iterator[str]:
        every_name = [name for names in self.names.values() for name in names]
        return (every_name[index] for index in _walk(len(every_name), rng))

    def _draw_lists(self, length: int, rng: random.Random) -> Iterator[str]:
        walks = {kind: _walk(self._num_lists(kind, length), rng) for kind in self.names}
        while walks:
            kind = _pick({kind: float(len(self.names[kind])) for kind in walks}, rng)
            index = next(walks[kind], None)
            if index is None:
                del walks[kind]
            else:
                yield self._list(kind, length, index)

    def _num_lists(self, kind: str, length: int) -> int:
        return math.perm(len(self.names[kind]), length) * len(self._styles(kind, length))

    def _styles(self, kind: str, length: int) -> tuple[str, ...]:
        return ("standard", "or", "per") if self.per and kind == "unit" and length == 2 else ("standard", "or")

    def _list(self, kind: str, length: int, index: int) -> str:
        styles = self._styles(kind, length)
        index, style = divmod(index, len(styles))
        left, chosen = list(self.names[kind]), []
        for _ in range(length):
            index, place = divmod(index, len(left))
            chosen.append(left.pop(place))
        if styles[style] == "per":
            return clean(str(self.per).format(*chosen))
        return clean(format_list(chosen, styles[style], self.locale))


def phrases_of(locale: Locale) -> Phrases:
    """Collect the names of a language."""
    own_scripts = scripts(" ".join(map(str, locale.territories.values())))
    kind_of: dict[str, str] = {}
    for kind, name in _all_names(locale):
        text = clean(name)
        if is_speakable(text, own_scripts):
            kind_of.setdefault(text, kind)
    names: dict[str, list[str]] = {}
    for text in sorted(kind_of):
        names.setdefault(kind_of[text], []).append(text)
    return Phrases(locale, {kind: tuple(names[kind]) for kind in sorted(names)}, _per(locale, own_scripts))


def clean(text: str) -> str:
    """Normal form C, plain spaces, one at a time."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()


def is_speakable(name: str, own_scripts: frozenset[str]) -> bool:
    """Whether a name is words only: letters of these scripts, joined by spaces, hyphens or apostrophes."""
    words = re.split(r"[ \-‐'’]+", name)
    letters = "".join(words)
    return (
        bool(letters)
        and len(letters) <= _MAX_NAME
        and all(unicodedata.category(letter)[0] in "LM" for letter in letters)
        and scripts(letters, at_least=0.0) <= own_scripts
        and not any(a.isupper() and b.isupper() for word in words for a, b in pairwise(word))  # an abbreviation
    )


def scripts(text: str, at_least: float = _OWN_SCRIPT_SHARE) -> frozenset[str]:
    """Scripts that have at least this share of a text's letters, as Unicode's names of characters begin."""
    counts = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    return frozenset(script for script, count in counts.items() if count >= at_least * counts.total())


def _all_names(locale: Locale) -> Iterator[tuple[str, str]]:
    """Yield kind and name; of names under several kinds the first counts."""
    tables = {
        "territory": locale.territories,
        "language": locale.languages,
        "script": locale.scripts,
        "currency": locale.currencies,
        "day": locale.days["format"]["wide"],
        "month": locale.months["format"]["wide"],
        "era": locale.eras["wide"],
        "part of the day": locale.day_periods["format"]["wide"],
    }
    for kind, table in tables.items():
        yield from ((kind, str(name)) for name in table.values())
    for zone in locale.time_zones.values():
        if "city" in zone:
            yield "city", str(zone["city"])
    for zone in locale.meta_zones.values():
        yield from (("time zone", str(name)) for name in zone.get("long", {}).values())
    # babel has no public list of units; get_unit_name answers None where a locale has no name.
    for unit in locale._data["unit_patterns"]:
        name = get_unit_name(unit.split(":")[0], "long", locale)
        if name:
            yield "unit", name


def _per(locale: Locale, own_scripts: frozenset[str]) -> str | None:
    try:
        pattern = str(locale._data["compound_unit_patterns"]["per"]["long"]["compound"])
    except KeyError:
        return None
    return pattern if is_speakable(clean(re.sub(r"\{[01]\}", " ", pattern)), own_scripts) else None


def _pick(weights: dict[_Key, float], rng: random.Random) -> _Key:
    return rng.choices(list(weights), list(weights.values()))[0]


def _walk(size: int, rng: random.Random) -> Iterator[int]:
    """Yield every number below ``size`` once, scattered, without a list of them: steps coprime to the size."""
    if size <= 0:
        return
    position, step = rng.randrange(size), rng.randrange(1, size + 1)
    while math.gcd(step, size) != 1:
        step += 1
    for _ in range(size):
        yield position
        position = (position + step) % size
