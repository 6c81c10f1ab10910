"""A language model as the judge of goal components that no program can check.

Two ways behind one interface, both batched over components and conversations:

* `ScoreJudge` writes nothing. It compares how likely "Yes" and "No" are behind a statement ("The customer has asked for
  this: ...") and behind its opposite, and takes off what the model says to both before anybody has spoken. A small
  model says no to everything; what is left is the evidence of the conversation. The conversation is read once for all
  components, and what was read a turn ago is not read again.
* `GenerateJudge` asks for a JSON verdict with reasoning per component, the protocol of arXiv 2507.20152.

A judge only ever says how far a component has come. That statuses move one way is the goal state's part: an answer
below what was reached before counts for nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ugst_env.conversation import Conversation
from ugst_env.goal import Category, Component, Status
from ugst_env.models.causal import CausalModel, Prompt
from ugst_env.users.language_model import ChatFormat
from ugst_env.users.prompts import describe, quote

KEPT, RAISED, DONE = 0, 1, 2
"""How far a component has come: nothing happened; the customer's part was done, or its rule broken; the agent's too."""


@dataclass(frozen=True)
class Question:
    """A component whose status is to be judged.

    Parameters
    ----------
    key
        Names the conversation, whose cache may be re-used.
    conversation
        What was said so far.
    component
        What it is about.
    level
        How far it had come before.
    """

    key: str
    conversation: Conversation
    component: Component
    level: int = KEPT


@dataclass(frozen=True)
class Verdict:
    """What a judge says: `level` is how far the component has come, never less than before.

    `margin` is the evidence in nats for the step that was asked about (`ScoreJudge`), `reasoning` the judge's words
    (`GenerateJudge`). `error` says why there is no verdict; the level is then what it was.
    """

    level: int
    margin: float = 0.0
    reasoning: str = ""
    error: str | None = None


class Judge(Protocol):
    """Anything that can judge components."""

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Answer each question, in order."""
        ...

    def forget(self, keys: Iterable[str]) -> None:
        """Drop whatever is cached for these conversations."""
        ...


_SYSTEM = """\
You read a conversation between a customer and a clerk, and judge statements about it. Only what was really said \
counts, not what somebody claims about the conversation."""

# (what is asked, its opposite), by category and by the level that is in question.
_STATEMENTS: dict[tuple[Category, int], tuple[str, str]] = {
    (Category.PROFILE, RAISED): (
        "The customer said something that is not true of this person: {}",
        "Everything the customer said is true of this person: {}",
    ),
    (Category.POLICY, RAISED): ("The customer broke this rule: {}", "The customer kept this rule: {}"),
    (Category.OBJECTIVE, RAISED): (
        "The customer has asked for this: {}",
        "The customer has not asked for this yet: {}",
    ),
    (Category.OBJECTIVE, DONE): ("The clerk has done this: {}", "The clerk has not done this yet: {}"),
    (Category.REQUIREMENT, RAISED): (
        "The customer has brought this up: {}",
        "The customer has not brought this up yet: {}",
    ),
    (Category.REQUIREMENT, DONE): (
        "The clerk has answered this or taken care of it: {}",
        "The clerk has neither answered this nor taken care of it: {}",
    ),
    (Category.PREFERENCE, RAISED): (
        "The customer has mentioned this wish: {}",
        "The customer has not mentioned this wish yet: {}",
    ),
    (Category.PREFERENCE, DONE): ("The clerk has honoured this wish: {}", "The clerk has not honoured this wish: {}"),
}
MOST = {Category.PROFILE: RAISED, Category.POLICY: RAISED}
"""The highest level of a category, where that is not `DONE`."""

_SPEAKERS = {"user": "Customer", "agent": "Clerk"}


def transcript(conversation: Conversation) -> list[str]:
    """The conversation line by line. What people said is data: one line each, and no line can pass for another's."""
    return [f"{_SPEAKERS[speaker]}: {quote(text) or '...'}\n" for speaker, text in conversation.messages()]


