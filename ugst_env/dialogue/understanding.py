"""Rules that read free English user text as dialogue acts. No model is called: a turn costs 50 to 100 microseconds.

How a text is read
------------------
1. `tokenize` brings it to a normal form, in which the world's `Vocabulary` is looked up, longest phrase first. What is
   left over is compared with the open classes (foods, stations, names) allowing for a misspelling.
2. Times, party sizes, nights and stars are read by small patterns.
3. What was found becomes acts, clause by clause. A value that several domains have belongs to the domain whose noun is
   nearest in the sentence, else to the domain of the sentence before, else to `Context.requested`, else to
   `Context.domain`.

Decisions
---------
* A yes/no question about an attribute ("is it cheap?", "do they have parking?") asks for it (``request``). "Is there a
  cheap one", "do you have" and "are there any" state a wish (``inform``), as does a question about what cannot be asked
  for (a day, a party).
* "I don't need wifi", "no parking needed": `DONTCARE` for that slot; "without wifi", and a bare "no" to the question
  for it: the value "no"; "not expensive", "anything but indian", "outside the centre": ``negate``.
* "a hotel" names the domain; the value ``type=hotel`` needs to be marked ("hotel type", "it should be a hotel", "a
  hotel, not a guesthouse", the answer to a question for the type, or a bare "I want a hotel" when hotels are spoken of
  already), since most people use the word for any place to stay. The act that only raises the domain then holds the
  word "hotel" as its value.
* A time without am or pm: "9:45" is read on the 24-hour clock (for a table from 8:00 on, "7:30" is the evening). A bare
  hour, or a time in words, is in the afternoon from 1 to 6, for a table also from 7 to 9. "The 15:24 train" picks an
  offer and informs of nothing; so does what the agent is quoted with ("you said it was in the north").
* "That's all" ends the talk (``bye``) unless a wish or a question follows it; "thank you" alone does not.
* A misspelling is allowed in foods, stations and names only.
* Whatever is said of a taxi, a bus or the police belongs to no domain and is left out.

What is lost: values that are only implied ("same day", "same price range", "the first one"), values that neither the
tables nor the list of cuisines have (an unknown name), sarcasm, and names made of everyday words ("The Place") unless
"called" introduces them or they were just offered.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from rapidfuzz import fuzz
from rapidfuzz.distance import OSA

from ugst_env.dialogue import patterns
from ugst_env.dialogue.acts import DONTCARE, UserAct
from ugst_env.dialogue.vocabulary import (
    ELSEWHERE,
    FOOD_ONLY_WITH_NOUN,
    MAX_CHARS,
    Sense,
    Vocabulary,
    is_plain,
    tokenize,
)
from ugst_env.world.ontology import BOOKABLE, INFORMABLE, REQUESTABLE

__all__ = ["Context", "Vocabulary", "understand"]


class Context(NamedTuple):
    """What the agent's last turn makes the user's words mean.

    Parameters
    ----------
    domain
        The domain that the talk is in, None at the start.
    requested
        ``(domain, slot)`` that the agent just asked for.
    offered
        The entity that the agent just offered or spoke of.
    """

    domain: str | None = None
    requested: tuple[str, str] | None = None
    offered: str | None = None


class _Mention(NamedTuple):
    """A stretch of the text (character offsets) and what it may mean."""

    start: int
    end: int
    kind: str
    slot: str
    value: str
    domains: tuple[str, ...]


class _Anchor(NamedTuple):
    """A sign of a domain at a place of the text; `strong` for a noun that names it."""

    start: int
    domain: str
    strong: bool


# Nobody says more in a turn; a bound on the work that a hostile text can cause.
_MAX_MENTIONS = 64
_DOMAINS = tuple(INFORMABLE)
_HAVING = {
    slot: tuple(d for d in _DOMAINS if slot in INFORMABLE[d] or slot in BOOKABLE[d])
    for slot in {s for d in _DOMAINS for s in (*INFORMABLE[d], *BOOKABLE[d])}
}

_START, _PLACE = itemgetter(0), itemgetter(0, 1)

# Slots that only the agent can know: to name one is to ask for it.
_NEVER_INFORMED = frozenset({"phone", "address", "postcode", "entrance fee", "reference", "trainID", "duration"})


# ------------------------------------------------------------------------------------------------------------ reading


def understand(text: str, vocabulary: Vocabulary, context: Context) -> tuple[UserAct, ...]:
    """Read a user utterance as dialogue acts.

    Parameters
    ----------
    text
        What the user said: any string; characters beyond the 2000th are not read.
    vocabulary
        The words of the world, ``Vocabulary.from_world(world)``.
    context
        What the agent just did, which gives "four" or "any" their meaning.

    Returns
    -------
    tuple of UserAct
        In the order: greeting, affirm or deny, informs and negations as they were said, requests, booking, thanks,
        goodbye. Each act occurs once. Empty for a text that says nothing known.
    """
    text = text[:MAX_CHARS]
    offered = None if context.offered is None else context.offered.lower()
    if offered is not None and offered not in _names_if_offered(text, vocabulary):
        offered = None
    return _read(text, vocabulary, offered, context.domain, context.requested)


# A user who chooses among wordings, and all who judge the chosen one afterwards, read the same text, and some come
# again and again; so what does not matter is left out of the key. A scan is large, and a text that is read once more
# with another context is so at once: of scans few are kept.
@lru_cache(maxsize=2048)
def _read(
    text: str, vocabulary: Vocabulary, offered: str | None, domain: str | None, requested: tuple[str, str] | None
) -> tuple[UserAct, ...]:
    return _Reading(_scan(text, vocabulary, offered), Context(domain, requested)).acts()


@lru_cache(maxsize=2048)
def _names_if_offered(text: str, vocabulary: Vocabulary) -> frozenset[str]:
    return frozenset(_scan(text, vocabulary, None).if_offered)


@lru_cache(maxsize=256)
def _scan(text: str, vocabulary: Vocabulary, offered: str | None) -> _Scan:
    return _Scan(text, vocabulary, offered)


class _Scan:
    """The normal form of an utterance, and what was found in it by the words alone.

    `offered` is the name on offer, in lower case, if that makes a difference: if it is one of the names `if_offered`,
    made of everyday words, that the utterance without it does not hold.
    """

    def __init__(self, text: str, vocabulary: Vocabulary, offered: str | None) -> None:
        self.vocabulary, self.offered = vocabulary, offered
        self.tokens = tuple(tokenize(text))
        self.norm = " ".join(self.tokens)
        self.offsets: list[int] = []
        at = signs = 0
        for token in self.tokens:
            self.offsets.append(at)
            at += len(token) + 1
            signs |= patterns.SIGNS.get(token, 0)
        self.signs = signs
        # Most utterances hold no number, and a third of all patterns look for one.
        self.numbers = bool(signs & patterns.ONE) or patterns.DIGIT.search(self.norm) is not None
        self.sentences = _spans(self.norm, patterns.SENTENCE_END)
        self.segment_end = patterns.SEGMENT_END if signs & patterns.BUT else patterns.SEGMENT_MARK
        marked = signs & (patterns.COMMA | patterns.BUT)
        self.segments = _spans(self.norm, self.segment_end) if marked else self.sentences
        self.mentions: list[_Mention] = []
        self.anchors: list[_Anchor] = []
        self.claimed: list[tuple[int, int]] = []
        self.if_offered: set[str] = set()
        self._look_up()
        self._find_times()

    def _look_up(self) -> None:
        i, tokens, phrases = 0, self.tokens, self.vocabulary.phrases
        while i < len(tokens):
            length = 0
            # Many phrases begin with "the"; the next word tells nearly all of them apart.
            following = tokens[i + 1] if i + 1 < len(tokens) else ""
            for words, senses in phrases.get(tokens[i], ()):
                n = len(words)
                if n > 1 and (words[1] != following or tokens[i : i + n] != words):
                    continue
                if self._accept(i, n, senses):
                    length = n
                    break
            if not length and len(tokens[i]) >= 5 and tokens[i] not in self.vocabulary.known and tokens[i].isalpha():
                length = self._misspelt(i)
            i += length or 1

    def _accept(self, i: int, n: int, senses: tuple[Sense, ...]) -> bool:
        """Note what the `n` tokens from `i` mean, unless they form a name by mere chance."""
        start = self.offsets[i]
        end = self.offsets[i + n - 1] + len(self.tokens[i + n - 1])
        taken = False
        for sense in senses:
            if sense.kind == "name":
                plain = is_plain(self.tokens[i : i + n])
                called = patterns.CALLED.search(self.norm, max(0, start - 30), start) is not None
                if plain and not called and not (n > 1 and self.offered == sense.value.lower()):
                    if n > 1:
                        self.if_offered.add(sense.value.lower())
                    continue
            if sense.kind in ("domain", "hint"):
                domain = sense.domains[0]
                reference = sense.kind == "domain" and patterns.REFERENCE_NOUN.search(
                    self.norm, max(0, start - 30), start
                )
                if not reference or domain == ELSEWHERE:
                    self.anchors.append(_Anchor(start, domain, sense.kind == "domain"))
                else:
                    continue
            else:
                self.mentions.append(_Mention(start, end, sense.kind, sense.slot, sense.value, sense.domains))
                if sense.kind in ("name", "value") and len(sense.domains) == 1:
                    self.anchors.append(
                        _Anchor(start, sense.domains[0], sense.kind == "name" or sense.slot in ("food", "type"))
                    )
                elif sense.kind == "slot" and sense.slot in ("internet", "parking", "stars", "trainID", "entrance fee"):
                    self.anchors.append(_Anchor(start, sense.domains[0], False))
                if sense.kind in ("name", "place"):
                    self.claimed.append((start, end))
            taken = True
        return taken

    def _misspelt(self, i: int) -> int:
        """Take token `i`, alone or with its neighbours, for a misspelt food, station or name.

        Returns how many tokens from `i` on are dealt with.
        """
        found = _nearest_names(self.tokens[i], self.vocabulary)
        for name, sense in found:
            n = name.count(" ") + 1
            for first in range(max(0, i - n + 1), i + 1):
                window = self.tokens[first : first + n]
                if len(window) == n and n > 1 and fuzz.ratio(" ".join(window), name) >= 90:
                    if any(s <= self.offsets[first] < e for s, e in self.claimed):
                        continue
                    self._accept(first, n, (sense,))
                    return first + n - i
        word = _nearest_word(self.tokens[i], self.vocabulary)
        if word is None:
            return 0
        for words, senses in self.vocabulary.phrases.get(word, ()):
            if words == (word,):
                return 1 if self._accept(i, 1, senses) else 0
        return 0

    def _find_times(self) -> None:
        if not self.numbers and "noon" not in self.norm and "mid" not in self.norm:
            return
        for match in patterns.TIME.finditer(self.norm):
            if _free(self.claimed, match.start(), match.end()):
                clock = _clock(match)
                if clock:
                    self.claimed.append((match.start(), match.end()))
                    self.mentions.append(
                        _Mention(match.start(), match.end(), "time", "time", clock, ("restaurant", "train"))
                    )


class _Reading:
    """One utterance while it is read: what was scanned, and what it turns out to mean."""

    def __init__(self, scan: _Scan, context: Context) -> None:
        if context.requested is not None and context.requested[0] not in _DOMAINS:
            context = context._replace(requested=None)
        self.context = context
        self.tokens, self.norm, self.signs, self.numbers = scan.tokens, scan.norm, scan.signs, scan.numbers
        self.sentences, self.segments, self.segment_end = scan.sentences, scan.segments, scan.segment_end
        self.mentions, self.anchors, self.claimed = [*scan.mentions], [*scan.anchors], [*scan.claimed]
        self.informs: list[tuple[int, UserAct]] = []
        self.requests: list[tuple[int, UserAct]] = []

    def acts(self) -> tuple[UserAct, ...]:
        if not self.tokens:
            return ()
        self._find_numbers()
        self._leave_out_offers()
        self.mentions = sorted(self.mentions, key=_PLACE)[:_MAX_MENTIONS]
        self.anchors = sorted(self.anchors, key=_START)[:_MAX_MENTIONS]
        self._read_values()
        self._read_dontcare()
        self._read_short_answer()
        self._read_requests()
        informs = self._corrected()
        book = self._read_booking()
        raised = self._read_domains(informs)
        acts: list[UserAct] = []
        if patterns.GREET.match(self.norm):
            acts.append(UserAct("greet"))
        acts.extend(self._read_answers())
        acts += [act for _, act in sorted([*informs, *raised], key=_START)]
        acts += [act for _, act in sorted(self.requests, key=_START)]
        acts.extend(book)
        if self.signs & patterns.THANKS:
            acts.append(UserAct("thank"))
        if self._says_bye(informs, book):
            acts.append(UserAct("bye"))
        return tuple(dict.fromkeys(acts) if len(acts) > 1 else acts)

    def _leave_out_offers(self) -> None:
        """Forget what stands in a sentence with which the user plays the clerk: it asks for nothing."""
        if not self.signs & patterns.AS_CLERK_WORDS:
            return
        spans = [span for span in self.sentences if patterns.AS_CLERK.search(self.norm, *span)]
        if spans:
            self.mentions = [m for m in self.mentions if not any(start <= m.start < end for start, end in spans)]
            self.anchors = [a for a in self.anchors if not any(start <= a.start < end for start, end in spans)]

    def _find_numbers(self) -> None:
        if not self.numbers and not self.signs & (patterns.ONE_PERSON_WORDS | patterns.TWO_PEOPLE_WORDS):
            return

        def note(match: re.Match[str], slot: str, value: str, domains: tuple[str, ...]) -> None:
            if _free(self.claimed, match.start(), match.end()):
                self.claimed.append((match.start(), match.end()))
                self.mentions.append(_Mention(match.start(), match.end(), "value", slot, value, domains))
                if len(domains) == 1:
                    self.anchors.append(_Anchor(match.start(), domains[0], False))

        booked = ("hotel", "restaurant", "train")
        if self.numbers:
            self._find_amounts(note, booked)
        if self.signs & patterns.ONE_PERSON_WORDS:
            for match in patterns.ONE_PERSON.finditer(self.norm):
                if "travel" in match[0]:
                    # "I'm travelling alone" is no sign of a train.
                    self.anchors = [a for a in self.anchors if not match.start() <= a.start < match.end()]
                note(match, "people", "1", booked)
        if self.signs & patterns.TWO_PEOPLE_WORDS:
            for match in patterns.TWO_PEOPLE.finditer(self.norm):
                if not any(m.slot == "people" for m in self.mentions):
                    note(match, "people", "2", booked)

    def _find_amounts(
        self, note: Callable[[re.Match[str], str, str, tuple[str, ...]], None], booked: tuple[str, ...]
    ) -> None:
        for pattern in patterns.STARS if self.signs & patterns.STARS_WORDS else ():
            for match in pattern.finditer(self.norm):
                note(match, "stars", _number(match[1]), ("hotel",))
        for pattern in patterns.STAY if self.signs & patterns.STAY_WORDS else ():
            for match in pattern.finditer(self.norm):
                note(match, "stay", _number(match[1]), ("hotel",))
        for match in (
            patterns.ADULTS_AND_CHILDREN.finditer(self.norm) if self.signs & patterns.ADULTS_AND_CHILDREN_WORDS else ()
        ):
            note(match, "people", str(int(_number(match[1])) + int(_number(match[2]))), booked)
        for sign, pattern in patterns.PEOPLE:
            for match in pattern.finditer(self.norm) if self.signs & sign else ():
                if match[1] == "one" and not re.search(
                    r"person|guest|ticket|seat|of one|for (?:just |only )?one$", match[0]
                ):
                    continue
                bare = match[0].removeprefix("for ").isdecimal() or match[0] == "for one"
                if bare and self.context.requested and self.context.requested[1] in ("stay", "stars"):
                    continue  # "For 3", to the question for how many nights.
                note(match, "people", _number(match[1]), booked)

    # ................................................................................................ resolving domains

    def _resolve(self, at: int, candidates: tuple[str, ...], slot: str) -> str | None:
        """The domain that something said at offset `at` belongs to."""
        for spans in (self.segments, self.sentences):
            start, end = _span(spans, at)
            near = [a for a in self.anchors if start <= a.start < end]
            fitting = [a for a in near if a.domain in candidates or a.domain == ELSEWHERE]
            if fitting:
                best = fitting[0]
                if len(fitting) > 1:
                    best = min(fitting, key=lambda a: (self._distance(a.start, at), a.start))
                return None if best.domain == ELSEWHERE else best.domain
            if near and spans is self.segments and len(candidates) > 1:
                other = next((a.domain for a in near if a.strong), None)
                if other is not None and slot in ("area", "pricerange", "type", "day", "people"):
                    # It is none of the candidates, or it would have fitted.
                    return None
        start, _ = _span(self.sentences, at)
        for anchor in reversed(self.anchors):
            if anchor.start < start and anchor.domain in candidates:
                return anchor.domain
            if anchor.start < start and anchor.domain == ELSEWHERE:
                return None
        requested = self.context.requested
        if requested and requested[0] in candidates and (requested[1] == slot or len(candidates) == 1):
            return requested[0]
        if self.context.domain in candidates:
            return self.context.domain
        if requested and requested[0] in candidates:
            return requested[0]
        later = [a.domain for a in self.anchors if a.start > at and a.domain in candidates]
        if later and self.context.domain is None:
            return later[0]
        return candidates[0] if len(candidates) == 1 else None

    def _distance(self, one: int, other: int) -> int:
        low, high = min(one, other), max(one, other)
        return high - low + 40 * self.norm.count(" and ", low, high)

    # ........................................................................................................... values

    def _read_values(self) -> None:
        for mention in self.mentions:
            if mention.kind == "value":
                self._read_value(mention)
            elif mention.kind == "place":
                self._read_place(mention)
            elif mention.kind == "time":
                self._read_time(mention)
            elif mention.kind == "name":
                self._inform(mention.start, mention.domains[0], "name", mention.value)
            elif mention.slot in ("internet", "parking"):
                self._read_facility(mention)
        if "hotel" in self.norm and self.context.requested != ("hotel", "type"):
            match = patterns.HOTEL_TYPE.search(self.norm)
            if match is None and "guest" not in self.norm:
                match = patterns.A_HOTEL.search(self.norm)
                if match and self.context.domain != "hotel" and not self._hotels_before(match.start()):
                    match = None
            if match and not ("type" in match[0] and patterns.ASKS_TYPE.search(self.norm, 0, match.start())):
                self._inform(match.start(), "hotel", "type", "hotel")

    def _hotels_before(self, at: int) -> bool:
        """Whether the text spoke of places to stay in an earlier sentence than the one at offset `at`."""
        return any(a.strong and a.domain == "hotel" and a.start < at for a in self.anchors)

    def _inform(self, at: int, domain: str, slot: str, value: str) -> None:
        if self.signs & patterns.YOU_SAID_WORDS and patterns.YOU_SAID.search(
            self.norm, _span(self.segments, at)[0], at
        ):
            return
        if slot in ("people", "stay") and value == "0":
            return  # Nobody books for nobody: whoever says so has told nothing.
        kind = "negate" if self._negated(at, slot) else "inform"
        soft = kind == "inform" and self._soft(at)
        self.informs.append((at, UserAct(kind, domain, slot, value, soft)))

    def _read_value(self, mention: _Mention) -> None:
        if mention.slot == "food" and mention.value in FOOD_ONLY_WITH_NOUN and not self._beside_food(mention):
            return
        if mention.slot == "day" and self.norm[mention.start : mention.end] in ("sat", "sun", "wed", "mon"):
            return
        domain = self._resolve(mention.start, mention.domains, mention.slot)
        if domain is None:
            return
        if mention.slot in REQUESTABLE[domain] and self._is_question(mention):
            self.requests.append((mention.start, UserAct("request", domain, mention.slot)))
            return
        if mention.slot == "pricerange" and (
            patterns.HOW.search(self.norm[: mention.start]) or patterns.FANCY.match(self.norm, mention.start)
        ):
            return
        if self.norm.startswith("cheapest", mention.start) and re.search(
            r"\b(?:which|what|how)\b", self.norm[: mention.start]
        ):
            return
        if mention.value in ("vegetarian", "vegan") and re.search(
            r"\b(?:am|are|is)(?: an?)? $", self.norm[: mention.start]
        ):
            return
        if mention.slot == "pricerange" and patterns.FARE.match(self.norm, mention.end):
            return
        self._inform(mention.start, domain, mention.slot, mention.value)

    def _beside_food(self, mention: _Mention) -> bool:
        if self.context.requested == ("restaurant", "food") or self.context.domain == "restaurant":
            return True
        start, end = _span(self.sentences, mention.start)
        earlier = [a.domain for a in self.anchors if a.strong and a.start < start]
        return earlier[-1:] == ["restaurant"] or any(
            start <= a.start < end and a.domain == "restaurant" and a.start != mention.start for a in self.anchors
        )

    def _is_question(self, mention: _Mention) -> bool:
        """Whether the clause asks, of an entity that was spoken of, if it has this value ("is it cheap?")."""
        start, end = _span(self.sentences, mention.start)
        clause = self.norm[start : mention.start]
        if self.norm[end - 1 : end] != "?" and not patterns.YES_NO.match(clause.lstrip()):
            return False
        asked = list(patterns.YES_NO.finditer(clause))
        if not asked:
            return False
        last = asked[-1]
        if patterns.IS_THERE.match(last[0]) or last[0].endswith(" any"):
            return False
        if re.search(r"\b(?:i|we) (?:need|want|would)|\bthat (?:is|has|serves|are)\b", clause[last.end() :]):
            return False
        return last.start() <= 12 or bool(re.search(r"\b(?:and|but|so|ok|okay|also|if|know) $", clause[: last.start()]))

    def _read_facility(self, mention: _Mention) -> None:
        slot, before = mention.slot, self.norm[_span(self.sentences, mention.start)[0] : mention.start]
        start, end = _span(self.sentences, mention.start)
        after = self.norm[mention.end : _span(self.segments, mention.start)[1]]
        if self._resolve(mention.start, ("hotel",), slot) is None:
            return
        if patterns.NEEDLESS.match(after) or patterns.NEED_NOT.search(before):
            self.informs.append((mention.start, UserAct("inform", "hotel", slot, DONTCARE)))
            return
        if patterns.DONTCARE.search(self.norm[slice(*_span(self.segments, mention.start))]):
            return  # `_read_dontcare` sees to it.
        if patterns.WITHOUT.search(before):
            self.informs.append((mention.start, UserAct("inform", "hotel", slot, "no", self._soft(mention.start))))
            return
        # Some users may not write a question mark, so that the order of the words has to tell.
        question = self._is_question(mention) or (
            (self.norm[end - 1 : end] == "?" or patterns.IS_THERE.match(before.lstrip()) is not None)
            and patterns.IS_THERE.search(before) is not None
            and not any(start <= a.start < end and a.strong for a in self.anchors)
            and not re.search(r"\b(?:one|any|some|places?|options?|with)\b", before)
        )
        question = question or (self.norm[end - 1 : end] == "?" and patterns.ASKS_FACILITY.match(before) is not None)
        if question or re.search(r"\b(?:if|whether) (?:it|they|there|this|that|the \w+) (?:\w+ ){0,3}$", before):
            self.requests.append((mention.start, UserAct("request", "hotel", slot)))
            return
        soft = self._soft(mention.start)
        self.informs.append((mention.start, UserAct("inform", "hotel", slot, "yes", soft)))

    def _read_place(self, mention: _Mention) -> None:
        start, end = _span(self.sentences, mention.start)
        sentence = self.norm[start:end]
        before, after = self.norm[start : mention.start], self.norm[mention.end : end]
        if any(start <= a.start < end and a.domain == ELSEWHERE for a in self.anchors):
            return
        strong = {a.domain for a in self.anchors if start <= a.start < end and a.strong}
        in_train_talk = "train" in strong or (
            not strong and (self._train_goes_on(start) or bool(patterns.TRAIN_TALK.search(sentence)))
        )
        if not in_train_talk and not (not strong and len([m for m in self.mentions if m.kind == "place"]) > 1):
            if not (self.context.domain == "train" and patterns.TRAIN_TALK.search(sentence)):
                return
        slot = None
        role = patterns.PLACE_ROLE.match(after)
        asked = self.context.requested
        if asked and asked[1] in ("departure", "destination") and patterns.ANSWER.match(before):
            slot = asked[1]
        elif role:
            slot = "destination" if role["to"] else "departure"
        elif patterns.LEAVES_FOR.search(before):
            slot = "destination"
        elif patterns.FROM.search(before):
            slot = "departure"
        elif patterns.TO.search(before):
            slot = "destination"
        elif re.match(r" to \w", after) and any(
            m.kind == "place" and m.start == mention.end + 4 for m in self.mentions
        ):
            slot = "departure"
        elif re.search(r"\bbetween [^.?!;]{2,30} and $", before):
            slot = "destination"
        elif re.match(r" (?:is|will be|would be|as) (?:\w+ ){0,3}(?:departure|departing|starting|leaving)", after):
            slot = "departure"
        elif (
            re.match(r" (?:is|will be|would be|as) (?:\w+ ){0,3}(?:destination|arriv)", after)
            or re.search(r"\bdestination (?:\w+ ){0,3}$", before)
            or patterns.ARRIVE_IN.search(before)
        ):
            slot = "destination"
        elif re.search(r"\bdepart(?:ure|ing) (?:\w+ ){0,3}$", before) or patterns.FROM_FAR.search(before):
            slot = "departure"
        elif self.context.requested and self.context.requested[1] in ("departure", "destination"):
            if len(before) < 25 and not re.search(r"\bin $", before):
                slot = self.context.requested[1]
        if slot:
            self._inform(mention.start, "train", slot, mention.value)
            # The next sentence goes on about the journey, whether or not a train was named.
            insort(self.anchors, _Anchor(mention.start, "train", False), key=lambda a: a.start)

    def _train_goes_on(self, at: int) -> bool:
        """Whether the talk before offset `at` was about trains."""
        for anchor in reversed(self.anchors):
            if anchor.start < at and anchor.strong:
                return anchor.domain == "train"
        return self.context.domain == "train" or (self.context.requested or ("",))[0] == "train"

    def _read_time(self, mention: _Mention) -> None:
        domain = self._resolve(mention.start, mention.domains, "time")
        if domain is None:
            return
        start, end = _span(self.sentences, mention.start)
        clock, loose = mention.value.rstrip("?"), mention.value.endswith("?")
        if domain == "restaurant":
            if int(clock[:2]) < (10 if loose else 8) and int(clock[:2]) > 0 and "+" not in clock:
                literal = self.norm[mention.start : mention.start + 1] == "0"
                clock = clock if literal or "!" in mention.value else f"{int(clock[:2]) + 12:02d}{clock[2:]}"
            self._inform(mention.start, domain, "time", clock.rstrip("!"))
            return
        clock = clock.rstrip("!")
        previous = [m.end for m in self.mentions if m.kind == "time" and start <= m.start < mention.start]
        before = self.norm[max([start, *previous]) : mention.start]
        slot = self._time_slot(before, self.norm[mention.end : end])
        if slot:
            if loose and 1 <= int(clock[:2]) <= 6:
                clock = f"{int(clock[:2]) + 12:02d}{clock[2:]}"
            self._inform(mention.start, domain, slot, clock)

    def _time_slot(self, before: str, after: str) -> str | None:
        verbs = list(patterns.VERB_OF_TIME.finditer(before))
        real = [
            v for v in verbs if v[0] not in ("by", "before", "after", "later than", "latest", "no later", "earliest")
        ]
        preposition = re.search(
            r"\b(after|before|by|past|later than)(?: (?:about|around|approximately|roughly|at least|like))? $", before
        )
        requested = self.context.requested[1] if self.context.requested else None
        if patterns.NOT_BEFORE.search(before):
            return "leaveAt"
        if re.search(r"\b(?:not|no) later than $", before):
            return "arriveBy"
        if real:
            slot = "leaveAt" if real[-1]["leave"] else "arriveBy"
            if slot == "arriveBy" and preposition and preposition[1] in ("after", "past", "later than"):
                return None
            if slot == "leaveAt" and preposition and preposition[1] == "before":
                return None
            return slot
        if preposition:
            return "leaveAt" if preposition[1] in ("after", "past", "later than") else "arriveBy"
        if re.match(r"^ (?:or later|onwards?|or after|departure|(?:is|would be) (?:the|my|our) earliest)\b", after):
            return "leaveAt"
        if re.match(r"^ (?:or earlier|or before|at the latest|arrival|(?:is|would be) (?:the|my|our) latest)\b", after):
            return "arriveBy"
        if re.search(r"\b(?:closest|close|nearest) to $", before):
            return "arriveBy"
        if re.search(r"\b(?:the|tr\d+|that|your) (?:\w+ )?$", before) or patterns.TIME_NOUN.match(after):
            return None
        if requested in ("leaveAt", "arriveBy"):
            return requested
        if re.search(r"\b(?:at|around|about) (?:about |around )?$", before) and patterns.TRAIN_TALK.search(
            re.split(r"[,;]", before)[-1]
        ):
            return "leaveAt"
        return None

    # ............................................................................................ negation and softness

    def _negated(self, at: int, slot: str) -> bool:
        if not self.signs & patterns.NOT_WORDS:
            return False
        start, _ = _span(self.segments, at)
        before = self.norm[start:at]
        if patterns.NOT_ONLY.search(before):
            return False
        if patterns.NOT.search(before):
            return True
        # "not cheap or moderate": the second value shares the negation of the first.
        earlier = [(s, act) for s, act in self.informs if start <= s < at and act.slot == slot]
        if earlier and earlier[-1][1].kind == "negate":
            words = self.norm[earlier[-1][0] : at].split()
            return len(words) <= 4 and words[-1] in ("or", "nor")
        return False

    def _soft(self, at: int) -> bool:
        if not self.signs & patterns.SOFT_RIGHT_WORDS:
            return False
        start, end = _span(self.segments, at)
        for match in patterns.SOFT_RIGHT.finditer(self.norm, start, end):
            if match.start() < at:
                # "ideally" hedges what follows it, "if possible" what goes before, or after it where it is first.
                if not patterns.SOFT_LEFT_ONLY.match(match[0]) or match.start() - start < 12:
                    return True
            elif patterns.SOFT_LEFT_ONLY.match(match[0]) or match.end() >= end - 3:
                between = self.norm[at : match.start()]
                if not re.search(r" and | but ", between):
                    return True
        # The hedge stands apart: "in the centre, if possible, if you don't mind", "if possible, in the centre".
        first, last = _span(self.sentences, at)
        after = patterns.SOFT_AFTER.match(self.norm, end, last)
        if after is not None and not any(after.end() <= mention.start < last for mention in self.mentions):
            return True
        return patterns.SOFT_BEFORE.search(self.norm, first, start) is not None

    # ......................................................................................................... dontcare

    def _read_dontcare(self) -> None:
        if not self.signs & patterns.DONTCARE_WORDS:
            return
        for start, end in self.segments:
            clause = self.norm[start:end].strip(" .,;!?")
            found = patterns.DONTCARE.search(clause)
            alone = patterns.ANY_ALONE.match(clause)
            slots = self._slots_in(start, end)
            offer = patterns.MAKES_OFFER_QUESTION.match(clause)
            targets: list[tuple[str, str]] = []
            if found or alone:
                if slots:
                    targets = slots
                elif self.context.requested and not any(
                    start <= at < end and a.slot == self.context.requested[1] for at, a in self.informs
                ):
                    targets = [self.context.requested]
            elif not offer:
                for mention in self.mentions:
                    if (
                        start <= mention.start < end
                        and mention.kind == "slot"
                        and patterns.ANY_SLOT.search(self.norm[start : mention.start])
                    ):
                        if re.search(
                            r"\b(?:do|does|is|are|have|what|which|can|could)\b", self.norm[start : mention.start]
                        ) or (mention.slot in ("internet", "parking") and self.norm[end - 1 : end] == "?"):
                            continue
                        targets.extend(self._targets(mention))
            for domain, slot in targets:
                if not any(a.domain == domain and a.slot == slot for _, a in self.informs):
                    if slot in INFORMABLE[domain] or slot in BOOKABLE[domain]:
                        self.informs.append((start, UserAct("inform", domain, slot, DONTCARE)))

    def _slots_in(self, start: int, end: int) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for mention in self.mentions:
            if start <= mention.start < end and mention.kind == "slot":
                found.extend(self._targets(mention))
        return list(dict.fromkeys(found))

    def _targets(self, mention: _Mention) -> list[tuple[str, str]]:
        slot = mention.slot
        if slot == "price":
            slot = "pricerange"
        if slot == "time":
            domain = self._resolve(mention.start, ("restaurant", "train"), "time")
            if domain == "train":
                requested = self.context.requested
                return [requested if requested and requested[1] in ("leaveAt", "arriveBy") else ("train", "leaveAt")]
            return [("restaurant", "time")] if domain else []
        if slot not in _HAVING or slot == "name":
            return []
        domain = self._resolve(mention.start, _HAVING[slot], slot)
        return [(domain, slot)] if domain else []

    def _read_short_answer(self) -> None:
        """A bare number, time or yes/no that only the agent's question explains."""
        requested = self.context.requested
        if requested is None or any(a.domain == requested[0] and a.slot == requested[1] for _, a in self.informs):
            return
        domain, slot = requested
        first = self.norm[: self.segments[0][1]].rstrip(" .,;!?") if self.segments else ""
        if slot in ("people", "stay", "stars"):
            for start, end in self.segments:
                match = re.search(r"\b(\d{1,2}|one)\b", self.norm[start:end])
                words = self.norm[start:end].split()
                if match and len(words) <= 7 and _free(self.claimed, start + match.start(), start + match.end()):
                    self._inform(start + match.start(), domain, slot, _number(match[1]))
                    return
            if slot == "people" and re.match(r"^(?:yes )?(?:just |only )?(?:me|myself|a single)\b", first):
                self._inform(0, domain, slot, "1")
        elif slot in ("time", "leaveAt", "arriveBy"):
            match = patterns.BARE_TIME.match(first)
            if match and len(first.split()) <= 6 and _free(self.claimed, match.start(1), match.end(1)):
                hour = _number(match[1])
                clock = f"{hour[:2]}:{hour[2:]}" if len(hour) == 4 else f"{int(hour):02d}:{match[2] or '00'}"
                if int(clock[:2]) < 24:
                    late = 9 if slot == "time" else 6
                    if match[3] == "morning":
                        late = 0
                    elif match[3]:
                        late = 11
                    if len(hour) < 4 and 1 <= int(clock[:2]) <= late:
                        clock = f"{int(clock[:2]) + 12:02d}{clock[2:]}"
                    self._inform(0, domain, slot, clock)
        elif slot in ("internet", "parking"):
            hedge = re.match(r"(?:preferably|ideally|hopefully|if possible) ", first)
            answer = first[hedge.end() :] if hedge else first
            if re.match(r"(?:yes|yeah|yep|sure|please|definitely)\b", answer):
                self.informs.append((0, UserAct("inform", domain, slot, "yes", hedge is not None or self._soft(0))))
            elif hedge and re.match(r"(?:not|no)\b", answer):
                self.informs.append((0, UserAct("inform", domain, slot, "no", True)))
            elif re.search(
                r"\bnot (?:really |strictly )?(?:necessary|essential|important|needed|required)\b", self.norm
            ):
                self.informs.append((0, UserAct("inform", domain, slot, DONTCARE)))
            elif patterns.NO_ALONE.match(first):
                needless = re.search(r"\bnot (?:really )?(?:need|necessary|required|care|mind)\b", self.norm)
                self.informs.append((0, UserAct("inform", domain, slot, DONTCARE if needless else "no")))
        elif slot == "type" and domain == "hotel":
            match = re.search(r"\bhotels?\b", self.norm)
            if match and not re.search(r"\bguest", self.norm):
                self._inform(match.start(), domain, slot, "hotel")
        elif (
            patterns.NO_ALONE.match(first)
            and slot in INFORMABLE[domain]
            and slot not in ("name", "departure", "destination")
        ):
            if (
                not patterns.ALL_DONE.search(self.norm)
                and not patterns.GOODBYE.search(self.norm)
                and "book" not in self.norm
            ):
                if not any(a.domain not in (None, domain) for _, a in self.informs):
                    self.informs.append((0, UserAct("inform", domain, slot, DONTCARE)))
        elif slot == "day":
            match = re.match(r"^(?:\w+ ){0,3}(sat|sun|wed|mon)\b", first)
            if match:
                days = {"sat": "saturday", "sun": "sunday", "wed": "wednesday", "mon": "monday"}
                self._inform(0, domain, slot, days[match[1]])

    def _corrected(self) -> list[tuple[int, UserAct]]:
        """The informs, without a value that the same utterance takes back ("tuesday, sorry, wednesday")."""
        if len(self.informs) < 2 or not self.signs & patterns.CORRECTION_WORDS:
            return self.informs
        kept = []
        for at, act in self.informs:
            taken_back = any(
                other.kind == "inform"
                and (other.domain, other.slot) == (act.domain, act.slot)
                and other.value != act.value
                and (patterns.CORRECTION.search(self.norm, at, later) or patterns.CHANGE.search(self.norm, 0, at))
                for later, other in self.informs
                if later > at
            )
            if not taken_back:
                kept.append((at, act))
        self.informs = kept
        return kept

    # ......................................................................................................... requests

    def _read_requests(self) -> None:
        for mention in self.mentions:
            if mention.kind == "slot":
                self._read_slot_word(mention)
        for slot, sign, pattern in patterns.QUESTIONS if self.signs & patterns.ANY_QUESTION else ():
            for match in pattern.finditer(self.norm) if self.signs & sign else ():
                start, end = _span(self.segments, match.start())
                if not patterns.DONTCARE.search(self.norm, start, end):
                    self._ask(match.start(), slot)
        for start, end in self.segments if self.signs & patterns.ADDRESS_WORDS else ():
            if patterns.ADDRESS.search(self.norm[start:end].rstrip(" .?!,;")) and not patterns.DONTCARE.search(
                self.norm, start, end
            ):
                self._ask(start, "address")

    def _ask(self, at: int, slot: str) -> None:
        candidates = tuple(d for d in _DOMAINS if slot in REQUESTABLE[d])
        if slot == "reference":
            candidates = ("hotel", "restaurant", "train")
        if (
            slot == "entrance fee"
            and self.context.domain != "attraction"
            and not any(a.domain == "attraction" for a in self.anchors)
        ):
            return
        if slot == "price":
            candidates = ("attraction", "hotel", "restaurant", "train")
        domain = self._resolve(at, candidates, slot)
        if domain is None:
            return
        if slot == "price":
            slot = {"train": "price", "attraction": "entrance fee"}.get(domain, "pricerange")
        act = UserAct("request", domain, slot)
        if all(known != act for _, known in self.requests):
            self.requests.append((at, act))

    def _read_slot_word(self, mention: _Mention) -> None:
        slot = mention.slot
        start, end = _span(self.sentences, mention.start)
        before = self.norm[start : mention.start]
        segment_start, segment_end = _span(self.segments, mention.start)
        after = self.norm[mention.end : segment_end]
        if slot in ("internet", "parking", "day", "time", "name"):
            return
        asking = (
            patterns.ASK.search(before) is not None
            or self.norm[end - 1 : end] == "?"
            or any(m.kind == "slot" and start <= m.start < end and m.slot in _NEVER_INFORMED for m in self.mentions)
            or (before.strip() in ("", "the", "and", "and the", "also the") and after.strip(" .") in ("please", ""))
        )
        if patterns.NOT_NEEDED.search(before):
            return
        if slot in _NEVER_INFORMED and slot != "reference" and patterns.MINE.search(before):
            return
        if any(m.kind in ("name",) and m.start <= mention.start < m.end for m in self.mentions):
            return
        if slot in (
            "phone",
            "address",
            "postcode",
            "entrance fee",
            "reference",
            "trainID",
            "duration",
            "leaveAt",
            "arriveBy",
        ):
            if slot == "entrance fee" and re.search(r"\b(?:no|free|without|an?) $", before) and not asking:
                return
            if not asking and slot in ("reference", "trainID", "phone") and patterns.HAS_IT.search(before):
                return
            if slot in ("leaveAt", "arriveBy") and (
                re.match(r" (?:is|at|should|after|before|by|around|to be) ", after + " ") or not asking
            ):
                return
            self._ask(mention.start, slot)
            return
        if slot == "price" and re.search(r"\bhow much$", self.norm[mention.start : mention.end]):
            return
        # The name of a slot that can also be informed: it asks only where no value stands beside it.
        if slot in ("type", "food", "stars") and self.norm[mention.start : mention.end] in (
            "food",
            "foods",
            "stars",
            "star",
            "cuisine",
        ):
            return
        if _span(self.segments, mention.start) and self._valued(mention, slot):
            return
        if re.search(
            r"\b(?:same|that|this|different|another|other|no|any|a|an|in the|of the|in that|in this|good"
            r"|certain|particular|specific|each|some|all) (?:\w+ )?$",
            before[-25:],
        ) and not _asks_directly(before):
            return
        if patterns.DONTCARE.search(self.norm[segment_start:segment_end]):
            return
        if not asking:
            return
        if slot == "type" and not re.search(
            r"\b(?:what|which|the|its|their|attraction|hotel|type|phone|and|address|fee|postcode|area|get|have"
            r"|need|know|tell me) $|, $",
            before,
        ):
            return
        if slot == "type" and re.match(r" of (?:food|cuisine|restaurant|train|room|car)", after):
            return
        if self.norm[mention.start : mention.end] in ("kind", "kinds", "sort") and not re.match(
            r" of (?:attraction|hotel|place|thing|accommodation)", after
        ):
            return
        self._ask(mention.start, slot)

    def _valued(self, mention: _Mention, slot: str) -> bool:
        """Whether a value of the slot stands beside its name ("the moderate price range", "an area in the north")."""
        slot = "pricerange" if slot == "price" else slot
        start, end = _span(self.segments, mention.start)
        return any(
            m.kind == "value" and m.slot == slot and start <= m.start < end and abs(m.start - mention.start) < 40
            for m in self.mentions
        )

    # ......................................................................................................... the rest

    def _read_booking(self) -> list[UserAct]:
        acts = []
        for match in patterns.BOOK.finditer(self.norm) if self.signs & patterns.BOOK_WORDS else ():
            start, _ = _span(self.sentences, match.start())
            if not _free(self.claimed, match.start(), match.end()) and match["t"] is None:
                continue
            if patterns.NOT_WISH.search(self.norm[start : match.start()]):
                continue
            domain = self._resolve(match.end() - 1, ("hotel", "restaurant", "train"), "book")
            if domain:
                acts.append(UserAct("book", domain))
        return list(dict.fromkeys(acts))[:2] if len(acts) > 1 else acts

    def _read_domains(self, informs: list[tuple[int, UserAct]]) -> list[tuple[int, UserAct]]:
        spoken = {act.domain for _, act in informs if act.kind == "inform"}
        acts = []
        typed = any(act.domain == "hotel" and act.slot == "type" for _, act in informs)
        for anchor in self.anchors:
            # "A hotel in the centre" tells the area, and yet the very word for a type of place may matter.
            start, _ = _span(self.sentences, anchor.start)
            before = self.norm[start : anchor.start]
            told = anchor.domain == "hotel" and not typed and self.norm.startswith("hotel ", anchor.start)
            told = told and not re.search(r"\b(?:the|that|this|your|their|its|my|our) (?:\w+ )?$", before)
            if not anchor.strong or (anchor.domain in spoken and not told) or anchor.domain == ELSEWHERE:
                continue
            if (
                re.search(r"\b(?:the|that|this|your|their|its|my|our) (?:\w+ )?$", before)
                and anchor.domain == self.context.domain
            ):
                continue
            if patterns.DESIRE.search(before) or len(before) < 8:
                spoken.add(anchor.domain)
                noun = "hotel" if anchor.domain == "hotel" and self.norm.startswith("hotel", anchor.start) else None
                acts.append((anchor.start, UserAct("inform", anchor.domain, None, noun)))
        return acts

    def _read_answers(self) -> Iterable[UserAct]:
        if self.signs & patterns.DENY_WORDS:
            bare = self.segment_end.split(patterns.INTERJECTION.sub("", self.norm), maxsplit=1)[0].strip()
            if patterns.DENY.search(bare) or re.search(r"\bno thanks?\b", self.norm[:40]):
                return (UserAct("deny"),)
        if not self.signs & patterns.AFFIRM_WORDS:
            return ()
        for start, end in self.segments[:3]:
            clause = self.norm[start:end].rstrip(" .,;!?").lstrip()
            agreed = patterns.AFFIRM.search(clause)
            if agreed is None or re.search(r"\bnot\b", clause) or self.norm[end - 1 : end] == "?":
                continue
            if (agreed.start() == 0 and patterns.YES.match(clause)) or not (
                patterns.SOFT_RIGHT.search(clause) or patterns.DONTCARE.search(clause)
            ):
                return (UserAct("affirm"),)
        return ()

    def _says_bye(self, informs: list[tuple[int, UserAct]], book: list[UserAct]) -> bool:
        if not self.signs & (patterns.GOODBYE_WORDS | patterns.ALL_DONE_WORDS):
            return False
        last = -1
        for at, act in (*informs, *self.requests):
            if at > last and act.value != DONTCARE:
                last = at
        if self.signs & patterns.GOODBYE_WORDS and patterns.GOODBYE.search(self.norm, last + 1):
            return True
        if book or not self.signs & patterns.ALL_DONE_WORDS:
            return False
        return any(
            self.norm[_span(self.sentences, match.start())[1] - 1] != "?"
            for match in patterns.ALL_DONE.finditer(self.norm, last + 1)
        )


