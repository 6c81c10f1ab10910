"""A scripted user: an agenda over the tracked goal state, with varied wording, and drift on demand."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ugst_env.dialogue.acts import DONTCARE, AgentAct, UserAct
from ugst_env.dialogue.understanding import Context, Vocabulary, understand
from ugst_env.goal import (
    Ask,
    Category,
    Component,
    ComponentState,
    Fact,
    GoalState,
    Objective,
    Rule,
    Status,
    UserGoal,
    Want,
)
from ugst_env.goals.policies import ABOUT_ACTS, Limits, Utterance, comply_all, limits, violates
from ugst_env.goals.profiles import contradiction, contradicts, mention
from ugst_env.tracking.verifiable import is_booking_slot
from ugst_env.users.protocol import UserReply, UserRequest
from ugst_env.users.wording import Thing, put_into_words
from ugst_env.world.database import World

DRIFT_MODES = ("forget", "contradict", "terminate", "dawdle", "misprioritise")
WORDING_TRIES = 16
_HOTEL = re.compile(r"\bhotel\b", re.IGNORECASE)
_WE = re.compile(r"\b[Ww]e\b|\b[Ll]et's\b")


@dataclass(frozen=True)
class Plan:
    """What a user turn is to convey: `things` in order, and whether it ends the conversation."""

    things: tuple[Thing, ...]
    end: bool = False


class _Task(NamedTuple):
    """One objective as the agenda sees it."""

    domain: str
    book: bool
    searches: tuple[tuple[Component, Want, ComponentState], ...]
    bookings: tuple[tuple[Component, Want, ComponentState], ...]
    asks: tuple[tuple[Component, Ask, ComponentState], ...]
    head: ComponentState

    @property
    def found(self) -> bool:
        """Whether the entity on offer meets every hard condition."""
        return all(now.served or now.user_fault for c, _, now in self.searches if c.category is Category.REQUIREMENT)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do for the user: all is served, or out of anybody's hands."""
        if not _over(self.head):
            return False
        return all(_over(now) for _, _, now in (*self.searches, *self.bookings, *self.asks))


def _over(now: ComponentState) -> bool:
    return now.served or now.user_fault or now.status is Status.ALIGNED


def _tasks(state: GoalState) -> list[_Task]:
    states = state.states
    return [
        _Task(
            objective.domain,
            objective.action == "book",
            tuple([(c, want, states[k]) for k, c, want in searches]),
            tuple([(c, want, states[k]) for k, c, want in bookings]),
            tuple([(c, question, states[k]) for k, c, question in asks]),
            states[head],
        )
        for objective, (head, searches, bookings, asks) in zip(
            state.goal.objectives, _sorted_parts(state.goal), strict=True
        )
    ]


_Wants = tuple[tuple[int, Component, Want], ...]


@lru_cache(maxsize=512)  # A goal lasts for a whole conversation.
def _sorted_parts(goal: UserGoal) -> tuple[tuple[int, _Wants, _Wants, tuple[tuple[int, Component, Ask], ...]], ...]:
    """Of each objective, by their positions: itself, what to search by, the details of the booking, the questions."""
    found = []
    for objective, parts in zip(goal.objectives, goal.parts, strict=True):
        head, *rest = ((goal.positions[c.id], c) for c in parts)
        wants = [(k, c, c.content) for k, c in rest if isinstance(c.content, Want)]
        found.append(
            (
                head[0],
                tuple(row for row in wants if not is_booking_slot(objective.domain, row[2].slot)),
                tuple(row for row in wants if is_booking_slot(objective.domain, row[2].slot)),
                tuple((k, c, c.content) for k, c in rest if isinstance(c.content, Ask)),
            )
        )
    return tuple(found)


def _value(want: Want, now: ComponentState, answers: Mapping[str, str | None]) -> str:
    """The value in force, as far as the user can know it."""
    if want.otherwise is None or want.condition is None:
        return want.value
    if want.condition == "no_match":
        return want.otherwise if now.switched else want.value
    slot, _, value = want.condition.partition("=")
    return want.otherwise if now.switched or answers.get(slot) == value else want.value


