"""Evaluate agents side by side: each goal once per seed, the same seeds for every agent.

Run ``python -m agents.evaluate --agents random handcrafted ppo:runs/ppo/model.zip``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ugst_env.envs.setup import Setup, make_setup
from ugst_env.envs.vector import DialogueVectorEnv, UGSTTextVectorEnv, UGSTVectorEnv
from ugst_env.goal import Category

Policy = Callable[[NDArray[np.float32], NDArray[np.int8]], NDArray[np.int64]]
"""Observations float32 (n, `OBSERVATION_SIZE`) and masks int8 (n, 44) to actions int64 (n,)."""

Speaker = Callable[[Sequence[tuple[Any, Any]]], list[str]]
"""``(info["messages"], info["tools"])`` of n conversations to n messages, for UGSTText-v0."""

BOOTSTRAP_SAMPLES = 10_000


@dataclass(frozen=True)
class EpisodeRecord:
    """One evaluated conversation.

    Parameters
    ----------
    goal
        Index of the goal, or the number of the draw where goals are endless.
    seed
        Which of the evaluation's seeds.
    episode_return, success, turns, trust
        Undiscounted return, whether the agent served the goal, number of its turns, trustworthy share of the goal.
    outcome
        How it ended, one of `ugst_env.tracking.verifiable.ENDINGS`.
    user_success
        The *user's* success rate per category, in [0, 1].
    failed
        What was not served or not kept, as counts ``{category: {cause: n}}``.
    """

    goal: int
    seed: int
    episode_return: float
    success: bool
    turns: int
    trust: float
    outcome: str
    user_success: dict[str, float]
    failed: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Result:
    """What an agent achieved. Intervals are 95 %, rates in [0, 1].

    Parameters
    ----------
    agent
        Its name.
    episode_return, return_interval
        Mean undiscounted return; percentile bootstrap over goals.
    success, success_interval
        Share of episodes in which the agent served the goal; Wilson score interval.
    turns
        Mean number of the agent's turns.
    steps_per_second
        Environment steps per second of wall time, the policy's and the user's time included.
    trust
        Mean share of a goal's weight that no fault of the simulated user spoilt.
    user_success, user_success_mean
        The simulated user's own success rate per category (mean over episodes), and the mean over categories.
    outcomes
        How many episodes ended how.
    failed
        Counts ``{category: {cause: n}}`` of the components that were not served or not kept.
    records
        The episodes, by seed and goal.
    """

    agent: str
    episode_return: float
    return_interval: tuple[float, float]
    success: float
    success_interval: tuple[float, float]
    turns: float
    steps_per_second: float
    trust: float
    user_success: dict[str, float]
    user_success_mean: float
    outcomes: dict[str, int]
    failed: dict[str, dict[str, int]]
    records: tuple[EpisodeRecord, ...]

    def to_json(self, *, records: bool = True) -> dict[str, Any]:
        """JSON-able; with `records`, the single episodes too."""
        data = asdict(self)
        if not records:
            del data["records"]
        return data


def wilson(hits: int, total: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a rate (Wilson 1927), 95 % unless `z` says otherwise."""
    if total == 0:
        return 0.0, 1.0
    rate = hits / total
    centre = rate + z * z / (2 * total)
    spread = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def bootstrap(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean; the same for the same `values`."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(BOOTSTRAP_SAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def evaluate(
    policy: Policy | Speaker,
    *,
    name: str = "agent",
    speaks: bool = False,
    goals: Any = "challenge:test",
    episodes: int | None = None,
    seeds: Sequence[int] = (1,),
    num_envs: int = 32,
    progress: bool = False,
    jobs: Sequence[tuple[int, int]] | None = None,
    **arguments: Any,
) -> Result:
    """Let a policy serve each goal once per seed.

    Parameters
    ----------
    policy
        Called with a batch of observations and masks; or, where it `speaks`, of conversations.
    name
        What to call the agent in the result.
    speaks
        Whether it acts on UGSTText-v0, in its own words, and not on UGST-v0.
    goals, **arguments
        Passed to the environment (`ugst_env.envs.setup.Setup`).
    episodes
        How many of the goals to use, the first ones; None for all. Where goals are endless, how many to draw.
    seeds
        Each gives every goal one conversation.
    num_envs
        How many conversations are held at once. It does not change the result.
    progress
        Whether to show a progress bar.
    jobs
        ``(seed, goal)`` of each conversation, where it is not to be every goal with every seed. A conversation does not
        depend on which others there are.

    Raises
    ------
    ValueError
        Without an episode to play, or where goals are endless and `episodes` is None.
    """
    if episodes is not None and episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    if not seeds or min(seeds) < 0:
        raise ValueError(f"seeds must be one or more whole numbers >= 0, got {list(seeds)}")
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    setup = make_setup(goals=goals, **arguments)
    if not setup.fixed and episodes is None:
        raise ValueError(f"the goals {goals!r} are endless: say with episodes how many to draw")
    count = min(episodes or len(setup.fixed), len(setup.fixed) or sys.maxsize)
    plan = list(jobs) if jobs is not None else [(seed, goal) for seed in seeds for goal in range(count)]
    if not plan or any(goal not in range(count) for _, goal in plan):
        raise ValueError(f"jobs must be (seed, goal) with goals in 0..{count - 1}, got {plan[:3]}")
    arguments["user"] = setup.user  # loaded once
    source = list(setup.fixed) if setup.fixed else setup.source
    kind = UGSTTextVectorEnv if speaks else UGSTVectorEnv
    envs = kind(min(num_envs, len(plan)), autoreset_mode=AutoresetMode.DISABLED, goals=source, **arguments)
    bar = tqdm(
        total=len(plan), desc=name, unit="episode", disable=not progress, mininterval=bar_interval(), leave=False
    )
    try:
        records, steps, seconds = _play(policy, envs, plan, bool(setup.fixed), bar)
    finally:
        bar.close()
        envs.close()
    return summarise(name, records, steps_per_second=steps / seconds)


