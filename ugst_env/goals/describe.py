"""Goal components in plain words, for goals that come without a text of their own."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from string import capwords

from ugst_env.goal import Ask, Need, Objective, Want
from ugst_env.world.ontology import INFORMABLE

_OBJECTIVES = {
    ("attraction", "find"): "Find an attraction to visit.",
    ("hotel", "find"): "Find a place to stay.",
    ("hotel", "book"): "Book a place to stay.",
    ("restaurant", "find"): "Find a restaurant.",
    ("restaurant", "book"): "Book a table at a restaurant.",
    ("train", "find"): "Find a train.",
    ("train", "book"): "Book a train.",
}
_ASKS = {
    "entrance fee": "the entrance fee",
    "internet": "whether it has internet",
    "parking": "whether it has parking",
    "stars": "how many stars it has",
    "type": "what type of place it is",
    "area": "which area it is in",
    "pricerange": "the price range",
    "food": "what food it serves",
    "trainID": "the train ID",
    "duration": "how long the journey takes",
    "price": "the price of the ticket",
    "leaveAt": "when it leaves",
    "arriveBy": "when it arrives",
    "reference": "the reference of the booking",
    "phone": "the phone number",
}


def _count(value: str, thing: str) -> str:
    return f"{value} {thing}" if value == "1" else f"{value} {thing}s"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"


def _predicate(domain: str, slot: str, value: str) -> str:
    """What an entity with that value does: "be in the north", "have 4 stars"."""
    name = capwords(value)
    predicates = {
        "area": f"be in the {value}",
        "pricerange": f"be {'moderately priced' if value == 'moderate' else value}",
        "stars": f"have {_count(value, 'star')}",
        "type": f"be {_a(value)}",
        "internet": "have internet" if value == "yes" else "have no internet",
        "parking": "have parking" if value == "yes" else "have no parking",
        "food": f"serve {value} food",
        "name": f"be {name}",
        "departure": f"leave from {name}",
        "destination": f"go to {name}",
        "day": f"run on {name}",
        "leaveAt": f"leave at {value} or later",
        "arriveBy": f"arrive by {value}",
    }
    return predicates.get(slot, f"have the {slot} {value}")


def _detail(domain: str, slot: str, value: str) -> str:
    """A detail of a booking: "for 4 people", "on Friday"."""
    details = {
        "people": "for 1 person" if value == "1" else f"for {value} people",
        "day": f"{'from' if domain == 'hotel' else 'on'} {capwords(value)}",
        "stay": f"for {_count(value, 'night')}",
        "time": f"at {value}",
    }
    return details.get(slot, f"with the {slot} {value}")


def _third_person(predicate: str) -> str:
    verb, _, rest = predicate.partition(" ")
    return f"{ {'be': 'is', 'have': 'has', 'go': 'goes'}.get(verb, f'{verb}s') } {rest}"


def describe_want(domain: str, want: Want, *, preference: bool = False) -> str:
    """A condition, a booking detail or a wish in one sentence, with its alternative if it has one."""
    slot, said = want.slot, _predicate(domain, want.slot, want.value)
    if slot not in INFORMABLE[domain]:
        text = f"The booking is {_detail(domain, slot, want.value)}."
        instead = f"it is {_detail(domain, slot, want.otherwise or '')} instead"
        failed = "If that cannot be booked"
    else:
        text = f"Ideally, it should {said}." if preference else f"It must {said}."
        instead = f"it must {_predicate(domain, slot, want.otherwise or '')} instead"
        failed = f"If there is no such {'train' if domain == 'train' else 'place'}"
    if want.otherwise is None or want.condition is None:
        return text
    if want.condition == "no_match":
        return f"{text} {failed}, {instead}."
    condition_slot, _, value = want.condition.partition("=")
    return f"{text} If the {domain} {_third_person(_predicate(domain, condition_slot, value))}, {instead}."


def describe_ask(domain: str, slot: str) -> str:
    """Something to find out in one sentence."""
    return f"Find out {_ASKS.get(slot, f'the {slot}')}."


def describe_objective(domain: str, action: str) -> str:
    """A task in one sentence."""
    return _OBJECTIVES.get((domain, action), f"{action.capitalize()} something in the domain {domain}.")


@lru_cache(maxsize=4096)  # Goals share their parts.
def _required(domain: str, part: Want | Ask | Need) -> Want | Ask | Need:
    if part.text or isinstance(part, Need):
        return part
    said = describe_ask(domain, part.slot) if isinstance(part, Ask) else describe_want(domain, part)
    return replace(part, text=said)


@lru_cache(maxsize=4096)
def _preferred(domain: str, want: Want | Need) -> Want | Need:
    if want.text or isinstance(want, Need):
        return want
    return replace(want, text=describe_want(domain, want, preference=True))


def describe(objective: Objective) -> Objective:
    """Give a text to the objective and to every part of it that has none."""
    domain = objective.domain
    return replace(
        objective,
        requirements=tuple([_required(domain, part) for part in objective.requirements]),
        preferences=tuple([_preferred(domain, want) for want in objective.preferences]),
        text=objective.text or describe_objective(domain, objective.action),
    )
