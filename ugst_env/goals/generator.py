"""Goals in the manner of MultiWOZ-Challenge (arXiv 2507.20152): sampled from a world, some impossible or conditional.

An objective starts from an entity of the world: some of its slots become requirements or preferences, others are to be
found out. Whether a goal can be met is never assumed: it is computed from the world.

The splits share no profile, no policy and no combination of an entity with the slots wanted of it. Each is cut by a
fixed rule (for combinations, a hash), so a goal of one split can never turn up in another. The policies that are kept
for testing are unseen members of families seen in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from random import Random

from ugst_env.goal import Ask, Fact, Objective, Rule, UserGoal, Want
from ugst_env.goals.describe import describe
from ugst_env.goals.policies import NO_LIMIT, POLICIES, compatible, limits
from ugst_env.goals.profiles import PROFILES
from ugst_env.world.database import Entity, World, clock, minutes
from ugst_env.world.ontology import BOOKABLE, DAYS, INFORMABLE, REQUESTABLE

SPLITS = ("train", "val", "test")
# How many goals the fixed splits have.
SIZES = {"val": 100, "test": 150}
# The share of goals with one impossible, or one conditional objective.
KINDS: Mapping[str, float] = {"plain": 0.65, "impossible": 0.15, "conditional": 0.20}
OBJECTIVES = {1: 0.45, 2: 0.45, 3: 0.10}
BOOK_SHARE = 0.55

# A conversation has ten user turns; what a user states and asks for must fit in.
_MOST_THINGS = {1: 10, 2: 15, 3: 17}
_TURNS_TO_STATE = 7
_TRIES = 60
_SOFT_SLOTS = ("pricerange", "area", "stars", "type", "internet", "parking")
_TRAIN_TIMES = tuple(clock(total) for total in range(5 * 60, 24 * 60, 15))
# Details of a booking that may change. Not the people: how many they are is a fact of the profile.
_DETAILS: Mapping[str, tuple[str, ...]] = {
    "day": DAYS,
    "stay": ("1", "2", "3", "4", "5"),
    "time": tuple(clock(total) for total in range(11 * 60 + 30, 21 * 60 + 31, 15)),
}


# Makes an objective, sampled from an entity, a hard one; None where that cannot be done.
Harden = Callable[[Objective, Entity, World, Random], "Objective | None"]


def constraints(objective: Objective, *, otherwise: bool = False, preferences: bool = False) -> dict[str, str]:
    """What an objective searches by, ``{slot: value}``; `otherwise`: once its ``no_match`` conditions came true."""
    parts = (*objective.requirements, *(objective.preferences if preferences else ()))
    wants = [part for part in parts if isinstance(part, Want)]
    return {
        want.slot: want.otherwise if otherwise and want.otherwise and want.condition == "no_match" else want.value
        for want in wants
        if want.slot in INFORMABLE[objective.domain]
    }


def booking(objective: Objective, entity: Entity, *, otherwise: bool = False) -> dict[str, str]:
    """The booking that an objective wants at `entity`; `otherwise`: once its ``no_match`` conditions came true."""
    details = {}
    for want in objective.requirements:
        if isinstance(want, Want) and want.slot not in INFORMABLE[objective.domain]:
            switched = want.condition == "no_match" and otherwise
            if want.condition not in (None, "no_match"):
                slot, _, value = want.condition.partition("=")
                switched = entity.attributes.get(slot) == value
            details[want.slot] = want.otherwise if switched and want.otherwise is not None else want.value
    return details


def matches(
    objective: Objective, world: World, *, otherwise: bool = False, preferences: bool = False
) -> tuple[Entity, ...]:
    """The entities that meet an objective's requirements, in the world's order.

    Parameters
    ----------
    otherwise
        Whether the alternatives of ``no_match`` conditions count.
    preferences
        Whether the preferences have to be met as well.
    """
    return world.search(objective.domain, constraints(objective, otherwise=otherwise, preferences=preferences))


def satisfiable(objective: Objective, world: World) -> bool:
    """Whether the world has an entity that meets all requirements, alternatives included, and takes the booking."""
    found = matches(objective, world) or matches(objective, world, otherwise=True)
    if objective.action == "find":
        return bool(found)
    return any(_takes(objective, world, entity, otherwise) for otherwise in (False, True) for entity in found)


def _takes(objective: Objective, world: World, entity: Entity, otherwise: bool) -> bool:
    details = booking(objective, entity, otherwise=otherwise)
    # A detail that the goal leaves open can be chosen so that it fits.
    return set(details) != set(BOOKABLE[objective.domain]) or world.unavailable(entity, details) is None


def _conditional(objective: Objective) -> bool:
    return any(isinstance(part, Want) and part.otherwise is not None for part in objective.requirements)


def kind_of(goal: UserGoal, world: World) -> str:
    """The kind of a goal: ``"impossible"`` if an objective cannot be met, else ``"conditional"`` or ``"plain"``."""
    if not all(satisfiable(objective, world) for objective in goal.objectives):
        return "impossible"
    return "conditional" if any(map(_conditional, goal.objectives)) else "plain"


def things(objective: Objective) -> int:
    """How many things a user has to state or ask for to pursue an objective."""
    wants = [part for part in (*objective.requirements, *objective.preferences) if isinstance(part, Want)]
    return len(objective.requirements) + len(objective.preferences) + sum(want.otherwise is not None for want in wants)


def _digest(*parts: str) -> int:
    # Not hash(): it differs from process to process.
    return int.from_bytes(blake2b("\x1f".join(parts).encode(), digest_size=8).digest(), "big")


def split_of(entity: Entity, slots: tuple[str, ...]) -> str:
    """The split that goals about an entity by these slots belong to: 60 % train, 20 % val, 20 % test."""
    return ("train", "train", "train", "val", "test")[_digest(entity.domain, entity.name, *sorted(slots)) % 5]


def _cut_policies() -> dict[str, tuple[Rule, ...]]:
    """Cut each family: about a fifth of its members, from the middle, for testing, as many for validation."""
    cut: dict[str, list[Rule]] = {split: [] for split in SPLITS}
    for kind in dict.fromkeys(rule.kind for rule in POLICIES):
        members = [rule for rule in POLICIES if rule.kind == kind]
        share = max(1, round(len(members) / 5)) if len(members) > 1 else 0
        validation = share if len(members) > 2 else 0
        start = (len(members) - share - validation) // 2
        cut["test"] += members[start : start + share]
        cut["val"] += members[start + share : start + share + validation]
        cut["train"] += members[:start] + members[start + share + validation :]
    return {split: tuple(rules) for split, rules in cut.items()}


SPLIT_POLICIES: Mapping[str, tuple[Rule, ...]] = _cut_policies()
SPLIT_PROFILES: Mapping[str, tuple[tuple[Fact, ...], ...]] = {
    split: tuple(profile for index, profile in enumerate(PROFILES) if index % 5 in places)
    for split, places in {"train": (0, 1, 2), "val": (3,), "test": (4,)}.items()
}


# The policies of each split by their kinds.
_FAMILIES: Mapping[str, tuple[tuple[Rule, ...], ...]] = {
    split: tuple(tuple(r for r in rules if r.kind == kind) for kind in dict.fromkeys(rule.kind for rule in rules))
    for split, rules in SPLIT_POLICIES.items()
}


def generate(
    world: World, rng: Random, *, split: str = "train", kinds: Mapping[str, float] = KINDS, id: str = ""
) -> UserGoal:
    """Sample a goal.

    Parameters
    ----------
    world
        What the goal is about.
    rng
        The only source of chance.
    split
        ``"train"``, ``"val"`` or ``"test"``.
    kinds
        How often to make which kind of goal, ``{kind: weight}``: ``"plain"`` (everything can be had), ``"impossible"``
        (one objective cannot), ``"conditional"`` (one objective has an alternative). A kind for which a small world
        holds nothing gives way to a plain goal.
    id
        The goal's id; empty for one that is derived from what the goal holds.

    Raises
    ------
    ValueError
        For an unknown split or kind, or a world in which nothing is left to want.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    unknown = set(kinds) - set(KINDS)
    if unknown or not kinds:
        raise ValueError(f"kinds must be a mapping from {', '.join(KINDS)} to weights, got {dict(kinds)!r}")
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    for wanted in (kind, "plain"):
        for _ in range(_TRIES):
            goal = _try(world, rng, split, wanted, id)
            if goal is not None:
                return goal
    raise ValueError(f"the world {world.name!r} is too small: {_TRIES} tries gave no goal of the split {split!r}")


