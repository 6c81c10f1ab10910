"""Profiles, generated goals, goal files and MultiWOZ goals."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from ugst_env.dialogue.acts import DONTCARE, UserAct
from ugst_env.goal import Ask, Fact, Objective, UserGoal, Want
from ugst_env.goals.files import GoalFileError, dump_goals, load_goals
from ugst_env.goals.generator import (
    SPLIT_POLICIES,
    SPLIT_PROFILES,
    SPLITS,
    booking,
    challenge,
    constraints,
    generate,
    goal_source,
    kind_of,
    matches,
    satisfiable,
    split_of,
)
from ugst_env.goals.multiwoz import load_multiwoz_goals
from ugst_env.goals.policies import POLICIES, compatible
from ugst_env.goals.profiles import PROFILES, contradiction, contradicts, make_fact, mention
from ugst_env.world import Entity, World
from ugst_env.world.ontology import BOOKABLE, DAYS, INFORMABLE, REQUESTABLE

FACTS = sorted({fact for profile in PROFILES for fact in profile}, key=repr)

# What users say of a booking, not of themselves.
NEUTRAL = (
    "I'm happy with that, book it for 2 nights.",
    "I'd be happy to take it, that's perfect.",
    "Is there a birthday menu?",
    "I'm coming from the station.",
    "I'm leaving from Ellerwick on Friday.",
    "We're travelling from Oxenfold to Quillminster.",
    "I need a train from Ellerwick to Salterby, please.",
    "Does it fit 6 people?",
    "No, not for 3 people.",
    "I'm looking for a place in the centre.",
    "I don't care about the price, any price range is fine.",
    "I'm not worried about the area.",
    "A table at 18:00, please.",
    "A table for half past seven, please.",
    "Can you book it for Friday, for three nights?",
    "I want an expensive hotel with 4 stars.",
    "Is it a budget hotel?",
    "No, that's wrong. I said north.",
    "I am sorry, what is the name of the hotel?",
    "We are on the 5 pm train.",
    "Thank you, that is all. Goodbye!",
)


class TestProfiles:
    def test_bank_is_large_and_without_doubles(self) -> None:
        assert len(PROFILES) == len(set(PROFILES)) >= 60
        assert all(2 <= len(profile) <= 4 for profile in PROFILES)
        assert all(len({fact.kind for fact in profile}) == len(profile) for profile in PROFILES)

    @pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact.kind}-{fact.value}")
    def test_contradictions_and_mentions(self, fact: Fact) -> None:
        for seed in range(12):
            against, stated = contradiction(fact, Random(seed)), mention(fact, Random(seed))
            for wrap in ("{}", "Hello there, {} Cheers.", "I need a hotel. {}"):
                for text in (wrap.format(against), wrap.format(against).upper(), wrap.format(against).lower()):
                    assert contradicts(fact, text, ()), text
                for text in (wrap.format(stated), wrap.format(stated).upper(), wrap.format(stated).lower()):
                    assert not contradicts(fact, text, ()), text

    @pytest.mark.parametrize("profile", PROFILES, ids=range(len(PROFILES)))
    def test_facts_of_a_profile_agree(self, profile: tuple[Fact, ...]) -> None:
        for fact in profile:
            for other in profile:
                assert not any(contradicts(fact, mention(other, Random(seed)), ()) for seed in range(12))

    @pytest.mark.parametrize("text", NEUTRAL)
    def test_nothing_neutral_contradicts(self, text: str) -> None:
        assert not [fact for fact in FACTS if contradicts(fact, text, ())]

    @pytest.mark.parametrize(
        ("kind", "value", "text"),
        [
            ("party_size", "4", "there's three of us"),
            ("party_size", "4", "It’s for 5 people"),
            ("party_size", "4", "we are a party of six"),
            ("party_size", "4", "I am travelling alone."),
            ("home_town", "Wexcombe", "i'm from port ellory, in the south"),
            ("home_town", "Wexcombe", "We came here... I live in Wexford"),
            ("budget", "tight", "Money is no object!"),
            ("budget", "generous", "we're on a shoestring"),
            ("occasion", "birthday", "It is for our anniversary."),
            ("occasion", "honeymoon", "I'm in town for a conference"),
            ("mood", "hurried", "Take your time, no rush."),
            ("mood", "grumpy", "I'm in a great mood"),
            ("companion", "wife", "It will be just me."),
            ("companion", "wife", "My wife is not coming."),
            ("companion", "alone", "My wife and I need a room."),
            ("name", "Casimir", "My name is Ludmila"),
        ],
    )
    def test_what_contradicts(self, kind: str, value: str, text: str) -> None:
        assert contradicts(make_fact(kind, value), text, ())

    def test_a_place_to_see_is_no_occasion(self) -> None:
        fact = make_fact("occasion", "job interview")
        assert not contradicts(fact, "I am looking for a concert hall in the north.", ())
        assert contradicts(fact, "I am looking for a concert.", ())

    def test_people_are_heard_from_the_acts(self) -> None:
        fact = make_fact("party_size", "4")
        assert contradicts(fact, "3", [UserAct("inform", "hotel", "people", "3")])
        assert not contradicts(fact, "4", [UserAct("inform", "hotel", "people", "4")])
        assert not contradicts(fact, "any", [UserAct("inform", "hotel", "people", DONTCARE)])

    def test_a_departure_is_no_home(self) -> None:
        fact = make_fact("home_town", "Wexcombe")
        acts = [UserAct("inform", "train", "departure", "salterby")]
        assert not contradicts(fact, "I'm coming from Salterby.", acts)

    def test_text_facts_are_never_contradicted_and_unknown_kinds_refused(self) -> None:
        assert not contradicts(make_fact("text", "You love trains."), "I hate trains.", ())
        with pytest.raises(ValueError, match="text"):
            contradiction(make_fact("text", "You love trains."), Random(0))
        with pytest.raises(ValueError, match="party_size"):
            contradicts(Fact("shoe_size", "44", ""), "I wear 43.", ())
        for kind, value in (("party_size", "many"), ("party_size", "0"), ("mood", "angry"), ("name", " "), ("x", "y")):
            with pytest.raises(ValueError, match=kind if kind != "x" else "must be one of"):
                make_fact(kind, value)


def wants(goal: UserGoal) -> list[tuple[Objective, Want]]:
    return [
        (objective, part)
        for objective in goal.objectives
        for part in (*objective.requirements, *objective.preferences)
        if isinstance(part, Want)
    ]


@pytest.fixture(scope="module")
def drawn(world: World) -> tuple[UserGoal, ...]:
    return tuple(generate(world, Random(seed)) for seed in range(300))


class TestGenerator:
    def test_fixed_splits(self, world: World) -> None:
        test, val = challenge("test", world), challenge("val", world)
        assert len(test) == 150 and len(val) == 100
        assert len({goal.objectives for goal in (*test, *val)}) == 250 == len({goal.id for goal in (*test, *val)})
        challenge.cache_clear()
        assert challenge("test", world) == test
        with pytest.raises(ValueError, match="train"):
            challenge("train", world)

    def test_shares(self, world: World, drawn: tuple[UserGoal, ...]) -> None:
        for goals in (challenge("test", world), challenge("val", world), drawn):
            kinds = Counter(kind_of(goal, world) for goal in goals)
            assert 0.08 < kinds["impossible"] / len(goals) < 0.25
            assert 0.12 < kinds["conditional"] / len(goals) < 0.32
            sizes = Counter(len(goal.objectives) for goal in goals)
            assert sizes[1] + sizes[2] > 0.8 * len(goals) and sizes[3] > 0

    def test_each_kind_is_what_it_says(self, world: World) -> None:
        for kind in ("plain", "impossible", "conditional"):
            for seed in range(60):
                goal = generate(world, Random(seed), kinds={kind: 1})
                assert kind_of(goal, world) == kind

    def test_conditions_come_true(self, world: World, drawn: tuple[UserGoal, ...]) -> None:
        conditions = Counter[str]()
        for goal in drawn:
            for objective, want in wants(goal):
                if want.condition == "no_match" and want.slot in INFORMABLE[objective.domain]:
                    assert not matches(objective, world) and matches(objective, world, otherwise=True)
                    conditions["search"] += 1
                elif want.condition == "no_match":
                    places = matches(objective, world)
                    assert places and all(world.unavailable(place, booking(objective, place)) for place in places)
                    conditions["booking"] += 1
                elif want.condition:
                    slot = want.condition.partition("=")[0]
                    assert slot not in constraints(objective)
                    assert Ask(slot) in [Ask(part.slot) for part in objective.requirements if isinstance(part, Ask)]
                    conditions["attribute"] += 1
        assert all(conditions[kind] > 2 for kind in ("search", "booking", "attribute")), conditions

    def test_goals_are_well_formed(self, world: World, drawn: tuple[UserGoal, ...]) -> None:
        for goal in (*drawn, *challenge("test", world)):
            assert all(component.text for component in goal.components)
            assert 1 <= len(goal.policy) <= 2 and goal.profile in PROFILES
            assert len(goal.policy) == 1 or compatible(*goal.policy)
            size = next((fact.value for fact in goal.profile if fact.kind == "party_size"), None)
            for objective in goal.objectives:
                domain, parts = objective.domain, objective.requirements
                slots = [part.slot for part in (*parts, *objective.preferences) if isinstance(part, Want)]
                asks = [part.slot for part in parts if isinstance(part, Ask)]
                assert len(set(slots)) == len(slots) and len(set(asks)) == len(asks) and not set(slots) & set(asks)
                assert asks and set(asks) <= set(REQUESTABLE[domain]) - {"trainID"}
                assert len(objective.preferences) <= 1
                details = set(BOOKABLE[domain]) if objective.action == "book" else set()
                assert set(slots) - set(INFORMABLE[domain]) == details
                assert objective.action == "find" or BOOKABLE[domain]
                if domain == "train":
                    assert {"departure", "destination", "day"} < set(slots)
                for want in (part for part in parts if isinstance(part, Want)):
                    assert want.slot != "people" or want.value == (size or want.value)

    def test_policy_about_a_slot_matters_to_its_goal(self, drawn: tuple[UserGoal, ...]) -> None:
        for goal in drawn:
            slots = {want.slot for _, want in wants(goal)}
            assert {rule.value for rule in goal.policy if rule.kind in ("withhold", "not_first")} <= slots

    def test_who_is_short_of_money_wants_nothing_expensive(self, drawn: tuple[UserGoal, ...]) -> None:
        odd = {"tight": "expensive", "generous": "cheap"}
        wanted = Counter[str | None]()
        for goal in drawn:
            budget = next((fact.value for fact in goal.profile if fact.kind == "budget"), None)
            priced = [want for _, want in wants(goal) if want.slot == "pricerange"]
            prices = {value for want in priced for value in (want.value, want.otherwise) if value is not None}
            assert odd.get(budget or "") not in prices
            wanted[budget] += bool(prices)
        # Whose budget is not told wants price ranges as well.
        assert wanted[None] > 20

    def test_same_seed_same_goal(self, world: World, drawn: tuple[UserGoal, ...]) -> None:
        assert drawn[7] == generate(world, Random(7)) != drawn[8]
        again = pickle.loads(pickle.dumps(goal_source("challenge:train", world)))
        assert again(Random(7)) == drawn[7]

    def test_splits_share_nothing(self) -> None:
        for of, bank in ((SPLIT_PROFILES, PROFILES), (SPLIT_POLICIES, POLICIES)):
            parts = [set(of[split]) for split in SPLITS]
            assert sum(map(len, parts)) == len(bank) == len(set().union(*parts))
            assert len(parts[0]) > 0.5 * len(bank) and min(map(len, parts[1:])) > 0.15 * len(bank)
        seen = {rule.kind for rule in SPLIT_POLICIES["train"]}
        assert {rule.kind for rule in (*SPLIT_POLICIES["test"], *SPLIT_POLICIES["val"])} <= seen

    def test_split_of_a_combination_is_fixed(self, world: World) -> None:
        hotel = Entity("hotel", "a", {"name": "a"})
        assert split_of(hotel, ("area", "stars")) == split_of(hotel, ("stars", "area"))
        shares = Counter(split_of(row, ("area",)) for rows in world.tables.values() for row in rows)
        assert 0.55 < shares["train"] / shares.total() < 0.65
        # Written down once: another Python, another machine must cut the same.
        names = [Entity("hotel", name, {"name": name}) for name in "abcdefgh"]
        assert [split_of(row, ("area", "type")) for row in names] == FIRST_EIGHT

    def test_sources(self, world: World) -> None:
        assert goal_source("challenge:val", world).goals == challenge("val", world)
        assert goal_source("challenge:test", world)(Random(3)) in challenge("test", world)
        assert not goal_source("challenge:train", world).goals
        with pytest.raises(ValueError, match="challenge:train"):
            goal_source("challenge:dev", world)
        with pytest.raises(ValueError, match="split"):
            generate(world, Random(0), split="dev")
        with pytest.raises(ValueError, match="kinds"):
            generate(world, Random(0), kinds={"odd": 1})

    def test_small_worlds(self) -> None:
        hotel = {"area": "east", "pricerange": "cheap", "stars": "4", "type": "hotel", "phone": "1", "address": "x"}
        rows = tuple(Entity("hotel", f"inn {i}", {"name": f"inn {i}", **hotel}) for i in range(4))
        world = World("small", {"hotel": rows})
        assert all(generate(world, Random(seed)).objectives[0].domain == "hotel" for seed in range(20))
        with pytest.raises(ValueError, match="too small"):
            generate(World("empty", {"hotel": ()}), Random(0))

    def test_satisfiable_looks_at_the_booking(self, world: World) -> None:
        wanted = [Want("day", DAYS[0]), Want("time", "18:00")]
        assert satisfiable(Objective("restaurant", "book", (Want("people", "2"), *wanted)), world)
        assert not satisfiable(Objective("restaurant", "book", (Want("people", "90"), *wanted)), world)
        assert not satisfiable(Objective("restaurant", "find", (Want("food", "moon"),)), world)
        assert satisfiable(
            Objective("restaurant", "find", (Want("food", "moon", world.values("restaurant", "food")[0], "no_match"),)),
            world,
        )


FIRST_EIGHT = ["train", "train", "train", "val", "train", "val", "test", "val"]

GOAL = """\
id: weekend
profile:
  - {kind: party_size, value: 2}
  - You hold a grudge against trains.
