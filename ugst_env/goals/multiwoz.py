"""User goals of MultiWOZ, from a JSON list of ``{"id", "goal": {domain: {info, fail_info, book, fail_book, reqt}}}``.

What a goal's fields become:

- ``info``: search conditions.
- ``fail_info``, what to ask for first, as nothing will be found: the slots in which it differs from ``info`` become
  conditional wants (that value first, the one of ``info`` when there is no match), provided that truly nothing in the
  world matches ``fail_info``. In the published goals that is so for six in ten. Otherwise the user would be given what
  it was to be refused, so ``fail_info`` is left out and the values of ``info`` hold from the start.
- ``book``, ``fail_book``: details of the booking, conditional likewise, provided that each place that fits is full.
- ``reqt``: things to ask for.

``book.invalid`` and ``book.pre_invalid`` are bookkeeping of the collection, and ignored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ugst_env.dialogue.acts import DONTCARE
from ugst_env.goal import Ask, Objective, UserGoal, Want
from ugst_env.goals.describe import describe
from ugst_env.goals.generator import booking, matches
from ugst_env.world.database import World, clock, minutes, normalise
from ugst_env.world.ontology import BOOKABLE, DOMAINS, INFORMABLE, REQUESTABLE

_BOOKKEEPING = ("invalid", "pre_invalid")


def load_multiwoz_goals(
    path: str | Path, world: World, *, strict: bool = False
) -> tuple[tuple[UserGoal, ...], dict[str, int]]:
    """Read the goals of a MultiWOZ goal file.

    Parameters
    ----------
    path
        The JSON file.
    world
        The world in which the goals are pursued; it decides which failures are real.
    strict
        Whether to refuse a goal that cannot be represented, instead of leaving it out.

    Returns
    -------
    goals, dropped
        The goals in the order of the file, and the number of goals left out per reason.

    Raises
    ------
    ValueError
        If the file is no such list; with `strict`, for the first goal that cannot be represented, with the reason.
    """
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, but {error}") from error
    if not isinstance(records, list):
        raise ValueError(f"{path} must hold a list of goals, got {type(records).__name__}")
    goals: list[UserGoal] = []
    dropped: Counter[str] = Counter()
    for index, record in enumerate(records):
        name = str(record.get("id", index)) if isinstance(record, dict) else str(index)
        try:
            goals.append(_goal(record, name, world))
        except ValueError as error:
            if strict:
                raise ValueError(f"{path}, goal {name}: {error}") from error
            dropped[str(error)] += 1
    return tuple(goals), dict(dropped)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping, got {type(value).__name__}")
    return value


def _goal(record: Any, name: str, world: World) -> UserGoal:
    domains = _mapping(_mapping(record, "a goal").get("goal"), "the key 'goal'")
    # Some releases give every domain, the unused ones as {}.
    used = {domain: fields for domain, fields in domains.items() if fields and domain not in ("message", "topic")}
    for domain in used:
        if domain not in DOMAINS:
            raise ValueError(f"the domain {domain!r} is none of {', '.join(DOMAINS)}")
        if domain not in world.domains:
            raise ValueError(f"the world {world.name!r} has no table for {domain!r}")
    return UserGoal(tuple(_objective(domain, used[domain], world) for domain in DOMAINS if domain in used), id=name)


def _objective(domain: str, given: Any, world: World) -> Objective:
    fields = _mapping(given, f"the goal for {domain}")
    info = _values(domain, fields.get("info"), INFORMABLE[domain])
    details = tuple(slot for slot in BOOKABLE[domain] if slot not in INFORMABLE[domain])
    book = _values(domain, fields.get("book"), details)
    asks = fields.get("reqt") or []
    for slot in asks:
        if slot not in REQUESTABLE[domain]:
            raise ValueError(f"nobody can ask for the slot {slot!r} of a {domain}")
    action = "book" if book else "find"
    found = Objective(domain, action, tuple(Want(s, v) for s, v in info.items()))
    fail_info = _values(domain, fields.get("fail_info"), INFORMABLE[domain])
    if world.search(domain, {**info, **fail_info}):
        fail_info = {}
    fail_book = _values(domain, fields.get("fail_book"), details)
    if fail_book and not _all_full(found, {**book, **fail_book}, world, fail_info):
        fail_book = {}
    return describe(
        Objective(
            domain,
            action,
            (*_wants(info, fail_info), *_wants(book, fail_book), *(Ask(slot) for slot in dict.fromkeys(asks))),
        )
    )


def _all_full(found: Objective, details: Mapping[str, str], world: World, fail_info: Mapping[str, str]) -> bool:
    """Whether the world has places that fit, and none of them takes the booking."""
    wanted = Objective(found.domain, "book", (*found.requirements, *(Want(s, v) for s, v in details.items())))
    places = matches(wanted, world)
    complete = set(details) == set(BOOKABLE[found.domain])
    return bool(places) and complete and all(world.unavailable(place, booking(wanted, place)) for place in places)


def _wants(values: Mapping[str, str], failing: Mapping[str, str]) -> list[Want]:
    """One want per slot; where the failing values differ, they come first and the right ones are the alternative."""
    return [
        Want(slot, failing[slot], value, "no_match") if failing.get(slot, value) != value else Want(slot, value)
        for slot, value in values.items()
    ]


def _values(domain: str, given: Any, slots: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for slot, value in _mapping(given or {}, f"a part of the goal for {domain}").items():
        if slot in _BOOKKEEPING:
            continue
        if slot not in slots:
            raise ValueError(f"a {domain} has no slot {slot!r} here")
        text = normalise(slot, str(value))
        if text in ("", DONTCARE, "do not care", "don't care"):
            continue
        values[slot] = clock(minutes(text)) if slot == "time" else text
    return values
