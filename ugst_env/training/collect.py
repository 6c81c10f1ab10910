"""``ugst collect``: conversations of a simulated user with a reference clerk, as the training stages read them.

Every finished conversation is appended to a JSONL file at once, so a run that is killed goes on with ``--resume``
without loss or duplicate. A row holds the goal, what both sides said, and the clerk's acts; `replay` makes the same
`Episode` of it again, with every goal state on the way, so that a row is good for prompts of any form.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.envs.setup import make_setup, vocabulary_of
from ugst_env.goal import Objective, Rule, UserGoal, Want
from ugst_env.goals.files import goal_of, goal_record
from ugst_env.goals.generator import SPLIT_POLICIES, GoalSource, fits
from ugst_env.goals.policies import FEWEST_WORDS, compatible, limits, make_rule
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.clerks import CLERKS, clerk_act
from ugst_env.training.launch import own_folder
from ugst_env.users.protocol import UserReply, UserSimulator, ask
from ugst_env.users.scripted import DRIFT_MODES, ScriptedUser
from ugst_env.world.database import World


@dataclass(frozen=True)
class CollectConfig:
    """All that decides which conversations come out.

    Raises
    ------
    ValueError
        For a number out of range, or an unknown name; it says which and what is accepted.
    """

    out: Path = field(metadata={"help": "folder for the conversations"})
    user: str = field(
        default="ugst-tiny", metadata={"help": "the simulated user: ugst-tiny, scripted, hf:NAME, a .gguf"}
    )
    goals: str = field(default="challenge:train", metadata={"help": "challenge:train|val|test, or a goal file"})
    conversations: int = field(default=1000, metadata={"help": "how many to hold"})
    keep: str = field(default="all", metadata={"help": "all, or aligned: only those whose every component holds"})
    steering: bool = field(default=True, metadata={"help": "whether the user is shown the goal state"})
    trace: bool = field(default=False, metadata={"help": "whether the model reasons before it replies"})
    drift: str = field(default="", metadata={"help": "scripted user only: rates such as forget=0.1,contradict=0.05"})
    stray: str = field(
        default="",
        metadata={"help": "who takes some of the turns, which are not learnt: drift (scripted), or a user as above"},
    )
    stray_rate: float = field(default=0.0, metadata={"help": "share of the turns that the stray user takes"})
    # More freely than it plays: it is asked for the mistakes that others are to find back from.
    stray_temperature: float = field(default=0.7, metadata={"help": "how a stray model's replies are drawn"})
    clerks: str = field(default="competent", metadata={"help": f"mixed, or one of {', '.join(CLERKS)}"})
    varied: float = field(
        default=0.0,
        metadata={
            "help": "share of goals with more conditions, and up to three rules of many more parameters, or none and "
            "no profile"
        },
    )
    max_turns: int = field(default=10, metadata={"help": "limit of user turns"})
    batch: int = field(default=64, metadata={"help": "conversations held at a time"})
    processes: int = field(default=1, metadata={"help": "processes that share the work"})
    seed: int = field(default=1, metadata={"help": "the only source of chance"})
    resume: bool = field(default=False, metadata={"help": "go on in a folder that holds conversations already"})

    def __post_init__(self) -> None:
        if self.keep not in ("all", "aligned"):
            raise ValueError(f"keep must be 'all' or 'aligned', got {self.keep!r}")
        if self.clerks != "mixed" and self.clerks not in CLERKS:
            raise ValueError(f"clerks must be 'mixed' or one of {', '.join(CLERKS)}, got {self.clerks!r}")
        for name, least in (("conversations", 1), ("max_turns", 1), ("batch", 1), ("processes", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("stray_rate", "varied"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.stray_temperature < 0:
            raise ValueError(f"stray_temperature must not be negative, got {self.stray_temperature}")
        if self.stray_rate and not self.stray:
            raise ValueError("stray_rate needs a stray user: 'drift' or the name of a user")
        if self.drift and self.user != "scripted":
            raise ValueError(f"only the scripted user drifts at will, got drift={self.drift!r} for {self.user!r}")
        _rates(self.drift)


def _rates(text: str) -> dict[str, float]:
    """The rates in ``forget=0.1,contradict=0.05``."""
    rates: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        mode, _, rate = part.partition("=")
        try:
            rates[mode.strip()] = float(rate)
        except ValueError:
            raise ValueError(f"drift must be rates such as forget=0.1,contradict=0.05, got {text!r}") from None
    if unknown := [mode for mode in rates if mode not in DRIFT_MODES]:
        raise ValueError(f"unknown drift mode {unknown[0]!r}; accepted: {', '.join(DRIFT_MODES)}")
    return rates


# How often a conversation meets which mix of clerks, with ``clerks="mixed"``.
CLERK_MIXES = (
    (0.55, {"competent": 1.0}),
    (0.15, {"competent": 0.6, "random": 0.4}),
    (0.12, {"competent": 0.6, "stubborn": 0.4}),
    (0.18, {"competent": 0.6, "wrong": 0.4}),
)

# Rules whose parameter a user has to understand and not just repeat: a few training policies do not teach that.
VARIED_RULES = {
    "max_words": tuple(str(n) for n in range(7, 25)),
    "min_words": tuple(str(n) for n in range(3, 9)),
    "max_things": ("1", "2", "3", "4"),
    "never_say": (
        "please", "need", "like", "find", "could", "looking", "good", "fine", "book", "would", "any", "nice", "great",
        "mind", "can", "care", "get", "should", "tell", "know", "i'm", "town", "me", "lovely", "thank", "thanks/thank",
    ),
    "withhold": (
        "pricerange", "area", "people", "stay", "time", "food", "stars", "type", "day", "arriveBy", "leaveAt",
        "departure", "destination",
    ),
    "not_first": (
        "pricerange", "area", "people", "stay", "time", "food", "stars", "type", "day", "arriveBy", "leaveAt",
        "departure", "destination", "name", "internet", "parking",
    ),
    "max_sentences": ("1", "2", "3", "4"),
    "no_mark": ("?", "!", ",", "'", "."),
    "end_mark": ("!", ".", "..."),
    "say_word": ("honestly", "frankly", "if possible at all", "as it happens", "I must say", "by the way", "mind you"),
    "ask_with": ("can I just ask", "would you mind saying", "I wonder", "let me ask you", "any idea", "do tell me"),
    "open_with": ("Right", "Good afternoon", "Look", "Greetings to you", "My dear clerk", "Alright then", "Ahoy"),
    "close_with": ("Best wishes", "Yours truly", "That is all", "Bless you", "Thanks in advance", "End of message"),
    "sign_name": ("Amara", "Lars", "Chiara", "Dmitri", "Soledad", "Wei", "Fatima", "Old Ben", "Ingrid Holm"),
    "address_as": ("chief", "madam", "dear helper", "buddy", "doctor", "comrade", "good person", "boss lady"),
    "greet_with": ("hey you", "a very good evening", "salutations", "how do you do", "hiya", "top of the morning"),
    "leave_with": ("all the best", "see you around", "until next time", "bye for now", "have a good one", "farewell"),
}  # fmt: skip
_VARIED_WEIGHTS = {
    "max_words": 4, "max_things": 3, "withhold": 4, "not_first": 4, "min_words": 3, "say_word": 2, "ask_with": 2,
    "leave_with": 2,
}  # fmt: skip


_HELD_OUT = frozenset((rule.kind, rule.value) for split in ("val", "test") for rule in SPLIT_POLICIES[split])
# How many rules such a user has: what was only ever seen alone is not told apart from what it was seen with.
_VARIED_COUNTS = {1: 0.55, 2: 0.3, 3: 0.15}
# What has to be found out before it is known which value counts, and what is not there, take the most practice.
_VARIED_KINDS = {"plain": 0.3, "impossible": 0.1, "conditional": 0.6}
# The share of varied goals without profile and rules, as goals made of other data sets are.
_BARE = 0.15


def varied_policy(rng: random.Random, objectives: Sequence[Objective]) -> tuple[Rule, ...]:
    """One to three rules of `VARIED_RULES` that go together and leave room for these objectives.

    Never one that the validation or test goals have. A rule about a slot is about one that the objectives want.
    """
    wanted = {part.slot for o in objectives for part in (*o.requirements, *o.preferences) if isinstance(part, Want)}
    while True:
        policy: list[Rule] = []
        for _ in range(rng.choices(list(_VARIED_COUNTS), list(_VARIED_COUNTS.values()))[0]):
            kind = rng.choices(list(VARIED_RULES), [_VARIED_WEIGHTS.get(kind, 1) for kind in VARIED_RULES])[0]
            values = [value for value in VARIED_RULES[kind] if (kind, value) not in _HELD_OUT]
            if kind in ("withhold", "not_first"):
                values = [value for value in values if value in wanted]
            if values:
                rule = make_rule(kind, rng.choice(values))
                if all(compatible(rule, other) for other in policy):
                    policy.append(rule)
        room = limits(policy).max_words
        if policy and (room is None or room >= FEWEST_WORDS) and fits(tuple(objectives), tuple(policy)):
            return tuple(policy)


@dataclass
class _Talk:
    """A conversation under way."""

    number: int
    rng: random.Random
    episode: Episode
    mix: dict[str, float]
    turns: list[dict[str, Any]] = field(default_factory=list)


def collect(config: CollectConfig) -> Counter[str]:
    """Hold the conversations and write them to ``part-*.jsonl`` in ``config.out``.

    Returns
    -------
    Counter
        How many were kept (``"kept"``), and how many were dropped for which reason; those of earlier runs included.

    Raises
    ------
    FileExistsError
        If the folder holds something and `resume` is off, or another process is writing into it.
    """
    with own_folder(config.out, resume=config.resume):
        return _collect(config, config.out)


def _collect(config: CollectConfig, out: Path) -> Counter[str]:
    held = _held(out)
    parts = [
        [k for k in range(config.conversations) if k % config.processes == i and k not in held]
        for i in range(config.processes)
    ]
    with tqdm(total=config.conversations, initial=len(held), desc="conversations", unit="conv") as bar:
        if config.processes == 1:
            for _ in _hold(config, parts[0], out / "part-0.jsonl"):
                bar.update()
        else:
            context = multiprocessing.get_context("spawn")
            queue = context.SimpleQueue()
            workers = [
                context.Process(target=_work, args=(config, part, out / f"part-{i}.jsonl", queue))
                for i, part in enumerate(parts)
            ]
            for worker in workers:
                worker.start()
            left = len(workers)
            while left:
                message = queue.get()
                if message is None:
                    left -= 1
                elif isinstance(message, str):
                    for worker in workers:
                        worker.terminate()
                    raise RuntimeError(message)
                else:
                    bar.update()
    return Counter(_held(out).values())


def _work(config: CollectConfig, numbers: list[int], path: Path, queue: Any) -> None:
    try:
        import torch

        # The processes share the cores: with more threads they only wait for each other.
        torch.set_num_threads(1)
        parent = multiprocessing.parent_process()
        for _ in _hold(config, numbers, path):
            if parent is None or not parent.is_alive():
                return  # Whoever starts again shall not find a rival.
            queue.put(1)
        queue.put(None)
    except KeyboardInterrupt:
        queue.put(None)
    except Exception as error:
        queue.put(f"{type(error).__name__}: {error}")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file that is appended to, none if it is not there. A line torn by a crash is cut off it."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        with path.open("rb+") as file:
            good = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                rows.append(json.loads(line))
                good += len(line)
            file.truncate(good)
    return rows


def _held(folder: Path) -> dict[int, str]:
    """What was written already: ``{number: "kept" or why it was dropped}``."""
    rows = (row for path in sorted(folder.glob("part-*.jsonl")) for row in read_rows(path))
    return {row["number"]: row.get("dropped", "kept") for row in rows}


def _hold(config: CollectConfig, numbers: list[int], path: Path) -> Iterator[int]:
    """Hold the conversations of these numbers, a batch at a time, and append each to `path` when it is over."""
    if not numbers:
        return
    setup = make_setup(user=config.user, goals=config.goals, max_turns=config.max_turns)
    world, vocabulary = setup.world, setup.vocabulary
    straight = ScriptedUser(world, vocabulary, drift=_rates(config.drift)) if config.drift else setup.user
    if config.trace and hasattr(straight, "trace"):
        straight.trace = True
    drifters = [ScriptedUser(world, vocabulary, drift={mode: 1.0}) for mode in DRIFT_MODES if mode != "terminate"]
    strays: list[UserSimulator] = []
    if config.stray:
        strays = [*drifters] if config.stray == "drift" else [_freely(config)]
    thinker = next((user for user in strays if getattr(user, "trace", False) and not config.steering), None)
    waiting = list(reversed(numbers))
    active: list[_Talk] = []
    with path.open("a", encoding="utf-8") as file:
        while waiting or active:
            while waiting and len(active) < config.batch:
                active.append(_begin(config, waiting.pop(), setup.source, setup.fixed, setup.tracker, vocabulary))
            speakers = [
                talk.rng.choice(strays) if strays and talk.rng.random() < config.stray_rate else straight
                for talk in active
            ]
            replies = _replies(speakers, [talk.episode for talk in active], config.steering, thinker)
            going = []
            for talk, speaker, reply in zip(active, speakers, replies, strict=True):
                _take(talk, reply, world, learn=speaker is straight)
                if talk.episode.waiting_for is not None:
                    going.append(talk)
                    continue
                for user in {id(u): u for u in (straight, *strays)}.values():
                    user.forget([talk.episode.key])
                file.write(json.dumps(_row(config, talk), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
                yield talk.number
            active = going


def _freely(config: CollectConfig) -> UserSimulator:
    """The stray user, with the temperature that strays have."""
    user = make_setup(user=config.stray).user
    if hasattr(user, "temperature"):
        user = copy.copy(user)  # Models are shared.
        user.temperature = config.stray_temperature
    return user


def _begin(
    config: CollectConfig, number: int, source: Any, fixed: tuple[UserGoal, ...], tracker: Any, vocabulary: Vocabulary
) -> _Talk:
    rng = random.Random(f"{config.seed}/{number}")
    varied = rng.random() < config.varied
    if varied and isinstance(source, GoalSource) and not fixed:
        source = replace(source, kinds=_VARIED_KINDS)
    goal: UserGoal = fixed[number % len(fixed)] if fixed else source(rng)
    if varied:
        goal = replace(goal, policy=varied_policy(rng, goal.objectives))
        if rng.random() < _BARE:
            goal = replace(goal, profile=(), policy=())
    mixes = CLERK_MIXES if config.clerks == "mixed" else ((1.0, {config.clerks: 1.0}),)
    mix = rng.choices([m for _, m in mixes], [weight for weight, _ in mixes])[0]
    episode = Episode(
        goal, tracker, vocabulary, seed=rng.getrandbits(60), max_turns=config.max_turns, key=f"collect/{number}"
    )
    return _Talk(number, rng, episode, mix)


def _replies(
    speakers: list[UserSimulator], episodes: list[Episode], steering: bool, thinker: UserSimulator | None
) -> list[UserReply]:
    """One reply per conversation, one batch per speaker.

    With a `thinker`, the trace of each is what that one thinks, whoever speaks: its own goal states are what a model
    has to go by.
    """
    answers: dict[tuple[int, int], UserReply] = {}
    for speaker in {id(s): s for s in (*speakers, *([] if thinker is None else [thinker]))}.values():
        mine = [k for k, s in enumerate(speakers) if s is speaker or speaker is thinker]
        requests = [episodes[k].request() for k in mine]
        if not steering and not getattr(speaker, "needs_state", False):
            requests = [replace(request, state=None, states=()) for request in requests]
        answers.update(zip([(id(speaker), k) for k in mine], ask(speaker, requests), strict=True))
    replies = [answers[id(speaker), k] for k, speaker in enumerate(speakers)]
    if thinker is None:
        return replies
    return [replace(reply, trace=answers[id(thinker), k].trace) for k, reply in enumerate(replies)]


def _take(talk: _Talk, reply: UserReply, world: World, *, learn: bool) -> None:
    """Let the user's turn and the clerk's answer happen, and note them down."""
    episode = talk.episode
    step = episode.hear(reply)
    turn: dict[str, Any] = {"user": reply.text, "end": reply.end, "learn": learn}
    if reply.trace:
        turn["trace"] = reply.trace
    if reply.error is not None:
        turn["error"] = reply.error
    talk.turns.append(turn)
    if step.over:
        return
    act = clerk_act(talk.mix, episode.belief, world, talk.rng, turn=episode.turn, max_turns=episode.max_turns)
    episode.act(act)
    turn["agent"] = episode.conversation.turns[-1].agent
    turn["act"] = {key: value for key, value in asdict(act).items() if value not in (None, {})}


def _row(config: CollectConfig, talk: _Talk) -> dict[str, Any]:
    episode = talk.episode
    rates = {category.value: rate for category, rate in episode.state.success_rates().items()}
    why = next((f"{name} not held" for name, rate in rates.items() if rate < 1), None)
    why = "model error" if episode.outcome == "model_error" else why
    if why is None and any(fault.mode == "wrongful_ending" for fault in episode.tracked.faults):
        why = "wrongful ending"
    if config.keep == "aligned" and why is not None:
        return {"number": talk.number, "dropped": why}
    return {
        "number": talk.number,
        "user": config.user,
        "steering": config.steering,
        "seed": config.seed,
        "max_turns": episode.max_turns,
        "outcome": episode.outcome,
        "aligned": why is None,
        "rates": rates,
        "goal": goal_record(episode.goal),
        "turns": talk.turns,
    }


def read_conversations(folder: Path) -> list[dict[str, Any]]:
    """The conversations that `collect` kept in a folder, in the order of their numbers.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are none.
    """
    paths = sorted(folder.glob("part-*.jsonl")) if folder.is_dir() else []
    if not paths:
        raise FileNotFoundError(f"no conversations in {folder}: expected part-*.jsonl, as `ugst collect` writes them")
    rows: dict[int, dict[str, Any]] = {}
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for line in file:
                row: dict[str, Any] = json.loads(line) if line.endswith("\n") else {"dropped": "torn"}
                if "dropped" not in row:
                    rows[row["number"]] = row
    if not rows:
        raise ValueError(f"no conversation in {folder} was kept: collect more, or keep all")
    return [rows[number] for number in sorted(rows)]


def replay(
    row: Mapping[str, Any], tracker: VerifiableTracker, vocabulary: Vocabulary
) -> Iterator[tuple[Episode, UserReply, bool]]:
    """Live through a collected conversation again.

    Yields
    ------
    episode, reply, learn
        Before each user turn: the episode, which is waiting for it; what the user said; whether that is to be learnt.
        The episode moves on with the next item, and after the last one it is over, as it was.
    """
    episode = Episode(goal_of(row["goal"]), tracker, vocabulary, seed=0, max_turns=row["max_turns"])
    for turn in row["turns"]:
        reply = UserReply(turn["user"], turn["end"], turn.get("trace", ""), turn.get("error"))
        yield episode, reply, turn["learn"]
        episode.hear(reply)
        if "act" in turn:
            episode.act(AgentAct(**turn["act"]), turn["agent"])


def default_tracker() -> tuple[VerifiableTracker, Vocabulary]:
    """The tracker and the vocabulary of the shipped world."""
    world = make_setup(user="scripted").world
    return VerifiableTracker(world), vocabulary_of(world)


def run(config: CollectConfig) -> Counter[str]:
    """`collect`, and say what came out."""
    counts = collect(config)
    dropped = ", ".join(f"{n} {why}" for why, n in counts.most_common() if why != "kept") or "none"
    print(f"kept {counts['kept']} of {sum(counts.values())} conversations in {config.out}; dropped: {dropped}")
    return counts
