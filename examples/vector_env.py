"""64 conversations at once, one batch of user turns per step. Run ``python examples/vector_env.py``."""

import time

import gymnasium as gym
import numpy as np

import ugst_env  # noqa: F401  registers UGST-v0
from ugst_env.training.clerks import handcrafted

STEPS = 20

envs = gym.wrappers.vector.RecordEpisodeStatistics(gym.make_vec("UGST-v0", num_envs=64))
observations, infos = envs.reset(seed=1)
begin = time.perf_counter()
for _ in range(STEPS):
    actions = np.array([handcrafted(o, m) for o, m in zip(observations, infos["action_mask"], strict=True)])
    observations, rewards, terminations, truncations, infos = envs.step(actions)
seconds = time.perf_counter() - begin
returns = list(envs.return_queue)
print(f"{STEPS * 64 / seconds:.0f} steps/s, {len(returns)} episodes, mean return {np.mean(returns):.2f}")
