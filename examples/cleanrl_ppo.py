"""PPO in one file, in the manner of CleanRL, with action masks. Run ``python examples/cleanrl_ppo.py``."""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical
from tqdm import trange

import ugst_env  # noqa: F401  registers UGST-v0

GAMMA, LAMBDA, CLIP, ENTROPY, VALUE, EPOCHS, MINIBATCH, RATE = 0.99, 0.95, 0.2, 0.01, 0.5, 6, 256, 1e-3


class Agent(nn.Module):
    """A policy and a value, over one hidden layer each."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(inputs, 128), nn.Tanh(), nn.Linear(128, actions))
        self.value = nn.Sequential(nn.Linear(inputs, 128), nn.Tanh(), nn.Linear(128, 1))

    def act(self, observation: torch.Tensor, mask: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        """The distribution over the actions that can be carried out, and the value."""
        logits = self.policy(observation).masked_fill(mask == 0, -1e9)
        return Categorical(logits=logits), self.value(observation)[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--envs", type=int, default=32)
    parser.add_argument("--rollout", type=int, default=32, help="steps of each env between two updates (32)")
    parser.add_argument("--user", default="ugst-tiny")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    # The env's default, NEXT_STEP: the step behind an end takes no action and is left out of the update.
    envs = gym.wrappers.vector.RecordEpisodeStatistics(
        gym.make_vec("UGST-v0", num_envs=options.envs, user=options.user)
    )
    agent = Agent(envs.single_observation_space.shape[0], int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=RATE, eps=1e-5)

    found, infos = envs.reset(seed=options.seed)
    observation, mask = torch.from_numpy(found), torch.from_numpy(np.stack(infos["action_mask"]))
    resetting = torch.zeros(options.envs, dtype=torch.bool)
    with trange(0, options.steps, options.rollout * options.envs, unit="update") as bar:
        for _ in bar:
            rows = []
            for _ in range(options.rollout):
                with torch.no_grad():
                    policy, value = agent.act(observation, mask)
                    action = policy.sample()
                    before = (observation, mask, action, policy.log_prob(action), value, resetting)
                found, reward, terminated, truncated, infos = envs.step(action.numpy())
                ended = torch.from_numpy(terminated | truncated)
                rows.append((*before, torch.from_numpy(reward).float(), torch.from_numpy(terminated), ended))
                observation = torch.from_numpy(found)
                mask = torch.from_numpy(np.stack(infos["action_mask"]))
                resetting = ended
            observations, masks, actions, logs, values, starts, rewards, terminals, ends = map(
                torch.stack, zip(*rows, strict=True)
            )
            with torch.no_grad():
                following = torch.cat([values[1:], agent.act(observation, mask)[1][None]])
                # In NEXT_STEP mode the observation behind a truncated step is the episode's own last one.
                errors = rewards + GAMMA * following * ~terminals - values
                advantages, running = torch.zeros_like(rewards), torch.zeros(options.envs)
                for t in reversed(range(options.rollout)):
                    running = errors[t] + GAMMA * LAMBDA * running * ~ends[t]
                    advantages[t] = running
            keep = ~starts.flatten()
            batch = [part.flatten(0, 1)[keep] for part in (observations, masks, actions, logs, advantages)]
            targets = (advantages + values).flatten()[keep]
            for _ in range(EPOCHS):
                for rows_of in torch.randperm(len(targets)).split(MINIBATCH):
                    o, m, a, old, gain = (part[rows_of] for part in batch)
                    policy, value = agent.act(o, m)
                    ratio = (policy.log_prob(a) - old).exp()
                    gain = (gain - gain.mean()) / (gain.std(correction=0) + 1e-8)
                    surrogate = torch.min(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
                    loss = VALUE * (value - targets[rows_of]).pow(2).mean() - surrogate
                    loss = loss - ENTROPY * policy.entropy().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                    optimizer.step()
            returns = list(envs.return_queue)
            bar.set_postfix({"return": f"{np.mean(returns):.2f}" if returns else "-"})
    returns = list(envs.return_queue)
    print(f"mean return of the last {len(returns)} episodes: {np.mean(returns) if returns else float('nan'):.3f}")
    envs.close()


if __name__ == "__main__":
    main()
