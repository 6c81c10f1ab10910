"""Reference clerks: a competent one that reads the observation, and flawed ones that users will meet as well."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.belief import BeliefState
from ugst_env.envs.actions import (
    ACTION_INDEX,
    ACTIONS,
    BOOKING_DOMAINS,
    COUNT_STEPS,
    LAYOUT,
    Action,
    View,
    action_mask,
    decode,
    look,
    observe,
)
from ugst_env.world.database import World
from ugst_env.world.ontology import BOOKABLE, DOMAINS, INFORMABLE

# What to ask for before offering, where the user has not said; trains are too many to offer blindly.
_ASK_FIRST = {
    "attraction": ("type", "area"),
    "hotel": ("area", "pricerange"),
    "restaurant": ("food", "area", "pricerange"),
    "train": ("departure", "destination", "day"),
}


def handcrafted(observation: NDArray[np.float32], mask: NDArray[np.int8]) -> int:
    """A competent booking clerk's action, from the observation and the action mask alone.

    Parameters
    ----------
    observation
        float32 array of shape (`OBSERVATION_SIZE`,).
    mask
        int8 array of shape (44,).
    """

    def feature(name: str, domain: str, domains: tuple[str, ...] = DOMAINS) -> bool:
        return bool(observation[LAYOUT[name].start + domains.index(domain)])

    def can(kind: str, domain: str | None = None, slot: str | None = None) -> bool:
        return bool(mask[ACTION_INDEX[Action(kind, domain, slot)]])

    current = [d for d in DOMAINS if feature("domain", d)]
    raised = current + [d for d in DOMAINS if feature("raised", d) and d not in current]
    for domain in raised:
        choice = _serve(domain, feature, can)
        if choice is not None:
            return ACTION_INDEX[choice]
    # A user that goes on without saying anything new may be waiting to be asked.
    if current and not observation[LAYOUT["informed"]].any() and not observation[LAYOUT["requested"]].any():
        for slot in (*INFORMABLE[current[0]], *BOOKABLE[current[0]]):
            if slot != "name" and can("request", current[0], slot):
                return ACTION_INDEX[Action("request", current[0], slot)]
    return ACTION_INDEX[Action("req_more")]


def _serve(domain: str, feature: Callable[..., bool], can: Callable[..., bool]) -> Action | None:
    """What to do next in a domain; None when there is nothing left to do in it."""
    offered = feature("offered", domain)
    bookable = domain in BOOKING_DOMAINS
    booked = bookable and feature("booked", domain, BOOKING_DOMAINS)
    if can("no_offer", domain) and not booked:
        return None if feature("refused", domain) and not feature("domain", domain) else Action("no_offer", domain)
    if offered and not booked and not feature("offer_fits", domain) and can("offer", domain):
        return Action("offer", domain)
    if can("inform_requested", domain):
        return Action("inform_requested", domain)
    if not offered:
        few = any(feature_count(feature, domain, step) for step in range(3))
        for slot in () if few else _ASK_FIRST[domain]:
            if can("request", domain, slot):
                return Action("request", domain, slot)
        if domain == "train" and can("request", domain, "leaveAt") and can("request", domain, "arriveBy"):
            return Action("request", domain, "leaveAt")
        return Action("offer", domain) if can("offer", domain) else None
    if bookable and not booked and feature("wants_booking", domain, BOOKING_DOMAINS):
        if feature("booking_failed", domain, BOOKING_DOMAINS):
            return Action("offer_next", domain) if can("offer_next", domain) else None
        if can("book", domain):
            return Action("book", domain)
        for slot in BOOKABLE[domain]:
            if can("request", domain, slot):
                return Action("request", domain, slot)
    return None


_COUNTS = tuple(f"{domain}/{k}" for domain in DOMAINS for k in range(len(COUNT_STEPS) + 1))


def feature_count(feature: Callable[..., bool], domain: str, step: int) -> bool:
    """Whether the search of a domain found at most ``COUNT_STEPS[step]`` entities and more than the step before."""
    return feature("match_count", f"{domain}/{step}", _COUNTS)


Clerk = Callable[[BeliefState, View, World, random.Random, int, int], AgentAct]


def _competent(
    belief: BeliefState, view: View, world: World, rng: random.Random, turn: int, max_turns: int
) -> AgentAct:
    observation = observe(belief, view, last_action=None, turn=turn, max_turns=max_turns)
    action = ACTIONS[handcrafted(observation, action_mask(view))]
    return decode(action, belief, view, world)


def _any(belief: BeliefState, view: View, world: World, rng: random.Random, turn: int, max_turns: int) -> AgentAct:
    possible = [a for a, ok in zip(ACTIONS, action_mask(view), strict=True) if ok and a.kind != "bye"]
    return decode(rng.choice(possible), belief, view, world)


def _stubborn(belief: BeliefState, view: View, world: World, rng: random.Random, turn: int, max_turns: int) -> AgentAct:
    """Asks and asks again, whatever the user says."""
    last = belief.last_act
    if last is not None and last.kind in ("request", "offer") and rng.random() < 0.6:
        return last
    questions = [a for a in ACTIONS if a.kind == "request" and a.domain in belief.raised]
    if questions and rng.random() < 0.5:
        chosen = rng.choice(questions)
        return AgentAct("request", chosen.domain, chosen.slot)
    return _competent(belief, view, world, rng, turn, max_turns)


def _wrong(belief: BeliefState, view: View, world: World, rng: random.Random, turn: int, max_turns: int) -> AgentAct:
    """Offers what was not asked for, denies what there is, and tells untruths."""
    act = _competent(belief, view, world, rng, turn, max_turns)
    if act.kind in ("offer", "offer_next") and act.domain is not None:
        entity = rng.choice(world.tables[act.domain])
        kept = {slot: entity.attributes[slot] for slot in act.claims if slot in entity.attributes}
        return act if rng.random() < 0.3 else replace(act, entity=entity.name, claims=kept)
    if act.kind == "inform_requested" and act.domain is not None and rng.random() < 0.5:
        other = rng.choice(world.tables[act.domain])
        return replace(act, claims={slot: other.attributes.get(slot, value) for slot, value in act.claims.items()})
    if act.kind in ("request", "req_more") and belief.domain is not None and rng.random() < 0.3:
        return AgentAct("no_offer", belief.domain)
    return act


CLERKS: dict[str, Clerk] = {"competent": _competent, "random": _any, "stubborn": _stubborn, "wrong": _wrong}


def clerk_act(
    kinds: dict[str, float], belief: BeliefState, world: World, rng: random.Random, *, turn: int, max_turns: int
) -> AgentAct:
    """The act of a clerk drawn anew each turn from `kinds`, ``{name: weight}`` over `CLERKS`."""
    name = rng.choices(list(kinds), list(kinds.values()))[0]
    return CLERKS[name](belief, look(belief, world), world, rng, turn, max_turns)