# -------------------------------------------------------------------------------------------------------------- helpers


def _spans(norm: str, end: re.Pattern[str]) -> tuple[tuple[int, int], ...]:
    """Cut text into stretches that include the mark that ends them."""
    spans, start = [], 0
    for match in end.finditer(norm):
        if norm[start : match.start()].strip():
            spans.append((start, match.end()))
            start = match.end()
    if norm[start:].strip():
        spans.append((start, len(norm)))
    return tuple(spans) or ((0, len(norm)),)


def _span(spans: Sequence[tuple[int, int]], at: int) -> tuple[int, int]:
    if len(spans) > 1:
        for span in spans:
            if span[0] <= at < span[1]:
                return span
    return spans[-1]


def _free(claimed: Iterable[tuple[int, int]], start: int, end: int) -> bool:
    return all(end <= s or start >= e for s, e in claimed)


def _number(word: str) -> str:
    return "1" if word == "one" else str(int(word)) if len(word) < 4 else word


def _clock(match: re.Match[str]) -> str | None:
    """The time that `patterns.TIME` matched, as HH:MM.

    ``?`` follows where morning or evening was left open, ``!`` where it was said.
    """
    groups = match.groupdict()
    if groups["noon"]:
        return "00:00!" if groups["noon"] == "midnight" else "12:00!"
    part = match.groups()[-1]
    hour_text = next(
        (groups[f"h{k}"] for k in ("1", "2", "2b", "3", "4", "5", "6", "7", "8", "9") if groups[f"h{k}"]), None
    )
    if hour_text is None:
        return None
    hour = int(_number(hour_text))
    minute = int(
        next((groups[f"m{k}"] for k in ("1", "2b", "5", "6", "7", "8") if groups[f"m{k}"]), 30 if groups["h9"] else 0)
    )
    if groups["rel"]:
        amount = {"half": 30, "quarter": 15}.get(groups["rel"]) or int(groups["rel"])
        minute = amount if groups["dir"] == "past" else 60 - amount
        hour = hour if groups["dir"] == "past" else hour - 1
    meridiem = next((groups[f"ap{k}"] for k in ("1", "2", "2b", "3", "9") if groups[f"ap{k}"]), None)
    if groups["dir"] == "to" and groups["h3"] == "12" and meridiem is not None:
        # "quarter to twelve pm" is before noon.
        meridiem = "am" if meridiem == "pm" else "pm"
    if hour > 23 or hour < 0 or minute > 59:
        return None
    said = ""
    if meridiem == "pm" or (meridiem is None and part in ("afternoon", "evening", "night", "tonight")):
        hour, said = (hour + 12 if hour < 12 else hour), "!"
    elif meridiem == "am" or part == "morning":
        hour, said = (0 if hour == 12 else hour), "!"
    elif not groups["h1"] and not groups["h6"] and not groups["h7"] and hour <= 12:
        said = "?"
    return f"{hour:02d}:{minute:02d}{said}"


def _asks_directly(before: str) -> bool:
    return bool(re.search(r"\b(?:what|which|whats)(?: is| are)?(?: the| its| their)? $", before))


@lru_cache(maxsize=4096)
def _closest(token: str, words: tuple[str, ...]) -> str | None:
    """The only word within one typing slip of `token` (two from eight letters on), if there is just one."""
    limit = 2 if len(token) >= 8 else 1
    distances = sorted((OSA.distance(token, word, score_cutoff=limit), word) for word in words)
    near = [(distance, word) for distance, word in distances if distance <= limit]
    if not near or (len(near) > 1 and near[0][0] == near[1][0]):
        return None
    return near[0][1]


def _nearest_word(token: str, vocabulary: Vocabulary) -> str | None:
    return _closest(token, vocabulary.open_words.get(token[0], ()))


def _nearest_names(token: str, vocabulary: Vocabulary) -> list[tuple[str, Sense]]:
    if token in vocabulary.names:
        return list(vocabulary.names[token])
    close = _closest(token, vocabulary.name_words.get(token[0], ()))
    return list(vocabulary.names[close]) if close else []