def _play(
    policy: Any, envs: DialogueVectorEnv, plan: list[tuple[int, int]], indexed: bool, bar: tqdm[Any]
) -> tuple[list[EpisodeRecord], int, float]:
    """Play the plan, refilling a slot as soon as its episode is over; return records, environment steps and seconds."""
    n, queue = envs.num_envs, deque(plan)
    playing: list[tuple[int, int] | None] = [None] * n
    returns = np.zeros(n)
    shown: list[dict[str, Any]] = [{} for _ in range(n)]
    speaks = isinstance(envs, UGSTTextVectorEnv)
    over = np.ones(n, dtype=bool)
    records: list[EpisodeRecord] = []
    steps, begin = 0, time.perf_counter()
    while True:
        for k in np.flatnonzero(over):
            playing[k] = queue.popleft() if queue else None
        if not any(playing):
            break
        if over.any():
            # The slots that are left without work when the plan runs out go on with the last goal, and are not counted.
            jobs = [playing[k] or plan[-1] for k in range(n)]
            options: dict[str, Any] = {"reset_mask": over}
            if indexed:
                options["goals"] = [goal for _, goal in jobs]
            observations, infos = envs.reset(seed=[_episode_seed(*job) for job in jobs], options=options)
            returns[over] = 0.0
            for k in np.flatnonzero(over):
                shown[k] = _slot_info(infos, int(k))
        if speaks:
            actions = policy([(row["messages"], row["tools"]) for row in shown])
        else:
            actions = policy(observations, np.stack([row["action_mask"] for row in shown]))
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        shown = [_slot_info(infos, k) for k in range(n)]
        steps += n
        returns += rewards
        over = terminations | truncations
        for k in np.flatnonzero(over):
            job = playing[k]
            if job is not None:
                turns = sum(turn.agent is not None for turn in envs.cores[k].shown().conversation.turns)
                records.append(_record(job, float(returns[k]), turns, shown[k]))
                bar.update()
    records.sort(key=lambda record: (record.seed, record.goal))
    return records, steps, time.perf_counter() - begin


