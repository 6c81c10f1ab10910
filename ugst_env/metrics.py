"""How well a simulated user keeps to its goals: success per category over conversations with a reference clerk."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz

from ugst_env.dialogue.acts import DONTCARE, AgentAct, UserAct
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.goal import START, Category, Cause, Component, ComponentState, Status, UserGoal
from ugst_env.tracking.verifiable import Tracked, VerifiableTracker
from ugst_env.training.clerks import clerk_act
from ugst_env.users.protocol import UserSimulator, ask


@dataclass(frozen=True)
class Alignment:
    """Goal alignment of a user over a set of conversations.

    Parameters
    ----------
    rates
        Success rate per category in [0, 1]: the mean over the conversations whose goal has the category.
    mean
        Mean of the rates over the five categories.
    agent_success
        Share of conversations in which the agent served all it can be held to.
    turns
        Mean number of user turns.
    outcomes, faults
        How conversations ended, and how often each kind of fault occurred, counted.
    """

    rates: dict[str, float]
    mean: float
    agent_success: float
    turns: float
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------------- conversations


@dataclass(frozen=True)
class Exchange:
    """One turn t_i = (u_i, a_i) with what came of it.

    Parameters
    ----------
    user, agent
        What was said; `agent` is None where the user's words ended the conversation.
    acts
        The user's words as they were understood.
    clerk
        The agent's act, None where it had no turn.
    tracked
        The tracked conversation after the turn; ``tracked.state`` is S_i.
    """

    user: str
    agent: str | None
    acts: tuple[UserAct, ...]
    clerk: AgentAct | None
    tracked: Tracked


@dataclass
class Talk:
    """A conversation under way.

    Parameters
    ----------
    episode
        The conversation.
    rng
        The clerk's source of chance.
    number, seed
        Which conversation of a set it is: the goal's number, and the seed of the set.
    exchanges
        The turns so far.
    error
        Why the user model failed, if it did.
    """

    episode: Episode
    rng: random.Random
    number: int
    seed: int
    exchanges: list[Exchange] = field(default_factory=list)
    error: str | None = None

    @classmethod
    def begin(
        cls,
        goal: UserGoal,
        tracker: VerifiableTracker,
        vocabulary: Vocabulary,
        *,
        seed: int,
        number: int,
        key: str,
        steering: bool,
        repeat: bool = False,
        max_turns: int = 10,
    ) -> Talk:
        """Conversation `number` of a set that is held with `seed`: same numbers, same chance."""
        chance = seed * 100_003 + number
        episode = Episode(
            goal,
            tracker,
            vocabulary,
            seed=chance,
            max_turns=max_turns,
            steering=steering,
            repeat=repeat,
            key=key,
        )
        return cls(episode, random.Random(chance), number, seed)


def hold(
    user: UserSimulator,
    talks: Iterable[Talk],
    *,
    clerks: Mapping[str, float] | None = None,
    batch: int = 64,
    reword: Callable[[AgentAct, random.Random], str | None] | None = None,
) -> Iterator[Talk]:
    """Hold conversations, `batch` at a time, with a clerk drawn per turn from `clerks`; yield each when it is over.

    `talks` is read as places become free. `reword` may put a clerk's act into other words (None keeps them).
    """
    mix = dict(clerks or {"competent": 1.0})
    waiting = iter(talks)
    active: list[Talk] = []
    while True:
        while len(active) < batch and (fresh := next(waiting, None)) is not None:
            active.append(fresh)
        if not active:
            return
        going = []
        for talk, reply in zip(active, ask(user, [talk.episode.request() for talk in active]), strict=True):
            episode = talk.episode
            step = episode.hear(reply)
            heard = episode.turn > len(talk.exchanges)
            acts = episode.belief.user_acts
            act = None
            if not step.over:
                act = clerk_act(
                    mix, episode.belief, episode.world, talk.rng, turn=episode.turn, max_turns=episode.max_turns
                )
                step = episode.act(act, reword(act, talk.rng) if reword is not None else None)
            if heard:
                turn = episode.conversation.turns[-1]
                talk.exchanges.append(Exchange(turn.user, turn.agent, acts, act, episode.tracked))
            if step.over:
                talk.error = step.error
                user.forget([episode.key])
                yield talk
            else:
                going.append(talk)
        active = going


def converse(
    user: UserSimulator,
    goals: Sequence[UserGoal],
    tracker: VerifiableTracker,
    vocabulary: Vocabulary,
    *,
    clerks: dict[str, float] | None = None,
    steering: bool = True,
    seed: int = 0,
    max_turns: int = 10,
    batch: int = 64,
    reword: Callable[[AgentAct, random.Random], str | None] | None = None,
    on_finish: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Hold one conversation per goal, `batch` at a time (see `hold`).

    Returns
    -------
    list of Episode
        In the order of `goals`, all over.
    """
    steering = steering or bool(getattr(user, "needs_state", False))
    talks = [
        Talk.begin(
            goal,
            tracker,
            vocabulary,
            seed=seed,
            number=k,
            key=f"{id(user)}/{k}",
            steering=steering,
            max_turns=max_turns,
        )
        for k, goal in enumerate(goals)
    ]
    for talk in hold(user, talks, clerks=clerks, batch=batch, reword=reword):
        if on_finish is not None:
            on_finish(talk.episode)
    return [talk.episode for talk in talks]