def _try(world: World, rng: Random, split: str, kind: str, id: str) -> UserGoal | None:
    profile, policy = rng.choice(SPLIT_PROFILES[split]), _policy(rng, split)
    if any(fact.kind == "name" for fact in profile) and any(rule.kind == "sign_name" for rule in policy):
        return None
    # The same user is kept through the tries: a demanding policy is not to become rare.
    for _ in range(_TRIES):
        objectives = _objectives(world, rng, split, kind, profile)
        if objectives is None:
            return None
        if fits(objectives, policy):
            objectives = tuple(map(describe, objectives))
            return UserGoal(objectives, profile, policy, id or f"{split}-{_id_of(objectives, profile, policy):016x}")
    return None


def _id_of(objectives: tuple[Objective, ...], profile: tuple[Fact, ...], policy: tuple[Rule, ...]) -> int:
    """A number made of all the words of a goal."""
    parts = [part for o in objectives for part in (o, *o.requirements, *o.preferences)]
    return _digest(*(each.text for each in (*profile, *policy, *parts)))


def _objectives(
    world: World, rng: Random, split: str, kind: str, profile: tuple[Fact, ...]
) -> tuple[Objective, ...] | None:
    count = min(rng.choices(list(OBJECTIVES), list(OBJECTIVES.values()))[0], len(world.domains))
    # Only one of a goal's objectives is hard, so that the others still have to be done.
    hard = rng.randrange(count)
    objectives = []
    for index, domain in enumerate(rng.sample(world.domains, count)):
        for _ in range(_TRIES):
            harden = _way(kind, domain, rng) if index == hard else None
            made = _objective(world, rng, split, domain, profile, harden, small=count == 3)
            if made is not None:
                objectives.append(made)
                break
    return tuple(objectives) if len(objectives) == count else None


