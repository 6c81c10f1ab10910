"""benchmarks/tracker.py: the reference it trusts, the faults it makes on purpose, its figures, the labels by hand."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from dialogues import BOOK_THAI, FIND_THAI, THAI, swap

from benchmarks import tracker as benchmark
from benchmarks.tracker import Case, Meant, Outcome, Reference, breaks, goal_for, hold, reword, share
from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.setup import vocabulary_of
from ugst_env.goal import MOVES, START, Cause, Fact, Objective, Status, UserGoal, Want
from ugst_env.goals.files import goal_of
from ugst_env.goals.policies import make_rule
from ugst_env.users.wording import Thing
from ugst_env.world.database import World
from ugst_env.world.ontology import INFORMABLE


@pytest.fixture(scope="module")
def vocabulary(world: World) -> Vocabulary:
    return vocabulary_of(world)


def meant(*things: Thing, text: str = "Well.", end: bool = False, denied: tuple[int, ...] = ()) -> Meant:
    return Meant(things, text, end, frozenset(denied))


def inform(slot: str, value: str, domain: str = "restaurant") -> Thing:
    return Thing("inform", domain, slot, value)


def offer(world: World, name: str, **lies: str) -> AgentAct:
    entity = world.find("restaurant", name)
    assert entity is not None
    truth = {slot: entity.attributes[slot] for slot in INFORMABLE["restaurant"]}
    return AgentAct("offer", "restaurant", entity=entity.name, claims={**truth, **lies})


class TestReference:
    """What it says of histories whose truth is plain to see; the text is nonsense, for it must not be read."""

    @pytest.fixture
    def truth(self, world: World) -> Reference:
        return Reference(FIND_THAI, world)

    def status(self, truth: Reference, part: str) -> Status:
        return truth.status[{"objective": "objective.0"}.get(part, f"objective.0.requirement.{part}")]

    def test_what_is_meant_is_attempted_and_what_is_done_is_complete(self, truth: Reference, world: World) -> None:
        truth.hear(meant(inform("food", "thai"), inform("area", "south"), text="xyzzy"))
        assert self.status(truth, "objective") is Status.ATTEMPTED
        assert self.status(truth, "2") is Status.INCOMPLETE
        truth.see(offer(world, "bangkok orchid"))
        assert [self.status(truth, p) for p in ("objective", "0", "1")] == [Status.COMPLETE] * 3
        truth.hear(meant(Thing("ask", "restaurant", "phone")))
        assert self.status(truth, "2") is Status.ATTEMPTED
        entity = world.find("restaurant", "bangkok orchid")
        assert entity is not None
        claims = {"phone": entity.attributes["phone"]}
        truth.see(AgentAct("inform_requested", "restaurant", entity=entity.name, claims=claims))
        assert self.status(truth, "2") is Status.COMPLETE
        truth.hear(meant(Thing("bye"), end=True))
        truth.finish("user_ended")
        assert truth.faults == set()

    def test_an_offer_that_does_not_fit_serves_nothing_whatever_it_claims(self, truth: Reference, world: World) -> None:
        truth.hear(meant(inform("food", "thai"), inform("area", "south")))
        truth.see(offer(world, "siam lily", area="south"))  # it is in the centre
        assert self.status(truth, "0") is Status.ATTEMPTED
        assert truth.faults == {"lie"}

    def test_another_value_spoils_the_condition_for_good(self, truth: Reference, world: World) -> None:
        truth.hear(meant(inform("food", "thai"), inform("area", "north")))
        assert truth.faults == {"contradiction"}
        assert truth.state()["objective.0.requirement.1"].user_fault
        truth.hear(meant(inform("area", "south")))
        truth.see(offer(world, "bangkok orchid"))
        assert truth.state()["objective.0.requirement.1"].cause is Cause.USER

    def test_a_refusal_counts_only_where_nothing_fits(self, world: World) -> None:
        truth = Reference(FIND_THAI, world)
        truth.hear(meant(inform("food", "thai"), inform("area", "south")))
        truth.see(AgentAct("no_offer", "restaurant"))
        assert truth.faults == {"false_no_offer"}
        hopeless = UserGoal((swap(THAI, "area", Want("area", "north")),))
        truth = Reference(hopeless, world)
        truth.hear(meant(inform("food", "thai"), inform("area", "north")))
        truth.see(AgentAct("no_offer", "restaurant"))
        assert truth.faults == set()
        assert {now.cause for c, now in truth.state().items() if c.objective is not None} == {Cause.WORLD}

    def test_an_alternative_is_right_only_after_the_refusal(self, world: World) -> None:
        goal = UserGoal((swap(THAI, "area", Want("area", "north", "south", "no_match")),))
        early = Reference(goal, world)
        early.hear(meant(inform("food", "thai"), inform("area", "south")))
        assert early.faults == {"contradiction"}
        truth = Reference(goal, world)
        truth.hear(meant(inform("food", "thai"), inform("area", "north")))
        truth.see(AgentAct("no_offer", "restaurant"))
        truth.hear(meant(inform("area", "south")))
        truth.see(offer(world, "bangkok orchid"))
        assert truth.faults == set()
        assert self.status(truth, "1") is Status.COMPLETE

    def test_a_booking_needs_the_right_details_and_a_true_reference(self, world: World) -> None:
        details = {"people": "2", "day": "monday", "time": "19:00"}
        entity = world.find("restaurant", "bangkok orchid")
        assert entity is not None
        for booking, reference, done in (
            (details, world.book(entity, details).reference, True),
            (details, "X9X9X9X9", False),
            ({**details, "people": "3"}, world.book(entity, {**details, "people": "3"}).reference, False),
        ):
            truth = Reference(BOOK_THAI, world)
            truth.hear(meant(inform("food", "thai"), inform("area", "south"), *(inform(*d) for d in details.items())))
            truth.see(offer(world, "bangkok orchid"))
            truth.see(AgentAct("book", "restaurant", entity=entity.name, booking=booking, reference=reference))
            assert (truth.status["objective.0"] is Status.COMPLETE) is done

    def test_who_leaves_with_things_open_is_to_blame_unless_it_was_lied_to(self, world: World) -> None:
        for lied in (False, True):
            truth = Reference(FIND_THAI, world)
            truth.hear(meant(inform("food", "thai"), inform("area", "south")))
            truth.see(AgentAct("no_offer", "restaurant") if lied else AgentAct("req_more"))
            truth.hear(meant(Thing("bye"), end=True))
            truth.finish("user_ended")
            assert ("wrongful_ending" in truth.faults) is not lied

    def test_profile_and_policy(self, truth: Reference) -> None:
        truth.hear(meant(denied=(1,)))
        assert truth.status["profile.1"] is Status.MISALIGNED
        assert truth.status["profile.0"] is Status.ALIGNED
        truth.hear(meant(inform("people", "5")))
        assert truth.status["profile.0"] is Status.MISALIGNED
        assert truth.status["policy.0"] is Status.ALIGNED
        truth.hear(meant(text="Give me a banana."))
        assert truth.status["policy.0"] is Status.MISALIGNED


NORTH = Thing("inform", "hotel", "area", "north")
ASKED = Thing("ask", "hotel", "phone")
MANNERS = [
    ("say_word", "please", "In the north, please.", "In the north."),
    ("ask_with", "may I ask", "What, may I ask, is the phone number?", "What is the phone number?"),
    ("open_with", "Well", "Well, in the north.", "In the north, well."),
    ("close_with", "Cheers", "In the north. Cheers!", "Cheers, in the north."),
    ("sign_name", "Priya", "In the north. - Priya", "Priya wants the north."),
    ("address_as", "sir", "In the north, sir.", "In the north, siri."),
    ("greet_with", "good day", "Good day. In the north.", "Hello. In the north."),
    ("leave_with", "take care", "Bye, take care!", "Bye."),
    ("never_say", "okay/ok", "Fine, the north.", "OK, the north."),
    ("max_words", "4", "In the north please.", "In the very far north."),
    ("min_words", "3", "In the north.", "The north."),
    ("max_sentences", "1", "In the north, please.", "The north. Please."),
    ("no_mark", "?", "In the north.", "In the north?"),
    ("end_mark", "...", "In the north...", "In the north."),
    ("case", "lower", "in the north.", "In the north."),
    ("case", "upper", "IN THE NORTH.", "In the north."),
    ("no_digits", "all", "For four.", "For 4."),
    ("no_contractions", "all", "It is in the north.", "It's in the north."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "good", "bad"), MANNERS)
def test_the_reference_tells_kept_from_broken_policies(kind: str, value: str, good: str, bad: str) -> None:
    rule = make_rule(kind, value)
    things, end = ((ASKED,) if kind == "ask_with" else (NORTH,)), kind == "leave_with"
    assert not breaks(rule, Meant(things, good, end), asked=None, named=(), first=True)
    assert breaks(rule, Meant(things, bad, end), asked=None, named=(), first=True)


def test_rules_about_content_go_by_what_was_meant() -> None:
    told, withheld, first = (
        Meant((NORTH, ASKED), "xyzzy"),
        make_rule("withhold", "area"),
        make_rule("not_first", "area"),
    )
    assert breaks(withheld, told, asked=None, named=(), first=False)
    assert not breaks(withheld, told, asked="area", named=(), first=False)
    assert not breaks(withheld, told, asked=None, named={"area"}, first=False)
    assert breaks(first, told, asked=None, named=(), first=True)
    assert not breaks(first, told, asked=None, named=(), first=False)
    assert breaks(make_rule("max_things", "1"), told, asked=None, named=(), first=False)
    assert not breaks(make_rule("max_things", "2"), told, asked=None, named=(), first=False)


class TestRewordings:
    def test_both_sets_word_the_same_things_and_share_no_wording(self) -> None:
        development, held_out = benchmark._tables()["development"], benchmark._tables()["held-out"]
        assert set(development) == set(held_out)
        shared = [key for key in development if set(development[key]) & set(held_out[key])]
        # Short questions and nouns can hardly be put in four ways without meeting.
        assert all(key.startswith(("noun", "ask", "short")) for key in shared), shared

    @pytest.mark.parametrize("half", ["development", "held-out"])
    def test_the_value_stands_in_the_words(self, half: str) -> None:
        rng = random.Random(0)
        for slot, value in (("food", "italian"), ("area", "north"), ("name", "bangkok orchid"), ("people", "4")):
            thing = Thing("inform", "restaurant", slot, value)
            said = {reword([thing], None, rng, half=half, topic="restaurant", opening=False).lower() for _ in range(20)}
            assert len(said) > 2
            assert sum(value in text for text in said) >= len(said) - 4  # a slip of typing now and then

    @pytest.mark.parametrize("half", ["development", "held-out"])
    def test_every_kind_of_fact_can_be_denied_with_another_value(self, half: str) -> None:
        rng = random.Random(0)
        facts = [("party_size", "3"), ("home_town", "Skerrow"), ("budget", "tight"), ("occasion", "wedding"),
                 ("mood", "calm"), ("companion", "wife"), ("companion", "alone"), ("name", "Priya")]  # fmt: skip
        for kind, value in facts:
            denials = {benchmark.deny(Fact(kind, value, ""), half, rng) for _ in range(10)}
            assert denials
            assert not any(f" {value}" in text for text in denials)


def cases() -> list[Case]:
    modes = [("contradict", ""), ("terminate", ""), ("invent", ""), ("policy", "close_with"), ("profile", "occasion")]
    return [Case(mode, "scripted", part) for mode, part in modes]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_fault_made_on_purpose_is_in_the_truth(case: Case, world: World, vocabulary: Vocabulary) -> None:
    mode = {"contradict": "contradiction", "terminate": "wrongful_ending", "invent": "invention"}.get(
        case.mode, case.mode
    )
    rng = random.Random(3)
    found = [hold(case, goal_for(case, rng, world), world, vocabulary, seed) for seed in range(16)]
    with_it = [outcome for outcome in found if mode in outcome.true_faults]
    assert len(with_it) >= 4
    assert sum(mode in outcome.found_faults for outcome in with_it) >= len(with_it) - 1


def test_a_user_that_does_not_drift_is_seen_as_it_is(world: World, vocabulary: Vocabulary) -> None:
    rng = random.Random(5)
    found = [
        hold(Case("none", "scripted"), goal_for(Case("none", "scripted"), rng, world), world, vocabulary, seed)
        for seed in range(12)
    ]
    agreed = share(found, "by_turn")
    assert agreed is not None
    assert agreed["share"] > 0.98
    assert all(outcome.true_faults == set() for outcome in found)


def test_a_lying_agent_is_caught_by_both(world: World, vocabulary: Vocabulary) -> None:
    case, rng = Case("none", "scripted", lying=True), random.Random(5)
    found = [hold(case, goal_for(case, rng, world), world, vocabulary, seed) for seed in range(8)]
    lied = [o for o in found if "lie" in o.true_faults]
    assert lied
    assert all("lie" in o.found_faults for o in lied)


def test_same_seed_same_figures(world: World, vocabulary: Vocabulary) -> None:
    case = Case("contradict", "held-out")
    one, two = (
        hold(case, goal_for(case, random.Random(1), world), world, vocabulary, 1),
        hold(case, goal_for(case, random.Random(1), world), world, vocabulary, 1),
    )
    assert one == two


def test_shares_are_pooled_over_pairs_and_resampled_by_conversation() -> None:
    outcomes = [
        Outcome(Case("none", "scripted"), by_turn={"policy": [9, 10], "profile": [1, 1]}),
        Outcome(Case("none", "scripted"), by_turn={"policy": [1, 10]}),
    ]
    found = share(outcomes, "by_turn", "policy")
    assert found is not None
    assert (found["share"], found["pairs"]) == (0.5, 20)
    assert (found["low"], found["high"]) == (0.1, 0.9)
    assert share(outcomes, "by_turn", "objective") is None


@pytest.fixture(scope="module")
def records() -> list[dict[str, object]]:
    return benchmark.read_jsonl(benchmark.LABELS / "smollm2_conversations.jsonl")


class TestLabels:
    def test_they_fit_their_conversations(self, records: list[dict[str, object]]) -> None:
        labels = benchmark.read_jsonl(benchmark.LABELS / "smollm2_labels.jsonl")
        assert [row["id"] for row in labels] == [row["id"] for row in records]
        assert sum(len(record["turns"]) for record in records) >= 60  # type: ignore[arg-type]
        for record, label in zip(records, labels, strict=True):
            components = {c.id: c for c in goal_of(record["goal"]).components}  # type: ignore[arg-type]
            status = {id: START[c.category] for id, c in components.items()}
            turns = [int(number) for number in (*label["changes"], *label["faults"])]
            assert all(1 <= number <= len(record["turns"]) for number in turns)  # type: ignore[arg-type]
            for number in sorted(label["changes"], key=int):
                for id, value in label["changes"][number].items():
                    assert (status[id], Status(value)) in MOVES[components[id].category]
                    status[id] = Status(value)

    def test_the_tracker_agrees_with_most_of_them(self, world: World, vocabulary: Vocabulary) -> None:
        outcomes, moves, notes = benchmark.judged_by_hand(world, vocabulary)
        agreed = share(outcomes, "by_turn")
        assert agreed is not None
        assert agreed["share"] > 0.95
        assert moves["requirement"]["both"] >= 10
        # Every difference that is left is explained in the README of the labels.
        readme = (benchmark.LABELS / "README.md").read_text(encoding="utf-8")
        assert all(note.split(":")[0] in readme for note in notes)

    def test_a_label_for_a_component_that_does_not_exist_is_an_error(
        self, world: World, vocabulary: Vocabulary, tmp_path: Path
    ) -> None:
        for name in ("smollm2_conversations.jsonl", "smollm2_labels.jsonl"):
            (tmp_path / name).write_text((benchmark.LABELS / name).read_text(encoding="utf-8"), encoding="utf-8")
        labels = benchmark.read_jsonl(tmp_path / "smollm2_labels.jsonl")
        labels[0]["changes"]["1"] = {"policy.7": "MISALIGNED"}
        (tmp_path / "smollm2_labels.jsonl").write_text("\n".join(map(json.dumps, labels)), encoding="utf-8")
        with pytest.raises(ValueError, match=r"turn 1: the goal has no component 'policy\.7'"):
            benchmark.judged_by_hand(world, vocabulary, tmp_path)


def test_the_command_prints_its_tables_and_writes_its_figures(tmp_path: Path) -> None:
    script, out = Path(benchmark.__file__), tmp_path / "tracker.json"
    command = [sys.executable, str(script), "--conversations", "1", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "agreement by turn" in done.stdout
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found["by_wording"]) == set(benchmark.WORDINGS)
    assert set(found["by_mode"]) >= {"none", "forget", "contradict", "lying agent", "policy", "profile"}
    assert 0.9 < found["all"]["by_turn"]["overall"]["share"] <= 1


def test_goals_befit_their_case(world: World) -> None:
    rng = random.Random(2)
    for part in ("withhold", "not_first", "max_things"):
        goal = goal_for(Case("policy", "scripted", part), rng, world)
        rule = next(rule for rule in goal.policy if rule.kind == part)
        objectives: tuple[Objective, ...] = goal.objectives
        wanted = {w.slot for o in objectives for w in (*o.requirements, *o.preferences) if isinstance(w, Want)}
        assert part == "max_things" or rule.value in wanted