def alignment(episodes: Sequence[Episode]) -> Alignment:
    """Success rates of finished conversations.

    Raises
    ------
    ValueError
        Without a conversation.
    """
    if not episodes:
        raise ValueError("alignment needs at least one conversation, got none")
    held: dict[Category, list[float]] = {}
    faults: Counter[str] = Counter()
    for episode in episodes:
        for category, rate in episode.state.success_rates().items():
            held.setdefault(category, []).append(rate)
        faults.update(fault.mode for fault in episode.tracked.faults)
    rates = {category.value: sum(held[category]) / len(held[category]) for category in Category if category in held}
    return Alignment(
        rates=rates,
        mean=sum(rates.values()) / len(rates),
        agent_success=sum(episode.report()["success"] for episode in episodes) / len(episodes),
        turns=sum(episode.turn for episode in episodes) / len(episodes),
        outcomes=dict(Counter(episode.outcome or "" for episode in episodes)),
        faults=dict(faults),
    )


# -------------------------------------------------------------------------------------------------------- failure modes

FAILURE_MODES = (
    "forgetting",
    "contradiction",
    "wrongful_ending",
    "length",
    "misprioritisation",
    "role_reversal",
    "repetition",
)

# What only a clerk says. Each pattern needs the words of an offer, a confirmation or a question about the customer.
_CLERK_PHRASES = re.compile(
    r"\b(?:how (?:can|may|could) i (?:help|assist)"
    r"|(?:can|may|could|shall) i (?:help|assist) you"
    r"|(?:help|assist) you (?:with|find|in|today|further|book|plan)"
    r"|(?:is there )?any(?:thing|one) else (?:that )?i (?:can|could|may) (?:help|assist|do)"
    r"|i(?: ha|')ve (?:found|booked|reserved|scheduled|confirmed|arranged)\b.{0,60}\b(?:for you|your)\b"
    r"|i(?:'ll| will| can| could) (?:book|reserve|check|look up|look into|recommend|suggest|help|assist|arrange)\b"
    r".{0,60}\b(?:you|your)\b"
    r"|your (?:booking|reservation|table|room|ticket|order)s? (?:is|are|has been|have been|was) "
    r"(?:now )?(?:confirmed|booked|made|reserved|set|complete|successful)"
    r"|(?:your|the) (?:reference|booking|confirmation) (?:number|code) is\b"
    r"|we (?:have|offer) (?:a|an|several|many|some|\d+|two|three|four|five) \w+"
    r"|(?:would|do) you (?:like|want) (?:me to|to book|to reserve)"
    r"|(?:what|which) (?:\w+ ){0,3}(?:would|do|are) you (?:like|prefer|want|looking|need)\b"
    r"|(?:happy|glad) to (?:help|assist) you"
    r"|(?:thank you|thanks) for (?:choosing|contacting|calling|using)"
    r"|(?:enjoy|have a (?:great|nice|lovely|wonderful|pleasant)) (?:your )?(?:stay|trip|visit|journey|meal)\b)",
    re.IGNORECASE,
)