def _episode_seed(seed: int, goal: int) -> int:
    return int(np.random.SeedSequence([seed, goal]).generate_state(1)[0])


def _record(job: tuple[int, int], episode_return: float, turns: int, info: dict[str, Any]) -> EpisodeRecord:
    return EpisodeRecord(
        goal=job[1],
        seed=job[0],
        episode_return=episode_return,
        success=bool(info["success"]),
        turns=turns,
        trust=float(info["trust"]),
        outcome=str(info["outcome"]),
        user_success={category: float(rate) for category, rate in info["user_success"].items()},
        failed={
            category: {cause: int(n) for cause, n in causes.items()}
            for category, causes in info.get("failed", {}).items()
        },
    )


def _slot_info(infos: dict[str, Any], k: int) -> dict[str, Any]:
    """One slot's info out of Gymnasium's dict of arrays, in which ``_key`` says which slots have the key."""
    row: dict[str, Any] = {}
    for key, values in infos.items():
        if not key.startswith("_") and (f"_{key}" not in infos or infos[f"_{key}"][k]):
            row[key] = _slot_info(values, k) if isinstance(values, dict) else values[k]
    return row


def summarise(name: str, records: Sequence[EpisodeRecord], *, steps_per_second: float) -> Result:
    """The figures of a set of episodes."""
    returns = np.array([record.episode_return for record in records])
    by_goal: dict[int, list[float]] = {}
    for record in records:
        by_goal.setdefault(record.goal, []).append(record.episode_return)
    hits = sum(record.success for record in records)
    rates = {c.value: [r.user_success[c.value] for r in records if c.value in r.user_success] for c in Category}
    user_success = {category: float(np.mean(values)) for category, values in rates.items() if values}
    failed: dict[str, Counter[str]] = {}
    for record in records:
        for category, causes in record.failed.items():
            failed.setdefault(category, Counter()).update(causes)
    return Result(
        agent=name,
        episode_return=float(returns.mean()),
        # Conversations about one goal are alike, so the bootstrap draws goals, not conversations.
        return_interval=bootstrap(np.array([np.mean(values) for values in by_goal.values()])),
        success=hits / len(records),
        success_interval=wilson(hits, len(records)),
        turns=float(np.mean([record.turns for record in records])),
        steps_per_second=steps_per_second,
        trust=float(np.mean([record.trust for record in records])),
        user_success=user_success,
        user_success_mean=float(np.mean(list(user_success.values()))),
        outcomes=dict(Counter(record.outcome for record in records).most_common()),
        failed={category: dict(causes.most_common()) for category, causes in sorted(failed.items())},
        records=tuple(records),
    )


