"""Goals in files of your own, YAML or JSON: one goal, or a list of goals.

.. code-block:: yaml

    id: weekend                                  # optional
    profile:                                     # optional
      - {kind: party_size, value: 2}
      - You hold a grudge against trains.        # free text: shown to a model, checked by no program
    policy:                                      # optional
      - {kind: max_words, value: 12}
    objectives:                                  # at least one; at most one of a domain
      - domain: hotel
        action: book                             # or find
        requirements:
          - {slot: area, value: east, otherwise: north}              # north where nothing fits in the east
          - {slot: people, value: 2}
          - {slot: day, value: friday}
          - {slot: stay, value: 2, otherwise: 3, if: parking=yes}    # 3 nights at a hotel with parking
          - {ask: phone}
          - Find out whether the rooms to the street are quiet.      # in plain words: a language model judges it
        preferences:
          - {slot: pricerange, value: cheap}
      - text: Move the appointment at the dentist's to another day.  # a task in plain words has no domain
        requirements: [It must be after the 12th.]
        preferences: [In the morning.]
      - Cancel the newspaper.                                        # and may be all there is

Any part may bring its own ``text``; otherwise it is worded for you. Plain words need a judge (`gymnasium.make(...,
judge=...)`); `ugst decompose` writes such files from instructions in prose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ugst_env.goal import Ask, Fact, Need, Objective, Rule, UserGoal, Want
from ugst_env.goals.describe import describe
from ugst_env.goals.policies import KINDS as POLICY_KINDS
from ugst_env.goals.policies import make_rule
from ugst_env.goals.profiles import KINDS as PROFILE_KINDS
from ugst_env.goals.profiles import make_fact
from ugst_env.world.database import clock, minutes, normalise
from ugst_env.world.ontology import BOOKABLE, DAYS, DOMAINS, INFORMABLE, REQUESTABLE


class GoalFileError(ValueError):
    """A goal file that cannot be used.

    Parameters
    ----------
    file, line
        Where; lines count from 1.
    path
        The place in the goal, such as ``"objectives[0].requirements[2].value"``.
    problem
        What was given, and what is accepted.
    """

    def __init__(self, file: Path, line: int, path: str, problem: str) -> None:
        super().__init__(f"{file}, line {line}: {path + ': ' if path else ''}{problem}")
        self.file, self.line, self.path, self.problem = file, line, path, problem


@dataclass(frozen=True)
class _Place:
    """A node of the file with where it stands."""

    file: Path
    node: yaml.Node
    path: str = ""

    def error(self, problem: str) -> GoalFileError:
        return GoalFileError(self.file, self.node.start_mark.line + 1, self.path, problem)

    @property
    def given(self) -> str:
        if isinstance(self.node, yaml.ScalarNode):
            return repr(self.node.value) if self.node.value else "nothing"
        return "a mapping" if isinstance(self.node, yaml.MappingNode) else "a list"

    @property
    def is_text(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode)

    def has(self, key: str) -> bool:
        return isinstance(self.node, yaml.MappingNode) and any(name.value == key for name, _ in self.node.value)

    def text(self) -> str:
        """A scalar as it is written: ``yes``, ``4`` and ``12:30`` are no booleans or numbers here."""
        if not isinstance(self.node, yaml.ScalarNode) or not self.node.value.strip():
            raise self.error(f"must be a text or a number, got {self.given}")
        # JSON writes characters beyond the basic plane as two escapes, which YAML takes for two characters.
        return str(self.node.value).encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()

    def items(self) -> list[_Place]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"must be a list, got {self.given}")
        return [_Place(self.file, node, f"{self.path}[{i}]") for i, node in enumerate(self.node.value)]

    def fields(self, accepted: Sequence[str], required: Sequence[str] = ()) -> dict[str, _Place]:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"must be a mapping with the keys {', '.join(accepted)}, got {self.given}")
        found: dict[str, _Place] = {}
        for key, value in self.node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            at = _Place(self.file, key, f"{self.path}.{name}".lstrip("."))
            if name not in accepted:
                raise at.error(f"unknown key {name!r}; {_choices(name, accepted)}")
            if name in found:
                raise at.error(f"the key {name!r} is given twice")
            found[name] = _Place(self.file, value, at.path)
        for name in required:
            if name not in found:
                raise self.error(f"the key {name!r} is missing; a mapping here has {', '.join(accepted)}")
        return found


def _choices(given: str, accepted: Sequence[str]) -> str:
    close = get_close_matches(given.lower(), {name.lower(): name for name in accepted}, n=1)
    meant = next((name for name in accepted if close and name.lower() == close[0]), None)
    return f"{f'did you mean {meant!r}? ' if meant else ''}accepted: {', '.join(accepted)}"


def _one_of(place: _Place, accepted: Sequence[str], what: str) -> str:
    given = place.text()
    if given not in accepted:
        raise place.error(f"unknown {what} {given!r}; {_choices(given, accepted)}")
    return given


def load_goals(path: str | Path) -> tuple[UserGoal, ...]:
    """Read the goals of a file.

    Parameters
    ----------
    path
        A ``.yaml``, ``.yml`` or ``.json`` file in UTF-8 that holds one goal or a list of goals.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    GoalFileError
        If the file cannot be used: names the line, the place in the goal, what was given and what is accepted.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"goals are read from a .yaml or .json file, but there is no file {str(path)!r}")
    if file.suffix not in (".yaml", ".yml", ".json"):
        raise GoalFileError(file, 1, "", f"a goal file must end in .yaml, .yml or .json, got {file.suffix!r}")
    root = _Place(file, _parse(file))
    if isinstance(root.node, yaml.SequenceNode):
        if not root.node.value:
            raise root.error("a goal file must hold at least one goal, got an empty list")
        return tuple(map(_goal, root.items()))
    return (_goal(root),)


