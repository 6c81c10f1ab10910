"""The reference agents: what they write, what they refuse, and that an evaluation is what it says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import agents.evaluate
import agents.ppo
from agents.evaluate import bootstrap, evaluate, wilson
from agents.handcrafted import handcrafted_policy
from agents.random_agent import random_policy
from ugst_env.envs.actions import ACTIONS, OBSERVATION_SIZE
from ugst_env.goals.files import load_goals

ROOT = Path(__file__).resolve().parent.parent
FAST = ["--user", "scripted", "--num-envs", "8", "--n-steps", "8", "--batch-size", "32", "--epochs", "1"]
MAINS = {"agents.ppo": agents.ppo.main, "agents.evaluate": agents.evaluate.main}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(module: str, *words: str) -> Done:
    """Run a command in this process, as importing torch in a new one takes longer than all that these tests do."""
    code = 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            MAINS[module](words)
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short PPO run with its evaluation, resumed once."""
    out = tmp_path_factory.mktemp("runs") / "ppo"
    done = run("agents.ppo", "--out", str(out), "--timesteps", "256", "--eval-goals", "6", *FAST)
    assert done.returncode == 0, done.stderr
    assert "handcrafted" in done.stdout
    assert "success" in done.stdout
    more = run("agents.ppo", "--out", str(out), "--timesteps", "512", "--eval-goals", "6", "--resume")
    assert more.returncode == 0, more.stderr
    return out


def test_training_writes_model_curve_and_figures(trained: Path) -> None:
    assert (trained / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((trained / "figures.json").read_text())
    assert [result["agent"] for result in figures["results"]] == ["random", "handcrafted", "ppo"]
    for result in figures["results"]:
        low, high = result["success_interval"]
        assert 0 <= low <= result["success"] <= high <= 1
        assert result["steps_per_second"] > 0


def test_resuming_goes_on_where_it_stopped(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "progress.jsonl").read_text().splitlines()]
    steps = [line["steps"] for line in lines]
    assert steps == sorted(set(steps))
    assert json.loads((trained / "figures.json").read_text())["steps"] >= 512


def test_a_trained_model_can_be_evaluated_again(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    agent = f"ppo:{trained / 'model.zip'}"
    done = run("agents.evaluate", "--agents", agent, "--user", "scripted", "--episodes", "5", "--json", str(target))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(target.read_text())["results"][0]["records"]) == 5


def test_a_new_run_keeps_the_earlier_one(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "ppo"
    shutil.copytree(trained, out)
    assert run("agents.ppo", "--out", str(out), "--timesteps", "64", "--eval-goals", "0", *FAST).returncode == 0
    assert (tmp_path / "ppo.1" / "model.zip").read_bytes() == (trained / "model.zip").read_bytes()
    assert json.loads((out / "figures.json").read_text())["steps"] == 64


def test_the_same_seed_trains_the_same_model(tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = run("agents.ppo", "--out", str(tmp_path / name), "--timesteps", "128", "--eval-goals", "0", *FAST)
        assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(0)
    observations = rng.random((64, OBSERVATION_SIZE), dtype=np.float32)
    masks = np.ones((64, len(ACTIONS)), dtype=np.int8)
    first, second = (agents.ppo.load_policy(tmp_path / name)(observations, masks) for name in ("a", "b"))
    assert (first == second).all()


def test_resuming_refuses_other_settings_and_broken_models(trained: Path, tmp_path: Path) -> None:
    done = run("agents.ppo", "--out", str(trained), "--resume", "--gamma", "0.5")
    assert done.returncode == 2
    assert "--gamma" in done.stderr
    broken = tmp_path / "ppo"
    shutil.copytree(trained, broken)
    (broken / "model.zip").write_bytes(b"no zip file")
    done = run("agents.ppo", "--out", str(broken), "--resume")
    assert done.returncode == 2
    assert "model.zip" in done.stderr


def test_ctrl_c_keeps_the_model_and_says_where(tmp_path: Path) -> None:
    out = tmp_path / "ppo"
    command = [sys.executable, "-m", "agents.ppo", "--out", str(out), "--timesteps", "1000000", *FAST]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        # A background job may have been started with SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (out / "progress.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out / "model.zip").is_file()
    assert str(out / "model.zip") in said
    assert "--resume" in said


@pytest.mark.parametrize(
    ("module", "words", "named"),
    [
        ("agents.ppo", ["--user", "nobody"], "nobody"),
        ("agents.ppo", ["--user", "hf:no/such/folder/here"], "no/such/folder/here"),
        ("agents.ppo", ["--timesteps", "0"], "--timesteps"),
        ("agents.ppo", ["--resume", "--out", "runs/there-is-none"], "there-is-none"),
        ("agents.evaluate", ["--agents", "wizard"], "wizard"),
        ("agents.evaluate", ["--agents", "ppo:missing.zip"], "missing.zip"),
        ("agents.evaluate", ["--agents", "random", "--user", "scripted", "--goals", "challenge:exam"], "exam"),
    ],
)
def test_bad_input_is_one_clear_line(module: str, words: list[str], named: str, tmp_path: Path) -> None:
    if module == "agents.ppo" and "--out" not in words:
        words = [*words, "--out", str(tmp_path / "out")]
    done = run(module, *words)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_evaluation_does_not_depend_on_how_many_are_held_at_once() -> None:
    few = evaluate(random_policy(seed=3), goals="challenge:val", episodes=12, num_envs=3, seeds=(4, 5), user="scripted")
    many = evaluate(
        random_policy(seed=3), goals="challenge:val", episodes=12, num_envs=24, seeds=(4, 5), user="scripted"
    )
    assert few.records == many.records
    assert [(r.seed, r.goal) for r in few.records] == [(seed, goal) for seed in (4, 5) for goal in range(12)]


def test_the_handcrafted_agent_is_competent_and_the_random_one_is_not() -> None:
    clerk = evaluate(handcrafted_policy, goals="challenge:val", episodes=40, user="scripted")
    chance = evaluate(random_policy(seed=1), goals="challenge:val", episodes=40, user="scripted")
    assert clerk.success > 0.8
    assert chance.success < 0.5
    assert clerk.episode_return > chance.episode_return + 0.3


def test_the_random_agent_keeps_to_the_mask() -> None:
    rng = np.random.default_rng(0)
    masks = (rng.random((200, len(ACTIONS))) < 0.2).astype(np.int8)
    masks[:, 0] = 1
    actions = random_policy(seed=1)(rng.random((200, OBSERVATION_SIZE), dtype=np.float32), masks)
    assert masks[np.arange(200), actions].all()
    assert len(set(actions.tolist())) > 20


def test_the_goal_of_the_example_can_be_served() -> None:
    goals = load_goals(ROOT / "examples" / "own_goal.yaml")
    assert evaluate(handcrafted_policy, goals=goals, user="scripted", max_turns=12).success == 1.0


def test_intervals_hold_their_figure() -> None:
    assert wilson(0, 10)[0] == 0
    assert wilson(7, 10)[0] < 0.7 < wilson(7, 10)[1]
    values = np.array([0.0, 0.5, 1.0, 1.0])
    low, high = bootstrap(values)
    assert low <= values.mean() <= high