def _way(kind: str, domain: str, rng: Random) -> Harden | None:
    """How to make an objective of that kind."""
    if kind == "plain":
        return None
    if kind == "impossible":
        return _impossible
    if domain not in ("hotel", "restaurant"):
        return _if_nothing_fits
    return rng.choices((_if_nothing_fits, _if_it_has, _if_it_is_full), (2, 4, 4))[0]


def fits(objectives: tuple[Objective, ...], policy: tuple[Rule, ...]) -> bool:
    """Whether a conversation under these rules has room for the objectives, and every rule about a slot matters."""
    allowed = limits(policy)
    room = _MOST_THINGS[len(objectives)]
    if allowed.max_things < NO_LIMIT:
        room = min(room, _TURNS_TO_STATE * allowed.max_things)
    wanted = {part.slot for o in objectives for part in (*o.requirements, *o.preferences) if isinstance(part, Want)}
    return sum(map(things, objectives)) <= room and allowed.withheld | allowed.not_first <= wanted


def _policy(rng: Random, split: str) -> tuple[Rule, ...]:
    """One rule, families equally often; for a quarter of the users a second one that goes with it."""
    families = _FAMILIES[split]

    def draw() -> Rule:
        return rng.choice(rng.choice(families))

    first = draw()
    if rng.random() < 0.25:
        second = draw()
        if compatible(first, second):
            return first, second
    return (first,)


def _fact(profile: tuple[Fact, ...], kind: str) -> str | None:
    return next((fact.value for fact in profile if fact.kind == kind), None)


def _objective(
    world: World, rng: Random, split: str, domain: str, profile: tuple[Fact, ...], harden: Harden | None, *, small: bool
) -> Objective | None:
    rows = world.tables[domain]
    if not rows:
        return None
    entity = rng.choice(rows)
    found = _train_wants(entity, rng) if domain == "train" else _place_wants(entity, rng, small=small)
    if found is None or split_of(entity, tuple(slot for slots in found for slot in slots)) != split:
        return None
    required, preferred = (tuple(_want(slot, value) for slot, value in slots.items()) for slots in found)
    slots = (*found[0], *found[1])
    about_booking = harden in (_if_it_has, _if_it_is_full)
    action = "book" if about_booking or (BOOKABLE[domain] and rng.random() < BOOK_SHARE) else "find"
    if action == "book":
        required += _booking_wants(domain, rng, profile)
    if preferred and rng.random() < 0.25:
        # The wish may turn out to be beyond reach.
        preferred = tuple(replace(w, value=next(_alternatives(world, domain, w, rng), w.value)) for w in preferred)
    askable = [s for s in REQUESTABLE[domain] if s in entity.attributes and s not in slots and s != "trainID"]
    asks = tuple(Ask(slot) for slot in rng.sample(askable, min(len(askable), 1 if small else rng.choice((1, 1, 2)))))
    objective = Objective(domain, action, (*required, *asks), preferred)
    if harden is None and _beyond_means(objective, profile):
        return None
    # An impossible objective starts from one that can be met, and so does a conditional one. Most often the entity that
    # this one was made from can be booked, and the others need not be looked at.
    met = action == "find" or _takes(objective, world, entity, False) or satisfiable(objective, world)
    made: Objective | None = objective if met else None
    if made is not None and harden is not None:
        made = harden(made, entity, world, rng)
    if made is None or (harden not in (None, _impossible) and not satisfiable(made, world)):
        return None
    return None if _beyond_means(made, profile) else made


