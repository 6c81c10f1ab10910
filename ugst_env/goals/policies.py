"""Policies: rules of language and behaviour for the user, each of which a program can check.

A rule has a family (`Rule.kind`) and a parameter (`Rule.value`):

=================  ==========================  ===============================================================
kind               value                       the rule
=================  ==========================  ===============================================================
say_word           words                       they occur in every message that asks for or states something
ask_with           words                       they occur in every message that asks for something
open_with          words                       every message starts with them
close_with         words                       every message ends with them
sign_name          a name                      every message ends with it
address_as         words                       they occur in every message
greet_with         words                       they occur in the first message
leave_with         words                       they occur in the message that ends the conversation
never_say          words, forms split by "/"   they never occur
max_words          a number                    no message is longer
min_words          a number                    no message is shorter
max_sentences      a number                    no message has more sentences
max_things         a number                    no message states or asks for more things
withhold           a slot                      its value is told only once the agent asked for it
not_first          a slot                      its value is not told in the first message
no_mark            a punctuation mark          it never occurs
end_mark           "!", "." or "..."           every message ends with it
case               "lower" or "upper"          every letter is in that case
no_digits          "all"                       numbers and times are words
no_contractions    "all"                       "do not", never "don't"
text               anything                    a rule in plain words, which no program can check
=================  ==========================  ===============================================================

A blank message says nothing and breaks no rule.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple

from ugst_env.dialogue.acts import UserAct
from ugst_env.goal import Rule
from ugst_env.world.ontology import BOOKABLE, INFORMABLE

# The largest `Limits.max_things`: no rule limits it.
NO_LIMIT = 99


class Utterance(NamedTuple):
    """What a user said, with all that a rule may depend on.

    Parameters
    ----------
    text
        The words.
    acts
        What they say, as parsed.
    requested
        The ``(domain, slot)`` that the agent just asked for.
    first, last
        Whether it opens the conversation, and whether it ends it.
    agent_named
        Slots that the agent asked for or named earlier: they are no secret any more.
    """

    text: str
    acts: tuple[UserAct, ...]
    requested: tuple[str, str] | None
    first: bool
    last: bool
    agent_named: frozenset[str] = frozenset()


class Limits(NamedTuple):
    """What a simulator has to respect when it plans a message.

    Parameters
    ----------
    max_things
        How many things it may state or ask for (`NO_LIMIT` where no rule says).
    withheld
        Slots to tell only when asked.
    max_words
        How many words are left for the content, after those that `comply` may add for the other rules. None: no limit.
    not_first
        Slots not to tell in the first message.
    """

    max_things: int
    withheld: frozenset[str]
    max_words: int | None
    not_first: frozenset[str] = frozenset()


_SLOT_NAMES = {
    "area": "which area you want",
    "pricerange": "your price range",
    "stars": "how many stars you want",
    "type": "which type of place you want",
    "internet": "whether you need internet",
    "parking": "whether you need parking",
    "food": "what food you want",
    "name": "the name of a place",
    "people": "how many people you are",
    "day": "your day",
    "stay": "how long you stay",
    "time": "your time",
    "departure": "where you leave from",
    "destination": "where you are going",
    "leaveAt": "when you want to leave",
    "arriveBy": "when you want to arrive",
}
_SLOTS = frozenset(slot for table in (INFORMABLE, BOOKABLE) for slots in table.values() for slot in slots)

# The wording of a rule for which no text is given.
_WORDING = {
    "say_word": "Say '{}' in every message in which you ask for or state something.",
    "ask_with": "Whenever you ask for something, say '{}'.",
    "open_with": "Start every message with '{}'.",
    "close_with": "End every message with '{}'.",
    "sign_name": "Sign every message with your name, {}.",
    "address_as": "Call the assistant '{}' in every message.",
    "greet_with": "Say '{}' in your first message.",
    "leave_with": "Say '{}' in the message with which you leave.",
    "never_say": "Never say '{}'.",
    "max_words": "Never use more than {} words in a message.",
    "min_words": "Never use fewer than {} words in a message.",
    "max_sentences": "Use at most {} sentences in a message.",
    "max_things": "State or ask for at most {} things in a message.",
    "withhold": "Do not tell {} unless you are asked.",
    "not_first": "Do not tell {} in your first message.",
    "no_mark": "Never use the mark '{}'.",
    "end_mark": "End every message with '{}'.",
    "case": "Write every message in {} case.",
    "no_digits": "Write numbers and times in words, never in digits.",
    "no_contractions": "Never use contractions: say 'do not', not 'don't'.",
    "text": "{}",
}
KINDS = tuple(_WORDING)
_NUMBERS = ("max_words", "min_words", "max_sentences", "max_things")
# Families whose words `comply` adds to a message.
_PHRASES = ("say_word", "ask_with", "open_with", "close_with", "sign_name", "address_as", "greet_with", "leave_with")
# Families for which `comply` has to know what a message says: whether it wishes for something, or asks.
ABOUT_ACTS = ("say_word", "ask_with")
# Families that say how a message ends.
_ENDINGS = ("close_with", "sign_name", "end_mark")
# Families that a change of the surface can always satisfy.
SURFACE = (
    *_PHRASES, "never_say", "min_words", "max_sentences", "no_mark", "end_mark", "case", "no_digits", "no_contractions",
)  # fmt: skip


def make_rule(kind: str, value: str, text: str = "") -> Rule:
    """Make a rule, worded by its family where `text` is empty.

    Raises
    ------
    ValueError
        For an unknown kind, or a value that its family does not take.
    """
    if kind not in _WORDING:
        raise ValueError(f"the kind of a policy must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind in _NUMBERS:
        least = 4 if kind == "max_words" else 1
        if not value.isdecimal() or not value.isascii() or int(value) < least:
            raise ValueError(f"the value of a {kind} policy must be a whole number of at least {least}, got {value!r}")
    elif kind in ("withhold", "not_first"):
        if value not in _SLOTS:
            raise ValueError(f"the value of a {kind} policy must be one of {', '.join(sorted(_SLOTS))}, got {value!r}")
    elif kind == "end_mark":
        if value not in ("!", ".", "..."):
            raise ValueError(f"the value of an end_mark policy must be '!', '.' or '...', got {value!r}")
    elif kind == "case":
        if value not in ("lower", "upper"):
            raise ValueError(f"the value of a case policy must be 'lower' or 'upper', got {value!r}")
    elif kind == "no_mark":
        if len(value) != 1 or value.isalnum() or value.isspace():
            raise ValueError(f"the value of a no_mark policy must be a single punctuation mark, got {value!r}")
    elif kind in ("no_digits", "no_contractions"):
        if value != "all":
            raise ValueError(f"the value of a {kind} policy must be 'all', got {value!r}")
    elif kind != "text" and not all(any(c.isalnum() for c in form) for form in value.split("/")):
        raise ValueError(f"the value of a {kind} policy must be a word or a phrase, got {value!r}")
    shown = _SLOT_NAMES.get(value, value) if kind in ("withhold", "not_first") else value.replace("/", "' or '")
    return Rule(kind, value, text or _WORDING[kind].format(shown))


POLICIES: tuple[Rule, ...] = tuple(
    make_rule(kind, value, text)
    for kind, members in {
        "say_word": {
            "please": "Always say 'please' when you ask for or state something.",
            "kindly": "Work the word 'kindly' into everything that you ask for or state.",
            "if you would": "Soften whatever you ask for or state with 'if you would'.",
            "if you don't mind": "Say 'if you don't mind' in every message in which you ask for or state something.",
            "to be honest": "Say 'to be honest' whenever you state or ask for something.",
            "you see": "You keep saying 'you see': it is in every request and every statement that you make.",
            "basically": "Use the word 'basically' in every message with a wish or a question.",
        },
        "ask_with": {
            "may I ask": "Whenever you ask a question, use the words 'may I ask'.",
            "could you tell me": "Put 'could you tell me' into every question.",
            "I would like to know": "Say 'I would like to know' every time that you ask about something.",
            "do you happen to know": "Ask every question with 'do you happen to know'.",
        },
        "open_with": {
            "Hello there": "Begin every message with 'Hello there'.",
            "Now then": "Start each message with the words 'Now then'.",
            "Well": "Every message of yours starts with 'Well'.",
            "So": "Open all your messages with 'So'.",
            "Excuse me": "Politely begin each message with 'Excuse me'.",
            "Listen": "Always start with 'Listen'.",
        },
        "close_with": {
            "Cheers": "Finish every message with 'Cheers'.",
            "Many thanks": "Close each message with 'Many thanks'.",
            "Over": "End every message with 'Over', like a radio operator.",
            "Kind regards": "Put 'Kind regards' at the end of all messages.",
            "Much obliged": "Conclude every message with 'Much obliged'.",
        },
        "sign_name": {
            "Priya": "Your name is Priya: sign every message with it.",
            "Tomasz": "End each message with your name, Tomasz.",
            "Marguerite": "Always sign as Marguerite at the very end of a message.",
            "Obinna": "You are called Obinna, and every message ends with your name.",
            "Yuki": "Put your name, Yuki, at the end of each message.",
        },
        "address_as": {
            "sir": "Call the assistant 'sir' in every message.",
            "my friend": "Address the assistant as 'my friend' each time that you write.",
            "captain": "In every message, call the assistant 'captain'.",
            "boss": "Speak to the assistant as 'boss' in all messages.",
            "mate": "Say 'mate' to the assistant in each message.",
        },
        "greet_with": {
            "good day": "Greet the assistant with 'good day' in your first message.",
            "hi there": "Your first message contains the greeting 'hi there'.",
            "nice to meet you": "Say 'nice to meet you' when you first write.",
            "greetings": "Say 'greetings' in the message that opens the conversation.",
        },
        "leave_with": {
            "thank you": "Never leave without saying 'thank you' in your last message.",
            "take care": "When you end the conversation, say 'take care'.",
            "have a nice day": "Wish the assistant 'have a nice day' as you leave.",
            "goodbye": "Do not end the conversation without the word 'goodbye'.",
            "so long": "Take your leave with 'so long'.",
        },
        "never_say": {
            "thanks/thank": "Never thank anyone: the words 'thanks' and 'thank' are not for you.",
            "sorry": "Never say 'sorry'.",
            "okay/ok": "Avoid the word 'okay', and 'ok' as well.",
            "actually": "You never use the word 'actually'.",
            "perfect": "Do not call anything 'perfect'.",
            "really": "Keep the word 'really' out of your messages.",
            "hello/hi": "Do not say 'hello' or 'hi'.",
            "want": "Never use the word 'want'.",
            "just": "You do not use the word 'just'.",
        },
        "max_words": {
            "8": "Never use more than 8 words in a message.",
            "10": "Keep every message to ten words at most.",
            "12": "A message of yours has no more than 12 words.",
            "14": "Do not go beyond fourteen words in a single message.",
            "16": "Stay within 16 words per message.",
            "20": "No message may be longer than twenty words.",
        },
        "min_words": {
            "4": "Never write fewer than 4 words in a message.",
            "5": "Use at least five words in every message.",
            "6": "No message of yours is shorter than 6 words.",
        },
        "max_sentences": {
            "1": "Say everything in a single sentence per message.",
            "2": "Use no more than two sentences in a message.",
            "3": "At most 3 sentences per message.",
        },
        "max_things": {
            "1": "Give or ask for only one piece of information per message.",
            "2": "Never state or ask for more than two things in one message.",
            "3": "A single message states or asks for at most 3 things.",
        },
        "withhold": {
            "pricerange": "Keep your price range to yourself until you are asked for it.",
            "area": "Say which area you want only when the assistant asks.",
            "people": "Do not say for how many people it is unless you are asked.",
            "stay": "Never tell how many nights you stay before you are asked.",
            "time": "Do not give the time of a booking on your own: wait to be asked.",
            "food": "Tell what food you want only in answer to a question.",
            "stars": "Do not bring up the number of stars unless asked about it.",
        },
        "not_first": {
            "pricerange": "Do not talk about the price range in your first message.",
            "area": "Leave the area out of your first message.",
            "day": "Your first message must not tell the day.",
            "people": "Do not start with how many people you are: not in the first message.",
            "stars": "The number of stars does not belong in your first message.",
        },
        "no_mark": {
            "?": "Never use a question mark, not even for questions.",
            "!": "Do not use exclamation marks.",
            ",": "Write without any commas.",
        },
        "end_mark": {
            "!": "End every message with an exclamation mark.",
            "...": "Let every message trail off with '...'.",
            ".": "Finish each message with a full stop, questions as well.",
        },
        "case": {
            "lower": "Write in lowercase only.",
            "upper": "WRITE EVERYTHING IN CAPITALS.",
        },
        "no_digits": {"all": "Write numbers and times in words, never in digits."},
        "no_contractions": {"all": "Never use contractions: say 'do not', never 'don't'."},
    }.items()
    for value, text in members.items()
)  # fmt: skip


@lru_cache(maxsize=2048)  # One message is held against every rule and every fact.
def plain_form(text: str) -> str:
    """Fold case, quotes and spaces, none of which changes what was said."""
    if text.isascii():
        return " ".join(text.lower().replace("`", "'").split())
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    return " ".join(folded.split())


_QUOTES = str.maketrans({**dict.fromkeys("‘’‛`´", "'"), **dict.fromkeys("“”„‟", '"'), "\u200b": "", "\ufeff": ""})


@lru_cache(maxsize=1024)
def _pattern(before: str, phrase: str, behind: str) -> re.Pattern[str]:
    return re.compile(f"{before}{re.escape(plain_form(phrase))}{behind}")


@lru_cache(maxsize=1024)
def _says(text: str, phrase: str) -> bool:
    plain = plain_form(text)
    return plain_form(phrase) in plain and _pattern(r"(?<!\w)", phrase, r"(?!\w)").search(plain) is not None


@lru_cache(maxsize=1024)
def _words(text: str) -> int:
    # Most words are letters and digits throughout.
    return sum(word.isalnum() or any(c.isalnum() for c in word) for word in text.split())


# A sentence ends at a mark before a space; "st.", "a.m." and dots that trail off before a small letter do not end one.
_BREAK = re.compile(r"(?<![.!?])([.!?]+)[\"')\]]*\s+(?=\S)")
_ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "st", "rd", "no", "approx", "a.m", "p.m", "e.g", "i.e")


def _breaks(text: str) -> list[re.Match[str]]:
    found = []
    for match in _BREAK.finditer(text):
        following = text[match.end() :]
        before = text[: match.start()].split()
        trails_off = len(match[1]) > 1 and set(match[1]) == {"."} and following[0].islower()
        abbreviated = match[1] == "." and bool(before) and before[-1].lower().lstrip("(\"'") in _ABBREVIATIONS
        if before and not trails_off and not abbreviated and any(c.isalnum() for c in following):
            found.append(match)
    return found


_CONTRACTION = re.compile(
    r"\b(?:(?P<irregular>won't|can't|shan't|ain't|let's|y'all)|(?P<negated>\w+)n't"
    r"|(?P<is>it|that|what|there|here|he|she|who|where|how|when|why)'s|(?P<verb>\w+)'(?P<ending>m|re|ve|ll|d))(?!\w)",
    re.IGNORECASE,
)
_IRREGULAR = {
    "won't": "will not", "can't": "cannot", "shan't": "shall not", "ain't": "is not", "let's": "let us",
    "y'all": "you all",
}  # fmt: skip
_ENDING = {"m": "am", "re": "are", "ve": "have", "ll": "will", "d": "would"}


def _things(acts: Sequence[UserAct]) -> int:
    return len({(act.domain, act.slot) for act in acts if act.kind in ("inform", "negate", "request") and act.slot})


def _tells(acts: Sequence[UserAct], slot: str) -> bool:
    return any(act.kind in ("inform", "negate") and act.slot == slot and act.value is not None for act in acts)


def violates(rule: Rule, utterance: Utterance) -> bool:
    """Whether a user utterance breaks a rule. A rule of kind ``"text"`` cannot be checked and is never broken.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    return _violated(rule, utterance.text, utterance)


