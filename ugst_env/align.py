"""``ugst align``: how well user models keep to their goals, stage by stage, as arXiv 2507.20152 measures it.

Every finished conversation is appended to ``conversations.jsonl`` at once, so a run that is killed goes on with
``--resume`` without loss or duplicate, and with the same results. All figures are made from that file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ugst_env.envs.setup import check_domains, make_setup, vocabulary_of
from ugst_env.goal import Category, UserGoal
from ugst_env.goals.multiwoz import load_multiwoz_goals
from ugst_env.metrics import FAILURE_MODES, Talk, difference, figures, hold, lexical_richness, record
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.clerks import CLERKS
from ugst_env.training.collect import read_rows
from ugst_env.training.launch import own_folder
from ugst_env.users.loading import load_user
from ugst_env.users.protocol import UserSimulator
from ugst_env.world.database import World

STAGES = ("prompt", "repeat", "steering")
TRACE = "+trace"


@dataclass(frozen=True)
class AlignConfig:
    """All that decides what is measured.

    Raises
    ------
    ValueError
        For a number out of range, or an unknown name; it says which and what is accepted.
    """

    user: str = field(
        default="ugst-tiny",
        metadata={
            "help": "the simulated user: ugst-tiny, scripted, hf:NAME, a .gguf; LABEL=... names it in the report"
        },
    )
    against: tuple[str, ...] = field(default=(), metadata={"help": "other users, on the same goals and seeds"})
    stages: tuple[str, ...] = field(
        default=("prompt", "steering"),
        metadata={
            "help": "what the user is shown before a reply: prompt (nothing), repeat (its goal again, without any "
            "status), steering (the goal state); with +trace behind it reasons before it replies"
        },
    )
    goals: str = field(
        default="challenge:test",
        metadata={"help": "challenge:test|val|train, a goal file, or multiwoz:FILE with MultiWOZ's databases as world"},
    )
    world: str = field(default="default", metadata={"help": "default, or a folder with the tables of a world"})
    limit: int | None = field(default=None, metadata={"help": "only the first so many goals"})
    seeds: int = field(default=3, metadata={"help": "conversations per goal"})
    clerks: str = field(
        default="competent",
        metadata={"help": f"the clerk: one of {', '.join(CLERKS)}, or shares of turns: competent=0.6,wrong=0.4"},
    )
    max_turns: int = field(default=10, metadata={"help": "limit of user turns"})
    batch: int = field(default=64, metadata={"help": "conversations held at a time"})
    draws: int = field(default=2000, metadata={"help": "bootstrap samples"})
    out: Path = field(default=Path("runs/align"), metadata={"help": "folder for conversations, figures and plots"})
    resume: bool = field(default=False, metadata={"help": "go on in a folder that holds conversations already"})

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("max_turns", 1), ("batch", 1), ("draws", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not self.stages:
            raise ValueError(f"stages must name at least one of {', '.join(STAGES)}")
        for stage in self.stages:
            if stage.removesuffix(TRACE) not in STAGES:
                raise ValueError(
                    f"unknown stage {stage!r}; accepted: {', '.join(STAGES)}, each also with {TRACE} behind"
                )
        labels = [label for label, _ in self.users()]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"every user needs a name of its own, got {label!r} {labels.count(label)} times")
        clerk_mix(self.clerks)

    def users(self) -> list[tuple[str, str]]:
        """All users as (label, what `load_user` takes), the one in question first."""
        return [_labelled(text) for text in (self.user, *self.against)]


def _labelled(text: str) -> tuple[str, str]:
    label, sign, spec = text.partition("=")
    return (label, spec) if sign and spec and re.fullmatch(r"[\w .+-]+", label) else (text, text)


def clerk_mix(text: str) -> dict[str, float]:
    """The clerks in ``competent`` or ``competent=0.6,wrong=0.4``, with their shares of the turns.

    Raises
    ------
    ValueError
        For an unknown clerk, or shares that are no positive numbers.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, sign, share = (piece.strip() for piece in part.partition("="))
        if name not in CLERKS:
            raise ValueError(f"unknown clerk {name!r}; accepted: {', '.join(CLERKS)}")
        try:
            mix[name] = float(share) if sign else 1.0
        except ValueError:
            mix[name] = 0.0
        if not 0 < mix[name] < float("inf"):
            raise ValueError(f"clerks must be shares such as competent=0.6,wrong=0.4, got {text!r}")
    return mix


