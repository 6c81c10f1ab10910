"""How much of the model's own speed the environment leaves. Run ``python benchmarks/throughput.py``.

The same conversations are held in every way: same seeds, same clerk, `--turns` user turns in all.

* limit: the model alone. The batches of *vector* once more, as ready-made token ids, with nothing around them: no text,
  no world, no tracker.
* equal rows: the model at its best. As many new tokens read and as many written, but all rows of a batch equally long,
  which no conversation offers. The faster of two: transformers' forward pass with its own cache, and `CausalModel`.
* vector: ``gym.make_vec("UGST-v0")``.
* no re-use: the same env, whose model reads the whole conversation at every turn (transformers' `generate`).
* sync: `SyncVectorEnv` of single envs that share one model.
* async: `AsyncVectorEnv`, a process per env; the model is loaded before they are forked.

Everything is bound to `--cores` cores, the processes of *async* included. Rounds go through all ways in turn, and
ratios are taken within a round. Memory is what an env adds to the resident memory of this process and its children,
what they share counted once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from ugst_env.models.causal import CausalModel, Prompt, sample
from ugst_env.training.clerks import handcrafted
from ugst_env.users.loading import load_user

WAYS = ("limit", "equal rows", "vector", "no re-use", "sync", "async")


class Watched:
    """A `CausalModel` that notes what it does."""

    def __init__(self, model: CausalModel) -> None:
        self.inner = model
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self.seconds = 0.0
        self.turns = self.openings = self.first = self.more = self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def forget(self, keys: Iterable[str]) -> None:
        self.calls.append(("forget", tuple(keys), {}))
        self.inner.forget(self.calls[-1][1])

    def generate(self, prompts: Sequence[Prompt], **options: Any) -> list[list[int]]:
        known, before, began = set(self.inner.cached_keys), self.inner.tokens, time.perf_counter()
        replies = self.inner.generate(prompts, **options)
        self.seconds += time.perf_counter() - began
        self.calls.append(("generate", list(prompts), options))
        opened = [prompt for prompt in prompts if prompt.key not in known]
        written = sum(map(len, replies))
        read = self.inner.tokens - before - (written - len(replies))  # The last token of a reply is not read.
        first = sum(len(prompt.ids) for prompt in opened)
        self.turns += len(prompts)
        self.openings += len(opened)
        self.first += first
        self.more += read - first
        self.written += written
        return replies


class _Bans(LogitsProcessor):
    def __init__(self, banned: torch.Tensor) -> None:
        self.banned = banned

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return scores.masked_fill(self.banned, -torch.inf)


class Regenerating:
    """A model that keeps nothing from turn to turn: transformers' `generate` on the whole conversation."""

    def __init__(self, model: CausalModel) -> None:
        self.inner = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        stop_ids: frozenset[int] = frozenset(),
    ) -> list[list[int]]:
        stops = self.inner.eos_ids | stop_ids
        longest = max(len(prompt.ids) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        seen = torch.zeros_like(ids)
        banned = torch.zeros(len(prompts), self.inner.vocabulary, dtype=torch.bool)
        for k, prompt in enumerate(prompts):
            ids[k, longest - len(prompt.ids) :] = torch.tensor(prompt.ids)
            seen[k, longest - len(prompt.ids) :] = 1
            banned[k, list(prompt.banned)] = True
        torch.manual_seed(prompts[0].seed % 2**63)
        found = self.inner.model.generate(
            ids,
            attention_mask=seen,
            max_new_tokens=max_new_tokens,
            use_cache=True,
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
            eos_token_id=sorted(stops),
            pad_token_id=min(stops),
            logits_processor=LogitsProcessorList([_Bans(banned)]),
        )[:, longest:].tolist()
        ends = [next((k for k, token in enumerate(reply) if token in stops), len(reply) - 1) for reply in found]
        return [reply[: end + 1] for reply, end in zip(found, ends, strict=True)]


# ----------------------------------------------------------------------------------------------------------------- ways


def hold(envs: VectorEnv[Any, Any, Any], steps: int) -> tuple[float, int]:
    """Step a vector env with the handcrafted clerk: seconds within it, and the user turns of that time."""
    began = time.perf_counter()
    observations, infos = envs.reset(seed=0)
    seconds = time.perf_counter() - began
    turns, over = envs.num_envs, np.zeros(envs.num_envs, dtype=bool)
    for _ in range(steps):
        actions = np.array([handcrafted(o, m) for o, m in zip(observations, infos["action_mask"], strict=True)])
        began = time.perf_counter()
        observations, _, terminated, truncated, infos = envs.step(actions)
        seconds += time.perf_counter() - began
        # The user speaks in every step but the agent's last: a step that ends by the limit, or by the agent's goodbye.
        ended = terminated | truncated
        turns += int((over | ~ended).sum()) + sum(
            infos["outcome"][k] == "user_ended" for k in np.flatnonzero(ended & ~over)
        )
        over = ended
    return seconds, turns


def spread(total: int, count: int) -> list[int]:
    """`total` as `count` whole numbers, as equal as can be."""
    return [total * (k + 1) // count - total * k // count for k in range(count)]


def rounds_of(work: Watched, num_envs: int) -> list[tuple[bool, int, int]]:
    """The batches of equal rows: whether conversations begin, and how many tokens each row reads and writes."""
    count = max(1, round(work.turns / num_envs))
    opening = max(1, round(work.openings / num_envs))
    first = spread(round(work.first / num_envs), opening)
    more = spread(round(work.more / num_envs), count - opening) if count > opening else []
    written = spread(round(work.written / num_envs), count)
    batches, length = [], -(-count // opening)
    for k in range(count):
        begins = k % length == 0 and bool(first)
        read = first.pop() if begins else more.pop() if more else 1
        batches.append((begins, max(1, read), max(1, written[k])))
    return batches


def limit(work: Watched) -> float:
    """Seconds of the same calls again."""
    work.inner.clear()
    began = time.perf_counter()
    for name, given, options in work.calls:
        getattr(work.inner, name)(given, **options)
    seconds = time.perf_counter() - began
    work.inner.clear()
    return seconds


@torch.inference_mode()
def equal_in_transformers(user: Any, batches: Iterable[tuple[bool, int, int]], rows: int) -> float:
    model, cache = user.model.model, DynamicCache()
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    for begins, read, written in batches:
        if begins:
            cache = DynamicCache()
        ids = torch.from_numpy(rng.integers(user.model.vocabulary, size=(rows, read)))
        for _ in range(written):
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()
            tokens = sample(logits, rng.random(rows), temperature=user.temperature, top_p=user.top_p)
            ids = torch.tensor(tokens)[:, None]
    return time.perf_counter() - began


def equal_in_ours(user: Any, batches: Iterable[tuple[bool, int, int]], rows: int) -> float:
    # Nothing ends a reply, so that all are equally long.
    model = CausalModel(user.model.model, eos_ids=(), max_length=user.model.max_length)
    rng = np.random.default_rng(0)
    ids: list[tuple[int, ...]] = [()] * rows
    seconds = 0.0
    for k, (begins, read, written) in enumerate(batches):
        if begins:
            model.clear()
            ids = [()] * rows
        new = rng.integers(model.vocabulary, size=(rows, read)).tolist()
        ids = [(*old, *more) for old, more in zip(ids, new, strict=True)]
        prompts = [Prompt(str(row), ids[row], k) for row in range(rows)]
        began = time.perf_counter()
        replies = model.generate(prompts, max_new_tokens=written, temperature=user.temperature, top_p=user.top_p)
        seconds += time.perf_counter() - began
        ids = [(*old, *reply[:-1]) for old, reply in zip(ids, replies, strict=True)]
    return seconds


def make(way: str, num_envs: int, user: Any) -> VectorEnv[Any, Any, Any]:
    if way in ("vector", "no re-use"):
        return gym.make_vec("UGST-v0", num_envs=num_envs, user=user)  # type: ignore[return-value]
    makers = [lambda: gym.make("UGST-v0", user=user)] * num_envs
    if way == "sync":
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
    return AsyncVectorEnv(makers, context="fork", autoreset_mode=AutoresetMode.NEXT_STEP)


def memory() -> float:
    """MB of this process and its children, what they share counted once."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) / 2**20


def run(way: str, num_envs: int, steps: int, user: Any) -> tuple[dict[str, float], Any]:
    """Hold the conversations in one way; also the model that it used."""
    inner = user.model
    user.model = Watched(inner) if way == "vector" else Regenerating(inner) if way == "no re-use" else inner
    before = memory()
    envs = make(way, num_envs, user)
    try:
        seconds, turns = hold(envs, steps)
        grown = memory() - before
    finally:
        envs.close()
        inner.clear()
        used, user.model = user.model, inner
    return {"turns_per_second": turns / seconds, "seconds": seconds, "mb_per_env": grown / num_envs}, used


# ----------------------------------------------------------------------------------------------------------------- main


def measure(user: Any, num_envs: int, turns: int, ways: Sequence[str], bar: tqdm[Any]) -> dict[str, dict[str, float]]:
    """One round: every way once, and each as a share of the model's speed."""
    steps = max(6, turns // num_envs - 1)
    found: dict[str, dict[str, float]] = {}

    def begin(way: str) -> None:
        bar.update(bool(found))
        bar.set_description(f"{num_envs} envs, {way}")

    begin("vector")
    found["vector"], work = run("vector", num_envs, steps, user)
    found["vector"]["model_share"] = work.seconds / found["vector"]["seconds"]
    begin("limit")
    found["limit"] = {
        "turns_per_second": work.turns / limit(work),
        "read_per_turn": (work.first + work.more) / work.turns,
        "written_per_turn": work.written / work.turns,
    }
    if "equal rows" in ways:
        begin("equal rows")
        batches = rounds_of(work, num_envs)
        seconds = min(each(user, batches, num_envs) for each in (equal_in_transformers, equal_in_ours))
        found["equal rows"] = {"turns_per_second": len(batches) * num_envs / seconds}
    for way in ("no re-use", "sync", "async"):
        if way in ways:
            begin(way)
            found[way], _ = run(way, num_envs, steps, user)
    bar.update()
    for of in ("limit", "equal rows"):
        for row in found.values():
            if of in found:
                row[f"share_of_{of.replace(' ', '_')}"] = row["turns_per_second"] / found[of]["turns_per_second"]
    return found


def summary(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Medians over rounds, and the least and the greatest shares."""
    found: dict[str, dict[str, Any]] = {}
    for way in rounds[0]:
        rows = [each[way] for each in rounds]
        found[way] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for key in ("share_of_limit", "share_of_equal_rows"):
            if key in rows[0]:
                found[way][f"{key}_range"] = [min(row[key] for row in rows), max(row[key] for row in rows)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="How much of the model's own speed the environment leaves.")
    parser.add_argument("--user", default="ugst-tiny", help="a user model that runs here (ugst-tiny)")
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--turns", type=int, default=512, help="user turns of a run, but at least 7 of each env (512)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--cores", type=int, default=1, help="cores that everything is bound to (1)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.cores :])
    torch.set_num_threads(options.cores)
    user: Any = load_user(options.user, None, None)  # type: ignore[arg-type]
    if not isinstance(getattr(user, "model", None), CausalModel):
        parser.error(f"--user must be a model that runs in this process, got {options.user!r}")
    hold(make("vector", 2, user), 3)
    user.model.clear()
    results: dict[int, list[dict[str, dict[str, float]]]] = {count: [] for count in options.envs}
    total = options.rounds * len(options.envs) * len({*options.ways, "limit", "vector"})
    with tqdm(total=total, unit="run") as bar:
        for _ in range(options.rounds):
            for count in options.envs:
                results[count].append(measure(user, count, options.turns, options.ways, bar))
    table = Table(title=f"User turns per second, {options.user}, {options.cores} core(s)", title_justify="left")
    for column in ("envs", "way", "turns/s", "of the limit, %", "of equal rows, %", "MB per env"):
        table.add_column(column, justify="left" if column == "way" else "right")

    def share(row: dict[str, Any], key: str) -> str:
        if key not in row:
            return ""
        least, most = row[f"{key}_range"]
        return f"{100 * row[key]:.0f} [{100 * least:.0f}, {100 * most:.0f}]"

    found = {count: summary(rounds) for count, rounds in results.items()}
    for count, ways in found.items():
        for way in (way for way in WAYS if way in ways):
            row = ways[way]
            mb = f"{row['mb_per_env']:.1f}" if "mb_per_env" in row else ""
            shares = share(row, "share_of_limit"), share(row, "share_of_equal_rows")
            table.add_row(str(count), way, f"{row['turns_per_second']:.1f}", *shares, mb)
        table.add_section()
    Console().print(table)
    for count, ways in found.items():
        rest = 100 * (1 - ways["vector"]["model_share"])
        print(f"{count} envs: {rest:.1f} % of the vector env's time is spent outside its model")
    if options.json:
        text = json.dumps(
            {"options": {name: given for name, given in vars(options).items() if name != "json"}, "envs": found},
            indent=1,
        )
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
