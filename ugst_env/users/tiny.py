"""`ugst-tiny`, the language model that ships with the package: its prompt, and how its tokens become words.

The prompt is short and grows only at its end, so that keys and values are re-used from turn to turn::

    <steer>                                           with goal states
    <fact.mood> cheerful <policy.max_words> <11>      profile and policy
    <restaurant.book> <req> <restaurant.food> ...     objectives
    <state> <10> <restaurant.food> <INC> ...          turns left, S_0, and the rules of the policy once more
    <user> i would like <=restaurant.food> food <end> u_1
    <agent> how about ...                             a_1
    <state> ...                                       S_1
    <user>                                            the model goes on from here

Without steering nobody tells the model where it stands. Then its reasoning trace is the goal state as it sees it: the
prompt stops behind ``<state> <9>``, the model writes the statuses, and goes on behind ``<user>`` with its reply. What
the rules ask for now follows from the goal and those statuses, so the runtime puts it between (`Codec.reminded`). So
what steering puts into the prompt and what the model has to know by itself have one form. A model that never learnt to
write states (the base of the recipe) gets a prompt without any, which begins with ``<free>``.

A value of the goal is a *copy token*, such as ``<=restaurant.food>``, wherever it stands: in what the user said, in
what the agent said, and in what the model says. The runtime puts the value in its place, so the model copies names that
it never saw, and reads off the agent's words whether they name the goal's value or another. Only "hotel" and
"guesthouse" stay words where the agent says them, and are told in the goal: what is a value when the user says it is
most often just a noun of the agent's. Letter case is one token per message; punctuation marks and case that a policy
asks for are put in there as well.

Where the agent's words say what a detail of the goal hangs on ("from Monday, but from Saturday if it has 4 stars"),
newer models have that marked: ``a <if> <hotel.day> 4 star hotel``. Whether the detail changes is theirs to conclude.
So is a word for something to find out that several kinds of places have, by the place that is spoken of: ``the
<ask.hotel.postcode> <served> postcode is cb21ab`` is not the postcode of the restaurant before.
"""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from ugst_env.dialogue.generation import display, singular
from ugst_env.goal import (
    Ask,
    ComponentState,
    Fact,
    GoalState,
    Need,
    Objective,
    Rule,
    Status,
    UserGoal,
    Want,
)
from ugst_env.goals.policies import KINDS as POLICY_KINDS
from ugst_env.goals.policies import Utterance, comply, comply_all, limits, make_rule
from ugst_env.goals.profiles import KINDS as FACT_KINDS
from ugst_env.users.protocol import UserReply, UserRequest
from ugst_env.world.ontology import ASKABLE_SLOTS, BELIEF_SLOTS, DOMAINS

if TYPE_CHECKING:
    from ugst_env.models.causal import Prompt

# Turns left, limits of words, and how many words a value has.
NUMBER_TOKENS = tuple(f"<{k}>" for k in range(21))
_MODES = ("<steer>", "<free>")
_MARKS = (
    "<state>",
    "<user>",
    "<agent>",
    "<end>",
    "<bye>",
    "<lower>",
    "<upper>",
    "<words>",
    "<pad>",
    "<secret>",
    "<later>",
    "<one>",
    "<two>",
    "<three>",
)
_GOAL = ("<req>", "<pref>", "<else>", "<if>", "<nomatch>", "<served>", "<fault>")
_STATUS = {
    Status.INCOMPLETE: "<INC>",
    Status.ATTEMPTED: "<ATT>",
    Status.COMPLETE: "<COM>",
    Status.ALIGNED: "<ALI>",
    Status.MISALIGNED: "<MIS>",
}
_OPEN_FACTS = ("name", "home_town", "party_size")
# Rules whose value is a phrase to be said word for word.
_PHRASE_RULES = (
    "say_word", "ask_with", "open_with", "close_with", "sign_name", "address_as", "greet_with", "leave_with",
)  # fmt: skip
COPY_TOKENS = (
    *(f"<=fact.{kind}>" for kind in _OPEN_FACTS),
    *(f"<=policy.{kind}>" for kind in _PHRASE_RULES),
    *(f"<={domain}.{slot}>" for domain, slot in BELIEF_SLOTS),
)
_REFERENCES = tuple((domain, "reference") for domain in DOMAINS)
_COPY_SET = frozenset(COPY_TOKENS)
_SPOKEN = frozenset(("<end>", "<bye>", "<lower>", "<upper>", "<words>", "<else>"))
# Punctuation and letter case are put in where tokens become text, so rules about them are kept there.
RENDERED = ("max_sentences", "no_mark", "end_mark", "case")
# Rules that name a slot: the model sees them as a mark on that slot of the goal, whatever slot it is.
_SLOT_RULES = {"withhold": "<secret>", "not_first": "<later>"}
_BOUNDS = ("max_words", "min_words", "max_things")
_ROOM = {1: "<one>", 2: "<two>", 3: "<three>"}
SPECIAL_TOKENS = (
    *_MARKS,
    *_MODES,
    *_GOAL,
    *_STATUS.values(),
    *COPY_TOKENS,
    *NUMBER_TOKENS,
    *(f"<fact.{kind}>" for kind in FACT_KINDS),
    *(f"<policy.{kind}>" for kind in POLICY_KINDS),
    *(f"<{domain}.{action}>" for domain in DOMAINS for action in ("find", "book")),
    *(f"<{domain}.{slot}>" for domain, slot in BELIEF_SLOTS),
    *(f"<ask.{domain}.{slot}>" for domain, slot in (*ASKABLE_SLOTS, *_REFERENCES)),
)


