"""What an agent can look up and book: the ontology, the database, and the shipped city."""

from __future__ import annotations

from ugst_env.world.database import SLOTS, Booking, Entity, World

__all__ = ["SLOTS", "Booking", "Entity", "World"]
