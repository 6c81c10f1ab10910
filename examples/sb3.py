"""Stable-Baselines3 on UGST-v0. Run ``python examples/sb3.py --algorithm maskable --steps 20000``.

Plain PPO and DQN know no masks: an action that cannot be carried out just wastes their turn. `agents/ppo.py` is the
tuned version, with a learning curve and an evaluation.
"""

from __future__ import annotations

import argparse
from typing import Any

from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import VecMonitor

from ugst_env.envs.sb3 import SB3VecEnv


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--algorithm", choices=("maskable", "ppo", "dqn"), default="maskable")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--envs", type=int, default=32)
    parser.add_argument("--user", default="ugst-tiny")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="where the agent goes, a .zip file")
    options = parser.parse_args()
    envs = VecMonitor(SB3VecEnv(options.envs, user=options.user))
    common: dict[str, Any] = {"policy": "MlpPolicy", "env": envs, "seed": options.seed, "device": "cpu", "verbose": 1}
    if options.algorithm == "dqn":
        model: Any = DQN(**common, learning_starts=500, train_freq=1, gradient_steps=options.envs // 4 or 1)
    else:
        kind = MaskablePPO if options.algorithm == "maskable" else PPO
        model = kind(**common, n_steps=32, batch_size=256, gamma=0.99)
    model.learn(options.steps, progress_bar=False, log_interval=1)
    if options.out:
        model.save(options.out)
    envs.close()


if __name__ == "__main__":
    main()
