"""The scripted user: it keeps to its goal with any agent, drifts when told to, and is understood as it means."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from dialogues import BOOK_THAI, FIND_THAI, Talk, play, swap

from ugst_env.conversation import Conversation
from ugst_env.dialogue.acts import DONTCARE, AgentAct
from ugst_env.dialogue.understanding import Context, understand
from ugst_env.envs.episode import Episode
from ugst_env.envs.setup import vocabulary_of
from ugst_env.goal import Ask, Category, Cause, Fact, GoalState, Objective, Rule, UserGoal, Want
from ugst_env.goals.generator import fits, generate
from ugst_env.goals.policies import make_rule
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.users.protocol import UserRequest
from ugst_env.users.scripted import DRIFT_MODES, ScriptedUser
from ugst_env.users.wording import Thing, put_into_words
from ugst_env.world.database import World
from ugst_env.world.ontology import BOOKABLE, INFORMABLE

GOALS = 200


@pytest.fixture(scope="module")
def user(world: World) -> ScriptedUser:
    return ScriptedUser(world, vocabulary_of(world))


@pytest.fixture(scope="module")
def played(world: World, user: ScriptedUser) -> list[Episode]:
    """Conversations about generated goals with the competent clerk."""
    return [play(world, user, generate(world, random.Random(seed)), seed=seed)[0] for seed in range(GOALS)]


class TestWithACompetentClerk:
    def test_the_user_does_its_part(self, played: list[Episode]) -> None:
        held: dict[Category, list[float]] = {}
        for episode in played:
            for category, rate in episode.state.success_rates().items():
                held.setdefault(category, []).append(rate)
        rates = {category: sum(values) / len(values) for category, values in held.items()}
        assert set(rates) == set(Category)
        assert sum(rates.values()) / len(rates) >= 0.99, rates
        assert min(rates.values()) >= 0.98, rates

    def test_so_the_agent_can_do_its_own(self, played: list[Episode]) -> None:
        failed = [episode.goal.id for episode in played if not episode.report()["success"]]
        assert len(failed) <= 0.06 * GOALS, failed

    def test_nearly_all_conversations_come_to_their_own_end(self, played: list[Episode]) -> None:
        outcomes = Counter(episode.outcome for episode in played)
        assert set(outcomes) <= {"user_ended", "turn_limit"}
        assert outcomes["user_ended"] >= 0.93 * GOALS, outcomes

    def test_the_user_is_hardly_ever_at_fault(self, played: list[Episode]) -> None:
        faults = [fault for episode in played for fault in episode.tracked.faults if fault.cause.value == "USER"]
        assert len(faults) <= 2, faults

    def test_nobody_says_the_same_thing_three_times(self, played: list[Episode]) -> None:
        for episode in played:
            said = Counter(turn.user for turn in episode.conversation.turns)
            assert max(said.values()) <= 2, said.most_common(1)

    def test_the_english_is_tidy(self, played: list[Episode]) -> None:
        wrong = re.compile(
            r"\b1 (?:people|nights|stars|tickets)\b|\ban? an?\b|\b(?!tuk)(\w+) \1\b|  |\ba [aeio]|dontcare|None|[{}]"
            r"|\b(?:Could|Can) you [^.?!]*\.(?!\w)|\b(?:Ideally|Preferably) please\b",
            re.IGNORECASE,
        )
        for episode in played:
            if any(rule.kind in ("no_mark", "end_mark", "max_sentences") for rule in episode.goal.policy):
                continue
            for speaker, text in episode.conversation.messages():
                found = wrong.search(text)
                assert found is None, (speaker, text, found)

    def test_openings_and_wordings_vary(self, played: list[Episode]) -> None:
        openings = {" ".join(episode.conversation.turns[0].user.split()[:4]) for episode in played}
        assert len(openings) >= 60


@pytest.mark.parametrize("clerks", ["random", "stubborn", "wrong"])
def test_a_bad_clerk_does_not_make_the_user_drift(world: World, user: ScriptedUser, clerks: str) -> None:
    blamed: Counter[str] = Counter()
    for seed in range(60):
        goal = generate(world, random.Random(seed))
        episode, _ = play(world, user, goal, seed=seed, clerks={clerks: 1.0, "competent": 1.0})
        blamed.update(fault.mode for fault in episode.tracked.faults if fault.cause.value == "USER")
    assert not set(blamed) - {"dawdled"}, blamed
    assert blamed["dawdled"] <= 2


class TestDrift:
    def _modes(self, world: World, mode: str, count: int = 40) -> tuple[list[set[str]], list[float]]:
        """What the user did wrong in each conversation, and its mean success, where it drifts all the time."""
        drifting = ScriptedUser(world, vocabulary_of(world), drift={mode: 1.0})
        modes, success = [], []
        for seed in range(count):
            episode, _ = play(world, drifting, generate(world, random.Random(seed)), seed=seed)
            modes.append({fault.mode for fault in episode.tracked.faults if fault.cause.value == "USER"})
            rates = episode.state.success_rates().values()
            success.append(sum(rates) / len(rates))
        return modes, success

    @pytest.mark.parametrize(
        ("mode", "seen_as", "share"),
        [
            ("terminate", "wrongful_ending", 0.85),
            ("forget", "wrongful_ending", 0.75),
            ("contradict", "contradiction", 0.95),
            ("dawdle", "dawdled", 0.6),
            ("misprioritise", "dawdled", 0.6),
        ],
    )
    def test_each_mode_is_seen_as_its_kind_of_failure(
        self, world: World, mode: str, seen_as: str, share: float
    ) -> None:
        modes, success = self._modes(world, mode)
        assert sum(seen_as in each for each in modes) >= share * len(modes)
        assert sum(success) / len(success) < 0.9

    def test_contradictions_reach_profile_and_policy(self, world: World) -> None:
        modes, _ = self._modes(world, "contradict")
        assert sum("profile" in each for each in modes) > 10
        assert sum("policy" in each for each in modes) > 10

    def test_free_text_facts_cannot_be_contradicted_and_do_not_break_it(self, world: World) -> None:
        drifting = ScriptedUser(world, vocabulary_of(world), drift={"contradict": 1.0})
        goal = UserGoal(FIND_THAI.objectives, (Fact("text", "You hate ferries.", "You hate ferries."),))
        episode, _ = play(world, drifting, goal, seed=3)
        assert episode.outcome != "model_error"

    def test_what_was_forgotten_stays_forgotten(self, world: World) -> None:
        drifting = ScriptedUser(world, vocabulary_of(world), drift={"forget": 1.0})
        for seed in range(20):
            episode, _ = play(world, drifting, BOOK_THAI, seed=seed)
            assert episode.outcome == "user_ended"
            phone = episode.state["objective.0.requirement.5"]
            assert (phone.status.value, phone.cause) == ("INCOMPLETE", Cause.USER)

    def test_the_agent_does_not_pay_for_it(self, world: World) -> None:
        drifting = ScriptedUser(world, vocabulary_of(world), drift={"terminate": 1.0})
        for seed in range(20):
            episode, total = play(world, drifting, generate(world, random.Random(seed)), seed=seed)
            assert total >= -0.02 * episode.turn

    @pytest.mark.parametrize(
        ("drift", "message"),
        [
            ({"sulk": 1.0}, rf"unknown drift mode 'sulk'; accepted: {', '.join(DRIFT_MODES)}"),
            ({"forget": 2.0}, r"the rate of drift mode 'forget' must be in \[0, 1\], got 2.0"),
        ],
    )
    def test_modes_and_rates_are_checked(self, world: World, drift: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ScriptedUser(world, vocabulary_of(world), drift=drift)


def _request(goal: UserGoal, seed: int, *, episode: str = "e") -> UserRequest:
    state = GoalState.start(goal)
    return UserRequest(episode, goal, Conversation(), state, None, 0, 10, seed, (state,))


class TestReplies:
    def test_same_request_same_reply_whatever_the_batch(self, world: World, user: ScriptedUser) -> None:
        requests = [_request(generate(world, random.Random(k)), k) for k in range(8)]
        alone = [user.reply([request])[0] for request in requests]
        assert user.reply(requests) == alone
        assert user.reply(requests[::-1]) == alone[::-1]
        assert user.reply([_request(requests[0].goal, 0, episode="another")])[0] == alone[0]
        assert user.reply([_request(requests[0].goal, 1)])[0] != alone[0]

    def test_it_needs_the_goal_state(self, user: ScriptedUser) -> None:
        request = UserRequest("e", FIND_THAI, Conversation(), None, None, 0, 10, 0)
        with pytest.raises(ValueError, match="needs the goal state"):
            user.reply([request])

    def test_every_value_of_the_world_can_be_said_and_understood(self, world: World, user: ScriptedUser) -> None:
        """An opening about each value of each slot is understood as it is meant."""
        vocabulary = vocabulary_of(world)
        missed = []
        for domain, slots in INFORMABLE.items():
            for slot in slots:
                values = world.values(domain, slot)
                for value in values[:: max(1, len(values) // 12)]:
                    if value in ("no", "0"):
                        continue
                    goal = UserGoal((Objective(domain, "find", (Want(slot, value),)),))
                    text = user.reply([_request(goal, 1)])[0].text
                    acts = understand(text, vocabulary, Context(None, None, None))
                    if (slot, value) not in {(act.slot, act.value) for act in acts}:
                        missed.append((domain, slot, value, text))
        assert len(missed) <= 2, missed

    def test_questions_get_answers(self, world: World, user: ScriptedUser) -> None:
        """What the agent asks for is told: the goal's value, or that any will do."""
        for slot, expected in (("area", "south"), ("food", "thai"), ("pricerange", DONTCARE)):
            talk = Talk(world, FIND_THAI)
            talk.user("I am looking for a restaurant.")
            talk.agent(AgentAct("request", "restaurant", slot))
            for seed in range(8):
                request = talk.episode.request()
                reply = user.reply([UserRequest(**{**vars(request), "seed": seed})])[0]
                context = Context("restaurant", ("restaurant", slot), None)
                acts = understand(reply.text, talk.vocabulary, context)
                assert ("restaurant", slot, expected) in {(a.domain, a.slot, a.value) for a in acts}, reply.text

    def test_a_wrong_offer_is_corrected(self, world: World, user: ScriptedUser) -> None:
        talk = Talk(world, FIND_THAI)
        talk.user("I am looking for a Thai restaurant in the south.")
        talk.offer("restaurant", "siam lily")
        text = user.reply([talk.episode.request()])[0].text
        assert "south" in text

    def test_a_wrong_booking_is_corrected(self, world: World, user: ScriptedUser) -> None:
        talk = Talk(world, BOOK_THAI)
        talk.user("I am looking for a Thai restaurant in the south. Please book it for 2 people on Monday at 19:00.")
        talk.offer("restaurant", "bangkok orchid")
        talk.user("Yes, please book it.")
        talk.book("restaurant", "bangkok orchid", {"people": "2", "day": "tuesday", "time": "19:00"})
        text = user.reply([talk.episode.request()])[0].text
        assert "monday" in text.lower()
        assert "tuesday" not in text.lower()

    def test_the_alternative_is_said_only_after_the_refusal(self, world: World, user: ScriptedUser) -> None:
        goal = UserGoal((swap(FIND_THAI.objectives[0], "area", Want("area", "west", "south", "no_match")),))
        for seed in range(10):
            episode, _ = play(world, user, goal, seed=seed)
            for turn in episode.conversation.turns:
                if "south" in turn.user:
                    break
                refused = turn.agent is not None and ("no restaurant" in turn.agent or "any restaurant" in turn.agent)
                if refused:
                    continue
            assert episode.report()["success"]
            assert episode.tracked.faults == ()

    def test_nothing_of_the_goal_that_was_not_asked_leaks_with_a_withholding_rule(
        self, world: World, user: ScriptedUser
    ) -> None:
        goal = UserGoal(FIND_THAI.objectives, (), (make_rule("withhold", "area"),))
        for seed in range(10):
            episode, _ = play(world, user, goal, seed=seed)
            assert episode.state["policy.0"].status.value == "ALIGNED"
            assert "south" not in episode.conversation.turns[0].user