policy:
  - {kind: max_words, value: 12, text: Be brief.}
  - "Never mention your \\U0001F3E0."
objectives:
  - domain: hotel
    action: book
    requirements:
      - {slot: area, value: East, otherwise: north}
      - {slot: people, value: 2}
      - {slot: day, value: Friday}
      - {slot: stay, value: 2, otherwise: 3, if: parking = yes}
      - {slot: internet, value: yes}
      - {ask: phone}
    preferences:
      - {slot: pricerange, value: cheap, text: Cheap would be nice.}
  - {domain: train, action: find, requirements: [{slot: leaveAt, value: 9:05}]}
"""


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "goals.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


class TestFiles:
    def test_reads_a_goal(self, write: Write) -> None:
        (goal,) = load_goals(write(GOAL))
        hotel, train = goal.objectives
        assert goal.id == "weekend" and goal.profile[0] == make_fact("party_size", "2")
        assert goal.profile[1] == Fact("text", "You hold a grudge against trains.", "You hold a grudge against trains.")
        assert goal.policy[0].text == "Be brief." and goal.policy[1].kind == "text"
        area, _, day, stay, internet, ask = hotel.requirements
        assert isinstance(area, Want) and isinstance(stay, Want) and isinstance(day, Want)
        assert (area.value, area.otherwise, area.condition) == ("east", "north", "no_match")
        assert (stay.value, stay.otherwise, stay.condition) == ("2", "3", "parking=yes")
        assert day.value == "friday" and isinstance(internet, Want) and internet.value == "yes"
        assert ask == Ask("phone", "Find out the phone number.")
        assert hotel.preferences[0].text == "Cheap would be nice." and hotel.text
        assert isinstance(train.requirements[0], Want) and train.requirements[0].value == "09:05"

    @pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
    def test_round_trip(self, tmp_path: Path, world: World, write: Write, suffix: str) -> None:
        goals = (*load_goals(write(GOAL)), *challenge("test", world)[:40])
        dump_goals(goals, tmp_path / f"out.{suffix}")
        assert load_goals(tmp_path / f"out.{suffix}") == goals
        dump_goals(goals[0], tmp_path / f"one.{suffix}")
        assert load_goals(tmp_path / f"one.{suffix}") == goals[:1]

    @pytest.mark.parametrize(
        ("old", "new", "line", "path", "message"),
        [
            ("slot: area", "slot: aera", 12, "objectives[0].requirements[0].slot", "did you mean 'area'"),
            ("slot: area", "slt: area", 12, "objectives[0].requirements[0].slt", "did you mean 'slot'"),
            ("value: East", "value: East, value: x", 12, "objectives[0].requirements[0].value", "twice"),
            ("value: East, ", "", 12, "objectives[0].requirements[0]", "'value' is missing"),
            ("otherwise: north", "otherwise: east", 12, "objectives[0].requirements[0].otherwise", "differ"),
            ("otherwise: north", "otherwise: north, if: stars=4", 12, "objectives[0].requirements[0].if", "no_match"),
            ("domain: hotel", "domain: hotell", 9, "objectives[0].domain", "did you mean 'hotel'"),
            ("action: book", "action: find", 13, "objectives[0].requirements[1].slot", "'book'"),
            ("action: book", "action: rent", 10, "objectives[0].action", "accepted: find, book"),
            ("Friday", "Fryday", 14, "objectives[0].requirements[2].value", "did you mean 'friday'"),
            ("value: 2, otherwise: 3", "value: two, otherwise: 3", 15, "objectives[0].requirements[3].value", "whole"),
            ("otherwise: 3, ", "", 15, "objectives[0].requirements[3].if", "otherwise"),
            ("parking = yes", "carpark=yes", 15, "objectives[0].requirements[3].if", "carpark"),
            ("parking = yes", "parking", 15, "objectives[0].requirements[3].if", "slot=value"),
            ("slot: internet", "slot: area", 16, "objectives[0].requirements[4]", "twice"),
            ("slot: internet", "slot: parking", 16, "", ""),
            ("value: yes}", "value: maybe}", 16, "objectives[0].requirements[4].value", "yes or no"),
            ("ask: phone", "ask: fone", 17, "objectives[0].requirements[5].ask", "did you mean 'phone'"),
            ("slot: pricerange, value: cheap, text: Cheap would be nice.", "ask: stars", 19,
             "objectives[0].preferences[0].ask", "slot, value, text"),
            ("slot: pricerange, value: cheap", "slot: day, value: friday", 19,
             "objectives[0].preferences[0].slot", "booking"),
            ("domain: train", "domain: hotel", 20, "objectives[1].requirements[0].slot", "leaveAt"),
            ("9:05", "25:05", 20, "objectives[1].requirements[0].value", "HH:MM"),
            ("[{slot: leaveAt, value: 9:05}]", "[]", 20, "objectives[1]", "at least one"),
            ("party_size, value: 2", "party_size, value: 3", 13, "objectives[0].requirements[1]", "party_size"),
            ("kind: party_size", "kind: party_sise", 3, "profile[0].kind", "did you mean 'party_size'"),
            ("value: 12", "value: many", 6, "policy[0].value", "whole number"),
            ("policy:", "polices:", 5, "polices", "did you mean 'policy'"),
            ("profile:", "profile: []\nprofile:", 3, "profile", "twice"),
            ("id: weekend", "id: [weekend]", 1, "id", "text"),
            ("id: weekend", "id: {", 3, "", "no valid YAML"),
        ],
    )  # fmt: skip
    def test_errors_say_where_what_and_what_else(
        self, write: Write, old: str, new: str, line: int, path: str, message: str
    ) -> None:
        assert GOAL.count(old)
        file = write(GOAL.replace(old, new, 1))
        if not message:
            load_goals(file)
            return
        with pytest.raises(GoalFileError) as caught:
            load_goals(file)
        assert (caught.value.line, caught.value.path) == (line, path), str(caught.value)
        assert message in caught.value.problem and f"{file}, line {line}" in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "empty file"),
            ("[]", "empty list"),
            ("- 1", "must be a mapping"),
            ("objectives: []", "at least one objective"),
            ("objectives:", "must be a list"),
            ("profile: []", "'objectives' is missing"),
            ("a: 1\n---\nb: 2", "no valid YAML"),
            ("&a [*a]", "must be a mapping"),
            ("objectives: [{domain: attraction, action: book, requirements: [{ask: phone}]}]", "accepted: find"),
            ("objectives: [{domain: hotel, action: find, requirements: [{ask: reference}]}]", "'reference'"),
        ],
    )
    def test_unusable_files(self, write: Write, text: str, message: str) -> None:
        with pytest.raises(GoalFileError, match=message):
            load_goals(write(text))

    def test_json(self, write: Write) -> None:
        objective = {"domain": "hotel", "action": "find", "requirements": [{"ask": "phone"}]}
        data = {"objectives": [objective], "id": "\U0001f3e0"}
        assert load_goals(write(json.dumps(data, indent="\t"), "g.json"))[0].id == "\U0001f3e0"
        with pytest.raises(GoalFileError, match="line 2: no valid JSON"):
            load_goals(write('{"id": "a",\n x}', "g.json"))
        with pytest.raises(GoalFileError, match="twice"):
            load_goals(write('{"id": "a", "id": "b"}', "g.json"))

    def test_missing_and_odd_files(self, tmp_path: Path, write: Write) -> None:
        with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
            load_goals(tmp_path / "nothing.yaml")
        with pytest.raises(GoalFileError, match=r"\.yaml"):
            load_goals(write(GOAL, "goals.toml"))
        (tmp_path / "latin.yaml").write_bytes(b"id: caf\xe9")
        with pytest.raises(GoalFileError, match="UTF-8"):
            load_goals(tmp_path / "latin.yaml")


class TestMultiwoz:
    @pytest.fixture
    def city(self) -> World:
        rows = (
            {"name": "a", "food": "thai", "area": "east", "pricerange": "cheap"},
            {"name": "b", "food": "thai", "area": "west", "pricerange": "expensive"},
        )
        return World("city", {"restaurant": tuple(Entity("restaurant", row["name"], row) for row in rows)})

    def read(self, write: Write, city: World, restaurant: dict, **domains: dict):
        record = {"id": "X1", "message": [], "goal": {"restaurant": restaurant, **domains}}
        return load_multiwoz_goals(write(json.dumps([record]), "m.json"), city)

    def test_real_failures_become_conditions(self, write: Write, city: World) -> None:
        given = {
            "info": {"food": "Thai", "area": "east"}, "fail_info": {"food": "british", "area": "east"},
            "book": {"people": "2", "day": "monday", "time": "9:30", "invalid": False}, "fail_book": {},
        }  # fmt: skip
        ((goal,), dropped) = self.read(write, city, given)
        assert not dropped and goal.id == "X1"
        food, area, *details = goal.objectives[0].requirements
        assert isinstance(food, Want) and (food.value, food.otherwise) == ("british", "thai")
        assert food.condition == "no_match"
        assert isinstance(area, Want) and area.otherwise is None and goal.objectives[0].action == "book"
        assert [(part.slot, part.value) for part in details if isinstance(part, Want)] == [
            ("people", "2"), ("day", "monday"), ("time", "09:30"),
        ]  # fmt: skip

    def test_failures_that_would_succeed_are_left_out(self, write: Write, city: World) -> None:
        given = {"info": {"food": "thai", "area": "east"}, "fail_info": {"food": "thai", "area": "west"}}
        ((goal,), _) = self.read(write, city, given)
        assert not any(want.otherwise for _, want in wants(goal))

    def test_full_bookings_become_conditions(self, write: Write, city: World) -> None:
        info = {"info": {"food": "thai", "area": "east"}, "reqt": ["phone"]}
        details = {"people": "30", "day": "monday", "time": "18:00"}
        ((goal,), _) = self.read(write, city, {**info, "book": {**details, "people": "2"}, "fail_book": details})
        found = [(want.slot, want.value, want.otherwise) for _, want in wants(goal) if want.otherwise]
        assert found == [("people", "30", "2")]
        assert goal.objectives[0].requirements[-1] == Ask("phone", "Find out the phone number.")

    def test_what_cannot_be_represented(self, write: Write, city: World) -> None:
        info = {"info": {"food": "thai"}}
        goals, dropped = self.read(write, city, info, taxi={"info": {"leaveAt": "08:00"}})
        assert not goals and list(dropped.values()) == [1] and "taxi" in next(iter(dropped))
        file = write(json.dumps([{"id": "X1", "goal": {"taxi": {"info": {}}}}]), "t.json")
        with pytest.raises(ValueError, match=r"X1.*taxi"):
            load_multiwoz_goals(file, city, strict=True)
        for odd in ({"info": {"colour": "red"}}, {"info": {"food": "thai"}, "reqt": ["colour"]}, {"info": 3}):
            assert self.read(write, city, odd)[1]
        with pytest.raises(ValueError, match="list"):
            load_multiwoz_goals(write("{}", "o.json"), city)

    def test_published_goals(self, multiwoz_db: Path) -> None:
        path = multiwoz_db.parent / "multiwoz_goals_val.json"
        if not path.is_file():
            pytest.skip("MultiWOZ's goals (../shared/data/multiwoz_goals_val.json) are not on this machine")
        world = World.from_multiwoz(multiwoz_db)
        goals, dropped = load_multiwoz_goals(path, world)
        assert len(goals) == 793 and sum(dropped.values()) == 206 and len(dropped) == 1
        kinds = Counter(kind_of(goal, world) for goal in goals)
        assert kinds["conditional"] > 150 and kinds["plain"] > 500
        for goal in goals:
            for objective, want in wants(goal):
                if want.otherwise and want.slot in INFORMABLE[objective.domain]:
                    assert not matches(objective, world)