def _violated(rule: Rule, text: str, utterance: Utterance) -> bool:
    """`violates`, of other words in the situation of `utterance`."""
    if rule.kind not in _WORDING:
        raise ValueError(f"the kind of a policy must be one of {', '.join(KINDS)}, got {rule.kind!r}")
    plain = plain_form(text)
    return bool(plain) and rule.kind in _BROKEN and _BROKEN[rule.kind](rule.value, text, plain, utterance)


def _wishes(acts: Sequence[UserAct]) -> bool:
    return any(act.kind in ("inform", "negate", "request", "book") for act in acts)


def _asks(acts: Sequence[UserAct]) -> bool:
    return any(act.kind == "request" for act in acts)


def _told_unasked(value: str, utterance: Utterance) -> bool:
    asked = value in utterance.agent_named or (utterance.requested is not None and utterance.requested[1] == value)
    return not asked and _tells(utterance.acts, value)


def _ends_without(value: str, plain: str) -> bool:
    return not _pattern(r"(?<!\w)", value, r"\W*$").search(plain)


# By the kind of a rule: whether a text (also in its plain form, never empty) breaks the rule with this value.
_BROKEN: Mapping[str, Callable[[str, str, str, Utterance], bool]] = {
    "say_word": lambda value, text, plain, said: _wishes(said.acts) and not _says(text, value),
    "ask_with": lambda value, text, plain, said: _asks(said.acts) and not _says(text, value),
    "open_with": lambda value, text, plain, said: not _pattern(r"\W*", value, r"(?!\w)").match(plain),
    "close_with": lambda value, text, plain, said: _ends_without(value, plain),
    "sign_name": lambda value, text, plain, said: _ends_without(value, plain),
    "address_as": lambda value, text, plain, said: not _says(text, value),
    "greet_with": lambda value, text, plain, said: said.first and not _says(text, value),
    "leave_with": lambda value, text, plain, said: said.last and not _says(text, value),
    "never_say": lambda value, text, plain, said: any(_says(text, form) for form in value.split("/")),
    "max_words": lambda value, text, plain, said: _words(text) > int(value),
    "min_words": lambda value, text, plain, said: _words(text) < int(value),
    "max_sentences": lambda value, text, plain, said: len(_breaks(text)) >= int(value),
    "max_things": lambda value, text, plain, said: _things(said.acts) > int(value),
    "withhold": lambda value, text, plain, said: _told_unasked(value, said),
    "not_first": lambda value, text, plain, said: said.first and _tells(said.acts, value),
    "no_mark": lambda value, text, plain, said: value in unicodedata.normalize("NFKC", text),
    "end_mark": lambda value, text, plain, said: not plain.rstrip("\"')] ").endswith(value),
    "case": lambda value, text, plain, said: text != (text.lower() if value == "lower" else text.upper()),
    "no_digits": lambda value, text, plain, said: any(map(str.isdigit, text)),
    "no_contractions": lambda value, text, plain, said: _CONTRACTION.search(text.translate(_QUOTES)) is not None,
}


