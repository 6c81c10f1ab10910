"""A language model as the judge of goal components that no program can check.

Two ways behind one interface (`ugst_env.tracking.questions.Judge`), both batched over components and conversations:

* `ScoreJudge` writes nothing. It looks how much likelier the conversation makes a component's words, and compares "Yes"
  with "No" behind a statement and behind its opposite; what the model says before anybody has spoken is taken off. The
  conversation is read once for all components, and what was read a turn ago is not read again.
* `GenerateJudge` asks for a JSON verdict with reasoning per component, the protocol of arXiv 2507.20152.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from ugst_env.conversation import Conversation
from ugst_env.goal import Category
from ugst_env.models.causal import Prompt
from ugst_env.models.chat import ChatModel, ChatRequest, Completion, LocalChat, load_chat, read_json
from ugst_env.tracking.questions import DONE, HIGHEST, KEPT, RAISED, Judge, Question, Verdict
from ugst_env.users.prompts import describe, quote, without_control_tokens

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
_SPEAKERS = {"user": "Customer", "agent": "Clerk"}


def transcript(conversation: Conversation, *, clerk_alone: bool = False) -> list[str]:
    """The conversation line by line: what counts of each message, so that none can pass for another's, or a verdict."""
    said = ((speaker, text) for speaker, text in conversation.messages() if speaker == "agent" or not clerk_alone)
    lines = [f"{_SPEAKERS[speaker]}: {plain_speech(text) or '...'}\n" for speaker, text in said]
    return lines or ["(Nobody has said anything yet.)\n"]


# The same messages come up turn after turn.
@lru_cache(maxsize=8192)
def plain_speech(text: str) -> str:
    """What of a message counts for a judge: its sentences, without those that speak to a judge rather than a customer.

    Whatever is in brackets or tags goes, and so does a sentence with a label ("System: ..."), with the name of a
    status in capitals, with words of mixed alphabets or without end, or one that gives orders about goals, statuses and
    verdicts. So a message gains nothing by a trick: the judge reads what it would read without the trick.
    """
    text = unicodedata.normalize("NFKC", text[:MAX_SPEECH])
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] not in "CSM" or c in _SIGNS)
    while (shorter := _ENCLOSED.sub(" ", text)) != text:
        text = shorter
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(_UNCLOSED.sub(" ", text))]
    kept = [sentence for sentence in sentences if _is_speech(sentence)]
    # What is left of a trick is often a word or two that belong to nothing.
    whole = [sentence for sentence in kept if len(sentence.split()) > 1 or sentence[-1] in ".!?"]
    return quote(" ".join(whole or kept))


MAX_SPEECH = 4000
"""The most characters of a message that a judge reads anything of."""
_SIGNS = "$\u20ac\u00a3+<>=|`^~\u2581"
_ENCLOSED = re.compile(
    r"```.*?(?:```|$)|<[^<>\n]*>(?:\s*(?:system|user|assistant|model|tool|final)\b)?|\[[^\[\]]*\]|\{[^{}]*\}", re.DOTALL
)
_UNCLOSED = re.compile(r"[<\[{][^\n]*|[>\]}`|^~\u2581]+")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|$)|[.!?](?=\S)[^.!?\n]*)*[.!?]*")
_TO_A_JUDGE = re.compile(
    r"\b(?:INCOMPLETE|ATTEMPTED|COMPLETED?|ALIGNED|MISALIGNED|HONOURED|STOP|END|EOF|SYSTEM|TERMINATE|DONE|END_OF_\w+)\b"
    r"|\w\s*=|#{2,}|%[0-9A-F]{2}|&\w+;|\\|/exit\b|\bexit\(\)"
    r"|(?i:\b(?:customer|clerk|user|agent|assistant|system|statement|status|reward|reasoning|verdict|answer|goal|tracker"
    r"|judge|(?:task_)?objectives?[\w.]*|requirements?[\w.]*|preferences?[\w.]*)[\s\"'*_]*:)"
    r"|(?i:\b(?:goal state|status(?:es)?\b.{0,30}\b(?:is|are|complete|word)|verdicts?|judges?|trackers?|simulat\w+"
    r"|(?:requirement|objective|component)s? (?:\w+ ){0,3}(?:is|are|was|were|counts?|met|done|served|complete)"
    r"|counts? as (?:met|done|complete|served)|mark(?:ed)? (?:\w+ ){0,4}as|your (?:goals?|instructions?|prompts?)"
    r"|(?:ignore|forget|disregard) (?:\w+ ){0,3}(?:goals?|instructions?|rules?|prompts?)"
    r"|you are now the|new goal|your task is|answer yes|statement is)\b)"
)


