"""`ugst-tiny`, the language model that ships with the package: how it reads a conversation and how its tokens become words.

The prompt is short and grows only at its end, so that keys and values are re-used from turn to turn::

    <steer><plain>                                    with the goal state, without a reasoning trace
    <fact.mood> cheerful <policy.max_words> 12        profile and policy
    <restaurant.book> <req><restaurant.food> <v0> ... objectives; <v0> is a value of the goal
    <state> <t10> <restaurant.food> <INC> <v0> ...    S_0
    <user> I would like some <v0> food. <end>         u_1
    <agent> how about ...                             a_1
    <state> ...                                       S_1
    <user>                                            the model goes on from here

Every distinct value of the goal is a *copy token* ``<v0>`` .. ``<v31>``, in the goal, in what the agent says, and in what the model
says; the runtime puts the value in its place. Letter case is one token per message.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ugst_env.dialogue.generation import display, singular
from ugst_env.goal import (
    START,
    Ask,
    Component,
    ComponentState,
    Fact,
    GoalState,
    Objective,
    Rule,
    Status,
    UserGoal,
    Want,
)
from ugst_env.goals.policies import KINDS as POLICY_KINDS
from ugst_env.goals.policies import Utterance, comply, make_rule
from ugst_env.goals.profiles import KINDS as FACT_KINDS
from ugst_env.tracking.verifiable import in_force
from ugst_env.users.protocol import UserReply, UserRequest
from ugst_env.world.ontology import ASKABLE_SLOTS, BELIEF_SLOTS, DOMAINS

COPY_TOKENS = tuple(f"<v{k}>" for k in range(32))
TURN_TOKENS = tuple(f"<t{k}>" for k in range(21))
_MODES = ("<steer>", "<free>", "<plain>", "<trace>")
_MARKS = (
    "<state>",
    "<user>",
    "<agent>",
    "<end>",
    "<bye>",
    "<think>",
    "<say>",
    "<lower>",
    "<upper>",
    "<words>",
    "<pad>",
)
_GOAL = ("<req>", "<pref>", "<else>", "<if>", "<nomatch>", "<served>", "<fault>")
_STATUS = {
    Status.INCOMPLETE: "<INC>",
    Status.ATTEMPTED: "<ATT>",
    Status.COMPLETE: "<COM>",
    Status.ALIGNED: "<ALI>",
    Status.MISALIGNED: "<MIS>",
}
_REFERENCES = tuple((domain, "reference") for domain in DOMAINS)
SPECIAL_TOKENS = (
    *_MARKS,
    *_MODES,
    *_GOAL,
    *_STATUS.values(),
    *COPY_TOKENS,
    *TURN_TOKENS,
    *(f"<fact.{kind}>" for kind in FACT_KINDS),
    *(f"<policy.{kind}>" for kind in POLICY_KINDS),
    *(f"<{domain}.{action}>" for domain in DOMAINS for action in ("find", "book")),
    *(f"<{domain}.{slot}>" for domain, slot in BELIEF_SLOTS),
    *(f"<ask.{domain}.{slot}>" for domain, slot in (*ASKABLE_SLOTS, *_REFERENCES)),
)

# Rules whose value is a phrase to be said word for word.
_PHRASE_RULES = (
    "say_word",
    "ask_with",
    "open_with",
    "close_with",
    "sign_name",
    "address_as",
    "greet_with",
    "leave_with",
)
_OPEN_FACTS = ("name", "home_town", "party_size")
_NO_DIGITS = make_rule("no_digits", "all")


def _in_words(value: str) -> str:
    spelt = comply(_NO_DIGITS, value, Utterance(value, (), None, first=False, last=False), random.Random(0))
    return spelt.lower() if value[:1].isdigit() else spelt


_PLURALS = {"1 person": "1 people", "1 night": "1 nights", "1 ticket": "1 tickets"}
_ONE = re.compile(r"\b(?:" + "|".join(_PLURALS) + r")\b")


@dataclass(frozen=True)
class Handles:
    """The copy tokens of one goal: which values they stand for, and the pattern that finds the values in a text."""

    values: tuple[str, ...]
    pattern: re.Pattern[str] | None
    tokens: dict[str, str]

    def token(self, value: str) -> str | None:
        return self.tokens.get(value.lower())


NO_HANDLES = Handles((), None, {})


@lru_cache(maxsize=4096)
def handles_of(goal: UserGoal) -> Handles:
    """Assign a copy token to every distinct value of a goal, in the order of its components."""
    values: list[str] = []
    spell_out = any(rule.kind == "no_digits" for rule in goal.policy)

    def add(value: str | None) -> None:
        if (
            value
            and value not in ("yes", "no")
            and value.lower() not in (v.lower() for v in values)
            and len(values) < len(COPY_TOKENS)
        ):
            values.append(value)

    for component in goal.components:
        content = component.content
        if (isinstance(content, Fact) and content.kind in _OPEN_FACTS) or (
            isinstance(content, Rule) and content.kind in _PHRASE_RULES
        ):
            add(content.value)
        elif isinstance(content, Want):
            add(display(content.slot, content.value))
            add(display(content.slot, content.otherwise) if content.otherwise else None)
    tokens = {value.lower(): COPY_TOKENS[k] for k, value in enumerate(values)}
    forms = dict(tokens)
    if spell_out:
        for value in values:
            spelt = _in_words(value).lower()
            if spelt != value.lower():
                forms.setdefault(spelt, f"<words>{tokens[value.lower()]}")
    longest_first = sorted(forms, key=len, reverse=True)
    pattern = (
        re.compile(r"(?<![\w:.])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w:]|\.\d)") if forms else None
    )
    return Handles(tuple(values), pattern, forms)


class Codec:
    """Between conversations and token ids.

    Parameters
    ----------
    tokenizer
        A byte-level BPE tokenizer with `SPECIAL_TOKENS` among its tokens.
    copy
        Whether goal values are copy tokens; False spells them out (raw copying, for comparison).
    """

    def __init__(self, tokenizer: Tokenizer, *, copy: bool = True) -> None:
        self.tokenizer = tokenizer
        self.copy = copy
        known = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
        missing = [token for token, number in known.items() if number is None]
        if missing:
            raise ValueError(f"the tokenizer lacks {len(missing)} of the special tokens, such as {missing[0]!r}")
        self.ids = {token: number for token, number in known.items() if number is not None}
        self._names = {number: token for token, number in self.ids.items()}
        self.end = self.ids["<end>"]
        self._plain = lru_cache(maxsize=65536)(self._encode)

    def handles(self, goal: UserGoal) -> Handles:
        """The copy tokens of a goal; none with raw copying."""
        return handles_of(goal) if self.copy else NO_HANDLES

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _specials(self, *tokens: str) -> list[int]:
        return [self.ids[token] for token in tokens]

    def words(self, text: str, handles: Handles) -> list[int]:
        """Token ids of a text, the goal's values in it as copy tokens. Angle brackets are dropped, so no text is a control token."""
        # A copy token does not tell whether it is 1: number agreement is left to `read`.
        text = _ONE.sub(lambda m: _PLURALS[m[0]], " ".join(text.lower().replace("<", " ").replace(">", " ").split()))
        ids: list[int] = []
        at = 0
        if handles.pattern is not None:
            for match in handles.pattern.finditer(text):
                before = text[at : match.start()].rstrip()
                if before:
                    ids += self._plain(before if at else " " + before)
                ids += [self.ids[token] for token in re.findall(r"<\w+>", handles.tokens[match[0]])]
                at = match.end()
        rest = text[at:]
        if rest:
            ids += self._plain(rest if at else " " + rest)
        return ids

    def goal(self, goal: UserGoal, *, steering: bool, trace: bool) -> list[int]:
        """Token ids of the modes and the goal."""
        handles = self.handles(goal)
        ids = self._specials("<steer>" if steering else "<free>", "<trace>" if trace else "<plain>")
        for fact in goal.profile:
            if fact.kind != "text":
                ids += [*self._specials(f"<fact.{fact.kind}>"), *self.words(fact.value, handles)]
        for rule in goal.policy:
            if rule.kind != "text":
                ids += [*self._specials(f"<policy.{rule.kind}>"), *self.words(rule.value, handles)]
        for objective in goal.objectives:
            ids += self._objective(objective, handles)
        return ids

    def _objective(self, objective: Objective, handles: Handles) -> list[int]:
        ids = self._specials(f"<{objective.domain}.{objective.action}>")
        for group, parts in (("<req>", objective.requirements), ("<pref>", objective.preferences)):
            for part in parts:
                if isinstance(part, Ask):
                    ids += self._specials(f"<ask.{objective.domain}.{part.slot}>")
                    continue
                ids += [*self._specials(group, f"<{objective.domain}.{part.slot}>"), *self.words(part.value, handles)]
                if part.otherwise is not None and part.condition is not None:
                    slot, _, value = part.condition.partition("=")
                    ids += self._specials("<if>")
                    if part.condition == "no_match":
                        ids += self._specials("<nomatch>")
                    elif (token := f"<{objective.domain}.{slot}>") in self.ids:
                        ids += [*self._specials(token), *self.words(value, handles)]
                    else:
                        ids += self.words(f"{slot} {value}", handles)
                    ids += [*self._specials("<else>"), *self.words(part.otherwise, handles)]
        return ids

    def state(self, state: GoalState, *, left: int) -> list[int]:
        """Token ids of a goal state with `left` user turns left: every status, and the value in force where it is still needed.

        An objective that nobody has touched yet, or that is served in all its parts, is told by its own status alone.
        """
        handles = self.handles(state.goal)
        ids = self._specials("<state>", TURN_TOKENS[min(left, len(TURN_TOKENS) - 1)])
        rows = list(state.items())
        for component, now in rows:
            if component.objective is None:
                ids += self._status(state.goal, component, now, handles)
        for index in range(len(state.goal.objectives)):
            parts = [(c, now) for c, now in rows if c.objective == index]
            untouched = all(now == ComponentState(START[c.category]) for c, now in parts)
            settled = all(now.served for _, now in parts)
            for component, now in parts[:1] if untouched or settled else parts:
                ids += self._status(state.goal, component, now, handles)
        return ids

    def _status(self, goal: UserGoal, component: Component, now: ComponentState, handles: Handles) -> list[int]:
        content = component.content
        if isinstance(content, (Fact, Rule)):
            kind = "fact" if isinstance(content, Fact) else "policy"
            # That they hold is the rule; only what broke is worth a token.
            return self._specials(f"<{kind}.{content.kind}>", "<MIS>") if now.status is Status.MISALIGNED else []
        assert component.objective is not None
        domain = goal.objectives[component.objective].domain
        if isinstance(content, Objective):
            ids = self._specials(f"<{domain}.{content.action}>", _STATUS[now.status])
        elif isinstance(content, Ask):
            ids = self._specials(f"<ask.{domain}.{content.slot}>", _STATUS[now.status])
        else:
            ids = self._specials(f"<{domain}.{content.slot}>", _STATUS[now.status])
            if not now.served and not now.user_fault:
                return [*ids, *self.words(in_force(content, switched=now.switched), handles)]
        if now.user_fault:
            ids += self._specials("<fault>")
        elif now.served and now.status is not Status.COMPLETE:
            ids += self._specials("<served>")
        return ids

    def agent(self, text: str, handles: Handles) -> list[int]:
        return [self.ids["<agent>"], *self.words(text[:400], handles)]

    def reply(self, text: str, handles: Handles, *, end: bool) -> list[int]:
        """Token ids of a user reply, up to and with ``<end>``."""
        ids = []
        if any(c.isalpha() for c in text):
            if text == text.upper() and sum(c.isalpha() for c in text) > 2:
                ids += self._specials("<upper>")
            elif text == text.lower() and _sentence_case(text) != text:
                ids += self._specials("<lower>")
        ids += self.words(text, handles)
        return [*ids, *self._specials(*(("<bye>",) if end else ()), "<end>")]

    def trace(self, state: GoalState, things: Iterable[tuple[str, str, str]], *, left: int) -> list[int]:
        """Token ids of a reasoning trace: what is open, what to say now with the turns that are left, and the rules to keep."""
        ids = self._specials("<think>")
        handles = self.handles(state.goal)
        for component, now in state.items():
            if component.objective is not None and not now.served and not now.user_fault:
                ids += self._status(state.goal, component, now, handles)
        ids += self._specials(TURN_TOKENS[min(left, len(TURN_TOKENS) - 1)])
        for kind, domain, slot in things:
            token = f"<ask.{domain}.{slot}>" if kind == "ask" else f"<{domain}.{slot}>"
            ids += [self.ids[token]] if token in self.ids else self._plain(f" {kind}")
        for rule in state.goal.policy:
            if rule.kind != "text":
                ids += self._specials(f"<policy.{rule.kind}>")
        return [*ids, *self._specials("<say>")]

    def prompt(self, request: UserRequest, *, trace: bool) -> list[int]:
        """Token ids of everything up to the reply that is asked for."""
        steering = request.state is not None
        handles = self.handles(request.goal)
        ids = self.goal(request.goal, steering=steering, trace=trace)
        for index in range(request.turn + 1):
            if steering:
                state = request.states[index] if index < len(request.states) else request.state
                assert state is not None
                ids += self.state(state, left=request.max_turns - index)
            ids.append(self.ids["<user>"])
            if index < request.turn:
                turn = request.conversation.turns[index]
                ids += self.reply(turn.user, handles, end=False)
                ids += self.agent(turn.agent or "", handles)
        return ids

    def read(self, ids: Sequence[int], goal: UserGoal) -> UserReply:
        """The reply that generated ids stand for: words with the values put in, the end signal, and the trace in plain words."""
        handles = self.handles(goal)
        ids = list(ids)
        trace = ""
        say = self.ids["<say>"]
        if say in ids:
            cut = ids.index(say)
            trace, ids = self._spell(ids[:cut], handles), ids[cut + 1 :]
        if not ids or ids[-1] != self.end:
            return UserReply("", trace=trace, error=f"the model did not finish its reply within {len(ids)} tokens")
        end = self.ids["<bye>"] in ids
        text = singular(self._spell(ids, handles))
        upper, lower = self.ids["<upper>"] in ids, self.ids["<lower>"] in ids
        text = text.upper() if upper else text.lower() if lower else _sentence_case(text)
        if not any(c.isalnum() for c in text):
            return UserReply("", trace=trace, error="the model returned an empty reply")
        return UserReply(text, end=end, trace=trace)

    def _spell(self, ids: Sequence[int], handles: Handles) -> str:
        parts: list[str] = []
        plain: list[int] = []
        in_words = False

        def flush() -> None:
            if plain:
                parts.append(self.tokenizer.decode(plain, skip_special_tokens=False))
                plain.clear()

        for token in ids:
            name = self._names.get(token)
            if name is None:
                plain.append(token)
                continue
            flush()
            if name in COPY_TOKENS:
                k = COPY_TOKENS.index(name)
                value = handles.values[k] if k < len(handles.values) else ""
                parts.append(" " + (_in_words(value) if in_words else value))
            elif name not in _MARKS:
                parts.append(f" {name}")
            in_words = name == "<words>"
        flush()
        return " ".join("".join(parts).split())


