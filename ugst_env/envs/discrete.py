"""UGST-v0: a single environment whose actions are dialogue acts."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ugst_env.envs.actions import ACTIONS, OBSERVATION_SIZE, View, action_mask, decode, look, observe
from ugst_env.envs.core import DialogueCore, DialogueEnv
from ugst_env.envs.episode import Episode, Step
from ugst_env.envs.setup import Setup
from ugst_env.users.protocol import UserReply, UserRequest

Observation = NDArray[np.float32]


class ActCore(DialogueCore[Observation, int | np.int64]):
    """A conversation slot whose actions are `ugst_env.envs.actions.ACTIONS`."""

    observation_space = spaces.Box(0.0, 1.0, shape=(OBSERVATION_SIZE,), dtype=np.float32)
    action_space = spaces.Discrete(len(ACTIONS))
    nothing = np.zeros(OBSERVATION_SIZE, dtype=np.float32)

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if not setup.world.domains:
            raise ValueError("UGST-v0 needs a world with tables; a conversation without one is UGSTText-v0")
        self._last_action: int | None = None
        self._found: View | None = None

    def begin(self, rng: np.random.Generator, options: dict[str, Any] | None) -> UserRequest:
        self._last_action, self._found = None, None
        return super().begin(rng, options)

    def check(self, action: int | np.int64) -> None:
        # A vector env has looked at its actions already.
        if not (type(action) is int and 0 <= action < len(ACTIONS)) and not self.action_space.contains(action):
            raise ValueError(
                f"action must be an integer in 0..{len(ACTIONS) - 1} (Discrete({len(ACTIONS)})), got {action!r}"
            )

    def carry_out(self, action: int | np.int64, episode: Episode) -> Step:
        act = decode(ACTIONS[int(action)], episode.belief, self._search(episode), self.setup.world)
        self._last_action, self._found = int(action), None
        return episode.act(act)

    def _search(self, episode: Episode) -> View:
        """What the database says to the belief, searched once per step."""
        if self._found is None:
            self._found = look(episode.belief, self.setup.world)
        return self._found

    def hear(self, reply: UserReply) -> Step:
        self._found = None
        return super().hear(reply)

    def view(self) -> tuple[Observation, dict[str, Any]]:
        episode = self.shown()
        view = self._search(episode)
        observation = observe(
            episode.belief, view, last_action=self._last_action, turn=episode.turn, max_turns=episode.max_turns
        )
        return observation, {"action_mask": action_mask(view)}


class UGSTEnv(DialogueEnv[Observation, int | np.int64]):
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

    core_type = ActCore

    def action_masks(self) -> NDArray[np.int8]:
        """Which actions can be carried out, int8 array of shape (44,); sb3-contrib asks for this name."""
        if self.core.episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before action_masks()")
        mask: NDArray[np.int8] = self.core.view()[1]["action_mask"]
        return mask
