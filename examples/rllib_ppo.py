"""RLlib's PPO on UGST-v0, with action masks. Run ``python examples/rllib_ppo.py --iterations 20``.

Needs the extra ``rllib``. On a cluster: ``--address auto`` (see examples/cluster/README.md). Each env runner holds
`--envs` conversations and has its own user model; a served one (``--user openai:NAME``) is shared by all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
from ray.tune.registry import register_env
from tqdm import tqdm

from ugst_env.envs.rllib import MaskedVectorEnv

register_env("ugst", lambda settings: MaskedVectorEnv(**settings))


def ppo(*, runners: int, envs: int, batch: int, seed: int, **arguments: Any) -> PPOConfig:
    """PPO whose runners hold `envs` conversations each; `arguments` go to the environment."""
    return (
        PPOConfig()
        .environment("ugst", env_config=arguments)
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=envs,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length="auto",
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=ActionMaskingTorchRLModule,
                model_config=DefaultModelConfig(fcnet_hiddens=[128, 128], fcnet_activation="tanh"),
            )
        )
        .training(train_batch_size_per_learner=batch, minibatch_size=min(256, batch), num_epochs=6, lr=5e-4, gamma=0.99)
        # A runner that dies, with its node or alone, is started again where there is room; the others go on.
        .fault_tolerance(restart_failed_env_runners=True)
        .debugging(seed=seed)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--iterations", type=int, default=20, help="(20)")
    parser.add_argument("--batch", type=int, default=1024, help="steps of an iteration (1024)")
    parser.add_argument("--runners", type=int, default=1, help="processes that hold conversations (1)")
    parser.add_argument("--envs", type=int, default=32, help="conversations of each (32)")
    parser.add_argument("--user", default="ugst-tiny")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--address", help="of a Ray cluster, such as auto; without one, this machine")
    parser.add_argument("--out", type=Path, help="folder for the checkpoint")
    options = parser.parse_args()
    ray.init(address=options.address, include_dashboard=False, log_to_driver=False)
    config = ppo(runners=options.runners, envs=options.envs, batch=options.batch, seed=options.seed, user=options.user)
    algorithm = config.build_algo()
    with tqdm(range(options.iterations), unit="iteration") as bar:
        for _ in bar:
            runners = algorithm.train()["env_runners"]
            bar.set_postfix({"return": f"{runners.get('episode_return_mean', float('nan')):.2f}"})
    if options.out is not None:
        print(f"checkpoint: {algorithm.save_to_path(str(options.out.resolve()))}")
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
