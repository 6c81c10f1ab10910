"""Goals as data: the five categories, where each starts, and the one-way moves of each."""

from __future__ import annotations

import itertools
import json
import pickle

import pytest
from dialogues import FIND_THAI, THAI, ZOO

from ugst_env.goal import (
    MOVES,
    START,
    Ask,
    Category,
    Cause,
    ComponentState,
    Fact,
    GoalState,
    Objective,
    Rule,
    Status,
    UserGoal,
    Want,
)

GOAL = UserGoal((THAI, ZOO), FIND_THAI.profile, FIND_THAI.policy)
ONE_OF_EACH = {
    Category.PROFILE: "profile.0",
    Category.POLICY: "policy.0",
    Category.OBJECTIVE: "objective.0",
    Category.REQUIREMENT: "objective.0.requirement.0",
    Category.PREFERENCE: "objective.1.preference.0",
}
ALLOWED = {
    Category.PROFILE: {("ALIGNED", "MISALIGNED")},
    Category.POLICY: {("ALIGNED", "MISALIGNED")},
    Category.OBJECTIVE: {("INCOMPLETE", "ATTEMPTED"), ("INCOMPLETE", "COMPLETE"), ("ATTEMPTED", "COMPLETE")},
    Category.REQUIREMENT: {("INCOMPLETE", "ATTEMPTED"), ("INCOMPLETE", "COMPLETE"), ("ATTEMPTED", "COMPLETE")},
    Category.PREFERENCE: {("MISALIGNED", "ALIGNED")},
}


def test_every_category_starts_where_the_paper_says() -> None:
    starts = {c.category: now.status.value for c, now in GoalState.start(GOAL).items()}
    assert starts == {
        Category.PROFILE: "ALIGNED",
        Category.POLICY: "ALIGNED",
        Category.OBJECTIVE: "INCOMPLETE",
        Category.REQUIREMENT: "INCOMPLETE",
        Category.PREFERENCE: "MISALIGNED",
    }
    assert set(START) == set(MOVES) == set(Category)


def test_components_stand_in_a_fixed_order_with_their_objective() -> None:
    assert [(c.id, c.objective) for c in GOAL.components] == [
        ("profile.0", None),
        ("profile.1", None),
        ("policy.0", None),
        ("objective.0", 0),
        ("objective.0.requirement.0", 0),
        ("objective.0.requirement.1", 0),
        ("objective.0.requirement.2", 0),
        ("objective.1", 1),
        ("objective.1.requirement.0", 1),
        ("objective.1.requirement.1", 1),
        ("objective.1.preference.0", 1),
    ]


@pytest.mark.parametrize("category", list(Category))
def test_moves_are_one_way(category: Category) -> None:
    component, start = ONE_OF_EACH[category], GoalState.start(GOAL)
    place = [c.id for c in GOAL.components].index(component)
    for before, after in itertools.permutations(Status, 2):
        states = list(start.states)
        states[place] = ComponentState(before)
        state = GoalState(GOAL, tuple(states))
        if (before.value, after.value) in ALLOWED[category]:
            assert state.move(component, status=after)[component].status is after
        else:
            with pytest.raises(ValueError, match=f"cannot move from {before.value} to {after.value}"):
                state.move(component, status=after)


def test_a_move_changes_one_component_and_leaves_the_old_state_alone() -> None:
    before = GoalState.start(GOAL)
    after = before.move("objective.0", status=Status.ATTEMPTED)
    assert before["objective.0"].status is Status.INCOMPLETE
    (change,) = after.changes(before, turn=3)
    assert (change.turn, change.component) == (3, "objective.0")
    assert (change.before.status, change.after.status) == (Status.INCOMPLETE, Status.ATTEMPTED)
    assert after.changes(after, turn=4) == ()


def test_a_fault_of_the_user_and_a_served_component_are_final() -> None:
    state = GoalState.start(GOAL).move("objective.0", cause=Cause.USER)
    with pytest.raises(ValueError, match="final"):
        state.move("objective.0", cause=Cause.AGENT)
    served = GoalState.start(GOAL).move("objective.0", status=Status.COMPLETE, served=True)
    with pytest.raises(ValueError, match="final"):
        served.move("objective.0", served=False)
    assert not served.move("objective.0", cause=Cause.USER)["objective.0"].user_fault


def test_an_unknown_component_is_named() -> None:
    with pytest.raises(KeyError, match=r"no component 'objective.9'"):
        GoalState.start(GOAL).move("objective.9", served=True)
    with pytest.raises(KeyError, match=r"profile.0, profile.1"):
        GoalState.start(GOAL)["objective.9"]


def test_the_users_success_per_category() -> None:
    state = GoalState.start(GOAL)
    rates = {category.value: rate for category, rate in state.success_rates().items()}
    assert rates == {"profile": 1.0, "policy": 1.0, "objective": 0.0, "requirement": 0.0, "preference": 0.0}
    state = state.move("objective.0", status=Status.ATTEMPTED).move("objective.1.preference.0", status=Status.ALIGNED)
    state = state.move("policy.0", status=Status.MISALIGNED, cause=Cause.USER)
    rates = {category.value: rate for category, rate in state.success_rates().items()}
    assert rates == {"profile": 1.0, "policy": 0.0, "objective": 0.5, "requirement": 0.0, "preference": 1.0}


def test_attempted_is_a_success_unless_the_user_broke_it_and_the_world_excuses() -> None:
    state = GoalState.start(GOAL).move("objective.0", status=Status.ATTEMPTED)
    component = GOAL.components[3]
    assert state.holds(component, ComponentState(Status.ATTEMPTED))
    assert state.holds(component, ComponentState(Status.ATTEMPTED, Cause.AGENT))
    assert not state.holds(component, ComponentState(Status.ATTEMPTED, Cause.USER))
    assert not state.holds(component, ComponentState(Status.INCOMPLETE))
    assert state.holds(component, ComponentState(Status.INCOMPLETE, Cause.WORLD))


def test_a_goal_has_only_the_categories_that_it_has() -> None:
    plain = UserGoal((Objective("train", "find", (Want("day", "monday"),)),))
    assert set(GoalState.start(plain).success_rates()) == {Category.OBJECTIVE, Category.REQUIREMENT}


def test_a_state_is_json_able_and_pickles() -> None:
    state = GoalState.start(GOAL).move("objective.0", status=Status.ATTEMPTED, cause=Cause.AGENT)
    records = json.loads(json.dumps(state.to_json()))
    assert records[3] == {
        "id": "objective.0",
        "category": "objective",
        "text": "Find a restaurant.",
        "status": "ATTEMPTED",
        "cause": "AGENT",
        "served": False,
        "switched": False,
    }
    assert pickle.loads(pickle.dumps(state)) == state


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ((), "at least one objective, got an empty list"),
        ((THAI, THAI), "at most one objective per domain, got 2 for 'restaurant'"),
        (
            (Objective("hotel", "steal", (Ask("phone"),)),),
            r"objectives\[0\].action must be 'find', 'book' or 'do', got 'steal'",
        ),
        ((ZOO, Objective("hotel", "find", ())), r"objectives\[1\] \(hotel\) has neither"),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused(objectives: tuple[Objective, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UserGoal(objectives, (Fact("mood", "calm", "You are calm."),), (Rule("max_words", "9", ""),))
