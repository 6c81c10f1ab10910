"""What an agent's own words do and claim: free text → agent acts, for the tracker to check. No model is called.

Sentence by sentence:

1. An entity that is named is offered (per domain the first of a message: naming ten is no better than naming one), or
   spoken of, if it is on offer already. So are what follows it ("it has parking") and what answers a question.
2. What a sentence states about that entity is a claim, true or not. Two values for one slot are a falsehood at most
   once true, so that listing all of them says nothing.
3. "There is no such hotel", without a name, is a refusal. "It is fully booked" reports a booking that failed, if one
   did. "It is booked", without a booking, is a lie.
4. A question asks for the slots that it names.

What the agent *did* (bookings, by its tools) comes as `deeds`: those are facts, whatever the words say. Words alone
book nothing. A value that merely echoes what the user wants ("you would like a cheap one") is no claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.belief import BeliefState
from ugst_env.dialogue.understanding import Context, understand
from ugst_env.dialogue.vocabulary import MAX_CHARS, Sense, Vocabulary, is_plain, tokenize
from ugst_env.world.database import Entity, World
from ugst_env.world.ontology import INFORMABLE, REQUESTABLE

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_MARKDOWN = re.compile(r"[*_#`>|]+|^\s*(?:-|\d+[.)])\s+", re.MULTILINE)

_NOUNS = {
    "attraction": ("attraction", "attractions", "museum", "park", "sight", "sights", "entrance"),
    "hotel": ("hotel", "hotels", "guesthouse", "guesthouses", "room", "rooms", "night", "nights", "stay", "guests"),
    "restaurant": ("restaurant", "restaurants", "table", "tables", "food", "cuisine", "eat", "eating", "dine"),
    "train": ("train", "trains", "ticket", "tickets", "journey", "depart", "leave", "leaving", "travel"),
}
_DOMAIN_OF = {noun: domain for domain, nouns in _NOUNS.items() for noun in nouns}
_THING = r"(?:restaurant|hotel|guesthouse|place|option|train|attraction|match|result|one|such|something|anything)s?"
_REFUSAL = re.compile(
    rf"\bno \w* ?\w* ?(?:{_THING}|matches|matching)\b"
    rf"|\bnot (?:\w+ )?(?:find|see|aware of|able to find)\b.*\b(?:{_THING}|any|like that|match\w*)\b"
    rf"|\bnot (?:\w+ )?have (?:\w+ ){{0,3}}(?:{_THING})\b"
    r"|\b(?:nothing|none|no (?:match|result|option)\w*)\b"
    r"|\b(?:does|do) not (?:exist|match)\b"
)
_OTHER = re.compile(r"\b(?:else|other|another|only|more)\b")
_FAILED = re.compile(
    r"\bfully booked\b|\bnot (?:available|possible|free)\b|\bunavailable\b|\b(?:is|are) full\b|\bfail(?:ed|s)?\b"
    r"|\bno (?:\w+ )?(?:table|room|seat|place|ticket|availability|vacanc)\w*\b"
    r"|\b(?:not|unable to|cannot) (?:\w+ )?(?:book|reserve|take|accommodate|make)\b|\btoo (?:large|many|big)\b"
    r"|\bunsuccessful\b"
)
_BOOKED = re.compile(
    r"\b(?:have|has been|have been|is|are|was|successfully|now|all) (?:\w+ )?(?:booked|reserved)\b"
    r"|\bbooking\b.{0,60} (?:is|was|has been) (?:\w+ )?(?:confirmed|made|complete\w*|successful\w*)\b"
    r"|^(?:i )?(?:booked|reserved)\b"
)
_ECHO = re.compile(r"\byou(?:r)?\b.*\b(?:want|like|need|look\w*|prefer\w*|search\w*|ask\w*|request\w*|after)\b")
_UNKNOWN = re.compile(
    r"\bnot (?:have|know|list\w*|avail\w*|given|sure)\b|\bno (?:information|data|record)\b|\bunknown\b"
)
_MORE = re.compile(r"\b(?:anything|something|what) else\b|\bhelp (?:you )?(?:with )?(?:anything|something)\b")
_REFERENCE = re.compile(r"\b(?i:reference)\b\W{0,3}(?:(?i:number|code|no|is)\W{0,3}){0,3}([A-Z0-9]{6,10})\b")
_PHONE = re.compile(r"\+?\d[\d \-()]{7,}\d")
_POSTCODE = re.compile(r"\b([a-z]{1,2}\d{1,2}[a-z]?) ?(\d[a-z]{2})\b", re.IGNORECASE)
_MONEY = re.compile(r"(?:£|gbp ?)\s?(\d+(?:\.\d{1,2})?)|\b(\d+(?:\.\d{1,2})?) (?:pounds?|gbp|quid)\b", re.IGNORECASE)
_MINUTES = re.compile(r"\b(\d+) min(?:ute)?s?\b", re.IGNORECASE)
_TRAIN_ID = re.compile(r"\b(TR) ?(\d{4})\b", re.IGNORECASE)

# What an agent's question asks for: the first that fits, so that "what time do you want to leave" is no question for a
# table's time. None as a domain stands for every domain with that slot.
_QUESTIONS: tuple[tuple[str, re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (slot, re.compile(pattern), domains)
    for slot, pattern, domains in (
        ("arriveBy", r"\b(?:arriv\w*|get there|be there|reach)\b", ("train",)),
        ("leaveAt", r"\b(?:time|when)\b.*\b(?:leav\w*|depart\w*|travel\w*|go)\b", ("train",)),
        ("departure", r"\b(?:where|which|what)\b.*\b(?:from|depart\w*)\b|\bdeparture (?:station|point|city)",
         ("train",)),
        ("destination", r"\bwhere\b.*\b(?:going|head\w*|to go)\b|\bwhere\b.*\bto \?|\bto (?:where|which|what)\b"
                        r"|\bdestination\b|\b(?:which|what) (?:station|town|city)\b.*\bto\b", ("train",)),
        ("time", r"\b(?:time|when)\b", ("restaurant",)),
        ("stay", r"\b(?:how many nights|how long|number of nights|length of)\b", ("hotel",)),
        ("people", r"\bhow many\b(?! (?:stars|nights))|\bnumber of (?:people|guests|tickets)\b|\bparty size\b",
         ("hotel", "restaurant", "train")),
        ("day", r"\b(?:what|which|from which|starting|any) day\b|\bwhen\b|\b(?:what|which) date\b",
         ("hotel", "restaurant", "train")),
        ("area", r"\barea\b|\bpart of (?:the )?town\b|\bpart of (?:the )?city\b|\bwhereabouts\b|\blocation\b"
                 r"|\bwhere (?:in|should|would|do)\b", ("attraction", "hotel", "restaurant")),
        ("pricerange", r"\bprice\b|\bbudget\b|\bcheap\b.*\bexpensive\b|\bhow much\b.*\bspend\b",
         ("hotel", "restaurant")),
        ("stars", r"\bstars?\b", ("hotel",)),
        ("internet", r"\b(?:wifi|internet|wi fi)\b", ("hotel",)),
        ("parking", r"\bparking\b", ("hotel",)),
        ("type", r"\bhotel or (?:a )?guesthouse\b|\bguesthouse or (?:a )?hotel\b|\b(?:kind|type|sort) of"
                 r" (?:attraction|place|hotel|lodging|accommodation)\b", ("attraction", "hotel")),
        ("food", r"\b(?:food|cuisine|serve)\b", ("restaurant",)),
        ("name", r"\b(?:particular|certain|specific)\b.*\b(?:in mind|name|after)\b",
         ("attraction", "hotel", "restaurant")),
    )
)  # fmt: skip
_SLOT_WORDS = {
    "phone": ("phone", "telephone"), "postcode": ("postcode", "postal"), "address": ("address",),
    "entrance fee": ("entrance", "fee", "admission"), "price": ("price", "cost", "ticket"), "duration": ("duration",),
    "stars": ("star", "stars"), "internet": ("wifi", "internet"), "parking": ("parking",), "area": ("area",),
    "food": ("food", "cuisine"), "type": ("type", "kind"), "pricerange": ("price",), "reference": ("reference",),
}  # fmt: skip


@dataclass
class _Said:
    """What a message says about one entity."""

    entity: Entity
    fresh: bool
    claims: dict[str, str | None] = field(default_factory=dict)


def read_agent(
    text: str, *, world: World, vocabulary: Vocabulary, belief: BeliefState, deeds: Sequence[AgentAct] = ()
) -> tuple[AgentAct, ...]:
    """Read an agent's message as the acts that its user and the tracker may go by.

    Parameters
    ----------
    text
        The message: any string; characters beyond the 2000th are not read.
    world, vocabulary
        What can be named.
    belief
        The conversation before this message: what is on offer, what was asked.
    deeds
        Bookings since the user's last words, by the agent's tools, whether they succeeded or not.

    Returns
    -------
    tuple of AgentAct
        Bookings, refusals, offers and answers, then questions; empty for a message that does none of that.
    """
    return _Message(text, world, vocabulary, belief, deeds).acts()


class _Message:
    def __init__(
        self, text: str, world: World, vocabulary: Vocabulary, belief: BeliefState, deeds: Sequence[AgentAct]
    ) -> None:
        self.text = _MARKDOWN.sub(" ", text[:MAX_CHARS])
        self.world, self.vocabulary, self.belief = world, vocabulary, belief
        self.made = [deed for deed in deeds if deed.reference is not None]
        self.failed = [deed for deed in deeds if deed.reference is None]
        self.said: dict[str, _Said] = {}
        self.refused: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.told_failures: list[AgentAct] = []
        self.more = False
        self.about: Entity | None = self._on_the_table()

    def _on_the_table(self) -> Entity | None:
        if self.made:
            return self.world.find(self.made[-1].domain or "", self.made[-1].entity or "")
        domain = self.belief.domain
        if domain is None or domain not in self.world.domains or domain not in self.belief.offered:
            return None
        return self.world.find(domain, self.belief.offered[domain])

    def acts(self) -> tuple[AgentAct, ...]:
        for sentence in _SENTENCE_END.split(self.text):
            tokens = tokenize(sentence)
            if tokens:
                self._read(sentence, tokens)
        made = [self._made(deed) for deed in self.made]
        refusals = [AgentAct("no_offer", domain) for domain in self.refused]
        spoken = [
            AgentAct("offer" if said.fresh else "inform_requested", domain, entity=said.entity.name, claims=said.claims)
            for domain, said in self.said.items()
            if said.fresh or said.claims
        ]
        questions = [AgentAct("request", domain, slot) for domain, slot in dict.fromkeys(self.asked)]
        acts = (*made, *self.told_failures, *refusals, *spoken, *questions)
        return acts or ((AgentAct("req_more"),) if self.more else ())

    def _made(self, deed: AgentAct) -> AgentAct:
        """A booking, with what else the message says about the entity."""
        said = self.said.get(deed.domain or "")
        claims = said.claims if said is not None and said.entity.name == deed.entity else {}
        if claims:
            del self.said[deed.domain or ""]
        others = {slot: value for slot, value in claims.items() if slot != "reference"}
        return replace(deed, claims=others, silent=(deed.reference or "") not in self.text)

    def _read(self, sentence: str, tokens: list[str]) -> None:
        norm = " ".join(tokens)
        question = sentence.rstrip().endswith("?")
        named = list(self._named(sentence, tokens))
        failures = [deed for deed in self.failed if deed not in self.told_failures]
        if failures and _FAILED.search(norm):
            self.told_failures += failures
            return
        if not named and not question and _REFUSAL.search(norm):
            domain = self._domain(tokens)
            # "Nothing else" refuses nothing, nor does what follows an offer.
            if domain and domain not in (*self.refused, *self.said) and not _OTHER.search(norm):
                self.refused.append(domain)
            return
        if question:
            self.more = self.more or _MORE.search(norm) is not None
            self._read_question(norm, tokens)
        if named:
            self.about = named[0]
        if self.about is None or (question and not named):
            return
        said = self._speak_of(self.about)
        if said is None:
            return
        for slot, value in self._claims(sentence, norm, self.about, named=bool(named)):
            if slot not in said.claims or value != self._truth(self.about, slot):
                said.claims[slot] = value

    # ........................................................................................................ entities

    def _named(self, sentence: str, tokens: list[str]) -> Iterator[Entity]:
        """The entities that a sentence names by their full names, in order."""
        for match in _TRAIN_ID.finditer(sentence):
            train = self.world.find("train", match[1].upper() + match[2]) if "train" in self.world.domains else None
            if train is not None:
                yield train
        i = 0
        while i < len(tokens):
            length = 1
            for words, senses in self.vocabulary.phrases.get(tokens[i], ()):
                # A shortened name stands for the entity on offer only.
                offered = self.belief.offered.values()
                names = [s for s in senses if s.kind == "name" and (s.exact or s.value in offered)]
                if not names or tuple(tokens[i : i + len(words)]) != words:
                    continue
                entity = self._entity_of(names, sentence, words)
                if entity is not None:
                    yield entity
                length = len(words)
                break
            i += length

    def _entity_of(self, names: Sequence[Sense], sentence: str, words: tuple[str, ...]) -> Entity | None:
        places = [self.world.find(domain, sense.value) for sense in names for domain in sense.domains]
        found = [place for place in places if place is not None]
        # A name of everyday words ("the place") counts where it is written as a name.
        if not found or (is_plain(words) and not re.search(rf"\b{re.escape(words[-1].capitalize())}", sentence)):
            return None
        return next((entity for entity in found if entity.domain == self.belief.domain), found[0])

    def _speak_of(self, entity: Entity) -> _Said | None:
        """Where claims about an entity are noted; None for a second entity of a domain that was not on offer."""
        said = self.said.get(entity.domain)
        if said is None:
            booked = any(deed.domain == entity.domain and deed.entity == entity.name for deed in self.made)
            fresh = not booked and self.belief.offered.get(entity.domain) != entity.name
            said = self.said[entity.domain] = _Said(entity, fresh)
        return said if said.entity == entity else None

    def _domain(self, tokens: list[str]) -> str | None:
        """The domain that a sentence without a name speaks of."""
        named = [_DOMAIN_OF[token] for token in tokens if token in _DOMAIN_OF]
        domain = named[0] if named else self.belief.domain
        return domain if domain in self.world.domains else None

    # .......................................................................................................... claims

    def _truth(self, entity: Entity, slot: str) -> str | None:
        if slot == "reference":
            return next(
                (d.reference for d in self.made if d.entity == entity.name), self.belief.booked.get(entity.domain)
            )
        return entity.attributes.get(slot)

    def _claims(self, sentence: str, norm: str, entity: Entity, *, named: bool) -> list[tuple[str, str | None]]:
        """What a sentence states about an entity, as (slot, value); None as a value: that the agent does not know."""
        pending = {slot for domain, slot in self.belief.pending if domain == entity.domain}
        claims = list(self._stated(sentence, norm, entity, pending, named=named))
        if _UNKNOWN.search(norm):
            open_questions = pending - {slot for slot, _ in claims}
            tokens = set(norm.split())
            meant = {slot for slot in open_questions if tokens & set(_SLOT_WORDS.get(slot, (slot.lower(),)))}
            claims += [(slot, None) for slot in meant or (open_questions if len(pending) == 1 else ())]
        return claims

    def _stated(
        self, sentence: str, norm: str, entity: Entity, pending: set[str], *, named: bool
    ) -> Iterator[tuple[str, str | None]]:
        yield from self._identifiers(sentence, entity, pending)
        if _ECHO.search(norm) and not named:
            return
        yield from self._answers(norm.split(), entity, pending)
        context = Context(domain=entity.domain, offered=entity.name)
        for act in understand(sentence, self.vocabulary, context):
            if act.kind != "inform" or act.domain != entity.domain or act.slot in (None, "name") or act.value is None:
                continue
            if act.slot not in (*INFORMABLE[entity.domain], *REQUESTABLE[entity.domain]) or act.value == "dontcare":
                continue
            assert act.slot is not None
            if entity.domain == "train" and act.slot in ("leaveAt", "arriveBy"):
                continue  # Both are read by their clock times above.
            # Only what is said of a name, or what was asked for, is held against the agent.
            if act.value == entity.attributes.get(act.slot) or named or act.slot in pending:
                yield act.slot, act.value

    def _answers(self, tokens: list[str], entity: Entity, pending: set[str]) -> Iterator[tuple[str, str | None]]:
        """What a sentence says to the question for a type, a cuisine, an area or a price range."""
        if "type" in REQUESTABLE[entity.domain]:
            yield from self._types(" ".join(tokens), entity, pending)
        for slot in pending & {"food", "area", "pricerange"}:
            found = [
                sense.value
                for i, token in enumerate(tokens)
                for words, senses in self.vocabulary.phrases.get(token, ())
                if tuple(tokens[i : i + len(words)]) == words
                for sense in senses
                if sense.kind == "value" and sense.slot == slot and entity.domain in sense.domains
            ]
            if found:
                truth = entity.attributes.get(slot)
                yield slot, _one(found, truth or "", truth)

    def _types(self, norm: str, entity: Entity, pending: set[str]) -> Iterator[tuple[str, str | None]]:
        """What kind of place a sentence says it is: "hotel" and "park" are nouns as well, so they need "a" in front."""
        norm = norm.replace(" ".join(tokenize(entity.name)), "it")
        truth = entity.attributes.get("type")
        for value in self.world.values(entity.domain, "type"):
            if re.search(rf"\b(?:type is|an?) (?:\w+ ){{0,4}}{re.escape(value)}\b", norm):
                if value == truth or "type" in pending:
                    yield "type", value

    def _identifiers(self, sentence: str, entity: Entity, pending: set[str]) -> Iterator[tuple[str, str | None]]:
        attributes = entity.attributes
        for pattern, slot, form in (
            (_PHONE, "phone", lambda m: re.sub(r"\D", "", m[0])),
            (_POSTCODE, "postcode", lambda m: (m[1] + m[2]).lower()),
        ):
            found = [form(match) for match in pattern.finditer(sentence)]
            if found and slot in REQUESTABLE[entity.domain]:
                yield slot, _one(found, attributes.get(slot, "").replace(" ", ""), attributes.get(slot))
        if "address" in attributes and " ".join(tokenize(attributes["address"])) in " ".join(tokenize(sentence)):
            yield "address", attributes["address"]
        fee = "price" if entity.domain == "train" else "entrance fee"
        amounts = [match[1] or match[2] for match in _MONEY.finditer(sentence)]
        amounts += ["free"] if re.search(r"\bfree\b", sentence, re.IGNORECASE) and fee in pending else []
        if amounts and fee in REQUESTABLE[entity.domain]:
            yield fee, _one(amounts, attributes.get(fee, "").split(" ")[0], attributes.get(fee))
        if entity.domain == "train":
            yield from self._journey(sentence, entity)
        yield from self._references(sentence, entity)

    @staticmethod
    def _journey(sentence: str, train: Entity) -> Iterator[tuple[str, str | None]]:
        clocks = [f"{int(h):02d}:{m}" for h, m in re.findall(r"\b(\d{1,2})[:.](\d{2})\b", sentence)]
        known = {slot: train.attributes[slot] for slot in ("leaveAt", "arriveBy") if slot in train.attributes}
        for slot, truth in known.items():
            if truth in clocks:
                yield slot, truth
        wrong = [time for time in clocks if time not in known.values()]
        if _TRAIN_ID.search(sentence) and wrong and not _MONEY.search(sentence):
            yield "leaveAt", wrong[0]
        lengths = _MINUTES.findall(sentence)
        if lengths:
            truth = train.attributes.get("duration", "")
            yield "duration", _one(lengths, truth.split(" ")[0], truth)
        if _TRAIN_ID.search(sentence) and train.name in re.sub(r"(?i)(tr) (\d)", r"\1\2", sentence).upper():
            yield "trainID", train.name

    def _references(self, sentence: str, entity: Entity) -> Iterator[tuple[str, str | None]]:
        truth = self._truth(entity, "reference")
        if truth is not None and truth in sentence:
            yield "reference", truth
        claimed = _REFERENCE.search(sentence)
        known = {*self.belief.booked.values(), *(deed.reference for deed in self.made)}
        if claimed is not None and claimed[1] not in known and any(c.isdigit() for c in claimed[1]):
            yield "reference", claimed[1]
        elif truth is None and _BOOKED.search(" ".join(tokenize(sentence))) and not sentence.rstrip().endswith("?"):
            yield "reference", "none, but said to be booked"

    # ....................................................................................................... questions

    def _read_question(self, norm: str, tokens: list[str]) -> None:
        spoken_of = self._domain(tokens)
        taken: set[str] = set()
        for slot, pattern, domains in _QUESTIONS:
            raised = [domain for domain in domains if domain in self.belief.raised]
            domain = spoken_of if spoken_of in domains or taken or len(raised) != 1 else raised[0]
            if domain not in domains or not pattern.search(norm) or not taken.isdisjoint(_EXCLUSIVE.get(slot, ())):
                continue
            assert domain is not None
            taken.add(slot)
            self.asked.append((domain, slot))


# A question for the first is none for the others.
_EXCLUSIVE: Mapping[str, tuple[str, ...]] = {
    "leaveAt": ("arriveBy",),
    "departure": ("leaveAt", "arriveBy"),
    "destination": ("leaveAt", "arriveBy"),
    "day": ("time", "leaveAt", "arriveBy"),
}


def _one(found: Iterable[str], truth: str, value: str | None) -> str | None:
    """The value that stands in the text: the true one where nothing else does, else one that is false."""
    wrong = [each for each in found if each != truth]
    return wrong[0] if wrong else value
