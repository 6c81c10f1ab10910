"""The world: tables of entities to search, and bookings that succeed or fail for a reason.

A world is read-only. Chance plays no part: what is full, and which reference a booking gets, is a hash of the world's
name, the entity and the booking, so every process and every run agrees.
"""

from __future__ import annotations

import csv
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import compress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ugst_env.world.ontology import BOOKABLE, DAYS, DOMAINS, INFORMABLE, REQUESTABLE

# The slot that names an entity.
NAME_SLOT = {"attraction": "name", "hotel": "name", "restaurant": "name", "train": "trainID"}
# Every slot that an entity of a domain can have, the name first.
SLOTS = {
    domain: tuple(dict.fromkeys((NAME_SLOT[domain], *INFORMABLE[domain], *REQUESTABLE[domain]))) for domain in DOMAINS
}
TIME_SLOTS = ("leaveAt", "arriveBy")

HOTEL_MAX_PEOPLE = 8
RESTAURANT_MAX_PEOPLE = range(6, 21)
TRAIN_MAX_PEOPLE = 40
# About one hotel booking in eight fails at the usual two to three nights.
HOTEL_NIGHT_FULL = 0.05
RESTAURANT_TABLE_FULL = 0.12
TRAIN_FULL = 0.05

_DATA = Path(__file__).parent / "data"
_SHIPPED = {"default": "quillminster", "quillminster": "quillminster"}
# The same word as dialogue.acts.DONTCARE; the world stands below the dialogue package and imports nothing of it.
_DONTCARE = "dontcare"
_UNKNOWN = frozenset({"", "?", "-", "none", "unknown", "not available", "not mentioned"})
# Other spellings of a value, met in MultiWOZ's databases and goals, and the one that is used here.
_SPELLINGS: Mapping[str, Mapping[str, str]] = {
    "type": {
        "mutliple sports": "multiple sports",
        "mutiple sports": "multiple sports",
        "swimmingpool": "swimming pool",
        "concerthall": "concert hall",
        "night club": "nightclub",
        "guest house": "guesthouse",
        "guest houses": "guesthouse",
    },
    "area": {"center": "centre", "city centre": "centre", "city center": "centre"},
    "pricerange": {"moderately": "moderate", "moderately priced": "moderate", "inexpensive": "cheap"},
    "internet": {"free": "yes", "true": "yes", "false": "no"},
    "parking": {"free": "yes", "true": "yes", "false": "no"},
}
# Up to here it is faster to take the bits of a set one by one than to look at all of them.
_FEW = 40
_TRUTH = bytes.maketrans(b"01", b"\x00\x01")
_TIME = re.compile(r"([0-9]{1,2}):([0-5][0-9])")
_REFERENCE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def minutes(time: str) -> int:
    """Minutes since midnight of ``"HH:MM"`` or ``"H:MM"``, from 00:00 to 47:59 (24:00 and later is the next day).

    Raises
    ------
    ValueError
        If it is no such time.
    """
    match = _TIME.fullmatch(time.strip())
    if match is None or int(match[1]) > 47:
        raise ValueError(f"a time must be HH:MM from 00:00 to 47:59 (24:00 and later is the next day), got {time!r}")
    return int(match[1]) * 60 + int(match[2])


def clock(total: int) -> str:
    """The time ``"HH:MM"`` of a number of minutes since midnight."""
    return f"{total // 60:02d}:{total % 60:02d}"


def normalise(slot: str, value: str) -> str:
    """The spelling of a slot's value that worlds use: lower case, single spaces, times as HH:MM, trainIDs in capitals.

    Raises
    ------
    ValueError
        If `value` is no string, or a time slot's value is no time.
    """
    if not isinstance(value, str):
        raise ValueError(f"the value of {slot!r} must be a string, got {value!r}")
    return _normalise(slot, value)


# Tables hold few values many times over, and an agent asks for the same ones again and again.
@lru_cache(maxsize=16384)
def _normalise(slot: str, value: str) -> str:
    text = " ".join(value.lower().split())
    if slot in TIME_SLOTS:
        return clock(minutes(text))
    if slot == "trainID":
        return text.upper()
    return _SPELLINGS[slot].get(text, text) if slot in _SPELLINGS else text