def test_a_wish_to_be_told_only_when_asked_never_holds_things_up(world: World, user: ScriptedUser) -> None:
    wishes = (Want("area", "east"),)
    zoo = Objective("attraction", "find", (Want("type", "zoo"), Ask("postcode")), wishes)
    goal = UserGoal((zoo, *FIND_THAI.objectives), (), (make_rule("withhold", "area"),))
    for seed in range(10):
        episode, _ = play(world, user, goal, seed=seed)
        assert episode.outcome == "user_ended", episode.conversation
        assert episode.state["policy.0"].status.value == "ALIGNED"
        assert episode.state["objective.1"].served


def test_what_was_never_asked_for_is_not_the_users_fault(world: World) -> None:
    goal = UserGoal(FIND_THAI.objectives, (), (make_rule("withhold", "area"),))
    talk = Talk(world, goal)
    talk.user("I am looking for a Thai restaurant.")
    talk.agent(AgentAct("request", "restaurant", "pricerange"))
    talk.user("I do not care. Goodbye.", end=True)
    assert talk.of("area").cause is Cause.AGENT
    assert talk.of("phone").cause is Cause.USER


@pytest.mark.parametrize(
    "rule",
    [
        make_rule("say_word", "kindly"),
        make_rule("max_words", "9"),
        make_rule("max_things", "1"),
        make_rule("case", "lower"),
        make_rule("no_digits", "all"),
        make_rule("no_mark", "?"),
        make_rule("sign_name", "Yuki"),
        make_rule("max_sentences", "1"),
    ],
    ids=lambda rule: f"{rule.kind}={rule.value}",
)
def test_it_keeps_its_policy(world: World, user: ScriptedUser, rule: Rule) -> None:
    goal = UserGoal(BOOK_THAI.objectives, BOOK_THAI.profile, (rule,))
    for seed in range(12):
        episode, _ = play(world, user, goal, seed=seed)
        assert episode.state["policy.0"].status.value == "ALIGNED", episode.conversation
        assert episode.report()["success"]