# -------------------------------------------------------------------------------------------------------- conversations


def choose_goals(config: AlignConfig) -> tuple[tuple[UserGoal, ...], World]:
    """The goals of a run, and the world in which they are pursued.

    Raises
    ------
    ValueError, FileNotFoundError
        If there is no goal, or no such file; for endless goals without a limit.
    """
    if config.goals.startswith("multiwoz:"):
        if config.world == "default":
            raise ValueError("goals of MultiWOZ need its databases: give their folder as world")
        world = World.from_multiwoz(config.world)
        goals, _ = load_multiwoz_goals(config.goals.removeprefix("multiwoz:"), world)
        check_domains(goals, world)
    else:
        setup = make_setup(user="scripted", goals=config.goals, world=config.world, max_turns=config.max_turns)
        world, goals = setup.world, setup.fixed
        if not goals:
            if config.limit is None:
                raise ValueError(f"{config.goals} are endless: say by limit how many to take")
            goals = tuple(setup.source(Random(f"align/{k}")) for k in range(config.limit))
    goals = goals[: config.limit]
    if not goals:
        raise ValueError(f"there is no goal to measure in {config.goals}")
    return goals, world


_FIXED = ("goals", "world", "clerks", "max_turns")


def _check_folder(config: AlignConfig, goals: Sequence[UserGoal]) -> None:
    """See to it that what is in the folder of a run was held under the same conditions.

    Raises
    ------
    ValueError
        If it was held under others.
    """
    out = config.out
    settings = out / "config.json"
    if settings.is_file():
        earlier = json.loads(settings.read_text(encoding="utf-8"))
        specs = dict(map(_labelled, (earlier["user"], *earlier["against"])))
        for name in _FIXED:
            if earlier[name] != getattr(config, name):
                raise ValueError(f"{out} was begun with {name}={earlier[name]!r}, got {getattr(config, name)!r}")
        for label, spec in config.users():
            if specs.get(label, spec) != spec:
                raise ValueError(f"{out} was begun with {specs[label]!r} as user {label!r}, got {spec!r}")
    for told in read_rows(out / "conversations.jsonl"):
        number, goal = told["number"], told["goal"]
        if number < len(goals) and goals[number].id != goal:
            raise ValueError(f"{out} was begun with other goals: number {number} was {goal!r}, is {goals[number].id!r}")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    os.replace(part, path)


def _load(label: str, spec: str, world: World, stages: tuple[str, ...]) -> tuple[UserSimulator, tuple[str, ...]]:
    """A user, and the stages that are possible with it: one that always sees the goal state has just one."""
    try:
        user = load_user(spec, world, vocabulary_of(world))
    except (OSError, ValueError) as error:
        raise ValueError(f"the user {label!r} cannot be loaded: {error}") from error
    if getattr(user, "needs_state", False):
        return user, ("steering",)
    if any(stage.endswith(TRACE) for stage in stages) and not hasattr(user, "trace"):
        raise ValueError(f"the user {label!r} knows no reasoning trace; measure it without {TRACE}")
    return user, stages


@contextmanager
def _reasoning(user: UserSimulator, stage: str) -> Iterator[None]:
    """Let a user reason before it replies, if the stage wants it to; models are shared, so only for a while."""
    if not stage.endswith(TRACE):
        yield
        return
    before = user.trace  # type: ignore[attr-defined]
    user.trace = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        user.trace = before  # type: ignore[attr-defined]


def _talks(
    config: AlignConfig, goals: tuple[UserGoal, ...], world: World, stage: str, missing: list[tuple[int, int]], key: str
) -> Iterator[Talk]:
    tracker, vocabulary = VerifiableTracker(world), vocabulary_of(world)
    for number, seed in missing:
        yield Talk.begin(
            goals[number],
            tracker,
            vocabulary,
            seed=seed,
            number=number,
            key=f"{key}/{number}/{seed}",
            steering=stage.startswith("steering"),
            repeat=stage.startswith("repeat"),
            max_turns=config.max_turns,
        )


