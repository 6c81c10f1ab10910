"""UGST-v0: a Gymnasium environment whose other half is a language model playing a user with a tracked goal."""

from __future__ import annotations

import gymnasium

from ugst_env.goal import Category, Cause, Component, GoalState, Status, Transition, UserGoal
from ugst_env.reward import RewardWeights
from ugst_env.world.database import World

__version__ = "0.1.0"

__all__ = [
    "Category",
    "Cause",
    "Component",
    "GoalState",
    "RewardWeights",
    "Status",
    "Transition",
    "UserGoal",
    "World",
]

if "UGST-v0" not in gymnasium.registry:
    gymnasium.register(
        id="UGST-v0",
        entry_point="ugst_env.envs.discrete:UGSTEnv",
        vector_entry_point="ugst_env.envs.vector:UGSTVectorEnv",
    )
if "UGSTText-v0" not in gymnasium.registry:
    gymnasium.register(
        id="UGSTText-v0",
        entry_point="ugst_env.envs.text:UGSTTextEnv",
        vector_entry_point="ugst_env.envs.vector:UGSTTextVectorEnv",
    )
