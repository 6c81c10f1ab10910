"""The tools of an agent that speaks: searching, looking up and booking, as function calls of the chat format.

A call is JSON in the agent's message: ``{"name": "search_hotel", "arguments": {"area": "north"}}``, bare, between
``<tool_call>`` and ``</tool_call>``, or as the ``tool_calls`` of an assistant message of the chat format. Whatever
begins like a call and is none gets an error for an answer, never an exception.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ugst_env.dialogue.acts import DONTCARE, AgentAct
from ugst_env.dialogue.generation import display
from ugst_env.world.database import Entity, World, normalise
from ugst_env.world.ontology import AREAS, BOOKABLE, DAYS, INFORMABLE, PRICERANGES

MOST_RESULTS = 5
"""The most entities that a search lists; it always says how many there are."""

_MEANING = {
    "area": "part of town", "pricerange": "price range", "stars": "number of stars", "type": "kind of place",
    "internet": "whether it has internet", "parking": "whether it has parking", "name": "full name",
    "food": "cuisine", "departure": "station of departure", "destination": "station of arrival",
    "day": "day of the week", "leaveAt": "leaves at this time or later, HH:MM",
    "arriveBy": "arrives by this time, HH:MM", "people": "number of people", "stay": "number of nights",
    "time": "HH:MM", "trainID": "such as TR1234",
}  # fmt: skip
_CLOSED = {"area": AREAS, "pricerange": PRICERANGES, "day": DAYS, "internet": ("yes", "no"), "parking": ("yes", "no")}
_NUMBERS = ("people", "stay")


@dataclass(frozen=True)
class Call:
    """A tool call, as the agent wrote it: `arguments` is what the function is given, checked only when carried out."""

    name: str
    arguments: Mapping[str, Any]


def _slot_schema(world: World, domain: str, slot: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer" if slot in _NUMBERS else "string", "description": _MEANING[slot]}
    values = world.values(domain, slot) if slot == "type" else _CLOSED.get(slot)
    return {**schema, "enum": list(values)} if values else schema


def _function(name: str, description: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _handle(domain: str) -> str:
    return "trainID" if domain == "train" else "name"


@lru_cache(maxsize=8)
def tool_schemas(world: World) -> tuple[dict[str, Any], ...]:
    """The functions of a world in the chat format's ``tools``: search, details and, where there is any, booking."""
    tools = []
    for domain in world.domains:
        handle = {_handle(domain): {"type": "string", "description": _MEANING[_handle(domain)]}}
        by = {slot: _slot_schema(world, domain, slot) for slot in INFORMABLE[domain]}
        tools.append(_function(f"search_{domain}", f"Find {domain}s that meet all of the given conditions.", by, []))
        tools.append(_function(f"{domain}_details", f"All that is known of one {domain}.", handle, [*handle]))
        if BOOKABLE[domain]:
            details = {slot: _slot_schema(world, domain, slot) for slot in BOOKABLE[domain]}
            tools.append(
                _function(f"book_{domain}", f"Book one {domain}.", {**handle, **details}, [*handle, *BOOKABLE[domain]])
            )
    return tuple(tools)


_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_FENCED = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)


def read_calls(message: str) -> list[Call | str] | None:
    """The tool calls of a message, each a `Call` or what is wrong with it; None for a message that is plain words."""
    text = message.strip()
    tagged = _TAGGED.findall(text)
    fenced = _FENCED.match(text)
    bodies = tagged or [fenced[1] if fenced else text]
    if not tagged and not re.match(r"\{|\[\s*\{", bodies[0]):
        return None
    calls: list[Call | str] = []
    for body in bodies:
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            calls.append(f"this is no JSON ({type(error).__name__}: {error})"[:200])
            continue
        listed = data.get("tool_calls", data) if isinstance(data, dict) else data
        calls += [_call(each) for each in (listed if isinstance(listed, list) else [listed])]
    return calls or ["the list of tool calls is empty"]


def _call(data: Any) -> Call | str:
    data = data.get("function", data) if isinstance(data, dict) else data
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return 'a tool call is {"name": ..., "arguments": {...}}; to speak to the user, write plain words'
    arguments = data.get("arguments", data.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return "the arguments are no JSON object"
    return Call(data["name"], arguments) if isinstance(arguments, dict) else "the arguments are no JSON object"


def carry_out(call: Call, world: World) -> tuple[dict[str, Any], AgentAct | None]:
    """The result of a call, as JSON, and the booking that it made or failed to make.

    Raises
    ------
    ValueError
        In words for the agent: an unknown function, an argument that is missing, unknown or out of range.
    """
    known = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tool_schemas(world)}
    if call.name not in known:
        raise ValueError(f"there is no tool {call.name[:60]!r}; there are {', '.join(known)}")
    arguments = _checked(call, known[call.name])
    kind, _, rest = call.name.partition("_")
    domain = kind if rest == "details" else rest
    if kind == "search":
        found = world.search(domain, arguments)
        shown = [_summary(entity) for entity in found[:MOST_RESULTS]]
        return {"count": len(found), "results": shown}, None
    entity = world.find(domain, arguments[_handle(domain)])
    if entity is None:
        raise ValueError(f"there is no {domain} {arguments[_handle(domain)]!r}")
    if rest == "details":
        return _told(entity, entity.attributes), None
    details = {slot: arguments[slot] for slot in BOOKABLE[domain]}
    booking = world.book(entity, details)
    act = AgentAct(
        "book",
        domain,
        entity=entity.name,
        booking=dict(booking.booking),
        reference=booking.reference,
        failure=booking.failure,
    )
    return {"reference": booking.reference} if booking.reference else {"failure": booking.failure}, act


def _checked(call: Call, parameters: Mapping[str, Any]) -> dict[str, str]:
    properties: Mapping[str, Any] = parameters["properties"]
    unknown = [name for name in call.arguments if name not in properties]
    missing = [name for name in parameters["required"] if name not in call.arguments]
    if unknown or missing:
        wrong = f"does not take {unknown[0][:60]!r}" if unknown else f"needs {missing[0]!r}"
        raise ValueError(f"{call.name} {wrong}; it takes {', '.join(properties)}")
    checked = {}
    for slot, value in call.arguments.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f"{slot} must be {'a whole number' if slot in _NUMBERS else 'a string'}")
        text = normalise(slot, str(value)[:100])
        allowed = properties[slot].get("enum")
        if allowed and text not in (*allowed, DONTCARE):
            raise ValueError(f"{slot} must be one of {', '.join(allowed)}, got {text!r}")
        checked[slot] = text
    return checked


def _summary(entity: Entity) -> dict[str, str]:
    return _told(entity, (_handle(entity.domain), *INFORMABLE[entity.domain]))


def _told(entity: Entity, slots: Iterable[str]) -> dict[str, str]:
    """Attributes of an entity, written as people write them."""
    return {slot: display(slot, entity.attributes[slot]) for slot in slots if slot in entity.attributes}
