"""The examples that train, for a few steps each; and that importing the package loads no library that does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN

from ugst_env.envs.sb3 import SB3VecEnv


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_cleanrl_ppo_learns() -> None:
    told = run(*"examples/cleanrl_ppo.py --user scripted --envs 16 --rollout 16 --steps 1280".split())
    found = re.search(r"last (\d+) episodes: (\S+)", told)
    # A policy that has learnt nothing has about 0.15.
    assert found is not None and int(found[1]) == 100 and float(found[2]) > 0.3


@pytest.mark.parametrize(("algorithm", "kind"), [("maskable", MaskablePPO), ("dqn", DQN)])
def test_sb3_takes_some_steps(algorithm: str, kind: type, tmp_path: Path) -> None:
    out = tmp_path / "agent.zip"
    run("examples/sb3.py", *f"--algorithm {algorithm} --user scripted --envs 4 --steps 256 --out {out}".split())
    model = kind.load(out, device="cpu")  # type: ignore[attr-defined]
    assert model.num_timesteps >= 256
    envs = SB3VecEnv(4, user="scripted")
    actions, _ = model.predict(envs.reset())
    assert actions.shape == (4,)


def test_importing_the_package_loads_no_framework() -> None:
    heavy = "torch", "transformers", "ray", "stable_baselines3", "datasets", "trl", "pycurl", "matplotlib"
    script = f"import sys, ugst_env; print([name for name in {heavy!r} if name in sys.modules])"
    assert run("-c", script).strip() == "[]"
