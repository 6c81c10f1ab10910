"""What is measured on conversations: failure modes found where they were put, figures and intervals that add up."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from dialogues import BOOK_THAI, FIND_THAI, THAI, ZOO

from ugst_env.envs.setup import vocabulary_of
from ugst_env.goal import UserGoal
from ugst_env.goals.generator import challenge
from ugst_env.metrics import (
    FAILURE_MODES,
    Talk,
    alignment,
    bootstrap,
    converse,
    difference,
    diversity,
    drift,
    failure_modes,
    faults_by_turn,
    figures,
    hold,
    interval,
    record,
    repeats,
    speaks_as_clerk,
)
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.users.protocol import UserReply, UserRequest, UserSimulator
from ugst_env.users.scripted import ScriptedUser
from ugst_env.world import World

needs_lexicalrichness = pytest.mark.skipif(
    importlib.util.find_spec("lexicalrichness") is None, reason="lexicalrichness (extra train) is not installed"
)


class Script:
    """A user that says the same lines in every conversation; the last one ends it, unless it is an error."""

    needs_state = True

    def __init__(self, *lines: str, error: str | None = None) -> None:
        self.lines, self.error = lines, error

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        return [
            UserReply("", error=self.error)
            if request.turn >= len(self.lines)
            else UserReply(self.lines[request.turn], end=self.error is None and request.turn == len(self.lines) - 1)
            for request in requests
        ]

    def forget(self, episodes: Sequence[str]) -> None:
        pass


def held(user: UserSimulator, goals: Sequence[UserGoal], world: World, *, seed: int = 0) -> list[Talk]:
    tracker, vocabulary = VerifiableTracker(world), vocabulary_of(world)
    talks = (
        Talk.begin(goal, tracker, vocabulary, seed=seed, number=k, key=str(k), steering=True)
        for k, goal in enumerate(goals)
    )
    return sorted(hold(user, talks, batch=16), key=lambda talk: talk.number)


def shown(talks: Sequence[Talk]) -> dict[str, float]:
    modes = [failure_modes(talk) for talk in talks]
    return {mode: sum(found[mode] for found in modes) / len(talks) for mode in FAILURE_MODES}


@pytest.fixture(scope="module")
def goals(world: World) -> tuple[UserGoal, ...]:
    return challenge("val", world)[:40]


@pytest.fixture(scope="module")
def straight(world: World, goals: tuple[UserGoal, ...]) -> dict[str, float]:
    return shown(held(ScriptedUser(world, vocabulary_of(world)), goals, world))


# -------------------------------------------------------------------------------------------------------- failure modes


def test_a_user_that_keeps_to_its_goal_shows_no_failure_mode(straight: dict[str, float]) -> None:
    assert set(straight) == set(FAILURE_MODES)
    assert max(straight.values()) <= 0.05, straight


@pytest.mark.parametrize(
    ("drifts", "rate", "mode", "least"),
    [
        ("forget", 0.4, "forgetting", 0.25),
        ("contradict", 0.4, "contradiction", 0.6),
        ("terminate", 0.4, "wrongful_ending", 0.6),
        ("dawdle", 0.7, "length", 0.2),
        ("misprioritise", 0.6, "misprioritisation", 0.25),
    ],
)
def test_drift_on_purpose_shows_as_its_failure_mode(
    world: World,
    goals: tuple[UserGoal, ...],
    straight: dict[str, float],
    drifts: str,
    rate: float,
    mode: str,
    least: float,
) -> None:
    found = shown(held(ScriptedUser(world, vocabulary_of(world), drift={drifts: rate}), goals, world))
    assert found[mode] >= straight[mode] + least, found
    assert found["role_reversal"] == 0


def test_leaving_in_the_middle_is_no_forgetting(world: World) -> None:
    goal = UserGoal((THAI, ZOO))
    left = shown(held(Script("I need a Thai restaurant.", "Goodbye."), [goal], world))
    assert left["wrongful_ending"] == 1 and left["forgetting"] == 0
    forgot = Script(
        "I need a Thai restaurant in the south.", "What is their phone number?", "That is all, thank you. Goodbye."
    )
    [talk] = held(forgot, [goal], world)
    assert talk.episode.state["objective.0"].served
    assert failure_modes(talk)["forgetting"] and failure_modes(talk)["wrongful_ending"]


def test_doing_all_shows_no_failure_mode(world: World) -> None:
    lines = ("I need a Thai restaurant in the south.", "What is their phone number?", "Goodbye.")
    [talk] = held(Script(*lines), [FIND_THAI], world)
    assert not any(failure_modes(talk).values()), failure_modes(talk)


def test_what_was_contradicted_is_not_forgotten(world: World) -> None:
    lines = ("I need a Chinese restaurant in the south.", "What is their phone number?", "Goodbye.")
    [talk] = held(Script(*lines), [FIND_THAI], world)
    modes = failure_modes(talk)
    assert modes["contradiction"] and not modes["forgetting"]


@pytest.mark.parametrize(
    "text",
    [
        "How can I help you today?",
        "Is there anything else I can help you with?",
        "I have booked a table for you at the Golden House.",
        "Your booking is confirmed.",
        "The reference number is A1B2C3.",
        "What price range would you prefer?",
        "Would you like me to book it?",
        "I'd be happy to assist you with that.",
        "We have several hotels in the north.",
        "Thank you for choosing our travel desk.",
    ],
)
def test_a_clerks_words_are_noticed(text: str) -> None:
    assert speaks_as_clerk(text)


@pytest.mark.parametrize(
    "text",
    [
        "Can you help me find a hotel?",
        "What is the reference number?",
        "Would you recommend a museum?",
        "I would like to book it for two people.",
        "What do you have in the north?",
        "Is the booking confirmed?",
        "Do you have anything else?",
        "Thanks for your help, goodbye.",
        "I have a reservation already, I only need a train.",
        "We are four people and we want to stay three nights.",
    ],
)
def test_a_customers_words_are_no_role_reversal(text: str) -> None:
    assert not speaks_as_clerk(text)


def test_role_reversal_and_repetition_are_counted_per_conversation(world: World) -> None:
    lines = ("I need a Thai restaurant.", "How can I help you today?", "How can I help you today?!", "Goodbye.")
    modes = failure_modes(held(Script(*lines), [FIND_THAI], world)[0])
    assert modes["role_reversal"] and modes["repetition"]


@pytest.mark.parametrize(
    ("messages", "repeated"),
    [
        (["I need a hotel.", "In the north, please."], False),
        (["I need a hotel.", "In the north, please.", "i need  a hotel."], False),
        (["I need a hotel.", "i need  a hotel!"], True),
        (["I need a hotel.", "In the north.", "I need a hotel.", "Cheap.", "I need a hotel."], True),
        ([], False),
    ],
)
def test_repetition(messages: list[str], repeated: bool) -> None:
    assert repeats(messages) is repeated


# -------------------------------------------------------------------------------------------------------------- figures


@needs_lexicalrichness
def test_conversations_are_those_of_converse_and_the_figures_those_of_alignment(
    world: World, goals: tuple[UserGoal, ...]
) -> None:
    user = ScriptedUser(world, vocabulary_of(world), drift={"forget": 0.3, "contradict": 0.1})
    talks = held(user, goals, world, seed=3)
    episodes = converse(user, goals, VerifiableTracker(world), vocabulary_of(world), seed=3, batch=7)
    assert [talk.episode.conversation for talk in talks] == [episode.conversation for episode in episodes]
    found = figures([record(talk) for talk in talks], max_turns=10, draws=50)
    expected = alignment(episodes)
    assert found["mean"]["value"] == pytest.approx(expected.mean)
    assert {c: f["value"] for c, f in found["rates"].items()} == pytest.approx(expected.rates)
    assert found["turns"]["value"] == pytest.approx(expected.turns)
    assert found["outcomes"] == expected.outcomes and found["faults"] == expected.faults
    assert found["mean"]["low"] < found["mean"]["value"] < found["mean"]["high"]


@needs_lexicalrichness
def test_the_drift_curve_ends_where_the_conversation_does(world: World, goals: tuple[UserGoal, ...]) -> None:
    records = [record(talk) for talk in held(ScriptedUser(world, vocabulary_of(world)), goals[:10], world)]
    curve = drift(records, 10)
    assert curve.shape == (10, 10, 5)
    for row, told in zip(curve, records, strict=True):
        assert [v for v in row[-1] if not np.isnan(v)] == pytest.approx(list(told["rates"].values()))
        assert (np.nan_to_num(row[0]) <= np.nan_to_num(row[-1]) + 1e-9).all()
    found = figures(records, max_turns=10, draws=20)
    assert found["drift"]["mean"][-1]["value"] == pytest.approx(found["mean"]["value"])


@needs_lexicalrichness
def test_a_model_that_fails_is_a_failed_conversation_with_its_reason(world: World) -> None:
    user = Script("I need a Thai restaurant in the south.", error="out of memory")
    [talk] = held(user, [FIND_THAI], world)
    told = record(talk)
    assert told["outcome"] == "model_error" and told["error"] == "out of memory"
    assert set(told["rates"].values()) == {0.0}
    assert len(told["turns"]) == 1 and told["turns"][0]["held"]["requirement"] > 0
    found = figures([told], max_turns=4, draws=10)
    assert found["errors"] == {"out of memory": 1} and found["mean"]["value"] == 0
    assert found["drift"]["requirement"][0] > 0 and found["drift"]["requirement"][1:] == [0, 0, 0]
    [talk] = held(Script(error="gone"), [BOOK_THAI], world)
    assert record(talk)["turns"] == [] and record(talk)["error"] == "gone"


def test_faults_are_counted_by_the_turns_that_there_were() -> None:
    turns = [{"user": "x", "agent": "y", "held": {}}]
    records: list[dict[str, Any]] = [
        {"turns": turns * 3, "faults": [{"turn": 2, "cause": "USER", "mode": "policy", "detail": ""}]},
        {"turns": turns * 2, "faults": [{"turn": 2, "cause": "AGENT", "mode": "lie", "detail": ""}]},
    ]
    assert faults_by_turn(records, 4) == [0.0, 0.5, 0.0, None]


# ------------------------------------------------------------------------------------------------------------ intervals


def test_the_bootstrap_resamples_goals_and_not_conversations() -> None:
    rng = np.random.default_rng(0)
    goal_values = rng.random(40)
    # Five conversations of a goal that always go the same way tell no more than one.
    once = bootstrap(goal_values[:, None], list(range(40)), draws=4000)
    often = bootstrap(np.repeat(goal_values, 5)[:, None], [k // 5 for k in range(200)], draws=4000)
    assert once[0, 0] == pytest.approx(goal_values.mean())
    assert interval(often[:, 0]) == pytest.approx(interval(once[:, 0]))
    width = interval(once[:, 0])["high"] - interval(once[:, 0])["low"]
    assert width == pytest.approx(2 * 1.96 * goal_values.std() / 40**0.5, rel=0.1)


def test_missing_categories_are_left_out_of_means() -> None:
    values = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan]])
    samples = bootstrap(values, ["a", "b", "c"], draws=100)
    assert samples[0, 0] == 0.5
    assert interval(samples[:, 1]) == {"value": None, "low": None, "high": None}
    with pytest.raises(ValueError, match="at least one"):
        bootstrap(np.zeros((0, 2)), [])


def test_differences_are_paired_by_goal_and_seed() -> None:
    rng = random.Random(0)
    base = [
        {"number": k, "seed": s, "rates": {"profile": 1.0, "objective": rng.random() * 0.5}}
        for k in range(30)
        for s in range(2)
    ]
    better = [{**told, "rates": {"profile": 1.0, "objective": told["rates"]["objective"] + 0.2}} for told in base]
    rng.shuffle(better)
    found = difference(better[:-1], base, draws=200)
    assert found["pairs"] == 59
    # The same gain in every pair leaves no doubt about it, however much the goals differ.
    for figure, gain in ((found["rates"]["objective"], 0.2), (found["rates"]["profile"], 0.0), (found["mean"], 0.1)):
        assert [figure["value"], figure["low"], figure["high"]] == pytest.approx([gain] * 3)
    assert found["rates"]["policy"]["value"] is None
    with pytest.raises(ValueError, match="share none"):
        difference([{**told, "seed": 9} for told in base], base)


@needs_lexicalrichness
def test_diversity_falls_where_the_same_is_said_again() -> None:
    words = [f"word{k}" for k in range(200)]
    varied = diversity([" ".join(words[k : k + 10]) for k in range(0, 200, 10)])
    same = diversity(["I need a cheap hotel in the north, please."] * 20)
    assert varied["hdd"] == pytest.approx(1.0) and same["hdd"] is not None and same["hdd"] < 0.3
    assert varied["mtld"] is not None and same["mtld"] is not None and varied["mtld"] > 5 * same["mtld"]
    assert varied["distinct_1"] == varied["distinct_2"] == 1.0
    assert same["distinct_1"] == pytest.approx(9 / 180) and same["words_per_message"] == 9
    few = diversity(["Hello."])
    assert few["mtld"] is None and few["hdd"] is None and few["distinct_2"] is None
    assert diversity([])["words_per_message"] is None