def comply(rule: Rule, text: str, utterance: Utterance, rng: Random) -> str:
    """Rewrite the surface of `text` so that it keeps a rule, where a change of the surface can do that (`SURFACE`).

    `utterance` says in what situation the words are said; its own text is not looked at. What the words mean stays the
    same. Text that keeps the rule already, or that only other content could mend, is returned unchanged.
    """
    if not _violated(rule, text, utterance):
        return text
    kind, value = rule.kind, rule.value
    text = text.strip()
    if kind == "say_word" and value in _FIRST_WORDS and not _YES_NO.match(text):
        return f"{value[0].upper()}{value[1:]}, {_lower_first(text)}"
    if kind == "open_with":
        return f"{value[0].upper()}{value[1:]}, {_lower_first(text)}"
    if kind in ("say_word", "address_as"):
        return _before_end(text, value)
    if kind == "ask_with":
        return _asking(text, value)
    if kind == "greet_with":
        return f"{value[0].upper()}{value[1:]}{rng.choice(('. ', '! '))}{text}"
    if kind in ("close_with", "leave_with"):
        return f"{_closed(text)} {value[0].upper()}{value[1:]}{rng.choice(('.', '!')) if kind == 'leave_with' else '.'}"
    if kind == "sign_name":
        return f"{_closed(text)} {rng.choice(('- ', ''))}{value}"
    if kind == "never_say":
        return _without(rule, text)
    if kind == "min_words":
        while _words(text) < int(value):
            text = _before_end(text, _FAREWELL if utterance.last else rng.choice(_FILLERS))
        return text
    if kind == "max_sentences":
        while len(found := _breaks(text)) >= int(value):
            text = f"{text[: found[0].start()]}, {_lower_first(text[found[0].end() :])}"
        return text
    if kind == "no_mark":
        return _without_mark(text, value)
    if kind == "end_mark":
        return _ended_with(text, value)
    if kind == "case":
        return text.lower() if value == "lower" else text.upper()
    if kind == "no_digits":
        return _in_words(text)
    if kind == "no_contractions":
        return _CONTRACTION.sub(_expanded, text.translate(_QUOTES))
    return text


