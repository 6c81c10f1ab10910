"""One conversation with the shipped language-model user, shown at its end. Run ``python examples/quickstart.py``."""

import gymnasium as gym

import ugst_env  # noqa: F401  registers UGST-v0

env = gym.make("UGST-v0", render_mode="ansi")
observation, info = env.reset(seed=7)
terminated = truncated = False
while not (terminated or truncated):
    action = env.action_space.sample(info["action_mask"])
    observation, reward, terminated, truncated, info = env.step(action)
print(env.render(), info["outcome"], info["success"])
