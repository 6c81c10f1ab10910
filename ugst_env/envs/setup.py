"""The arguments of `gym.make("UGST-v0", ...)` and `"UGSTText-v0"`, and what they are turned into: here, once."""

from __future__ import annotations

import random
import warnings
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
from ugst_env.goals.multiwoz import load_multiwoz_goals
from ugst_env.goals.tau import load_tau_goals
from ugst_env.reward import RewardWeights
from ugst_env.tracking.questions import Judge
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
        ``"challenge:train"``, ``"challenge:val"`` or ``"challenge:test"``; a YAML or JSON file; ``"tau:<file>"`` or
        ``"multiwoz:<file>"`` (the tasks of tau-bench, the goals of MultiWOZ); a goal or a sequence of goals; or a
        function from a `random.Random` to a goal. One is drawn at each reset, unless ``reset(options={"goal": ...})``
        names one: a `UserGoal`, or its index in the file, the sequence or the split.
    judge
        Who says how far the parts of a goal in plain words have come: ``"hf:<folder or hub name>"`` or the path of a
        ``.gguf`` file (its probabilities are compared), ``"openai:<model>"`` (it writes verdicts), or an object with
        ``judge`` and ``forget`` (`ugst_env.tracking.questions.Judge`). What a program can check, a program checks.
        Without a judge, facts and rules in plain words are shown to the user and not checked, and goals with tasks or
        wishes in plain words are refused.
    world
        ``"default"`` (the shipped city), a folder in the format of `World.load`, a `World`, or None: no tables and no
        tools, a conversation about a goal in plain words (UGSTText-v0 alone).
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
    judge: Judge | None
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
            goal = self.source(random.Random(int(rng.integers(2**63))))
            self._check_plain([goal])
            return goal
        if isinstance(wanted, UserGoal):
            check_domains([wanted], self.world)
            self._check_plain([wanted])
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

    def _check_plain(self, goals: Sequence[UserGoal]) -> None:
        """Refuse tasks and wishes in plain words where nobody can play or judge them."""
        for goal in goals:
            part = next((part for part in goal.plain if part.objective is not None), None)
            if part is None:
                continue
            named = f"goal {goal.id or '(no id)'} has parts in plain words ({part.text[:60]!r})"
            if self.judge is None:
                raise ValueError(f"{named}, which no program can check: name a judge ('hf:...', 'openai:...')")
            if not getattr(self.user, "plain_words", True):
                raise ValueError(f"{named}, which this user cannot play: name a chat model ('hf:...', 'openai:...')")


NO_WORLD = World("none", {})


def check_domains(goals: Sequence[UserGoal], world: World) -> None:
    """Refuse goals about a table that the world lacks.

    Raises
    ------
    ValueError
        Naming the goal, the domain, and the tables there are.
    """
    for goal in goals:
        for objective in goal.objectives:
            if objective.action != "do" and objective.domain not in world.domains:
                raise ValueError(
                    f"goal {goal.id or '(no id)'} needs a {objective.domain!r} table, "
                    f"but the world {world.name!r} has only {', '.join(world.domains) or 'no table at all'}"
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
        if not world.domains:
            raise ValueError(f"goals {goals!r} are about a world with tables, got none: name a world, or other goals")
        source = goal_source(goals, world)
        return source, tuple(getattr(source, "goals", ()))
    if isinstance(goals, str) and goals.startswith(("tau:", "multiwoz:")):
        kind, _, file = goals.partition(":")
        found, left_out = load_tau_goals(file) if kind == "tau" else load_multiwoz_goals(file, world)
        if left_out:
            reasons = "; ".join(str(each) for each in (left_out.items() if isinstance(left_out, dict) else left_out))
            warnings.warn(f"goals: {file} has some that were left out: {reasons[:500]}", stacklevel=2)
        return _listed(found, world)
    if isinstance(goals, (str, Path)):
        return _listed(load_goals(goals), world)
    if isinstance(goals, UserGoal):
        return _listed((goals,), world)
    if callable(goals):
        return goals, ()
    if isinstance(goals, Sequence) and not isinstance(goals, str) and all(isinstance(goal, UserGoal) for goal in goals):
        return _listed(tuple(goals), world)
    raise TypeError(
        "goals must be 'challenge:train|val|test', a file, 'tau:<file>', 'multiwoz:<file>', a UserGoal, a sequence of "
        f"them, or a function of a random.Random; got {type(goals).__name__}"
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
    judge: str | Judge | None = None,
    world: str | Path | World | None = "default",
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
    if world is not None and not isinstance(world, (str, Path, World)):
        raise TypeError(f"world must be 'default', a folder, a World or None, got {type(world).__name__}")
    the_world = NO_WORLD if world is None else world if isinstance(world, World) else _load_world(str(world))
    source, fixed = _resolve_goals(goals, the_world)
    vocabulary = vocabulary_of(the_world)
    the_user = load_user(user, the_world, vocabulary)
    setup = Setup(
        user=the_user,
        judge=None if judge is None else _load_judge(judge),
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
    setup._check_plain(fixed)
    return setup


def _load_judge(judge: str | Judge) -> Judge:
    from ugst_env.tracking.judge import load_judge

    return load_judge(judge)
