"""The environments, vectorised: all waiting user turns go to the model as one batch."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ugst_env.envs.actions import ACTIONS
from ugst_env.envs.core import DialogueCore, judge_all, open_episodes
from ugst_env.envs.discrete import ActCore
from ugst_env.envs.episode import Step
from ugst_env.envs.render import render_text
from ugst_env.envs.setup import make_setup
from ugst_env.envs.text import TextCore
from ugst_env.goal import GoalState
from ugst_env.users.protocol import UserRequest, ask_each

# What a step makes lives until its end, next to nothing of it in cycles. By default the collector looks at all of it
# several times a step and takes it for old: with 64 conversations a tenth of the time without the model.
YOUNG_OBJECTS = 200


def _collect_seldom(num_envs: int) -> None:
    """See the notes of `DialogueVectorEnv`."""
    young, *older = gc.get_threshold()
    if 0 < young < YOUNG_OBJECTS * num_envs:  # 0 is off.
        gc.set_threshold(YOUNG_OBJECTS * num_envs, *older)


class DialogueVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """`num_envs` conversations with one user simulator, which is asked once per step for all of them.

    Slot k with ``reset(seed=s)`` lives through the same conversations as a single env with ``reset(seed=s + k)``.

    Parameters
    ----------
    num_envs
        Number of conversations held at once, at least 1.
    autoreset_mode
        A `gymnasium.vector.AutoresetMode` or its name. NEXT_STEP: the step after an end ignores the action, returns the
        reset observation and reward 0. SAME_STEP: the step that ends returns the reset observation, with ``final_obs``
        and ``final_info`` in `info`; where episodes end, their openings are a second batch. DISABLED: the caller resets
        with ``options={"reset_mask": bool array}``.
    render_mode
        ``"ansi"`` (`render()` returns a tuple of texts) or None.
    **arguments
        See `ugst_env.envs.setup.Setup`.

    Notes
    -----
    Python's garbage collector is told to wait for `YOUNG_OBJECTS` new objects per conversation, if it waits for fewer
    (``gc.set_threshold``, for the whole process).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}  # type: ignore[misc]
    core_type: type[DialogueCore[Any, Any]]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise ValueError(f"num_envs must be a whole number >= 1, got {num_envs!r}")
        if max_episode_steps is not None:
            raise ValueError("UGST limits conversations by max_turns; max_episode_steps is not accepted")
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode of the vector env must be None or 'ansi', got {render_mode!r}")
        self.num_envs = int(num_envs)
        self.autoreset_mode = _mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        self.render_mode = render_mode
        self.single_observation_space = self.core_type.observation_space
        self.single_action_space = self.core_type.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        _collect_seldom(self.num_envs)
        self.setup = make_setup(**arguments)
        self.cores = [self.core_type(self.setup) for _ in range(self.num_envs)]
        self._rngs: list[np.random.Generator | None] = [None] * self.num_envs
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._observations: list[Any] = [self.core_type.nothing] * self.num_envs

    def _packed(self) -> Any:
        """The observations of all slots as one of `observation_space`."""
        raise NotImplementedError

    def _unpacked(self, actions: Any) -> list[Any]:
        """The action of each slot.

        Raises
        ------
        ValueError
            If there is not one for each.
        """
        raise NotImplementedError

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin conversations in all slots, or in those of ``options["reset_mask"]``.

        ``options["goal"]`` names the goal of every slot; ``options["goals"]``, a sequence of length `num_envs`, one
        each.
        """
        options = dict(options or {})
        mask = _reset_mask(options.pop("reset_mask", None), self.num_envs)
        goals = _per_slot_goals(options, self.num_envs)
        for k, slot_seed in enumerate(_seeds(seed, self.num_envs)):
            if mask[k] and (slot_seed is not None or self._rngs[k] is None):
                self._rngs[k] = gymnasium.utils.seeding.np_random(slot_seed)[0]
        slots = [k for k in range(self.num_envs) if mask[k]]
        infos: dict[str, Any] = {}
        self._open(slots, [{**options, **({} if goals is None else {"goal": goals[k]})} for k in slots], infos)
        return self._packed(), infos

    def _open(
        self, slots: list[int], options: list[dict[str, Any] | None] | None, infos: dict[str, Any]
    ) -> dict[str, Any]:
        """Begin episodes in these slots, note their observations and add their infos."""
        rngs = [rng for rng in (self._rngs[k] for k in slots) if rng is not None]
        steps = open_episodes([self.cores[k] for k in slots], rngs, options or [None] * len(slots))
        self._ended[slots] = False
        for k, step in zip(slots, steps, strict=True):
            infos = self._add_info(infos, self._look(k, step), k)
        return infos

    def _add_info(self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int) -> dict[str, Any]:
        # As in Gymnasium, which makes a mask for each key of each slot, though all but the first are thrown away.
        for key, value in env_info.items():
            known = vector_infos.get(key)
            if known is None:
                super()._add_info(vector_infos, {key: value}, env_num)
                continue
            if type(value) is dict:
                self._add_info(known, value, env_num)
            else:
                known[env_num] = value
            vector_infos[f"_{key}"][env_num] = True
        return vector_infos

    def _look(self, k: int, step: Step) -> dict[str, Any]:
        self._observations[k], more = self.cores[k].view()
        return self.cores[k].info(step, more)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one step in every conversation.

        Parameters
        ----------
        actions
            One per slot.

        Returns
        -------
        tuple
            Observations, rewards float64 (num_envs,), terminations and truncations bool (num_envs,), infos.

        Raises
        ------
        ValueError
            If an action is none.
        gymnasium.error.ResetNeeded
            Before `reset`; or, with autoreset disabled, in a slot whose episode is over.
        """
        chosen = self._unpacked(actions)
        restart = [k for k in range(self.num_envs) if self._ended[k]]
        if restart and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gymnasium.error.ResetNeeded(
                f"the episodes of slots {restart} are over: reset them with options['reset_mask']"
            )
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        terminations = np.zeros(self.num_envs, dtype=bool)
        truncations = np.zeros(self.num_envs, dtype=bool)
        infos: dict[str, Any] = {}

        running = [k for k in range(self.num_envs) if not self._ended[k]]
        rngs = [rng for rng in (self._rngs[k] for k in restart) if rng is not None]
        steps: dict[int, Step] = {}
        infos_of: dict[int, dict[str, Any]] = {}
        asked: list[int] = []

        def requests() -> Iterator[UserRequest]:
            """What the user is asked, slot by slot: the first may be under way while others are in the making."""
            for k in running:
                if k not in steps:
                    steps[k] = self.cores[k].act(chosen[k])
                if self.cores[k].waits_for_user:
                    asked.append(k)
                    yield self.cores[k].request()
                else:
                    infos_of[k] = self._look(k, steps[k])
            for k, rng in zip(restart, rngs, strict=True):
                asked.append(k)
                yield self.cores[k].begin(rng, None)

        if self.setup.judge is not None:
            steps.update({k: self.cores[k].act(chosen[k]) for k in running})
            steps.update(judge_all(self.cores))
        # A step is worked through as soon as its reply is there, while those of other slots may still be under way.
        for position, reply in ask_each(self.setup.user, requests()):
            k = asked[position]
            steps[k] = self.cores[k].hear(reply)
            infos_of[k] = self._look(k, steps[k])
        for k, step in judge_all(self.cores).items():
            steps[k] = step
            infos_of[k] = self._look(k, step)
        self._ended[restart] = False
        finals: dict[int, tuple[Any, dict[str, Any]]] = {}
        for k, step in sorted(steps.items()):
            info = infos_of[k]
            if k in restart:
                infos = self._add_info(infos, info, k)
                continue
            rewards[k] = sum(step.terms.values())
            terminations[k], truncations[k] = step.terminated, step.truncated
            if step.over and self.autoreset_mode is AutoresetMode.SAME_STEP:
                finals[k] = (self._observations[k], info)
            else:
                infos = self._add_info(infos, info, k)
                self._ended[k] = step.over
        if finals:
            for k, (observation, info) in finals.items():
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, k)
            infos = self._open(list(finals), None, infos)
        return self._packed(), rewards, terminations, truncations, infos

    @property
    def goal_states(self) -> tuple[GoalState, ...]:
        """The tracked goal state of every slot, for people to look at. Agents never see them."""
        return tuple(core.episode.state for core in self.cores if core.episode is not None)

    def render(self) -> tuple[str, ...] | None:
        """The conversations as texts, where ``render_mode="ansi"``."""
        if self.render_mode is None:
            return None
        return tuple(render_text(core.episode, colour=False) for core in self.cores if core.episode is not None)

    def close_extras(self, **_: Any) -> None:
        """Let go of all conversations and their caches."""
        # Gymnasium closes an env that its own constructor refused, too.
        for core in getattr(self, "cores", ()):
            core.leave()


