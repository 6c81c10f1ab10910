"""What an agent may believe: the user's words so far, as values, open questions and offers. Nothing of the goal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ugst_env.dialogue.acts import DONTCARE, AgentAct, UserAct
from ugst_env.world.database import Entity, World
from ugst_env.world.ontology import BOOKABLE, INFORMABLE

_SEARCHED = {domain: tuple((domain, slot) for slot in INFORMABLE[domain]) for domain in INFORMABLE}


@dataclass
class BeliefState:
    """The agent's memory of one conversation, updated from the user's acts and its own.

    Parameters
    ----------
    values
        Newest value per (domain, slot), `DONTCARE` included.
    soft
        Which of them were hedged wishes.
    excluded
        Values that the user ruled out, as (domain, slot, value).
    pending
        Questions of the user that wait for an answer, as (domain, slot), oldest first.
    wants_booking
        Domains in which the user asked for a booking.
    offered, passed
        The entity on offer per domain, and the ones offered before it.
    booked
        Reference per domain.
    unbookable
        Entities whose booking failed, per domain.
    refused
        Domains in which the agent said that nothing matches, until the user says something new about them.
    raised
        Domains that the user has spoken of.
    domain
        The domain that was spoken of last.
    user_acts
        The newest user acts.
    last_act
        The agent's newest act.
    """

    values: dict[tuple[str, str], str] = field(default_factory=dict)
    soft: set[tuple[str, str]] = field(default_factory=set)
    excluded: set[tuple[str, str, str]] = field(default_factory=set)
    pending: list[tuple[str, str]] = field(default_factory=list)
    wants_booking: set[str] = field(default_factory=set)
    offered: dict[str, str] = field(default_factory=dict)
    passed: dict[str, list[str]] = field(default_factory=dict)
    booked: dict[str, str] = field(default_factory=dict)
    unbookable: dict[str, list[str]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    raised: set[str] = field(default_factory=set)
    domain: str | None = None
    user_acts: tuple[UserAct, ...] = ()
    last_act: AgentAct | None = None

    def hear(self, acts: Iterable[UserAct]) -> None:
        """Take in what the user said."""
        self.user_acts = tuple(acts)
        for act in self.user_acts:
            if act.domain is None:
                continue
            self.domain = act.domain
            self.raised.add(act.domain)
            if act.kind == "request" and act.slot is not None:
                if (act.domain, act.slot) not in self.pending:
                    self.pending.append((act.domain, act.slot))
            elif act.kind == "book":
                self.wants_booking.add(act.domain)
            elif act.kind == "negate" and act.slot is not None and act.value is not None:
                self.excluded.add((act.domain, act.slot, act.value))
                if self.values.get((act.domain, act.slot)) == act.value:
                    del self.values[act.domain, act.slot]
                self.refused.discard(act.domain)
            elif act.kind == "inform" and act.slot is not None and act.value is not None:
                self._learn(act.domain, act.slot, act.value, act.soft)

    def _learn(self, domain: str, slot: str, value: str, soft: bool) -> None:
        key = (domain, slot)
        changed = self.values.get(key) != value
        if changed or soft != (key in self.soft):
            self.refused.discard(domain)
        self.values[key] = value
        self.excluded.discard((domain, slot, value))
        (self.soft.add if soft else self.soft.discard)(key)
        if slot in BOOKABLE[domain] and slot not in INFORMABLE[domain]:
            self.wants_booking.add(domain)
            if changed:
                # Other details make another booking: what was booked or refused with the old ones no longer counts.
                self.unbookable.pop(domain, None)
                self.booked.pop(domain, None)

    def act(self, *acts: AgentAct) -> None:
        """Take in what the agent itself did in its turn; its last act is what the user answers to."""
        for act in acts:
            self._do(act)
        self.last_act = acts[-1] if acts else None

    def _do(self, act: AgentAct) -> None:
        if act.domain is None:
            return
        self.domain = act.domain
        if act.kind in ("offer", "offer_next") and act.entity is not None:
            if self.offered.get(act.domain) != act.entity:
                if act.domain in self.offered:
                    self.passed.setdefault(act.domain, []).append(self.offered[act.domain])
                self.offered[act.domain] = act.entity
            self.pending = [p for p in self.pending if p[0] != act.domain or p[1] not in act.claims]
        elif act.kind == "inform_requested":
            self.pending = [p for p in self.pending if p[0] != act.domain or p[1] not in act.claims]
        elif act.kind == "no_offer":
            self.refused.add(act.domain)
        elif act.kind == "book" and act.entity is not None:
            if act.reference is not None:
                self.booked[act.domain] = act.reference
                self.pending = [p for p in self.pending if p != (act.domain, "reference")]
            else:
                self.unbookable.setdefault(act.domain, []).append(act.entity)

    def constraints(self, domain: str, *, soft: bool = True) -> dict[str, str]:
        """Search constraints of a domain, with or without the hedged ones."""
        return {
            key[1]: value
            for key in _SEARCHED[domain]
            if (value := self.values.get(key, DONTCARE)) != DONTCARE and (soft or key not in self.soft)
        }

    def booking(self, domain: str) -> dict[str, str] | None:
        """Booking details of a domain, None while one is missing."""
        details = {}
        for slot in BOOKABLE[domain]:
            value = self.values.get((domain, slot), DONTCARE)
            if value == DONTCARE:
                return None
            details[slot] = value
        return details or None

    def candidates(self, domain: str, world: World) -> tuple[Entity, ...]:
        """Entities that fit; hedged wishes are dropped when nothing honours them all."""
        found = self._search(domain, world, soft=True)
        return found or self._search(domain, world, soft=False)

    def _search(self, domain: str, world: World, *, soft: bool) -> tuple[Entity, ...]:
        if domain not in world.tables:
            return ()
        found = world.search(domain, self.constraints(domain, soft=soft))
        ruled_out = [(slot, value) for d, slot, value in self.excluded if d == domain]
        if not ruled_out:
            return found
        return tuple(e for e in found if all(e.attributes.get(slot) != value for slot, value in ruled_out))

    def next_candidate(self, domain: str, fits: Iterable[Entity], *, after_offer: bool) -> Entity | None:
        """The one of the `candidates` to offer: the first, or with `after_offer` the first not offered yet, or None."""
        skip: Sequence[str] = self.unbookable.get(domain, ())
        if after_offer:
            skip = (*skip, *self.passed.get(domain, ()), self.offered.get(domain, ""))
        for entity in fits:
            if entity.name not in skip:
                return entity
        return None
