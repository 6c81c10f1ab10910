"""Hand-made goals and a way to hold a conversation by hand, for the tests of what happens in one."""

from __future__ import annotations

import random
from typing import Any

from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode, Step
from ugst_env.envs.setup import vocabulary_of
from ugst_env.goal import Ask, ComponentState, Fact, GoalState, Objective, Rule, UserGoal, Want
from ugst_env.reward import RewardWeights
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.clerks import clerk_act
from ugst_env.users.protocol import UserReply, UserSimulator, ask
from ugst_env.world.database import World
from ugst_env.world.ontology import INFORMABLE

FACTS = (Fact("party_size", "2", "You are two."), Fact("home_town", "Ostermouth", "You live in Ostermouth."))
RULES = (Rule("never_say", "banana", "Never say 'banana'."),)

# "bangkok orchid" is the only Thai restaurant in the south of the shipped city.
THAI = Objective(
    "restaurant",
    "find",
    (Want("food", "thai", text="It must serve Thai food."), Want("area", "south"), Ask("phone")),
    text="Find a restaurant.",
)
TABLE = Objective(
    "restaurant",
    "book",
    (
        Want("food", "thai"),
        Want("area", "south"),
        Want("people", "2"),
        Want("day", "monday"),
        Want("time", "19:00"),
        Ask("phone"),
    ),
)
ZOO = Objective("attraction", "find", (Want("type", "zoo"), Ask("postcode")), (Want("area", "east"),))
FIND_THAI = UserGoal((THAI,), FACTS, RULES, id="find-thai")
BOOK_THAI = UserGoal((TABLE,), FACTS, RULES, id="book-thai")


def swap(objective: Objective, slot: str, new: Want) -> Objective:
    """The objective with another want for a slot."""
    changed = tuple(new if isinstance(part, Want) and part.slot == slot else part for part in objective.requirements)
    return Objective(objective.domain, objective.action, changed, objective.preferences, objective.text)


class Talk:
    """One conversation in which both sides say what the test tells them to."""

    def __init__(
        self, world: World, goal: UserGoal, *, max_turns: int = 10, weights: RewardWeights | None = None
    ) -> None:
        self.world = world
        self.vocabulary: Vocabulary = vocabulary_of(world)
        self.episode = Episode(
            goal, VerifiableTracker(world), self.vocabulary, seed=0, max_turns=max_turns, weights=weights
        )
        self.rewards: list[float] = []

    def user(self, text: str, *, end: bool = False) -> Step:
        return self._noted(self.episode.hear(UserReply(text, end=end)))

    def agent(self, act: AgentAct, text: str | None = None) -> Step:
        return self._noted(self.episode.act(act, text))

    def _noted(self, step: Step) -> Step:
        if step.terms:
            self.rewards.append(sum(step.terms.values()))
        return step

    def offer(self, domain: str, name: str, **claims: str | None) -> Step:
        """Offer an entity, with the truth about what can be searched, less what `claims` says otherwise."""
        entity = self.world.find(domain, name)
        assert entity is not None
        truth: dict[str, str | None] = {s: entity.attributes[s] for s in INFORMABLE[domain] if s in entity.attributes}
        return self.agent(AgentAct("offer", domain, entity=entity.name, claims={**truth, **claims}))

    def tell(self, domain: str, name: str, *slots: str, **claims: str | None) -> Step:
        """Answer questions: the truth about `slots`, and `claims` as they are."""
        entity = self.world.find(domain, name)
        assert entity is not None
        truth: dict[str, str | None] = {slot: entity.attributes.get(slot) for slot in slots}
        return self.agent(AgentAct("inform_requested", domain, entity=entity.name, claims={**truth, **claims}))

    def book(self, domain: str, name: str, booking: dict[str, str], **change: Any) -> Step:
        """Book, reporting what truly came of it, less what `change` says otherwise."""
        entity = self.world.find(domain, name)
        assert entity is not None
        result = self.world.book(entity, booking)
        fields = {"reference": result.reference, "failure": result.failure, **change}
        return self.agent(AgentAct("book", domain, entity=entity.name, booking=booking, **fields))

    @property
    def state(self) -> GoalState:
        return self.episode.state

    @property
    def modes(self) -> list[tuple[str, str]]:
        """Who did what wrong so far."""
        return [(fault.cause.value, fault.mode) for fault in self.episode.tracked.faults]

    def of(self, text: str) -> ComponentState:
        """The state of the component about a slot, or of "objective"."""
        for component, now in self.state.items():
            if component.id == text or getattr(component.content, "slot", None) == text:
                return now
        return self.state["objective.0"] if text == "objective" else self.state[text]


def play(
    world: World,
    user: UserSimulator,
    goal: UserGoal,
    *,
    seed: int,
    clerks: dict[str, float] | None = None,
    max_turns: int = 10,
) -> tuple[Episode, float]:
    """A whole conversation between a user simulator and clerks; the episode and its return."""
    episode = Episode(
        goal, VerifiableTracker(world), vocabulary_of(world), seed=seed, max_turns=max_turns, key=str(seed)
    )
    rng, total = random.Random(seed), 0.0
    step = episode.hear(ask(user, [episode.request()])[0])
    while not step.over:
        act = clerk_act(
            clerks or {"competent": 1.0}, episode.belief, world, rng, turn=episode.turn, max_turns=max_turns
        )
        step = episode.act(act)
        if not step.over:
            step = episode.hear(ask(user, [episode.request()])[0])
        total += sum(step.terms.values())
    return episode, total
