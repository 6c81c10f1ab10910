"""How well a simulated user keeps to its goals: success per category over conversations with a reference clerk."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.goal import Category, UserGoal
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.clerks import clerk_act
from ugst_env.users.protocol import UserSimulator, ask


@dataclass(frozen=True)
class Alignment:
    """Goal alignment of a user over a set of conversations.

    Parameters
    ----------
    rates
        Success rate per category in [0, 1]: the mean over the conversations whose goal has the category.
    mean
        Mean of the rates over the five categories.
    agent_success
        Share of conversations in which the agent served all it can be held to.
    turns
        Mean number of user turns.
    outcomes, faults
        How conversations ended, and how often each kind of fault occurred, counted.
    """

    rates: dict[str, float]
    mean: float
    agent_success: float
    turns: float
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)


def converse(
    user: UserSimulator,
    goals: Sequence[UserGoal],
    tracker: VerifiableTracker,
    vocabulary: Vocabulary,
    *,
    clerks: dict[str, float] | None = None,
    steering: bool = True,
    seed: int = 0,
    max_turns: int = 10,
    batch: int = 64,
    reword: Callable[[AgentAct, random.Random], str | None] | None = None,
    on_finish: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Hold one conversation per goal, `batch` at a time, with a clerk drawn per turn from `clerks`.

    `reword` may put a clerk's act into other words than the usual ones (None keeps them).

    Returns
    -------
    list of Episode
        In the order of `goals`, all over.
    """
    steering = steering or bool(getattr(user, "needs_state", False))
    episodes = [
        Episode(
            goal,
            tracker,
            vocabulary,
            seed=seed * 100_003 + k,
            max_turns=max_turns,
            steering=steering,
            key=f"{id(user)}/{k}",
        )
        for k, goal in enumerate(goals)
    ]
    rngs = [random.Random(seed * 100_003 + k) for k in range(len(episodes))]
    waiting = list(range(len(episodes)))
    active: list[int] = []
    while waiting or active:
        while waiting and len(active) < batch:
            active.append(waiting.pop(0))
        replies = ask(user, [episodes[k].request() for k in active])
        going = []
        for k, reply in zip(active, replies, strict=True):
            episode = episodes[k]
            step = episode.hear(reply)
            if not step.over:
                act = clerk_act(
                    clerks or {"competent": 1.0},
                    episode.belief,
                    tracker.world,
                    rngs[k],
                    turn=episode.turn,
                    max_turns=max_turns,
                )
                step = episode.act(act, reword(act, rngs[k]) if reword is not None else None)
            if step.over:
                user.forget([episode.key])
                if on_finish is not None:
                    on_finish(episode)
            else:
                going.append(k)
        active = going
    return episodes


def alignment(episodes: Sequence[Episode]) -> Alignment:
    """Success rates of finished conversations.

    Raises
    ------
    ValueError
        Without a conversation.
    """
    if not episodes:
        raise ValueError("alignment needs at least one conversation, got none")
    held: dict[Category, list[float]] = {}
    faults: Counter[str] = Counter()
    for episode in episodes:
        for category, rate in episode.state.success_rates().items():
            held.setdefault(category, []).append(rate)
        faults.update(fault.mode for fault in episode.tracked.faults)
    rates = {category.value: sum(held[category]) / len(held[category]) for category in Category if category in held}
    return Alignment(
        rates=rates,
        mean=sum(rates.values()) / len(rates),
        agent_success=sum(episode.report()["success"] for episode in episodes) / len(episodes),
        turns=sum(episode.turn for episode in episodes) / len(episodes),
        outcomes=dict(Counter(episode.outcome or "" for episode in episodes)),
        faults=dict(faults),
    )
