"""The scripted user's English: things to convey become one of many wordings."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ugst_env.dialogue.acts import DONTCARE, AgentAct
from ugst_env.dialogue.generation import display, singular


class Thing(NamedTuple):
    """One thing that a user turn conveys.

    `kind` is ``inform`` (state a value), ``correct`` (state it again, against what the agent said), ``ask``, ``raise``
    (bring a domain up), ``book``, ``suggest`` (ask for an offer), ``another`` (ask for a different one),
    ``no_booking``, ``accept``, ``deny``, ``chat`` (nothing of use) or ``bye``.
    """

    kind: str
    domain: str | None = None
    slot: str | None = None
    value: str | None = None
    soft: bool = False
    opens_booking: bool = False


NOUNS = {
    "attraction": ("attraction", "place to visit"),
    "hotel": ("place to stay", "hotel", "place to stay"),
    "restaurant": ("restaurant", "place to eat", "place to dine"),
    "train": ("train", "train ticket"),
}
SEEK = (
    "I am looking for",
    "I need",
    "I'm looking for",
    "Can you find me",
    "I would like",
    "Please find me",
    "I'd like",
    "Could you help me find",
    "I am searching for",
    "We are looking for",
    "I want",
    "Find me",
    "Do you know of",
    "I'm hoping to find",
    "Help me find",
    "I am after",
    "I'm trying to find",
)
# Fragments that stand behind the noun: "... that serves thai food".
SEEK_BRIEF = ("I need", "I want", "Find me")
BEHIND = {
    "area": ("in the {v}", "located in the {v}", "in the {v} of town", "in the {v} part of town"),
    "food": ("that serves {v} food", "serving {v} food", "with {v} food"),
    "stars": ("with {v} stars", "with a star rating of {v}", "that has {v} stars"),
    "name": ("called {v}", "named {v}"),
    "departure": ("from {v}", "leaving from {v}", "departing from {v}"),
    "destination": ("to {v}", "going to {v}"),
    "day": ("on {v}",),
    "leaveAt": ("leaving after {v}", "that leaves after {v}", "departing after {v}"),
    "arriveBy": ("arriving by {v}", "that arrives by {v}", "getting there by {v}"),
    "pricerange": ("in the {v} price range", "that is {v}"),
}
# Whole statements for one value.
STATE = {
    "area": (
        "It should be in the {v}.",
        "I want it in the {v}.",
        "In the {v}, please.",
        "The {v} part of town.",
        "It has to be in the {v}.",
        "I would like something in the {v}.",
        "We want to be in the {v} of town.",
    ),
    "pricerange": (
        "It should be {v}.",
        "The price range should be {v}.",
        "I want something {v}.",
        "Something in the {v} price range.",
        "Please keep it in the {v} price range.",
        "It needs to be {v}.",
    ),
    "food": (
        "I would like {v} food.",
        "They should serve {v} food.",
        "I am in the mood for {v} food.",
        "{v} food, please.",
        "I want to eat {v} food.",
        "It has to be {v} food.",
    ),
    "stars": (
        "It should have {v} stars.",
        "I want {v} stars.",
        "A star rating of {v}, please.",
        "It needs to have {v} stars.",
    ),
    "name": ("It is called {v}.", "The name is {v}.", "I have {v} in mind.", "I want {v}."),
    "departure": (
        "I am leaving from {v}.",
        "I will depart from {v}.",
        "The train should leave from {v}.",
        "From {v}, please.",
    ),
    "destination": ("I am going to {v}.", "My destination is {v}.", "I need to get to {v}.", "To {v}, please."),
    "leaveAt": (
        "I want to leave after {v}.",
        "It should leave after {v}.",
        "I can't leave before {v}.",
        "Departing after {v}, please.",
    ),
    "arriveBy": (
        "I need to arrive by {v}.",
        "It should arrive by {v}.",
        "I have to be there by {v}.",
        "Arriving by {v}, please.",
    ),
    "people": (
        "It is for {v} people.",
        "There will be {v} people.",
        "For {v} people, please.",
        "We need it for {v} people.",
    ),
    "stay": (
        "We will stay {v} nights.",
        "For {v} nights, please.",
        "I need it for {v} nights.",
        "We are staying {v} nights.",
    ),
    "time": ("The time should be {v}.", "At {v}, please.", "I want the table at {v}.", "Make it {v}."),
}
STATE_BY_DOMAIN = {
    ("hotel", "type"): ("It should be a {v}.", "I want a {v}.", "A {v}, please.", "I would like to stay in a {v}."),
    ("attraction", "type"): (
        "I want to visit a {v}.",
        "I would like to see a {v}.",
        "A {v}, please.",
        "Something like a {v}.",
    ),
    ("train", "day"): (
        "I am travelling on {v}.",
        "I want to travel on {v}.",
        "On {v}, please.",
        "The train should be on {v}.",
    ),
    ("hotel", "day"): ("We arrive on {v}.", "Starting on {v}, please.", "The stay starts on {v}.", "From {v}, please."),
    ("restaurant", "day"): ("It should be on {v}.", "On {v}, please.", "I want the table on {v}.", "We come on {v}."),
    ("train", "people"): (
        "I need {v} tickets.",
        "There will be {v} people.",
        "{v} tickets, please.",
        "It is for {v} people.",
    ),
}
YES_NO = {
    ("internet", "yes"): ("It should have free wifi.", "I need internet.", "It has to have wifi.", "Wifi is a must."),
    ("internet", "no"): ("I want one without internet.", "It should have no wifi."),
    ("parking", "yes"): (
        "It should have free parking.",
        "I need parking.",
        "It has to have parking.",
        "Parking is a must.",
    ),
    ("parking", "no"): ("I want one without parking.", "It should have no parking."),
}
YES_NO_BEHIND = {
    ("internet", "yes"): ("with free wifi", "with internet"),
    ("internet", "no"): ("without internet",),
    ("parking", "yes"): ("with free parking", "with parking"),
    ("parking", "no"): ("without parking",),
}
SHORT = {
    "area": ("The {v}.", "In the {v}.", "{v}, please."),
    "pricerange": ("{v}.", "Something {v}.", "{v}, please."),
    "food": ("{v}.", "{v} food.", "{v}, please."),
    "stars": ("{v} stars.", "{v} stars, please."),
    "type": ("A {v}.", "A {v}, please."),
    "people": ("{v} people.", "{v}, please.", "For {v}."),
    "stay": ("{v} nights.", "For {v} nights."),
    "day": ("{v}.", "On {v}.", "{v}, please."),
    "time": ("At {v}.", "{v}, please."),
    "departure": ("From {v}.", "{v}.", "{v}, please."),
    "destination": ("To {v}.", "{v}.", "{v}, please."),
    "leaveAt": ("After {v}.", "Any time after {v}."),
    "arriveBy": ("By {v}.", "By {v}, please."),
    "name": ("{v}.", "It is called {v}."),
}
DONTCARES = (
    "I don't mind.",
    "I do not care.",
    "Any is fine.",
    "No preference.",
    "It does not matter.",
    "I have no preference.",
    "I don't care.",
)
DONTCARE_SLOT = {
    "area": ("The area does not matter.", "Any area is fine.", "I don't mind the area."),
    "pricerange": ("The price range does not matter.", "Any price range is fine.", "I don't mind the price range."),
    "stars": ("The star rating does not matter.", "Any star rating is fine."),
    "food": ("The food type does not matter.", "Any kind of food is fine."),
    "type": ("The type does not matter.", "Any type is fine."),
    "internet": ("The internet does not matter.",),
    "parking": ("The parking does not matter.",),
    "leaveAt": ("The departure time does not matter.",),
    "arriveBy": ("The arrival time does not matter.",),
}
ASK_NOUNS = {
    "address": ("address",),
    "postcode": ("postcode",),
    "phone": ("phone number",),
    "entrance fee": ("entrance fee",),
    "area": ("area",),
    "type": ("type",),
    "internet": ("internet",),
    "parking": ("parking",),
    "stars": ("star rating",),
    "pricerange": ("price range",),
    "food": ("food type", "type of food"),
    "trainID": ("train ID",),
    "duration": ("travel time", "duration"),
    "price": ("price", "ticket price"),
    "leaveAt": ("departure time",),
    "arriveBy": ("arrival time",),
    "reference": ("reference number",),
}
ASK_WHOLE = {
    "address": ("What is the address?", "Could I have the address?", "Where exactly is it, what is the address?"),
    "postcode": ("What is the postcode?", "Could I have the postcode?", "Can you tell me the postcode?"),
    "phone": (
        "What is the phone number?",
        "Can I get the phone number?",
        "Could I have their phone number?",
        "What's the phone number?",
    ),
    "entrance fee": ("What is the entrance fee?", "How much is the entrance fee?", "Is there an entrance fee?"),
    "area": ("What area is it in?", "Which area is it in?", "Which part of town is it in?"),
    "type": ("What type is it?", "What type of place is it?"),
    "internet": ("Does it have internet?", "Do they have wifi?", "Is there internet?"),
    "parking": ("Does it have parking?", "Do they have parking?", "Is there parking?"),
    "stars": ("What is the star rating?", "How many stars does it have?"),
    "pricerange": ("What is the price range?", "What price range is it in?"),
    "food": ("What kind of food do they serve?", "What type of food do they serve?"),
    "trainID": ("What is the train ID?", "Can I have the train ID?"),
    "duration": ("How long does the journey take?", "What is the travel time?", "How long is the trip?"),
    "price": ("How much is a ticket?", "What is the price?", "How much does it cost?"),
    "leaveAt": ("What time does it leave?", "What is the departure time?"),
    "arriveBy": ("What time does it arrive?", "What is the arrival time?"),
    "reference": ("What is the reference number?", "Can I have the reference number?"),
}
ASK_FRAMES = (
    "What is the {x}?",
    "Could I have the {x}?",
    "Can you tell me the {x}?",
    "I need the {x}.",
    "Please give me the {x}.",
    "Can I get the {x}?",
    "I would like to know the {x}.",
    "Could you give me the {x}?",
)
BOOK = (
    "Please book it",
    "Can you book it",
    "I would like to book it",
    "Could you reserve it",
    "Book it",
    "Let's book it",
)
BOOK_BRIEF = ("Book it", "Please book it")
BOOK_FRAGMENTS = {"people": ("for {v} people",), "stay": ("for {v} nights",), "time": ("at {v}",)}
BOOK_DAY = {"hotel": ("from {v}", "starting on {v}"), "restaurant": ("on {v}",), "train": ("on {v}",)}
SUGGEST = (
    "What do you have?",
    "What would you recommend?",
    "Do you have any suggestions?",
    "Which one would you suggest?",
    "What can you offer?",
)
ANOTHER = (
    "Do you have another one?",
    "Is there another option?",
    "Can you suggest a different one?",
    "Please find another one.",
)
ACKNOWLEDGE = ("Great.", "Sounds good.", "Okay.", "That works.", "Lovely.", "Good.", "Perfect.", "All right.", "Nice.")
AFTER_BOOKING = ("Great, thank you.", "Thanks.", "Wonderful.", "Thank you.", "Very good.", "Excellent.")
REGRET = ("That is a pity.", "Oh well.", "Too bad.", "I see.", "That's a shame.")
CORRECT = ("No, ", "That does not fit. ", "That is not right. ", "Not quite. ", "Hmm, no. ")
BYES = (
    "That is all, thank you. Goodbye.",
    "Thanks, that is all I need. Bye.",
    "That's everything, goodbye.",
    "Thank you, goodbye.",
    "No, that is all. Thanks and bye.",
    "I have all I need, thank you. Goodbye.",
    "Great, that's all. Bye.",
    "Goodbye.",
)
BRIEF_BYES = ("Goodbye.", "Bye.", "That is all, bye.", "Goodbye then.")
CHAT = (
    "Let me think for a moment.",
    "Hmm, I am not sure yet.",
    "What a busy week it has been.",
    "One moment please.",
    "Interesting.",
)
NO_BOOKING = ("I do not need a booking.", "No need to book.", "I only want to know about it, no booking is needed.")
DOUBT = ("Are you sure?", "That does not sound right.", "Hmm, could you check that again?", "That cannot be right.")
GREETINGS = ("Hello.", "Hi.", "Good morning.", "Hello there.", "Hi there.", "Good evening.")


# Wordings that do not go with "if possible".
_FIRM = re.compile(r"\b(?:has to|have to|needs to|must|a must|need)\b")
_LOWERED = frozenset(
    ("It", "The", "They", "We", "In", "A", "An", "Something", "For", "At", "By", "From", "To", "On", "Any")
)


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiouAEIOU" else "a ") + noun


@lru_cache(maxsize=4096)  # A world has few values, and there are few templates.
def _filled(template: str, slot: str, value: str) -> str:
    text = singular(template.format(v=display(slot, value))).replace("seafood food", "seafood")
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


def _lowered(sentence: str) -> str:
    """A sentence as it stands behind a comma."""
    return sentence[0].lower() + sentence[1:] if re.split(r"\W", sentence, maxsplit=1)[0] in _LOWERED else sentence


def _ended(sentence: str) -> str:
    body = sentence.rstrip(".?")
    return f"{body}{'?' if body.startswith(('Can ', 'Could ', 'Do you ')) else '.'}"


def _request_phrase(
    domain: str, things: Sequence[Thing], rng: random.Random, brief: bool = False
) -> tuple[str, list[Thing]]:
    """A sentence that raises a domain with some of the informs in it; returns it and the things that are left over."""
    values = {t.slot: t.value for t in things if t.slot and t.value not in (None, DONTCARE) and not t.soft}
    front: list[str] = []
    noun = rng.choice(NOUNS[domain])
    used: set[str] = set()
    if domain == "hotel" and values.get("type") == "hotel":
        noun = "place to stay"  # People call any of them a hotel: that it has to be one takes a sentence of its own.
    elif domain in ("hotel", "attraction") and "type" in values:
        noun, used = values["type"] or noun, {"type"}
    if domain == "restaurant" and noun != "restaurant" and {"food", "pricerange"} & set(values):
        noun = "restaurant"
    for slot in ("pricerange", "food"):
        if slot in values and rng.random() < 0.6:
            word = display(slot, values[slot] or "")
            front.append("moderately priced" if word == "moderate" and rng.random() < 0.5 else word)
            used.add(slot)
    if "stars" in values and rng.random() < 0.4:
        front.append(f"{values['stars']} star")
        used.add("stars")
    behind = []
    for slot in (
        "food",
        "area",
        "stars",
        "internet",
        "parking",
        "pricerange",
        "name",
        "departure",
        "destination",
        "day",
        "leaveAt",
        "arriveBy",
    ):
        value = values.get(slot)
        if value is None or slot in used or (slot == "day" and domain != "train"):
            continue
        options = YES_NO_BEHIND.get((slot, value)) or BEHIND.get(slot)
        if options:
            behind.append(_filled(rng.choice(options), slot, value))
            used.add(slot)
    phrase = " ".join([_article(" ".join([*front, noun])), *behind])
    return _ended(f"{rng.choice(SEEK_BRIEF if brief else SEEK)} {phrase}"), [
        t for t in things if t.soft or t.slot not in used
    ]


def _informed(thing: Thing, act: AgentAct | None, rng: random.Random, brief: bool) -> str:
    slot, value, domain = thing.slot or "", thing.value or "", thing.domain or ""
    asked = act is not None and act.kind == "request" and (act.domain, act.slot) == (domain, slot)
    if value == DONTCARE:
        return rng.choice(DONTCARES if asked else DONTCARE_SLOT.get(slot, DONTCARES))
    options: tuple[str, ...]
    if (slot, value) in YES_NO:
        if asked and rng.random() < 0.5:
            if thing.soft:
                return rng.choice(("Yes, if possible.", "Preferably yes.")) if value == "yes" else "Preferably not."
            return rng.choice(
                ("Yes, please.", "Yes.", "Yes, I need that.") if value == "yes" else ("No.", "No, thanks.")
            )
        options = YES_NO[slot, value]
    elif asked and (brief or rng.random() < 0.5):
        options = SHORT[slot]
    else:
        options = STATE_BY_DOMAIN.get((domain, slot)) or STATE[slot]
    if thing.soft:
        options = (
            tuple(option for option in options if not _FIRM.search(option) and "please" not in option.lower())
            or options
        )
    text = _filled(rng.choice(options), slot, value)
    if thing.soft:
        body = text.rstrip(".")
        forms: tuple[str, ...] = ("{b}, if possible.", "Ideally {l}.", "Preferably {l}.", "{b} if you can.")
        if len(body.split()) < 4:
            forms = ("{b}, if possible.", "Preferably {l}.", "Ideally {l}.")
        text = rng.choice(forms).format(b=body, l=_lowered(body))
    return text[0].upper() + text[1:]


def _booked(domain: str, things: Sequence[Thing], rng: random.Random, brief: bool, named: bool) -> str:
    parts = []
    for thing in things:
        options = BOOK_DAY[domain] if thing.slot == "day" else BOOK_FRAGMENTS.get(thing.slot or "", ("{v}",))
        parts.append(_filled(rng.choice(options), thing.slot or "", thing.value or ""))
    order = list(parts)
    if rng.random() < 0.4:
        rng.shuffle(order)
    opener = rng.choice(BOOK_BRIEF if brief else BOOK)
    if named:
        opener = f"{opener.removesuffix(' it')} the {domain}"
    return _ended(" ".join([opener, *order]))


def _asked(things: Sequence[Thing], rng: random.Random, brief: bool, named: bool) -> str:
    domain = things[0].domain or ""
    whole = [t for t in things if t.slot in ("internet", "parking", "food", "type")]
    if whole and len(things) > 1:
        others = [t for t in things if t not in whole]
        parts = ([others] if others else []) + [[t] for t in whole]
        return " ".join(_asked(part, rng, brief, named and k == 0) for k, part in enumerate(parts))
    if named and things[0].slot in ("internet", "parking"):
        return f"Does the {domain} have {things[0].slot}?"
    if not named and len(things) == 1 and (whole or brief or rng.random() < 0.6):
        return rng.choice(ASK_WHOLE[things[0].slot or ""])
    nouns = [rng.choice(ASK_NOUNS[t.slot or ""]) for t in things]
    joined = nouns[0] if len(nouns) == 1 else f"{', the '.join(nouns[:-1])} and the {nouns[-1]}"
    if len(nouns) > 1 and not named:
        return rng.choice(ASK_FRAMES).format(x=joined).replace("What is", "What are")
    return rng.choice(ASK_FRAMES).format(x=f"{joined} of the {domain}" if named else joined)


def put_into_words(
    things: Sequence[Thing],
    act: AgentAct | None,
    rng: random.Random,
    *,
    topic: str | None,
    opening: bool,
    brief: bool,
) -> str:
    """One wording of what a turn conveys.

    Parameters
    ----------
    things
        What to convey, in order; must not be empty.
    act
        The agent's newest act, which decides how short an answer can be and how the turn starts.
    topic
        The domain that was spoken of last; another one has to be named.
    opening
        Whether this is the first turn of the conversation.
    brief
        Whether to prefer few words.
    """
    sentences: list[str] = []
    if opening and not brief and rng.random() < 0.35:
        sentences.append(rng.choice(GREETINGS))
    elif (
        not brief
        and act is not None
        and rng.random() < 0.4
        and things[0].kind not in ("correct", "bye", "another", "chat")
    ):
        if act.kind == "no_offer" or act.failure is not None:
            sentences.append(rng.choice(REGRET))
        elif act.kind == "book":
            sentences.append(rng.choice(AFTER_BOOKING))
        elif act.kind == "inform_requested" and any(t.kind == "ask" and t.slot in act.claims for t in things):
            sentences.append(rng.choice(DOUBT))
        elif act.kind in ("offer", "offer_next", "inform_requested"):
            sentences.append(rng.choice(ACKNOWLEDGE))
    rest = list(things)
    while rest:
        head = rest[0]
        run = [t for t in rest if t.kind == head.kind and t.domain == head.domain]
        rest = [t for t in rest if t not in run]
        sentences += _run(head, run, act, rng, topic, brief)
        topic = head.domain or topic
    return " ".join(sentences)


def _run(
    head: Thing, run: list[Thing], act: AgentAct | None, rng: random.Random, topic: str | None, brief: bool
) -> list[str]:
    domain = head.domain or ""
    named = topic != domain
    if head.kind == "inform":
        return _inform_run(domain, run, act, rng, topic, brief)
    if head.kind == "correct":
        start = rng.choice(CORRECT)
        said = [_informed(t, None, rng, brief) for t in run]
        return [
            start + (_lowered(said[0]) if start.rstrip().endswith(",") else said[0]),
            *said[1:],
        ]
    if head.kind == "ask":
        return [_asked(run, rng, brief, named)]
    if head.kind == "raise":
        return [_request_phrase(domain, [], rng, brief)[0]]
    if head.kind == "book":
        return [_booked(domain, [], rng, brief, named)]
    if head.kind == "suggest" and domain and named:
        return [f"Which {domain} would you {rng.choice(('suggest', 'recommend'))}?"]
    options = {
        "suggest": SUGGEST,
        "another": ANOTHER,
        "no_booking": NO_BOOKING,
        "accept": ACKNOWLEDGE,
        "deny": ("No, thank you.", "No thanks."),
        "chat": CHAT,
        "bye": BRIEF_BYES if brief else BYES,
    }
    return [rng.choice(options[head.kind])]


def _inform_run(
    domain: str, run: list[Thing], act: AgentAct | None, rng: random.Random, topic: str | None, brief: bool
) -> list[str]:
    if any(t.opens_booking for t in run):
        first = next(k for k, t in enumerate(run) if t.opens_booking)
        before = _inform_run(domain, run[:first], act, rng, topic, brief) if first else []
        return [*before, _booked(domain, run[first:], rng, brief, topic != domain and not first)]
    answers = [
        t for t in run if act is not None and act.kind == "request" and (act.domain, act.slot) == (t.domain, t.slot)
    ]
    others = [t for t in run if t not in answers]
    sentences = [_informed(t, act, rng, brief) for t in answers]
    if others and topic != domain:
        phrase, others = _request_phrase(domain, others, rng, brief)
        sentences.append(phrase)
    return sentences + [_informed(t, act, rng, brief) for t in others]