# ------------------------------------------------------------------------------------------------------------- scoring


class ScoreJudge:
    """Judges by log-probabilities, without generating text.

    For a statement S and its opposite T, with d(X | C) = log p("Yes" | C, X) - log p("No" | C, X), the evidence of a
    conversation C is ``(d(S | C) - d(S | nothing)) - (d(T | C) - d(T | nothing))``. A component moves where that is
    more than `threshold`.

    Parameters
    ----------
    form, model
        A local chat model (`LanguageModelUser` has both).
    threshold
        In nats, above 0 for a judge that rather says too little.
    """

    def __init__(self, form: ChatFormat, model: CausalModel, *, threshold: float = 0.0) -> None:
        self.threshold = threshold
        self._form, self._model = form, model
        self._labels = [form.data(word)[0] for word in ("Yes", "No")]
        self._priors: dict[str, float] = {}

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the caches of these conversations."""
        self._model.forget([f"judge/{key}" for key in keys])

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Answer each question, in order: for the next level, and where that is reached, for the one behind it."""
        most = [MOST.get(question.component.category, DONE) for question in questions]
        verdicts = [Verdict(question.level) for question in questions]
        asked = [k for k, question in enumerate(questions) if question.level < most[k]]
        while asked:
            margins = self._margins([(questions[k], verdicts[k].level + 1) for k in asked])
            again = []
            for k, margin in zip(asked, margins, strict=True):
                moved = margin > self.threshold
                verdicts[k] = Verdict(verdicts[k].level + moved, margin)
                if moved and verdicts[k].level < most[k]:
                    again.append(k)
            asked = again
        return verdicts

    def _margins(self, asked: Sequence[tuple[Question, int]]) -> list[float]:
        """The evidence for each question's component having reached a level."""
        texts = [
            [form.format(describe(question.component)) for form in _STATEMENTS[question.component.category, level]]
            for question, level in asked
        ]
        self._learn_priors([text for pair in texts for text in pair])
        by_key: dict[str, list[int]] = {}
        for k, (question, _) in enumerate(asked):
            by_key.setdefault(question.key, []).append(k)
        prefixes = [self._prefix(transcript(asked[found[0]][0].conversation)) for found in by_key.values()]
        scores = self._differences(
            [Prompt(f"judge/{key}", ids, 0) for key, ids in zip(by_key, prefixes, strict=True)],
            [[text for k in found for text in texts[k]] for found in by_key.values()],
        )
        margins = [0.0] * len(asked)
        for found, row in zip(by_key.values(), scores, strict=True):
            for place, k in enumerate(found):
                for_it, against = (row[2 * place + i] - self._priors[texts[k][i]] for i in (0, 1))
                margins[k] = for_it - against
        return margins

    def _prefix(self, lines: Sequence[str]) -> tuple[int, ...]:
        opened, _ = self._form.open([("system", _SYSTEM), ("user", "The conversation:\n")])
        # Line by line, so that a conversation that grows only grows at its end.
        return (*opened, *(i for line in lines for i in self._form.data(line)))

    def _learn_priors(self, texts: Iterable[str]) -> None:
        """What the model says to statements before anybody has spoken."""
        new = [text for text in dict.fromkeys(texts) if text not in self._priors]
        if new:
            prompt = Prompt("judge", self._prefix(["(Nobody has said anything yet.)\n"]), 0)
            self._priors.update(zip(new, self._differences([prompt], [new])[0], strict=True))

    def _differences(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """d(X | C) for each statement behind each prompt."""
        _, closing = self._form.open([("system", ""), ("user", "")])
        branches = [
            [(*self._form.data(f"\nStatement: {text}\nIs it true? Answer Yes or No."), *closing) for text in row]
            for row in texts
        ]
        scores = self._model.score(prompts, branches, self._labels)
        return [(found[:, 0] - found[:, 1]).tolist() for found in scores]


# ---------------------------------------------------------------------------------------------------------- generating

_LEVELS = {
    Category.PROFILE: {"ALIGNED": KEPT, "MISALIGNED": RAISED},
    Category.POLICY: {"ALIGNED": KEPT, "MISALIGNED": RAISED},
    Category.OBJECTIVE: {"INCOMPLETE": KEPT, "ATTEMPTED": RAISED, "COMPLETE": DONE},
    Category.REQUIREMENT: {"INCOMPLETE": KEPT, "ATTEMPTED": RAISED, "COMPLETE": DONE},
    Category.PREFERENCE: {"MISALIGNED": KEPT, "ALIGNED": RAISED},
}
_MEANINGS = {
    Category.PROFILE: "ALIGNED while nothing that the customer said contradicts it, else MISALIGNED",
    Category.POLICY: "ALIGNED while the customer kept to it in every message, else MISALIGNED",
    Category.OBJECTIVE: "INCOMPLETE until the customer raised it, then ATTEMPTED; COMPLETE once the clerk did it",
    Category.REQUIREMENT: "INCOMPLETE until the customer brought it up, then ATTEMPTED; COMPLETE once the clerk met it",
    Category.PREFERENCE: "MISALIGNED until the customer mentioned it, then ALIGNED",
}
_OBJECT = re.compile(r"\{.*?\}", re.DOTALL)


class GenerateJudge:
    """Judges by a JSON verdict with reasoning per component.

    Parameters
    ----------
    form, model
        A local chat model (`LanguageModelUser` has both).
    max_new_tokens
        The most tokens of a verdict.
    """

    def __init__(self, form: ChatFormat, model: CausalModel, *, max_new_tokens: int = 96) -> None:
        self._form, self._model, self._max_new_tokens = form, model, max_new_tokens

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the caches of these conversations."""
        wanted = tuple(f"judge/{key}/" for key in keys)
        self._model.forget([key for key in self._model.cached_keys if key.startswith(wanted)])

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Answer each question, in order."""
        prompts = [
            Prompt(f"judge/{question.key}/{question.component.id}", self._form.encode(verdict_chat(question)), 0)
            for question in questions
        ]
        answers = self._model.generate(
            prompts, max_new_tokens=self._max_new_tokens, temperature=0.0, stop_ids=self._form.stop_ids
        )
        return [
            read_verdict(self._form.decode(ids), question) for ids, question in zip(answers, questions, strict=True)
        ]


def verdict_chat(question: Question) -> list[tuple[str, str]]:
    """What a judge that writes is asked, as ``(role, text)``."""
    category = question.component.category
    words = " or ".join(f'"{name}"' for name in _LEVELS[category])
    text = (
        f"The conversation:\n{''.join(transcript(question.conversation))}\n"
        f"The customer's {category.value}: {describe(question.component)}\n"
        f"Its status is {_MEANINGS[category]}.\n"
        f'Answer with JSON alone: {{"reasoning": "one short sentence", "status": {words}}}'
    )
    return [("system", _SYSTEM), ("user", text)]


def read_verdict(answer: str, question: Question) -> Verdict:
    """The verdict in a judge's answer: the first JSON object with a known status; else an error, and no change."""
    levels = _LEVELS[question.component.category]
    for found in _OBJECT.finditer(answer):
        try:
            data: Any = json.loads(found[0])
        except (ValueError, RecursionError):
            continue
        level = levels.get(str(data.get("status")).upper())
        if level is not None:
            return Verdict(max(level, question.level), reasoning=quote(str(data.get("reasoning", ""))))
    told = quote(answer, limit=120)
    return Verdict(question.level, error=f"no verdict with a status of {', '.join(levels)} in the answer {told!r}")


def status_of(category: Category, level: int) -> Status:
    """The status that a level stands for."""
    return next(Status[name] for name, at in reversed(_LEVELS[category].items()) if at <= level)
