"""PPO with action masks (sb3-contrib's MaskablePPO) on UGST-v0, from scratch, in one file.

Run ``python -m agents.ppo``: it trains, keeps a checkpoint, evaluates beside the random and the handcrafted agent, and
writes ``model.zip``, ``progress.jsonl``, ``learning_curve.png`` and ``figures.json``. Ctrl-C keeps what was learnt;
``--resume`` goes on.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import time
import zipfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_zip_file
from tqdm import tqdm

try:
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
except ImportError:
    sys.exit("agents.ppo needs sb3-contrib, which is not installed: pip install 'ugst-env[agents]'")

import ugst_env
from agents.evaluate import OneLineParser, Policy, Result, bar_interval, evaluate, print_table, results_table
from agents.handcrafted import handcrafted_policy
from agents.random_agent import random_policy
from ugst_env.envs.discrete import ActCore
from ugst_env.envs.sb3 import SB3VecEnv
from ugst_env.envs.setup import Setup, make_setup

ACTIVATION = torch.nn.Tanh
TEST_GOALS = "challenge:test"
OUT = Path("runs/ppo")


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Options:
    """Everything that can be set, each by the command-line option of its name."""

    out: Path = _option(OUT, "folder for everything that is written")  # noqa: RUF009
    user: str = _option("ugst-tiny", "the simulated user: ugst-tiny, scripted, hf:..., a .gguf file")
    goals: str = _option("challenge:train", "goals to train on")
    steering: bool = _option(True, "show the user its goal state")
    timesteps: int = _option(60_000, "environment steps to train for")
    minutes: float = _option(9.0, "stop training after this many minutes, resumed ones included")
    num_envs: int = _option(64, "conversations held at once")
    seed: int = _option(1, "seed of the training run and of the evaluation")
    resume: bool = _option(False, "go on with the run in the folder")
    eval_goals: int = _option(150, "test goals to evaluate on afterwards, 0 for no evaluation")
    n_steps: int = _option(8, "steps per conversation slot between two updates")
    batch_size: int = _option(256, "steps per gradient step")
    epochs: int = _option(8, "passes over the steps of an update")
    learning_rate: float = _option(1e-3, "Adam's step size at the start")
    final_learning_rate: float = _option(1e-4, "and at the end, reached linearly")
    gamma: float = _option(1.0, "discount per step")
    gae_lambda: float = _option(0.95, "of generalised advantage estimation")
    clip_range: float = _option(0.2, "of PPO's probability ratio")
    entropy: float = _option(0.01, "weight of the entropy bonus")
    hidden: int = _option(128, "width of both hidden layers")
    threads: int = _option(1, "torch threads; more are slower on networks this small")


# What may differ when a run is resumed; the rest has to stay as it was.
RESUMABLE = ("out", "timesteps", "minutes", "resume", "eval_goals", "threads")


def check(options: Options) -> None:
    """Refuse options that make no sense.

    Raises
    ------
    ValueError
        Naming the option, what was given and what is accepted.
    """
    for name in ("timesteps", "num_envs", "n_steps", "epochs", "hidden", "threads", "minutes", "learning_rate"):
        if not getattr(options, name) > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {getattr(options, name)}")
    for name in ("gamma", "gae_lambda"):
        if not 0 < getattr(options, name) <= 1:
            raise ValueError(f"--{name.replace('_', '-')} must be in (0, 1], got {getattr(options, name)}")
    for name in ("seed", "eval_goals", "final_learning_rate", "clip_range", "entropy"):
        if not getattr(options, name) >= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 0, got {getattr(options, name)}")
    if not 2 <= options.batch_size <= options.n_steps * options.num_envs:
        raise ValueError(
            f"--batch-size must be in 2..{options.n_steps * options.num_envs} (--n-steps times --num-envs), "
            f"got {options.batch_size}"
        )


def resumed(given: dict[str, Any], out: Path) -> Options:
    """The options of the run in `out`, with those of `given` that may change.

    Raises
    ------
    FileNotFoundError
        Where there is no run.
    ValueError
        For an option that cannot change on the way.
    """
    if not (out / "model.zip").is_file() or not (out / "config.json").is_file():
        raise FileNotFoundError(
            f"nothing to resume in {out}: it needs the model.zip and the config.json of an earlier run"
        )
    saved = json.loads((out / "config.json").read_text())
    known = {option.name for option in fields(Options)}
    options = replace(Options(), **{name: value for name, value in saved.items() if name in known})
    for name, value in given.items():
        if name not in RESUMABLE and value != getattr(options, name):
            raise ValueError(
                f"--{name.replace('_', '-')} was {getattr(options, name)} and cannot change when resuming, got {value}"
            )
    return replace(options, **given)


def make_model(options: Options, env: SB3VecEnv, trained_for: Callable[[], float]) -> MaskablePPO:
    """An untrained model; `trained_for` says how many seconds it was trained for, which the step size follows."""

    def learning_rate(progress_remaining: float) -> float:
        # Whichever limit will end the training: steps or minutes.
        left = max(0.0, min(progress_remaining, 1.0 - trained_for() / (60.0 * options.minutes)))
        return options.final_learning_rate + (options.learning_rate - options.final_learning_rate) * left

    return MaskablePPO(
        MaskableActorCriticPolicy,
        env,
        learning_rate=learning_rate,
        n_steps=options.n_steps,
        batch_size=options.batch_size,
        n_epochs=options.epochs,
        gamma=options.gamma,
        gae_lambda=options.gae_lambda,
        clip_range=options.clip_range,
        ent_coef=options.entropy,
        policy_kwargs={"net_arch": [options.hidden, options.hidden], "activation_fn": ACTIVATION},
        seed=options.seed,
        device="cpu",
    )


class Recorder(BaseCallback):
    """Follows the training: progress bar, ``progress.jsonl``, checkpoints, and the time limit."""

    def __init__(self, options: Options, clock: Callable[[], float], bar: tqdm[Any]) -> None:
        super().__init__()
        self.options, self.clock, self.bar = options, clock, bar
        self._returns, self._turns = np.zeros(options.num_envs), np.zeros(options.num_envs, dtype=int)
        self._recent: deque[tuple[float, bool]] = deque(maxlen=200)
        self._episodes: list[tuple[float, bool, int]] = []
        self._errors = 0
        self._saved = time.monotonic()

    def _on_step(self) -> bool:
        self._returns += self.locals["rewards"]
        self._turns += 1
        for k in np.flatnonzero(self.locals["dones"]):
            info = self.locals["infos"][k]
            if info["outcome"] == "model_error":
                self._failed(info["error"])
            else:
                # The turn limit is part of the task and the observation holds the turn: nothing is to be had beyond it.
                info["TimeLimit.truncated"] = False
                self._episodes.append((float(self._returns[k]), bool(info["success"]), int(self._turns[k])))
                self._recent.append(self._episodes[-1][:2])
            self._returns[k], self._turns[k] = 0.0, 0
        self.bar.update(self.num_timesteps - self.bar.n)
        return self.clock() < 60.0 * self.options.minutes

    def _failed(self, error: str) -> None:
        self._errors += 1
        if self._errors == 1:
            self.bar.write(f"a conversation was cut off, as the user model failed: {error}", file=sys.stderr)

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self._saved > 15.0:
            save(self.model, self.options.out)
            self._saved = time.monotonic()

    def _on_rollout_end(self) -> None:
        if not self._episodes:
            return
        returns, successes, turns = zip(*self._episodes, strict=True)
        line = {
            "steps": self.num_timesteps,
            "seconds": round(self.clock(), 2),
            "episodes": len(self._episodes),
            "return": float(np.mean(returns)),
            "success": float(np.mean(successes)),
            "turns": float(np.mean(turns)),
            "errors": self._errors,
        }
        with (self.options.out / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._episodes = []
        recent = np.mean(self._recent, axis=0)
        self.bar.set_postfix_str(f"return {recent[0]:.2f}, success {recent[1]:.0%}", refresh=False)


def save(model: Any, out: Path) -> None:
    """Write ``model.zip`` so that a crash leaves either the old or the new one."""
    buffer = io.BytesIO()
    # The schedule holds the run's clock, and pickled code has no place in a file of weights.
    model.save(buffer, exclude=["learning_rate", "lr_schedule", "clip_range"])
    write_atomically(out / "model.zip", buffer.getvalue())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or what was there before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    os.replace(draft, path)


def steps_of(path: Path) -> int:
    """For how many steps a saved model was trained."""
    with zipfile.ZipFile(path) as archive:
        return int(json.loads(archive.read("data"))["num_timesteps"])


def load_policy(path: Path) -> Policy:
    """The greedy policy of a ``model.zip``, or of the run in a folder. It reads weights only and unpickles nothing.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no model for this environment.
    """
    if path.is_dir():
        path = path / "model.zip"
    if not path.is_file():
        raise FileNotFoundError(f"no model file {path}")
    try:
        weights: Any = load_from_zip_file(path, device="cpu", load_data=False)[1]["policy"]
        widths = [len(weights[f"mlp_extractor.policy_net.{layer}.weight"]) for layer in (0, 2)]
        network = MaskableActorCriticPolicy(
            ActCore.observation_space,
            ActCore.action_space,
            lambda _: 0.0,
            net_arch=widths,
            activation_fn=ACTIVATION,
        )
        network.load_state_dict(weights)
    except (ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a model that agents.ppo saved for this environment ({type(error).__name__})"
        ) from error
    network.set_training_mode(False)

    def act(observations: NDArray[np.float32], masks: NDArray[np.int8]) -> NDArray[np.int64]:
        actions, _ = network.predict(observations, deterministic=True, action_masks=masks)
        return np.asarray(actions, dtype=np.int64)

    return act


def read_progress(out: Path, *, until: int | None = None) -> list[dict[str, Any]]:
    """The lines of ``progress.jsonl``, those up to step `until`; a line that a crash cut short is left out."""
    path = out / "progress.jsonl"
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if until is None or line["steps"] <= until:
            lines.append(line)
    return lines


def train(options: Options, setup: Setup) -> float:
    """Train, or go on training, until steps or minutes are used up; return the seconds of all training so far."""
    out, done, before = options.out, 0, 0.0
    if options.resume:
        done = steps_of(out / "model.zip")
        kept = read_progress(out, until=done)
        before = kept[-1]["seconds"] if kept else 0.0
        write_atomically(out / "progress.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())
    config = {**asdict(options), "out": str(out)}
    write_atomically(out / "config.json", (json.dumps(config, indent=1) + "\n").encode())
    if done >= options.timesteps or before >= 60.0 * options.minutes:
        print(f"already trained for {done} steps in {before / 60:.1f} minutes; --timesteps and --minutes give it more")
        return before

    begin = time.monotonic()

    def clock() -> float:
        return before + time.monotonic() - begin

    env = SB3VecEnv(options.num_envs, user=setup.user, goals=setup.source, world=setup.world, steering=setup.steering)
    model = make_model(options, env, clock)
    if options.resume:
        model.set_parameters(str(out / "model.zip"), device="cpu")
        model.num_timesteps = done
        # Not the seed of the beginning, which would bring the same goals again.
        model.set_random_seed(options.seed + done)
    bar = tqdm(total=options.timesteps, initial=done, desc="training", unit="step", mininterval=bar_interval())
    recorder = Recorder(options, clock, bar)
    try:
        model.learn(options.timesteps - done, callback=recorder, reset_num_timesteps=not options.resume)
    finally:
        bar.close()
        save(model, out)
        env.close()
    return clock()


def draw(lines: Sequence[dict[str, Any]], results: Sequence[Result], path: Path, *, title: str) -> None:
    """Draw return and success over steps, with the evaluated agents as dashed lines."""
    steps = np.array([line["steps"] for line in lines])
    counts = np.array([line["episodes"] for line in lines], dtype=float)
    figure, axes = plt.subplots(2, 1, figsize=(7.5, 6.5), sharex=True, constrained_layout=True)
    rows = (("return", "return per episode", "episode_return"), ("success", "success rate", "success"))
    colours = {"random": "tab:gray", "handcrafted": "tab:green", "ppo": "tab:orange"}
    for axis, (key, label, name) in zip(axes, rows, strict=True):
        values = np.array([line[key] for line in lines])
        axis.plot(steps, values, color="tab:blue", alpha=0.25, linewidth=1)
        axis.plot(steps, smooth(values, counts), color="tab:blue", linewidth=2, label="PPO in training, exploring")
        for result in results:
            text = f"{result.agent}{', greedy' if result.agent == 'ppo' else ''}, test goals"
            axis.axhline(getattr(result, name), color=colours[result.agent], linestyle="--", linewidth=1.2, label=text)
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
    axes[1].set_ylim(-0.02, 1.02)
    axes[1].set_xlabel("environment steps")
    axes[1].legend(loc="lower right", fontsize=8)
    axes[0].set_title(title, fontsize=10)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def smooth(values: NDArray[np.float64], weights: NDArray[np.float64], *, width: int = 5) -> NDArray[np.float64]:
    """Weighted moving average over `width` points, fewer at the edges."""
    half = width // 2
    spans = [slice(max(0, k - half), k + half + 1) for k in range(len(values))]
    return np.array([np.average(values[span], weights=weights[span]) for span in spans])


def compare(options: Options, setup: Setup) -> tuple[list[Result], dict[str, float]]:
    """Evaluate random, handcrafted and PPO on the same test goals and seeds; return results and wall seconds."""
    policies = {
        "random": random_policy(seed=options.seed),
        "handcrafted": handcrafted_policy,
        "ppo": load_policy(options.out / "model.zip"),
    }
    results, seconds = [], {}
    for name, policy in policies.items():
        begin = time.monotonic()
        results.append(
            evaluate(
                policy,
                name=name,
                goals=TEST_GOALS,
                episodes=options.eval_goals,
                seeds=(options.seed,),
                num_envs=min(options.num_envs, 32),
                user=setup.user,
                steering=setup.steering,
                progress=True,
            )
        )
        seconds[name] = round(time.monotonic() - begin, 2)
    return results, seconds


def report(options: Options, results: Sequence[Result], training: float, evaluation: dict[str, float]) -> None:
    """Print the table, and write the figures and the learning curve."""
    lines = read_progress(options.out)
    steps = steps_of(options.out / "model.zip")
    if results:
        title = f"{TEST_GOALS}, {len(results[0].records)} goals, user {options.user}, PPO after {steps:,} steps"
        print_table(results_table(results, title=title))
    if lines:
        title = f"UGST-v0, user {options.user}, seed {options.seed}"
        draw(lines, results, options.out / "learning_curve.png", title=title)
    figures = {
        "results": [result.to_json(records=False) for result in results],
        "config": {**asdict(options), "out": str(options.out)},
        "seed": options.seed,
        "steps": steps,
        "wall_seconds": {"training": round(training, 2), "evaluation": evaluation},
        "steps_per_second": round(steps / training, 1) if training else None,
        "versions": {
            "python": platform.python_version(),
            "ugst-env": ugst_env.__version__,
            "gymnasium": gymnasium.__version__,
            **{name: version(name) for name in ("numpy", "stable-baselines3", "sb3-contrib", "torch", "transformers")},
        },
    }
    write_atomically(options.out / "figures.json", (json.dumps(figures, indent=1) + "\n").encode())
    files = ", ".join(sorted(path.name for path in options.out.iterdir()))
    print(f"trained {steps:,} steps in {training / 60:.1f} minutes; files in {options.out}/: {files}")


def make_room(out: Path) -> None:
    """Make the folder for a new run, moving an earlier one out of the way.

    Raises
    ------
    ValueError
        If there is something else in its place.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, but {out} is a file")
    if (out / "model.zip").exists() or (out / "progress.jsonl").exists():
        number = 1
        while (kept := out.with_name(f"{out.name}.{number}")).exists():
            number += 1
        out.rename(kept)
        print(f"the earlier run in {out} is now in {kept}")
    out.mkdir(parents=True, exist_ok=True)


