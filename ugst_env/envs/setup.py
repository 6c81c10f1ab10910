"""The arguments of `gym.make("UGST-v0", ...)` and `"UGSTText-v0"`, and what they are turned into: here, once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.goal import UserGoal
from ugst_env.goals.files import load_goals
from ugst_env.goals.generator import goal_source
from ugst_env.reward import RewardWeights
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.users.loading import load_user
from ugst_env.users.protocol import UserSimulator
from ugst_env.world.database import World

GoalSource = Callable[[random.Random], UserGoal]
GoalsArgument = str | Path | UserGoal | Sequence[UserGoal] | GoalSource


@dataclass(frozen=True)
class Setup:
    """Everything that the episodes of one environment share.

    Parameters
    ----------
    user
        The simulated user: ``"ugst-tiny"`` (the shipped language model), ``"scripted"`` (an agenda), ``"hf:<folder or
        hub name>"`` (any Hugging Face chat model), the path of a ``.gguf`` file, ``"openai:<model>"`` (a server, which
        ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` of the environment name; `ugst_env.users.served.ServedUser` takes
        them as arguments), or an object with ``reply`` and ``forget`` (`ugst_env.users.protocol.UserSimulator`).
    goals
        ``"challenge:train"``, ``"challenge:val"`` or ``"challenge:test"``; a YAML or JSON file; a goal or a sequence of
        goals; or a function from a `random.Random` to a goal. One is drawn at each reset, unless
        ``reset(options={"goal": ...})`` names one: a `UserGoal`, or its index in the file, the sequence or the split.
    world
        ``"default"`` (the shipped city), a folder in the format of `World.load`, or a `World`.
    steering
        Whether a language-model user is shown the tracked goal state before each reply.
    reward
        `RewardWeights`; None for the defaults.
    max_turns
        Limit of user-agent turns of a conversation, at least 1.
    privileged
        Whether `info` also holds ``goal_state`` and ``transitions``. They give the hidden goal away.
    """

    user: UserSimulator
    source: GoalSource
    fixed: tuple[UserGoal, ...]
    world: World
    vocabulary: Vocabulary
    tracker: VerifiableTracker
    weights: RewardWeights
    steering: bool
    max_turns: int
    privileged: bool

    def choose_goal(self, rng: np.random.Generator, wanted: Any) -> UserGoal:
        """The goal of the next episode: the one that was asked for, else a draw."""
        if wanted is None:
            return self.source(random.Random(int(rng.integers(2**63))))
        if isinstance(wanted, UserGoal):
            check_domains([wanted], self.world)
            return wanted
        if isinstance(wanted, (int, np.integer)):
            if not self.fixed:
                raise ValueError(
                    f"options['goal'] = {wanted} is an index, but these goals are drawn by a function; give a UserGoal"
                )
            if not 0 <= wanted < len(self.fixed):
                raise ValueError(f"options['goal'] must be in 0..{len(self.fixed) - 1}, got {wanted}")
            return self.fixed[int(wanted)]
        raise TypeError(f"options['goal'] must be a UserGoal or an index, got {type(wanted).__name__}")


def check_domains(goals: Sequence[UserGoal], world: World) -> None:
    """Refuse goals about a table that the world lacks.

    Raises
    ------
    ValueError
        Naming the goal, the domain, and the tables there are.
    """
    for goal in goals:
        for objective in goal.objectives:
            if objective.domain not in world.domains:
                raise ValueError(
                    f"goal {goal.id or '(no id)'} needs a {objective.domain!r} table, "
                    f"but the world {world.name!r} has only {', '.join(world.domains)}"
                )


@lru_cache(maxsize=8)
def _load_world(name: str) -> World:
    return World.load(name)


@lru_cache(maxsize=8)
def vocabulary_of(world: World) -> Vocabulary:
    """The vocabulary of a world; those of the newest worlds are kept."""
    return Vocabulary.from_world(world)


def _resolve_goals(goals: GoalsArgument, world: World) -> tuple[GoalSource, tuple[UserGoal, ...]]:
    if isinstance(goals, str) and goals.startswith("challenge:"):
        source = goal_source(goals, world)
        return source, tuple(getattr(source, "goals", ()))
    if isinstance(goals, (str, Path)):
        return _listed(load_goals(goals), world)
    if isinstance(goals, UserGoal):
        return _listed((goals,), world)
    if callable(goals):
        return goals, ()
    if isinstance(goals, Sequence) and not isinstance(goals, str) and all(isinstance(goal, UserGoal) for goal in goals):
        return _listed(tuple(goals), world)
    raise TypeError(
        "goals must be 'challenge:train|val|test', a file, a UserGoal, a sequence of them, "
        f"or a function of a random.Random; got {type(goals).__name__}"
    )


def _listed(goals: Sequence[UserGoal], world: World) -> tuple[GoalSource, tuple[UserGoal, ...]]:
    if not goals:
        raise ValueError("goals must hold at least one goal, got an empty sequence")
    check_domains(goals, world)
    fixed = tuple(goals)
    return (lambda rng: fixed[rng.randrange(len(fixed))]), fixed


def make_setup(
    *,
    user: str | Path | UserSimulator = "ugst-tiny",
    goals: GoalsArgument = "challenge:train",
    world: str | Path | World = "default",
    steering: bool = True,
    reward: RewardWeights | None = None,
    max_turns: int = 10,
    privileged: bool = False,
) -> Setup:
    """Check the arguments (see `Setup`) and load what they name.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        Saying which argument, what was given, and what is accepted.
    """
    if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
        raise ValueError(f"max_turns must be a whole number >= 1, got {max_turns!r}")
    if reward is not None and not isinstance(reward, RewardWeights):
        raise TypeError(f"reward must be a RewardWeights or None, got {type(reward).__name__}")
    if not isinstance(world, (str, Path, World)):
        raise TypeError(f"world must be 'default', a folder or a World, got {type(world).__name__}")
    the_world = world if isinstance(world, World) else _load_world(str(world))
    source, fixed = _resolve_goals(goals, the_world)
    vocabulary = vocabulary_of(the_world)
    the_user = load_user(user, the_world, vocabulary)
    return Setup(
        user=the_user,
        source=source,
        fixed=fixed,
        world=the_world,
        vocabulary=vocabulary,
        tracker=VerifiableTracker(the_world),
        weights=reward if reward is not None else RewardWeights(),
        steering=steering or bool(getattr(the_user, "needs_state", False)),
        max_turns=max_turns,
        privileged=privileged,
    )
