"""The verifiable tracker: goal state from what was said and what the agent verifiably did. No model call.

The user's part is judged on its words (parsed by `ugst_env.dialogue.understanding`), the agent's part on its act, every
claim of which is checked against the world. The rules, per component:

============  ===========================================  ========================================================
component     the user's part                              the agent's part (`served`)
============  ===========================================  ========================================================
objective     INCOMPLETE -> ATTEMPTED when raised          -> COMPLETE: an entity that meets every requirement was
                                                           offered (find) or booked with the right details (book)
requirement:  -> ATTEMPTED when the value was stated       -> COMPLETE: an entity that meets every stated
a condition                                                requirement was offered; for booking details: booked
requirement:  -> ATTEMPTED when asked                      -> COMPLETE: answered truthfully, about an entity that
to find out                                                meets every stated requirement
preference    -> ALIGNED when the value was expressed      honoured by the final entity, or nothing in the world
                                                           that meets the requirements could
profile       -> MISALIGNED when a fact is contradicted    none
policy        -> MISALIGNED when the rule is violated      none
============  ===========================================  ========================================================

Who is to blame. WORLD: nothing in the world fits and the agent said so truthfully; this serves the components. USER:
the user stated another value than its goal has, or left while the agent was doing its work. AGENT: the agent lied,
refused falsely, left, or let turns pass without serving anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ugst_env.dialogue.acts import DONTCARE, AgentAct, UserAct
from ugst_env.goal import (
    Ask,
    Category,
    Cause,
    Component,
    ComponentState,
    Fact,
    GoalState,
    Objective,
    Rule,
    StateDraft,
    Status,
    UserGoal,
    Want,
)
from ugst_env.goals.policies import Utterance, violates
from ugst_env.goals.profiles import contradicts
from ugst_env.world.database import Entity, World
from ugst_env.world.ontology import BOOKABLE, DOMAINS, INFORMABLE

# How many fruitless turns make what is left open the agent's fault.
PATIENCE = 2

ENDINGS = ("user_ended", "agent_ended", "turn_limit", "model_error")


@dataclass(frozen=True)
class Fault:
    """Something that went wrong, with who did it.

    `mode` is one of ``contradiction``, ``invention``, ``profile``, ``policy``, ``wrongful_ending``, ``dawdled`` (USER);
    ``lie``, ``no_such_entity``, ``false_no_offer``, ``wrong_booking``, ``left``, ``stalled`` (AGENT).
    """

    turn: int
    cause: Cause
    mode: str
    detail: str


@dataclass(frozen=True)
class Tracked:
    """A conversation as the tracker sees it: the goal state with the evidence behind it. Immutable.

    Parameters
    ----------
    state
        The goal state S_i.
    turn
        Number of user utterances heard so far.
    stated
        Values that the user gave, ``{(domain, slot): (value, ...)}``, oldest first.
    soft
        Which of them were hedged ("if possible").
    offered, booked
        The newest entity offered in a domain, and the newest booking ``(entity, {slot: value}, reference)`` that
        succeeded.
    told
        Truths that the agent told, as ``(domain, entity, slot)``.
    refused
        Domains in which the agent said, truthfully, that nothing matches or that the booking is impossible.
    blocked
        Domains in which the user's own words, not its goal, left nothing to match.
    deceived
        Domains in which the agent was caught in a falsehood.
    named
        Slots that the agent asked for or spoke of.
    stalled
        Number of agent turns that moved nothing.
    news
        Whether the user's newest words said anything new.
    last_act
        The newest agent act.
    faults
        Everything that went wrong so far, oldest first.
    """

    state: GoalState
    turn: int = 0
    stated: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    soft: frozenset[tuple[str, str]] = frozenset()
    offered: Mapping[str, str] = field(default_factory=dict)
    booked: Mapping[str, tuple[str, Mapping[str, str], str]] = field(default_factory=dict)
    told: frozenset[tuple[str, str, str]] = frozenset()
    refused: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    deceived: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    stalled: int = 0
    news: bool = False
    last_act: AgentAct | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def goal(self) -> UserGoal:
        return self.state.goal


class _Draft:
    """A `Tracked` while a turn is worked into it: the same fields, to be assigned to.

    A turn changes a dozen things; to make a new `Tracked` for each of them took a third of the tracker's time.
    """

    goal: UserGoal
    state: StateDraft
    turn: int
    stated: Mapping[tuple[str, str], tuple[str, ...]]
    soft: frozenset[tuple[str, str]]
    offered: Mapping[str, str]
    booked: Mapping[str, tuple[str, Mapping[str, str], str]]
    told: frozenset[tuple[str, str, str]]
    refused: frozenset[str]
    blocked: frozenset[str]
    deceived: frozenset[str]
    named: frozenset[str]
    stalled: int
    news: bool
    last_act: AgentAct | None
    faults: tuple[Fault, ...]

    def __init__(self, track: Tracked) -> None:
        self.__dict__.update(track.__dict__)
        self.goal, self.state = track.goal, StateDraft(track.state)

    def note(self, cause: Cause, mode: str, detail: str) -> None:
        self.faults = (*self.faults, Fault(self.turn, cause, mode, detail))

    def done(self) -> Tracked:
        """What has become of it. The draft must not be used any more."""
        track: Tracked = object.__new__(Tracked)
        track.__dict__.update(self.__dict__, state=self.state.done())
        del track.__dict__["goal"]
        return track


def start(goal: UserGoal) -> Tracked:
    """The tracked conversation before the first word (S_0)."""
    return Tracked(GoalState.start(goal))


def _objective(goal: UserGoal, domain: str | None) -> int | None:
    for index, objective in enumerate(goal.objectives):
        if objective.domain == domain:
            return index
    return None


_BOOKING_SLOTS = {domain: frozenset(BOOKABLE[domain]) - frozenset(INFORMABLE[domain]) for domain in DOMAINS}


def is_booking_slot(domain: str, slot: str) -> bool:
    """Whether a slot is a detail of the booking and not something to search by."""
    return slot in _BOOKING_SLOTS[domain]


def in_force(want: Want, *, switched: bool, entity: Entity | None = None) -> str:
    """The value that counts: `otherwise` when the condition came true, or when `entity` has the attribute it names."""
    if want.otherwise is None or want.condition is None:
        return want.value
    if want.condition == "no_match":
        return want.otherwise if switched else want.value
    slot, _, value = want.condition.partition("=")
    holds = entity.attributes.get(slot) == value if entity is not None else switched
    return want.otherwise if holds else want.value


@lru_cache(maxsize=512)  # A goal lasts for a whole conversation.
def _hard_wants(goal: UserGoal) -> tuple[tuple[tuple[int, Want], ...], ...]:
    """Of each objective, by their positions: what has to be met by whatever is found."""
    return tuple(
        tuple(
            (goal.positions[component.id], want)
            for component, want in wants
            if component.category is not Category.PREFERENCE and not is_booking_slot(objective.domain, want.slot)
        )
        for objective, wants in zip(goal.objectives, goal.wants, strict=True)
    )


def _constraints(track: _Draft, index: int) -> dict[str, str]:
    """Search constraints of an objective's requirements, less those that the user spoilt."""
    chosen = {}
    states = track.state.states
    for k, want in _hard_wants(track.goal)[index]:
        now = states[k]
        if now.user_fault:
            continue
        chosen[want.slot] = in_force(want, switched=now.switched)
    return chosen