_SENTENCE_START = re.compile(r"(^[^\w]*|[.!?]+\s+)([a-z])")
_LONE_I = re.compile(r"(?<![\w'])i(?=$|[^\w]|'(?:m|d|ll|ve)\b)")


def _sentence_case(text: str) -> str:
    """Capital letters where English wants them: sentence starts and "I"."""
    text = _SENTENCE_START.sub(lambda m: m[1] + m[2].upper(), text)
    return _LONE_I.sub("I", text)


SHIPPED = Path(__file__).parent.parent / "models" / "ugst-tiny"
MAX_REPLY_TOKENS = 72


class TinyUser:
    """The shipped model as a user simulator.

    Parameters
    ----------
    folder
        Where the model stands: ``model.safetensors``, ``config.json`` and ``tokenizer.json``.
    temperature, top_p
        How replies are drawn; 0 takes the likeliest token.
    trace
        Whether the model reasons before it replies.
    device
        A torch device, or "auto".
    """

    def __init__(
        self,
        folder: str | Path = SHIPPED,
        *,
        temperature: float = 0.7,
        top_p: float = 0.9,
        trace: bool = False,
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
        self.codec = Codec(Tokenizer.from_file(str(folder / "tokenizer.json")), copy=copy)
        self.model = CausalModel(
            model, eos_ids={self.codec.end}, device=device, max_length=int(model.config.max_position_embeddings)
        )
        self.temperature, self.top_p, self.trace = temperature, top_p, trace

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        """Answer all requests in one batch."""
        from ugst_env.models.causal import Prompt

        prompts = [Prompt(r.episode, tuple(self.codec.prompt(r, trace=self.trace)), r.seed) for r in requests]
        longest = self.model.max_length - MAX_REPLY_TOKENS
        fits = [k for k, prompt in enumerate(prompts) if len(prompt.ids) <= longest]
        outputs = self.model.generate(
            [prompts[k] for k in fits],
            max_new_tokens=MAX_REPLY_TOKENS * (2 if self.trace else 1),
            temperature=self.temperature,
            top_p=self.top_p,
        )
        replies = [
            UserReply("", error=f"the conversation is longer than the model can read ({longest} tokens)")
            for _ in requests
        ]
        for k, ids in zip(fits, outputs, strict=True):
            replies[k] = self.codec.read(ids, requests[k].goal)
        return replies

    def forget(self, episodes: Sequence[str]) -> None:
        """Drop the caches of these conversations."""
        self.model.forget(episodes)
