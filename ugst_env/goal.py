"""The user's goal as data, and its state as it is tracked turn by turn.

A goal is split into components of five categories (arXiv 2507.20152, section 3): profile, policy, task objective,
requirement and preference. This module is pure: it imports nothing else of the package.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any, NamedTuple


class Category(str, Enum):
    """The five kinds of goal component."""

    # Equal to its value, so it must hash like it; and faster than an enum's own.
    __hash__ = str.__hash__

    PROFILE = "profile"
    POLICY = "policy"
    OBJECTIVE = "objective"
    REQUIREMENT = "requirement"
    PREFERENCE = "preference"


class Status(str, Enum):
    """Where a component stands. Which of them a category uses is in `START` and `MOVES`."""

    # Equal to its value, so it must hash like it; and faster than an enum's own.
    __hash__ = str.__hash__

    INCOMPLETE = "INCOMPLETE"
    ATTEMPTED = "ATTEMPTED"
    COMPLETE = "COMPLETE"
    ALIGNED = "ALIGNED"
    MISALIGNED = "MISALIGNED"


class Cause(str, Enum):
    """Who a stuck component is stuck on: the agent, the world (no such entity), or the simulated user."""

    # Equal to its value, so it must hash like it; and faster than an enum's own.
    __hash__ = str.__hash__

    AGENT = "AGENT"
    WORLD = "WORLD"
    USER = "USER"


START = {
    Category.PROFILE: Status.ALIGNED,
    Category.POLICY: Status.ALIGNED,
    Category.OBJECTIVE: Status.INCOMPLETE,
    Category.REQUIREMENT: Status.INCOMPLETE,
    Category.PREFERENCE: Status.MISALIGNED,
}

_FORWARD = {
    (Status.INCOMPLETE, Status.ATTEMPTED),
    (Status.INCOMPLETE, Status.COMPLETE),
    (Status.ATTEMPTED, Status.COMPLETE),
}
MOVES = {
    Category.PROFILE: {(Status.ALIGNED, Status.MISALIGNED)},
    Category.POLICY: {(Status.ALIGNED, Status.MISALIGNED)},
    Category.OBJECTIVE: _FORWARD,
    Category.REQUIREMENT: _FORWARD,
    Category.PREFERENCE: {(Status.MISALIGNED, Status.ALIGNED)},
}

USER_SUCCESS = {Status.ALIGNED, Status.ATTEMPTED, Status.COMPLETE}


@dataclass(frozen=True)
class Fact:
    """One fact of the user's profile, such as ``Fact("party_size", "4", "You travel as a group of 4.")``."""

    kind: str
    value: str
    text: str


@dataclass(frozen=True)
class Rule:
    """One policy, a rule of language or behaviour: ``Rule("max_words", "12", "Never use more than 12 words.")``."""

    kind: str
    value: str
    text: str


@dataclass(frozen=True)
class Want:
    """A slot value that the user wants, as a requirement or a preference.

    Parameters
    ----------
    slot, value
        What is wanted, in the terms of the world's ontology.
    otherwise
        The value that takes the place of `value` when `condition` holds (a conditional goal).
    condition
        ``"no_match"`` (nothing in the world fits, and the agent said so) or ``"slot=value"`` (the entity that is to be
        booked has that attribute). None exactly when `otherwise` is None.
    text
        The component in plain words.
    """

    slot: str
    value: str
    otherwise: str | None = None
    condition: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Ask:
    """Something that the user wants to find out about the entity they end up with."""

    slot: str
    text: str = ""


@dataclass(frozen=True)
class Need:
    """A requirement or a preference in plain words. No program can check it: a language model judges it."""

    text: str


@dataclass(frozen=True)
class Objective:
    """One task.

    With ``action="find"`` or ``"book"``: find an entity of `domain`, and book it. With ``action="do"``: what `text`
    says in plain words; it has no domain, and its requirements and preferences are `Need`.
    """

    domain: str
    action: str
    requirements: tuple[Want | Ask | Need, ...] = ()
    preferences: tuple[Want | Need, ...] = ()
    text: str = ""


class Component(NamedTuple):
    """One tracked part of a goal; `objective` is the index of its objective, None for profile and policy."""

    id: str
    category: Category
    content: Fact | Rule | Objective | Want | Ask | Need
    objective: int | None = None

    @property
    def text(self) -> str:
        return self.content.text

    @property
    def plain(self) -> bool:
        """Whether it stands in plain words that no program can check, so that a judge has to."""
        content = self.content
        if isinstance(content, (Fact, Rule)):
            return content.kind == "text"
        return isinstance(content, Need) or (isinstance(content, Objective) and content.action == "do")