@pytest.mark.parametrize("words", ["8", "11", "13", "16"])
def test_it_finds_few_words_for_goals_of_any_kind(world: World, user: ScriptedUser, words: str) -> None:
    rule, rng = make_rule("max_words", words), random.Random(int(words))
    goals = [goal for goal in (generate(world, rng) for _ in range(80)) if fits(goal.objectives, (rule,))][:30]
    kept = 0
    for seed, goal in enumerate(goals):
        episode, _ = play(world, user, replace(goal, policy=(rule,)), seed=seed)
        kept += episode.state["policy.0"].status.value == "ALIGNED"
    assert len(goals) == 30 and kept >= 28


def test_goals_about_every_booking_detail_can_be_met(world: World, user: ScriptedUser) -> None:
    values = {"people": "1", "day": "wednesday", "stay": "1", "time": "13:15"}
    for domain, slots in BOOKABLE.items():
        if not slots:
            continue
        entity = next(
            e for e in world.tables[domain] if world.unavailable(e, {slot: values[slot] for slot in slots}) is None
        )
        names = ("name",) if domain != "train" else ("departure", "destination", "day", "leaveAt")
        wants = (
            *(Want(slot, entity.attributes[slot]) for slot in names),
            *(Want(slot, values[slot]) for slot in slots),
        )
        goal = UserGoal((Objective(domain, "book", (*wants, Ask("reference"))),))
        for seed in range(5):
            episode, _ = play(world, user, goal, seed=seed)
            assert episode.report()["success"], (domain, episode.conversation)
            assert VerifiableTracker(world).finish(episode.tracked, "model_error") == episode.tracked


def test_that_it_has_to_be_a_hotel_is_understood(world: World) -> None:
    """Any place to stay may be called a hotel."""
    vocabulary = vocabulary_of(world)
    things = [Thing("inform", "hotel", "pricerange", "cheap"), Thing("inform", "hotel", "type", "hotel")]
    for seed in range(50):
        text = put_into_words(things, None, random.Random(seed), topic=None, opening=True, brief=seed % 2 == 0)
        told = {(a.slot, a.value) for a in understand(text, vocabulary, Context(None, None, None))}
        assert {("pricerange", "cheap"), ("type", "hotel")} <= told, text