def speaks_as_clerk(text: str) -> bool:
    """Whether a user's words are those of a clerk: an offer of help, a confirmation, a question about wishes."""
    return _CLERK_PHRASES.search(text) is not None


SIMILAR = 90.0
"""From this similarity on (rapidfuzz's ratio, 0 to 100, letter case and outer blanks aside), two messages are one."""


def repeats(messages: Sequence[str]) -> bool:
    """Whether a message is said twice in a row, or three times in all, to the letter or nearly so (`SIMILAR`)."""
    said = [" ".join(message.lower().split()) for message in messages]
    for k, message in enumerate(said):
        again = [j for j in range(k) if fuzz.ratio(message, said[j], score_cutoff=SIMILAR) > 0]
        if len(again) >= 2 or k - 1 in again:
            return True
    return False


MISPLACED = 2
"""From this number of misplaced turns on, a conversation counts as misprioritised."""


def _touched(exchange: Exchange, goal: UserGoal) -> list[int]:
    """The objectives that the user spoke of, in the order of its words."""
    domains = [objective.domain for objective in goal.objectives]
    return [domains.index(act.domain) for act in exchange.acts if act.domain in domains and act.value != DONTCARE]


def _unraised(tracked: Tracked) -> list[tuple[Component, ComponentState]]:
    """The components of objectives that the user could still bring up by itself."""
    secret = {rule.value for rule in tracked.goal.policy if rule.kind in ("withhold", "not_first")}
    return [
        (component, now)
        for component, now in tracked.state.items()
        if component.objective is not None
        and now.status is START[component.category]
        and not now.served
        and getattr(component.content, "slot", None) not in secret
    ]


def skipped(talk: Talk) -> list[str]:
    """The components that the user never brought up although it went on past them (see `failure_modes`)."""
    if len(talk.exchanges) < 2:
        return []
    goal, state = talk.episode.goal, talk.episode.state
    before, last = talk.exchanges[-2:]
    latest = {index: turn for turn, exchange in enumerate(talk.exchanges) for index in _touched(exchange, goal)}
    current = max(latest, key=lambda index: latest[index], default=None)
    done = (
        talk.episode.outcome == "user_ended"
        and current is not None
        and state[f"objective.{current}"].status is Status.COMPLETE
    )
    # Already the user's fault before the end: a contradiction, which is another mode.
    spoilt = {component.id for component, now in before.tracked.state.items() if now.user_fault}
    return [
        component.id
        for component, now in _unraised(last.tracked)
        if now.cause is Cause.USER
        and component.id not in spoilt
        and (done or (component.objective in latest and component.objective != current))
    ]


def misplaced(talk: Talk) -> int:
    """The number of turns that misprioritise (see `failure_modes`)."""
    count = 0
    goal = talk.episode.goal
    for before, exchange in pairwise(talk.exchanges):
        unraised = {component.objective for component, now in _unraised(before.tracked) if not now.user_fault}
        clerk = before.clerk
        touched = _touched(exchange, goal)
        if not unraised or not touched or clerk is None:
            continue
        prompted = clerk.kind in ("request", "offer", "offer_next", "no_offer", "pardon") or clerk.failure is not None
        restated = not exchange.tracked.news and not prompted
        in_hand = next((k for k, o in enumerate(goal.objectives) if o.domain == clerk.domain), None)
        hopped = in_hand in unraised and in_hand not in touched
        count += restated or hopped
    return count


