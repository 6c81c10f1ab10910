"""The handcrafted clerk serves a goal written by hand. Run ``python examples/own_goal.py`` from anywhere."""

from pathlib import Path

import gymnasium as gym

import ugst_env  # noqa: F401  registers UGST-v0
from ugst_env.training.clerks import handcrafted

env = gym.make("UGST-v0", goals=Path(__file__).parent / "own_goal.yaml", render_mode="human", max_turns=12)
observation, info = env.reset(seed=1, options={"goal": 0})
over = False
while not over:
    observation, reward, terminated, truncated, info = env.step(handcrafted(observation, info["action_mask"]))
    over = terminated or truncated
print({key: info[key] for key in ("outcome", "success", "trust", "failed")})