# The order in which several rules change one text: what adds words first, what changes letters and marks last.
_ORDER = (
    "min_words", "ask_with", "say_word", "address_as", "leave_with", "greet_with", "open_with", "no_contractions",
    "never_say", "close_with", "sign_name", "no_digits", "case", "max_sentences", "no_mark", "end_mark",
)  # fmt: skip


def comply_all(rules: Sequence[Rule], text: str, utterance: Utterance, rng: Random) -> str:
    """Rewrite `text` so that it keeps all `rules` where changes of the surface can do that (see `comply`)."""
    for rule in _in_order(tuple(rules)) if len(rules) > 1 else rules:
        text = comply(rule, text, utterance, rng)
    return text


@lru_cache(maxsize=1024)  # A user keeps to the same rules in every turn.
def _in_order(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(sorted(rules, key=lambda rule: _ORDER.index(rule.kind) if rule.kind in _ORDER else -1))


def limits(rules: Sequence[Rule]) -> Limits:
    """What a simulator has to respect when it plans what to say, before `comply_all` sees to the surface."""
    return _limits(tuple(rules))


@lru_cache(maxsize=1024)  # A user plans every turn by the same rules.
def _limits(rules: tuple[Rule, ...]) -> Limits:
    words: int | None = None
    things = NO_LIMIT
    for rule in rules:
        if rule.kind == "max_words":
            words = min(int(rule.value), words if words is not None else NO_LIMIT)
        if rule.kind == "max_things":
            things = min(int(rule.value), things)
    if words is not None:
        words -= sum(_words(rule.value) for rule in rules if rule.kind in _PHRASES)
        things = min(things, 1 if words <= 13 else 2 if words <= 16 else 3)
    return Limits(
        max_things=things,
        withheld=frozenset(rule.value for rule in rules if rule.kind == "withhold"),
        max_words=words,
        not_first=frozenset(rule.value for rule in rules if rule.kind == "not_first"),
    )


# The shortest limit within which every single need can be put into words.
FEWEST_WORDS = 8


def compatible(a: Rule, b: Rule) -> bool:
    """Whether a user can keep both rules at once, and a program can see to it."""
    if a.kind == b.kind:
        return a.value != b.value and a.kind in ("never_say", "withhold", "not_first")
    if a.kind in _ENDINGS and b.kind in _ENDINGS:
        return False
    return _fits(a, b) and _fits(b, a)


def _fits(rule: Rule, other: Rule) -> bool:
    """Whether the words that `comply` adds for `rule` keep `other`."""
    added = rule.value if rule.kind in _PHRASES else ""
    if rule.kind == "min_words":
        added = " ".join((*_FILLERS, _FAREWELL))
    if other.kind in ("never_say", "no_contractions"):
        return not violates(other, Utterance(added, (), None, False, False))
    if other.kind == "max_words":
        return int(other.value) - _words(added if rule.kind != "min_words" else "") >= FEWEST_WORDS
    if other.kind == "max_sentences":
        # Greetings and endings are sentences of their own.
        apart = rule.kind in ("close_with", "sign_name", "greet_with", "leave_with")
        return not (apart and int(other.value) == 1) and not (rule.kind == "no_mark" and rule.value == ",")
    if other.kind == "no_mark":
        return rule.kind != "end_mark" or other.value not in rule.value
    if other.kind in _ENDINGS:
        return rule.kind != "leave_with"
    return True


_FIRST_WORDS = ("to be honest", "you see", "basically")
# What such words may not stand before: answers, and questions that a "yes" answers.
_YES_NO = re.compile(r"(?:yes|no|yeah|nope|is|are|do|does|has|have|can|could|would|will)\b", re.IGNORECASE)
_FILLERS = ("as far as I know", "if it is no trouble", "at least for this trip")
_FAREWELL = "and all the best to you"
_LOWERED = frozenset((
    "a", "an", "the", "what", "which", "where", "when", "how", "who", "is", "are", "do", "does", "did", "can",
    "could", "would", "will", "may", "might", "please", "yes", "no", "that", "this", "it", "there", "thanks", "thank",
    "we", "my", "our", "any", "something", "some", "for", "in", "on", "at", "from", "to", "and", "but", "also",
    "hello", "hi", "good", "great", "perfect", "lovely", "fine", "give", "tell", "find", "book", "show", "let",
    "nothing", "okay", "sorry", "sure",
))  # fmt: skip


def _lower_first(text: str) -> str:
    """Lower the first letter of a text that moves into the middle of a sentence, unless it may be a name or "I"."""
    first = re.match(r"\w+", text)
    known = first is not None and first[0][1:].islower() and first[0].lower() in _LOWERED
    return text[0].lower() + text[1:] if known or re.match(r"A [^\W\d_A-Z]", text) else text


def _tail(text: str) -> tuple[str, str]:
    """Split the marks off the end of a text."""
    body = text.rstrip(".!?\u2026 ")
    return body, text[len(body) :].strip()


def _closed(text: str) -> str:
    return text if _tail(text)[1] else f"{text.rstrip(',;:- ')}."


def _before_end(text: str, words: str) -> str:
    body, end = _tail(text)
    return f"{body.rstrip(',;: ')}, {words}{end or '.'}"


def _asking(text: str, words: str) -> str:
    """Put `words` before a question of which, what, where; behind any other, which would not stand in a clause."""
    starts = [0, *(found.end() for found in _breaks(text))]
    spans = list(zip(starts, [*starts[1:], len(text)], strict=True))
    start, end = next(((i, j) for i, j in spans if text[i:j].rstrip().endswith("?")), spans[0])
    question = text[start:end].rstrip()
    if re.match(r"(?:what|which|where|when|how|who)\b", question, re.IGNORECASE):
        asked = f"{words[0].upper()}{words[1:]}, {_lower_first(question)}"
    else:
        asked = _before_end(question, words)
    return f"{text[:start]}{asked}{text[start + len(question) :]}"


def _ended_with(text: str, mark: str) -> str:
    bare = text.rstrip("\"')] ")
    body, end = _tail(bare.rstrip(",;:- "))
    asks = "?" if mark == "!" and end.startswith("?") else ""
    return f"{body}{asks}{mark}"


def _tidied(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,.!?;:])", r"\1", text)
    text = re.sub(r"[,;:]+([,.!?;:])", r"\1", text)
    text = re.sub(r"(?<=[.!?])[ ,;:]*[,;:](?=\s)", "", text).strip(" ,;:")
    return text[:1].upper() + text[1:]


