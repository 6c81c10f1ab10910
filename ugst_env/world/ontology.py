"""Domains and slots, in MultiWOZ's names."""

from __future__ import annotations

DOMAINS = ("attraction", "hotel", "restaurant", "train")

# What an entity can be searched by.
INFORMABLE = {
    "attraction": ("type", "area", "name"),
    "hotel": ("area", "pricerange", "stars", "type", "internet", "parking", "name"),
    "restaurant": ("food", "area", "pricerange", "name"),
    "train": ("departure", "destination", "day", "leaveAt", "arriveBy"),
}
# What a booking needs.
BOOKABLE: dict[str, tuple[str, ...]] = {
    "attraction": (),
    "hotel": ("people", "day", "stay"),
    "restaurant": ("people", "day", "time"),
    "train": ("people",),
}
# What a user can ask about an entity. A booking's "reference" can be asked for as well.
REQUESTABLE = {
    "attraction": ("address", "postcode", "phone", "entrance fee", "area", "type"),
    "hotel": ("address", "postcode", "phone", "internet", "parking", "stars", "type", "area", "pricerange"),
    "restaurant": ("address", "postcode", "phone", "food", "area", "pricerange"),
    "train": ("trainID", "duration", "price", "leaveAt", "arriveBy"),
}
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
AREAS = ("centre", "north", "east", "south", "west")
PRICERANGES = ("cheap", "moderate", "expensive")

# The 26 slots of a belief state, as (domain, slot), in a fixed order.
BELIEF_SLOTS = tuple((domain, slot) for domain in DOMAINS for slot in (*INFORMABLE[domain], *BOOKABLE[domain]))
# The 26 things that can be asked for, as (domain, slot).
ASKABLE_SLOTS = tuple((domain, slot) for domain in DOMAINS for slot in REQUESTABLE[domain])