def failure_modes(talk: Talk) -> dict[str, bool]:
    """Which failure modes of arXiv 2507.20152 (and two more) a finished conversation shows.

    * ``forgetting`` (confusion or forgetting): the user made up a wish (fault ``invention``), or never brought up a
      component although it went on past it: it turned to another objective for good, or ended the conversation as
      somebody who is done, with the objective in hand COMPLETE.
    * ``contradiction``: a fault ``contradiction`` (another value than the goal's) or ``profile``.
    * ``wrongful_ending``: the user ended the conversation with components open that were its to pursue.
    * ``length``: the turn limit came before the user had done its part (fault ``dawdled``).
    * ``misprioritisation``: with things left to bring up, a turn said only what had been said before, unasked, or
      turned away from an objective in hand to one that could wait, and that `MISPLACED` times or more.
    * ``role_reversal``: a turn with a clerk's words (`speaks_as_clerk`).
    * ``repetition``: `repeats`.

    The tracker's faults are described at `ugst_env.tracking.verifiable.Fault`. A conversation can show several modes.
    """
    faults = {fault.mode for fault in talk.episode.tracked.faults}
    said = [exchange.user for exchange in talk.exchanges]
    return {
        "forgetting": "invention" in faults or bool(skipped(talk)),
        "contradiction": bool(faults & {"contradiction", "profile"}),
        "wrongful_ending": "wrongful_ending" in faults,
        "length": "dawdled" in faults,
        "misprioritisation": misplaced(talk) >= MISPLACED,
        "role_reversal": any(map(speaks_as_clerk, said)),
        "repetition": repeats(said),
    }


# -------------------------------------------------------------------------------------------------------------- records


def record(talk: Talk) -> dict[str, Any]:
    """A finished conversation as a JSON-able record, which every figure below is computed from.

    A conversation that the user model broke off by an error counts as failed: success 0 in every category.

    Returns
    -------
    dict
        ``goal`` (its id), ``number`` and ``seed`` (of the `Talk`), ``outcome``, ``error`` (None, or why the user model
        failed), ``success`` (of the agent), ``rates`` (success per category), ``open`` (the components that do not
        hold), ``failures`` (`failure_modes`), ``faults`` of the user and the agent, and ``turns``: per turn the words
        of both, and ``held``, the share of components per category that hold for the user in S_i.
    """
    episode = talk.episode
    rates = {category.value: rate for category, rate in episode.state.success_rates().items()}
    return {
        "goal": episode.goal.id,
        "number": talk.number,
        "seed": talk.seed,
        "outcome": episode.outcome,
        "error": talk.error,
        "success": bool(episode.report()["success"]),
        "rates": rates if talk.error is None else dict.fromkeys(rates, 0.0),
        "open": [component.id for component, now in episode.state.items() if not episode.state.holds(component, now)],
        "failures": [mode for mode, shown in failure_modes(talk).items() if shown],
        "faults": [
            {"turn": fault.turn, "cause": fault.cause.value, "mode": fault.mode, "detail": fault.detail}
            for fault in episode.tracked.faults
        ],
        "turns": [
            {
                "user": exchange.user,
                "agent": exchange.agent,
                "held": {c.value: rate for c, rate in exchange.tracked.state.success_rates().items()},
            }
            for exchange in talk.exchanges
        ],
    }


Records = Sequence[Mapping[str, Any]]
"""Conversations of one user at one stage, as `record` writes them."""

_CATEGORIES = tuple(category.value for category in Category)


def drift(records: Records, max_turns: int) -> NDArray[np.float64]:
    """Alignment by turn: the share of components that hold after turn i. One that is over keeps its final state.

    Returns
    -------
    float64 array of shape (len(records), max_turns, 5)
        One column per `Category`; NaN where the goal has none of the category.
    """
    table = np.full((len(records), max_turns, len(_CATEGORIES)), np.nan)
    for row, told in zip(table, records, strict=True):
        for turn in range(max_turns):
            held = told["turns"][turn]["held"] if turn < len(told["turns"]) else told["rates"]
            row[turn] = [held.get(category, np.nan) for category in _CATEGORIES]
    return table


