"""How well `ugst-tiny` plays the user on what it never saw: test goals, reworded agents, and names of another world.

    python benchmarks/tiny_user.py [--model FOLDER] [--goals N] [--json OUT] [--multiwoz SHARED_DATA_FOLDER]

Every row holds one conversation per goal with the competent clerk. ``mean`` is the mean success over the five
categories, with a 95 % bootstrap interval over conversations.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.generation import display
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.goal import UserGoal
from ugst_env.goals.generator import challenge
from ugst_env.goals.multiwoz import load_multiwoz_goals
from ugst_env.metrics import Alignment, alignment, converse
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.users.protocol import UserSimulator
from ugst_env.users.scripted import ScriptedUser
from ugst_env.users.tiny import SHIPPED, TinyUser
from ugst_env.world.database import World

# Wordings that no training conversation has.
_REWORDED = {
    "request": (
        "Could you let me know the {slot} you have in mind for the {domain}?",
        "And which {slot} shall I put down for the {domain}?",
    ),
    "offer": ("My pick for you: {entity} ({facts}).", "May I point you to {entity}? Details: {facts}."),
    "offer_next": ("If that one will not do, consider {entity} ({facts}).",),
    "inform_requested": ("Here you go - {facts}.", "According to my list: {facts}."),
    "no_offer": ("My list has no {domain} of that sort, I fear.", "Nothing of the kind among our {domain}s."),
    "req_more": ("Would there be any other wish?", "Shall we look into something further?"),
    "pardon": ("Come again?",),
}  # fmt: skip


def reword(act: AgentAct, rng: random.Random) -> str | None:
    """An agent's act in words that the model was not trained on; None where only the usual wording will do."""
    options = _REWORDED.get(act.kind)
    if options is None:
        return None
    facts = ", ".join(f"{slot} {display(slot, value or 'not known')}" for slot, value in act.claims.items())
    entity = display("trainID" if act.domain == "train" else "name", act.entity or "")
    return rng.choice(options).format(slot=act.slot, domain=act.domain, entity=entity, facts=facts)


def interval(episodes: Sequence[Episode], seed: int = 0, draws: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over the five categories, resampling conversations."""
    rng = np.random.default_rng(seed)
    rates = [episode.state.success_rates() for episode in episodes]
    categories = sorted({category for row in rates for category in row}, key=str)
    table = np.array([[row.get(category, np.nan) for category in categories] for row in rates])
    picks = rng.integers(len(rates), size=(draws, len(rates)))
    means = np.nanmean(np.nanmean(table[picks], axis=1), axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def hold(
    user: UserSimulator, goals: Sequence[UserGoal], world: World, *, steering: bool, reworded: bool, seed: int
) -> list[Episode]:
    """One conversation per goal."""
    return converse(
        user,
        goals,
        VerifiableTracker(world),
        Vocabulary.from_world(world),
        steering=steering,
        seed=seed,
        reword=reword if reworded else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Goal alignment of the shipped user on what it never saw.")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--goals", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--multiwoz", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    options = parser.parse_args()
    world = World.load()
    goals = challenge("test", world)[: options.goals]
    tiny = TinyUser(options.model)
    rows: list[tuple[str, Alignment, tuple[float, float]]] = []

    def run(
        name: str,
        user: UserSimulator,
        chosen: Sequence[UserGoal],
        where: World,
        *,
        steering: bool,
        reworded: bool = False,
    ) -> None:
        episodes = hold(user, chosen, where, steering=steering, reworded=reworded, seed=options.seed)
        rows.append((name, alignment(episodes), interval(episodes)))

    run("scripted user", ScriptedUser(world, Vocabulary.from_world(world)), goals, world, steering=True)
    run("ugst-tiny, steering", tiny, goals, world, steering=True)
    run("ugst-tiny, no steering", tiny, goals, world, steering=False)
    run("ugst-tiny, steering, reworded clerk", tiny, goals, world, steering=True, reworded=True)
    if (options.multiwoz / "multiwoz_goals_val.json").exists():
        cambridge = World.from_multiwoz(options.multiwoz / "multiwoz_db")
        theirs, _ = load_multiwoz_goals(options.multiwoz / "multiwoz_goals_val.json", cambridge)
        run("ugst-tiny, steering, MultiWOZ names", tiny, theirs[: options.goals], cambridge, steering=True)
    else:
        print(f"no MultiWOZ data at {options.multiwoz}: its row is left out")

    table = Table(title=f"goal alignment, {len(goals)} test goals, seed {options.seed}")
    categories = ("profile", "policy", "objective", "requirement", "preference")
    for column in ("user", "mean [95 %]", *categories, "agent success", "turns"):
        table.add_column(column, justify="left" if column == "user" else "right")
    for name, found, (low, high) in rows:
        cells = [f"{found.rates[c]:.1%}" if c in found.rates else "-" for c in categories]
        table.add_row(
            name,
            f"{found.mean:.1%} [{low:.1%}, {high:.1%}]",
            *cells,
            f"{found.agent_success:.1%}",
            f"{found.turns:.1f}",
        )
    Console(width=160).print(table)
    if options.json:
        content = [{"user": name, "interval": [low, high], **asdict(found)} for name, found, (low, high) in rows]
        options.json.write_text(
            json.dumps({"goals": len(goals), "seed": options.seed, "rows": content}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