def results_table(results: Iterable[Result], *, title: str = "") -> Table:
    """The results as a rich table, an agent per row."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("agent", style="bold", no_wrap=True)
    for heading in ("return", "success, %", "turns", "user, %", "steps/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        low, high = result.return_interval
        worst, best = result.success_interval
        table.add_row(
            result.agent,
            f"{result.episode_return:.2f} [{low:.2f}, {high:.2f}]".replace("[", r"\["),
            f"{100 * result.success:.1f} [{100 * worst:.1f}, {100 * best:.1f}]".replace("[", r"\["),
            f"{result.turns:.1f}",
            f"{100 * result.user_success_mean:.1f}",
            f"{result.steps_per_second:.0f}",
        )
    table.caption = r"\[ ] 95 % intervals. user: how well the simulated user kept to its goal"
    table.caption_justify = "left"
    return table


def print_table(table: Table) -> None:
    """Print a table; where the output is no terminal, wide enough for all its columns."""
    console = Console()
    (console if console.is_terminal else Console(width=110)).print(table)


AGENTS = ("random", "handcrafted", "ppo:PATH", "llm:MODEL")


def find_policy(spec: str, *, seed: int = 1) -> tuple[str, Policy | Speaker]:
    """An agent's name and policy from what the command line calls it: one of `AGENTS`. An ``llm`` speaks.

    Raises
    ------
    ValueError, FileNotFoundError
        Saying what was given and what is accepted.
    """
    # Imported here, as these modules import this one.
    if spec == "random":
        from agents.random_agent import random_policy

        return spec, random_policy(seed=seed)
    if spec == "handcrafted":
        from agents.handcrafted import handcrafted_policy

        return spec, handcrafted_policy
    if spec.startswith("ppo:") and len(spec) > len("ppo:"):
        from agents.ppo import load_policy

        return "ppo", load_policy(Path(spec.removeprefix("ppo:")))
    if spec.startswith("llm:") and len(spec) > len("llm:"):
        from agents.llm import LLMAgent

        return spec, LLMAgent(spec.removeprefix("llm:"), seed=seed)
    raise ValueError(f"unknown agent {spec!r}; accepted: {', '.join(AGENTS)}")


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def bar_interval() -> float:
    """Seconds between two updates of a progress bar."""
    # A log file is no terminal: there, each update of the bar is a line of its own.
    return 0.2 if sys.stderr.isatty() else 20.0


def main(argv: Sequence[str] | None = None, *, default_agents: Sequence[str] = ("random", "handcrafted")) -> None:
    """Run the command line."""
    parser = OneLineParser(
        prog="agents.evaluate",
        description="Evaluate agents side by side on UGST-v0.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--agents", nargs="+", default=list(default_agents), help=", ".join(AGENTS))
    parser.add_argument("--user", default="ugst-tiny", help="the simulated user")
    parser.add_argument("--goals", default="challenge:test", help="challenge:train|val|test or a file")
    parser.add_argument("--judge", help="who judges goals in plain words: hf:NAME, a .gguf file, openai:NAME")
    parser.add_argument("--world", default="default", help="default, a folder with the tables of a world, or none")
    parser.add_argument("--episodes", type=_at_least(1), default=150, help="how many of the goals to use")
    parser.add_argument(
        "--seeds", type=_at_least(0), nargs="+", default=[1], help="each gives every goal one conversation"
    )
    parser.add_argument("--num-envs", type=_at_least(1), default=32, help="how many conversations are held at once")
    parser.add_argument(
        "--steering", action=argparse.BooleanOptionalAction, default=True, help="show the user its goal state"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(argv)
    # The networks here are tiny: a second thread costs more in waiting than it saves.
    torch.set_num_threads(1)
    try:
        policies, setup = _load(options, parser)
        results = [
            evaluate(
                policy,
                name=name,
                speaks=name.startswith("llm:"),
                user=setup.user,
                judge=setup.judge,
                world=setup.world,
                goals=options.goals,
                episodes=options.episodes,
                seeds=options.seeds,
                num_envs=options.num_envs,
                steering=options.steering,
                progress=True,
            )
            for name, policy in policies
        ]
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped; nothing was written\n")
    title = f"{options.goals}, {len(results[0].records)} episodes, user {options.user}"
    print_table(results_table(results, title=title))
    if options.json is not None:
        config = {key: value for key, value in vars(options).items() if key != "json"}
        data = {"config": config, "results": [result.to_json() for result in results]}
        options.json.write_text(json.dumps(data, indent=1) + "\n")


def _load(
    options: argparse.Namespace, parser: argparse.ArgumentParser
) -> tuple[list[tuple[str, Policy | Speaker]], Setup]:
    """Check what only a look at the disk can check, before any time is spent."""
    try:
        if options.json is not None and not options.json.parent.is_dir():
            raise FileNotFoundError(f"the folder of --json does not exist: {options.json.parent}")
        policies = [find_policy(spec, seed=options.seeds[0]) for spec in options.agents]
        world = None if options.world == "none" else options.world
        setup = make_setup(
            user=options.user, goals=options.goals, judge=options.judge, world=world, steering=options.steering
        )
        return policies, setup
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.error(str(error))


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return value

    return whole_number


if __name__ == "__main__":
    main()