def _number(value: int) -> str:
    return NUMBER_TOKENS[min(value, len(NUMBER_TOKENS) - 1)]


_NO_DIGITS = make_rule("no_digits", "all")


def _in_words(value: str) -> str:
    spelt = comply(_NO_DIGITS, value, Utterance(value, (), None, first=False, last=False), random.Random(0))
    return spelt.lower() if value[:1].isdigit() else spelt


_PLAIN_FORMS = {
    "1 person": "1 people",
    "1 night": "1 nights",
    "1 ticket": "1 tickets",
    "moderately priced": "moderate",
}
_FORMS = re.compile(r"\b(?:" + "|".join(_PLAIN_FORMS) + r")\b")


@dataclass(frozen=True)
class Handles:
    """The copy tokens of one goal.

    Parameters
    ----------
    values
        What each token stands for; ``<else>`` before a token makes it the alternative of a conditional value.
    forms
        Which tokens a lower-case piece of text may stand for, as (token, whether it is spelt out in words).
    conditions
        What details of the goal hang on, by the lower-case text that says so: the tokens of the mark before it.
    asked
        What is to be found out, by the domain and the lower-case word for it: the tokens of the mark before it.
    rendered
        The rules about punctuation and letter case, which `Codec.read` keeps.
    """

    values: Mapping[str, str]
    forms: Mapping[str, tuple[tuple[str, bool], ...]]
    conditions: Mapping[str, str]
    asked: Mapping[str | None, Mapping[str, str]]
    rendered: tuple[Rule, ...] = ()

    @cached_property
    def tokens(self) -> frozenset[str]:
        """The keys of `values`."""
        return frozenset(self.values)


def _find(forms: Iterable[str], text: str) -> Iterator[tuple[int, int]]:
    """Where in a lower-case text these stand (from, to), the longest first where several begin."""
    # To compile a pattern for each goal takes longer than to search for its values.
    found = []
    for form in forms:
        begin = text.find(form)
        while begin >= 0:
            end = begin + len(form)
            if not _GLUED_BEFORE.match(text, begin - 1, begin) and not _GLUED_BEHIND.match(text, end):
                found.append((begin, -end))
            begin = text.find(form, begin + 1)
    at = 0
    for begin, end in sorted(found):
        if begin >= at:
            yield begin, -end
            at = -end


# What makes a piece of text a part of a longer word or number.
_GLUED_BEFORE = re.compile(r"[\w:.]")
_GLUED_BEHIND = re.compile(r"[\w:]|\.\d")
NO_HANDLES = Handles({}, {}, {}, {})
# What several kinds of places have, so that the word does not tell whose it is.
_SHARED = ("address", "postcode", "phone")
# What an agent calls a place to stay, whether or not the goal has it for a value.
_NOUNS = ("hotel", "guesthouse")


# Room for the goals of the conversations at hand: a cache that takes long to fill looks like a leak.
@lru_cache(maxsize=1024)
def handles_of(goal: UserGoal) -> Handles:
    """The copy tokens of a goal's values (yes and no are no names), and the marks in what the agent says."""
    values: dict[str, str] = {}
    for fact in goal.profile:
        if fact.kind in _OPEN_FACTS:
            values[f"<=fact.{fact.kind}>"] = fact.value
    for rule in goal.policy:
        if rule.kind in _PHRASE_RULES:
            values[f"<=policy.{rule.kind}>"] = rule.value
    for objective in goal.objectives:
        for want in (*objective.requirements, *objective.preferences):
            if isinstance(want, Want) and want.value not in ("yes", "no"):
                values[f"<={objective.domain}.{want.slot}>"] = display(want.slot, want.value)
                if want.otherwise is not None:
                    values[f"<else><={objective.domain}.{want.slot}>"] = display(want.slot, want.otherwise)
    forms: dict[str, list[tuple[str, bool]]] = {}
    spell_out = any(rule.kind == "no_digits" for rule in goal.policy)
    for token, value in values.items():
        forms.setdefault(value.lower(), []).append((token, False))
        if spell_out and (spelt := _in_words(value).lower()) != value.lower():
            forms.setdefault(spelt, []).append((token, True))
    ways = {form: tuple(tokens) for form, tokens in forms.items()}
    conditions = {
        form: f"<if><{objective.domain}.{part.slot}>"
        for objective in goal.objectives
        for part in objective.requirements
        if isinstance(part, Want) and part.condition not in (None, "no_match")
        for form in _condition_forms(part.condition or "")
    }
    asked: dict[str | None, dict[str, str]] = {}
    for objective in goal.objectives:
        for part in objective.requirements:
            if isinstance(part, Ask) and part.slot in _SHARED:
                mark = f"<ask.{objective.domain}.{part.slot}><served>"
                asked.setdefault(objective.domain, {})[part.slot] = mark
    return Handles(values, ways, conditions, asked, tuple(rule for rule in goal.policy if rule.kind in RENDERED))