def parse(argv: Sequence[str] | None, parser: argparse.ArgumentParser) -> Options:
    """Options from the command line, and with ``--resume`` from the earlier run's."""
    for option in fields(Options):
        flag = f"--{option.name.replace('_', '-')}"
        text = f"{option.metadata['help']} (default: {option.default})"
        if isinstance(option.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(flag, type=type(option.default), default=argparse.SUPPRESS, help=text)
    given = vars(parser.parse_args(argv))
    if isinstance(given.get("out"), Path):
        given["out"] = given["out"].expanduser()
    options = resumed(given, given.get("out", Options.out)) if given.get("resume") else replace(Options(), **given)
    options = replace(options, out=Path(options.out))
    check(options)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = OneLineParser(prog="agents.ppo", description="Train MaskablePPO on UGST-v0 and evaluate it.")
    try:
        options = parse(argv, parser)
        # The networks here are tiny: a second thread costs more in waiting than it saves.
        torch.set_num_threads(options.threads)
        setup = make_setup(user=options.user, goals=options.goals, steering=options.steering)
        if options.resume:
            load_policy(options.out)
        else:
            make_room(options.out)
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped before training began\n")
    try:
        training = train(options, setup)
        results, evaluation = compare(options, setup) if options.eval_goals else ([], {})
        report(options, results, training, evaluation)
    except KeyboardInterrupt:
        model = options.out / "model.zip"
        if not model.is_file():
            parser.exit(130, f"{parser.prog}: stopped before training began\n")
        parser.exit(
            130,
            f"{parser.prog}: stopped; the model after {steps_of(model)} steps is in {model}, "
            f"and this goes on: python -m agents.ppo --out {options.out} --resume\n",
        )


if __name__ == "__main__":
    main()