def converse_all(config: AlignConfig) -> list[tuple[str, str]]:
    """Hold the conversations that are missing in ``conversations.jsonl``.

    Returns
    -------
    list of (str, str)
        The user and stage of every row of the report, in order.

    Raises
    ------
    ValueError, FileNotFoundError, FileExistsError
        For bad input, see `AlignConfig` and `choose_goals`.
    """
    goals, world = choose_goals(config)
    lexical_richness()
    # Everything is loaded once before the first word, so that a missing model is told at once and not after hours.
    possible = {label: _load(label, spec, world, config.stages)[1] for label, spec in config.users()}
    rows = [(label, stage) for label, _ in config.users() for stage in dict.fromkeys(possible[label])]
    with own_folder(config.out, resume=config.resume):
        _check_folder(config, goals)
        write_json(config.out / "config.json", asdict(config))
        _hold_missing(config, goals, world, rows)
    return rows


def _hold_missing(
    config: AlignConfig, goals: tuple[UserGoal, ...], world: World, rows: Sequence[tuple[str, str]]
) -> None:
    path = config.out / "conversations.jsonl"
    held = {(told["user"], told["stage"], told["number"], told["seed"]) for told in read_rows(path)}
    wanted = [(number, seed) for seed in range(config.seeds) for number in range(len(goals))]
    specs = dict(config.users())
    done = sum((*row, *pair) in held for row in rows for pair in wanted)
    with (
        tqdm(total=len(rows) * len(wanted), initial=done, desc="conversations", unit="conv") as bar,
        path.open("a", encoding="utf-8") as file,
    ):
        for label, stage in rows:
            missing = [pair for pair in wanted if (label, stage, *pair) not in held]
            if not missing:
                continue
            bar.set_postfix_str(f"{label}, {stage}")
            user, _ = _load(label, specs[label], world, config.stages)
            with _reasoning(user, stage):
                talks = _talks(config, goals, world, stage, missing, f"{label}/{stage}")
                for talk in hold(user, talks, clerks=clerk_mix(config.clerks), batch=config.batch):
                    told = {"user": label, "stage": stage, **record(talk)}
                    file.write(json.dumps(told, ensure_ascii=False) + "\n")
                    file.flush()
                    bar.update()


# --------------------------------------------------------------------------------------------------------------- report


def name_row(user: str, stage: str) -> str:
    """How a user at a stage is called in tables and plots; of a path, its last two parts."""
    short = user if len(user) <= 24 else "/".join(Path(user.removeprefix("hf:")).parts[-2:])
    return f"{short}, {stage}"


