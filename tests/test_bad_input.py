"""What is given wrongly is answered with one clear sentence: what was given, and what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from dialogues import FIND_THAI, ZOO

import ugst_env  # noqa: F401
from ugst_env.envs.actions import ACTIONS
from ugst_env.envs.discrete import UGSTEnv
from ugst_env.envs.vector import UGSTVectorEnv
from ugst_env.goal import UserGoal
from ugst_env.world.database import World


class NoUser:
    pass


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"user": "eliza"}, ValueError, r"unknown user 'eliza'; accepted: 'ugst-tiny', 'scripted', 'hf:"),
        ({"user": "nowhere.gguf"}, FileNotFoundError, r"no GGUF file at nowhere.gguf"),
        ({"user": NoUser()}, TypeError, r"user must be .*; got NoUser"),
        ({"user": None}, TypeError, r"user must be .*; got NoneType"),
        ({"world": "atlantis"}, (ValueError, FileNotFoundError), r"atlantis"),
        ({"world": 7}, TypeError, r"world must be 'default', a folder, a World or None, got int"),
        ({"goals": "challenge:tomorrow"}, ValueError, r"challenge:train, challenge:val.*got 'challenge:tomorrow'"),
        ({"goals": "nowhere.yaml"}, (ValueError, FileNotFoundError), r"nowhere.yaml"),
        ({"goals": []}, ValueError, r"goals must hold at least one goal"),
        ({"goals": 3}, TypeError, r"goals must be 'challenge:.*got int"),
        ({"goals": [FIND_THAI, "x"]}, TypeError, r"goals must be .*got list"),
        ({"max_turns": 0}, ValueError, r"max_turns must be a whole number >= 1, got 0"),
        ({"max_turns": 2.5}, ValueError, r"max_turns must be a whole number >= 1, got 2.5"),
        ({"max_turns": True}, ValueError, r"max_turns must be a whole number >= 1, got True"),
        ({"reward": 1.0}, TypeError, r"reward must be a RewardWeights or None, got float"),
        ({"render_mode": "rgb_array"}, ValueError, r"render_mode must be None, 'ansi' or 'human', got 'rgb_array'"),
        ({"temperature": 1}, TypeError, r"temperature"),
    ],
)
def test_arguments(arguments: dict[str, Any], kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        UGSTEnv(**{"user": "scripted", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, r"num_envs must be a whole number >= 1, got 0"),
        ({"num_envs": 1.5}, r"num_envs must be a whole number >= 1, got 1.5"),
        (
            {"autoreset_mode": "sometimes"},
            r"autoreset_mode must be one of NEXT_STEP, SAME_STEP, DISABLED, got 'sometimes'",
        ),
        ({"render_mode": "human"}, r"render_mode of the vector env must be None or 'ansi', got 'human'"),
        ({"max_episode_steps": 5}, r"max_episode_steps is not accepted"),
    ],
)
def test_arguments_of_the_vector_env(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UGSTVectorEnv(**{"num_envs": 2, "user": "scripted", **arguments})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectives:\n  - {domain: cinema, action: find, requirements: [{ask: phone}]}", r"cinema"),
        ("objectives: []", r"objectives"),
        ("objectives:\n  - {domain: hotel, action: find, preferences: [{ask: phone}]}", r"preferences"),
        ("moods: [happy]\nobjectives:\n  - {domain: hotel, action: find, requirements: [{ask: phone}]}", r"moods"),
        ("objectives:\n  - {domain: hotel, action: dance, requirements: [{ask: phone}]}", r"dance"),
        (
            "profile: [{kind: shoe_size, value: 44}]\n"
            "objectives:\n  - {domain: hotel, action: find, requirements: [{ask: phone}]}",
            r"shoe_size",
        ),
        ("objectives: [", r"goals.yaml"),
    ],
    ids=["domain", "empty", "ask as a preference", "category", "action", "kind", "no YAML"],
)
def test_goal_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "goals.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        UGSTEnv(user="scripted", goals=file)
    assert "goals.yaml" in str(caught.value)


def test_a_world_without_the_table_that_a_goal_needs(world: World) -> None:
    village = World("village", {"attraction": world.tables["attraction"]})
    with pytest.raises(
        ValueError, match=r"goal find-thai needs a 'restaurant' table, but the world 'village' has only attraction"
    ):
        UGSTEnv(user="scripted", world=village, goals=FIND_THAI)
    without = World("coast", {domain: rows for domain, rows in world.tables.items() if domain != "restaurant"})
    with pytest.raises(ValueError, match="needs a 'restaurant' table"):
        UGSTEnv(user="scripted", world=without, goals=[UserGoal((ZOO,)), FIND_THAI])


def test_a_folder_without_a_world(tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
        UGSTEnv(user="scripted", world=tmp_path)


class TestActions:
    @pytest.mark.parametrize("action", [-1, len(ACTIONS), 1.5, "book", None, [3]])
    def test_outside_the_space(self, action: Any) -> None:
        env = UGSTEnv(user="scripted")
        env.reset(seed=0)
        with pytest.raises(ValueError, match=r"action must be an integer in 0..43 \(Discrete\(44\)\), got"):
            env.step(action)
        env.step(42)  # and nothing broke

    @pytest.mark.parametrize("actions", [[0], [0, 44], [0, -1], [0.5, 1.0], [[0, 1]]])
    def test_outside_the_vector_envs_space(self, actions: list[Any]) -> None:
        env = UGSTVectorEnv(2, user="scripted")
        env.reset(seed=0)
        with pytest.raises(ValueError, match=r"actions must be 2 integers in 0..43, got"):
            env.step(np.array(actions))

    def test_before_the_reset_and_after_the_end(self) -> None:
        env = UGSTEnv(user="scripted", max_turns=1)
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) before step\(\)"):
            env.step(0)
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) before action_masks\(\)"):
            env.action_masks()
        env.reset(seed=0)
        env.step(42)
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"this episode is over: call reset\(\)"):
            env.step(42)
        vector = UGSTVectorEnv(2, user="scripted")
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) before step\(\)"):
            vector.step(np.zeros(2, dtype=np.int64))
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
            vector.action_masks()


class TestResetOptions:
    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"goals": [0]}, ValueError, r"unknown reset option 'goals'; accepted: 'goal'"),
            ({"goal": 9}, ValueError, r"options\['goal'\] must be in 0..0, got 9"),
            ({"goal": -1}, ValueError, r"options\['goal'\] must be in 0..0, got -1"),
            ({"goal": "first"}, TypeError, r"options\['goal'\] must be a UserGoal or an index, got str"),
        ],
    )
    def test_of_the_single_env(self, options: dict[str, Any], kind: type[Exception], message: str) -> None:
        env = UGSTEnv(user="scripted", goals=FIND_THAI)
        with pytest.raises(kind, match=message):
            env.reset(seed=0, options=options)

    def test_an_index_needs_a_list(self) -> None:
        env = UGSTEnv(user="scripted", goals="challenge:train")
        with pytest.raises(ValueError, match=r"options\['goal'\] = 3 is an index, but these goals are drawn"):
            env.reset(options={"goal": 3})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"reset_mask": [True]}, r"must be a bool array of shape \(2,\), got bool \(1,\)"),
            ({"reset_mask": np.array([1, 0])}, r"must be a bool array of shape \(2,\), got int64 \(2,\)"),
            ({"reset_mask": np.array([False, False])}, r"selects no slot"),
            ({"goals": [FIND_THAI]}, r"must have one goal per slot \(2\), got 1"),
            ({"colour": 1}, r"unknown reset option 'colour'"),
        ],
    )
    def test_of_the_vector_env(self, options: dict[str, Any], message: str) -> None:
        env = UGSTVectorEnv(2, user="scripted", goals=FIND_THAI)
        with pytest.raises(ValueError, match=message):
            env.reset(seed=0, options=options)

    def test_seeds_of_the_vector_env(self) -> None:
        env = UGSTVectorEnv(2, user="scripted")
        with pytest.raises(ValueError, match="seed must be one integer or a sequence of 2, got 3"):
            env.reset(seed=[1, 2, 3])

    def test_a_partial_reset_before_the_first(self) -> None:
        env = UGSTVectorEnv(2, user="scripted")
        env.reset(seed=0, options={"reset_mask": np.array([True, False])})
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
            env.step(np.zeros(2, dtype=np.int64))
