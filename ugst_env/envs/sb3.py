"""The vector env as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from ugst_env.envs.vector import UGSTVectorEnv


class SB3VecEnv(VecEnv):
    """A `UGSTVectorEnv` with SB3's interface and semantics (an episode that ends is reset in the same step).

    Parameters
    ----------
    num_envs
        Number of conversations held at once.
    **arguments
        See `ugst_env.envs.setup.Setup`.

    Notes
    -----
    ``MaskablePPO`` finds the masks through ``env_method("action_masks")``.
    """

    def __init__(self, num_envs: int = 8, **arguments: Any) -> None:
        if "autoreset_mode" in arguments:
            raise ValueError("SB3VecEnv always resets in the same step; autoreset_mode is not accepted")
        self.env = UGSTVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **arguments)
        self._actions = np.zeros(num_envs, dtype=np.int64)
        super().__init__(num_envs, self.env.single_observation_space, self.env.single_action_space)

    def reset(self) -> VecEnvObs:
        seeds = [None if seed is None else int(seed) for seed in self._seeds]
        observations: VecEnvObs
        observations, infos = self.env.reset(seed=seeds)
        self.reset_infos = _split(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        self._actions = np.asarray(actions, dtype=np.int64)

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminations, truncations, infos = self.env.step(self._actions)
        rows = _split(infos, self.num_envs)
        dones = terminations | truncations
        for k in np.flatnonzero(dones):
            reset_info = {key: value for key, value in rows[k].items() if key not in ("final_obs", "final_info")}
            self.reset_infos[k] = reset_info
            rows[k] = {
                **rows[k]["final_info"],
                "terminal_observation": rows[k]["final_obs"],
                "TimeLimit.truncated": bool(truncations[k] and not terminations[k]),
            }
        return observations, rewards.astype(np.float32), dones, rows

    def close(self) -> None:
        self.env.close()

    def action_masks(self) -> list[np.ndarray[Any, Any]]:
        """Which actions can be carried out, a row per conversation."""
        return list(self.env.action_masks().astype(bool))

    def has_attr(self, attr_name: str) -> bool:
        return attr_name == "action_masks" or hasattr(self.env, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        if attr_name == "action_masks":
            return [lambda k=k: self.action_masks()[k] for k in self._get_indices(indices)]
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise AttributeError(f"the conversations share their settings; {attr_name!r} cannot be set for some of them")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        if method_name != "action_masks":
            raise AttributeError(f"SB3VecEnv has no env method {method_name!r}; it has 'action_masks'")
        rows = self.action_masks()
        return [rows[k] for k in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def _get_indices(self, indices: VecEnvIndices) -> Iterable[int]:
        return super()._get_indices(indices)


def _split(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's dict of arrays as one dict per slot, without the ``_key`` masks."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, values in infos.items():
        if key.startswith("_"):
            continue
        present: Sequence[bool] | None = infos.get(f"_{key}")
        for k in range(num_envs):
            if present is None or present[k]:
                rows[k][key] = _row(values, k)
    return rows


def _row(values: Any, k: int) -> Any:
    if isinstance(values, dict):
        return {
            key: _row(inner, k)
            for key, inner in values.items()
            if not key.startswith("_") and values.get(f"_{key}", [True] * (k + 1))[k]
        }
    value = values[k]
    return value.item() if isinstance(value, np.generic) else value