def _matches(world: World, entity: Entity, constraints: Mapping[str, str]) -> bool:
    named = constraints.get("name", DONTCARE)
    if named not in (DONTCARE, entity.name) and world.find(entity.domain, named) != entity:
        return False
    return world.fits(entity, constraints)


def _booking_wants(track: _Draft, index: int, entity: Entity | None) -> dict[str, str]:
    """The booking details that the goal asks for, for this entity, less those that the user spoilt."""
    domain = track.goal.objectives[index].domain
    return {
        want.slot: in_force(want, switched=track.state[component.id].switched, entity=entity)
        for component, want in track.goal.wants[index]
        if is_booking_slot(domain, want.slot) and not track.state[component.id].user_fault
    }


def _waits(now: ComponentState) -> bool:
    """Whether the user did its part for a component and the agent has yet to do its own."""
    return now.status is Status.ATTEMPTED and not now.served and not now.user_fault


class VerifiableTracker:
    """Tracks goal states against a world. Stateless itself: each method takes a `Tracked` and returns the next."""

    def __init__(self, world: World) -> None:
        self.world = world

    def hear(self, before: Tracked, text: str, acts: Iterable[UserAct], *, end: bool) -> Tracked:
        """Update from a user utterance `text`, parsed into `acts`; `end`: the user ends the conversation with it."""
        acts = tuple(acts)
        track = _Draft(before)
        track.turn += 1
        self._judge_manner(track, text, acts, end)
        for act in acts:
            index = _objective(track.goal, act.domain)
            if act.kind not in ("inform", "negate", "request", "book") or act.domain not in DOMAINS:
                continue
            if index is None and act.value == DONTCARE:
                continue  # It only lets a question pass.
            if index is None:
                track.note(Cause.USER, "invention", f"{act.kind} about {act.domain}, which is not in the goal")
                continue
            objective = track.goal.parts[index][0]
            if track.state[objective.id].status is Status.INCOMPLETE:
                track.state.move(objective.id, status=Status.ATTEMPTED)
            if act.kind == "request":
                self._asked(track, index, act)
            elif act.slot is not None and act.value is not None:
                self._stated(track, index, act)
            elif act.kind == "inform" and any(
                w.slot == "type" and w.value == act.value for _, w in track.goal.wants[index]
            ):
                # "I need a hotel" raises the domain with the very word for one of its types.
                self._stated(track, index, act._replace(slot="type"))
        said = track.stated is not before.stated
        moved = track.state.done() is not before.state
        track.news = moved or (
            said and any(set(values) - set(before.stated.get(key, ())) for key, values in track.stated.items())
        )
        if said or moved:
            self._settle(track, {act.domain for act in acts})
        return track.done()

    def _judge_manner(self, track: _Draft, text: str, acts: tuple[UserAct, ...], end: bool) -> None:
        previous = track.last_act
        requested = None
        if previous is not None and previous.kind == "request" and previous.domain and previous.slot:
            requested = (previous.domain, previous.slot)
        utterance = Utterance(text, acts, requested, first=track.turn == 1, last=end, agent_named=track.named)
        for component, now in zip(track.goal.manner, track.state.states, strict=False):  # They come first.
            if now.status is not Status.ALIGNED:
                continue
            content = component.content
            if isinstance(content, Rule):
                broken = violates(content, utterance)
            else:
                broken = isinstance(content, Fact) and contradicts(content, text, acts)
            if broken:
                track.state.move(component.id, status=Status.MISALIGNED, cause=Cause.USER)
                track.note(Cause.USER, component.category.value, component.text)

    def _asked(self, track: _Draft, index: int, act: UserAct) -> None:
        for part in track.goal.parts[index]:
            if isinstance(part.content, Ask) and part.content.slot == act.slot:
                if track.state[part.id].status is Status.INCOMPLETE:
                    track.state.move(part.id, status=Status.ATTEMPTED)
                return

    def _stated(self, track: _Draft, index: int, act: UserAct) -> None:
        assert act.domain is not None and act.slot is not None and act.value is not None
        key = (act.domain, act.slot)
        found = next(((c, w) for c, w in track.goal.wants[index] if w.slot == act.slot), None)
        if act.kind == "negate":
            if found is not None and act.value in (found[1].value, found[1].otherwise):
                self._contradicted(track, *found, act.value)
            return
        said = {*track.stated.get(key, ())}
        track.blocked = track.blocked - {act.domain}
        track.stated = {**track.stated, key: (*track.stated.get(key, ()), act.value)}
        track.soft = track.soft | {key} if act.soft else track.soft - {key}
        if found is None:
            if act.value != DONTCARE and not self._harmless(track, act):
                track.note(Cause.USER, "invention", f"{act.domain} {act.slot} = {act.value}")
            return
        component, want = found
        now = track.state[component.id]
        accepted = {want.value} if want.condition in (None, "no_match") else {want.value, want.otherwise}
        if want.value == "no" and want.slot in ("internet", "parking"):
            # "I don't need wifi" is as good as asking for none.
            accepted.add(DONTCARE)
        if want.condition == "no_match" and act.value == want.otherwise:
            if not now.switched and want.value in said and self._hopeless(track, index):
                # Ahead of the agent's refusal, but rightly so.
                track.state.move(component.id, switched=True)
                now = track.state[component.id]
            if now.switched:
                accepted.add(want.otherwise)
        if act.value in accepted:
            if component.category is Category.PREFERENCE:
                track.state.move(component.id, status=Status.ALIGNED)
            elif now.status is Status.INCOMPLETE:
                track.state.move(component.id, status=Status.ATTEMPTED)
            return
        # A wish may be dropped once it was expressed; a hard condition may not.
        if component.category is Category.PREFERENCE and (now.status is Status.ALIGNED or act.value == DONTCARE):
            return
        self._contradicted(track, component, want, act.value)

    @staticmethod
    def _harmless(track: _Draft, act: UserAct) -> bool:
        """Whether a value that the goal does not ask for is no invention: the name on offer, a fact of the profile."""
        if act.slot == "name":
            return act.value == track.offered.get(act.domain or "")
        # Another number than the profile has is held against the profile.
        return act.slot == "people" and any(fact.kind == "party_size" for fact in track.goal.profile)

    @staticmethod
    def _contradicted(track: _Draft, component: Component, want: Want, value: str) -> None:
        track.note(Cause.USER, "contradiction", f"{want.slot}: said {value}, the goal has {want.value}")
        track.state.move(component.id, cause=Cause.USER)

    def see(self, before: Tracked, *acts: AgentAct) -> Tracked:
        """Update from what the agent did and claimed in one turn."""
        track, told = _Draft(before), False
        for act in acts:
            track.named = track.named | set(act.claims) | ({act.slot} if act.slot else set())
            index = _objective(track.goal, act.domain)
            if act.domain is not None and index is not None:
                if act.kind == "no_offer":
                    told = True
                    self._refused(track, index, act.domain)
                elif act.kind in ("offer", "offer_next", "inform_requested", "book"):
                    told = True
                    self._spoke_of(track, act.domain, act)
        track.last_act = acts[-1] if acts else None
        if told:
            self._settle(track, {act.domain for act in acts})
        after = track.done()
        if not any(self._moved(before, after, act) for act in acts):
            asked_again = any(
                act.kind == "request" and (act.domain or "", act.slot or "") in before.stated for act in acts
            )
            caught = len(after.faults) > len(before.faults)
            # Where the user itself wasted its turn and waits for nothing, an idle turn of the agent is no fault.
            if before.news or asked_again or caught or self._owes(after):
                return replace(after, stalled=after.stalled + 1)
        return after

    def _owes(self, track: Tracked) -> bool:
        """Whether the user did its part for something and now waits for the agent."""
        states = track.state.states
        for objective, (head, *rest) in zip(track.goal.objectives, track.goal.due, strict=True):
            if objective.domain in track.blocked:
                continue
            waits, told = False, True
            for k in rest:
                now = states[k]
                waits = waits or _waits(now)
                told = told and (now.status is not Status.INCOMPLETE or now.user_fault)
            if (waits or (told and _waits(states[head]))) and not any(
                self._unspoken_switch(track, track.goal.components[k], objective.domain) for k in rest
            ):
                return True
        return False

    def _hopeless(self, track: _Draft, index: int) -> bool:
        """Whether nothing in the world meets the objective's requirements, the booking included."""
        found = self.world.search(track.goal.objectives[index].domain, _constraints(track, index))
        return not any(self._bookable(track, index, entity) for entity in found)

    def _moved(self, before: Tracked, after: Tracked, act: AgentAct) -> bool:
        """Whether an agent's act was worth its turn: something was served, it asked what the goal knows, or reported
        truly."""
        index = _objective(after.goal, act.domain)
        if after.state != before.state or after.refused != before.refused:
            return True
        if act.kind in ("offer", "offer_next") and act.domain is not None:
            entity = self.world.find(act.domain, act.entity) if act.entity else None
            fresh = after.offered.get(act.domain) != before.offered.get(act.domain)
            return entity is not None and fresh and _matches(self.world, entity, self._insisted(before, act.domain))
        if act.kind == "inform_requested" and after.told != before.told:
            return True
        if act.kind in ("no_offer", "book") and index is not None and len(after.faults) == len(before.faults):
            # A true report, on what was said since the one before, or on another booking.
            return before.news if act.kind == "no_offer" else act != before.last_act
        if act.kind == "request" and index is not None and act.domain is not None:
            known = any(want.slot == act.slot for _, want in after.goal.wants[index])
            return known and (act.domain, act.slot or "") not in before.stated
        return act.kind == "req_more" and all(
            s.served or s.user_fault for c, s in after.state.items() if c.objective is not None
        )

    def _refused(self, track: _Draft, index: int, domain: str) -> None:
        said = {
            slot: values[-1] for (d, slot), values in track.stated.items() if d == domain and slot in INFORMABLE[domain]
        }
        hard = {slot: value for slot, value in said.items() if (domain, slot) not in track.soft}
        if self._left(track, domain, said):
            track.note(Cause.AGENT, "false_no_offer", f"{domain}: there are matches for {said}")
            track.deceived |= {domain}
            self._blame(track, index, Cause.AGENT)
            return
        if self._left(track, domain, hard):
            return
        if not self._hopeless(track, index):
            track.blocked |= {domain}
            return
        track.refused |= {domain}
        switches = [
            c
            for c, w in track.goal.wants[index]
            if w.condition == "no_match" and not is_booking_slot(domain, w.slot) and not track.state[c.id].switched
        ]
        for component in switches:
            track.state.move(component.id, switched=True)
        if not switches:
            self._give_up(track, index)

    def _left(self, track: _Draft, domain: str, said: Mapping[str, str]) -> bool:
        """Whether anything matches what the user said, the booking included once all its details were said."""
        details = {slot: track.stated[domain, slot][-1] for slot in BOOKABLE[domain] if (domain, slot) in track.stated}
        if not details or len(details) < len(BOOKABLE[domain]) or DONTCARE in details.values():
            return self.world.has(domain, said)
        return any(self.world.unavailable(entity, details) is None for entity in self.world.search(domain, said))

    @staticmethod
    def _give_up(track: _Draft, index: int) -> None:
        """The world has no such thing and the agent said so: what is left of the objective counts as done."""
        for part in track.goal.parts[index]:
            now = track.state[part.id]
            if now.served or now.user_fault:
                continue
            status = Status.ATTEMPTED if now.status is Status.INCOMPLETE else now.status
            track.state.move(part.id, status=status, cause=Cause.WORLD, served=True)

    @staticmethod
    def _blame(track: _Draft, index: int, cause: Cause) -> None:
        for part in track.goal.parts[index]:
            now = track.state[part.id]
            if now.status is Status.ATTEMPTED and not now.served and now.cause is None:
                track.state.move(part.id, cause=cause)

    def _spoke_of(self, track: _Draft, domain: str, act: AgentAct) -> None:
        entity = self.world.find(domain, act.entity) if act.entity else None
        if entity is None:
            track.note(Cause.AGENT, "no_such_entity", f"{domain} {act.entity!r} does not exist")
            track.deceived |= {domain}
            return
        if act.kind in ("offer", "offer_next"):
            track.offered = {**track.offered, domain: entity.name}
        for slot, value in act.claims.items():
            truth = self._reference(track, entity) if slot == "reference" else entity.attributes.get(slot)
            if slot == "reference" and value is None:
                continue
            if value == truth:
                track.told |= {(domain, entity.name, slot)}
            else:
                track.note(Cause.AGENT, "lie", f"{entity.name}: said {slot} is {value}, it is {truth}")
                track.deceived |= {domain}
        if act.kind == "book":
            self._booked(track, domain, entity, act)

    @staticmethod
    def _reference(track: _Draft, entity: Entity) -> str | None:
        name, _, reference = track.booked.get(entity.domain, ("", {}, ""))
        return reference if name == entity.name else None

    def _booked(self, track: _Draft, domain: str, entity: Entity, act: AgentAct) -> None:
        index = _objective(track.goal, domain)
        assert index is not None
        try:
            truth = self.world.book(entity, act.booking)
        except ValueError as error:
            track.note(Cause.AGENT, "wrong_booking", str(error))
            return
        if act.reference != truth.reference or (truth.failure is not None and act.failure is None):
            track.note(Cause.AGENT, "lie", f"{entity.name}: said the booking is {act.reference or act.failure}")
            track.deceived |= {domain}
            return
        track.offered = {**track.offered, domain: entity.name}
        if truth.failure is None:
            assert truth.reference is not None
            track.booked = {**track.booked, domain: (entity.name, dict(act.booking), truth.reference)}
            if not act.silent:
                track.told |= {(domain, entity.name, "reference")}
            if not self._right_booking(track, index) and self._as_said(track, domain, entity, act.booking):
                # The words of the user left out or changed what its goal has.
                track.blocked |= {domain}
            elif not self._right_booking(track, index):
                track.note(Cause.AGENT, "wrong_booking", f"{entity.name} {dict(act.booking)} is not what was asked for")
            return
        wanted = _booking_wants(track, index, entity)
        if any(act.booking.get(slot) != value for slot, value in wanted.items()):
            return
        track.refused |= {domain}
        if not self._hopeless(track, index):
            return
        switches = [
            c
            for c, w in track.goal.wants[index]
            if w.condition == "no_match" and is_booking_slot(domain, w.slot) and not track.state[c.id].switched
        ]
        for component in switches:
            track.state.move(component.id, switched=True)
        if not switches:
            self._give_up(track, index)

    def _bookable(self, track: _Draft, index: int, entity: Entity) -> bool:
        booking = _booking_wants(track, index, entity)
        if not booking or set(booking) != set(BOOKABLE[entity.domain]):
            return True
        return self.world.unavailable(entity, booking) is None

    @staticmethod
    def _insisted(track: Tracked | _Draft, domain: str) -> dict[str, str]:
        """The newest value of everything that the user asked for without hedging it."""
        return {
            slot: values[-1]
            for (d, slot), values in track.stated.items()
            if d == domain and slot in INFORMABLE[domain] and (domain, slot) not in track.soft
        }

    def _as_said(self, track: _Draft, domain: str, entity: Entity, booking: Mapping[str, str]) -> bool:
        """Whether a booking is what the user's newest words ask for."""
        newest = {slot: values[-1] for (d, slot), values in track.stated.items() if d == domain}
        fits = _matches(self.world, entity, self._insisted(track, domain))
        return fits and all(newest.get(slot) == booking.get(slot) for slot in booking)

    def _right_booking(self, track: _Draft, index: int) -> bool:
        domain = track.goal.objectives[index].domain
        if domain not in track.booked:
            return False
        name, details, _ = track.booked[domain]
        entity = self.world.find(domain, name)
        assert entity is not None
        wanted = _booking_wants(track, index, entity)
        return _matches(self.world, entity, _constraints(track, index)) and all(
            details.get(slot) == value and value in track.stated.get((domain, slot), ())
            for slot, value in wanted.items()
        )

    def _settle(self, track: _Draft, domains: Collection[str | None]) -> None:
        """Draw all conclusions about these domains from the evidence so far."""
        for index, objective in enumerate(track.goal.objectives):
            name = track.offered.get(objective.domain) if objective.domain in domains else None
            entity = self.world.find(objective.domain, name) if name else None
            if entity is not None:
                self._settle_objective(track, index, objective, entity)

    def _settle_objective(self, track: _Draft, index: int, objective: Objective, entity: Entity) -> None:
        if not self._unsettled(track, index):
            return
        domain = objective.domain
        everything = _constraints(track, index)
        stated = {slot: value for slot, value in everything.items() if value in track.stated.get((domain, slot), ())}
        if not _matches(self.world, entity, stated):
            return
        self._switch_details(track, index, entity)
        booked = self._right_booking(track, index)
        for part, now in zip(track.goal.parts[index], self._states(track, index), strict=True):
            if now.served or now.user_fault or part.category is not Category.REQUIREMENT:
                continue
            content = part.content
            if isinstance(content, Ask):
                done = (domain, entity.name, content.slot) in track.told
                missing = content.slot != "reference" and content.slot not in entity.attributes
                if done and missing:
                    track.state.move(part.id, status=Status.ATTEMPTED, cause=Cause.WORLD, served=True)
                elif done and (stated or not everything):
                    track.state.move(part.id, status=Status.COMPLETE, cause=None, served=True)
            elif isinstance(content, Want) and now.status is Status.ATTEMPTED:
                # A condition that may yet give way to its alternative is met only together with all the others.
                met = content.slot in stated and (content.condition != "no_match" or stated == everything)
                if booked if is_booking_slot(domain, content.slot) else met:
                    track.state.move(part.id, status=Status.COMPLETE, cause=None, served=True)
        complete = booked if objective.action == "book" else stated == everything
        head = track.goal.parts[index][0]
        now = track.state[head.id]
        if complete and stated == everything and now.status is Status.ATTEMPTED and not (now.served or now.user_fault):
            track.state.move(head.id, status=Status.COMPLETE, cause=None, served=True)
        if complete and stated == everything:
            self._settle_preferences(track, index, entity, everything)

    @staticmethod
    def _states(track: _Draft, index: int) -> list[ComponentState]:
        """The states of an objective's parts, itself first, as they are now."""
        head = track.goal.due[index][0]  # Its parts come right behind it.
        return track.state.states[head : head + len(track.goal.parts[index])]

    @staticmethod
    def _unsettled(track: _Draft, index: int) -> bool:
        """Whether there is anything about an objective on which a conclusion can still be drawn."""
        for now in VerifiableTracker._states(track, index):
            if not (now.served or now.user_fault):
                return True
        return any(want.condition not in (None, "no_match") for _, want in track.goal.wants[index])

    @staticmethod
    def _switch_details(track: _Draft, index: int, entity: Entity) -> None:
        """Mark which conditional details ("if it has parking") the user now knows to be in force."""
        for component, want in track.goal.wants[index]:
            if want.condition in (None, "no_match") or want.condition is None:
                continue
            slot, _, value = want.condition.partition("=")
            known = (entity.domain, entity.name, slot) in track.told
            switched = known and entity.attributes.get(slot) == value
            if switched != track.state[component.id].switched:
                track.state.move(component.id, switched=switched)

    def _settle_preferences(self, track: _Draft, index: int, entity: Entity, everything: Mapping[str, str]) -> None:
        for component, want in track.goal.wants[index]:
            now = track.state[component.id]
            if component.category is not Category.PREFERENCE or now.served or now.user_fault:
                continue
            if now.status is not Status.ALIGNED:
                continue
            wish = {**everything, want.slot: want.value}
            if is_booking_slot(entity.domain, want.slot):
                honoured = track.booked.get(entity.domain, ("", {}, ""))[1].get(want.slot) == want.value
            else:
                honoured = _matches(self.world, entity, wish)
            if honoured:
                track.state.move(component.id, cause=None, served=True)
            elif not any(self._bookable(track, index, other) for other in self.world.search(entity.domain, wish)):
                track.state.move(component.id, cause=Cause.WORLD, served=True)
            else:
                track.state.move(component.id, cause=Cause.AGENT)

    def judged(self, before: Tracked, state: GoalState) -> Tracked:
        """Take over a state in which a judge moved the goal's parts in plain words."""
        served, track = 0, _Draft(before)
        for change in state.changes(before.state, before.turn):
            component = track.goal.components[track.goal.positions[change.component]]
            served += change.after.served
            if change.after.status is Status.MISALIGNED:
                track.note(Cause.USER, component.category.value, component.text)
        # What the agent's words were worth is only known now.
        track.stalled = max(0, track.stalled - served)
        return replace(track.done(), state=state)

    def finish(self, before: Tracked, ending: str) -> Tracked:
        """Say of every component that is still open who it is stuck on, now that the conversation is over.

        Parameters
        ----------
        ending
            One of `ENDINGS`. A model error blames nobody.

        Raises
        ------
        ValueError
            If `ending` is unknown.
        """
        if ending not in ENDINGS:
            raise ValueError(f"ending must be one of {', '.join(ENDINGS)}, got {ending!r}")
        if ending == "model_error":
            return before
        track = _Draft(before)
        left_early = dawdled = False
        for component, now in track.state.items():
            if component.objective is None or now.served or now.user_fault or now.cause is Cause.AGENT:
                continue
            cause = self._blamed(track, component, now.status, ending)
            left_early = left_early or (cause is Cause.USER and ending == "user_ended")
            dawdled = dawdled or (cause is Cause.USER and ending == "turn_limit")
            track.state.move(component.id, cause=cause)
        if left_early:
            track.note(Cause.USER, "wrongful_ending", "the user ended the conversation with components open")
        if dawdled:
            track.note(Cause.USER, "dawdled", "the turns ran out before the user had done its part")
        if ending == "agent_ended" and any(s.cause is Cause.AGENT for s in track.state.states):
            track.note(Cause.AGENT, "left", "the agent ended the conversation with components open")
        elif track.stalled >= PATIENCE and any(s.cause is Cause.AGENT for s in track.state.states):
            track.note(Cause.AGENT, "stalled", f"{track.stalled} of the agent's turns moved nothing")
        return track.done()

    def _blamed(self, track: _Draft, component: Component, status: Status, ending: str) -> Cause:
        assert component.objective is not None
        domain = track.goal.objectives[component.objective].domain
        stalled = track.stalled >= PATIENCE
        if ending == "agent_ended":
            return Cause.AGENT
        if component.plain and status not in (Status.INCOMPLETE, Status.MISALIGNED):
            # Nobody can say whether a refusal in plain words was true, so it must not pay to refuse.
            return Cause.AGENT
        if status in (Status.INCOMPLETE, Status.MISALIGNED) or self._untold(track, component):
            if status is not Status.ATTEMPTED and self._never_asked(track, component):
                return Cause.AGENT
            kept_waiting = (ending == "turn_limit" and stalled) or (ending == "user_ended" and domain in track.deceived)
            return Cause.AGENT if kept_waiting else Cause.USER
        if domain in track.blocked or (not stalled and self._unspoken_switch(track, component, domain)):
            return Cause.USER
        if ending == "turn_limit":
            return Cause.AGENT
        return Cause.AGENT if stalled or domain in track.deceived else Cause.USER

    @staticmethod
    def _never_asked(track: _Draft, component: Component) -> bool:
        """Whether a rule forbids the user to tell this unless it is asked, and the agent never asked."""
        slot = getattr(component.content, "slot", None)
        withheld = {rule.value for rule in track.goal.policy if rule.kind == "withhold"}
        return isinstance(component.content, Want) and slot in withheld and slot not in track.named

    @staticmethod
    def _untold(track: _Draft, component: Component) -> bool:
        """Whether a task, or a detail of a booking, waits for something else that the user never said."""
        assert component.objective is not None
        domain = track.goal.objectives[component.objective].domain
        slot = getattr(component.content, "slot", None)
        booking = slot is not None and is_booking_slot(domain, slot)
        if component.category is not Category.OBJECTIVE and not booking:
            return False
        return any(
            track.state[part.id].status is Status.INCOMPLETE and part.category is Category.REQUIREMENT
            for part, want in track.goal.wants[component.objective]
            if not booking or is_booking_slot(domain, want.slot)
        )

    @staticmethod
    def _unspoken_switch(track: Tracked | _Draft, component: Component, domain: str) -> bool:
        want = component.content
        if not isinstance(want, Want) or not track.state[component.id].switched:
            return False
        return want.otherwise not in track.stated.get((domain, want.slot), ())
