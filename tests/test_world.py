"""The world tells the truth, the same truth each time, and says so clearly when asked for nonsense."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import time
from collections import Counter
from dataclasses import FrozenInstanceError
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ugst_env.world import SLOTS, Entity, World
from ugst_env.world.build_city import build
from ugst_env.world.database import clock, minutes, name_key, normalise
from ugst_env.world.ontology import AREAS, BOOKABLE, DAYS, DOMAINS, INFORMABLE, PRICERANGES

CITY = World.load()
BOOKING = {"people": "2", "day": "friday", "stay": "3", "time": "19:00"}


def booking_for(domain: str, **change: str) -> dict[str, str]:
    return {slot: {**BOOKING, **change}[slot] for slot in BOOKABLE[domain]}


def matches(entity: Entity, slot: str, value: str) -> bool:
    known = entity.attributes.get(slot)
    if value == "dontcare":
        return True
    if known is None:
        return False
    if slot == "leaveAt":
        return minutes(known) >= minutes(value)
    if slot == "arriveBy":
        return minutes(known) <= minutes(value)
    return known == value


# --- the shipped city ---


def test_the_city_has_the_promised_size(world: World) -> None:
    sizes = {domain: len(rows) for domain, rows in world.tables.items()}
    assert sizes["hotel"] == 35
    assert sizes["restaurant"] == 110
    assert sizes["attraction"] == 80
    assert sizes["train"] >= 1500
    assert world.domains == DOMAINS
    assert 20 <= len(world.values("restaurant", "food")) <= 25
    assert 11 <= len(world.values("attraction", "type")) <= 14


def test_the_city_speaks_the_ontology(world: World) -> None:
    for domain, slot in (("hotel", "area"), ("restaurant", "area"), ("attraction", "area")):
        assert set(world.values(domain, slot)) == set(AREAS)
    for domain in ("hotel", "restaurant"):
        assert set(world.values(domain, "pricerange")) == set(PRICERANGES)
    assert set(world.values("hotel", "type")) == {"hotel", "guesthouse"}
    assert set(world.values("hotel", "stars")) == set("012345")
    assert set(world.values("hotel", "internet")) == set(world.values("hotel", "parking")) == {"yes", "no"}
    assert set(world.values("train", "day")) == set(DAYS)
    for domain, rows in world.tables.items():
        known = {slot for row in rows for slot in row.attributes}
        assert known == set(SLOTS[domain])


def test_trains_run_both_ways_on_all_days_and_add_up(world: World) -> None:
    towns = set(world.values("train", "departure")) - {"quillminster"}
    assert len(towns) == 12
    for town, day in product(towns, DAYS):
        for departure, destination in ((town, "quillminster"), ("quillminster", town)):
            assert world.search("train", {"departure": departure, "destination": destination, "day": day})
    for train in world.tables["train"]:
        a = train.attributes
        assert minutes(a["arriveBy"]) - minutes(a["leaveAt"]) == int(a["duration"].split()[0])
        assert minutes(a["arriveBy"]) < 24 * 60


def test_some_wishes_are_impossible_in_every_domain(world: World) -> None:
    assert not world.search("restaurant", {"food": "korean", "pricerange": "cheap", "area": "west"})
    assert not world.search("hotel", {"area": "centre", "pricerange": "cheap"})
    assert not world.search("hotel", {"type": "guesthouse", "stars": "5"})
    assert not world.search("attraction", {"type": "castle", "area": "nowhere"})
    pairs = product(world.values("attraction", "type"), AREAS)
    assert 0 < sum(not world.search("attraction", {"type": kind, "area": area}) for kind, area in pairs) < 40


def test_names_phones_and_postcodes_are_distinct_enough(world: World) -> None:
    names = [name_key(row.name) for domain in DOMAINS for row in world.tables[domain]]
    assert len(set(names)) == len(names)
    stations = {name_key(station) for station in world.values("train", "departure")}
    assert not stations & set(names)
    phones = Counter(row.attributes.get("phone") for domain in DOMAINS for row in world.tables[domain])
    del phones[None]
    assert max(phones.values()) == 1


def test_build_city_writes_the_shipped_files_again(tmp_path: Path) -> None:
    build(tmp_path / "quillminster")
    again = World.load(tmp_path / "quillminster")
    assert again == CITY
    shipped = Path(sys.modules[World.__module__].__file__ or "").parent / "data" / "quillminster"
    for path in sorted(shipped.iterdir()):
        assert (tmp_path / "quillminster" / path.name).read_bytes() == path.read_bytes()
    assert sum(path.stat().st_size for path in shipped.iterdir()) < 300_000


def test_loading_is_cached_and_searching_is_quick(world: World) -> None:
    assert World.load() is World.load("default") is World.load("quillminster") is world
    start = time.process_time()
    for _ in range(1000):
        world.search("hotel", {"area": "north", "pricerange": "moderate"})
    # Meant to take about 4 microseconds each; the bound leaves room for a busy machine.
    assert time.process_time() - start < 0.2


# --- search ---


@st.composite
def searches(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    domain = draw(st.sampled_from(DOMAINS))
    slots = draw(st.lists(st.sampled_from(SLOTS[domain]), unique=True, max_size=4))
    constraints = {}
    for slot in slots:
        value = st.sampled_from((*CITY.values(domain, slot), "dontcare"))
        if slot in ("leaveAt", "arriveBy"):
            value = st.one_of(value, st.integers(0, 25 * 60).map(clock))
        constraints[slot] = draw(value)
    return domain, constraints


@settings(max_examples=150, deadline=None)
@given(searches())
def test_search_agrees_with_looking_at_every_row(case: tuple[str, dict[str, str]]) -> None:
    domain, constraints = case
    wanted = [row for row in CITY.tables[domain] if all(matches(row, *pair) for pair in constraints.items())]
    found = CITY.search(domain, constraints)
    assert len(set(found)) == len(found)
    assert set(found) == set(wanted)
    by_arrival = constraints.get("arriveBy", "dontcare") != "dontcare" and (
        constraints.get("leaveAt", "dontcare") == "dontcare"
    )
    if not by_arrival:
        assert list(found) == wanted
    assert CITY.search(domain, dict(reversed(constraints.items()))) == found


def test_trains_come_by_departure_or_latest_arrival_first(world: World) -> None:
    route = {"departure": "kestleford", "destination": "quillminster", "day": "tuesday"}
    leaving = [train.attributes["leaveAt"] for train in world.search("train", {**route, "leaveAt": "09:00"})]
    assert leaving == sorted(leaving) and leaving[0] >= "09:00"
    arriving = [train.attributes["arriveBy"] for train in world.search("train", {**route, "arriveBy": "12:00"})]
    assert arriving == sorted(arriving, reverse=True) and arriving[0] <= "12:00"
    both = [
        train.attributes["leaveAt"]
        for train in world.search("train", {**route, "leaveAt": "7:00", "arriveBy": "12:00"})
    ]
    assert both == sorted(both) and both


def test_times_include_their_own_minute(world: World) -> None:
    train = world.tables["train"][100]
    for slot in ("leaveAt", "arriveBy"):
        found = world.search("train", {slot: train.attributes[slot], "trainID": train.name})
        assert found == (train,)


def test_values_and_names_may_be_spelt_otherwise(world: World) -> None:
    heron = world.find("hotel", "the gilded heron hotel")
    assert heron is not None
    for name in ("Gilded Heron Hotel", " the  gilded heron hotel ", "THE GILDED HERONHOTEL"):
        assert world.find("hotel", name) == heron
        assert world.search("hotel", {"name": name}) == (heron,)
    assert world.find("hotel", "heron") is None
    assert world.find("train", world.tables["train"][0].name.lower()) == world.tables["train"][0]
    assert world.search("restaurant", {"food": " Italian "}) == world.search("restaurant", {"food": "italian"})
    assert world.search("train", {"leaveAt": "9:15"}) == world.search("train", {"leaveAt": "09:15"})
    assert world.search("hotel", {"type": "guest house"}) == world.search("hotel", {"type": "guesthouse"})


@pytest.mark.parametrize(
    ("domain", "constraints", "words"),
    [
        ("hotels", {}, "domain must be one of 'attraction', 'hotel', 'restaurant', 'train', got 'hotels'"),
        ("hotel", {"food": "thai"}, "a hotel can be searched by 'name', 'area'.*got 'food'"),
        ("hotel", {"food": "dontcare"}, "got 'food'"),
        ("train", {"leaveAt": "soon"}, "HH:MM from 00:00 to 47:59.*got 'soon'"),
        ("train", {"arriveBy": "12:60"}, "got '12:60'"),
        ("train", {"arriveBy": "48:00"}, "got '48:00'"),
        ("hotel", {"stars": 4}, "'stars' must be a string, got 4"),
    ],
)
def test_a_wrong_search_says_what_is_accepted(
    world: World, domain: str, constraints: dict[str, str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        world.search(domain, constraints)


def test_a_wrong_slot_or_domain_is_refused_everywhere(world: World) -> None:
    with pytest.raises(ValueError, match=r"a train has the slots 'trainID'.*got 'stars'"):
        world.values("train", "stars")
    with pytest.raises(ValueError, match="got 'taxi'"):
        world.values("taxi", "name")
    with pytest.raises(ValueError, match="got 'taxi'"):
        world.find("taxi", "x")


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_value_that_merely_matches_nothing(text: str) -> None:
    CITY.find("hotel", text)
    CITY.search("restaurant", {"food": text, "name": text})
    assert normalise("food", normalise("food", text)) == normalise("food", text)


# --- bookings ---


def test_bookings_fail_about_as_often_as_promised(world: World) -> None:
    hotels = Counter(
        world.unavailable(hotel, booking_for("hotel", day=day)) for hotel in world.tables["hotel"] for day in DAYS
    )
    assert 0.05 < hotels["full"] / sum(hotels.values()) < 0.25
    times = ("12:00", "18:30", "20:15")
    restaurants = Counter(
        world.unavailable(restaurant, booking_for("restaurant", day=day, time=time))
        for restaurant, day, time in product(world.tables["restaurant"], DAYS, times)
    )
    assert 0.08 < restaurants["full"] / sum(restaurants.values()) < 0.16
    trains = Counter(world.unavailable(train, {"people": "3"}) for train in world.tables["train"])
    assert 0.03 < trains["full"] / sum(trains.values()) < 0.07


def test_a_party_can_be_too_large(world: World) -> None:
    hotel, train = world.tables["hotel"][0], world.tables["train"][0]
    assert world.unavailable(hotel, booking_for("hotel", people="9")) == "party_too_large"
    assert world.unavailable(hotel, booking_for("hotel", people="8")) != "party_too_large"
    assert world.unavailable(train, {"people": "41"}) == "party_too_large"
    assert world.unavailable(train, {"people": "40"}) != "party_too_large"
    largest = set()
    for restaurant in world.tables["restaurant"]:
        refused = [
            people
            for people in range(1, 25)
            if world.unavailable(restaurant, booking_for("restaurant", people=str(people))) == "party_too_large"
        ]
        assert refused == list(range(refused[0], 25))
        largest.add(refused[0] - 1)
    assert min(largest) >= 6 and max(largest) <= 20 and len(largest) > 5


def test_a_shorter_stay_never_makes_a_hotel_full(world: World) -> None:
    for hotel, day in product(world.tables["hotel"], DAYS):
        full = [
            world.unavailable(hotel, booking_for("hotel", day=day, stay=str(stay))) == "full" for stay in range(1, 9)
        ]
        assert full == sorted(full)


def test_a_booking_gives_a_reference_or_a_reason(world: World) -> None:
    references = set()
    for domain in ("hotel", "restaurant", "train"):
        for entity in world.tables[domain][:60]:
            booked = world.book(entity, booking_for(domain))
            assert booked == world.book(entity, booking_for(domain))
            assert booked.failure == world.unavailable(entity, booking_for(domain))
            assert (booked.reference is None) == (booked.failure is not None)
            if booked.reference is not None:
                assert len(booked.reference) == 8 and booked.reference.isalnum()
                references.add(booked.reference)
    assert len(references) > 100
    hotel = world.tables["hotel"][1]
    assert world.book(hotel, {"people": "02", "day": "Monday ", "stay": "2"}).booking == {
        "people": "2",
        "day": "monday",
        "stay": "2",
    }


def test_bookings_agree_between_processes(world: World) -> None:
    code = (
        "from ugst_env.world import World\n"
        "w = World.load()\n"
        "for r in w.tables['restaurant'][:40]:\n"
        "    b = w.book(r, {'people': '7', 'day': 'sunday', 'time': '13:00'})\n"
        "    print(b.reference, b.failure)\n"
    )
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    here = [
        world.book(restaurant, {"people": "7", "day": "sunday", "time": "13:00"})
        for restaurant in world.tables["restaurant"][:40]
    ]
    assert run.stdout.splitlines() == [f"{booked.reference} {booked.failure}" for booked in here]


def test_bookings_depend_on_the_world(world: World) -> None:
    other = World("elsewhere", world.tables)
    outcomes = [
        (one.book(hotel, booking_for("hotel")).reference, one.unavailable(hotel, booking_for("hotel")))
        for one in (world, other)
        for hotel in world.tables["hotel"]
    ]
    assert outcomes[:35] != outcomes[35:]


@pytest.mark.parametrize(
    ("domain", "change", "words"),
    [
        ("hotel", {"people": "0"}, "people must be a whole number from 1, as a string, got '0'"),
        ("hotel", {"people": "two"}, "got 'two'"),
        ("hotel", {"people": "\u0663"}, "people must be a whole number"),
        ("hotel", {"people": 2}, "people must be a whole number from 1, as a string, got 2"),
        ("hotel", {"stay": "-1"}, "stay must be a whole number"),
        ("hotel", {"stay": "9" * 5000}, "stay must be a whole number"),
        ("hotel", {"day": "someday"}, "day must be one of 'monday'.*got 'someday'"),
        ("hotel", {"day": "dontcare"}, "got 'dontcare'"),
        ("restaurant", {"time": "24:10"}, "time must be HH:MM from 00:00 to 23:59, got '24:10'"),
        ("restaurant", {"time": "7pm"}, "got '7pm'"),
        (
            "hotel",
            {"time": "19:00"},
            "booking a hotel takes 'people', 'day', 'stay', got 'people', 'day', 'stay', 'time'",
        ),
    ],
)
def test_a_malformed_booking_says_what_is_accepted(
    world: World, domain: str, change: dict[str, str], words: str
) -> None:
    entity = world.tables[domain][0]
    for call in (world.book, world.unavailable):
        with pytest.raises(ValueError, match=words):
            call(entity, {**booking_for(domain), **change})


def test_a_booking_needs_every_slot_and_an_entity_that_takes_bookings(world: World) -> None:
    hotel = world.tables["hotel"][0]
    with pytest.raises(ValueError, match="booking a hotel takes 'people', 'day', 'stay', got 'people'"):
        world.book(hotel, {"people": "2"})
    with pytest.raises(ValueError, match="got nothing"):
        world.book(hotel, {})
    with pytest.raises(ValueError, match="attraction takes no bookings; only 'hotel', 'restaurant', 'train' do"):
        world.book(world.tables["attraction"][0], {})
    with pytest.raises(ValueError, match="'nowhere inn' is not one of the world 'quillminster'"):
        world.book(Entity("hotel", "nowhere inn", {"name": "nowhere inn"}), booking_for("hotel"))


# --- read-only ---


def test_a_world_cannot_be_changed(world: World) -> None:
    hotel = world.tables["hotel"][0]
    with pytest.raises(TypeError):
        world.tables["hotel"] = ()  # type: ignore[index]
    with pytest.raises(TypeError):
        hotel.attributes["area"] = "north"  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        hotel.name = "x"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        world.name = "x"  # type: ignore[misc]
    source = {"name": "a"}
    entity = Entity("hotel", "a", source)
    source["area"] = "north"
    assert "area" not in entity.attributes


def test_a_world_can_be_pickled_and_copied(world: World) -> None:
    again = pickle.loads(pickle.dumps(world))
    assert again == world and hash(again) == hash(world)
    assert again.search("hotel", {"area": "east"}) == world.search("hotel", {"area": "east"})
    assert copy.deepcopy(world) is world
    booked = world.book(world.tables["hotel"][2], booking_for("hotel"))
    assert pickle.loads(pickle.dumps(booked)) == booked == copy.deepcopy(booked)


# --- a world of one's own ---


def write(folder: Path, **tables: str) -> Path:
    folder.mkdir(exist_ok=True)
    for domain, text in tables.items():
        (folder / f"{domain}.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_may_hold_any_of_the_tables(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "my town",
        hotel="name,Area\n",
        restaurant="food,name,phone\nThai, Blue  Door ,?\n\n",
    )
    with pytest.raises(
        ValueError, match=r"hotel\.csv: the first line must hold 'name' and any of .* got 'name', 'Area'"
    ):
        World.load(folder)
    (folder / "hotel.csv").unlink()
    world = World.load(str(folder))
    assert world.name == "my town" and world.domains == ("restaurant",)
    door = world.find("restaurant", "blue door")
    assert door is not None and door.attributes == {"name": "blue door", "food": "thai"}
    assert world.search("restaurant", {"phone": "1"}) == ()
    assert world.values("restaurant", "phone") == ()
    for call in (
        lambda: world.search("train", {}),
        lambda: world.find("train", "x"),
        lambda: world.values("train", "day"),
    ):
        with pytest.raises(ValueError, match="this world has no 'train' table; it has 'restaurant'"):
            call()


@pytest.mark.parametrize(
    ("domain", "text", "words"),
    [
        ("hotel", "", "the first line must hold 'name'.*got nothing"),
        ("hotel", "area\nnorth\n", "the first line must hold 'name'"),
        ("hotel", "name,area,area\n", "each once"),
        ("hotel", "name,area\na\n", r"hotel\.csv, line 2: expected 2 cells, got 1"),
        ("hotel", "name,area\n,north\n", "line 2: a hotel must have a 'name'"),
        ("hotel", "name\nThe Inn\ninn\n", "names must differ within a table, got 'inn' twice in 'hotel'"),
        ("train", "trainID,leaveAt\nTR1,noon\n", "line 2: a time must be HH:MM.*got 'noon'"),
        ("train", "trainID,day\nTR1,holiday\n", "line 2: day must be one of 'monday'.*got 'holiday'"),
    ],
)
def test_an_unusable_table_names_file_and_fault(tmp_path: Path, domain: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        World.load(write(tmp_path, **{domain: text}))


def test_no_world_at_all(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"a world is 'default', 'quillminster', or a folder with .*got 'camelot'"
    ):
        World.load("camelot")
    with pytest.raises(FileNotFoundError, match=r"hotel\.csv"):
        World.load(tmp_path)
    assert World("empty", {}).domains == ()
    with pytest.raises(ValueError, match="got 'taxi'"):
        World("w", {"taxi": ()})
    with pytest.raises(ValueError, match="must be spelt as normalise"):
        World("w", {"hotel": (Entity("hotel", "a", {"name": "a", "area": "North"}),)})
    with pytest.raises(ValueError, match="must have its name as its 'name' attribute"):
        World("w", {"hotel": (Entity("hotel", "a", {}),)})
    with pytest.raises(ValueError, match="got the hotel 'a'"):
        World("w", {"train": (Entity("hotel", "a", {"name": "a"}),)})


def test_trains_with_gaps_are_kept(tmp_path: Path) -> None:
    world = World.load(write(tmp_path, train="trainID,day,leaveAt,arriveBy\nTR1,,09:00,\nTR2,monday,,10:00\n"))
    assert [train.name for train in world.search("train", {})] == ["TR2", "TR1"]
    assert [train.name for train in world.search("train", {"arriveBy": "10:00"})] == ["TR2"]
    assert [train.name for train in world.search("train", {"leaveAt": "08:00"})] == ["TR1"]


# --- MultiWOZ ---


def test_multiwoz_loads_with_its_dirt_removed(multiwoz_db: Path) -> None:
    world = World.from_multiwoz(multiwoz_db)
    assert {domain: len(rows) for domain, rows in world.tables.items()} == {
        "hotel": 33,
        "restaurant": 110,
        "attraction": 79,
        "train": 2828,
    }
    assert world == World.load(multiwoz_db)
    assert sum("phone" not in row.attributes for row in world.tables["restaurant"]) == 3
    assert sum("entrance fee" not in row.attributes for row in world.tables["attraction"]) == 23
    values = {value for rows in world.tables.values() for row in rows for value in row.attributes.values()}
    assert not values & {"?", "", "mutliple sports"}
    assert world.search("attraction", {"type": "mutliple sports"}) == world.search(
        "attraction", {"type": "multiple sports"}
    )
    assert "pizza express fen ditton" in world.values("restaurant", "name")
    for train in world.tables["train"]:
        a = train.attributes
        assert minutes(a["arriveBy"]) - minutes(a["leaveAt"]) == int(a["duration"].split()[0])
        assert world.find("train", train.name) is train
    assert not world.search("train", {"leaveAt": "23:59", "arriveBy": "12:00"})
    assert world.book(world.tables["train"][0], {"people": "2"}) == world.book(
        world.tables["train"][0], {"people": "2"}
    )


@pytest.mark.parametrize("domain", DOMAINS)
def test_multiwoz_search_agrees_with_looking_at_every_row(multiwoz_db: Path, domain: str) -> None:
    world = World.from_multiwoz(multiwoz_db, domains=(domain,))
    assert world.domains == (domain,)
    for slot in INFORMABLE[domain]:
        for value in world.values(domain, slot)[:40]:
            assert set(world.search(domain, {slot: value})) == {
                row for row in world.tables[domain] if matches(row, slot, value)
            }


def test_multiwoz_goals_speak_the_same_words(multiwoz_db: Path) -> None:
    path = multiwoz_db.parent / "multiwoz_goals_val.json"
    if not path.is_file():
        pytest.skip("MultiWOZ's goals (../shared/data/multiwoz_goals_val.json) are not on this machine")
    world = World.from_multiwoz(multiwoz_db)
    found = tried = 0
    for record in json.loads(path.read_text(encoding="utf-8")):
        for domain, goal in record["goal"].items():
            if domain in DOMAINS and goal.get("info"):
                tried += 1
                found += bool(world.search(domain, goal["info"]))
    # What a person ends up with exists: the rest are goals whose names are not in this copy of the database.
    assert found / tried > 0.95


def test_a_missing_or_broken_multiwoz_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"MultiWOZ's 'attraction' table is missing: no attraction_db\.json"):
        World.from_multiwoz(tmp_path)
    with pytest.raises(ValueError, match=r"domains must be out of .*got 'taxi'"):
        World.from_multiwoz(tmp_path, domains=("taxi",))
    path = tmp_path / "hotel_db.json"
    for text, words in (
        ("{", "must be JSON"),
        ("{}", "must hold a list of objects"),
        ('[{"name": "a"}, {"area": "east"}]', "row 1: a hotel must have a 'name'"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=words):
            World.from_multiwoz(tmp_path, domains=("hotel",))
    path.write_text('[{"name": "A"}, {"name": "a", "price": {"single": "4"}, "stars": 3, "internet": "free"}]')
    world = World.from_multiwoz(tmp_path, domains=("hotel",))
    assert [hotel.name for hotel in world.tables["hotel"]] == ["a", "a 2"]
    assert world.tables["hotel"][1].attributes == {"name": "a 2", "stars": "3", "internet": "yes"}