def _beyond_means(objective: Objective, profile: tuple[Fact, ...]) -> bool:
    """Whether somebody short of money is to want something expensive, or somebody rich something cheap."""
    odd = {"tight": "expensive", "generous": "cheap"}.get(_fact(profile, "budget") or "")
    if odd is None:
        return False
    wants = (part for part in (*objective.requirements, *objective.preferences) if isinstance(part, Want))
    return any(want.slot == "pricerange" and odd in (want.value, want.otherwise) for want in wants)


Slots = dict[str, str]

# Most draws come to nothing, and the same few wants come up again and again.
_want = lru_cache(maxsize=4096)(Want)


def _place_wants(entity: Entity, rng: Random, *, small: bool) -> tuple[Slots, Slots] | None:
    """What is required of a place, and what is preferred."""
    domain, attributes = entity.domain, entity.attributes
    if rng.random() < 0.07:
        return {"name": entity.name}, {}
    usable = [
        slot
        for slot in INFORMABLE[domain]
        # Nobody looks for a hotel without a star, or without internet.
        if slot != "name" and attributes.get(slot) not in (None, "no", "0")
    ]
    if not usable:
        return None
    count = min(len(usable), 2 if small else rng.choice((2, 3)))
    drawn = rng.sample(usable, count)
    chosen = [slot for slot in usable if slot in drawn]
    soft = [slot for slot in chosen if slot in _SOFT_SLOTS]
    wish = rng.choice(soft) if len(chosen) > 1 and soft and rng.random() < 0.6 else None
    return (
        {slot: attributes[slot] for slot in chosen if slot != wish},
        {slot: attributes[slot] for slot in chosen if slot == wish},
    )


def _train_wants(train: Entity, rng: Random) -> tuple[Slots, Slots] | None:
    """Where from, where to and when: always, as a train without them is nothing to look for."""
    slot = rng.choice(("leaveAt", "arriveBy"))
    if not {"departure", "destination", "day", slot} <= set(train.attributes):
        return None
    total = minutes(train.attributes[slot])
    total = total // 15 * 15 if slot == "leaveAt" else -(-total // 15) * 15
    if total >= 24 * 60:
        return None
    return {**{s: train.attributes[s] for s in ("departure", "destination", "day")}, slot: clock(total)}, {}


def _booking_wants(domain: str, rng: Random, profile: tuple[Fact, ...]) -> tuple[Want, ...]:
    values = {
        "people": _fact(profile, "party_size") or str(rng.choices(range(1, 7), (4, 6, 3, 3, 2, 1))[0]),
        "day": rng.choice(DAYS),
        "stay": rng.choice(_DETAILS["stay"]),
        "time": rng.choice(_DETAILS["time"]),
    }
    return tuple(_want(slot, values[slot]) for slot in BOOKABLE[domain])


def _alternatives(world: World, domain: str, want: Want, rng: Random) -> Iterator[str]:
    """Other values that could be wanted of a slot, in random order."""
    values = _TRAIN_TIMES if want.slot in ("leaveAt", "arriveBy") else world.values(domain, want.slot)
    others = [value for value in values if value not in (want.value, "no", "0")]
    return iter(rng.sample(others, len(others)))


def _without_match(objective: Objective, world: World, rng: Random) -> Iterator[tuple[Want, str]]:
    """Changes of one requirement, ``(want, new value)``, after which nothing in the world fits."""
    now = constraints(objective)
    wants = [part for part in objective.requirements if isinstance(part, Want) and part.slot in now]
    for want in rng.sample(wants, len(wants)):
        if want.slot == "name":
            continue
        for value in _alternatives(world, objective.domain, want, rng):
            changed = {**now, want.slot: value}
            to_itself = "departure" in changed and changed["departure"] == changed.get("destination")
            if not to_itself and not world.has(objective.domain, changed):
                yield want, value
                break


def _swap(objective: Objective, old: Want, new: Want) -> Objective:
    return replace(objective, requirements=tuple(new if part == old else part for part in objective.requirements))


def _impossible(objective: Objective, entity: Entity, world: World, rng: Random) -> Objective | None:
    """ "It must be in the north": nothing in the north fits."""
    for want, value in _without_match(objective, world, rng):
        return _swap(objective, want, replace(want, value=value))
    return None


