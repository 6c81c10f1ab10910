"""Evaluate an agent on a Ray cluster: every goal has a result at the end, or is named as missing.

    python examples/cluster/evaluate.py --address auto --agent handcrafted --out runs/evaluation.jsonl

Goals go out in parts of `--part` conversations. What a part found is appended to `--out` when it is finished; the parts
of a worker or a node that dies are given to others. The same command goes on where an earlier run was stopped. Exits
with 1 if a goal is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from tqdm import tqdm

from agents.evaluate import EpisodeRecord, evaluate, find_policy, results_table, summarise
from ugst_env.envs.setup import make_setup

Job = tuple[int, int]


@ray.remote(max_retries=-1)
def play(agent: str, jobs: Sequence[Job], arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of some conversations, each named by its seed and its goal."""
    _, policy = find_policy(agent)
    found = evaluate(policy, name=agent, speaks=agent.startswith("llm:"), jobs=jobs, num_envs=len(jobs), **arguments)
    return [asdict(record) for record in found.records]


def evaluate_on_cluster(
    agent: str, jobs: Sequence[Job], out: Path, *, part: int = 16, tries: int = 3, **arguments: Any
) -> list[EpisodeRecord]:
    """Play all jobs that `out` does not have yet; return what it then has of `jobs`, in their order.

    Parameters
    ----------
    agent
        As in `agents.evaluate.find_policy`; files that it names must be there on every node.
    jobs
        ``(seed, goal)`` of each conversation.
    out
        A JSONL file with a record per conversation, appended to.
    part
        How many conversations a worker holds at once.
    tries
        How often a part is tried whose code raises an error. Deaths of workers and nodes do not count.
    **arguments
        Passed to `agents.evaluate.evaluate`: goals, user, max_turns and so on.
    """
    have = {(record.seed, record.goal): record for record in read(out)}
    todo = [job for job in jobs if job not in have]
    parts = [todo[k : k + part] for k in range(0, len(todo), part)]
    running = {play.remote(agent, jobs_of, arguments): (jobs_of, 1) for jobs_of in parts}
    with out.open("a", encoding="utf-8") as file, tqdm(total=len(jobs), initial=len(jobs) - len(todo)) as bar:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            jobs_of, tried = running.pop(done)
            try:
                rows = ray.get(done)
            except ray.exceptions.RayError as error:
                if tried < tries:
                    running[play.remote(agent, jobs_of, arguments)] = (jobs_of, tried + 1)
                else:
                    bar.write(f"given up after {tries} tries: {jobs_of}: {error}")
                continue
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
            have |= {(row["seed"], row["goal"]): EpisodeRecord(**row) for row in rows}
            bar.update(len(rows))
    return [have[job] for job in jobs if job in have]


def read(out: Path) -> list[EpisodeRecord]:
    """The records of a file; a last line that was cut off is dropped from it."""
    if not out.exists():
        return []
    text = out.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        out.write_text(whole, encoding="utf-8")
    return [EpisodeRecord(**json.loads(line)) for line in whole.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--address", help="of a Ray cluster, such as auto; without one, this machine")
    parser.add_argument("--agent", default="handcrafted", help="as in python -m agents.evaluate (handcrafted)")
    parser.add_argument("--goals", default="challenge:test")
    parser.add_argument("--user", default="ugst-tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--part", type=int, default=16, help="conversations that a worker holds at once (16)")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file for the records")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    ray.init(address=options.address, include_dashboard=False, log_to_driver=False)
    count = len(make_setup(goals=options.goals, user="scripted").fixed)
    if not count:
        parser.error(f"the goals {options.goals!r} are endless; name those of a file, challenge:val or challenge:test")
    jobs = [(seed, goal) for seed in options.seeds for goal in range(count)]
    records = evaluate_on_cluster(
        options.agent, jobs, options.out, part=options.part, goals=options.goals, user=options.user
    )
    if records:
        table = results_table([summarise(options.agent, records, steps_per_second=float("nan"))])
        Console().print(table)
    missing = sorted(set(jobs) - {(record.seed, record.goal) for record in records})
    if missing:
        sys.exit(f"{len(missing)} of {len(jobs)} conversations are missing, as (seed, goal): {missing}")


if __name__ == "__main__":
    main()
