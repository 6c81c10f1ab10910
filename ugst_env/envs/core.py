"""What all faces of the environment share: conversation slots, and the single environment around one.

A face is a `DialogueCore` that says what an action is, what is observed, and what else `info` tells. `DialogueEnv`
drives one of them, `ugst_env.envs.vector.DialogueVectorEnv` many, and asks the user for all of them at once.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces

from ugst_env.envs.episode import Episode, Step
from ugst_env.envs.render import render_text
from ugst_env.envs.setup import Setup, make_setup
from ugst_env.goal import GoalState
from ugst_env.tracking.questions import Verdict, ask_judge
from ugst_env.users.protocol import UserReply, UserRequest, ask

_episode_numbers = itertools.count()

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")


class DialogueCore(Generic[ObsType, ActType]):
    """One conversation slot: it turns actions into acts, episodes into observations and infos, and calls no model.

    `nothing` is what is observed where there is no conversation yet.
    """

    observation_space: ClassVar[spaces.Space[Any]]
    action_space: ClassVar[spaces.Space[Any]]
    nothing: ClassVar[Any]

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.episode: Episode | None = None
        self._unopened: Step | None = None

    def begin(self, rng: np.random.Generator, options: dict[str, Any] | None) -> UserRequest:
        """Begin an episode; return what the user is to be asked for its opening."""
        unknown = set(options or ()) - {"goal"}
        if unknown:
            raise ValueError(f"unknown reset option {', '.join(sorted(map(repr, unknown)))}; accepted: 'goal'")
        self.leave()
        goal = self.setup.choose_goal(rng, (options or {}).get("goal"))
        self.episode = Episode(
            goal,
            self.setup.tracker,
            self.setup.vocabulary,
            seed=int(rng.integers(2**63)),
            weights=self.setup.weights,
            max_turns=self.setup.max_turns,
            steering=self.setup.steering,
            judged=self.setup.judge is not None,
            key=f"{os.getpid()}-{next(_episode_numbers)}",
        )
        self._unopened = None
        return self.episode.request()

    def act(self, action: ActType) -> Step:
        """Carry an action out. Where `waits_for_user` then, ask the user `request` and give its reply to `hear`."""
        episode = self._alive()
        self.check(action)
        if self._unopened is not None:
            step, self._unopened = self._unopened, None
            return step
        return self.carry_out(action, episode)

    def check(self, action: ActType) -> None:
        """Refuse what is no action.

        Raises
        ------
        ValueError
            Saying what an action is.
        """
        raise NotImplementedError

    def carry_out(self, action: ActType, episode: Episode) -> Step:
        """Carry out an action that was checked."""
        raise NotImplementedError

    def view(self) -> tuple[ObsType, dict[str, Any]]:
        """The observation as things stand, and what `info` tells besides."""
        raise NotImplementedError

    @property
    def waits_for_user(self) -> bool:
        """Whether the user speaks next."""
        return self.episode is not None and self.episode.waiting_for == "user"

    def request(self) -> UserRequest:
        """What the user is to be asked."""
        assert self.episode is not None
        return self.episode.request()

    def hear(self, reply: UserReply) -> Step:
        """Take the user's reply."""
        assert self.episode is not None
        opening = self.episode.turn == 0
        return self._after(self.episode.hear(reply), opening=opening)

    @property
    def waits_for_judge(self) -> bool:
        """Whether a judge has something to say first."""
        return self.episode is not None and self.episode.waiting_for == "judge"

    def judged(self, verdicts: Sequence[Verdict]) -> Step:
        """Take the judge's verdicts."""
        assert self.episode is not None
        opening = len(self.episode.conversation.turns) == 1 and self.episode.conversation.turns[0].agent is None
        return self._after(self.episode.judged(verdicts), opening=opening)

    def _after(self, step: Step, *, opening: bool) -> Step:
        # A reset cannot be truncated or terminated: what its opening led to is told by the first step.
        if opening and step.over:
            self._unopened = step
            return Step()
        return step

    def _alive(self) -> Episode:
        if self.episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        if self.episode.waiting_for is None and self._unopened is None:
            raise gymnasium.error.ResetNeeded("this episode is over: call reset() before the next step()")
        return self.episode

    def shown(self) -> Episode:
        """The conversation to look at.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If there is none.
        """
        if self.episode is None:
            raise gymnasium.error.ResetNeeded("call reset() first: there is no conversation")
        return self.episode

    def info(self, step: Step, more: dict[str, Any]) -> dict[str, Any]:
        """The info dict, `more` among it; the hidden goal is in it only where `privileged` asks for it."""
        episode = self.shown()
        turns = episode.conversation.turns
        ended_by_agent = bool(turns) and turns[-1].agent is not None
        spoken = turns[-1] if ended_by_agent else (turns[-2] if len(turns) > 1 else None)
        info: dict[str, Any] = {
            **more,
            "user_text": "" if ended_by_agent or not turns else turns[-1].user,
            "agent_text": (spoken.agent or "") if spoken else "",
            "reward_terms": dict(step.terms),
        }
        if step.over:
            info.update(outcome=step.outcome, **episode.report())
            if step.error is not None:
                info["error"] = step.error
        if self.setup.privileged:
            info["goal_state"] = episode.state.to_json()
            info["transitions"] = [
                {
                    "turn": t.turn,
                    "component": t.component,
                    "from": t.before.status.value,
                    "to": t.after.status.value,
                    "cause": t.after.cause.value if t.after.cause else None,
                    "served": t.after.served,
                }
                for t in step.transitions
            ]
        return info

    def leave(self) -> None:
        """Let go of the current episode, finished or not."""
        if self.episode is not None:
            for model in (self.setup.user, self.setup.judge):
                forget = getattr(model, "forget", None)
                if forget is not None:
                    forget([self.episode.key])
            self.episode = None