def _without_mark(text: str, mark: str) -> str:
    text = "".join(unicodedata.normalize("NFKC", c) if mark in unicodedata.normalize("NFKC", c) else c for c in text)
    if mark in ("?", "!"):
        text = re.sub(rf"[.!?]*{re.escape(mark)}[.!?]*", lambda m: m[0].replace(mark, "")[:1] or ".", text)
        return text.replace(mark, "")
    return re.sub(r"[ \t]{2,}", " ", text.replace(mark, " " if mark in ",;:-" else "")).strip()


# What to say in place of a word that must not be said.
_INSTEAD = (
    (r"(?:many thanks|thank you|thanks)(?: (?:very|so) much| a lot| a million| again)?", "much appreciated"),
    (r"(?:i'm|i am|we're|we are) (?:so |very )?sorry", "pardon me"),
    (r"sorry", "pardon me"),
    (r"okay|ok", "all right"),
    (r"perfect", "fine"),
    (r"hello(?: there)?|hi(?: there)?", "good day"),
    (r"(?:don't|do not) want", "would not like"),
    (r"want", "would like"),
)


def _without(rule: Rule, text: str) -> str:
    text = text.translate(_QUOTES)
    forms = rule.value.split("/")
    for pattern, instead in _INSTEAD:
        found = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)

        def swap(match: re.Match[str], instead: str = instead) -> str:
            starts = match[0][0].isupper()
            kept = any(_says(instead, form) for form in forms) or not any(_says(match[0], form) for form in forms)
            return match[0] if kept else instead[0].upper() + instead[1:] if starts else instead

        text = found.sub(swap, text)
    for form in forms:
        gap = r"\s+".join(re.escape(part) for part in form.split())
        text = re.sub(rf"(?<!\w){gap}(?!\w)", "", text, flags=re.IGNORECASE)
    text = _tidied(text)
    if any(c.isalnum() for c in text):
        return text
    return next(t for t in ("All right.", "Understood.", "Fine.") if not any(_says(t, form) for form in forms))