def _is_speech(sentence: str) -> bool:
    words = sentence.split()
    if not any(c.isalnum() for c in sentence) or max(map(len, words)) > 40 or len(set(words)) < len(words) / 4:
        return False
    mixed = any(len({_alphabet(c) for c in word if c.isalpha()}) > 1 for word in words if not word.isascii())
    return not mixed and not _TO_A_JUDGE.search(sentence)


def _alphabet(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


# ------------------------------------------------------------------------------------------------------------- scoring


class ScoreJudge:
    """Judges by log-probabilities, without generating text.

    The next level of a component is a statement about the conversation, such as "The customer asked for this: Return
    the kettle." Two things have to come together for it to be reached:

    1. The conversation *tells* of the component: its words are likelier behind the conversation than before anybody
       has spoken, by more than `thresholds` in nats per token. What the customer raised is looked for in the whole
       conversation, what the clerk did in the clerk's words alone. That is cheap, and even small models can do it.
    2. The model does not *deny* the statement. With d(X | C) = log p("Yes" | C, X) - log p("No" | C, X), its opinion
       for a statement S with the opposite T is ``(d(S | C) - d(S | nothing)) - (d(T | C) - d(T | nothing))``; a model
       denies where that is below -`certainty`. Only what passed the first test is asked.

    That a fact or a rule is broken can't be told by its words: there the opinion has to be above `certainty`. A small
    model's opinion is noise around 0 (it says no to everything, and what is left without that is little), so it neither
    denies nor accuses. With such a model, an agent that merely repeats a wish is taken to have met it: train agents
    against a model whose agreement you have measured (`benchmarks/judge.py`).

    Parameters
    ----------
    model
        A local chat model, or its name (`ugst_env.models.chat.load_chat`).
    thresholds
        In nats per token, for what the user did and for what the clerk did; higher for a judge that rather says too
        little. The defaults are from SmolLM2-135M on goals for training.
    certainty
        In nats.

    Raises
    ------
    TypeError
        If the model is a served one: servers don't tell the probabilities that this needs.
    """

    def __init__(
        self, model: str | LocalChat, *, thresholds: tuple[float, float] = (0.8, 0.5), certainty: float = 1.0
    ) -> None:
        served = isinstance(model, str) and model.startswith("openai:")
        chat = load_chat(model) if isinstance(model, str) and not served else model
        if not isinstance(chat, LocalChat):
            raise TypeError("a score judge needs a local model (hf:..., a .gguf file); GenerateJudge takes served ones")
        self.thresholds, self.certainty = thresholds, certainty
        self._form, self._model = chat.form, chat.model
        self._labels = [self._form.data(word)[0] for word in ("Yes", "No")]
        self._known: dict[tuple[str, str], float] = {}

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the caches of these conversations."""
        self._model.forget([f"judge/{key}{part}" for key in keys for part in ("", "/clerk")])

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Answer each question, in order: for the next level, and where that is reached, for the one behind it."""
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        verdicts = [Verdict(question.level) for question in questions]
        asked = [k for k, q in enumerate(questions) if q.level < HIGHEST[q.component.category]]
        while asked:
            margins = self._margins([(questions[k], verdicts[k].level + 1) for k in asked])
            again = []
            for k, margin in zip(asked, margins, strict=True):
                verdicts[k] = Verdict(verdicts[k].level + (margin > 0), margin)
                if margin > 0 and verdicts[k].level < HIGHEST[questions[k].component.category]:
                    again.append(k)
            asked = again
        return verdicts

    def _margins(self, asked: Sequence[tuple[Question, int]]) -> list[float]:
        """By how much each component passed, or failed, what has to come together for the level that is asked about."""
        told = [k for k, (question, _) in enumerate(asked) if question.component.category not in _BROKEN]
        margins = dict(zip(told, self._told([asked[k] for k in told]), strict=True))
        doubtful = [k for k in range(len(asked)) if margins.get(k, 1.0) > 0]
        for k, opinion in zip(doubtful, self._opinions([asked[k] for k in doubtful]), strict=True):
            margins[k] = min(margins[k], opinion + self.certainty) if k in margins else opinion - self.certainty
        return [margins[k] for k in range(len(asked))]

    def _told(self, asked: Sequence[tuple[Question, int]]) -> list[float]:
        """How far the conversation tells of each component, above the threshold."""
        texts = [
            (f"\n{_STATEMENTS[q.component.category, level][0].format('').rstrip()}", f" {describe(q.component)}")
            for q, level in asked
        ]
        new = [text for text in dict.fromkeys(texts) if ("told", "".join(text)) not in self._known]
        if new:
            for text, likelihood in zip(new, self._likelihoods([self._nothing], [new])[0], strict=True):
                self._known["told", "".join(text)] = likelihood
        groups = _grouped([(q.key, level == DONE) for q, level in asked])
        prompts, wanted = [], []
        for (key, by_clerk), places in groups.items():
            lines = transcript(asked[places[0]][0].conversation, clerk_alone=by_clerk)
            prompts.append(Prompt(f"judge/{key}{'/clerk' * by_clerk}", self._prefix(lines), 0))
            wanted.append([texts[k] for k in places])
        margins = [0.0] * len(asked)
        for places, found in zip(groups.values(), self._likelihoods(prompts, wanted), strict=True):
            for k, likelihood in zip(places, found, strict=True):
                margins[k] = likelihood - self._known["told", "".join(texts[k])]
                margins[k] -= self.thresholds[asked[k][1] == DONE]
        return margins

    def _likelihoods(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[tuple[str, str]]]) -> list[list[float]]:
        """The mean log-probability of a text's tokens behind a prompt and a head."""
        spans = [[(self._form.data(head), self._form.data(text)) for head, text in row] for row in texts]
        return [[float(found.mean()) for found in row] for row in self._model.likelihood(prompts, spans)]

    def _opinions(self, asked: Sequence[tuple[Question, int]]) -> list[float]:
        """What the model thinks of the statement about each component: above 0 that it is true."""
        texts = [
            [form.format(describe(q.component)) for form in _STATEMENTS[q.component.category, level]]
            for q, level in asked
        ]
        new = [
            text for text in dict.fromkeys(text for pair in texts for text in pair) if ("yes", text) not in self._known
        ]
        if new:
            for text, found in zip(new, self._yes([self._nothing], [new])[0], strict=True):
                self._known["yes", text] = found
        groups = _grouped([q.key for q, _ in asked])
        prompts = [
            Prompt(f"judge/{key}", self._prefix(transcript(asked[places[0]][0].conversation)), 0)
            for key, places in groups.items()
        ]
        scores = self._yes(prompts, [[text for k in places for text in texts[k]] for places in groups.values()])
        opinions = [0.0] * len(asked)
        for places, row in zip(groups.values(), scores, strict=True):
            for place, k in enumerate(places):
                for_it, against = (row[2 * place + i] - self._known["yes", texts[k][i]] for i in (0, 1))
                opinions[k] = for_it - against
        return opinions

    def _yes(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """d(X | C) for each statement behind each prompt."""
        _, closing = self._form.open([("system", ""), ("user", "")])
        branches = [
            [(*self._form.data(f"\nStatement: {text}\nIs it true? Answer Yes or No."), *closing) for text in row]
            for row in texts
        ]
        scores = self._model.score(prompts, branches, self._labels)
        return [(found[:, 0] - found[:, 1]).tolist() for found in scores]

    @property
    def _nothing(self) -> Prompt:
        return Prompt("judge", self._prefix(transcript(Conversation())), 0)

    def _prefix(self, lines: Sequence[str]) -> tuple[int, ...]:
        opened, _ = self._form.open([("system", _SYSTEM), ("user", "The conversation:\n")])
        # Line by line, so that a conversation that grows only grows at its end.
        return (*opened, *(i for line in lines for i in self._form.data(line)))


_MOST_KNOWN = 100_000
_BROKEN = (Category.PROFILE, Category.POLICY)
_Key = TypeVar("_Key")


def _grouped(keys: Sequence[_Key]) -> dict[_Key, list[int]]:
    """The positions of each key."""
    groups: dict[_Key, list[int]] = {}
    for k, key in enumerate(keys):
        groups.setdefault(key, []).append(k)
    return groups


# ---------------------------------------------------------------------------------------------------------- generating

_LEVELS = {
    Category.PROFILE: {"ALIGNED": KEPT, "MISALIGNED": RAISED},
    Category.POLICY: {"ALIGNED": KEPT, "MISALIGNED": RAISED},
    Category.OBJECTIVE: {"INCOMPLETE": KEPT, "ATTEMPTED": RAISED, "COMPLETE": DONE},
    Category.REQUIREMENT: {"INCOMPLETE": KEPT, "ATTEMPTED": RAISED, "COMPLETE": DONE},
    Category.PREFERENCE: {"MISALIGNED": KEPT, "ALIGNED": RAISED, "HONOURED": DONE},
}
_MEANINGS = {
    Category.PROFILE: "ALIGNED while nothing that the customer said contradicts it, else MISALIGNED",
    Category.POLICY: "ALIGNED while the customer kept to it in every message, else MISALIGNED",
    Category.OBJECTIVE: "INCOMPLETE until the customer raised it, then ATTEMPTED; COMPLETE once the clerk did it",
    Category.REQUIREMENT: "INCOMPLETE until the customer brought it up, then ATTEMPTED; COMPLETE once the clerk met it",
    Category.PREFERENCE: "MISALIGNED until the customer mentioned it, then ALIGNED; HONOURED once the clerk met it",
}


class GenerateJudge:
    """Judges by a JSON verdict with reasoning per component, all components of all conversations in one batch.

    Parameters
    ----------
    model
        A chat model, local or served, or its name (`ugst_env.models.chat.load_chat`).
    max_new_tokens
        The most tokens of a verdict.
    **connection
        For a served model: ``base_url``, ``api_key``, ``cache``, ... (`ugst_env.models.served.ChatClient`).
    """

    def __init__(self, model: str | ChatModel, *, max_new_tokens: int = 96, **connection: Any) -> None:
        self._chat = load_chat(model, **connection) if isinstance(model, str) else model
        self._max_new_tokens = max_new_tokens
        self._components: dict[str, set[str]] = {}

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the caches of these conversations."""
        self._chat.forget([f"judge/{key}/{name}" for key in keys for name in self._components.pop(key, ())])

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Answer each question, in order."""
        for question in questions:
            self._components.setdefault(question.key, set()).add(question.component.id)
        requests = [
            ChatRequest(
                verdict_chat(question),
                seed=0,
                max_tokens=self._max_new_tokens,
                temperature=0.0,
                key=f"judge/{question.key}/{question.component.id}",
            )
            for question in questions
        ]
        return [
            read_verdict(answer, question)
            for answer, question in zip(self._chat.complete(requests), questions, strict=True)
        ]


def verdict_chat(question: Question) -> tuple[tuple[str, str], ...]:
    """What a judge that writes is asked, as ``(role, text)``."""
    category = question.component.category
    words = " or ".join(f'"{name}"' for name in _LEVELS[category])
    text = (
        f"The conversation:\n{''.join(transcript(question.conversation))}\n"
        f"The customer's {category.value}: {describe(question.component)}\n"
        f"Its status is {_MEANINGS[category]}.\n"
        f'Answer with JSON alone: {{"reasoning": "one short sentence", "status": {words}}}'
    )
    # Servers tokenise what they are sent as they find it.
    return (("system", _SYSTEM), ("user", without_control_tokens(text)))


def read_verdict(answer: Completion, question: Question) -> Verdict:
    """The verdict in a judge's answer, whose JSON may be broken; else an error, and no change."""
    if answer.error is not None:
        return Verdict(question.level, usage=answer.usage, error=answer.error)
    levels = _LEVELS[question.component.category]
    data = read_json(answer.text)
    level = levels.get(str(data.get("status")).strip().upper()) if isinstance(data, dict) else None
    if level is None:
        told = f"no verdict with a status of {', '.join(levels)} in the answer {quote(answer.text, limit=120)!r}"
        return Verdict(question.level, usage=answer.usage, error=told)
    reasoning = quote(str(data.get("reasoning", "")))
    return Verdict(max(level, question.level), reasoning=reasoning, usage=answer.usage)


def load_judge(judge: str | Judge) -> Judge:
    """The judge that `judge` names: one that scores for a local model, one that generates for a served model.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError, ImportError
        If there is no such model, or the object cannot judge.
    """
    if isinstance(judge, str):
        return GenerateJudge(judge) if judge.startswith("openai:") else ScoreJudge(judge)
    if not callable(getattr(judge, "judge", None)):
        raise TypeError(
            "judge must be 'hf:<folder or hub name>', the path of a .gguf file, 'openai:<served model>', or an object "
            f"with judge() and forget(); got {type(judge).__name__}"
        )
    return judge