class UGSTVectorEnv(DialogueVectorEnv):
    """UGST-v0, vectorised: actions int64 (num_envs,), observations float32 (num_envs, `OBSERVATION_SIZE`).

    The arguments are those of `DialogueVectorEnv`.
    """

    core_type = ActCore

    def _packed(self) -> NDArray[np.float32]:
        return np.stack(self._observations)

    def _unpacked(self, actions: Any) -> list[Any]:
        actions = np.asarray(actions)
        if not self.action_space.contains(actions):
            raise ValueError(f"actions must be {self.num_envs} integers in 0..{len(ACTIONS) - 1}, got {actions!r}")
        return [int(action) for action in actions]

    def action_masks(self) -> NDArray[np.int8]:
        """Which actions can be carried out, int8 array of shape (num_envs, 44)."""
        return np.stack([core.view()[1]["action_mask"] for core in self.cores])


class UGSTTextVectorEnv(DialogueVectorEnv):
    """UGSTText-v0, vectorised: actions and observations are sequences of `num_envs` strings.

    The arguments are those of `DialogueVectorEnv`. Slots that call tools do not wait for those that speak to the user,
    nor the other way round: each step is one tool call or one message in every slot, and one batch for the user model.
    """

    core_type = TextCore

    def _packed(self) -> tuple[str, ...]:
        return tuple(self._observations)

    def _unpacked(self, actions: Any) -> list[Any]:
        if isinstance(actions, str) or not hasattr(actions, "__len__") or len(actions) != self.num_envs:
            raise ValueError(f"actions must be {self.num_envs} strings, one per slot, got {type(actions).__name__}")
        chosen = list(actions)
        for core, action in zip(self.cores, chosen, strict=True):
            core.check(action)
        return chosen