def _parse(file: Path) -> yaml.Node:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise GoalFileError(file, 1, "", f"a goal file must be UTF-8, but {error}") from error
    if file.suffix == ".json":
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise GoalFileError(file, error.lineno, "", f"no valid JSON: {error.msg}") from error
        # JSON is YAML but for tabs between its tokens; within its strings, tabs are escaped.
        text = text.replace("\t", " ")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise GoalFileError(file, mark.line + 1 if mark else 1, "", f"no valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise GoalFileError(file, 1, "", f"no valid YAML: {error}") from error
    if node is None:
        raise GoalFileError(file, 1, "", "a goal file must hold at least one goal, got an empty file")
    return node


def _goal(place: _Place) -> UserGoal:
    fields = place.fields(("id", "profile", "policy", "objectives"), required=("objectives",))
    profile = tuple(map(_fact, fields["profile"].items())) if "profile" in fields else ()
    policy = tuple(map(_rule, fields["policy"].items())) if "policy" in fields else ()
    listed = fields["objectives"]
    objectives: list[Objective] = []
    for item in listed.items():
        objective = _objective(item, profile)
        if objective.domain and objective.domain in [other.domain for other in objectives]:
            raise item.error(f"a goal has at most one objective per domain, got a second one for {objective.domain!r}")
        objectives.append(objective)
    if not objectives:
        raise listed.error("a goal needs at least one objective, got an empty list")
    return UserGoal(tuple(objectives), profile, policy, fields["id"].text() if "id" in fields else "")


def _fact(place: _Place) -> Fact:
    kind, value, text, at = _kind_value_text(place, PROFILE_KINDS, "kind of profile fact")
    try:
        return make_fact(kind, value, text)
    except ValueError as error:
        raise at.error(str(error)) from error


def _rule(place: _Place) -> Rule:
    kind, value, text, at = _kind_value_text(place, POLICY_KINDS, "kind of policy")
    try:
        return make_rule(kind, value, text)
    except ValueError as error:
        raise at.error(str(error)) from error


def _kind_value_text(place: _Place, kinds: Sequence[str], what: str) -> tuple[str, str, str, _Place]:
    if place.is_text:
        return "text", place.text(), place.text(), place
    fields = place.fields(("kind", "value", "text"), required=("kind", "value"))
    kind, value = _one_of(fields["kind"], kinds, what), fields["value"].text()
    return kind, value, fields["text"].text() if "text" in fields else "", fields["value"]


def _objective(place: _Place, profile: Sequence[Fact]) -> Objective:
    if place.is_text:
        return Objective("", "do", text=place.text())
    if not place.has("domain") and not place.has("action"):
        return _plain_objective(place)
    keys = ("domain", "action", "requirements", "preferences", "text")
    fields = place.fields(keys, required=("domain", "action"))
    domain = _one_of(fields["domain"], DOMAINS, "domain")
    actions = ("find", "book") if BOOKABLE[domain] else ("find",)
    action = _one_of(fields["action"], actions, f"action for the domain {domain}:")
    requirements: list[Want | Ask | Need] = []
    preferences: list[Want | Need] = []
    seen: set[tuple[bool, str]] = set()
    for hard, key in ((True, "requirements"), (False, "preferences")):
        for item in fields[key].items() if key in fields else []:
            if item.is_text:
                (requirements if hard else preferences).append(Need(item.text()))
                continue
            asks = hard and item.has("ask")
            part = _ask(item, domain, action) if asks else _want(item, domain, action if hard else "find", hard=hard)
            if (asks, part.slot) in seen:
                raise item.error(f"the {domain}'s {part.slot!r} is {'asked for' if asks else 'wanted'} twice")
            seen.add((asks, part.slot))
            if isinstance(part, Want) and part.slot == "people":
                _check_party(item, part, profile)
            if hard:
                requirements.append(part)
            elif isinstance(part, Want):
                preferences.append(part)
    if not requirements and not preferences:
        raise place.error("an objective needs at least one requirement or preference, got none")
    text = fields["text"].text() if "text" in fields else ""
    return describe(Objective(domain, action, tuple(requirements), tuple(preferences), text))


def _plain_objective(place: _Place) -> Objective:
    fields = place.fields(("text", "requirements", "preferences"))
    if "text" not in fields:
        raise place.error("a task needs a 'domain' and an 'action', or a 'text' that says it in plain words")
    requirements, preferences = (
        tuple(Need(item.text()) for item in fields[key].items()) if key in fields else ()
        for key in ("requirements", "preferences")
    )
    return Objective("", "do", requirements, preferences, fields["text"].text())


def _check_party(place: _Place, want: Want, profile: Sequence[Fact]) -> None:
    for fact in profile:
        if fact.kind == "party_size" and {fact.value} != {want.value, want.otherwise or want.value}:
            raise place.error(
                f"people must agree with the profile's party_size {fact.value!r}, which the user would contradict, "
                f"got {want.value!r}"
            )


def _ask(place: _Place, domain: str, action: str) -> Ask:
    fields = place.fields(("ask", "text"), required=("ask",))
    askable = (*REQUESTABLE[domain], *(("reference",) if action == "book" else ()))
    slot = _one_of(fields["ask"], askable, f"thing to ask about a {domain}")
    return Ask(slot, fields["text"].text() if "text" in fields else "")


def _want(place: _Place, domain: str, action: str, *, hard: bool) -> Want:
    keys = ("slot", "value", "otherwise", "if", "text") if hard else ("slot", "value", "text")
    fields = place.fields(keys, required=("slot", "value"))
    details = tuple(slot for slot in BOOKABLE[domain] if slot not in INFORMABLE[domain])
    slot = _one_of(fields["slot"], (*INFORMABLE[domain], *details), f"slot of a {domain}")
    if slot in details and not hard:
        accepted = ", ".join(INFORMABLE[domain])
        raise fields["slot"].error(f"{slot!r} is a detail of a booking and no preference; accepted: {accepted}")
    if slot in details and action == "find":
        raise fields["slot"].error(f"{slot!r} is a detail of a booking, so the action must be 'book', got 'find'")
    value = _value(fields["value"], slot)
    text = fields["text"].text() if "text" in fields else ""
    if "otherwise" not in fields:
        if "if" in fields:
            raise fields["if"].error("a condition needs an 'otherwise', the value that holds when it comes true")
        return Want(slot, value, text=text)
    otherwise = _value(fields["otherwise"], slot)
    if otherwise == value:
        raise fields["otherwise"].error(f"'otherwise' must differ from the value, got {otherwise!r} for both")
    condition = _condition(fields["if"], domain, slot, details) if "if" in fields else "no_match"
    return Want(slot, value, otherwise, condition, text)


def _condition(place: _Place, domain: str, slot: str, details: Sequence[str]) -> str:
    given = place.text()
    if given == "no_match":
        return given
    attribute, equals, value = (part.strip() for part in given.partition("="))
    if not equals or not value:
        raise place.error(f"a condition must be 'no_match' or 'slot=value', got {given!r}")
    if slot not in details:
        raise place.error(
            f"the condition {given!r} goes with a detail of a booking ({', '.join(details) or 'none here'}); "
            f"for {slot!r} accepted: 'no_match'"
        )
    known = tuple(dict.fromkeys((*INFORMABLE[domain], *REQUESTABLE[domain])))
    if attribute not in known:
        raise place.error(f"unknown slot {attribute!r} in the condition {given!r}; {_choices(attribute, known)}")
    try:
        return f"{attribute}={normalise(attribute, value)}"
    except ValueError as error:
        raise place.error(str(error)) from error


def _value(place: _Place, slot: str) -> str:
    given = place.text()
    if slot in ("leaveAt", "arriveBy", "time"):
        try:
            total = minutes(given)
        except ValueError:
            total = 24 * 60
        if total >= 24 * 60:
            raise place.error(f"{slot!r} must be a time HH:MM from 00:00 to 23:59, got {given!r}")
        return clock(total)
    value = normalise(slot, given)
    if slot == "day" and value not in DAYS:
        raise place.error(f"unknown day {given!r}; {_choices(given, DAYS)}")
    if slot in ("people", "stay", "stars") and not (value.isascii() and value.isdecimal() and len(value) < 4):
        raise place.error(f"{slot!r} must be a whole number, got {given!r}")
    if slot in ("people", "stay") and int(value) < 1:
        raise place.error(f"{slot!r} must be at least 1, got {given!r}")
    if slot in ("internet", "parking") and value not in ("yes", "no"):
        raise place.error(f"{slot!r} must be yes or no, got {given!r}")
    return str(int(value)) if slot in ("people", "stay", "stars") else value


def dump_goals(goals: UserGoal | Sequence[UserGoal], path: str | Path) -> None:
    """Write goals to a file that `load_goals` reads back as they are, ``.json`` as JSON and anything else as YAML."""
    file = Path(path)
    if file.suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"a goal file must end in .yaml, .yml or .json, got {str(path)!r}")
    data: Any = goal_record(goals) if isinstance(goals, UserGoal) else [goal_record(goal) for goal in goals]
    if file.suffix == ".json":
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    file.write_text(text, encoding="utf-8")