def _expanded(match: re.Match[str]) -> str:
    if match["irregular"]:
        full = _IRREGULAR[match["irregular"].lower()]
    elif match["negated"]:
        full = f"{match['negated']} not"
    elif match["is"]:
        full = f"{match['is']} is"
    else:
        full = f"{match['verb']} {_ENDING[match['ending'].lower()]}"
    if match[0].isupper() and len(match[0]) > 3:
        return full.upper()
    return full[0].upper() + full[1:] if match[0][0].isupper() else full


_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def number_words(number: int) -> str:
    """A whole number from 0 to 999 in words, ``21`` as "twenty one"."""
    if not 0 <= number < 1000:
        raise ValueError(f"number must be from 0 to 999, got {number}")
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10 - 2] + (f" {_ONES[number % 10]}" if number % 10 else "")
    return f"{_ONES[number // 100]} hundred" + (f" and {number_words(number % 100)}" if number % 100 else "")


def time_words(hour: int, minute: int) -> str:
    """A time of day in words, ``17, 15`` as "quarter past five pm"."""
    half, now = "am" if hour % 24 < 12 else "pm", number_words(hour % 12 or 12)
    if minute == 0:
        return f"{now} {half}"
    if minute == 30:
        return f"half past {now} {half}"
    if minute == 15:
        return f"quarter past {now} {half}"
    # Not "quarter to six": before noon and midnight, nobody knows which half of the day is meant.
    return f"{now} {'oh ' if minute < 10 else ''}{number_words(minute)} {half}"