def _mode(mode: AutoresetMode | str) -> AutoresetMode:
    for known in AutoresetMode:
        if mode is known or (isinstance(mode, str) and mode.lower() in (known.name.lower(), str(known.value).lower())):
            return known
    raise ValueError(f"autoreset_mode must be one of {', '.join(m.name for m in AutoresetMode)}, got {mode!r}")


def _reset_mask(given: Any, num_envs: int) -> NDArray[np.bool_]:
    if given is None:
        return np.ones(num_envs, dtype=bool)
    mask: NDArray[np.bool_] = np.asarray(given)
    if mask.shape != (num_envs,) or mask.dtype != np.bool_:
        raise ValueError(
            f"options['reset_mask'] must be a bool array of shape ({num_envs},), got {mask.dtype} {mask.shape}"
        )
    if not mask.any():
        raise ValueError("options['reset_mask'] selects no slot")
    return mask


def _per_slot_goals(options: dict[str, Any], num_envs: int) -> list[Any] | None:
    goals = options.pop("goals", None)
    if goals is None:
        return None
    if len(goals) != num_envs:
        raise ValueError(f"options['goals'] must have one goal per slot ({num_envs}), got {len(goals)}")
    return list(goals)


def _seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> Sequence[int | None]:
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + k for k in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(f"seed must be one integer or a sequence of {num_envs}, got {len(seed)}")
    return seed
