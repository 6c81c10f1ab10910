"""The words that name a world's values, and the normal form in which text is compared with them.

Values come from two sources: the tables of the world (names, foods, stations, types), and closed lists of English that
hold for every world (synonyms of areas and price ranges, cuisines that no restaurant may serve, nouns that name a
domain).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from ugst_env.world.ontology import AREAS, DAYS, PRICERANGES

MAX_CHARS = 2000
# A domain that no world has, but that people speak of: what is said about it must not end up in another domain.
ELSEWHERE = "elsewhere"


class NamedRow(Protocol):
    """An entity, as far as a vocabulary needs it."""

    @property
    def name(self) -> str: ...


class Tables(Protocol):
    """A world, as far as a vocabulary needs it."""

    @property
    def tables(self) -> Mapping[str, Iterable[NamedRow]]: ...

    def values(self, domain: str, slot: str) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Sense:
    """What a phrase can mean.

    Parameters
    ----------
    kind
        ``"value"`` (a slot's value), ``"place"`` (a station, whichever end of the journey), ``"name"`` (an entity),
        ``"domain"`` (a noun that names the domain),
        ``"hint"`` (a weaker sign of it) or ``"slot"`` (the slot's own name).
    slot, value
        What it says.
    domains
        The domains that it can be said of.
    exact
        Whether the phrase is the value itself; else it is a shortened name, which common words may form by chance.
    """

    kind: str
    slot: str
    value: str
    domains: tuple[str, ...]
    exact: bool = True


# ---------------------------------------------------------------------------------------------------------- normal form

_UNITS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
    "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "`": "'", "\u00b4": "'", "&": " and "})
_MARKS = re.compile(f"[{''.join(map(chr, _APOSTROPHES))}]")
# The look behind comes second, as what begins with a letter is found faster than what begins with a boundary.
_MERIDIEM = re.compile(r"([ap])(?<=\b[ap])\s?\.\s?m\b\.?")
_DOTTED = re.compile(r"\d[.h]\d")
_DOTTED_TIME = re.compile(r"\b(\d{1,2})[.h](\d{2})\b(?!\.\d| ?(?:pounds|gbp|euros?))")
# What each is written out as, after a sign without which it does not occur: to search for that is ten times as fast.
_CONTRACTIONS = (
    (("n't", "nt", "cannot"), re.compile(r"\b(?:ca|can)\s?n'?t\b|\bcannot\b"), "can not"),
    (("n't", "nt"), re.compile(r"\bwo\s?n'?t\b"), "will not"),
    (
        ("n't", "nt"),
        re.compile(r"\b(do|does|did|is|are|was|were|would|should|could|has|have)\s?n'?t\b"),
        r"\1 not",
    ),
    (("m",), re.compile(r"\s?'m\b|(?<=\bi)\s?m\b"), " am"),
    (("'re",), re.compile(r"\s?'re\b"), " are"),
    (("'ve",), re.compile(r"\s?'ve\b"), " have"),
    (("'ll",), re.compile(r"\s?'ll\b"), " will"),
    (("'d",), re.compile(r"\s?'d\b"), " would"),
    (
        ("'s", "whats", "thats"),
        re.compile(r"\b(what|that|it|where|here|there|how|who|let|which|when)(?:\s?'s|(?<=what)s|(?<=that)s)\b"),
        r"\1 is",
    ),
    (("'s",), re.compile(r"\s?'s\b"), "s"),
)
# A text without any of this has no contraction.
_CONTRACTED = re.compile(
    r"'|\b(?:ca|can|wo|do|does|did|is|are|was|were|would|should|could|has|have)\s?nt\b|cannot|\bi\s?m\b|whats|thats"
)
_TOKEN = re.compile(r"[^\W\d_]+\d*|\d{1,2}:\d{2}(?!\d)|\d+|[.,;!?]")
# The same for ASCII, twice as fast: nothing is looked up in tables of Unicode.
_ASCII_TOKEN = re.compile(r"[a-z]+[0-9]*|[0-9]{1,2}:[0-9]{2}(?![0-9])|[0-9]+|[.,;!?]")


def tokenize(text: str) -> list[str]:
    """Split text into comparable tokens: lower case, no accents, contractions written out, number words as digits.

    Of a long text only the first `MAX_CHARS` characters count. "one" stays a word, as it is mostly a pronoun.

    Examples
    --------
    >>> tokenize("I'd like a table for Four at half past nine!")
    ['i', 'would', 'like', 'a', 'table', 'for', '4', 'at', 'half', 'past', '9', '!']
    """
    text = text[:MAX_CHARS]
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))[: 2 * MAX_CHARS]
    text = text.lower()
    if _MARKS.search(text):
        text = text.translate(_APOSTROPHES)
    if ".m" in text or ". m" in text:
        text = _MERIDIEM.sub(r"\1m", text)
    if _DOTTED.search(text):
        text = _DOTTED_TIME.sub(r"\1:\2", text)
    if _CONTRACTED.search(text):
        for signs, pattern, written_out in _CONTRACTIONS:
            if any(map(text.__contains__, signs)):
                text = pattern.sub(written_out, text)
        text = text.replace("'", "")
    tokens: list[str] = (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text)
    if not _NUMBER_WORDS.isdisjoint(tokens):
        tokens = _in_digits(tokens)
    return _clock_words(tokens) if not _CLOCK_WORDS.isdisjoint(tokens) else tokens


_NUMBER_WORDS = frozenset({"one", *_UNITS, *_TENS})


def _in_digits(words: Iterable[str]) -> list[str]:
    """Put number words into digits, "twenty one" into one number; an "one" of its own stays."""
    tokens: list[str] = []
    for token in words:
        if token in _UNITS or token == "one":
            if tokens and tokens[-1] in ("20", "30", "40", "50") and _UNITS.get(token, 1) < 10:
                tokens[-1] = str(int(tokens[-1]) + _UNITS.get(token, 1))
            else:
                tokens.append(str(_UNITS[token]) if token in _UNITS else token)
        elif token in _TENS:
            tokens.append(str(_TENS[token]))
        else:
            tokens.append(token)
    return tokens


_CLOCK_WORDS = frozenset({"one", "oh", "o"})


def _clock_words(tokens: list[str]) -> list[str]:
    """Mend what only a time of day makes a number: "one pm", "half past one", "nine oh five am"."""
    mended: list[str] = []
    for k, token in enumerate(tokens):
        before = mended[-1] if mended else ""
        after = tokens[k + 1] if k + 1 < len(tokens) else ""
        relative = before in ("past", "to") and mended[-2:-1] in (["quarter"], ["half"])
        if token == "one" and (after in ("am", "pm") or relative):
            mended.append("1")
        elif len(token) == 1 and token.isdigit() and before in ("oh", "o") and len(mended) > 1 and mended[-2].isdigit():
            mended[-1] = "0" + token
        else:
            mended.append(token)
    return mended


# ------------------------------------------------------------------------------------------------ words for every world

_AREA_WORDS = {
    "centre": ("centre", "center", "central", "city centre", "city center", "town centre", "town center", "downtown",
               "middle of town", "centre of town", "center of town", "centre of the city", "center of the city",
               "centre of the town", "center of the town", "centre area", "center area"),
    **{side: (side, side + "ern", f"{side} side", f"{side} part", f"{side} end", f"{side} area", f"{side}side")
       for side in ("north", "east", "south", "west")},
}  # fmt: skip
_PRICE_WORDS = {
    "cheap": ("cheap", "cheaper", "cheaply", "cheapest", "inexpensive", "budget friendly", "budget hotel",
    "budget place", "budget option", "budget restaurant", "low cost", "low price", "low priced",
              "lower priced", "affordable", "economical", "low end"),
    "moderate": ("moderate", "moderately", "mid range", "midrange", "mid priced", "medium priced", "middle priced",
                 "reasonably priced", "moderatly", "modestly priced", "average priced", "medium price",
                 "moderate priced"),
    "expensive": ("expensive", "upscale", "pricey", "pricy", "high end", "fancy", "luxury", "luxurious", "posh",
                  "upmarket", "high priced", "higher end", "expensively"),
}  # fmt: skip
_DAY_WORDS = {
    "monday": ("mon",), "tuesday": ("tue", "tues", "teusday", "tuseday"),
    "wednesday": ("wednsday", "wensday", "wendesday", "wedensday", "weds"),
    "thursday": ("thu", "thur", "thurs", "thrusday", "thurday"), "friday": ("fri",),
    "saturday": ("saterday", "saturady"), "sunday": (),
}  # fmt: skip
# Cuisines that people ask for, whether or not a restaurant of the world serves them.
_CUISINES = (
    "afghan", "african", "american", "the americas", "australasian", "corsica", "molecular gastronomy", "north indian",
    "northern european", "asian", "asian oriental", "australian", "austrian", "barbeque", "basque", "belgian",
    "brazilian", "british", "cantonese", "caribbean", "catalan", "chinese", "christmas", "corsican", "creative",
    "crossover",
    "cuban", "danish", "english", "eritrean", "ethiopian", "european", "french", "fusion", "gastropub", "german",
    "greek",
    "halal", "hungarian", "indian", "indonesian", "international", "irish", "israeli", "italian", "jamaican",
    "japanese",
    "korean", "kosher", "latin american", "lebanese", "malaysian", "mediterranean", "mexican", "middle eastern",
    "modern european", "mongolian", "moroccan", "nepalese", "north african", "north american", "panasian", "persian",
    "peruvian", "polish", "polynesian", "portuguese", "romanian", "russian", "scandinavian", "scottish", "seafood",
    "singaporean", "south african", "south indian", "spanish", "sri lankan", "steakhouse", "sushi", "swedish",
    "swiss",
    "thai", "traditional", "turkish", "tuscan", "unusual", "vegan", "vegetarian", "venetian", "vietnamese", "welsh",
    "world",
)  # fmt: skip
# Words that are a food only beside a word such as "food".
FOOD_ONLY_WITH_NOUN = frozenset(
    {"creative", "christmas", "traditional", "unusual", "world", "english", "american", "european", "crossover",
    "british",
     "international", "fusion", "scottish", "welsh", "irish", "australian"}
)  # fmt: skip
_FOOD_WORDS = {
    "asian oriental": ("oriental", "asian oriental"), "barbeque": ("bbq", "barbecue"), "gastropub": ("gastro pub",),
    "seafood": ("sea food",), "indian": ("curry",), "vegetarian": ("veggie",),
}  # fmt: skip
_TYPE_WORDS = {
    "swimmingpool": ("swimming pool", "swimming pools", "swimming", "swim", "pools", "pool"),
    "nightclub": ("night club", "night clubs", "nightclubs", "nightclub"),
    "concerthall": ("concert hall", "concert halls", "concerthalls"),
    "multiplesports": ("multiple sport", "sports"), "sportscentre": ("sports center", "sport centre",
    "sport center", "sports"),
    "church": ("churches",), "zoo": ("zoos",), "boattrip": ("boat ride", "boat rides", "boat tour", "boating",
    "boats"),
    "cinema": ("movie theater", "movie theatre", "movies", "cinemas"), "theatre": ("theater", "theaters", "theatres"),
    "boat": ("boats", "boating", "boat rides", "boat ride", "boat tour", "boat trip"), "park": ("parks", "a park"),
    "museum": ("museums",), "gallery": ("galleries", "art gallery", "art galleries"),
    "architecture": ("architectural", "architectures"), "entertainment": ("entertainments",),
}  # fmt: skip
# A word that is too plain to mean the attraction by itself.
_PLAIN_TYPES = frozenset({"park", "boat"})
_GUESTHOUSE = ("guesthouse", "guesthouses", "guest house", "guest houses", "bed and breakfast", "bed and breakfasts",
               "b and b", "bandb", "bnb")  # fmt: skip

_DOMAIN_NOUNS = {
    "hotel": ("hotel", "hotels", "hostel", "motel", "lodging", "lodgings", "accommodation", "accommodations",
              "accomodation", "accomodations", "place to stay", "places to stay", "somewhere to stay", "stay at",
              "place to sleep", "room", "rooms", *_GUESTHOUSE),
    "restaurant": ("restaurant", "restaurants", "restaraunt", "resturant", "restuarant", "eatery", "eateries",
    "place to eat",
                   "places to eat", "place to dine", "places to dine", "somewhere to eat", "something to eat",
                   "dining",
                   "dine", "eat", "cuisine", "table", "dinner", "lunch", "meal", "bistro"),
    "attraction": ("attraction", "attractions", "place to go", "places to go", "place to visit", "places to visit",
                   "places to see", "place to see", "things to do", "thing to do", "something to do", "things to see",
                   "sightseeing", "points of interest", "point of interest", "somewhere to go", "tourist", "sights",
                   "something fun"),
    "train": ("train", "trains", "train ticket", "train tickets", "railway"),
    ELSEWHERE: ("taxi", "taxis", "cab", "hospital", "police", "bus", "car type", "tax to"),
}  # fmt: skip
_DOMAIN_HINTS = {
    "hotel": ("nights", "stay", "staying", "check in"),
    "restaurant": ("food", "eating", "foods", "dish"),
    "attraction": ("visit", "visiting", "college town"),
    "train": ("ticket", "tickets", "depart", "departs", "departing", "departure", "arrival", "travelling",
    "traveling",
              "travel", "seats"),
}  # fmt: skip
_SLOT_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "phone": (("attraction", "hotel", "restaurant"),
              ("phone number", "phone numbers", "phone", "telephone", "telephone number", "contact number",
               "contact information", "contact info", "contact details", "their number", "its number",
               "number to call")),
    "address": (("attraction", "hotel", "restaurant"), ("address", "addresses", "adress", "addres",
    "street address")),
    "postcode": (("attraction", "hotel", "restaurant"),
                 ("postcode", "postcodes", "post code", "postal code", "zip code", "zipcode", "zip", "post codes",
                  "postalcode")),
    "entrance fee": (("attraction",),
                     ("entrance fee", "entrance fees", "entry fee", "entry fees", "admission fee", "admission",
                      "admission price", "entrance price", "entrance cost", "entry price", "fee", "fees",
                      "entrance")),
    "area": (("attraction", "hotel", "restaurant"),
             ("area", "areas", "part of town", "part of the town", "part of the city", "part of city", "side of town",
              "location", "district")),
    "type": (("attraction", "hotel"), ("type", "types", "kind", "kinds", "attraction type", "hotel type", "sort")),
    "pricerange": (("hotel", "restaurant"),
                   ("price range", "pricerange", "price ranges", "pricing", "prices", "price point", "price rang")),
    "price": (("train", "hotel", "restaurant"), ("price", "cost", "costs", "fare", "ticket price", "total cost",
    "how much")),
    "food": (("restaurant",), ("type of food", "kind of food", "food type", "cuisine", "cuisines", "food", "foods",
                               "type of cuisine", "kind of cuisine", "types of food", "kinds of food",
                               "food served")),
    "stars": (("hotel",), ("star rating", "star ratings", "rating", "ratings", "how many stars", "stars", "star")),
    "internet": (("hotel",), ("internet", "wifi", "wi fi", "wireless", "internet access")),
    "parking": (("hotel",), ("parking", "car park", "parking space", "parking lot", "place to park")),
    "trainID": (("train",), ("train id", "trainid", "train ids", "train number", "id", "id number", "id of the train",
                             "train i d")),
    "duration": (("train",), ("duration", "travel time", "journey time", "how long", "travel times",
    "length of the trip",
                              "length of the journey", "trip time", "traveling time", "travelling time")),
    "leaveAt": (("train",), ("departure time", "departure times", "leaving time", "time of departure", "leave time")),
    "arriveBy": (("train",), ("arrival time", "arrival times", "time of arrival", "arrive time", "arriving time")),
    "reference": (("restaurant", "hotel", "train"),
                  ("reference number", "reference numbers", "reference", "ref number", "ref", "confirmation number",
                   "booking number", "reference code", "reservation number", "booking reference", "confirmation code",
                   "refrence number", "referrence number", "referance number")),
    "day": (("hotel", "restaurant", "train"), ("day", "days")),
    "time": (("restaurant", "train"), ("time", "times")),
    "name": (("attraction", "hotel", "restaurant"), ("name", "names")),
}  # fmt: skip

# A name made of these alone is plain English: it counts only where it is called a name, or was just offered.
_PLAIN_WORDS = frozenset(
    """a an and ask at bar best big blue cafe city club corner cote day dining east fine food for free fresh from full
    garden gallery golden good grand great green grill hall hill home hotel house in inn junction kitchen lodge
    lovely main man market meal moon new next nice north of old on park place plaza point pub red restaurant river
    room rooms school schools south square star station street table the time town travellers view village water
    west white luck with world yard college museum church theatre cinema bridge court stay visit guest
    guesthouse""".split()
)
_INNER_WORDS = frozenset({"and", "of", "at", "the", "by", "a", "on", "in", "du", "for"})
_GENERIC_ENDINGS = (
    ("restaurant", "and", "bar"), ("restaurant", "bar"), ("and", "bar"), ("guest", "house"), ("guesthouse",),
    ("restaurant",), ("hotel",), ("nightclub",), ("cinema",), ("bed", "and", "breakfast"), ("and", "breakfast"),
)  # fmt: skip

Phrase = tuple[tuple[str, ...], tuple[Sense, ...]]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The phrases of one world. Read-only, so one object serves every thread and every environment.

    Parameters
    ----------
    phrases
        First token -> the phrases that start with it, the longest first.
    open_words
        First letter -> the single-word foods and stations that a misspelt word may mean.
    names
        Rare token of an entity's name -> the names that hold it, as (tokens joined, sense).
    name_words
        First letter -> the keys of `names`.
    known
        Tokens that are words of their own, so no misspelling of others.
    """

    phrases: Mapping[str, tuple[Phrase, ...]]
    open_words: Mapping[str, tuple[str, ...]]
    names: Mapping[str, tuple[tuple[str, Sense], ...]]
    name_words: Mapping[str, tuple[str, ...]]
    known: frozenset[str]

    @classmethod
    def from_world(cls, world: Tables) -> Vocabulary:
        """Collect the vocabulary of a world: ``world.tables`` for names, ``world.values(domain, slot)`` for values."""
        table: dict[tuple[str, ...], list[Sense]] = {}
        for phrase, sense in _all_senses(world):
            tokens = tuple(tokenize(phrase))
            if tokens and sense not in table.setdefault(tokens, []):
                table[tokens].append(sense)
        by_first: dict[str, list[Phrase]] = {}
        for tokens, senses in table.items():
            kinds = {sense.kind for sense in senses}
            if "name" in kinds and len(kinds) > 1:
                # A value or a noun that happens to be an entity's short name means the value.
                senses = [sense for sense in senses if sense.kind != "name" or sense.exact] or senses
            by_first.setdefault(tokens[0], []).append((tokens, tuple(senses)))
        phrases = {
            first: tuple(sorted(entries, key=lambda entry: (-len(entry[0]), entry[0])))
            for first, entries in sorted(by_first.items())
        }
        open_words: dict[str, set[str]] = {}
        names: dict[str, list[tuple[str, Sense]]] = {}
        for tokens, senses in table.items():
            if any(sense.kind == "place" or sense.slot == "food" for sense in senses) and any(
                sense.kind in ("value", "place") for sense in senses
            ):
                if len(tokens) == 1 and len(tokens[0]) >= 5:
                    open_words.setdefault(tokens[0][0], set()).add(tokens[0])
            for sense in senses:
                if sense.kind == "name" or (sense.kind == "place" and len(tokens) > 1):
                    for token in set(tokens):
                        if len(token) >= 5 and token not in _PLAIN_WORDS:
                            names.setdefault(token, []).append((" ".join(tokens), sense))
        rare = {
            token: tuple(sorted(found, key=lambda n: n[0]))
            for token, found in sorted(names.items())
            if len(found) <= 12
        }
        return cls(
            phrases=phrases,
            open_words={first: tuple(sorted(words)) for first, words in sorted(open_words.items())},
            names=rare,
            name_words={first: tuple(w for w in rare if w[0] == first) for first in sorted({w[0] for w in rare})},
            known=frozenset(token for tokens in table for token in tokens) | COMMON_WORDS,
        )


def is_plain(tokens: Iterable[str]) -> bool:
    """Whether a name is made of everyday words only, so that a sentence can hold it by chance."""
    tokens = tuple(tokens)
    return len(tokens) <= 3 and all(token in _PLAIN_WORDS or token.isdigit() or len(token) == 1 for token in tokens)


def _values(world: Tables, domain: str, slot: str) -> tuple[str, ...]:
    """The values of a slot; none where the world lacks the table."""
    return tuple(world.values(domain, slot)) if domain in world.tables else ()


def _all_senses(world: Tables) -> Iterator[tuple[str, Sense]]:
    places = ("attraction", "hotel", "restaurant")
    for area in AREAS:
        for word in _AREA_WORDS.get(area, (area,)):
            yield word, Sense("value", "area", area, places)
    for area in sorted({value for domain in places for value in _values(world, domain, "area")} - set(AREAS)):
        yield area, Sense("value", "area", area, places)
    for price in PRICERANGES:
        for word in _PRICE_WORDS.get(price, (price,)):
            yield word, Sense("value", "pricerange", price, ("hotel", "restaurant"))
    for day in DAYS:
        for word in (day, day + "s", *_DAY_WORDS.get(day, ())):
            yield word, Sense("value", "day", day, ("hotel", "restaurant", "train"))
    for food in sorted({*_CUISINES, *_values(world, "restaurant", "food")}):
        for word in (food, *_FOOD_WORDS.get(food, ())):
            yield word, Sense("value", "food", food, ("restaurant",))
    for kind in _values(world, "attraction", "type"):
        bare = kind.replace(" ", "")
        words = _TYPE_WORDS.get(bare, ())
        plural = kind + ("es" if kind.endswith(("s", "ch", "sh", "x")) else "s")
        for word in (*(() if kind in _PLAIN_TYPES else (kind,)), plural, *words):
            yield word, Sense("value", "type", kind, ("attraction",))
        if kind in _PLAIN_TYPES:
            for article in ("a", "any", "the", "some", "local", "nice", "public"):
                yield f"{article} {kind}", Sense("value", "type", kind, ("attraction",))
    for kind in sorted({"guesthouse", *_values(world, "hotel", "type")} - {"hotel"}):
        for word in _GUESTHOUSE if kind == "guesthouse" else (kind, kind + "s"):
            yield word, Sense("value", "type", kind, ("hotel",))
    for slot, (domains, words) in _SLOT_WORDS.items():
        for word in words:
            yield word, Sense("slot", slot, "", domains)
    for domain, nouns in _DOMAIN_NOUNS.items():
        for word in nouns:
            yield word, Sense("domain", "", "", (domain,))
    for domain, hints in _DOMAIN_HINTS.items():
        for word in hints:
            yield word, Sense("hint", "", "", (domain,))
    yield from _places(sorted({*_values(world, "train", "departure"), *_values(world, "train", "destination")}))
    yield from _names(world)


def _places(stations: list[str]) -> Iterator[tuple[str, Sense]]:
    """Stations under their full names, and under each shorter form that only one of them has."""
    short: dict[str, set[str]] = {}
    for station in stations:
        tokens = tokenize(station)
        yield station, Sense("place", "", station, ("train",))
        forms = {" ".join(tokens[i:j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1)}
        forms |= {form[: -len("street")] + "st" for form in forms if form.endswith(" street")}
        for form in forms:
            short.setdefault(form, set()).add(station)
    full = {" ".join(tokenize(station)) for station in stations}
    for form, owners in sorted(short.items()):
        plain = is_plain(form.split()) or form in (
            "airport",
            "new",
            "cross",
            "kings",
            "central",
            "station",
            "road",
            "town",
        )
        if len(owners) == 1 and form not in full and not plain and len(form) >= 4:
            yield form, Sense("place", "", next(iter(owners)), ("train",), exact=False)


def _names(world: Tables) -> Iterator[tuple[str, Sense]]:
    """Entities under their full names, and under shorter forms that only one entity has."""
    short: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for domain in ("attraction", "hotel", "restaurant"):
        for entity in world.tables.get(domain, ()):
            tokens = tuple(tokenize(entity.name))
            yield entity.name, Sense("name", "name", entity.name, (domain,))
            forms = {tokens[1:] if tokens[:1] == ("the",) else tokens}
            for form in sorted(forms):
                for ending in _GENERIC_ENDINGS:
                    if form[-len(ending) :] == ending:
                        forms.add(form[: -len(ending)])
            for form in sorted(forms):
                # The opening words of a long name.
                if len(form) >= 4:
                    forms.update(form[:n] for n in (2, 3) if form[n - 1] not in _INNER_WORDS)
            for form in forms - {tokens, ()}:
                short.setdefault(form, set()).add((domain, entity.name))
    for form, owners in sorted(short.items()):
        if len(owners) == 1 and len("".join(form)) >= 3:
            domain, name = next(iter(owners))
            yield " ".join(form), Sense("name", "name", name, (domain,), exact=False)


# Everyday words of such conversations: none of them is a misspelt food, station or name.
COMMON_WORDS = frozenset(
    """about above actually after afternoon again against airport alone along already alright also although always
    amazing another anybody anyone anything anyway anywhere apologies appreciate appropriate around arrange arrival
    arrive arrives arriving asking available availability away awesome because become before being believe below
    best better between birthday booked booking bookings bring business called cannot celebrate certain certainly
    change check choice choose choosing christmas chosen clean clear close closer closest coming company completely
    concert confirm confused consider contact correct could couple course covers criteria curious customer daughter
    decide decided definitely departing depending describe destination details different difficult dining dinner
    direct directions does doing double drink drive earlier earliest early either else enough enter entire evening
    events every everyone everything exact exactly excellent excited exciting explore famous family fantastic
    favorite favourite field fifteen final finally find first flexible follow following forget forgot forward fresh
    friend friends front further future general getting giving going gotta great group guest guests guide guys
    happen happy having heading hello help helped helpful helping here history holiday honestly hopefully hoping
    hours house however hungry husband idea ideally important include included includes including indeed information
    inside instead interested interesting issue itself journey just kids kindly know known large largest last late
    later latest leave leaves leaving least length less lets liked listed little local located location long longer
    look looking looks lots love lovely made main major make making many matter maybe mean means meant meet meeting
    mentioned might mind minute minutes moment money month more morning mother most mostly much must myself name
    named near nearby need needed needing needs never next nice night nobody normal normally noted nothing number
    obviously offer offers okay older once online only open opening option options order other others otherwise ours
    outside over overall particular particularly parents partner party passengers people perfect perhaps person
    persons place places plan planned planning plans please pleasant plenty popular possible possibly pounds prefer
    preferably preference preferences preferred pretty price prices probably problem proceed provide public quick
    quickly quiet quite rather reach ready really reason reasonable receive recommend recommendation recommendations
    related relax remember request requirement requirements reservation reserve reserved return right round safe
    same schedule search searching seat second seeing seems select send serve served serves service serving seven
    several shall share short should show shows similar simple since single sister small some somebody someone
    something sometime somewhere soon sooner sorry sound sounds special specific specifically spend spending spent
    start started starting starts station stations stayed staying still stop stops straight street study stuff such
    suggest suggestion suggestions suit suits sunny sure surprise system take taken takes taking talk tell thank
    thanks that their them then there these they thing things think thinking this those though thought through
    tickets today together tomorrow tonight total tour touring tourist towards town train trains transport travel
    traveling travelling tried trip trips trouble trying turn twice type under understand unfortunately university
    unless until upcoming useful using usually vacation various very visit visited visiting visitors wait waiting
    walk wanna want wanted wanting wants watch weather website week weekend welcome were what whatever when where
    whether which whichever while whole whose wife will wish within without wonder wonderful wondering word work
    working works world worry worth would write wrong year years yesterday young your yours yourself parking
    internet spacious trade train's frame print stevens indiana finish furnish polish brutish""".split()
)
