"""The handcrafted agent: a competent booking clerk's rules over the observation and the mask, in a batch.

Run ``python -m agents.handcrafted`` to evaluate it. The rules themselves are in `ugst_env.training.clerks`, where
they also play the agent in the conversations that the shipped user was trained on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.evaluate import main
from ugst_env.training.clerks import handcrafted


def handcrafted_policy(observations: NDArray[np.float32], masks: NDArray[np.int8]) -> NDArray[np.int64]:
    """The clerk's action for each row."""
    return np.array([handcrafted(row, mask) for row, mask in zip(observations, masks, strict=True)], dtype=np.int64)


if __name__ == "__main__":
    main(default_agents=("handcrafted",))
