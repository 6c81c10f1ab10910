"""What the README tells a newcomer to copy and paste works."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ugst_env.cli import STAGES, main
from ugst_env.goals.files import load_goals

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_run(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_first_example_shows_the_conversation(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "user:" in done.stdout
    assert re.search(r"user_ended|agent_ended|turn_limit", done.stdout)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_goals_load(text: str, tmp_path: Path) -> None:
    path = tmp_path / "goal.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_goals(path)[0].objectives


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("python ")])
def test_python_commands_run(line: str) -> None:
    words = shlex.split(line, comments=True)
    if "understanding" in line and not SHARED.exists():
        pytest.skip(f"no MultiWOZ data at {SHARED}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("ugst ")])
def test_stages_take_their_options(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take hours, so only their arguments are tried; tests/test_training.py runs the stages."""
    _, stage, *options = shlex.split(line, comments=True)
    taken: list[object] = []
    monkeypatch.setattr(importlib.import_module(STAGES[stage][0]), "run", taken.append)
    assert main([stage, *options]) == 0
    assert len(taken) == 1


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_make_targets_exist(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_map_names_what_is_there() -> None:
    section = README.split("## The house")[1].split("## ")[0]
    for place in re.findall(r"`((?:ugst_env|agents|benchmarks|examples|tests)/[\w./-]*)`", section):
        assert (ROOT / place).exists(), f"the README's map names {place}, which is not there"