def faults_by_turn(records: Records, max_turns: int) -> list[float | None]:
    """The user's faults in turn i per conversation that had such a turn; None where none had."""
    reached = Counter(turn for told in records for turn in range(len(told["turns"])))
    faults = Counter(fault["turn"] - 1 for told in records for fault in told["faults"] if fault["cause"] == "USER")
    return [faults[turn] / reached[turn] if reached[turn] else None for turn in range(max_turns)]


# ------------------------------------------------------------------------------------------------------------ intervals


def bootstrap(
    values: NDArray[np.float64], clusters: Sequence[Hashable], *, draws: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Column means, then their values over bootstrap samples of whole clusters (Efron & Tibshirani 1993, chapter 13).

    The conversations about one goal are not independent, so goals are drawn, each with all its conversations. The same
    clusters and seed give the same samples, so that two tables about the same goals can be compared pair by pair.

    Parameters
    ----------
    values
        float64 array of shape (n, k); NaN is left out of a mean.
    clusters
        For each of the n rows, what it belongs to (its goal).

    Returns
    -------
    float64 array of shape (1 + draws, k)
        The plain means first; NaN where nothing was drawn that has a value.

    Raises
    ------
    ValueError
        Without a row.
    """
    if not len(values):
        raise ValueError("a bootstrap needs at least one conversation, got none")
    names = {name: k for k, name in enumerate(sorted(set(clusters), key=str))}
    index = np.array([names[name] for name in clusters])
    known = ~np.isnan(values)
    sums = np.zeros((len(names), values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, index, np.where(known, values, 0.0))
    np.add.at(counts, index, known.astype(float))
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    weights = np.vstack((np.ones(len(names)), drawn)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = (weights @ sums) / (weights @ counts)
    return means


def interval(samples: NDArray[np.float64]) -> dict[str, float | None]:
    """``value``, ``low`` and ``high``: a mean with its 95 % percentile interval, from one column of `bootstrap`."""
    value, rest = samples[0], samples[1:][~np.isnan(samples[1:])]
    if np.isnan(value) or not len(rest):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(rest, (0.025, 0.975))
    return {"value": float(value), "low": float(low), "high": float(high)}


def _mean_of_categories(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis, the categories, of those that there are."""
    known = ~np.isnan(samples)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(known, samples, 0.0).sum(-1) / known.sum(-1)
    return mean


def _success(records: Records) -> NDArray[np.float64]:
    """Success per conversation and category, shape (n, 5)."""
    return np.array([[told["rates"].get(category, np.nan) for category in _CATEGORIES] for told in records])


def figures(records: Records, *, max_turns: int, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Everything that is reported about one user at one stage, JSON-able.

    Rates are means over conversations; the mean of the five is the mean over categories of those. Figures with an
    interval are ``{"value", "low", "high"}``, 95 % percentile bootstrap over goals (`bootstrap`).

    Raises
    ------
    ValueError
        Without a record.
    """
    goals = [told["number"] for told in records]

    def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return bootstrap(values, goals, draws=draws, seed=seed)

    success = means(_success(records))
    scalars = means(np.array([[told["success"], len(told["turns"])] for told in records], dtype=float))
    shown = means(np.array([[mode in told["failures"] for mode in FAILURE_MODES] for told in records], dtype=float))
    curves = means(drift(records, max_turns).reshape(len(records), -1)).reshape(draws + 1, max_turns, -1)
    overall = _mean_of_categories(curves)
    return {
        "conversations": len(records),
        "goals": len(set(goals)),
        "seeds": len({told["seed"] for told in records}),
        "mean": interval(_mean_of_categories(success)),
        "rates": {category: interval(success[:, k]) for k, category in enumerate(_CATEGORIES)},
        "failure_modes": {mode: interval(shown[:, k]) for k, mode in enumerate(FAILURE_MODES)},
        "agent_success": interval(scalars[:, 0]),
        "turns": interval(scalars[:, 1]),
        "drift": {
            "mean": [interval(overall[:, turn]) for turn in range(max_turns)],
            **{
                category: [_plain(curves[0, turn, k]) for turn in range(max_turns)]
                for k, category in enumerate(_CATEGORIES)
            },
        },
        "faults_by_turn": faults_by_turn(records, max_turns),
        "outcomes": dict(Counter(told["outcome"] for told in records)),
        "faults": dict(Counter(fault["mode"] for told in records for fault in told["faults"])),
        "errors": dict(Counter(told["error"] for told in records if told["error"] is not None)),
        "diversity": diversity([turn["user"] for told in records for turn in told["turns"]]),
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def difference(records: Records, baseline: Records, *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """How much better one user does than another, paired by goal and seed.

    Returns
    -------
    dict
        ``pairs`` (how many conversations both have), and ``mean`` and ``rates`` as in `figures`, as differences.

    Raises
    ------
    ValueError
        If the two have no goal and seed in common.
    """
    ours = {(told["number"], told["seed"]): told for told in records}
    theirs = {(told["number"], told["seed"]): told for told in baseline}
    pairs = sorted(ours.keys() & theirs.keys())
    if not pairs:
        raise ValueError("two users can be compared on the same goals and seeds only, and these share none")
    goals = [goal for goal, _ in pairs]
    here, there = (
        bootstrap(_success([side[pair] for pair in pairs]), goals, draws=draws, seed=seed) for side in (ours, theirs)
    )
    return {
        "pairs": len(pairs),
        "mean": interval(_mean_of_categories(here) - _mean_of_categories(there)),
        "rates": {category: interval(here[:, k] - there[:, k]) for k, category in enumerate(_CATEGORIES)},
    }


# ------------------------------------------------------------------------------------------------------------ diversity

_WORD = re.compile(r"[a-z0-9]+(?:['’:.-][a-z0-9]+)*")
HDD_DRAWS = 42


def diversity(messages: Sequence[str]) -> dict[str, float | None]:
    """Lexical diversity and length of a user's messages, one after the other as a single text.

    Returns
    -------
    dict
        ``mtld`` (McCarthy & Jarvis 2010, threshold 0.72) and ``hdd`` (HD-D, McCarthy & Jarvis 2007, samples of 42
        words; the expected type-token ratio, in [0, 1]), both by ``lexicalrichness``; ``distinct_1`` and ``distinct_2``
        (Li et al. 2016, distinct words and word pairs within messages, of all: falls with the length of the text);
        ``words_per_message``. None where there are too few words.

    Raises
    ------
    ImportError
        If ``lexicalrichness`` is not installed (extra ``train``).
    """
    said = [_WORD.findall(message.lower()) for message in messages]
    words = [word for message in said for word in message]
    pairs = [pair for message in said for pair in pairwise(message)]
    mtld = hdd = None
    if len(words) >= HDD_DRAWS:
        text = lexical_richness()(words, preprocessor=None, tokenizer=None)
        mtld, hdd = float(text.mtld()), float(text.hdd(HDD_DRAWS))
    return {
        "mtld": mtld,
        "hdd": hdd,
        "distinct_1": len(set(words)) / len(words) if words else None,
        "distinct_2": len(set(pairs)) / len(pairs) if pairs else None,
        "words_per_message": len(words) / len(said) if said else None,
    }


def lexical_richness() -> Any:
    """The class that measures diversity; imported late, as it takes seconds and is part of an extra.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        from lexicalrichness import LexicalRichness
    except ImportError as error:
        raise ImportError(
            "diversity is measured by lexicalrichness, which is not installed: pip install 'ugst-env[train]'"
        ) from error
    return LexicalRichness
