"""Whether a long run stays as it began. Run ``python benchmarks/long_run.py``.

Holds `--envs` conversations for `--steps` steps in all, and notes along the way resident memory (MB), open file
descriptors and steps per second. Exits with 1 if after the first fifth memory grew by more than 5 %, or the number of
file descriptors at all. The digest is over all observations and rewards: the same seed gives the same one.
Ctrl-C ends the run and reports what there is.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import ugst_env  # noqa: F401  registers UGST-v0
from ugst_env.training.clerks import handcrafted

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SAMPLES = 50
WARM_UP = 0.2
MOST_GROWTH = 0.05


def hold(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Step the environments, adding to `found` as it goes."""
    process, digest = psutil.Process(), hashlib.sha256()
    envs = gym.make_vec("UGST-v0", num_envs=options.envs, user=options.user)
    observations, infos = envs.reset(seed=options.seed)
    began = at = time.perf_counter()
    done = last = 0
    try:
        with tqdm(total=options.steps, unit="step") as bar:
            while done < options.steps:
                actions = np.array([handcrafted(o, m) for o, m in zip(observations, infos["action_mask"], strict=True)])
                asked = time.perf_counter()
                observations, rewards, terminated, truncated, infos = envs.step(actions)
                found["seconds_in_step"] += time.perf_counter() - asked
                done += options.envs
                for part in (observations, rewards, terminated, truncated):
                    digest.update(np.ascontiguousarray(part).tobytes())
                found["episodes"] += int((terminated | truncated).sum())
                found["model_errors"] += sum(o == "model_error" for o in infos.get("outcome", ()))
                if done - last >= options.steps / SAMPLES or done >= options.steps:
                    gc.collect()
                    now = time.perf_counter()
                    found["samples"].append(
                        {
                            "steps": done,
                            "mb": process.memory_info().rss / 2**20,
                            "descriptors": process.num_fds() if hasattr(process, "num_fds") else 0,
                            "steps_per_second": (done - last) / (now - at),
                        }
                    )
                    at, last = now, done
                bar.update(options.envs)
    finally:
        envs.close()
        found |= {"steps": done, "seconds": time.perf_counter() - began, "digest": digest.hexdigest()[:16]}


def grown(samples: list[dict[str, float]], key: str) -> tuple[float, float]:
    """The first value after the warm-up, and the greatest from there on."""
    warm = [sample[key] for sample in samples if sample["steps"] >= WARM_UP * samples[-1]["steps"]]
    return warm[0], max(warm)


def plot(samples: list[dict[str, float]], path: Path) -> None:
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(7, 6))
    labels = {"mb": "memory, MB", "descriptors": "file descriptors", "steps_per_second": "steps/s"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        axis.plot([sample["steps"] for sample in samples], [sample[key] for sample in samples])
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("steps")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether a long run stays as it began.")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of all environments together (100000)")
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--user", default="ugst-tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the figures go; a plot goes beside them")
    options = parser.parse_args()
    found: dict[str, Any] = {"episodes": 0, "model_errors": 0, "seconds_in_step": 0.0, "samples": []}
    stopped = False
    try:
        hold(options, found)
    except KeyboardInterrupt:
        stopped = True
    samples = found["samples"]
    if not samples:
        sys.exit(130)
    memory, most_memory = grown(samples, "mb")
    descriptors, most_descriptors = grown(samples, "descriptors")
    table = Table(
        title=f"{found['steps']:,} steps of {options.envs} environments, {options.user}", title_justify="left"
    )
    table.add_column("")
    table.add_column("after warm-up", justify="right")
    table.add_column("most from then on", justify="right")
    table.add_row("memory, MB", f"{memory:.0f}", f"{most_memory:.0f} ({100 * (most_memory / memory - 1):+.1f} %)")
    table.add_row("file descriptors", f"{descriptors:.0f}", f"{most_descriptors:.0f}")
    Console().print(table)
    print(
        f"{found['episodes']} episodes, {found['model_errors']} of them ended by a model error, "
        f"{found['steps'] / found['seconds']:.0f} steps/s, {found['steps'] / found['seconds_in_step']:.0f} without the "
        f"agent and what measures them, digest {found['digest']}"
    )
    if options.json:
        given = {name: value for name, value in vars(options).items() if name != "json"}
        options.json.write_text(json.dumps({"options": given, **found}, indent=1) + "\n", encoding="utf-8")
        plot(samples, options.json.with_suffix(".png"))
    if stopped:
        sys.exit(130)
    sys.exit(most_memory > (1 + MOST_GROWTH) * memory or most_descriptors > descriptors)


if __name__ == "__main__":
    main()
