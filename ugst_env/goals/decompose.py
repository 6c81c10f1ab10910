"""``ugst decompose``: goals in prose split into components by a language model, and written to a goal file.

This is done once and ahead of time, so that people can read and mend what an environment will run on. A model's answer
is mended where its JSON is broken, and refused where it is no goal or not *this* goal: each component has to be made of
words of the instruction, every number, name and code of the instruction has to be in some component, and so has most of
the rest. A refusal tells the model why, and it may try again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ugst_env.goal import Fact, Need, Objective, Rule, UserGoal
from ugst_env.goals.files import dump_goals, goal_of, goal_record
from ugst_env.models.chat import ChatModel, ChatRequest, load_chat, read_json
from ugst_env.training.collect import read_rows
from ugst_env.users.prompts import quote, without_control_tokens

MAX_COMPONENTS = 40
MAX_WORDS = 60
"""The most words of one component."""
GROUNDED = 0.6
"""The least share of a component's words that the instruction must have (all but one are enough)."""
COVERED = 0.6
"""The least share of the instruction's words that the components must have."""

_SYSTEM = """\
You split the instruction for somebody who plays a customer into parts, each of which can be checked by itself. Answer \
with JSON alone:
{"profile": [...], "policy": [...], "objectives": [{"text": ..., "requirements": [...], "preferences": [...]}]}
profile: facts about the customer (name, address, mood), a short sentence each. policy: how the customer talks or \
behaves.
objectives: the tasks, one entry per task. requirements: what must hold, or be found out, for the task. preferences: \
what would be nice, but need not be.
Leave out nothing, add nothing, and keep the names, numbers and codes as they are."""
_EXAMPLE = (
    "Your name is Eva Brandt and you live in 50667. You are in a hurry and never give your birthday. You want to send "
    "back the blender of order B-1187 because the lid leaks, the money back on your card, by tomorrow if possible. You "
    "also want to know when order B-1201 arrives.",
    {
        "profile": ["Your name is Eva Brandt.", "You live in 50667.", "You are in a hurry."],
        "policy": ["Never give your birthday."],
        "objectives": [
            {
                "text": "Send back the blender of order B-1187.",
                "requirements": ["The reason is that the lid leaks.", "The money comes back on your card."],
                "preferences": ["The money comes by tomorrow."],
            },
            {"text": "Find out when order B-1201 arrives.", "requirements": [], "preferences": []},
        ],
    },
)


class Refused(ValueError):
    """A model's answer that is no decomposition of the instruction, and why."""