def _condition_forms(condition: str) -> tuple[str, ...]:
    """How an agent may say in lower case that a condition, such as ``stars=4``, holds."""
    slot, _, value = condition.partition("=")
    if slot in ("internet", "parking"):
        return (slot,)
    if slot == "stars":
        return (f"{value} star", f"{value} stars", f"{value}-star")
    return (display(slot, value).lower(),)


def _asserted(text: str, begin: int, end: int) -> bool:
    """Whether a piece of text is neither denied nor part of a question."""
    mark = re.search(r"[.?!]", text[end:])
    return (mark is None or mark[0] != "?") and not text[:begin].endswith("no ")


_TOKEN = re.compile(r"<[^<>]+>")
_TOPIC_WORDS = {
    "attraction": ("attraction", "visit", "museum", "park", "entrance"),
    "hotel": ("hotel", "guesthouse", "stay", "accommodation", "nights", "night", "room", "guests"),
    "restaurant": ("restaurant", "food", "table", "eat", "dine", "cuisine", "eating"),
    "train": ("train", "ticket", "tickets", "travel", "leaving", "station", "journey", "depart"),
}
_TOPIC = {word: domain for domain, words in _TOPIC_WORDS.items() for word in words}
_CUES = {
    **dict.fromkeys(("people", "person", "guests", "tickets", "ticket"), "people"),
    **dict.fromkeys(("nights", "night"), "stay"),
    **dict.fromkeys(("stars", "star"), "stars"),
}
_COUNTED = frozenset(_CUES.values())


