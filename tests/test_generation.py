"""Agent wording: every claim of an act stands in its words, in tidy English."""

from __future__ import annotations

import random
import re

import pytest

from ugst_env.dialogue.acts import AGENT_ACT_KINDS, AgentAct
from ugst_env.dialogue.generation import display, say, singular
from ugst_env.envs.actions import ACTIONS
from ugst_env.world.database import World
from ugst_env.world.ontology import DOMAINS, INFORMABLE, REQUESTABLE

SEEDS = range(6)


def _values(claims: dict[str, str | None]) -> list[str]:
    # Yes and no are said as "it has parking", "it has no parking".
    return [value for slot, value in claims.items() if value is not None and slot not in ("internet", "parking")]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", ["offer", "offer_next"])
def test_an_offer_says_all_that_it_claims(world: World, domain: str, kind: str) -> None:
    for entity in world.tables[domain][:: max(1, len(world.tables[domain]) // 30)]:
        slots = [slot for slot in INFORMABLE[domain] if slot != "name" and slot in entity.attributes]
        claims: dict[str, str | None] = {slot: entity.attributes[slot] for slot in slots}
        for seed in SEEDS:
            text = say(AgentAct(kind, domain, entity=entity.name, claims=claims), random.Random(seed)).lower()
            for value in (entity.name, *_values(claims)):
                assert value.lower() in text
            for slot in ("internet", "parking"):
                if slot in claims:
                    assert (f"no {slot}" in text) is (claims[slot] == "no")


@pytest.mark.parametrize("domain", DOMAINS)
def test_answers_say_each_value(world: World, domain: str) -> None:
    entity = world.tables[domain][0]
    for slot in REQUESTABLE[domain]:
        value = entity.attributes.get(slot)
        act = AgentAct("inform_requested", domain, entity=entity.name, claims={slot: value})
        for seed in SEEDS:
            text = say(act, random.Random(seed))
            assert text[0].isupper()
            assert text.endswith(".")
            if value is None:
                assert f"I do not have the {slot}" in text or f"i do not have the {slot}" in text.lower()
            elif slot not in ("internet", "parking"):
                assert value.lower() in text.lower()


def test_what_is_not_known_is_said_to_be_so() -> None:
    act = AgentAct("inform_requested", "hotel", entity="the osier inn", claims={"phone": None})
    assert "do not have the phone" in say(act, random.Random(0))
    nothing = say(AgentAct("inform_requested", "hotel", entity="the osier inn"), random.Random(0))
    assert "know" in nothing or "information" in nothing


@pytest.mark.parametrize(
    ("domain", "booking", "expected"),
    [
        ("hotel", {"people": "1", "day": "monday", "stay": "1"}, "for 1 person from Monday for 1 night"),
        ("hotel", {"people": "3", "day": "monday", "stay": "2"}, "for 3 people from Monday for 2 nights"),
        ("restaurant", {"people": "2", "day": "friday", "time": "19:00"}, "for 2 people on Friday at 19:00"),
        ("train", {"people": "1"}, "for 1 person"),
    ],
)
def test_a_booking_says_its_details(domain: str, booking: dict[str, str], expected: str) -> None:
    for seed in SEEDS:
        made = say(AgentAct("book", domain, entity="x y", booking=booking, reference="AB12CD34"), random.Random(seed))
        assert expected in made
        assert "AB12CD34" in made
        for failure, words in (("full", "fully booked"), ("party_too_large", "that many people")):
            failed = AgentAct("book", domain, entity="x y", booking=booking, failure=failure)
            text = say(failed, random.Random(seed))
            assert expected in text
            assert words in text


def test_every_action_has_several_wordings(world: World) -> None:
    for action in ACTIONS:
        entity = world.tables[action.domain][0] if action.domain else None
        act = AgentAct(
            action.kind,
            action.domain,
            action.slot,
            entity.name if entity else None,
            dict(entity.attributes) if entity else {},
            reference="AB12CD34" if action.kind == "book" else None,
        )
        wordings = {say(act, random.Random(seed)) for seed in range(40)}
        assert len(wordings) >= (1 if action.kind == "request" else 2), action
        for text in wordings:
            assert not re.search(r"\{|\}|None|  |\ba [aeio]\w|\ban [bcdfgjk]", text), text


def test_words_depend_on_the_seed_alone() -> None:
    act = AgentAct("req_more")
    assert say(act, random.Random(4)) == say(act, random.Random(4))


def test_a_guesthouse_is_called_one() -> None:
    act = AgentAct("offer", "hotel", entity="marchpane villa", claims={"type": "guesthouse", "stars": "1"})
    assert "a 1 star guesthouse" in say(act, random.Random(0))


@pytest.mark.parametrize(
    ("slot", "value", "shown"),
    [
        ("name", "the lantern weir hotel", "The Lantern Weir Hotel"),
        ("name", "kiln and canvas", "Kiln and Canvas"),
        ("name", "saint merewin's church", "Saint Merewin's Church"),
        ("day", "monday", "Monday"),
        ("food", "asian fusion", "Asian fusion"),
        ("food", "seafood", "seafood"),
        ("postcode", "qm35eu", "QM35EU"),
        ("area", "centre", "centre"),
        ("phone", "01632960826", "01632960826"),
    ],
)
def test_values_are_written_as_people_write_them(slot: str, value: str, shown: str) -> None:
    assert display(slot, value) == shown


def test_one_is_singular() -> None:
    assert singular("for 1 people and 11 people for 1 nights") == "for 1 person and 11 people for 1 night"


def test_acts_that_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="unknown agent act kind 'sing'"):
        say(AgentAct("sing"), random.Random(0))
    with pytest.raises(ValueError, match="a 'request' act needs the slot"):
        say(AgentAct("request", "hotel"), random.Random(0))
    assert {action.kind for action in ACTIONS} < set(AGENT_ACT_KINDS)
