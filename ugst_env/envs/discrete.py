"""UGST-v0: a single environment whose actions are dialogue acts."""

from __future__ import annotations

import itertools
import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ugst_env.envs.actions import ACTIONS, OBSERVATION_SIZE, View, action_mask, decode, look, observe
from ugst_env.envs.episode import Episode, Step
from ugst_env.envs.render import render_text
from ugst_env.envs.setup import Setup, make_setup
from ugst_env.goal import GoalState
from ugst_env.users.protocol import UserReply, UserRequest, ask

_episode_numbers = itertools.count()


class DialogueCore:
    """One conversation slot: it turns actions into acts, episodes into observations and infos, and calls no model.

    `UGSTEnv` drives one, `UGSTVectorEnv` drives many and asks the user for all of them at once.
    """

    observation_space = spaces.Box(0.0, 1.0, shape=(OBSERVATION_SIZE,), dtype=np.float32)
    action_space = spaces.Discrete(len(ACTIONS))

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.episode: Episode | None = None
        self._last_action: int | None = None
        self._unopened: Step | None = None
        self._found: View | None = None

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
            key=f"{os.getpid()}-{next(_episode_numbers)}",
        )
        self._last_action, self._unopened, self._found = None, None, None
        return self.episode.request()

    def act(self, action: int | np.int64) -> Step:
        """Carry an action out. Unless the step is over, ask the user `request` and give its reply to `hear`."""
        episode = self._alive()
        if not self.action_space.contains(action):
            raise ValueError(
                f"action must be an integer in 0..{len(ACTIONS) - 1} (Discrete({len(ACTIONS)})), got {action!r}"
            )
        if self._unopened is not None:
            step, self._unopened = self._unopened, None
            return step
        act = decode(ACTIONS[int(action)], episode.belief, self._search(episode), self.setup.world)
        self._last_action, self._found = int(action), None
        return episode.act(act)

    def _search(self, episode: Episode) -> View:
        """What the database says to the belief, searched once per step."""
        if self._found is None:
            self._found = look(episode.belief, self.setup.world)
        return self._found

    def request(self) -> UserRequest:
        """What the user is to be asked."""
        assert self.episode is not None
        return self.episode.request()

    def hear(self, reply: UserReply) -> Step:
        """Take the user's reply."""
        assert self.episode is not None
        opening = self.episode.turn == 0
        self._found = None
        step = self.episode.hear(reply)
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

    def view(self) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Observation and action mask as things stand."""
        episode = self.episode
        if episode is None:
            raise gymnasium.error.ResetNeeded("call reset() first: there is no conversation")
        view = self._search(episode)
        observation = observe(
            episode.belief, view, last_action=self._last_action, turn=episode.turn, max_turns=episode.max_turns
        )
        return observation, action_mask(episode.belief, view)

    def info(self, step: Step, mask: NDArray[np.int8]) -> dict[str, Any]:
        """The info dict; the hidden goal is in it only where `privileged` asks for it."""
        episode = self.episode
        assert episode is not None
        turns = episode.conversation.turns
        ended_by_agent = bool(turns) and turns[-1].agent is not None
        spoken = turns[-1] if ended_by_agent else (turns[-2] if len(turns) > 1 else None)
        info: dict[str, Any] = {
            "action_mask": mask,
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
            forget = getattr(self.setup.user, "forget", None)
            if forget is not None:
                forget([self.episode.key])
            self.episode = None


class UGSTEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """A booking clerk's job: serve a simulated user whose goal is hidden.

    The action is one of 44 dialogue acts (`ugst_env.envs.actions.ACTIONS`), the observation a float32 vector in [0, 1]
    built from the words that the agent heard (`ugst_env.envs.actions.LAYOUT` says where each feature stands), the
    reward a difference of served goal components (`ugst_env.reward`). ``info["action_mask"]`` and `action_masks()` give
    the actions that can be carried out.

    Parameters
    ----------
    render_mode
        ``"ansi"`` (`render()` returns text), ``"human"`` (each step is printed) or None.
    **arguments
        See `ugst_env.envs.setup.Setup`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 1}  # noqa: RUF012 (as in gymnasium.Env)

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'ansi' or 'human', got {render_mode!r}")
        self.render_mode = render_mode
        self.core = DialogueCore(make_setup(**arguments))
        self.observation_space = DialogueCore.observation_space
        self.action_space = DialogueCore.action_space

    @property
    def goal_state(self) -> GoalState:
        """The tracked goal state, for people to look at. Agents never see it."""
        if self.core.episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before looking at goal_state")
        return self.core.episode.state

    def action_masks(self) -> NDArray[np.int8]:
        """Which actions can be carried out, int8 array of shape (44,); sb3-contrib asks for this name."""
        if self.core.episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before action_masks()")
        return self.core.view()[1]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a conversation; ``options={"goal": UserGoal or index}`` names its goal.

        A reset cannot be truncated: where the user model fails on its opening, the first `step` reports it.
        """
        super().reset(seed=seed)
        step = open_episodes([self.core], [self.np_random], [options])[0]
        observation, mask = self.core.view()
        if self.render_mode == "human":
            self.render()
        return observation, self.core.info(step, mask)

    def step(self, action: int | np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Say something to the user and hear its answer.

        Raises
        ------
        ValueError
            If the action is outside the space.
        gymnasium.error.ResetNeeded
            Before `reset`, or after the end of an episode.
        """
        step = self.core.act(action)
        if not step.over:
            step = self.core.hear(ask(self.core.setup.user, [self.core.request()])[0])
        observation, mask = self.core.view()
        info = self.core.info(step, mask)
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
    cores: list[DialogueCore], rngs: list[np.random.Generator], options: list[dict[str, Any] | None]
) -> list[Step]:
    """Begin an episode in each slot and hear the openings, asking the user for all of them in one batch.

    A reset cannot be truncated: where the opening ends the episode (the user model failed), the first `step` reports
    it.
    """
    if not cores:
        return []
    requests = [core.begin(rng, option) for core, rng, option in zip(cores, rngs, options, strict=True)]
    return [core.hear(reply) for core, reply in zip(cores, ask(cores[0].setup.user, requests), strict=True)]