def _knows(task: _Task, want: Want, now: ComponentState, answers: Mapping[str, str | None]) -> bool:
    """Whether the user can tell which value of a want is in force ("if it has parking": only once it was told)."""
    if want.condition is None or want.condition == "no_match" or now.switched:
        return True
    slot = want.condition.partition("=")[0]
    return slot in answers or any(ask.slot == slot and state.served for _, ask, state in task.asks)


def _raised(request: UserRequest) -> set[str]:
    """The domains that the user has raised so far."""
    assert request.state is not None
    return {
        component.content.domain
        for component, now in request.state.items()
        if isinstance(component.content, Objective) and now.status is not Status.INCOMPLETE
    }


def _wanted(objective: Objective) -> set[str]:
    return {part.slot for part in (*objective.requirements, *objective.preferences) if isinstance(part, Want)}


class _Manner(NamedTuple):
    """What a goal has to say of how its user speaks."""

    facts: tuple[Fact, ...]
    alone: bool
    # Who cares whether it is a hotel or a guesthouse does not call any place to stay a hotel.
    picky: bool
    rules_about_acts: bool
    bound: Limits


@lru_cache(maxsize=512)  # A goal lasts for a whole conversation.
def _manner(goal: UserGoal) -> _Manner:
    facts = tuple(fact for fact in goal.profile if fact.kind != "text")
    return _Manner(
        facts=facts,
        alone=any((fact.kind, fact.value) in (("party_size", "1"), ("companion", "alone")) for fact in facts),
        picky=any(o.domain == "hotel" and "type" in _wanted(o) for o in goal.objectives),
        rules_about_acts=any(rule.kind in ABOUT_ACTS for rule in goal.policy),
        bound=limits(goal.policy),
    )


def _only_secrets(task: _Task, secret: frozenset[str]) -> bool:
    """Whether nothing is left to do but to express wishes that a rule forbids to bring up."""
    parts = [task.head, *(now for _, _, now in task.bookings), *(now for _, _, now in task.asks)]
    wishes = [(want, now) for c, want, now in task.searches if c.category is Category.PREFERENCE]
    parts += [now for c, _, now in task.searches if c.category is Category.REQUIREMENT]
    return all(now.served or now.user_fault for now in parts) and all(
        now.served or now.user_fault or now.status is Status.ALIGNED or want.slot in secret for want, now in wishes
    )


def _said(task: _Task) -> list[Thing]:
    """What was said about a task already."""
    return [
        Thing("inform", task.domain, want.slot, _value(want, now, {}), soft=c.category is Category.PREFERENCE)
        for c, want, now in (*task.searches, *task.bookings)
        if now.status not in (Status.INCOMPLETE, Status.MISALIGNED) and not now.user_fault
    ]


