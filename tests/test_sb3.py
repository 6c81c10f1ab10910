"""The Stable-Baselines3 face: its semantics of an end, masks for MaskablePPO, and a few steps of learning."""

from __future__ import annotations

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from ugst_env.envs.actions import ACTION_INDEX, OBSERVATION_SIZE, Action
from ugst_env.envs.discrete import UGSTEnv
from ugst_env.envs.sb3 import SB3VecEnv

REQ_MORE = ACTION_INDEX[Action("req_more")]
BYE = ACTION_INDEX[Action("bye")]


@pytest.fixture
def env() -> SB3VecEnv:
    return SB3VecEnv(3, user="scripted", max_turns=3)


def test_an_end_is_told_in_sb3s_way(env: SB3VecEnv) -> None:
    env.seed(0)
    first = env.reset()
    observations, rewards, dones, infos = env.step(np.array([BYE, REQ_MORE, REQ_MORE]))
    assert dones.tolist() == [True, False, False]
    assert rewards.dtype == np.float32
    assert infos[0]["terminal_observation"].shape == (OBSERVATION_SIZE,)
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["outcome"] == "agent_ended"
    assert infos[0]["success"] is False
    assert "terminal_observation" not in infos[1]
    # The observation is that of the next conversation.
    assert not (observations[0] == infos[0]["terminal_observation"]).all()
    assert not (observations[0] == np.asarray(first)[0]).all()
    assert env.reset_infos[0]["user_text"]


def test_the_turn_limit_is_a_truncation(env: SB3VecEnv) -> None:
    env.seed(0)
    env.reset()
    for _ in range(3):
        _, _, dones, infos = env.step(np.full(3, REQ_MORE))
    limits = [info for info, done in zip(infos, dones, strict=True) if done]
    assert limits
    assert all(info["TimeLimit.truncated"] is (info["outcome"] == "turn_limit") for info in limits)
    assert any(info["TimeLimit.truncated"] for info in limits)


def test_seeds_are_those_of_the_single_environment(env: SB3VecEnv) -> None:
    env.seed(40)
    observations = env.reset()
    single = UGSTEnv(user="scripted", max_turns=3)
    for k in range(3):
        assert (single.reset(seed=40 + k)[0] == np.asarray(observations)[k]).all()
    assert not (np.asarray(env.reset()) == np.asarray(observations)).all()


def test_masks_are_found(env: SB3VecEnv) -> None:
    env.seed(0)
    env.reset()
    assert is_masking_supported(env)
    masks = get_action_masks(env)
    assert masks.shape == (3, 44)
    assert masks.dtype == bool
    assert masks[:, BYE].all()
    assert (np.stack(env.env_method("action_masks", indices=[2])) == masks[2:]).all()
    assert (env.get_attr("action_masks", indices=1)[0]() == masks[1]).all()
    assert env.get_attr("num_envs") == [3, 3, 3]
    assert env.env_is_wrapped(VecMonitor) == [False] * 3


def test_what_it_cannot_do_is_said(env: SB3VecEnv) -> None:
    with pytest.raises(ValueError, match="autoreset_mode is not accepted"):
        SB3VecEnv(2, user="scripted", autoreset_mode="next_step")
    with pytest.raises(AttributeError, match="no env method 'fly'; it has 'action_masks'"):
        env.env_method("fly")
    with pytest.raises(AttributeError, match="'max_turns' cannot be set"):
        env.set_attr("max_turns", 3)


def test_maskable_ppo_takes_some_steps(env: SB3VecEnv) -> None:
    model = MaskablePPO("MlpPolicy", VecMonitor(env), n_steps=16, batch_size=24, n_epochs=1, seed=0, device="cpu")
    model.learn(96)
    assert len(model.ep_info_buffer or ()) > 5
    assert all(-1 <= episode["r"] <= 1 for episode in model.ep_info_buffer or ())
    observations = env.reset()
    actions, _ = model.predict(np.asarray(observations), action_masks=get_action_masks(env))
    assert get_action_masks(env)[np.arange(3), actions].all()
    env.close()


def test_plain_ppo_takes_it_too(env: SB3VecEnv) -> None:
    PPO("MlpPolicy", env, n_steps=8, batch_size=24, n_epochs=1, seed=0, device="cpu").learn(48)