def decompose(
    instructions: Sequence[str], model: str | ChatModel, *, attempts: int = 3, max_new_tokens: int = 1024, **more: Any
) -> list[UserGoal | Refused]:
    """Split instructions in prose into goals in plain words, all in one batch.

    Parameters
    ----------
    instructions
        What the user is to be, to do and to want, each in the second person.
    model
        A chat model, or its name (`ugst_env.models.chat.load_chat`, which takes `more`).
    attempts
        How often a model may try; from the second time on it is told what was wrong.
    max_new_tokens
        The most tokens of an answer.

    Returns
    -------
    list of UserGoal or Refused
        In order. `Refused` says what was wrong with the last attempt.

    Raises
    ------
    ValueError
        If `attempts` is below 1.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}")
    chat = load_chat(model, **more) if isinstance(model, str) else model
    results: list[UserGoal | Refused] = [Refused("never asked")] * len(instructions)
    chats = [_chat(instruction) for instruction in instructions]
    open_ones = list(range(len(instructions)))
    for attempt in range(attempts):
        answers = chat.complete(
            [
                ChatRequest(chats[k], seed=attempt, max_tokens=max_new_tokens, temperature=0.7 * bool(attempt))
                for k in open_ones
            ]
        )
        for k, answer in zip(tuple(open_ones), answers, strict=True):
            try:
                if answer.error is not None:
                    raise Refused(answer.error)
                results[k] = read_goal(answer.text, instructions[k])
                open_ones.remove(k)
            except Refused as refusal:
                results[k] = refusal
                complaint = f"That was refused: {refusal} Write the whole JSON again."
                chats[k] = (*_chat(instructions[k]), ("assistant", quote(answer.text) or "..."), ("user", complaint))
        if not open_ones:
            break
    return results


def _chat(instruction: str) -> tuple[tuple[str, str], ...]:
    prose, goal = _EXAMPLE
    return (
        ("system", _SYSTEM),
        ("user", prose),
        ("assistant", json.dumps(goal)),
        ("user", " ".join(without_control_tokens(instruction).split())),
    )


def read_goal(answer: str, instruction: str) -> UserGoal:
    """The goal in a model's answer.

    Raises
    ------
    Refused
        If there is none in it, or it is not the goal of the instruction.
    """
    data = read_json(answer)
    if not isinstance(data, dict):
        raise Refused(f"there is no JSON object in {quote(answer, limit=80)!r}.")
    profile, policy = (_texts(data.get(key), key) for key in ("profile", "policy"))
    listed = data.get("objectives", data.get("task_objectives"))
    tasks = [_task(each) for each in (listed if isinstance(listed, list) else [listed]) if each]
    if not tasks:
        raise Refused("there is no objective.")
    texts = [*profile, *policy, *chain.from_iterable((text, *needs, *wishes) for text, needs, wishes in tasks)]
    _check(texts, instruction)
    objectives = tuple(
        Objective("", "do", tuple(map(Need, needs)), tuple(map(Need, wishes)), text) for text, needs, wishes in tasks
    )
    facts = tuple(Fact("text", text, text) for text in profile)
    return UserGoal(objectives, facts, tuple(Rule("text", text, text) for text in policy))


def _texts(given: Any, what: str) -> list[str]:
    """A list of texts, of which some models make a single text, a mapping, or nothing."""
    if isinstance(given, dict):
        given = [f"{name}: {value}" for name, value in given.items() if value not in (None, "", [], {})]
    given = [given] if isinstance(given, str) else given or []
    if not isinstance(given, list) or not all(isinstance(text, (str, int, float)) for text in given):
        raise Refused(f"{what} must be a list of texts.")
    return list(dict.fromkeys(text for each in given if (text := quote(str(each)))))


def _task(given: Any) -> tuple[str, list[str], list[str]]:
    if isinstance(given, str):
        given = {"text": given}
    if not isinstance(given, dict):
        raise Refused("each objective must be an object with a text.")
    text = given.get("text", given.get("task_objective", given.get("objective")))
    if not isinstance(text, str) or not quote(text):
        raise Refused("each objective must have a text.")
    needs, wishes = (_texts(given.get(key), key) for key in ("requirements", "preferences"))
    return quote(text), needs, wishes


_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_NAMES = re.compile(r"\w*\d[\w./@-]*")
# Words that make a sentence of a part, and carry none of it.
_SMALL = frozenset(
    "a about after all also an and any are as at be because been but by can could did do does doing for from get "
    "had has have he her his how i if in into is it its just like make may me might more must my no not of on one only "
    "or other our out own please shall she should so some something such than that the their them then there these "
    "they this to too up us very want wants was we were what when where which while who will wish with would you "
    "your yourself yours".split()
)


def _stems(text: str) -> set[str]:
    """The words of a text that say something, cut short so that "returning" is "return"."""
    words = (word.lower() for word in _WORD.findall(text))
    return {word if any(c.isdigit() for c in word) else word[:5] for word in words if word not in _SMALL}


def _check(texts: Sequence[str], instruction: str) -> None:
    """Refuse components that are not, or not all that is, in the instruction."""
    if len(texts) > MAX_COMPONENTS:
        raise Refused(f"there are {len(texts)} parts, at most {MAX_COMPONENTS} are accepted.")
    told = _stems(instruction)
    for text in texts:
        words = _stems(text)
        if len(text.split()) > MAX_WORDS:
            raise Refused(f"a part has {len(text.split())} words, at most {MAX_WORDS} are accepted: {text[:60]!r}.")
        if not words:
            raise Refused(f"a part says nothing: {text!r}.")
        invented = [word for word in words - told if any(c.isdigit() for c in word)]
        # A word may well be put in to make a sentence of it.
        foreign = len(words - told)
        if invented or foreign == len(words) or foreign > max(1, (1 - GROUNDED) * len(words)):
            raise Refused(f"this is not in the instruction: {text[:100]!r}.")
    covered = set().union(*map(_stems, texts))
    lost = [name for name in _NAMES.findall(instruction) if not _stems(name) <= covered]
    if lost:
        raise Refused(f"the parts leave out {lost[0]!r}.")
    if len(covered & told) < COVERED * len(told):
        missing = [word for word in _WORD.findall(instruction) if not _stems(word) <= covered]
        raise Refused(f"the parts leave out much of the instruction: {', '.join(dict.fromkeys(missing))[:120]}.")


# ---------------------------------------------------------------------------------------------------------- the command


@dataclass(frozen=True)
class DecomposeConfig:
    """What ``ugst decompose`` is given.

    Raises
    ------
    ValueError
        For a number out of range, an unknown name, or a goal file of another kind.
    """

    source: Path = field(
        metadata={"help": "instructions: a YAML or JSON list of texts, or of mappings with an instruction (tau-bench)"}
    )
    model: str = field(metadata={"help": "who splits them: hf:NAME, a .gguf, openai:NAME"})
    out: Path = field(metadata={"help": "the goal file to write, .yaml or .json; what is done stands beside it"})
    failures: str = field(default="skip", metadata={"help": "what a refused goal does: skip (and say so), or stop"})
    attempts: int = field(default=3, metadata={"help": "how often a model may try"})
    limit: int | None = field(default=None, metadata={"help": "only the first so many instructions"})
    batch: int = field(default=16, metadata={"help": "instructions split at a time"})
    max_new_tokens: int = field(default=1024, metadata={"help": "the most tokens of an answer"})
    resume: bool = field(default=False, metadata={"help": "go on where a run was stopped"})

    def __post_init__(self) -> None:
        for name in ("attempts", "limit", "batch", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.failures not in ("skip", "stop"):
            raise ValueError(f"failures must be 'skip' or 'stop', got {self.failures!r}")
        if self.out.suffix not in (".yaml", ".yml", ".json"):
            raise ValueError(f"out must end in .yaml, .yml or .json, got {str(self.out)!r}")


def read_instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a file, as ``(id, text)``.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is no list of instructions.
    """
    if not path.is_file():
        raise FileNotFoundError(f"instructions are read from a YAML or JSON file, but there is no file {str(path)!r}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    if not isinstance(data, list) or not data:
        raise ValueError(f"{path} must hold a list of instructions, got {type(data).__name__}")
    found = []
    for k, each in enumerate(data):
        text = each.get("instruction") if isinstance(each, dict) else each
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{path}: number {k} must be a text, or a mapping with an 'instruction'")
        name = str(each.get("id", k)) if isinstance(each, dict) else str(k)
        found.append((name, text.strip()))
    return found


def run(config: DecomposeConfig) -> None:
    """Split the instructions of a file, and write the goals.

    Raises
    ------
    ValueError, FileNotFoundError, FileExistsError
        For bad input; for a refused goal, where that is to stop.
    """
    instructions = read_instructions(config.source)[: config.limit]
    progress = config.out.with_name(config.out.name + ".progress.jsonl")
    for path in (config.out, progress):
        if path.exists() and not config.resume:
            raise FileExistsError(f"{path} is there already: name another file, or resume")
    rows = {row["instruction"]: row for row in read_rows(progress)}
    missing = [(name, text) for name, text in instructions if text not in rows]
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with (
        progress.open("a", encoding="utf-8") as file,
        tqdm(total=len(instructions), initial=len(instructions) - len(missing), unit="goal", desc="decompose") as bar,
    ):
        for row in _split(config, missing):
            rows[row["instruction"]] = row
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            bar.update()
            if "refused" in row and config.failures == "stop":
                raise ValueError(f"instruction {row['id']}: {row['refused']}")
    kept = [goal_of(rows[text]["goal"]) for _, text in instructions if "goal" in rows[text]]
    refused = [rows[text] for _, text in instructions if "refused" in rows[text]]
    for row in refused:
        print(f"refused, {row['id']}: {row['refused']}")
    if not kept:
        raise ValueError(f"none of {len(instructions)} instructions could be split; the reasons are in {progress}")
    part = config.out.with_name("part-" + config.out.name)
    dump_goals(kept, part)
    os.replace(part, config.out)
    print(f"{len(kept)} of {len(instructions)} goals are in {config.out}; {len(refused)} were refused")


def _split(config: DecomposeConfig, missing: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    if not missing:
        return
    model = load_chat(config.model)
    for start in range(0, len(missing), config.batch):
        batch = missing[start : start + config.batch]
        goals = decompose(
            [text for _, text in batch], model, attempts=config.attempts, max_new_tokens=config.max_new_tokens
        )
        for (name, text), goal in zip(batch, goals, strict=True):
            row: dict[str, Any] = {"id": name, "instruction": text}
            if isinstance(goal, Refused):
                yield {**row, "refused": str(goal)}
            else:
                yield {**row, "goal": {"id": name, **goal_record(goal)}}