def goal_record(goal: UserGoal) -> dict[str, Any]:
    """The goal as JSON can hold it, in the form of a goal file."""
    record: dict[str, Any] = {"id": goal.id} if goal.id else {}
    for key, parts in (("profile", goal.profile), ("policy", goal.policy)):
        if parts:
            record[key] = [
                part.text
                if part.kind == "text" and part.value == part.text
                else {"kind": part.kind, "value": part.value, "text": part.text}
                for part in parts
            ]
    record["objectives"] = [
        {
            **({} if objective.action == "do" else {"domain": objective.domain, "action": objective.action}),
            "requirements": list(map(_part, objective.requirements)),
            **({"preferences": list(map(_part, objective.preferences))} if objective.preferences else {}),
            "text": objective.text,
        }
        for objective in map(describe, goal.objectives)
    ]
    return record


def _part(part: Want | Ask | Need) -> Mapping[str, str] | str:
    if isinstance(part, Need):
        return part.text
    if isinstance(part, Ask):
        return {"ask": part.slot, "text": part.text}
    alternative = {"otherwise": part.otherwise, "if": part.condition} if part.otherwise and part.condition else {}
    return {"slot": part.slot, "value": part.value, **alternative, "text": part.text}


def goal_of(record: Mapping[str, Any]) -> UserGoal:
    """The goal that `goal_record` wrote, without the checks that a file written by hand gets.

    Raises
    ------
    KeyError, TypeError
        If the record is no such thing.
    """
    facts = tuple(Fact(*_read_manner(part)) for part in record.get("profile", ()))
    rules = tuple(Rule(*_read_manner(part)) for part in record.get("policy", ()))
    objectives = tuple(
        Objective(
            item.get("domain", ""),
            item.get("action", "do"),
            tuple(_read_part(part) for part in item["requirements"]),
            tuple(_read_part(part) for part in item.get("preferences", ())),
            item["text"],
        )
        for item in record["objectives"]
    )
    return UserGoal(objectives, facts, rules, record.get("id", ""))


def _read_manner(part: str | Mapping[str, str]) -> tuple[str, str, str]:
    return ("text", part, part) if isinstance(part, str) else (part["kind"], part["value"], part["text"])


def _read_part(part: str | Mapping[str, str]) -> Any:
    if isinstance(part, str):
        return Need(part)
    if "ask" in part:
        return Ask(part["ask"], part["text"])
    return Want(part["slot"], part["value"], part.get("otherwise"), part.get("if"), part["text"])
