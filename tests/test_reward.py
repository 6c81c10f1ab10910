"""The reward: bounded, independent of the goal's size, without a profit in cycles, lies or the simulator's faults."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from dialogues import BOOK_THAI, FIND_THAI, THAI, ZOO, Talk, play
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ugst_env.dialogue.acts import AGENT_ACT_KINDS, AgentAct
from ugst_env.envs.episode import Episode
from ugst_env.envs.setup import vocabulary_of
from ugst_env.goal import (
    MOVES,
    Ask,
    Category,
    Cause,
    Component,
    ComponentState,
    GoalState,
    Objective,
    Status,
    UserGoal,
    Want,
)
from ugst_env.goals.generator import generate
from ugst_env.reward import RewardWeights, potential, simulator_reward, step_reward, success, trust
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.users.protocol import ask
from ugst_env.users.scripted import DRIFT_MODES, ScriptedUser
from ugst_env.world.database import World
from ugst_env.world.ontology import BOOKABLE, INFORMABLE, REQUESTABLE

WEIGHTS = RewardWeights()
FREE = RewardWeights(turn_cost=0.0)
DOMAINS = ("attraction", "hotel", "restaurant", "train")


@st.composite
def goals(draw: st.DrawFn) -> UserGoal:
    """Goals of any size; what they want does not matter here."""
    objectives = []
    for domain in draw(st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=4, unique=True)):
        slots = draw(st.lists(st.sampled_from(INFORMABLE[domain]), min_size=1, max_size=4, unique=True))
        asks = draw(st.lists(st.sampled_from(REQUESTABLE[domain]), max_size=3, unique=True))
        wishes = draw(st.lists(st.sampled_from(INFORMABLE[domain]), max_size=3, unique=True))
        requirements = (*(Want(slot, "x") for slot in slots), *(Ask(slot) for slot in asks))
        objectives.append(Objective(domain, "find", requirements, tuple(Want(slot, "y") for slot in wishes)))
    return UserGoal(tuple(objectives), FIND_THAI.profile, FIND_THAI.policy)


def moved(component: Component, state: ComponentState, choice: int) -> ComponentState:
    """One of the changes that a tracker may make to a component."""
    reachable = [after for before, after in sorted(MOVES[component.category]) if before is state.status]
    changes = [
        state,
        replace(state, cause=Cause.USER) if not state.served else state,
        replace(state, served=True) if not state.user_fault and component.objective is not None else state,
        *(replace(state, status=after) for after in reachable),
        *(replace(state, status=after, served=True) for after in reachable if not state.user_fault),
    ]
    return changes[choice % len(changes)]


@st.composite
def lives(draw: st.DrawFn) -> list[GoalState]:
    """The goal states of a conversation, in which agent and user do anything at all."""
    state = GoalState.start(draw(goals()))
    states = [state]
    for _ in range(draw(st.integers(1, 10))):
        rows = []
        for component, now in state.items():
            rows.append(moved(component, now, draw(st.integers(0, 20))))
        state = GoalState(state.goal, tuple(rows))
        states.append(state)
    return states


def rewards(states: list[GoalState], weights: RewardWeights) -> list[float]:
    last = len(states) - 2
    return [
        sum(step_reward(before, after, weights, terminated=k == last).values())
        for k, (before, after) in enumerate(itertools.pairwise(states))
    ]


@given(lives())
@settings(max_examples=100, deadline=None)
def test_a_return_is_at_most_one(states: list[GoalState]) -> None:
    assert sum(rewards(states, FREE)) <= 1 + 1e-9
    assert sum(rewards(states, WEIGHTS)) <= 1 - WEIGHTS.turn_cost * (len(states) - 1) + 1e-9


@given(lives())
@settings(max_examples=100, deadline=None)
def test_potential_and_trust_are_shares(states: list[GoalState]) -> None:
    for state in states:
        assert 0 <= potential(state, WEIGHTS) <= 1
        assert 0 <= trust(state, WEIGHTS) <= 1 + 1e-9


@given(lives())
@settings(max_examples=100, deadline=None)
def test_a_fault_of_the_user_alone_changes_a_step_by_nothing(states: list[GoalState]) -> None:
    """Whatever went on before: a component that the user breaks earns and costs the agent nothing."""
    before = states[-1]
    spoilt = GoalState(
        before.goal, tuple(now if now.served else replace(now, cause=Cause.USER) for now in before.states)
    )
    terms = step_reward(before, spoilt, WEIGHTS, terminated=False)
    assert terms["potential"] == 0
    assert sum(terms.values()) == -WEIGHTS.turn_cost


@given(lives())
@settings(max_examples=100, deadline=None)
def test_the_users_faults_never_turn_a_gain_into_a_loss(states: list[GoalState]) -> None:
    for reward in rewards(states, FREE):
        assert reward >= -1e-12


@given(goals(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_serving_all_is_worth_one_however_large_the_goal(goal: UserGoal, rounds: int) -> None:
    state = GoalState.start(goal)
    done = GoalState(
        goal,
        tuple(replace(now, served=component.objective is not None) for component, now in state.items()),
    )
    states = [state, *[state] * rounds, done]
    assert sum(rewards(states, FREE)) == pytest.approx(1.0)
    assert sum(rewards(states, WEIGHTS)) == pytest.approx(1.0 - WEIGHTS.turn_cost * (rounds + 1))


def test_profile_and_policy_never_pay_the_agent() -> None:
    state = GoalState.start(FIND_THAI)
    for component in ("profile.0", "policy.0"):
        broken = state.move(component, status=Status.MISALIGNED, cause=Cause.USER)
        assert step_reward(state, broken, WEIGHTS, terminated=False)["potential"] == 0
        assert trust(broken, WEIGHTS) == 1


def test_truncation_pays_no_bonus() -> None:
    state = GoalState.start(UserGoal((Objective("hotel", "find", (Ask("phone"),)),)))
    done = state.move("objective.0", served=True).move("objective.0.requirement.0", served=True)
    assert success(done)
    assert step_reward(state, done, WEIGHTS, terminated=True)["success_bonus"] == WEIGHTS.success_bonus
    assert step_reward(state, done, WEIGHTS, terminated=False)["success_bonus"] == 0


def test_nothing_done_is_no_success_even_if_the_user_spoilt_it_all() -> None:
    state = GoalState.start(FIND_THAI)
    spoilt = GoalState(FIND_THAI, tuple(replace(now, cause=Cause.USER) for now in state.states))
    assert not success(spoilt)
    assert trust(spoilt, WEIGHTS) == 0
    assert potential(spoilt, WEIGHTS) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": -1.0}, r"RewardWeights.objective must be a finite number >= 0, got -1.0"),
        ({"turn_cost": float("nan")}, r"RewardWeights.turn_cost must be a finite number >= 0, got nan"),
        ({"success_bonus": 1.0}, r"success_bonus must be in \[0, 1\), got 1.0"),
        ({"objective": 0.0, "requirement": 0.0, "preference": 0.0}, "one must be positive"),
    ],
)
def test_weights_that_make_no_sense_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardWeights(**arguments)


def test_the_simulators_reward_is_the_papers() -> None:
    goal = UserGoal((THAI, ZOO), FIND_THAI.profile, FIND_THAI.policy)
    state = GoalState.start(goal)
    assert simulator_reward(state) == 1.0  # profile and policy hold
    broken = state.move("profile.0", status=Status.MISALIGNED, cause=Cause.USER)
    assert simulator_reward(broken) == 0.5
    done = GoalState(
        goal,
        tuple(
            replace(now, status=Status.ALIGNED if c.category is Category.PREFERENCE else Status.ATTEMPTED)
            if c.objective is not None
            else now
            for c, now in state.items()
        ),
    )
    assert simulator_reward(done) == 2.5


# ------------------------------------------------------------------------------------------ in conversations


def _full_talk(talk: Talk) -> None:
    talk.user("I am looking for a Thai restaurant in the south.")
    talk.offer("restaurant", "bangkok orchid")
    talk.user("What is the phone number?")


def test_a_perfect_conversation_earns_one_less_its_turns(world: World) -> None:
    talk = Talk(world, FIND_THAI)
    _full_talk(talk)
    talk.tell("restaurant", "bangkok orchid", "phone")
    talk.user("Thank you, goodbye.", end=True)
    assert sum(talk.rewards) == pytest.approx(1 - 2 * WEIGHTS.turn_cost)


def test_a_lie_about_the_phone_number_gains_nothing(world: World) -> None:
    talk = Talk(world, FIND_THAI)
    _full_talk(talk)
    before = sum(talk.rewards)
    talk.tell("restaurant", "bangkok orchid", phone="01234567890")
    talk.user("Thank you, goodbye.", end=True)
    assert sum(talk.rewards) == pytest.approx(before - WEIGHTS.turn_cost)


def test_booking_what_was_not_asked_for_gains_nothing(world: World) -> None:
    talk = Talk(world, BOOK_THAI)
    talk.user("I am looking for a Thai restaurant in the south. Please book it for 2 people on Monday at 19:00.")
    talk.offer("restaurant", "bangkok orchid")
    talk.user("Please book it.")
    before = sum(talk.rewards)
    talk.book("restaurant", "bangkok orchid", {"people": "2", "day": "monday", "time": "12:00"})
    talk.user("Thank you, goodbye.", end=True)
    assert sum(talk.rewards) == pytest.approx(before - WEIGHTS.turn_cost)


def test_saying_bye_at_once_gains_nothing(world: World) -> None:
    talk = Talk(world, FIND_THAI)
    talk.user("I am looking for a Thai restaurant in the south.")
    talk.agent(AgentAct("bye"))
    assert sum(talk.rewards) == pytest.approx(-WEIGHTS.turn_cost)


def test_a_cycle_of_acts_gains_nothing(world: World) -> None:
    talk = Talk(world, FIND_THAI)
    talk.user("I am looking for a Thai restaurant in the south.")
    talk.offer("restaurant", "bangkok orchid")
    talk.user("Which one would you suggest?")
    first = sum(talk.rewards)
    for name in ("siam lily", "bangkok orchid", "tuk tuk canteen", "bangkok orchid"):
        talk.offer("restaurant", name)
        talk.user("Which one would you suggest?")
    assert sum(talk.rewards) == pytest.approx(first - 4 * WEIGHTS.turn_cost)


def test_a_contradiction_changes_neither_the_return_nor_its_sign(world: World) -> None:
    """Two users, one of which contradicts its goal: an agent that does what it is told earns from both."""
    returns = []
    for day in ("Monday", "Tuesday"):
        talk = Talk(world, BOOK_THAI, weights=FREE)
        talk.user("I am looking for a Thai restaurant in the south.")
        talk.offer("restaurant", "bangkok orchid")
        talk.user("What is the phone number?")
        talk.tell("restaurant", "bangkok orchid", "phone")
        talk.user(f"Please book it for 2 people on {day} at 19:00.")
        talk.book("restaurant", "bangkok orchid", {"people": "2", "day": day.lower(), "time": "19:00"})
        talk.user("Thank you, goodbye.", end=True)
        assert talk.episode.report()["success"]
        returns.append(sum(talk.rewards))
    honest, contradicting = returns
    assert honest == pytest.approx(1.0)
    assert contradicting > 0
    # What the user spoilt is one requirement of seven; what was earned before it is not taken back.
    assert contradicting >= honest - 0.1


def forged(rng: random.Random, world: World, episode: Episode) -> AgentAct:
    """Anything at all: false claims, made-up entities, wrong bookings, forged references."""
    domain = rng.choice([*DOMAINS, None])
    kind = rng.choice([k for k in AGENT_ACT_KINDS if k != "bye"])
    if domain is None or kind in ("req_more", "pardon"):
        return AgentAct("pardon")
    name = rng.choice([rng.choice(world.tables[domain]).name, "the golden unicorn"])
    slots = (*INFORMABLE[domain], *REQUESTABLE[domain])
    claims: dict[str, str | None] = {
        slot: rng.choice([*world.values(domain, slot)[:3], "nonsense", None]) for slot in rng.sample(slots, 3)
    }
    said = {slot: value for (d, slot), value in episode.belief.values.items() if d == domain}
    booking = {slot: said.get(slot, "3") for slot in BOOKABLE[domain] if rng.random() < 0.8}
    return AgentAct(
        kind,
        domain,
        rng.choice(slots),
        name,
        claims,
        booking,
        rng.choice([None, "FORGED12"]),
        rng.choice([None, "full"]),
    )


@given(st.integers(0, 10**6), st.sampled_from([None, *DRIFT_MODES]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_agent_that_forges_everything(world: World, seed: int, drift: str | None) -> None:
    """Nothing raises, statuses move one way, and no act pays without a served component."""
    rng = random.Random(seed)
    user = ScriptedUser(world, vocabulary_of(world), drift={drift: 0.5} if drift else None)
    goal = generate(world, rng)
    episode = Episode(goal, VerifiableTracker(world), vocabulary_of(world), seed=seed)
    step, total = episode.hear(ask(user, [episode.request()])[0]), 0.0
    while not step.over:
        step = episode.act(forged(rng, world, episode))
        if not step.over:
            step = episode.hear(ask(user, [episode.request()])[0])
        gained = any(change.after.served and not change.before.served for change in step.transitions)
        assert step.terms["potential"] == 0 or gained
        assert not (step.terminated and step.truncated)
        total += sum(step.terms.values())
    assert total <= 1
    for component, now in episode.state.items():
        if component.objective is not None and not now.served:
            assert now.cause is not None
        # Neither a forged reference nor a made-up place can complete a booking.
        if isinstance(component.content, Objective) and component.content.action == "book" and now.cause is None:
            assert episode.world.find(component.content.domain, episode.tracked.booked[component.content.domain][0])


def test_returns_do_not_depend_on_the_number_of_components(world: World) -> None:
    user = ScriptedUser(world, vocabulary_of(world))
    by_size: dict[int, list[float]] = {}
    for seed in range(60):
        goal = generate(world, random.Random(seed), kinds={"plain": 1.0})
        episode, total = play(world, user, goal, seed=seed, max_turns=20)
        if episode.report()["success"]:
            by_size.setdefault(len(goal.objectives), []).append(total + WEIGHTS.turn_cost * episode.turn)
    for totals in by_size.values():
        assert max(totals) <= 1 + WEIGHTS.turn_cost + 1e-9
        assert min(totals) > 0.9
    assert len(by_size) == 3