@dataclass(frozen=True)
class UserGoal:
    """What a simulated user is to be, to do and to want.

    Raises
    ------
    ValueError
        Without an objective, with two objectives of one domain, or with an objective that asks for nothing.
    """

    objectives: tuple[Objective, ...]
    profile: tuple[Fact, ...] = ()
    policy: tuple[Rule, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ValueError("a goal needs at least one objective, got an empty list")
        domains = [objective.domain for objective in self.objectives if objective.action != "do"]
        for domain in domains:
            if domains.count(domain) > 1:
                raise ValueError(
                    f"a goal has at most one objective per domain, got {domains.count(domain)} for {domain!r}"
                )
        for index, objective in enumerate(self.objectives):
            if objective.action == "do":
                _check_plain(index, objective)
                continue
            if objective.action not in ("find", "book"):
                raise ValueError(f"objectives[{index}].action must be 'find', 'book' or 'do', got {objective.action!r}")
            if not objective.requirements and not objective.preferences:
                raise ValueError(f"objectives[{index}] ({objective.domain}) has neither requirements nor preferences")

    @cached_property
    def _hash(self) -> int:
        return hash((self.objectives, self.profile, self.policy, self.id))

    def __hash__(self) -> int:
        # What is worked out once per goal is looked up by it several times a turn.
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        # Strings hash otherwise in another process.
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    @cached_property
    def manner(self) -> tuple[Component, ...]:
        """The components that every message is held against: profile and policy."""
        facts = [Component(f"profile.{i}", Category.PROFILE, fact) for i, fact in enumerate(self.profile)]
        rules = [Component(f"policy.{i}", Category.POLICY, rule) for i, rule in enumerate(self.policy)]
        return (*facts, *rules)

    @cached_property
    def parts(self) -> tuple[tuple[Component, ...], ...]:
        """The components of each objective, itself first, then its requirements and preferences."""
        found = []
        for i, objective in enumerate(self.objectives):
            name = f"objective.{i}"
            parts = [Component(name, Category.OBJECTIVE, objective, i)]
            for j, requirement in enumerate(objective.requirements):
                parts.append(Component(f"{name}.requirement.{j}", Category.REQUIREMENT, requirement, i))
            for j, preference in enumerate(objective.preferences):
                parts.append(Component(f"{name}.preference.{j}", Category.PREFERENCE, preference, i))
            found.append(tuple(parts))
        return tuple(found)

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """All components in a fixed order: `manner` (profile, then policy), then the `parts` of each objective."""
        return tuple(itertools.chain(self.manner, *self.parts))

    @cached_property
    def wants(self) -> tuple[tuple[tuple[Component, Want], ...], ...]:
        """What each objective is to be searched or booked by, with its component."""
        return tuple([tuple([(c, c.content) for c in parts if isinstance(c.content, Want)]) for parts in self.parts])

    @cached_property
    def due(self) -> tuple[tuple[int, ...], ...]:
        """The positions of each objective, itself first, and of its requirements."""
        return tuple(
            [
                tuple([self.positions[c.id] for c in parts if c.category is not Category.PREFERENCE])
                for parts in self.parts
            ]
        )

    @cached_property
    def start(self) -> tuple[ComponentState, ...]:
        """Every component at its category's start value."""
        return tuple([_shared(START[c.category], None, False, False) for c in self.components])

    @cached_property
    def plain(self) -> tuple[Component, ...]:
        """The components in plain words, which no program can check."""
        return tuple([component for component in self.components if component.plain])

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where each component stands in `components`, by its id."""
        return {component.id: k for k, component in enumerate(self.components)}

    def position(self, component: str) -> int:
        """Where a component stands in `components`.

        Raises
        ------
        KeyError
            If the goal has no such component.
        """
        try:
            return self.positions[component]
        except KeyError:
            raise KeyError(f"no component {component!r}; this goal has {', '.join(self.positions)}") from None


def _check_plain(index: int, objective: Objective) -> None:
    if not objective.text.strip():
        raise ValueError(f"objectives[{index}] is in plain words (action 'do'), but its text is empty")
    if objective.domain:
        raise ValueError(
            f"objectives[{index}] is in plain words (action 'do') and has no domain, got {objective.domain!r}"
        )
    for part in (*objective.requirements, *objective.preferences):
        if not isinstance(part, Need):
            raise ValueError(
                f"objectives[{index}] is in plain words (action 'do'), so its parts must be Need, "
                f"got {type(part).__name__}"
            )


@dataclass(frozen=True)
class ComponentState:
    """Where one component stands.

    `cause` says who it is stuck on (None while nothing is wrong). `served` says that the agent's part is done:
    the component is complete, a preference was honoured, or the world has no such thing and the agent said so.
    `switched` says that a conditional component's condition came true: its `otherwise` value is in force.
    """

    status: Status
    cause: Cause | None = None
    served: bool = False
    switched: bool = False

    @cached_property
    def user_fault(self) -> bool:
        """Whether the component is out of the agent's hands because the simulated user broke it."""
        return self.cause is Cause.USER and not self.served


# There are few, and every turn of every conversation has a dozen.
_shared = lru_cache(maxsize=None)(ComponentState)
_AS_IT_IS: Any = object()


@dataclass(frozen=True)
class Transition:
    """One component's change in one turn."""

    turn: int
    component: str
    before: ComponentState
    after: ComponentState


@dataclass(frozen=True)
class GoalState:
    """The goal with the state of every component (S_i), ``states[k]`` belonging to ``goal.components[k]``."""

    goal: UserGoal
    states: tuple[ComponentState, ...]

    @classmethod
    def start(cls, goal: UserGoal) -> GoalState:
        """S_0: every component at its category's start value."""
        return cls(goal, goal.start)

    def __getitem__(self, component: str) -> ComponentState:
        return self.states[self.goal.position(component)]

    def items(self) -> Iterator[tuple[Component, ComponentState]]:
        return zip(self.goal.components, self.states, strict=True)

    def move(self, component: str, **change: Any) -> GoalState:
        """Return the state after `component` changed (`status`, `cause`, `served`, `switched`).

        Moves are one way (`MOVES`), ``cause=USER`` and ``served=True`` are final.

        Raises
        ------
        ValueError
            If the category does not allow the move.
        """
        draft = StateDraft(self)
        draft.move(component, **change)
        return draft.done()

    def changes(self, before: GoalState, turn: int) -> tuple[Transition, ...]:
        """The transitions that lead from `before` to this state, in component order."""
        if self.states is before.states:
            return ()
        return tuple(
            Transition(turn, component.id, old, new)
            for component, old, new in zip(self.goal.components, before.states, self.states, strict=True)
            if old is not new and old != new
        )

    def holds(self, component: Component, state: ComponentState) -> bool:
        """Whether the *user* did their part for a component: its status is a success, free of a fault of the user.

        Where the world has no such thing, nothing was left for the user to do.
        """
        return state.cause is Cause.WORLD or (state.status in USER_SUCCESS and state.cause is not Cause.USER)

    def success_rates(self) -> dict[Category, float]:
        """The user's success rate per category in [0, 1], for the categories that the goal has."""
        held: dict[Category, list[bool]] = {}
        for component, state in self.items():
            held.setdefault(component.category, []).append(self.holds(component, state))
        return {category: sum(values) / len(values) for category, values in held.items()}

    def to_json(self) -> list[dict[str, Any]]:
        """One JSON-able record per component."""
        return [
            {
                "id": component.id,
                "category": component.category.value,
                "text": component.text,
                "status": state.status.value,
                "cause": state.cause.value if state.cause else None,
                "served": state.served,
                "switched": state.switched,
            }
            for component, state in self.items()
        ]


class StateDraft:
    """A goal state while a turn is worked into it: `move` changes it in place, `done` is the `GoalState` that results.

    Parameters
    ----------
    before
        What to start from; it stays as it is.
    """

    def __init__(self, before: GoalState) -> None:
        self.goal = before.goal
        self.states = list(before.states)
        self._before = before
        self._positions = before.goal.positions

    def __getitem__(self, component: str) -> ComponentState:
        return self.states[self._positions[component]]

    def items(self) -> Iterator[tuple[Component, ComponentState]]:
        return zip(self.goal.components, self.states, strict=True)

    def move(
        self,
        component: str,
        *,
        status: Status | None = None,
        cause: Cause | Any | None = _AS_IT_IS,
        served: bool | None = None,
        switched: bool | None = None,
    ) -> None:
        """See `GoalState.move`."""
        k = self.goal.position(component)
        known, before = self.goal.components[k], self.states[k]
        after = _shared(
            before.status if status is None else status,
            before.cause if cause is _AS_IT_IS else cause,
            before.served if served is None else served,
            before.switched if switched is None else switched,
        )
        if after.status is not before.status and (before.status, after.status) not in MOVES[known.category]:
            raise ValueError(
                f"{component} ({known.category.value}) cannot move from {before.status.value} to {after.status.value}"
            )
        if (before.cause is Cause.USER and after.cause is not Cause.USER) or (before.served and not after.served):
            raise ValueError(f"{component}: a fault of the user and a served component are final, got {after}")
        self.states[k] = after

    def done(self) -> GoalState:
        states = tuple(self.states)
        return self._before if states == self._before.states else GoalState(self.goal, states)