def report(config: AlignConfig, rows: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """All figures of a run, from its conversations: of every row, and the differences between rows.

    Each row is compared with the first one, and each user of `against` with the one in question at the same stage.

    Returns
    -------
    dict
        JSON-able: ``config``, ``rows`` (``user``, ``stage`` and `figures`) and ``differences`` (``row`` and
        ``baseline`` as [user, stage], and `difference`).
    """
    told: dict[tuple[str, str], list[dict[str, Any]]] = {row: [] for row in rows}
    for conversation in read_rows(config.out / "conversations.jsonl"):
        place = (conversation["user"], conversation["stage"])
        beyond = conversation["seed"] >= config.seeds or conversation["number"] >= (config.limit or float("inf"))
        if place in told and not beyond:
            told[place].append(conversation)
    for conversations in told.values():
        # The order in which conversations end depends on what else is in the batch.
        conversations.sort(key=lambda c: (c["seed"], c["number"]))
    first = config.users()[0][0]
    pairs = [(row, rows[0]) for row in rows[1:]]
    pairs += [(row, (first, row[1])) for row in rows if row[0] != first and (first, row[1]) in rows[1:]]
    return {
        "config": json.loads(json.dumps(asdict(config), default=str)),
        "rows": [
            {"user": user, "stage": stage, **figures(told[user, stage], max_turns=config.max_turns, draws=config.draws)}
            for user, stage in rows
        ],
        "differences": [
            {"row": list(row), "baseline": list(base), **difference(told[row], told[base], draws=config.draws)}
            for row, base in pairs
        ],
    }


def _percent(figure: Mapping[str, float | None] | None, *, wide: bool = False, sign: bool = False) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    low, high, plus = figure["low"], figure["high"], "+" if sign else ""
    shown = f"{100 * figure['value']:{plus}.1f}"
    return f"{shown}\n[{100 * (low or 0):{plus}.1f}, {100 * (high or 0):{plus}.1f}]" if wide else shown


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_CATEGORIES = tuple(category.value for category in Category)
_MODES = {mode: mode.replace("_", " ") for mode in FAILURE_MODES}


def tables(content: Mapping[str, Any]) -> list[Table]:
    """The figures of `report` as tables for the terminal."""

    def table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
        made = Table(title=title, title_justify="left", show_lines=any("\n" in line[-1] for line in lines))
        for k, column in enumerate(columns):
            made.add_column(column, justify="left" if k == 0 else "right", overflow="fold")
        for line in lines:
            made.add_row(*line)
        return made

    rows = content["rows"]
    names = [name_row(row["user"], row["stage"]) for row in rows]
    made = [
        table(
            f"success of the user, % ({rows[0]['goals']} goals, {rows[0]['seeds']} seeds; 95 % bootstrap over goals)",
            ("user, stage", "mean of five", *_CATEGORIES),
            [
                (name, _percent(row["mean"], wide=True), *(_percent(row["rates"][c], wide=True) for c in _CATEGORIES))
                for name, row in zip(names, rows, strict=True)
            ],
        ),
        table(
            "conversations that show a failure mode, %",
            ("user, stage", *_MODES.values(), "model errors"),
            [
                (name, *(_percent(row["failure_modes"][mode]) for mode in _MODES), str(sum(row["errors"].values())))
                for name, row in zip(names, rows, strict=True)
            ],
        ),
        table(
            "diversity and length",
            ("user, stage", "MTLD", "HD-D", "distinct-1", "distinct-2", "words a message", "user turns", "agent, %"),
            [
                (
                    name,
                    _number(row["diversity"]["mtld"], 1),
                    *(_number(row["diversity"][key], 3) for key in ("hdd", "distinct_1", "distinct_2")),
                    _number(row["diversity"]["words_per_message"], 1),
                    _number(row["turns"]["value"], 1),
                    _percent(row["agent_success"]),
                )
                for name, row in zip(names, rows, strict=True)
            ],
        ),
    ]
    if content["differences"]:
        lines = [
            (
                f"{name_row(*d['row'])} - {name_row(*d['baseline'])}",
                str(d["pairs"]),
                _percent(d["mean"], wide=True, sign=True),
                *(_percent(d["rates"][c], wide=True, sign=True) for c in _CATEGORIES),
            )
            for d in content["differences"]
        ]
        title = "differences in points, paired by goal and seed"
        made.append(table(title, ("users, stages", "pairs", "mean of five", *_CATEGORIES), lines))
    return made


# Okabe & Ito's palette, which the colour-blind can tell apart; lines differ by marker as well, bars by their order.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
_MARKERS = "osD^vP*X"


def plot(content: Mapping[str, Any], out: Path) -> list[Path]:
    """Draw the figures of `report` as PNG files in a folder: drift by turn, success per category, failure modes."""
    rows = content["rows"]
    names = [name_row(row["user"], row["stage"]) for row in rows]
    categories = {"mean of five": "mean", **{category: category for category in _CATEGORIES}}

    drift = Figure(figsize=(11, 6.4), layout="constrained")
    for k, (title, key) in enumerate(categories.items()):
        axes = drift.add_subplot(2, 3, k + 1)
        for j, (name, row) in enumerate(zip(names, rows, strict=True)):
            curve = row["drift"][key]
            turns = np.arange(1, len(curve) + 1)
            points = [(v["value"], v["low"], v["high"]) if key == "mean" else (v, v, v) for v in curve]
            value, low, high = 100 * np.array(points, dtype=float).T
            style: dict[str, Any] = {"color": _COLOURS[j % 8], "marker": _MARKERS[j % 8]}
            axes.plot(turns, value, **style, ls="-" if j < 8 else "--", markersize=4, linewidth=1.6, label=name)
            if key == "mean":
                axes.fill_between(turns, low, high, color=_COLOURS[j % 8], alpha=0.15, linewidth=0)
        axes.set(title=title, ylim=(-3, 103), xlabel="turn" if k > 2 else "", ylabel="aligned, %" if k % 3 == 0 else "")
        axes.set_xticks(range(1, len(rows[0]["drift"]["mean"]) + 1, 1 + len(rows[0]["drift"]["mean"]) // 12))
        axes.grid(alpha=0.3)
    handles, labels = drift.axes[0].get_legend_handles_labels()
    drift.legend(handles, labels, loc="outside lower center", ncols=min(3, len(names)), frameon=False)
    drift.suptitle("Goal alignment after each turn (a conversation that is over keeps its state)")

    bars = Figure(figsize=(11, 4.8), layout="constrained")
    axes = bars.add_subplot()
    _bars(axes, names, list(categories), [[_of(row, key) for key in categories.values()] for row in rows])
    axes.set(title="Success of the user, with 95 % bootstrap intervals over goals", ylabel="success, %", ylim=(0, 103))
    bars.legend(loc="outside lower center", ncols=min(3, len(names)), frameon=False)

    modes = Figure(figsize=(11, 4.8), layout="constrained")
    axes = modes.add_subplot()
    _bars(axes, names, list(_MODES.values()), [[row["failure_modes"][mode] for mode in _MODES] for row in rows])
    axes.set(title="Failure modes, with 95 % bootstrap intervals over goals", ylabel="conversations, %")
    axes.set_ylim(bottom=0)
    modes.legend(loc="outside lower center", ncols=min(3, len(names)), frameon=False)

    paths = []
    for figure, name in ((drift, "drift.png"), (bars, "success.png"), (modes, "failure_modes.png")):
        part = out / f"{name}.part"
        figure.savefig(part, dpi=130, format="png")
        os.replace(part, out / name)
        paths.append(out / name)
    return paths


def _of(row: Mapping[str, Any], key: str) -> Mapping[str, float | None]:
    found: Mapping[str, float | None] = row["mean"] if key == "mean" else row["rates"][key]
    return found


def _bars(
    axes: Axes, names: Sequence[str], groups: Sequence[str], figures: Sequence[Sequence[Mapping[str, float | None]]]
) -> None:
    """Grouped bars, one colour per name, with intervals."""
    width = 0.8 / len(names)
    for j, (name, row) in enumerate(zip(names, figures, strict=True)):
        value, low, high = (
            100
            * np.array(
                [[np.nan if f[key] is None else f[key] for key in ("value", "low", "high")] for f in row], dtype=float
            ).T
        )
        place = np.arange(len(groups)) + (j - (len(names) - 1) / 2) * width
        axes.bar(
            place,
            value,
            0.92 * width,
            yerr=np.clip((value - low, high - value), 0, None),
            color=_COLOURS[j % 8],
            hatch="//" if j >= 8 else "",
            edgecolor="white",
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
            label=name,
        )
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def run(config: AlignConfig) -> dict[str, Any]:
    """Measure, and show what came out; write ``align.json`` and the plots.

    Returns
    -------
    dict
        See `report`.

    Raises
    ------
    ValueError, FileNotFoundError, FileExistsError, ImportError
        For bad input: see `AlignConfig`, `choose_goals` and `lexical_richness`.
    """
    content = report(config, converse_all(config))
    write_json(config.out / "align.json", content)
    paths = plot(content, config.out)
    console = Console(width=max(Console().width, 150))
    for table in tables(content):
        console.print(table)
    for row in content["rows"]:
        for error, count in row["errors"].items():
            console.print(f"{name_row(row['user'], row['stage'])}: {count} conversations failed: {error}", markup=False)
    console.print(f"written: {config.out / 'align.json'}, {', '.join(map(str, paths))}", markup=False, soft_wrap=True)
    return content