@lru_cache(maxsize=16384)
def name_key(name: str) -> str:
    """What two spellings of one name share: no case, no spaces, no leading "the"."""
    return "".join(name.lower().strip().removeprefix("the ").split())


@dataclass(frozen=True)
class Entity:
    """One row of a table.

    Parameters
    ----------
    domain
        One of `DOMAINS`.
    name
        Unlike every other name of its table. A train's name is its trainID.
    attributes
        Slot to value, the name's own slot included. A slot whose value nobody knows is absent.
    """

    domain: str
    name: str
    attributes: Mapping[str, str] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy can be neither pickled nor deep-copied.
        return Entity, (self.domain, self.name, dict(self.attributes))


@dataclass(frozen=True)
class Booking:
    """The outcome of a booking: either `reference`, 8 letters and digits, or `failure`, why there is none."""

    entity: Entity
    booking: Mapping[str, str] = field(hash=False)
    reference: str | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "booking", MappingProxyType(dict(self.booking)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Booking, (self.entity, dict(self.booking), self.reference, self.failure)


class _Index:
    """Sets of rows as integers, bit `i` standing for row `i`: an intersection of sets is one ``&``."""

    def __init__(self, domain: str, rows: tuple[Entity, ...]) -> None:
        self.domain = domain
        self.rows = rows
        # What one conversation looks for, it looks for turn after turn.
        self.listed = lru_cache(maxsize=256)(self._list)
        self.matching = lru_cache(maxsize=4096)(self._matching)
        self.everything = (1 << len(rows)) - 1
        self.by_value: dict[str, dict[str, int]] = {slot: {} for slot in SLOTS[domain]}
        self.by_name: dict[str, int] = {}
        for i, row in enumerate(rows):
            if self.by_name.setdefault(name_key(row.name), i) != i:
                raise ValueError(f"names must differ within a table, got {row.name!r} twice in {domain!r}")
            for slot, value in row.attributes.items():
                found = self.by_value[slot]
                found[value] = found.get(value, 0) | 1 << i
        self.values = {slot: tuple(sorted(found)) for slot, found in self.by_value.items()}
        # HH:MM sorts as a string just as it does as a time. departing[k]: leaves at the k-th time or later;
        # arrived[k]: arrives before the k-th time.
        self.departing, self.arrived = [0], [0]
        if domain == "train":
            for time in reversed(self.values["leaveAt"]):
                self.departing.append(self.departing[-1] | self.by_value["leaveAt"][time])
            self.departing.reverse()
            for time in self.values["arriveBy"]:
                self.arrived.append(self.arrived[-1] | self.by_value["arriveBy"][time])
            order = sorted(range(len(rows)), key=lambda i: _latest_first(rows[i]))
            self.rank = {i: rank for rank, i in enumerate(order)}

    def _list(self, found: int, by_arrival: bool) -> tuple[Entity, ...]:
        if by_arrival:
            return tuple([self.rows[i] for i in sorted(_bits(found), key=self.rank.__getitem__)])
        if found == self.everything:
            return self.rows
        if found.bit_count() < _FEW:
            return tuple([self.rows[i] for i in _bits(found)])
        return tuple(compress(self.rows, bin(found)[:1:-1].encode().translate(_TRUTH)))

    def meeting(self, constraints: Mapping[str, str], rows: int) -> int:
        """Those of `rows` that meet every constraint."""
        for slot, value in constraints.items():
            if slot not in self.by_value:
                raise ValueError(f"a {self.domain} can be searched by {_listed(SLOTS[self.domain])}, got {slot!r}")
            if value != _DONTCARE:
                rows &= self.matching(slot, value)
        return rows

    def _matching(self, slot: str, value: str) -> int:
        if slot == "name" or slot == "trainID":
            i = self.by_name.get(name_key(value))
            return 0 if i is None else 1 << i
        value = normalise(slot, value)
        if slot == "leaveAt":
            return self.departing[bisect_left(self.values[slot], value)]
        if slot == "arriveBy":
            return self.arrived[bisect_right(self.values[slot], value)]
        return self.by_value[slot].get(value, 0)


def _by_departure(train: Entity) -> tuple[int, str, str]:
    return _day_number(train), train.attributes.get("leaveAt", ""), train.name


def _latest_first(train: Entity) -> tuple[int, int, str]:
    arrival = train.attributes.get("arriveBy")
    return _day_number(train), -minutes(arrival) if arrival else 0, train.name


def _day_number(train: Entity) -> int:
    day = train.attributes.get("day")
    return DAYS.index(day) if day in DAYS else len(DAYS)


@dataclass(frozen=True)
class World:
    """Tables of entities. Read-only, so threads and environments can share one, and picklable.

    Parameters
    ----------
    name
        Whose world this is. Bookings depend on it: two worlds with the same rows are full at different times.
    tables
        Domain to entities; any of `DOMAINS` may be left out. Trains are put in order of day and departure, other
        tables keep their order.

    Raises
    ------
    ValueError
        With an unknown domain or slot, a value in another spelling than `normalise` gives, or
        two entities of one table with one name.
    """

    name: str
    tables: Mapping[str, tuple[Entity, ...]] = field(hash=False, repr=False)

    def __post_init__(self) -> None:
        unknown = [domain for domain in self.tables if domain not in DOMAINS]
        if unknown:
            raise ValueError(f"a world's tables are of {_listed(DOMAINS)}, got {_listed(self.tables)}")
        tables = {domain: tuple(self.tables[domain]) for domain in DOMAINS if domain in self.tables}
        for domain, rows in tables.items():
            for row in rows:
                _check(domain, row)
        if "train" in tables:
            tables["train"] = tuple(sorted(tables["train"], key=_by_departure))
        object.__setattr__(self, "tables", MappingProxyType(tables))
        object.__setattr__(self, "_indexes", {domain: _Index(domain, rows) for domain, rows in tables.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return World, (self.name, dict(self.tables))

    def __deepcopy__(self, memo: dict[int, Any]) -> World:
        # gymnasium.make deep-copies its keyword arguments, a world among them.
        return self

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that this world has a table for, in the order of `DOMAINS`."""
        return tuple(self.tables)

    @classmethod
    def load(cls, name_or_folder: str | Path = "default") -> World:
        """Load a shipped world by its name, or a world of your own from a folder.

        A folder holds one CSV file (UTF-8) per table: ``hotel.csv``, ``restaurant.csv``, ``attraction.csv``,
        ``train.csv``. Any of them may be left out. The first line names the slots, in any order, out of `SLOTS`; each
        further line is one entity. The name (``trainID`` for trains) must be there and must differ from row to row;
        an empty cell says that the value is not known. Days are ``"monday"`` to ``"sunday"``, times HH:MM (24:10 is
        ten past midnight); every other value may be any text. The world is called after the folder. A folder with
        MultiWOZ's ``*_db.json`` files is read by `from_multiwoz`.

        Parameters
        ----------
        name_or_folder
            ``"default"`` (the shipped city, ``"quillminster"``), or the path of a folder. A shipped world is loaded
            once per process.

        Raises
        ------
        FileNotFoundError
            If it is neither a shipped world nor a folder with tables.
        ValueError
            If a table cannot be used; names the file and the line.
        """
        if name_or_folder in _SHIPPED:
            return _shipped(_SHIPPED[str(name_or_folder)])
        folder = Path(name_or_folder)
        if any((folder / f"{domain}_db.json").is_file() for domain in DOMAINS):
            return cls.from_multiwoz(folder)
        return _read_folder(folder)

    @classmethod
    def from_multiwoz(cls, folder: str | Path, *, domains: Sequence[str] = DOMAINS) -> World:
        """Load MultiWOZ's databases, ``{hotel,restaurant,attraction,train}_db.json``.

        Columns that are no slot of the ontology (location, opening hours, room prices, …) are left out, and so is a
        value that is empty or ``"?"``. Values are brought to one spelling (`normalise`). An arrival past midnight
        counts on after 24:00, whichever way the file has it (23:59 to "01:27" becomes "25:27"). A name that was given
        before gets a letter on a train (TR1006, TR1006B: hundreds of trainIDs are given twice), a number elsewhere.

        Parameters
        ----------
        folder
            Where the files are.
        domains
            The tables to load.

        Raises
        ------
        FileNotFoundError
            If a table's file is missing.
        ValueError
            If a file is not a list of JSON objects with names.
        """
        return cls("multiwoz", {domain: _read_multiwoz(Path(folder), domain) for domain in domains})

    def search(self, domain: str, constraints: Mapping[str, str]) -> tuple[Entity, ...]:
        """All entities that meet every constraint, in the table's order.

        Trains come by day and departure; where `arriveBy` is given and `leaveAt` is not, by day and latest arrival
        first, which is what someone who must be there by a certain time wants to hear about.

        Parameters
        ----------
        domain
            One of this world's `domains`.
        constraints
            Slot (any of ``SLOTS[domain]``) to value. ``"dontcare"`` is no constraint. ``leaveAt`` means departing then
            or later, ``arriveBy`` arriving then or earlier. A name may differ in case, spaces and a leading "the". An
            entity without a value for a slot does not match a constraint on it.

        Raises
        ------
        ValueError
            For an unknown domain or slot, and for a time that is none.
        """
        index = self._index(domain)
        found = index.meeting(constraints, index.everything)
        by_arrival = (
            constraints.get("arriveBy", _DONTCARE) != _DONTCARE and constraints.get("leaveAt", _DONTCARE) == _DONTCARE
        )
        return index.listed(found, by_arrival)

    def has(self, domain: str, constraints: Mapping[str, str]) -> bool:
        """Whether `search` finds anything."""
        index = self._index(domain)
        return bool(index.meeting(constraints, index.everything))

    def fits(self, entity: Entity, constraints: Mapping[str, str]) -> bool:
        """Whether an entity of this world is among those that `search` finds, without listing them."""
        index = self._index(entity.domain)
        return bool(index.meeting(constraints, 1 << index.by_name[name_key(entity.name)]))

    def find(self, domain: str, name: str) -> Entity | None:
        """The entity of that name, whatever its case, spaces and leading "the"; None if there is none."""
        index = self._index(domain)
        i = index.by_name.get(name_key(name))
        return None if i is None else index.rows[i]

    def values(self, domain: str, slot: str) -> tuple[str, ...]:
        """The distinct values of a slot in a table, sorted as strings.

        Raises
        ------
        ValueError
            For an unknown domain or slot.
        """
        index = self._index(domain)
        if slot not in index.values:
            raise ValueError(f"a {domain} has the slots {_listed(SLOTS[domain])}, got {slot!r}")
        return index.values[slot]

    def unavailable(self, entity: Entity, booking: Mapping[str, str]) -> str | None:
        """Why a booking would fail, or None if it would not.

        ``"party_too_large"``: more than 8 people in a hotel, 40 on a train, or what a restaurant takes (6 to 20, each
        its own). ``"full"``: a hotel in one of the nights of the stay, a restaurant on that day at that time, a train.

        Parameters
        ----------
        entity
            An entity of this world.
        booking
            The slots ``BOOKABLE[entity.domain]`` and no others: people and stay are whole numbers from 1, day one of
            `DAYS`, time HH:MM before 24:00.

        Raises
        ------
        ValueError
            For an entity of another world or of a domain that takes no bookings, and for a slot that is missing,
            unknown or malformed.
        """
        return self._unavailable(entity, self._accept(entity, booking))

    def book(self, entity: Entity, booking: Mapping[str, str]) -> Booking:
        """Book an entity. Nothing is used up: the same booking has the same outcome and reference each time.

        Parameters, errors and reasons for failure are those of `unavailable`.
        """
        accepted = self._accept(entity, booking)
        failure = self._unavailable(entity, accepted)
        if failure is not None:
            return Booking(entity, accepted, failure=failure)
        return Booking(entity, accepted, reference=self._reference(entity, accepted))

    def _index(self, domain: str) -> _Index:
        indexes: dict[str, _Index] = self.__dict__["_indexes"]
        if domain not in indexes:
            if domain in DOMAINS:
                raise ValueError(f"this world has no {domain!r} table; it has {_listed(self.domains)}")
            raise ValueError(f"domain must be one of {_listed(self.domains)}, got {domain!r}")
        return indexes[domain]

    def _accept(self, entity: Entity, booking: Mapping[str, str]) -> dict[str, str]:
        if self.find(entity.domain, entity.name) != entity:
            raise ValueError(f"the {entity.domain} {entity.name!r} is not one of the world {self.name!r}")
        slots = BOOKABLE[entity.domain]
        if not slots:
            raise ValueError(f"{entity.domain} takes no bookings; only {_listed(d for d in DOMAINS if BOOKABLE[d])} do")
        if set(booking) != set(slots):
            raise ValueError(f"booking a {entity.domain} takes {_listed(slots)}, got {_listed(booking) or 'nothing'}")
        return {slot: _booking_value(slot, booking[slot]) for slot in slots}

    def _unavailable(self, entity: Entity, booking: Mapping[str, str]) -> str | None:
        people = int(booking["people"])
        if entity.domain == "hotel":
            if people > HOTEL_MAX_PEOPLE:
                return "party_too_large"
            first = DAYS.index(booking["day"])
            nights = range(first, first + min(int(booking["stay"]), len(DAYS)))
            full = any(self._share(entity, DAYS[night % len(DAYS)]) < HOTEL_NIGHT_FULL for night in nights)
        elif entity.domain == "restaurant":
            if people > RESTAURANT_MAX_PEOPLE[int(self._share(entity, "largest party") * len(RESTAURANT_MAX_PEOPLE))]:
                return "party_too_large"
            full = self._share(entity, booking["day"], booking["time"]) < RESTAURANT_TABLE_FULL
        else:
            if people > TRAIN_MAX_PEOPLE:
                return "party_too_large"
            full = self._share(entity, "seats") < TRAIN_FULL
        return "full" if full else None

    def _share(self, entity: Entity, *parts: str) -> float:
        """A number in [0, 1) that depends on the world, the entity and `parts` only."""
        return int.from_bytes(self._digest(entity, *parts), "big") / 2**64

    def _reference(self, entity: Entity, booking: Mapping[str, str]) -> str:
        number = int.from_bytes(self._digest(entity, "reference", *booking.values()), "big")
        characters = []
        for place in range(8):
            # Letters and digits take turns, so that no reference reads as a word, a number or a time.
            alphabet = _REFERENCE_LETTERS if place % 2 == 0 else "23456789"
            number, rest = divmod(number, len(alphabet))
            characters.append(alphabet[rest])
        return "".join(characters)

    def _digest(self, entity: Entity, *parts: str) -> bytes:
        # Not hash(): it differs from process to process.
        return blake2b("\x1f".join((self.name, entity.domain, entity.name, *parts)).encode(), digest_size=8).digest()


def _bits(number: int) -> Iterator[int]:
    """The positions of the set bits, lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _listed(words: Iterable[str]) -> str:
    return ", ".join(repr(word) for word in words)


def _check(domain: str, entity: Entity) -> None:
    if entity.domain != domain:
        raise ValueError(f"the table {domain!r} holds entities of that domain, got the {entity.domain} {entity.name!r}")
    if entity.attributes.get(NAME_SLOT[domain]) != entity.name:
        raise ValueError(f"the {domain} {entity.name!r} must have its name as its {NAME_SLOT[domain]!r} attribute")
    for slot, value in entity.attributes.items():
        if slot not in SLOTS[domain]:
            raise ValueError(f"a {domain} has the slots {_listed(SLOTS[domain])}, got {slot!r} for {entity.name!r}")
        if not value or _normalise(slot, value) != value:
            raise ValueError(
                f"{slot} of the {domain} {entity.name!r} must be spelt as normalise() does and not empty, got {value!r}"
            )


_BOOKING_FORMS = {
    "people": "a whole number from 1, as a string",
    "stay": "a whole number from 1, as a string",
    "day": f"one of {_listed(DAYS)}",
    "time": "HH:MM from 00:00 to 23:59",
}


def _booking_value(slot: str, value: str) -> str:
    accepted = _read_booking_value(slot, value) if isinstance(value, str) else None
    if accepted is None:
        raise ValueError(f"{slot} must be {_BOOKING_FORMS[slot]}, got {value!r}")
    return accepted


@lru_cache(maxsize=4096)
def _read_booking_value(slot: str, value: str) -> str | None:
    text = value.strip().lower()
    if slot in ("people", "stay"):
        # isdecimal() holds for digits of other scripts too, and int() reads them.
        whole = text.isascii() and text.isdecimal() and len(text) <= 4 and int(text) > 0
        return str(int(text)) if whole else None
    if slot == "day":
        return text if text in DAYS else None
    return clock(minutes(text)) if _TIME.fullmatch(text) and minutes(text) < 24 * 60 else None


@cache
def _shipped(name: str) -> World:
    return _read_folder(_DATA / name)


def _read_folder(folder: Path) -> World:
    files = {domain: folder / f"{domain}.csv" for domain in DOMAINS if (folder / f"{domain}.csv").is_file()}
    if not files:
        wanted = ", ".join(f"{domain}.csv" for domain in DOMAINS)
        raise FileNotFoundError(
            f"a world is 'default', 'quillminster', or a folder with at least one of {wanted}, got {str(folder)!r}"
        )
    return World(folder.resolve().name, {domain: tuple(_read_csv(path, domain)) for domain, path in files.items()})


def _read_csv(path: Path, domain: str) -> Iterator[Entity]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        slots = next(lines, [])
        if NAME_SLOT[domain] not in slots or not set(slots) <= set(SLOTS[domain]) or len(set(slots)) < len(slots):
            raise ValueError(
                f"{path}: the first line must hold {NAME_SLOT[domain]!r} and any of {_listed(SLOTS[domain])}, each "
                f"once, got {_listed(slots) or 'nothing'}"
            )
        for cells in lines:
            if not cells:
                continue
            try:
                if len(cells) != len(slots):
                    raise ValueError(f"expected {len(slots)} cells, got {len(cells)}")
                yield _entity(domain, zip(slots, cells, strict=True))
            except ValueError as error:
                raise ValueError(f"{path}, line {lines.line_num}: {error}") from error


@lru_cache(maxsize=16384)
def _known(slot: str, cell: str) -> str:
    return "" if cell.strip().lower() in _UNKNOWN else _normalise(slot, cell)


def _entity(domain: str, cells: Iterable[tuple[str, str]]) -> Entity:
    attributes = {slot: value for slot, cell in cells if (value := _known(slot, cell))}
    name = attributes.get(NAME_SLOT[domain])
    if name is None:
        raise ValueError(f"a {domain} must have a {NAME_SLOT[domain]!r}")
    day = attributes.get("day")
    if day is not None and day not in DAYS:
        raise ValueError(f"day must be one of {_listed(DAYS)}, got {day!r}")
    return Entity(domain, name, attributes)


def _read_multiwoz(folder: Path, domain: str) -> tuple[Entity, ...]:
    if domain not in DOMAINS:
        raise ValueError(f"domains must be out of {_listed(DOMAINS)}, got {domain!r}")
    path = folder / f"{domain}_db.json"
    if not path.is_file():
        raise FileNotFoundError(f"MultiWOZ's {domain!r} table is missing: no {path.name} in the folder {str(folder)!r}")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, but {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} must hold a list of objects, one per {domain}")
    entities = []
    times_seen: dict[str, int] = {}
    for number, row in enumerate(rows):
        cells = {slot: str(row[slot]).strip(" ,") for slot in SLOTS[domain] if isinstance(row.get(slot), str | int)}
        try:
            if "leaveAt" in cells and "arriveBy" in cells and minutes(cells["arriveBy"]) < minutes(cells["leaveAt"]):
                cells["arriveBy"] = clock(minutes(cells["arriveBy"]) + 24 * 60)
            entity = _entity(domain, cells.items())
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from error
        key = name_key(entity.name)
        times_seen[key] = times_seen.get(key, 0) + 1
        if times_seen[key] > 1:
            suffix = chr(ord("A") + times_seen[key] - 1) if domain == "train" else f" {times_seen[key]}"
            name = entity.name + suffix
            entity = Entity(domain, name, {**entity.attributes, NAME_SLOT[domain]: name})
        entities.append(entity)
    return tuple(entities)
