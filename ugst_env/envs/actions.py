"""The discrete face of an agent: 44 dialogue acts, what each needs, and the observation of what the agent heard."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
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
# Where each of its members stands: _AT["raised"]["hotel"].
_AT: dict[str, dict[Any, int]] = {
    name: {key: LAYOUT[name].start + k for k, key in enumerate(keys)} for name, keys in _FEATURES.items()
}


class View(NamedTuple):
    """What the database says about the belief: the entities that fit, and the one to offer next, per domain."""

    fits: dict[str, tuple[Entity, ...]]
    first: dict[str, Entity | None]
    another: dict[str, Entity | None]


def look(belief: BeliefState, world: World) -> View:
    """Search the world with the belief, once per domain that the user raised."""
    view = View({}, {}, {})
    for domain in DOMAINS:
        if domain in belief.raised and domain in world.tables:
            fits = view.fits[domain] = belief.candidates(domain, world)
            view.first[domain] = belief.next_candidate(domain, fits, after_offer=False)
            view.another[domain] = belief.next_candidate(domain, fits, after_offer=True)
    return view


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


def possible(belief: BeliefState, view: View) -> list[int]:
    """The actions, by their positions in `ACTIONS`, that the agent can carry out as things stand."""
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
        found.append(at["no_offer" if view.first.get(domain) is None else "offer"])
        if not offered:
            continue
        if view.another.get(domain) is not None:
            found.append(at["offer_next"])
        if _pending(belief, domain):
            found.append(at["inform_requested"])
        if not booked and belief.booking(domain) is not None:
            found.append(at["book"])
    return found


def action_mask(belief: BeliefState, view: View) -> NDArray[np.int8]:
    """Which actions can be carried out, int8 array of shape (44,), 1 = possible."""
    mask = np.zeros(len(ACTIONS), dtype=np.int8)
    mask[possible(belief, view)] = 1
    return mask


def decode(action: Action, belief: BeliefState, view: View, world: World) -> AgentAct:
    """Turn a discrete action into an act with true claims. An impossible one becomes ``pardon``."""
    domain = action.domain
    if ACTION_INDEX[action] not in possible(belief, view):
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
    # To write into an array is slow, so it is done once for all.
    marked: list[int | None] = []
    mark = marked.append
    acts, informed, requested = _AT["user_acts"], _AT["informed"], _AT["requested"]
    for act in belief.user_acts:
        mark(acts[act.kind])
        if act.kind == "inform":
            mark(informed.get((act.domain, act.slot)))
        elif act.kind == "request":
            mark(requested.get((act.domain, act.slot)))
    filled, dontcare, pending = _AT["filled"], _AT["dontcare"], _AT["pending"]
    for key, value in belief.values.items():
        mark((dontcare if value == DONTCARE else filled).get(key))
    for key in belief.pending:
        mark(pending.get(key))
    if last_action is not None:
        mark(_AT["last_action"][last_action])
    if belief.domain is not None:
        mark(_AT["domain"].get(belief.domain))
    for domain in belief.raised:
        if domain in INFORMABLE:
            _observe_domain(mark, domain, belief, view)
    vector = np.zeros(OBSERVATION_SIZE, dtype=np.float32)
    vector[[at for at in marked if at is not None]] = 1.0
    vector[LAYOUT["turn"]] = min(turn / max_turns, 1.0)
    return vector


def _observe_domain(mark: Callable[[int], None], domain: str, belief: BeliefState, view: View) -> None:
    mark(_AT["raised"][domain])
    fits = view.fits.get(domain, ())
    mark(_AT["match_count"][domain, bisect_left(COUNT_STEPS, len(fits))])
    offered = belief.offered.get(domain)
    if offered is not None:
        mark(_AT["offered"][domain])
        if any(entity.name == offered for entity in fits):
            mark(_AT["offer_fits"][domain])
    if view.another.get(domain) is not None:
        mark(_AT["another"][domain])
    if domain in belief.refused:
        mark(_AT["refused"][domain])
    if not _pending(belief, domain):
        mark(_AT["answered"][domain])
    if domain in BOOKING_DOMAINS:
        _observe_booking(mark, domain, belief)


def _observe_booking(mark: Callable[[int], None], domain: str, belief: BeliefState) -> None:
    if domain in belief.wants_booking:
        mark(_AT["wants_booking"][domain])
    if belief.booking(domain) is not None:
        mark(_AT["booking_ready"][domain])
    if domain in belief.booked:
        mark(_AT["booked"][domain])
    if belief.offered.get(domain) in belief.unbookable.get(domain, ()):
        mark(_AT["booking_failed"][domain])
