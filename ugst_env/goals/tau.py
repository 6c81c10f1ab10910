"""Tasks of tau-bench's retail domain (arXiv 2406.12045) as goals in plain words.

Its 500 training tasks are written to a pattern ("Your name is ... For #W..., exchange ... via ...."), which is read
here without a model. Instructions in free prose, as its test tasks have them, are for `ugst_env.goals.decompose`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ugst_env.goal import Fact, Need, Objective, UserGoal

_ORDER = r"#W\d+"
_WHO = re.compile(r"Your name is (?P<name>[^.]+?) and your (?P<key>zip code|email) is (?P<value>\S+)\. *")
_MOOD = re.compile(r"You are (?P<mood>[^.]+)\. *")
_TASKS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("return", rf"Return (?P<order>{_ORDER}) via (?P<payment>\w+): (?P<items>(?:[^;#]+; )+)"),
        ("cancel", rf"Cancel order (?P<order>{_ORDER}) because (?P<reason>[^.]+)\. *"),
        (
            "address",
            rf"For (?P<order>{_ORDER}), change address to (?P<address>\{{.*?\}})"
            rf"(?: \(same as (?P<same>{_ORDER})\))?\. *",
        ),
        ("payment", rf"For (?P<order>{_ORDER}), change payment to (?P<payment>\w+)\. *"),
        ("items", rf"For (?P<order>{_ORDER}), (?P<verb>modify|exchange) (?P<items>.*?\}}; )via (?P<payment>\w+)\. *"),
    )
)
_ITEM = re.compile(r"(?P<item>[^{};]+) (?P<old>\{.*?\}) to (?P<new>\{.*?\}); ")


def load_tau_goals(
    path: str | Path, *, strict: bool = False
) -> tuple[tuple[UserGoal, ...], tuple[tuple[str, str], ...]]:
    """Read a file of tau-bench retail tasks.

    Parameters
    ----------
    path
        A JSON list of tasks, each with an ``instruction`` and perhaps an ``id``.
    strict
        Whether to refuse a task that is not written to the pattern, instead of leaving it out.

    Returns
    -------
    goals : tuple of UserGoal
        ``goal.id`` is ``"tau-<id>"``.
    left_out : tuple of (str, str)
        Tasks that are not written to the pattern: their id, and the words that could not be read.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it holds something else; with `strict`, for the first task that can't be read.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"tau-bench tasks are read from a JSON file, but there is no file {str(path)!r}")
    try:
        tasks = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(tasks, list) or not all(
        isinstance(t, dict) and isinstance(t.get("instruction"), str) for t in tasks
    ):
        raise ValueError(f"{file} must hold a list of tasks with an 'instruction' each")
    goals, left_out = [], []
    for k, task in enumerate(tasks):
        name = f"tau-{task.get('id', k)}"
        try:
            goals.append(read_instruction(task["instruction"], id=name))
        except ValueError as error:
            if strict:
                raise ValueError(f"{file}, {name}: {error}") from error
            left_out.append((name, str(error)))
    return tuple(goals), tuple(left_out)


def read_instruction(instruction: str, *, id: str = "") -> UserGoal:
    """The goal in an instruction of tau-bench's pattern.

    Raises
    ------
    ValueError
        Naming the first words that are not of the pattern.
    """
    text, at, profile, objectives = instruction.strip() + " ", 0, [], []
    while at < len(text.rstrip()):
        if found := _WHO.match(text, at):
            profile += [f"Your name is {found['name']}.", f"Your {found['key']} is {found['value']}."]
        elif found := _MOOD.match(text, at):
            profile.append(f"You are {found['mood']}.")
        else:
            kind, found = next(((kind, m) for kind, form in _TASKS if (m := form.match(text, at))), ("", None))
            if found is None:
                raise ValueError(f"not of tau-bench's pattern: {text[at : at + 60].strip()!r}")
            objectives.append(_objective(kind, found.groupdict()))
        at = found.end()
    if not objectives:
        raise ValueError(f"no task in {instruction[:60]!r}")
    return UserGoal(tuple(objectives), tuple(Fact("text", fact, fact) for fact in profile), id=id)


def _objective(kind: str, told: Mapping[str, str | None]) -> Objective:
    order = told["order"]
    payment = f"{told.get('payment')}".replace("_", " ")
    if kind == "return":
        items = [item.strip() for item in f"{told['items']}".split(";") if item.strip()]
        return _do(f"Return {_and(items)} from order {order}.", f"The refund goes to {payment}.")
    if kind == "cancel":
        return _do(f"Cancel order {order}.", f"The reason is: {told['reason']}.")
    if kind == "payment":
        return _do(f"Change the payment of order {order}.", f"It is paid with {payment}.")
    if kind == "address":
        address = _literal(told["address"])
        street = ", ".join(filter(None, (address.get("address1"), address.get("address2"))))
        place = (
            f"{street}, {address.get('city')}, {address.get('state')} {address.get('zip')}, {address.get('country')}"
        )
        same = f", the same as of order {told['same']}" if told.get("same") else ""
        return _do(f"Change the address of order {order}.", f"The new address is {place}{same}.")
    changes = f"{told['items']}"
    needs = [_change(m["item"].strip(), _literal(m["old"]), _literal(m["new"])) for m in _ITEM.finditer(changes)]
    if not needs:
        raise ValueError(f"not of tau-bench's pattern: {changes[:60]!r}")
    verb = "Exchange" if told["verb"] == "exchange" else "Change"
    return _do(f"{verb} items of order {order}.", *needs, f"The difference goes to {payment}.")


def _do(text: str, *needs: str) -> Objective:
    return Objective("", "do", tuple(map(Need, needs)), text=text)


def _change(item: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    known = _and([f"{name} {value}" for name, value in old.items()])
    if not new:
        return f"Another {item} with {known}."
    return f"Instead of the {item} with {known}, one with {_and([f'{name} {value}' for name, value in new.items()])}."


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _literal(text: str | None) -> dict[str, Any]:
    try:
        found = ast.literal_eval(text or "")
    except (ValueError, SyntaxError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"not of tau-bench's pattern: {text!r}")
    return found