def topic_of(text: str, before: str | None) -> str | None:
    """The domain that a text speaks of last, by its words; `before` where it names none."""
    topics = [_TOPIC[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _TOPIC]
    return topics[-1] if topics else before


def _best_token(tokens: Sequence[tuple[str, bool]], topic: str | None, following: str) -> tuple[str, bool] | None:
    """Which of several tokens of one value a piece of text stands for: by the topic, then by the word behind it.

    None where that word says that it is another number: "a 4 star hotel" is not how many nights there are to be.
    """
    cue = _CUES.get((re.match(r"\W*([a-z]*)", following) or ["", ""])[1])
    best = min(
        tokens,
        key=lambda pair: (
            topic is None or f"<={topic}." not in pair[0],
            cue is None or f"<={topic}.{cue}" not in pair[0],
            pair[0].startswith("<else>"),
        ),
    )
    counted = best[0].rpartition(".")[2].rstrip(">")
    return best if cue is None or counted not in _COUNTED or counted == cue else None


@dataclass(frozen=True)
class Past:
    """The token ids of the goal and all turns before the one `request` asks for, and what is `shown` after them."""

    request: UserRequest
    reasons: bool
    ids: list[int]
    topic: str | None
    shown: list[int]

    def leads_to(self, request: UserRequest, *, reasons: bool) -> bool:
        """Whether a prompt for `request` begins with these ids."""
        mine, turn = self.request, self.request.turn
        return (
            turn <= request.turn
            and (reasons, mine.goal, mine.max_turns, mine.repeat, mine.state is None)
            == (self.reasons, request.goal, request.max_turns, request.repeat, request.state is None)
            and mine.conversation.turns[:turn] == request.conversation.turns[:turn]
            and mine.states[:turn] == request.states[:turn]
            and mine.traces[:turn] == request.traces[:turn]
        )


class Codec:
    """Between conversations and token ids.

    Parameters
    ----------
    tokenizer
        A byte-level BPE tokenizer with `SPECIAL_TOKENS` among its tokens.
    copy
        Whether goal values are copy tokens; False spells them out (raw copying, for comparison).
    conditions
        Whether the agent's words are marked where they say what a detail of the goal hangs on, or tell an address,
        postcode or phone number that is to be found out.
    """

    def __init__(self, tokenizer: Tokenizer, *, copy: bool = True, conditions: bool = False) -> None:
        self.tokenizer = tokenizer
        self.copy = copy
        self.conditions = conditions
        known = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
        missing = [token for token, number in known.items() if number is None]
        if missing:
            raise ValueError(f"the tokenizer lacks {len(missing)} of the special tokens, such as {missing[0]!r}")
        self.ids = {token: number for token, number in known.items() if number is not None}
        self._names = {number: token for token, number in self.ids.items()}
        vocabulary = tokenizer.get_vocab_size()
        self.end = self.ids["<end>"]
        self._copies = {token: self.ids[token] for token in (*COPY_TOKENS, "<else>")}
        self._control = tuple(self.ids[token] for token in SPECIAL_TOKENS if token not in _COPY_SET | _SPOKEN)
        self._status_of = {status: self.ids[token] for status, token in _STATUS.items()}
        self._status_ids = frozenset(self._specials(*_STATUS.values(), "<served>", "<fault>", "<else>"))
        self._objectives = {self.ids[f"<{domain}.{action}>"] for domain in DOMAINS for action in ("find", "book")}
        self._word = lru_cache(maxsize=65536)(self._encode)
        self._texts = [tokenizer.decode([token], skip_special_tokens=False) for token in range(vocabulary)]
        self._speakable = lru_cache(maxsize=65536)(self._is_speakable)
        self._senseless = lru_cache(maxsize=1024)(self._without_sense)
        self._names_of = lru_cache(maxsize=1024)(self._names_of_parts)
        self._bounds = lru_cache(maxsize=1024)(self._bounds_of)

    def handles(self, goal: UserGoal) -> Handles:
        """The copy tokens of a goal; none with raw copying."""
        return handles_of(goal) if self.copy else NO_HANDLES

    def banned(self, goal: UserGoal, *, trace: bool) -> tuple[int, ...]:
        """Tokens that mean nothing in an answer: copies of values that the goal does not have, other control tokens.

        Only a reasoning trace speaks of slots and statuses.
        """
        return self._senseless(self.handles(goal).tokens, trace)

    def _without_sense(self, values: frozenset[str], trace: bool) -> tuple[int, ...]:
        known = {token for key in values for token in _TOKEN.findall(key)}
        copies = (number for token, number in self._copies.items() if token not in known)
        return (*(() if trace else self._control), *copies)

    def _plain(self, text: str) -> list[int]:
        """Token ids of a text without control tokens. No token goes on behind a space, so each word has its own."""
        first, *words = text.split(" ")
        ids = [*self._word(first)] if first else []
        for word in words:
            ids += self._word(" " + word)
        return ids

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _specials(self, *tokens: str) -> list[int]:
        return [self.ids[token] for token in tokens]

    def words(self, text: str, handles: Handles, topic: str | None = None, *, foreign: bool = False) -> list[int]:
        """Token ids of a text, the goal's values in it as copy tokens.

        Angle brackets are dropped, so no text is a control token; with `foreign`, what is no word as well.
        """
        # A copy token has one form, and does not tell whether it is 1: number agreement is left to `read`.
        text = " ".join(text.lower().replace("<", " ").replace(">", " ").split())
        if "1 " in text or "moderately" in text:
            text = _FORMS.sub(lambda m: _PLAIN_FORMS[m[0]], text)
        ids: list[int] = []
        at = 0
        marks: dict[str, str] = {}
        if foreign and self.conditions:
            marks = {**handles.conditions, **handles.asked.get(topic, {})}
        for begin, end in _find({**handles.forms, **marks} if marks else handles.forms, text):
            piece = text[begin:end]
            mark = marks.get(piece)
            if mark is not None and not _asserted(text, begin, end):
                mark = None
            stands_for = None
            if piece in handles.forms and not (foreign and piece in _NOUNS):
                stands_for = _best_token(handles.forms[piece], topic, text[end : end + 12])
            if mark is None and stands_for is None:
                continue
            before = text[at:begin].rstrip()
            before = self._known(before) if foreign else before
            if before:
                ids += self._plain(before if at else " " + before)
            if mark is not None:
                ids += self._specials(*_TOKEN.findall(mark))
            if stands_for is not None:
                token, spelt = stands_for
                ids += self._specials(*(("<words>",) if spelt else ()), *_TOKEN.findall(token))
            else:
                ids += self._plain(" " + piece)
            at = end
        rest = self._known(text[at:]) if foreign else text[at:]
        if rest:
            ids += self._plain(rest if at else " " + rest)
        return ids

    def _known(self, text: str) -> str:
        """The words of a text that the model can make sense of, no word twice in a row.

        It has seen the words of clerks, and names and numbers. A string of letters or marks that is none of these leads
        it astray, up to replies without end.
        """
        kept: list[str] = []
        for word in text.split()[:MAX_HEARD_WORDS]:
            if self._speakable(word) and word != (kept[-1] if kept else ""):
                kept.append(word)
        return (" " if kept and text[:1] == " " else "") + " ".join(kept)

    def _is_speakable(self, word: str) -> bool:
        if any(c.isdigit() for c in word):
            return len(word) <= 16
        letters = [c for c in word if c.isalpha()]
        if not letters:
            return len(word) <= 3
        return letters in (["a"], ["i"]) or (len(letters) > 1 and len(self._encode(" " + word)) <= 6)

    def goal(self, goal: UserGoal, *, states: bool) -> list[int]:
        """Token ids of the mode (whether goal states follow) and the goal."""
        handles = self.handles(goal)
        ids = self._specials("<steer>" if states else "<free>")
        for fact in goal.profile:
            if fact.kind != "text":
                ids += [
                    *self._specials(f"<fact.{fact.kind}>"),
                    *self._value(f"<=fact.{fact.kind}>", fact.value, handles),
                ]
        for rule in goal.policy:
            if rule.kind not in ("text", *_BOUNDS, *_SLOT_RULES, *RENDERED):
                value = self._value(f"<=policy.{rule.kind}>", rule.value, handles)
                ids += [*self._specials(f"<policy.{rule.kind}>"), *value]
        ids += self._bounds(goal.policy)
        marks = {rule.value: _SLOT_RULES[rule.kind] for rule in goal.policy if rule.kind in _SLOT_RULES}
        counted = limits(goal.policy).max_words is not None
        for objective in goal.objectives:
            ids += self._objective(objective, handles, marks, count=counted)
        return ids

    def _bounds_of(self, policy: tuple[Rule, ...]) -> tuple[int, ...]:
        """Token ids of the rules that bound a message: its words, and the room for things in it."""
        bound = limits(policy)
        tokens: list[str] = []
        for rule in policy:
            if rule.kind == "min_words":
                # Rounded up to an even number; see max_words below.
                tokens += ["<policy.min_words>", _number((int(rule.value) + 1) // 2 * 2)]
        if bound.max_words is not None:
            # Rounded down to an odd number: half as many limits to learn, and none is ever read as a looser one.
            tokens += ["<policy.max_words>", _number((bound.max_words - 1) // 2 * 2 + 1)]
        return tuple(self._specials(*tokens, *((_ROOM[bound.max_things],) if bound.max_things in _ROOM else ())))

    def _value(self, token: str, value: str, handles: Handles, *, count: bool = False) -> list[int]:
        """A value in the goal: its words, or nothing where its copy token stands for it everywhere: its slot names it.

        With `count`, a copy token's number of words, for those who have to count them.
        """
        if token not in handles.values or value in _NOUNS:
            return self._plain(" " + value.lower())
        return self._specials(_number(len(handles.values[token].split()))) if count else []

    def _objective(self, objective: Objective, handles: Handles, marks: Mapping[str, str], *, count: bool) -> list[int]:
        ids = self._specials(f"<{objective.domain}.{objective.action}>")
        for group, parts in (("<req>", objective.requirements), ("<pref>", objective.preferences)):
            for part in parts:
                if isinstance(part, Need):
                    continue  # `plain_words`: no environment asks for these.
                if isinstance(part, Ask):
                    ids += self._specials(f"<ask.{objective.domain}.{part.slot}>")
                    continue
                token = f"<={objective.domain}.{part.slot}>"
                # The mark comes first: a token knows what stands before it.
                mark = (marks[part.slot],) if part.slot in marks else ()
                ids += self._specials(group, *mark, f"<{objective.domain}.{part.slot}>")
                ids += self._value(token, part.value, handles, count=count)
                if part.otherwise is not None and part.condition is not None:
                    slot, _, value = part.condition.partition("=")
                    ids += self._specials("<if>")
                    ids += self._specials("<nomatch>") if slot == "no_match" else self._plain(f" {slot} {value}")
                    ids += self._specials("<else>")
                    ids += self._value(f"<else>{token}", part.otherwise, handles, count=count)
        return ids

    def turn(self, left: int) -> list[int]:
        """Token ids that stand before a goal state: the user turns left."""
        return self._specials("<state>", _number(left))

    def state(self, state: GoalState, *, before: GoalState | None) -> list[int]:
        """Token ids of a goal state: every status, and which alternative is in force.

        An objective that nobody has touched yet, or that was served in all its parts `before` (one turn earlier), is
        told by its own status alone: so what a turn has served is told part by part. What the policy asks for now is
        told again, behind everything else.
        """
        ids: list[int] = []
        goal, start = state.goal, state.goal.start
        earlier = before.states if before is not None else start
        # The objectives' components stand behind all others, one objective after the other.
        end = len(goal.components) - sum(map(len, goal.parts))
        names = self._names_of(goal)
        for name, now in zip(names[:end], state.states[:end], strict=True):
            # That they hold is the rule; only what broke is worth a token.
            if now.status is Status.MISALIGNED:
                ids += [name, self._status_of[now.status]]
        for parts in goal.parts:
            begin, end = end, end + len(parts)
            states = state.states[begin:end]
            settled = all(now.served and then.served for now, then in zip(states, earlier[begin:end], strict=True))
            told = 1 if settled or states == start[begin:end] else len(parts)
            for name, now in zip(names[begin : begin + told], states[:told], strict=True):
                ids += self._status(name, now)
        untold: set[str] = set()
        if any(rule.kind in _SLOT_RULES for rule in goal.policy):
            untold = {c.id for c, now in state.items() if now.status in (Status.INCOMPLETE, Status.MISALIGNED)}
        return ids + self._rules(goal, untold, first=before is None)

    def _rules(self, goal: UserGoal, untold: Collection[str], *, first: bool) -> list[int]:
        """Token ids of what the policy asks for now: slots to keep quiet about, which rules there are, the bounds."""
        tokens: list[str] = []
        for rule in goal.policy:
            if rule.kind in _SLOT_RULES:
                for objective, wants in zip(goal.objectives, goal.wants, strict=True):
                    for component, want in wants:
                        if want.slot == rule.value and (first or rule.kind == "withhold") and component.id in untold:
                            tokens += [_SLOT_RULES[rule.kind], f"<{objective.domain}.{want.slot}>"]
            elif rule.kind not in ("text", *_BOUNDS, *RENDERED):
                tokens.append(f"<policy.{rule.kind}>")
        return [*self._specials(*tokens), *self._bounds(goal.policy)]

    def repetition(self, goal: UserGoal, *, first: bool) -> list[int]:
        """Token ids of the goal once more in the place of its state: what there is to do, without any status."""
        names = self._names_of(goal)
        parts = [name for name, c in zip(names, goal.components, strict=True) if c.objective is not None]
        return [name for name in parts if name != self.end] + self._rules(goal, goal.positions, first=first)

    def _names_of_parts(self, goal: UserGoal) -> tuple[int, ...]:
        """The token that names each of a goal's components; that of ``<end>`` for what is in plain words."""
        names = []
        for component in goal.components:
            content = component.content
            domain = "" if component.objective is None else goal.objectives[component.objective].domain
            if isinstance(content, Fact):
                name = f"<fact.{content.kind}>"
            elif isinstance(content, Rule):
                name = f"<policy.{content.kind}>"
            elif isinstance(content, Need):
                name = "<end>"
            elif isinstance(content, Objective):
                name = f"<{domain}.{content.action}>"
            elif isinstance(content, Ask):
                name = f"<ask.{domain}.{content.slot}>"
            else:
                name = f"<{domain}.{content.slot}>"
            names.append(self.ids.get(name, self.end))
        return tuple(names)

    def _status(self, name: int, now: ComponentState) -> list[int]:
        if name == self.end:
            return []
        ids = [name, self._status_of[now.status]]
        if now.switched:
            ids.append(self.ids["<else>"])
        if now.user_fault:
            ids.append(self.ids["<fault>"])
        elif now.served and now.status is not Status.COMPLETE:
            ids.append(self.ids["<served>"])
        return ids

    def agent(self, text: str, handles: Handles, topic: str | None = None) -> list[int]:
        """Token ids of what the agent said."""
        text = text[:400]
        if not text.isascii():
            text = unicodedata.normalize("NFKD", text.translate(_QUOTES)).encode("ascii", "ignore").decode()
        return [self.ids["<agent>"], *self.words(text, handles, topic, foreign=True)]

    def reply(self, text: str, handles: Handles, topic: str | None = None, *, end: bool) -> list[int]:
        """Token ids of a user reply, up to and with ``<end>``."""
        ids = []
        if any(c.isalpha() for c in text) and all(rule.kind != "case" for rule in handles.rendered):
            if text == text.upper() and sum(c.isalpha() for c in text) > 2:
                ids += self._specials("<upper>")
            elif text == text.lower() and _sentence_case(text) != text:
                ids += self._specials("<lower>")
        ids += self.words(text, handles, topic)
        return [*ids, *self._specials(*(("<bye>",) if end else ()), "<end>")]

    def prompt(self, request: UserRequest, *, trace: bool, past: Past | None = None) -> list[int]:
        """Token ids of everything up to the reply that is asked for; with `trace`, up to the state before it.

        A request that shows the goal state, or repeats the goal, leaves nothing to reason about. `past` is that of an
        earlier turn: what fits of it is not written again.
        """
        past = self.past(request, trace=trace, known=past)
        ids = past.ids + past.shown
        return ids if past.reasons else [*ids, self.ids["<user>"]]

    def past(self, request: UserRequest, *, trace: bool, known: Past | None = None) -> Past:
        """The goal and the turns before the one that is asked for; goes on from `known` if that leads here."""
        reasons = self.reasons(request, trace=trace)
        if known is not None and known.request is request and known.reasons == reasons:
            return known
        if known is not None and known.leads_to(request, reasons=reasons):
            begin, ids, topic = known.request.turn, list(known.ids), known.topic
            same = known.request.state is not None and request.states[begin : begin + 1] == (known.request.state,)
            ready = known.shown if same else None
        else:
            begin, topic, ready = 0, None, None
            ids = self.goal(request.goal, states=request.state is not None or request.repeat or reasons)
        handles = self.handles(request.goal)
        for index in range(begin, request.turn):
            turn = request.conversation.turns[index]
            ids += self._shown(request, index, reasons=reasons) if ready is None else ready
            ids.append(self.ids["<user>"])
            ready = None
            topic = topic_of(turn.user, topic)
            ids += self.reply(turn.user, handles, topic, end=False)
            topic = topic_of(turn.agent or "", topic)
            ids += self.agent(turn.agent or "", handles, topic)
        return Past(request, reasons, ids, topic, self._shown(request, request.turn, reasons=reasons))

    def _shown(self, request: UserRequest, index: int, *, reasons: bool) -> list[int]:
        """What stands before the user's turn `index`: the goal state, the goal, or what the model made of them."""
        if request.state is None and not request.repeat and not reasons:
            return []
        turn = self.turn(request.max_turns - index)
        if request.state is not None:
            state = request.states[index] if index < len(request.states) else request.state
            return turn + self.state(state, before=request.states[index - 1] if index else None)
        if request.repeat:
            return turn + self.repetition(request.goal, first=index == 0)
        return turn + self.trace(request.traces[index] if index < min(request.turn, len(request.traces)) else "")

    def trace(self, text: str) -> list[int]:
        """Token ids of what the model wrote of a goal state (`UserReply.trace`), without the turn."""
        return [self.ids[name] for name in _TOKEN.findall(text) if name in self.ids]

    def told(self, state: Sequence[int]) -> Sequence[int]:
        """The part of a goal state's token ids that tells how the objectives stand."""
        first = next((k for k, token in enumerate(state) if token in self._objectives), len(state))
        return state[first : self._end_of_statuses(state)]

    def _end_of_statuses(self, state: Sequence[int]) -> int:
        return max((k for k, token in enumerate(state) if token in self._status_ids), default=-1) + 1

    def reminded(self, thought: Sequence[int], request: UserRequest) -> list[int]:
        """A goal state that the model wrote, with what the policy asks for by it, whatever the model made of that.

        The statuses are the model's own. The rules stand in the goal, so there is nothing to guess.
        """
        goal = request.goal
        told = self._end_of_statuses(thought)
        status = dict(itertools.pairwise(thought[:told]))
        still_open = {self.ids["<INC>"], self.ids["<MIS>"]}
        untold = set()
        for objective, wants in zip(goal.objectives, goal.wants, strict=True):
            # Parts that are not told of one by one are as the objective is.
            whole = status.get(self.ids[f"<{objective.domain}.{objective.action}>"])
            for component, want in wants:
                if status.get(self.ids[f"<{objective.domain}.{want.slot}>"], whole) in still_open:
                    untold.add(component.id)
        return [*thought[:told], *self._rules(goal, untold, first=request.turn == 0)]

    @staticmethod
    def reasons(request: UserRequest, *, trace: bool) -> bool:
        """Whether a model that may reason (`trace`) has to, for this request."""
        return trace and request.state is None and not request.repeat

    def read(self, ids: Sequence[int], goal: UserGoal) -> UserReply:
        """The reply that generated ids stand for: words with the values put in, the end signal, the trace."""
        handles = self.handles(goal)
        ids = list(ids)
        trace = ""
        if self.ids["<user>"] in ids:
            cut = ids.index(self.ids["<user>"])
            trace = " ".join(self._names[token] for token in ids[:cut] if token in self._names)
            ids = ids[cut + 1 :]
        if not ids or ids[-1] != self.end:
            return UserReply("", trace=trace, error=f"the model did not finish its reply within {len(ids)} tokens")
        end = self.ids["<bye>"] in ids
        text = singular(self._spell(ids, handles)).replace("seafood food", "seafood")
        text = _ARTICLE.sub(_right_article, text)
        upper, lower = self.ids["<upper>"] in ids, self.ids["<lower>"] in ids
        text = text.upper() if upper else text.lower() if lower else _sentence_case(text)
        if handles.rendered:
            said = Utterance(text, (), None, first=False, last=end)
            text = comply_all(handles.rendered, text, said, random.Random(0))
        if not any(c.isalnum() for c in text):
            return UserReply("", trace=trace, error="the model returned an empty reply")
        return UserReply(text, end=end, trace=trace)

    def _spell(self, ids: Sequence[int], handles: Handles) -> str:
        parts: list[str] = []
        plain: list[int] = []
        in_words, alternative = False, ""

        def flush() -> None:
            if plain:
                text = "".join([self._texts[token] for token in plain])
                # A letter of several bytes may be spread over tokens, which are none by themselves.
                spread = "\ufffd" in text
                parts.append(self.tokenizer.decode(plain, skip_special_tokens=False) if spread else text)
                plain.clear()

        for token in ids:
            name = self._names.get(token)
            if name is None:
                plain.append(token)
                continue
            flush()
            if name in _COPY_SET:
                value = handles.values.get(alternative + name, handles.values.get(name, ""))
                parts.append(" " + (_in_words(value) if in_words else value))
            in_words = name == "<words>" or (in_words and name == "<else>")
            alternative = "<else>" if name == "<else>" else ""
        flush()
        return " ".join("".join(parts).split())


_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")
_ARTICLE = re.compile(r"\b(an?) (?=(\w+))", re.IGNORECASE)


def _right_article(match: re.Match[str]) -> str:
    """ "a" or "an", as the word behind it wants it: the model does not know what a copy token will be."""
    word = match[2].lower()
    vowel = word[0] in "aeiou" and not word.startswith(("uni", "use", "one", "eu"))
    return f"{match[1][0]}{'n' if vowel else ''} "


_SENTENCE_START = re.compile(r"(^[^\w]*|[.!?]+\s+)([a-z])")
_LONE_I = re.compile(r"(?<![\w'])i(?=$|[^\w]|'(?:m|d|ll|ve)\b)")


def _sentence_case(text: str) -> str:
    """Capital letters where English wants them: sentence starts and "I"."""
    text = _SENTENCE_START.sub(lambda m: m[1] + m[2].upper(), text)
    return _LONE_I.sub("I", text)


SHIPPED = Path(__file__).parent.parent / "models" / "ugst-tiny"
MAX_REPLY_TOKENS = 72
MAX_HEARD_WORDS = 80
MAX_TRACE_TOKENS = 80
# Conversations whose prompts are kept: more than there are environments in a process.
MAX_PASTS = 4096


class TinyUser:
    """The shipped model as a user simulator.

    Parameters
    ----------
    folder
        Where the model stands: ``model.safetensors``, ``config.json`` and ``tokenizer.json``.
    temperature, top_p
        How replies are drawn; 0 takes the likeliest token.
    trace
        Whether the model writes down where it stands before it replies, when it is not shown the goal state. None: if
        it was trained to.
    device
        A torch device, or "auto".
    """

    plain_words = False

    def __init__(
        self,
        folder: str | Path = SHIPPED,
        *,
        temperature: float = 0.5,
        top_p: float = 0.9,
        trace: bool | None = None,
        device: str = "auto",
        model: Any = None,
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from ugst_env.models.causal import CausalModel

        folder = Path(folder)
        if model is None and not (folder / "model.safetensors").exists():
            raise FileNotFoundError(
                f"no ugst-tiny model at {folder}: expected model.safetensors, config.json and tokenizer.json"
            )
        if model is None:
            model = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
        copy = bool(getattr(model.config, "copy_tokens", True))
        conditions = bool(getattr(model.config, "condition_marks", False))
        self.codec = Codec(Tokenizer.from_file(str(folder / "tokenizer.json")), copy=copy, conditions=conditions)
        self.model = CausalModel(
            model, eos_ids={self.codec.end}, device=device, max_length=int(model.config.max_position_embeddings)
        )
        self.temperature, self.top_p = temperature, top_p
        self._pasts: dict[str, Past] = {}  # By conversation, the one asked last at the end.
        self.trace: bool = bool(getattr(model.config, "trace", False)) if trace is None else trace

    def ask(self, request: UserRequest, key: str, seed: int, past: Past | None = None) -> Prompt:
        """What the model is to continue for a request; `past` as in `Codec.prompt`."""
        from ugst_env.models.causal import Prompt

        banned = self.codec.banned(request.goal, trace=self.codec.reasons(request, trace=self.trace))
        return Prompt(key, tuple(self.codec.prompt(request, trace=self.trace, past=past)), seed, banned)

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        """Answer all requests in one batch."""
        prompts = []
        for request in requests:
            past = self.codec.past(request, trace=self.trace, known=self._pasts.pop(request.episode, None))
            self._pasts[request.episode] = past
            prompts.append(self.ask(request, request.episode, request.seed, past))
        for episode in list(self._pasts)[:-MAX_PASTS]:
            del self._pasts[episode]
        thinks = any(self.codec.reasons(request, trace=self.trace) for request in requests)
        longest = self.model.max_length - MAX_REPLY_TOKENS - (MAX_TRACE_TOKENS if thinks else 0)
        fits = [k for k, prompt in enumerate(prompts) if len(prompt.ids) <= longest]
        replies = [
            UserReply("", error=f"the conversation is longer than the model can read ({longest} tokens)")
            for _ in requests
        ]
        thoughts = self.think(prompts, requests, fits)
        outputs = self._draw([prompts[k] for k in fits], MAX_REPLY_TOKENS)
        for k, ids in zip(fits, outputs, strict=True):
            replies[k] = self.codec.read([*thoughts.get(k, ()), *ids], requests[k].goal)
        return replies

    def think(
        self, prompts: list[Prompt], requests: Sequence[UserRequest], which: Iterable[int] | None = None
    ) -> dict[int, list[int]]:
        """Let the model write goal states before those replies that ask for one; they become the ends of the prompts.

        Parameters
        ----------
        prompts
            As from `ask`, one per request; changed in place.
        requests
            What the prompts are for.
        which
            Consider only these positions.

        Returns
        -------
        dict
            The token ids that were added, by position.
        """
        which = range(len(prompts)) if which is None else which
        which = [k for k in which if self.codec.reasons(requests[k], trace=self.trace)]
        mark = self.codec.ids["<user>"]
        drawn = self._draw([prompts[k] for k in which], MAX_TRACE_TOKENS, frozenset({mark})) if which else []
        thoughts = {}
        for k, ids in zip(which, drawn, strict=True):
            thoughts[k] = [*self.codec.reminded(ids, requests[k]), mark]
            prompts[k] = replace(
                prompts[k],
                ids=(*prompts[k].ids, *thoughts[k]),
                seed=prompts[k].seed + 1,
                banned=self.codec.banned(requests[k].goal, trace=False),
            )
        return thoughts

    def _draw(self, prompts: Sequence[Prompt], most: int, stop_ids: frozenset[int] = frozenset()) -> list[list[int]]:
        return self.model.generate(
            prompts, max_new_tokens=most, temperature=self.temperature, top_p=self.top_p, stop_ids=stop_ids
        )

    def forget(self, episodes: Sequence[str]) -> None:
        """Drop the caches of these conversations."""
        self.model.forget(episodes)
        for episode in episodes:
            self._pasts.pop(episode, None)
