"""Agent wording: an act becomes one of many English sentences."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from ugst_env.dialogue.acts import AgentAct
from ugst_env.world.ontology import BOOKABLE

QUESTIONS = {
    "area": (
        "Which part of town would you like?",
        "What area should the {domain} be in?",
        "Any particular area for the {domain}?",
    ),
    "pricerange": ("What price range do you have in mind?", "Should the {domain} be cheap, moderate or expensive?"),
    "stars": ("How many stars should the hotel have?", "What star rating would you like?"),
    "internet": ("Do you need internet at the hotel?", "Should the hotel have wifi?"),
    "parking": ("Do you need parking at the hotel?", "Should the hotel have parking?"),
    "food": ("What kind of food would you like?", "Which cuisine are you after?", "What food should they serve?"),
    "departure": ("Where will you be leaving from?", "Which station do you depart from?"),
    "destination": ("Where are you going?", "What is your destination?", "Where would you like to travel to?"),
    "leaveAt": ("What time would you like to leave?", "When do you want to depart?"),
    "arriveBy": ("By what time do you need to arrive?", "When would you like to get there?"),
    "time": ("What time should I book the table for?", "At what time would you like the table?"),
    "stay": ("How many nights will you stay?", "For how many nights should I book?"),
    "name": ("Do you have a particular {domain} in mind?", "Is there a certain {domain} that you are after?"),
}
QUESTIONS_BY_DOMAIN = {
    ("hotel", "type"): ("Would you like a hotel or a guesthouse?", "Should it be a guesthouse or a hotel?"),
    ("attraction", "type"): (
        "What kind of attraction would you like to visit?",
        "What type of place do you want to see?",
    ),
    ("train", "day"): ("Which day will you travel?", "What day would you like the train for?"),
    ("hotel", "day"): ("From which day will you stay?", "What day do you arrive at the hotel?"),
    ("restaurant", "day"): ("For which day should I book the table?", "What day would you like to eat there?"),
    ("hotel", "people"): ("How many people will stay?", "How many guests is the room for?"),
    ("restaurant", "people"): ("For how many people should I book?", "How many of you will be eating?"),
    ("train", "people"): ("How many tickets do you need?", "How many people will travel?"),
}
ATTRIBUTE_PHRASES = {
    "address": "the address is {value}",
    "postcode": "the postcode is {value}",
    "phone": "the phone number is {value}",
    "entrance fee": "the entrance fee is {value}",
    "area": "it is in the {value}",
    "pricerange": "the price range is {value}",
    "type": "the type is {value}",
    "food": "they serve {value} food",
    "stars": "it has {value} stars",
    "departure": "it leaves from {value}",
    "destination": "it goes to {value}",
    "day": "it runs on {value}",
    "leaveAt": "it leaves at {value}",
    "arriveBy": "it arrives at {value}",
    "duration": "the journey takes {value}",
    "price": "a ticket costs {value}",
    "trainID": "the train ID is {value}",
    "name": "the name is {value}",
    "reference": "the reference number is {value}",
}
PLACES = {"attraction": "attraction", "hotel": "place to stay", "restaurant": "restaurant", "train": "train"}
FAILURES = {
    "full": "it is fully booked then",
    "party_too_large": "they cannot take that many people",
}


_SMALL_WORDS = frozenset(("a", "and", "at", "by", "do", "for", "in", "of", "on", "the", "to"))
_NO_NAMES = frozenset(("fusion", "seafood", "vegetarian", "gastropub", "steakhouse"))
_ONE = re.compile(r"\b1 (people|nights|stars|tickets)\b")


def display(slot: str, value: str) -> str:
    """A value as people write it: names and days with capital letters."""
    if slot in ("trainID", "postcode", "reference"):
        return value.upper()
    if slot not in ("name", "address", "departure", "destination", "day", "food"):
        return value
    words = value.split()
    plain = _NO_NAMES if slot == "food" else _SMALL_WORDS
    return " ".join(
        word if word in plain and (slot == "food" or k > 0) else word[:1].upper() + word[1:]
        for k, word in enumerate(words)
    )


def singular(text: str) -> str:
    """The text with "1 people" put right."""
    return _ONE.sub(lambda m: "1 person" if m[1] == "people" else f"1 {m[1][:-1]}", text)


def _attribute(slot: str, value: str | None) -> str:
    if value is None:
        return f"I do not have the {slot}"
    if slot in ("internet", "parking"):
        return f"it has {slot}" if value == "yes" else f"it has no {slot}"
    return (
        ATTRIBUTE_PHRASES.get(slot, f"the {slot} is {{value}}")
        .format(value=display(slot, value))
        .replace("it has 1 stars", "it has 1 star")
    )


def _list(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _described(act: AgentAct) -> str:
    """A noun phrase of what is claimed about an entity: "a cheap italian restaurant in the north"."""
    claims = dict(act.claims)
    domain = act.domain or "place"
    noun = (claims.pop("type", None) if domain in ("attraction", "hotel") else None) or domain
    words = [display(slot, claims.pop(slot, None) or "") for slot in ("pricerange", "food")]
    stars = claims.pop("stars", None)
    phrase = " ".join([*(word for word in words if word), noun])
    if stars:
        phrase = f"{stars} star {phrase}"
    if area := claims.pop("area", None):
        phrase += f" in the {area}"
    extras = [_attribute(slot, value) for slot, value in claims.items() if slot != "name"]
    article = "an" if phrase[0] in "aeiouAEIOU" else "a"
    return f"{article} {phrase}" + (f"; {_list(extras)}" if extras else "")


def _offer(act: AgentAct, rng: random.Random) -> str:
    if act.domain == "train":
        c: Mapping[str, str | None] = act.claims
        openers = (
            "{name} leaves {departure} at {leaveAt} on {day} and arrives in {destination} at {arriveBy}.",
            "There is {name} on {day}, from {departure} at {leaveAt}, reaching {destination} at {arriveBy}.",
        )
        known = {
            slot: display(slot, c.get(slot) or "an unknown time")
            for slot in ("departure", "leaveAt", "day", "destination", "arriveBy")
        }
        return rng.choice(openers).format(name=_name(act), **known)
    described, name = _described(act), _name(act)
    if act.kind == "offer_next":
        return rng.choice(
            (
                f"Another option is {name}, {described}.",
                f"There is also {name}, {described}.",
                f"Alternatively, {name} is {described}.",
            )
        )
    return rng.choice(
        (
            f"{name} is {described}.",
            f"How about {name}? It is {described}.",
            f"I would suggest {name}, {described}.",
            f"I found {name}, {described}.",
        )
    )


def _name(act: AgentAct) -> str:
    """What is offered or booked, with "the" in front where that is part of the name."""
    return display("trainID" if act.domain == "train" else "name", act.entity or "it")


def _booking(act: AgentAct) -> str:
    day = "from {}" if act.domain == "hotel" else "on {}"
    details = {"people": "for {} people", "day": day, "stay": "for {} nights", "time": "at {}"}
    slots = BOOKABLE.get(act.domain or "", ())
    return " ".join(
        singular(details[slot].format(display(slot, act.booking[slot]))) for slot in slots if slot in act.booking
    )


def say(act: AgentAct, rng: random.Random) -> str:
    """Words for an agent act. Every claim of the act stands in the words.

    Raises
    ------
    ValueError
        If the act's kind is unknown, or a ``request`` names no slot.
    """
    domain = act.domain or "booking"
    if act.kind == "request":
        if act.slot is None:
            raise ValueError("a 'request' act needs the slot that it asks for, got slot=None")
        known = QUESTIONS_BY_DOMAIN.get((domain, act.slot)) or QUESTIONS.get(
            act.slot, (f"What {act.slot} would you like?",)
        )
        return rng.choice(known).format(domain=PLACES.get(domain, domain))
    if act.kind in ("offer", "offer_next"):
        return _offer(act, rng)
    if act.kind == "inform_requested":
        facts = [_attribute(slot, value) for slot, value in act.claims.items()]
        if not facts:
            return rng.choice(("I am afraid I do not know that.", "I have no information on that."))
        openers = ("", f"For {_name(act)}, ", "Sure, ", "Certainly: ")
        return _sentence(rng.choice(openers) + _list(facts))
    if act.kind == "no_offer":
        noun = PLACES.get(domain, domain)
        return rng.choice(
            (
                f"I am sorry, there is no {noun} like that.",
                f"Unfortunately no {noun} matches your request.",
                f"I could not find any {noun} with those details.",
            )
        )
    if act.kind == "book":
        details, name = _booking(act), _name(act)
        if act.reference is not None:
            return rng.choice(
                (
                    f"{name} is booked {details}. Your reference is {act.reference}.",
                    f"I have booked {name} {details}. The reference number is {act.reference}.",
                    f"Done, {name} {details}. Reference: {act.reference}.",
                )
            )
        reason = FAILURES.get(act.failure or "", act.failure or "it is not possible")
        return rng.choice(
            (
                f"I am sorry, I could not book {name} {details}: {reason}.",
                f"Booking {name} {details} failed, {reason}.",
            )
        )
    if act.kind == "req_more":
        return rng.choice(
            ("Is there anything else I can do for you?", "What else can I help you with?", "Anything else?")
        )
    if act.kind == "pardon":
        return rng.choice(
            ("I am sorry, could you say that again?", "Sorry, I did not get that.", "Could you rephrase that?")
        )
    if act.kind == "bye":
        return rng.choice(
            ("Thank you for calling, goodbye.", "Goodbye and have a nice day.", "Have a lovely trip. Goodbye.")
        )
    raise ValueError(f"unknown agent act kind {act.kind!r}")
