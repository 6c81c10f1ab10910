"""The discrete face of an agent: 44 dialogue acts, what each needs, and the observation of what the agent heard."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ugst_env.dialogue.acts import DONTCARE, USER_ACT_KINDS, AgentAct
from ugst_env.dialogue.belief import BeliefState
from ugst_env.world.database import Entity, World
from ugst_env.world.ontology import ASKABLE_SLOTS, BELIEF_SLOTS, BOOKABLE, DOMAINS, INFORMABLE

BOOKING_DOMAINS = tuple(domain for domain in DOMAINS if BOOKABLE[domain])


@dataclass(frozen=True)
class Action:
    """One of the discrete actions: an act kind, with its domain and slot."""

    kind: str
    domain: str | None = None
    slot: str | None = None

    def __str__(self) -> str:
        inside = ", ".join(part for part in (self.domain, self.slot) if part)
        return f"{self.kind}({inside})" if inside else self.kind


def _actions() -> tuple[Action, ...]:
    # An entity's name is offered, not asked for.
    requests = [Action("request", domain, slot) for domain, slot in BELIEF_SLOTS if slot != "name"]
    offers = [Action(kind, d) for kind in ("offer", "offer_next", "inform_requested", "no_offer") for d in DOMAINS]
    books = [Action("book", domain) for domain in BOOKING_DOMAINS]
    return (*requests, *offers, *books, Action("req_more"), Action("bye"))


ACTIONS = _actions()
ACTION_INDEX = {action: index for index, action in enumerate(ACTIONS)}

# A search is quoted in these steps: how many entities fit at most.
COUNT_STEPS = (0, 1, 2, 4, 10)

_FEATURES: dict[str, Sequence[Any]] = {
    "user_acts": USER_ACT_KINDS,
    "informed": BELIEF_SLOTS,
    "requested": ASKABLE_SLOTS,
    "filled": BELIEF_SLOTS,
    "dontcare": BELIEF_SLOTS,
    "pending": ASKABLE_SLOTS,
    "last_action": range(len(ACTIONS)),
    "match_count": [(domain, step) for domain in DOMAINS for step in range(len(COUNT_STEPS) + 1)],
    "raised": DOMAINS,
    "offered": DOMAINS,
    "offer_fits": DOMAINS,
    "another": DOMAINS,
    "refused": DOMAINS,
    "answered": DOMAINS,
    "wants_booking": BOOKING_DOMAINS,
    "booking_ready": BOOKING_DOMAINS,
    "booked": BOOKING_DOMAINS,
    "booking_failed": BOOKING_DOMAINS,
    "domain": DOMAINS,
    "turn": ("turn",),
}


def _layout() -> dict[str, slice]:
    begin, layout = 0, {}
    for name, keys in _FEATURES.items():
        layout[name] = slice(begin, begin + len(keys))
        begin += len(keys)
    return layout


# Where each feature stands in the observation vector.
LAYOUT = _layout()
OBSERVATION_SIZE = sum(map(len, _FEATURES.values()))
_NOTHING = array("f", [0.0] * (OBSERVATION_SIZE + 1))
# Where each of its members stands: _AT["raised"]["hotel"].
_AT: dict[str, dict[Any, int]] = {
    name: {key: LAYOUT[name].start + k for k, key in enumerate(keys)} for name, keys in _FEATURES.items()
}


class View(NamedTuple):
    """What the database says about the belief: the entities that fit, and the one to offer next, per domain.

    And the actions, by their positions in `ACTIONS`, that the agent can carry out as things stand.
    """

    fits: dict[str, tuple[Entity, ...]]
    first: dict[str, Entity | None]
    another: dict[str, Entity | None]
    possible: list[int]


def look(belief: BeliefState, world: World) -> View:
    """Search the world with the belief, once per domain that the user raised."""
    fits, first, another = {}, {}, {}
    for domain in DOMAINS:
        if domain in belief.raised and domain in world.tables:
            fits[domain] = belief.candidates(domain, world)
            first[domain] = belief.next_candidate(domain, fits[domain], after_offer=False)
            another[domain] = belief.next_candidate(domain, fits[domain], after_offer=True)
    return View(fits, first, another, _possible(belief, first, another))


_ALWAYS = [index for index, action in enumerate(ACTIONS) if action.domain is None]
_OF_DOMAIN = {
    domain: {action.kind: index for index, action in enumerate(ACTIONS) if action.domain == domain}
    for domain in DOMAINS
}
_REQUESTS = {
    domain: [
        (index, (domain, action.slot), action.slot in INFORMABLE[domain])
        for index, action in enumerate(ACTIONS)
        if action.domain == domain and action.kind == "request"
    ]
    for domain in DOMAINS
}


def _pending(belief: BeliefState, domain: str) -> list[str]:
    return [slot for d, slot in belief.pending if d == domain]


def _possible(
    belief: BeliefState, first: Mapping[str, Entity | None], another: Mapping[str, Entity | None]
) -> list[int]:
    found = [*_ALWAYS]
    for domain in belief.raised:
        at = _OF_DOMAIN.get(domain)
        if at is None:
            continue
        offered, booked = domain in belief.offered, domain in belief.booked
        if not booked:
            about_booking = offered or domain in belief.wants_booking
            found += [
                index
                for index, key, searched in _REQUESTS[domain]
                if key not in belief.values and (searched or about_booking)
            ]
        found.append(at["no_offer" if first.get(domain) is None else "offer"])
        if not offered:
            continue
        if another.get(domain) is not None:
            found.append(at["offer_next"])
        if _pending(belief, domain):
            found.append(at["inform_requested"])
        if not booked and belief.booking(domain) is not None:
            found.append(at["book"])
    return found


def action_mask(view: View) -> NDArray[np.int8]:
    """Which actions can be carried out, int8 array of shape (44,), 1 = possible."""
    cells = bytearray(len(ACTIONS))
    for action in view.possible:
        cells[action] = 1
    return np.frombuffer(cells, np.int8)


def decode(action: Action, belief: BeliefState, view: View, world: World) -> AgentAct:
    """Turn a discrete action into an act with true claims. An impossible one becomes ``pardon``."""
    domain = action.domain
    if ACTION_INDEX[action] not in view.possible:
        return AgentAct("pardon")
    if domain is None:
        return AgentAct(action.kind)
    if action.kind == "request":
        return AgentAct("request", domain, action.slot)
    if action.kind in ("offer", "offer_next"):
        entity = (view.first if action.kind == "offer" else view.another)[domain]
        assert entity is not None
        claims = {
            slot: entity.attributes[slot] for slot in INFORMABLE[domain] if slot in entity.attributes and slot != "name"
        }
        if domain == "hotel":
            # A hotel's extras are told when they were asked for, or the sentence gets long.
            asked = {*belief.constraints(domain), *_pending(belief, domain)}
            claims = {
                slot: value for slot, value in claims.items() if slot not in ("internet", "parking") or slot in asked
            }
        return AgentAct(action.kind, domain, entity=entity.name, claims=claims, count=len(view.fits[domain]))
    if action.kind == "no_offer":
        return AgentAct("no_offer", domain)
    entity = world.find(domain, belief.offered[domain])
    assert entity is not None
    if action.kind == "inform_requested":
        answers: dict[str, str | None] = {}
        for slot in _pending(belief, domain):
            answers[slot] = belief.booked.get(domain) if slot == "reference" else entity.attributes.get(slot)
        return AgentAct("inform_requested", domain, entity=entity.name, claims=answers)
    details = belief.booking(domain)
    assert details is not None
    booking = world.book(entity, details)
    return AgentAct(
        "book", domain, entity=entity.name, booking=details, reference=booking.reference, failure=booking.failure
    )


def observe(
    belief: BeliefState, view: View, *, last_action: int | None, turn: int, max_turns: int
) -> NDArray[np.float32]:
    """The observation: float32 array of shape (`OBSERVATION_SIZE`,) in [0, 1], laid out as `LAYOUT` says."""
    # To write into one of numpy's is slower; the last cell takes what is no feature.
    cells = _NOTHING[:]
    acts, informed, requested = _AT["user_acts"], _AT["informed"], _AT["requested"]
    for act in belief.user_acts:
        cells[acts[act.kind]] = 1
        if act.kind == "inform":
            cells[informed.get((act.domain, act.slot), -1)] = 1
        elif act.kind == "request":
            cells[requested.get((act.domain, act.slot), -1)] = 1
    filled, dontcare, pending = _AT["filled"], _AT["dontcare"], _AT["pending"]
    for key, value in belief.values.items():
        cells[(dontcare if value == DONTCARE else filled).get(key, -1)] = 1
    for key in belief.pending:
        cells[pending.get(key, -1)] = 1
    if last_action is not None:
        cells[_AT["last_action"][last_action]] = 1
    if belief.domain is not None:
        cells[_AT["domain"].get(belief.domain, -1)] = 1
    for domain in belief.raised:
        if domain in INFORMABLE:
            _observe_domain(cells, domain, belief, view)
    cells[_AT["turn"]["turn"]] = min(turn / max_turns, 1.0)
    return np.frombuffer(cells, np.float32, OBSERVATION_SIZE)


def _observe_domain(cells: array[float], domain: str, belief: BeliefState, view: View) -> None:
    cells[_AT["raised"][domain]] = 1
    fits = view.fits.get(domain, ())
    cells[_AT["match_count"][domain, bisect_left(COUNT_STEPS, len(fits))]] = 1
    offered = belief.offered.get(domain)
    if offered is not None:
        cells[_AT["offered"][domain]] = 1
        if any(entity.name == offered for entity in fits):
            cells[_AT["offer_fits"][domain]] = 1
    if view.another.get(domain) is not None:
        cells[_AT["another"][domain]] = 1
    if domain in belief.refused:
        cells[_AT["refused"][domain]] = 1
    if not _pending(belief, domain):
        cells[_AT["answered"][domain]] = 1
    if domain in BOOKING_DOMAINS:
        _observe_booking(cells, domain, belief)


def _observe_booking(cells: array[float], domain: str, belief: BeliefState) -> None:
    if domain in belief.wants_booking:
        cells[_AT["wants_booking"][domain]] = 1
    if belief.booking(domain) is not None:
        cells[_AT["booking_ready"][domain]] = 1
    if domain in belief.booked:
        cells[_AT["booked"][domain]] = 1
    if belief.offered.get(domain) in belief.unbookable.get(domain, ()):
        cells[_AT["booking_failed"][domain]] = 1
