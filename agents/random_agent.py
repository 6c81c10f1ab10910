"""The random agent: any action that can be carried out, equally likely.

Run ``python -m agents.random_agent`` to evaluate it.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from agents.evaluate import Policy, main


def random_policy(*, seed: int = 1) -> Policy:
    """A policy that draws uniformly from the mask.

    Each draw depends on `seed` and the observation alone, so it is the same however many conversations are held at
    once. No two observations of one conversation are equal (they hold the turn), so within a conversation the draws
    are independent.
    """

    def act(observations: NDArray[np.float32], masks: NDArray[np.int8]) -> NDArray[np.int64]:
        actions = np.empty(len(observations), dtype=np.int64)
        for k, (observation, mask) in enumerate(zip(observations, masks, strict=True)):
            rng = np.random.default_rng([seed, zlib.crc32(observation.tobytes())])
            actions[k] = rng.choice(np.flatnonzero(mask))
        return actions

    return act


if __name__ == "__main__":
    main(default_agents=("random",))
