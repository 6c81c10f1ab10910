"""The vector env for RLlib's action masking. Imports nothing of Ray."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ugst_env.envs.episode import Step
from ugst_env.envs.vector import UGSTVectorEnv


class MaskedVectorEnv(UGSTVectorEnv):
    """`UGSTVectorEnv` that shows each action mask beside its observation, as RLlib's masking modules want it.

    Observations are dicts: ``observations`` float32 (num_envs, `OBSERVATION_SIZE`), ``action_mask`` float32
    (num_envs, 44) of 0 and 1.

    Parameters
    ----------
    num_envs
        Number of conversations held at once.
    **arguments
        See `ugst_env.envs.setup.Setup`.

    Raises
    ------
    ValueError
        If an `autoreset_mode` other than NEXT_STEP is asked for: RLlib would lose a step of every episode.
    """

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        mode = arguments.pop("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.NEXT_STEP.value):
            raise ValueError(f"RLlib needs autoreset_mode NEXT_STEP, and would lose steps with {mode!r}")
        super().__init__(num_envs, autoreset_mode=AutoresetMode.NEXT_STEP, **arguments)
        size = int(self.single_action_space.n)  # type: ignore[attr-defined]
        self._masks: NDArray[np.float32] = np.zeros((num_envs, size), dtype=np.float32)
        self.single_observation_space = gymnasium.spaces.Dict(
            {
                "observations": self.single_observation_space,
                "action_mask": gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32),
            }
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def _look(self, k: int, step: Step) -> dict[str, Any]:
        info = super()._look(k, step)
        self._masks[k] = info["action_mask"]
        return info

    def _packed(self) -> Any:
        return {"observations": super()._packed(), "action_mask": self._masks.copy()}