class DialogueEnv(gymnasium.Env[ObsType, ActType]):
    """The single environment around a `DialogueCore`, the class attribute `core_type`.

    Parameters
    ----------
    render_mode
        ``"ansi"`` (`render()` returns text), ``"human"`` (each step is printed) or None.
    **arguments
        See `ugst_env.envs.setup.Setup`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 1}  # noqa: RUF012 (as in gymnasium.Env)
    core_type: type[DialogueCore[Any, Any]]

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'ansi' or 'human', got {render_mode!r}")
        self.render_mode = render_mode
        self.core = self.core_type(make_setup(**arguments))
        self.observation_space = self.core.observation_space
        self.action_space = self.core.action_space

    @property
    def goal_state(self) -> GoalState:
        """The tracked goal state, for people to look at. Agents never see it."""
        if self.core.episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before looking at goal_state")
        return self.core.episode.state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Begin a conversation; ``options={"goal": UserGoal or index}`` names its goal.

        A reset cannot be truncated: where the user model fails on its opening, the first `step` reports it.
        """
        super().reset(seed=seed)
        step = open_episodes([self.core], [self.np_random], [options])[0]
        observation, more = self.core.view()
        if self.render_mode == "human":
            self.render()
        return observation, self.core.info(step, more)

    def step(self, action: ActType) -> tuple[ObsType, float, bool, bool, dict[str, Any]]:
        """Say something to the user and hear its answer.

        Raises
        ------
        ValueError
            If the action is none.
        gymnasium.error.ResetNeeded
            Before `reset`, or after the end of an episode.
        """
        step = self.core.act(action)
        step = judge_all([self.core]).get(0, step)
        if self.core.waits_for_user:
            step = self.core.hear(ask(self.core.setup.user, [self.core.request()])[0])
            step = judge_all([self.core]).get(0, step)
        observation, more = self.core.view()
        info = self.core.info(step, more)
        if self.render_mode == "human":
            self.render()
        return observation, float(sum(step.terms.values())), step.terminated, step.truncated, info

    def render(self) -> str | None:
        """Show the conversation with the goal state beside it."""
        if self.core.episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before render()")
        text = render_text(self.core.episode, colour=self.render_mode == "human")
        if self.render_mode == "human":
            print(text)
            return None
        return text

    def close(self) -> None:
        """Let go of the conversation and its cache."""
        self.core.leave()


def open_episodes(
    cores: list[DialogueCore[ObsType, ActType]],
    rngs: list[np.random.Generator],
    options: list[dict[str, Any] | None],
) -> list[Step]:
    """Begin an episode in each slot and hear the openings, asking the user for all of them in one batch.

    A reset cannot be truncated: where the opening ends the episode (the user model failed), the first `step` reports
    it.
    """
    if not cores:
        return []
    requests = [core.begin(rng, option) for core, rng, option in zip(cores, rngs, options, strict=True)]
    steps = [core.hear(reply) for core, reply in zip(cores, ask(cores[0].setup.user, requests), strict=True)]
    for k, step in judge_all(cores).items():
        steps[k] = step
    return steps


def judge_all(cores: Sequence[DialogueCore[Any, Any]]) -> dict[int, Step]:
    """Ask the judge, in one batch, for all slots that wait for it; what came of it, by their positions."""
    waiting = {k: core.shown().questions() for k, core in enumerate(cores) if core.waits_for_judge}
    if not waiting:
        return {}
    judge = cores[0].setup.judge
    assert judge is not None
    verdicts = iter(ask_judge(judge, [question for asked in waiting.values() for question in asked]))
    return {k: cores[k].judged([next(verdicts) for _ in asked]) for k, asked in waiting.items()}