_TIME = re.compile(
    r"(?<![\w:.])(?P<hour>\d{1,2})(?:(?::(?P<minute>[0-5]\d))(?:\s*(?P<half>[ap])\.?m\b)?"
    r"|(?:\.(?P<dotted>[0-5]\d))?\s*(?P<half_>[ap])\.?m\b)(?![\w:])",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(?<!\w)(\d{1,2})(?:st|nd|rd|th)(?!\w)", re.IGNORECASE)
_ORDINALS = {1: "first", 2: "second", 3: "third", 5: "fifth", 8: "eighth", 9: "ninth", 12: "twelfth"}


def _in_words(text: str) -> str:
    """Put every digit of a text into words, times as times of day."""

    def time(match: re.Match[str]) -> str:
        hour, minute = int(match["hour"]), int(match["minute"] or match["dotted"] or 0)
        half = (match["half"] or match["half_"] or "").lower()
        if half and hour <= 12:
            hour = hour % 12 + (12 if half == "p" else 0)
        return time_words(hour, minute) if hour < 24 else match[0]

    def ordinal(match: re.Match[str]) -> str:
        number = int(match[1])
        if number > 20 and number % 10:
            return f"{number_words(number - number % 10)} {_ORDINALS.get(number % 10) or _ONES[number % 10] + 'th'}"
        words = number_words(number)
        return _ORDINALS.get(number) or (f"{words[:-1]}ieth" if words.endswith("ty") else f"{words}th")

    parts: list[str] = []
    for run in re.split(r"(\d+)", _ORDINAL.sub(ordinal, _TIME.sub(time, text))):
        if run.isdecimal():
            digits = [unicodedata.decimal(c) for c in run]
            spelt = len(run) > 3 or (len(run) > 1 and digits[0] == 0)
            run = " ".join(_ONES[d] for d in digits) if spelt else number_words(int(run))
            if parts and parts[-1][-1:].isalpha():
                run = f" {run}"
        elif parts and parts[-1][-1:].isalpha() and run[:1].isalpha():
            run = f" {run}"
        # Superscripts and the like are digits, though not decimals.
        parts.append("".join(f" {_ONES[unicodedata.digit(c)]}" if c.isdigit() else c for c in run))
    words = "".join(parts)
    return words[:1].upper() + words[1:] if text[:1].isdigit() else words