def _if_nothing_fits(objective: Objective, entity: Entity, world: World, rng: Random) -> Objective | None:
    """ "It must be in the north; if there is no such place, in the south": nothing in the north fits."""
    for want, value in _without_match(objective, world, rng):
        return _swap(objective, want, Want(want.slot, value, want.value, "no_match"))
    return None


def _if_it_has(objective: Objective, entity: Entity, world: World, rng: Random) -> Objective | None:
    """ "Stay two nights, but three if it has parking": the user has to find out first."""
    known = {part.slot for part in (*objective.requirements, *objective.preferences) if isinstance(part, Want)}
    slots = [
        slot
        for slot in INFORMABLE[objective.domain]
        if slot != "name" and slot not in known and slot in entity.attributes and slot in REQUESTABLE[objective.domain]
    ]
    if not slots:
        return None
    slot = rng.choice(slots)
    value = "yes"
    if slot not in ("internet", "parking"):
        value = rng.choice((entity.attributes[slot], rng.choice(world.values(objective.domain, slot))))
    changed = _changed_booking(objective, rng)
    if changed is None:
        return None
    want, other = changed
    hard = _swap(objective, want, replace(want, otherwise=other, condition=f"{slot}={value}"))
    if slot in {part.slot for part in hard.requirements if isinstance(part, Ask)}:
        return hard
    kept = tuple(part for part in hard.requirements if isinstance(part, Want))
    return replace(hard, requirements=(*kept, Ask(slot)))


def _if_it_is_full(objective: Objective, entity: Entity, world: World, rng: Random) -> Objective | None:
    """ "On Friday; if that cannot be booked, on Saturday": every place that fits is full on Friday."""
    found = matches(objective, world)
    details = booking(objective, entity)
    wants = [p for p in objective.requirements if isinstance(p, Want) and p.slot in _DETAILS]
    for want in rng.sample(wants, len(wants)):
        for value in rng.sample(_DETAILS[want.slot], len(_DETAILS[want.slot])):
            changed = {**details, want.slot: value}
            if value != want.value and all(world.unavailable(each, changed) for each in found):
                return _swap(objective, want, Want(want.slot, value, want.value, "no_match"))
    return None


def _changed_booking(objective: Objective, rng: Random) -> tuple[Want, str] | None:
    """A detail of the booking and another value for it."""
    details = [p for p in objective.requirements if isinstance(p, Want) and p.slot in _DETAILS]
    if not details:
        return None
    want = rng.choice(details)
    return want, rng.choice([value for value in _DETAILS[want.slot] if value != want.value])


@lru_cache(maxsize=8)
def challenge(split: str, world: World) -> tuple[UserGoal, ...]:
    """The fixed goals of a split: 150 for ``"test"``, 100 for ``"val"``, no two alike.

    Raises
    ------
    ValueError
        For another split (training goals are endless, see `goal_source`).
    """
    if split not in SIZES:
        raise ValueError(f"split must be one of {', '.join(SIZES)}, got {split!r}; for training goals use goal_source")
    rng = Random(f"challenge {split}")
    goals: dict[tuple[Objective, ...], UserGoal] = {}
    for _ in range(SIZES[split] * _TRIES):
        goal = generate(world, rng, split=split, id=f"{split}-{len(goals):03d}")
        goals.setdefault(goal.objectives, goal)
        if len(goals) == SIZES[split]:
            return tuple(goals.values())
    raise ValueError(f"the world {world.name!r} is too small: it gave {len(goals)} goals for the split {split!r}")


@dataclass(frozen=True)
class GoalSource:
    """A function from a random generator to a goal. `goals` holds what it draws from, empty where goals are endless."""

    split: str
    world: World
    goals: tuple[UserGoal, ...] = field(default=(), repr=False)
    kinds: Mapping[str, float] = field(default_factory=lambda: KINDS, repr=False, compare=False)

    def __call__(self, rng: Random) -> UserGoal:
        if self.goals:
            return self.goals[rng.randrange(len(self.goals))]
        return generate(self.world, rng, split=self.split, kinds=self.kinds)


def goal_source(name: str, world: World) -> GoalSource:
    """The goals called ``"challenge:train"`` (endless), ``"challenge:val"`` or ``"challenge:test"`` (fixed).

    Raises
    ------
    ValueError
        For another name.
    """
    names = [f"challenge:{split}" for split in SPLITS]
    if name not in names:
        raise ValueError(f"goals must be one of {', '.join(names)}, got {name!r}")
    split = name.removeprefix("challenge:")
    return GoalSource(split, world, challenge(split, world) if split in SIZES else ())