class ScriptedUser:
    """An agenda-driven user that keeps to profile, policy and goal, unless told to drift.

    Parameters
    ----------
    world
        The world whose vocabulary its words are checked against, so that they are understood as they are meant.
    drift
        Rates in [0, 1] of the failure modes of arXiv 2507.20152. Per component: ``forget`` (takes it for done after the
        opening, for good). Per turn: ``contradict`` (states another value, or contradicts a fact or a rule),
        ``terminate`` (leaves early), ``dawdle`` (wastes turns), ``misprioritise`` (hops to another objective, and
        repeats what was said instead of going on).

    Raises
    ------
    ValueError
        For an unknown mode or a rate outside [0, 1].
    """

    needs_state = True
    plain_words = False

    def __init__(self, world: World, vocabulary: Vocabulary, *, drift: Mapping[str, float] | None = None) -> None:
        for mode, rate in (drift or {}).items():
            if mode not in DRIFT_MODES:
                raise ValueError(f"unknown drift mode {mode!r}; accepted: {', '.join(DRIFT_MODES)}")
            if not 0 <= rate <= 1:
                raise ValueError(f"the rate of drift mode {mode!r} must be in [0, 1], got {rate}")
        self._world = world
        self._vocabulary = vocabulary
        self._drift = dict(drift or {})

    def forget(self, episodes: Sequence[str]) -> None:
        """Nothing is kept between turns."""

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        """Answer each request from its goal state and the agent's newest act."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: UserRequest) -> UserReply:
        if request.state is None:
            raise ValueError("the scripted user needs the goal state in its request, got None")
        rng = random.Random(request.seed)
        drifting = {mode for mode in DRIFT_MODES if rng.random() < self._drift.get(mode, 0.0)}
        plan = self.plan(request, rng, drifting)
        breaks_manner = "contradict" in drifting and rng.random() < 0.5
        text = self.say(request, plan, rng, careless=breaks_manner)
        trace = "; ".join(" ".join(part for part in (t.kind, t.domain, t.slot) if part) for t in plan.things)
        return UserReply(text, end=plan.end, trace=trace)

    def plan(self, request: UserRequest, rng: random.Random, drifting: set[str]) -> Plan:
        """What this turn is to convey, whatever words it is put into: the truth to hold a tracker against.

        Parameters
        ----------
        request
            With a goal state.
        rng
            The source of chance.
        drifting
            Which of `DRIFT_MODES` befall this turn.
        """
        state = request.state
        assert state is not None
        if "terminate" in drifting and request.turn > 0:
            return Plan((Thing("bye"),), end=True)
        if "dawdle" in drifting and request.turn > 0:
            return Plan((Thing("chat"),))
        tasks = _tasks(self._remembered(request, state))
        bound = _manner(request.goal).bound
        act = request.agent_act
        secret = self._secret(request, tasks, bound)
        # Without a secret, only what is over has nothing but secrets left.
        open_tasks = [task for task in tasks if not task.over and not (secret and _only_secrets(task, secret))]
        if "misprioritise" in drifting and request.turn > 0:
            open_tasks = open_tasks[request.turn % len(open_tasks) :] if open_tasks else []
        answer = [*self._changed(tasks, act, request), *self._answer(tasks, act, request)]
        if any(thing.kind == "another" for thing in answer):
            open_tasks = []
        task = open_tasks[0] if open_tasks else None
        left = request.max_turns - request.turn
        room = max(1, min(bound.max_things, self._pace(rng, open_tasks, left)))
        things = list(answer)
        if bound.max_things == 1 and task is not None:
            # There is no room for turning a booking down and going on.
            things = [thing for thing in things if thing.kind != "no_booking"]
        # To turn a booking down neither states a wish nor asks for anything.
        taken = sum(thing.kind != "no_booking" for thing in things)
        if "misprioritise" in drifting and request.turn > 0 and task is not None and (said := _said(task)):
            things += [rng.choice(said)]
        elif task is not None and taken < room:
            already = {(t.domain, t.slot) for t in things}
            things += self._pursue(task, act, rng, room - taken, already, secret)
        kept = [t for t in things if t.kind != "inform" or t.slot not in secret or t.value == DONTCARE]
        if "contradict" in drifting:
            kept = [self._contradict(thing, rng) for thing in kept]
        if not kept and task is None:
            return Plan((Thing("bye"),), end=True)
        if not kept or all(t.kind in ("accept", "deny") for t in kept):
            kept.append(self._nudge(task, act))
        return Plan(tuple(kept))

    @staticmethod
    def _secret(request: UserRequest, tasks: list[_Task], bound: Limits) -> frozenset[str]:
        """The slots that a rule forbids to tell by now: the agent has neither asked for them nor named them."""
        from_the_start = bound.not_first if request.turn == 0 else frozenset()
        if not bound.withheld:
            return from_the_start
        act = request.agent_act
        named = set() if act is None else {*act.claims, *([act.slot] if act.kind == "request" else [])}
        told = {
            want.slot
            for task in tasks
            for _, want, now in (*task.searches, *task.bookings)
            if now.status not in (Status.INCOMPLETE, Status.MISALIGNED)
        }
        return (bound.withheld - told - named) | from_the_start

    def _remembered(self, request: UserRequest, state: GoalState) -> GoalState:
        """The goal state as the user has it in mind: what it forgot (after the opening, for good) looks done."""
        rate = self._drift.get("forget", 0.0)
        if not rate or not request.conversation.turns:
            return state
        # The opening is the same all through a conversation, so the same things stay forgotten.
        opening = request.conversation.turns[0].user
        for component, now in state.items():
            forgotten = random.Random(f"{opening}/{component.id}").random() < rate
            if forgotten and component.objective is not None and now.status in (Status.INCOMPLETE, Status.MISALIGNED):
                state = state.move(component.id, served=True)
        return state

    @staticmethod
    def _pace(rng: random.Random, tasks: list[_Task], left: int) -> int:
        """How many things to say in one turn: few as people do, more when the turns run out."""
        todo = sum(
            now.status in (Status.INCOMPLETE, Status.MISALIGNED)
            for task in tasks
            for _, _, now in (*task.searches, *task.bookings, *task.asks)
        )
        needed = -(-todo // max(1, left - 2 * len(tasks)))
        return max(needed, rng.choice((1, 2, 2, 3)))

    @staticmethod
    def _nudge(task: _Task | None, act: AgentAct | None) -> Thing:
        if task is not None and act is not None and act.kind == "book" and act.failure is not None:
            return Thing("another", task.domain)
        if task is not None and task.head.status is Status.INCOMPLETE:
            return Thing("raise", task.domain)
        if task is not None and task.found and task.book:
            return Thing("book", task.domain)
        return Thing("suggest", task.domain if task else None)

    def _answer(self, tasks: list[_Task], act: AgentAct | None, request: UserRequest) -> list[Thing]:
        """What the agent's newest words call for before the agenda goes on."""
        if act is None or act.domain is None:
            return []
        task = next((task for task in tasks if task.domain == act.domain), None)
        if act.kind == "request" and act.slot is not None:
            return [self._answered(task, act)]
        if task is None or task.over:
            return []
        if act.kind in ("offer", "offer_next"):
            wrong = [
                Thing("correct", act.domain, want.slot, _value(want, now, act.claims))
                for c, want, now in task.searches
                if c.category is Category.REQUIREMENT
                and self._mismatch(want, now, act)
                and now.status is not Status.INCOMPLETE
            ]
            return wrong[:2]
        if act.kind == "no_offer":
            return self._after_refusal(task, act)
        if act.kind == "book" and act.reference is not None:
            return [
                Thing("correct", task.domain, want.slot, _value(want, now, {}))
                for _, want, now in task.bookings
                if act.booking.get(want.slot) != _value(want, now, {}) and not now.served and not now.user_fault
            ]
        if act.kind == "book" and act.failure is not None:
            switched = [
                Thing("inform", task.domain, want.slot, want.otherwise)
                for _, want, now in task.bookings
                if now.switched and not now.served and want.condition == "no_match"
            ]
            return switched or [Thing("another", task.domain)]
        return []

    @staticmethod
    def _changed(tasks: list[_Task], act: AgentAct | None, request: UserRequest) -> list[Thing]:
        """What another offer changes about a conditional booking ("if it has parking")."""
        task = next((task for task in tasks if act is not None and task.domain == act.domain), None)
        if act is None or task is None or task.head.served or len(request.states) < 2:
            return []
        things = []
        for component, want, now in task.bookings:
            if want.condition in (None, "no_match") or now.status is not Status.ATTEMPTED or now.served:
                continue
            slot = (want.condition or "").partition("=")[0]
            if request.states[-2][component.id].switched != now.switched:
                things.append(Thing("inform", task.domain, want.slot, _value(want, now, act.claims)))
            elif act.kind in ("offer", "offer_next") and slot not in act.claims:
                things.append(Thing("ask", task.domain, slot))
        return things

    def _answered(self, task: _Task | None, act: AgentAct) -> Thing:
        if task is not None:
            for component, want, now in (*task.searches, *task.bookings):
                if want.slot == act.slot and not _knows(task, want, now, {}):
                    return Thing("ask", act.domain, (want.condition or "").partition("=")[0])
                if want.slot == act.slot:
                    soft = component.category is Category.PREFERENCE
                    return Thing("inform", act.domain, act.slot, _value(want, now, {}), soft=soft)
            if is_booking_slot(task.domain, act.slot or "") and not task.book:
                return Thing("no_booking", act.domain)
        return Thing("inform", act.domain, act.slot, DONTCARE)

    def _mismatch(self, want: Want, now: ComponentState, act: AgentAct) -> bool:
        value = _value(want, now, act.claims)
        if want.slot == "name":
            return act.entity != value
        claimed = act.claims.get(want.slot)
        if claimed is None:
            return False
        if want.slot == "leaveAt":
            return claimed < value
        if want.slot == "arriveBy":
            return claimed > value
        return claimed != value

    @staticmethod
    def _after_refusal(task: _Task, act: AgentAct) -> list[Thing]:
        for _, want, now in task.searches:
            if now.switched and not now.served and want.otherwise is not None:
                return [Thing("inform", task.domain, want.slot, want.otherwise)]
        wishes = [
            Thing("inform", task.domain, want.slot, DONTCARE)
            for c, want, now in task.searches
            if c.category is Category.PREFERENCE and now.status is Status.ALIGNED
        ]
        return wishes[:1]

    def _pursue(
        self,
        task: _Task,
        act: AgentAct | None,
        rng: random.Random,
        room: int,
        already: set[tuple[str | None, str | None]],
        secret: frozenset[str],
    ) -> list[Thing]:
        """The next things of the agenda for an objective: conditions and wishes, then questions, then the booking."""
        domain = task.domain
        claims: Mapping[str, str | None] = act.claims if act is not None and act.domain == domain else {}
        unsaid = [
            Thing("inform", domain, want.slot, _value(want, now, claims), soft=c.category is Category.PREFERENCE)
            for c, want, now in task.searches
            if now.status in (Status.INCOMPLETE, Status.MISALIGNED) and not now.user_fault
        ]
        unsaid = [thing for thing in unsaid if (domain, thing.slot) not in already and thing.slot not in secret]
        if unsaid:
            if task.head.status is not Status.INCOMPLETE and rng.random() < 0.3:
                rng.shuffle(unsaid)
            return unsaid[:room]
        if not task.found:
            # Said before, but the agent has not acted on it: say the switched value, or just press on.
            again = [
                Thing("inform", domain, want.slot, _value(want, now, claims))
                for c, want, now in task.searches
                if now.switched and not now.served and not now.user_fault and (domain, want.slot) not in already
            ]
            if task.head.status is Status.INCOMPLETE:
                return [Thing("raise", domain)]
            return again[:room]
        return self._details(task, claims, rng, room, already, secret)

    def _details(
        self,
        task: _Task,
        claims: Mapping[str, str | None],
        rng: random.Random,
        room: int,
        already: set[tuple[str | None, str | None]],
        secret: frozenset[str],
    ) -> list[Thing]:
        domain = task.domain
        asks = [
            Thing("ask", domain, ask.slot)
            for _, ask, now in task.asks
            if not now.served and (ask.slot != "reference" or task.head.served)
        ]
        for _, want, now in task.bookings:
            if now.status is Status.INCOMPLETE and not _knows(task, want, now, claims):
                condition = Thing("ask", domain, (want.condition or "").partition("=")[0])
                asks = [condition, *(thing for thing in asks if thing != condition)]
        bookings = [
            Thing("inform", domain, want.slot, _value(want, now, claims))
            for _, want, now in task.bookings
            if now.status is Status.INCOMPLETE and not now.user_fault and _knows(task, want, now, claims)
        ]
        asks = [thing for thing in asks if (domain, thing.slot) not in already]
        bookings = [thing for thing in bookings if (domain, thing.slot) not in already and thing.slot not in secret]
        if asks and (rng.random() < 0.6 or not bookings):
            return asks[:room]
        if bookings:
            return [bookings[0]._replace(opens_booking=True), *bookings[1:]][:room] if task.book else bookings[:room]
        return asks[:room]

    def _contradict(self, thing: Thing, rng: random.Random) -> Thing:
        if thing.kind != "inform" or thing.slot is None or thing.value in (None, DONTCARE) or thing.domain is None:
            return thing
        if thing.slot in ("people", "stay"):
            others = [str(n) for n in range(1, 9)]
        elif thing.slot == "time":
            others = ["11:30", "13:15", "18:45", "20:15"]
        else:
            day = thing.slot == "day"
            others = list(self._world.values("train", "day") if day else self._world.values(thing.domain, thing.slot))
        others = [value for value in others if value != thing.value]
        return thing._replace(value=rng.choice(others)) if others else thing

    def say(self, request: UserRequest, plan: Plan, rng: random.Random, *, careless: bool = False) -> str:
        """Words for a plan: the first of several that is understood as meant and keeps to profile and policy.

        A `careless` user does not look to profile and policy.
        """
        act = request.agent_act
        requested = (act.domain, act.slot) if act and act.kind == "request" and act.domain and act.slot else None
        context = Context(domain=self._domain(request), requested=requested, offered=act.entity if act else None)
        # After "anything else?" it is safer to name what is meant, unless only one thing was spoken of.
        named = act is not None and act.domain is not None
        topic = context.domain if named or len(_raised(request)) < 2 else None
        manner = _manner(request.goal)
        says_type = sum(thing.domain == "hotel" and thing.slot == "type" for thing in plan.things)
        earlier = {turn.user for turn in request.conversation.turns}
        rules: tuple[Rule, ...] = () if careless else request.goal.policy
        about_acts, facts = manner.rules_about_acts and not careless, manner.facts
        agent_named = frozenset(act.claims) if act else frozenset()
        best, best_score = "", -1.0
        for attempt in range(WORDING_TRIES):
            text = put_into_words(
                plan.things,
                act,
                rng,
                topic=topic,
                opening=request.turn == 0,
                brief=attempt >= WORDING_TRIES // 2,
            )
            if request.turn == 0 and facts and attempt < 3 and rng.random() < 0.35:
                text = f"{text} {mention(rng.choice(facts), rng)}"
            if careless and facts and rng.random() < 0.5:
                text = f"{text} {contradiction(rng.choice(facts), rng)}"
            acts = understand(text, self._vocabulary, context) if about_acts else ()
            draft = Utterance(text, acts, requested, first=request.turn == 0, last=plan.end, agent_named=agent_named)
            text = comply_all(rules, text, draft, rng)
            acts = understand(text, self._vocabulary, context)
            score = self._fidelity(plan, acts)
            said = Utterance(text, acts, requested, first=request.turn == 0, last=plan.end, agent_named=agent_named)
            score -= 0.5 * sum([violates(rule, said) for rule in rules])
            score -= 0.0 if careless else sum([contradicts(fact, text, acts) for fact in facts])
            score -= 0.2 * (text in earlier)
            score -= 0.1 * (manner.picky and len(_HOTEL.findall(text)) > says_type)
            score -= 0.25 * (manner.alone and _WE.search(text) is not None)
            if score > best_score:
                best, best_score = text, score
            if score >= 1.0:
                break
        return best or put_into_words(plan.things, act, rng, topic=topic, opening=request.turn == 0, brief=True)

    def _domain(self, request: UserRequest) -> str | None:
        """The domain that was spoken of last."""
        if request.agent_act is not None and request.agent_act.domain is not None:
            return request.agent_act.domain
        for turn in reversed(request.conversation.turns):
            acts = understand(turn.user, self._vocabulary, Context(None, None, None))
            domains = [act.domain for act in acts if act.domain is not None]
            if domains:
                return domains[-1]
        return None

    @staticmethod
    def _fidelity(plan: Plan, acts: Sequence[UserAct]) -> float:
        """Share of what was to be conveyed that is understood, less what was not meant; 1 is perfect."""
        meant = {(t.domain, t.slot, t.value) for t in plan.things if t.kind in ("inform", "correct")}
        asked = {(t.domain, t.slot) for t in plan.things if t.kind == "ask"}
        got = {(a.domain, a.slot, a.value) for a in acts if a.kind == "inform" and a.slot is not None}
        got_asked = {(a.domain, a.slot) for a in acts if a.kind == "request"}
        total = len(meant) + len(asked)
        hit = len(meant & got) + len(asked & got_asked)
        extra = len(got - meant) + len(got_asked - asked)
        stray_bye = any(a.kind == "bye" for a in acts) and not plan.end
        return (hit / total if total else 1.0) - 0.5 * extra - 0.5 * stray_bye
