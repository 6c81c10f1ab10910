"""Dialogue acts: what a user utterance says, and what an agent does in its turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

USER_ACT_KINDS = ("inform", "negate", "request", "book", "affirm", "deny", "thank", "bye", "greet")
DONTCARE = "dontcare"


class UserAct(NamedTuple):
    """One thing that a user utterance says.

    `kind` is one of `USER_ACT_KINDS`. ``inform`` gives `slot` the `value` (`DONTCARE` where any will do), ``negate``
    rules the value out, ``request`` asks for `slot`, ``book`` asks for a booking in `domain`. ``inform`` with
    ``slot=None`` merely raises the domain. `soft` marks a hedged wish ("if possible", "ideally").
    """

    kind: str
    domain: str | None = None
    slot: str | None = None
    value: str | None = None
    soft: bool = False


AGENT_ACT_KINDS = (
    "request",
    "offer",
    "offer_next",
    "inform_requested",
    "no_offer",
    "book",
    "req_more",
    "pardon",
    "bye",
)


@dataclass(frozen=True)
class AgentAct:
    """What an agent did and claimed in one turn. Every claim is checked against the world by the tracker.

    Parameters
    ----------
    kind
        One of `AGENT_ACT_KINDS`. ``pardon`` asks the user to repeat: what an agent says that cannot do what it chose.
    slot
        The slot that a ``request`` asks for.
    entity
        The name (trains: the trainID) that is offered, booked or spoken of.
    claims
        Attribute values that the utterance states about `entity`, ``{slot: value}``; None as a value says "not known".
    booking
        The booking slots that ``book`` used, ``{"people": "4", …}``.
    reference
        The reference of a booking that succeeded, else None.
    failure
        Why a booking failed (``"full"``, ``"party_too_large"``), else None.
    count
        How many entities the agent says match.
    silent
        A booking made without a word of its reference.
    """

    kind: str
    domain: str | None = None
    slot: str | None = None
    entity: str | None = None
    claims: Mapping[str, str | None] = field(default_factory=dict)
    booking: Mapping[str, str] = field(default_factory=dict)
    reference: str | None = None
    failure: str | None = None
    count: int | None = None
    silent: bool = False
