"""What an agent's own words are taken for: offers, answers, refusals, questions, lies."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.belief import BeliefState
from ugst_env.dialogue.claims import read_agent
from ugst_env.dialogue.generation import say
from ugst_env.envs.setup import vocabulary_of
from ugst_env.world.database import Entity, World
from ugst_env.world.ontology import BOOKABLE, DAYS, DOMAINS, INFORMABLE, REQUESTABLE

HERON = "the gilded heron hotel"
MADE = AgentAct("book", "hotel", entity=HERON, booking={"people": "2"}, reference="AB12CD34")
FULL = AgentAct("book", "hotel", entity=HERON, booking={"people": "2"}, failure="full")


def read(
    world: World,
    text: str,
    *,
    domain: str = "hotel",
    offered: str | None = None,
    pending: tuple[str, ...] = (),
    deeds: tuple[AgentAct, ...] = (),
) -> tuple[AgentAct, ...]:
    """What a message says after a user has spoken of `domain`, and asked for `pending` of what is on offer."""
    belief = BeliefState(domain=domain, raised={domain}, pending=[(domain, slot) for slot in pending])
    if offered:
        belief.offered[domain] = offered
    return read_agent(text, world=world, vocabulary=vocabulary_of(world), belief=belief, deeds=deeds)


def brief(acts: tuple[AgentAct, ...]) -> list[Any]:
    return [(act.kind, act.slot or act.entity or act.domain, dict(act.claims)) for act in acts]


def some_act(rng: random.Random, world: World) -> tuple[AgentAct, Entity, tuple[str, ...]] | None:
    """An act of the discrete environment, the entity that it is about, and what the user asked for."""
    kind = rng.choice(("request", "offer", "offer_next", "inform_requested", "no_offer", "book", "req_more"))
    domain = rng.choice(DOMAINS)
    entity = rng.choice(world.tables[domain])
    if kind == "request":
        return AgentAct(kind, domain, rng.choice((*INFORMABLE[domain], *BOOKABLE[domain]))), entity, ()
    if kind in ("offer", "offer_next"):
        slots = [slot for slot in INFORMABLE[domain] if slot in entity.attributes and slot != "name"]
        claims: dict[str, str | None] = {slot: entity.attributes[slot] for slot in slots}
        return AgentAct(kind, domain, entity=entity.name, claims=claims), entity, ()
    if kind == "inform_requested":
        asked = tuple(rng.sample(REQUESTABLE[domain], rng.choice((1, 1, 2))))
        answers = {slot: entity.attributes.get(slot) for slot in asked}
        return AgentAct(kind, domain, entity=entity.name, claims=answers), entity, asked
    if kind == "book":
        if not BOOKABLE[domain]:
            return None
        all_details = {"people": str(rng.randint(1, 6)), "day": rng.choice(DAYS), "time": "18:15", "stay": "3"}
        details = {slot: all_details[slot] for slot in BOOKABLE[domain]}
        result = world.book(entity, details)
        act = AgentAct(
            kind, domain, entity=entity.name, booking=details, reference=result.reference, failure=result.failure
        )
        return act, entity, ()
    return AgentAct(kind, domain if kind == "no_offer" else None), entity, ()


def test_whatever_the_discrete_agent_says_is_read_back(world: World) -> None:
    """All the wording of `generation.say`: the same act, the same entity, and no claim that the act did not make."""
    rng, read_back = random.Random(0), 0
    while read_back < 1500:
        drawn = some_act(rng, world)
        if drawn is None:
            continue
        act, entity, asked = drawn
        on_offer = entity.name if act.kind in ("inform_requested", "book") else None
        deeds = (act,) if act.kind == "book" else ()
        text = say(act, rng)
        got = read(world, text, domain=entity.domain, offered=on_offer, pending=asked, deeds=deeds)
        assert len(got) == 1, (text, got)
        assert got[0].kind == act.kind.replace("offer_next", "offer"), text
        assert (got[0].domain, got[0].entity, got[0].slot) == (act.domain, act.entity, act.slot), text
        assert (got[0].reference, got[0].failure, got[0].silent) == (act.reference, act.failure, False), text
        for slot, value in got[0].claims.items():
            assert value == entity.attributes.get(slot), text
        if act.kind == "inform_requested":
            assert set(asked) <= set(got[0].claims), text
        read_back += 1


@pytest.mark.parametrize(
    ("text", "state", "expected"),
    [
        (
            "I found The Gilded Heron Hotel in the south. It has 5 stars and offers free wifi. Shall I book it?",
            {},
            [("offer", HERON, {"area": "south", "stars": "5", "internet": "yes"})],
        ),
        (
            "Great news!\n\n**The Gilded Heron Hotel** is a match:\n- Area: south\n- Price: expensive",
            {},
            [("offer", HERON, {"area": "south", "pricerange": "expensive"})],
        ),
        (
            "So you'd like a cheap hotel in the north, got it! Which area and price range would you prefer?",
            {"offered": HERON},
            [("request", "area", {}), ("request", "pricerange", {})],
        ),
        (
            "Unfortunately, I couldn't find any cheap hotels in the south. Would you like to try another area?",
            {},
            [("no_offer", "hotel", {}), ("request", "area", {})],
        ),
        ("There's no train that early on Tuesday.", {"domain": "train"}, [("no_offer", "train", {})]),
        ("Nothing else matches your request.", {"offered": HERON}, []),
        (
            "No, unfortunately it doesn't have parking.",
            {"offered": HERON, "pending": ("parking",)},
            [("inform_requested", HERON, {"parking": "no"})],
        ),
        (
            "Yes, it does have parking.",
            {"offered": HERON, "pending": ("parking",)},
            [("inform_requested", HERON, {"parking": "yes"})],
        ),
        (
            "The address is not available, sorry.",
            {"offered": HERON, "pending": ("address",)},
            [("inform_requested", HERON, {"address": None})],
        ),
        ("What day are you travelling?", {"domain": "train"}, [("request", "day", {})]),
        (
            "Where would you like to go, and from where?",
            {"domain": "train"},
            [("request", "departure", {}), ("request", "destination", {})],
        ),
        (
            "What cuisine are you in the mood for? Also, what's your budget?",
            {"domain": "restaurant"},
            [("request", "food", {}), ("request", "pricerange", {})],
        ),
        ("Is there anything else I can help you with?", {}, [("req_more", None, {})]),
        ("Let me see.", {}, []),
        ("", {}, []),
    ],
)
def test_words_of_other_agents(world: World, text: str, state: dict[str, Any], expected: list[Any]) -> None:
    assert brief(read(world, text, **state)) == expected


def test_a_train_is_read_with_its_times_and_price(world: World) -> None:
    train = world.tables["train"][0]
    a = train.attributes
    text = (
        f"{train.name} departs at {a['leaveAt']} and gets in at {a['arriveBy']}. "
        f"It costs £{a['price'].split()[0]} and takes {a['duration']}."
    )
    (act,) = read(world, text, domain="train", pending=("price", "duration"))
    assert (act.kind, act.entity) == ("offer", train.name)
    assert {"leaveAt", "arriveBy", "price", "duration"} <= set(act.claims)
    assert all(a[slot] == value for slot, value in act.claims.items())
    (late,) = read(world, f"{train.name} departs at 23:58.", domain="train")
    assert late.claims["leaveAt"] == "23:58"


class TestBookings:
    def test_a_booking_counts_whatever_the_words(self, world: World) -> None:
        (act,) = read(world, "All done!", offered=HERON, deeds=(MADE,))
        assert (act.kind, act.reference, act.silent) == ("book", "AB12CD34", True)
        (act,) = read(world, "All done! Your reference number is AB12CD34.", offered=HERON, deeds=(MADE,))
        assert (act.reference, act.silent) == ("AB12CD34", False)

    def test_a_failure_counts_once_it_is_told(self, world: World) -> None:
        (act,) = read(world, "Sorry, they are fully booked on that day.", offered=HERON, deeds=(FULL,))
        assert (act.kind, act.failure) == ("book", "full")
        assert read(world, "One moment.", offered=HERON, deeds=(FULL,)) == ()

    @pytest.mark.parametrize(
        "text",
        [
            "I've booked it for you.",
            "Your booking at The Gilded Heron Hotel is confirmed!",
            "It is booked. The reference number is ZZ99ZZ99.",
            "Reference: ZZ99ZZ99",
        ],
    )
    def test_words_alone_book_nothing(self, world: World, text: str) -> None:
        acts = read(world, text, offered=HERON)
        assert [act.kind for act in acts] == ["inform_requested"]
        assert acts[0].claims["reference"] is not None  # which the tracker finds to be false


class TestSprays:
    """Saying everything there is must not be taken for knowing it."""

    def test_the_first_of_many_names_is_offered(self, world: World) -> None:
        names = [entity.name.title() for entity in world.tables["hotel"]]
        acts = read(world, "There are " + ", ".join(names))
        assert [act.entity for act in acts] == [world.tables["hotel"][0].name]

    @pytest.mark.parametrize(
        ("slot", "text"),
        [
            ("pricerange", "It is cheap, moderate or expensive."),
            ("phone", "The phone number is 01632960000 or 01632960001 or 01632960002."),
            ("area", "It is in the north, the south, the east, the west and the centre."),
            ("stars", "It has 1 star, 2 stars, 3 stars, 4 stars or 5 stars."),
        ],
    )
    def test_all_values_are_no_answer(self, world: World, slot: str, text: str) -> None:
        entity = world.find("hotel", HERON)
        assert entity is not None
        (act,) = read(world, text, offered=HERON, pending=(slot,))
        assert act.claims[slot] != entity.attributes[slot]

    def test_yes_and_no_are_no_answer(self, world: World) -> None:
        entity = world.find("hotel", HERON)
        assert entity is not None
        for text in ("It has parking. It has no parking.", "It has no parking. It has parking."):
            (act,) = read(world, text, offered=HERON, pending=("parking",))
            assert act.claims["parking"] != entity.attributes["parking"]
