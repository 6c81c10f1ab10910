"""Profiles: facts about the user, each of which a program can hold against what the user says.

==========  ===========================================  ==================================================
kind        value                                        contradicted by
==========  ===========================================  ==================================================
party_size  how many people travel                       another number of people
home_town   a town                                       another town that the user says to come from
budget      "tight", "comfortable" or "generous"         a statement that belongs to another budget
occasion    one of `OCCASIONS`                           another occasion for the trip
mood        one of `MOODS`                               a statement of the opposite mood
companion   who travels along ("wife"), or "alone"       travelling alone, or with someone
name        a name                                       another name that the user gives as theirs
text        anything                                     nothing: no program can check it
==========  ===========================================  ==================================================

Only what users say of themselves counts. The patterns prefer silence to a false alarm: a statement that could be about
a booking ("coming from" the station that a train leaves from) is no contradiction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random

from ugst_env.dialogue.acts import DONTCARE, UserAct
from ugst_env.goal import Fact
from ugst_env.goals.policies import plain_form

BUDGETS = ("tight", "comfortable", "generous")
MOODS = ("hurried", "cheerful", "grumpy", "tired", "anxious", "excited", "calm")
OCCASIONS = (
    "anniversary",
    "birthday",
    "honeymoon",
    "conference",
    "reunion",
    "wedding",
    "graduation",
    "retirement",
    "engagement",
    "job interview",
    "business trip",
    "concert",
)
# Occasions that do not rule each other out.
_ALIKE = ({"conference", "business trip", "job interview"}, {"engagement", "anniversary"})

_TEXTS = {
    "party_size": ("You travel as a group of {}.", "Your party has {} people.", "There are {} of you, with yourself."),
    "home_town": ("You come from {}.", "Your home is in {}.", "You live in {}."),
    "budget": (),
    "occasion": (),
    "mood": (),
    "companion": ("Your {} will be with you.", "You travel with your {}.", "You go together with your {}."),
    "name": ("Your name is {}.", "You are called {}."),
    "text": ("{}",),
}
KINDS = tuple(_TEXTS)
_CLOSED = {"budget": BUDGETS, "mood": MOODS, "occasion": OCCASIONS}
_SPECIAL = {
    ("party_size", "1"): ("You travel by yourself.", "The trip is for one person: you."),
    ("companion", "alone"): ("Nobody travels with you.", "You are on your own."),
    ("budget", "tight"): ("You are short of money.", "Your budget is tight.", "You have to watch every penny."),
    ("budget", "comfortable"): ("You have a comfortable budget.", "You can spend a fair amount, within reason."),
    ("budget", "generous"): ("Money is no object for you.", "Your budget is generous.", "You spend freely."),
    ("occasion", "anniversary"): ("The trip is for your anniversary.", "You celebrate your anniversary."),
    ("occasion", "birthday"): ("You celebrate your birthday.", "The occasion is your birthday."),
    ("occasion", "honeymoon"): ("You are on your honeymoon.", "This trip is your honeymoon."),
    ("occasion", "conference"): ("You come for a conference.", "You attend a conference in town."),
    ("occasion", "reunion"): ("You come for a reunion.", "The reason for the trip is a reunion."),
    ("occasion", "wedding"): ("You are a guest at a wedding.", "You come to town for a wedding."),
    ("occasion", "graduation"): ("You come for a graduation.", "A graduation is what brings you to town."),
    ("occasion", "retirement"): ("You celebrate your retirement.", "The trip marks your retirement."),
    ("occasion", "engagement"): ("You celebrate your engagement.", "The trip is for your engagement."),
    ("occasion", "job interview"): ("You come for a job interview.", "A job interview brings you to town."),
    ("occasion", "business trip"): ("You are on a business trip.", "It is a business trip."),
    ("occasion", "concert"): ("You come to hear a concert.", "A concert brings you to town."),
    ("mood", "hurried"): ("You are in a hurry.", "You are pressed for time."),
    ("mood", "cheerful"): ("You are in a cheerful mood.", "You are full of good cheer."),
    ("mood", "grumpy"): ("You are grumpy.", "You are in a bad mood."),
    ("mood", "tired"): ("You are tired.", "You have had a long day, and you are worn out."),
    ("mood", "anxious"): ("You are anxious about the trip.", "You worry that something will go wrong."),
    ("mood", "excited"): ("You are excited about the trip.", "You can hardly wait for the trip."),
    ("mood", "calm"): ("You are calm.", "Nothing upsets you: you stay relaxed."),
}


def make_fact(kind: str, value: str, text: str = "", *, wording: int = 0) -> Fact:
    """Make a fact; where `text` is empty, its kind words it, `wording` choosing among the ways to say it.

    Raises
    ------
    ValueError
        For an unknown kind, or a value that its kind does not take.
    """
    if kind not in _TEXTS:
        raise ValueError(f"the kind of a profile fact must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind in _CLOSED and value not in _CLOSED[kind]:
        raise ValueError(f"the value of a {kind} fact must be one of {', '.join(_CLOSED[kind])}, got {value!r}")
    if kind == "party_size" and not (value.isascii() and value.isdecimal() and int(value) > 0):
        raise ValueError(f"the value of a party_size fact must be a whole number of at least 1, got {value!r}")
    if not value.strip():
        raise ValueError(f"the value of a {kind} fact must not be empty")
    ways = _SPECIAL.get((kind, value)) or _TEXTS[kind]
    return Fact(kind, value, text or ways[wording % len(ways)].format(value))


def _bank(*profiles: dict[str, str]) -> tuple[tuple[Fact, ...], ...]:
    return tuple(
        tuple(make_fact(kind, value, wording=index) for kind, value in profile.items())
        for index, profile in enumerate(profiles)
    )


PROFILES: tuple[tuple[Fact, ...], ...] = _bank(
    {"party_size": "2", "companion": "wife", "occasion": "anniversary"},
    {"party_size": "2", "companion": "husband", "occasion": "honeymoon", "mood": "excited"},
    {"party_size": "1", "companion": "alone", "occasion": "conference"},
    {"party_size": "4", "home_town": "Brackenford", "mood": "cheerful"},
    {"home_town": "Ostermouth", "budget": "tight"},
    {"party_size": "3", "companion": "colleagues", "occasion": "business trip", "mood": "hurried"},
    {"party_size": "5", "companion": "family", "occasion": "reunion"},
    {"home_town": "Sallow Green", "mood": "grumpy"},
    {"party_size": "1", "mood": "tired", "budget": "comfortable"},
    {"party_size": "6", "companion": "friends", "occasion": "birthday", "budget": "generous"},
    {"mood": "anxious", "occasion": "job interview", "home_town": "Wexcombe"},
    {"party_size": "2", "budget": "generous", "mood": "calm"},
    {"party_size": "3", "companion": "kids", "home_town": "Lower Fenwick", "mood": "tired"},
    {"companion": "mother", "occasion": "graduation"},
    {"party_size": "4", "companion": "parents", "budget": "comfortable", "occasion": "graduation"},
    {"name": "Aurelio", "mood": "cheerful"},
    {"party_size": "2", "name": "Henrike", "companion": "sister"},
    {"party_size": "7", "companion": "teammates", "budget": "tight", "mood": "excited"},
    {"home_town": "Harrowmere", "occasion": "wedding"},
    {"party_size": "2", "companion": "boyfriend", "occasion": "concert", "budget": "tight"},
    {"party_size": "1", "home_town": "Pellingate", "occasion": "conference", "mood": "hurried"},
    {"party_size": "8", "companion": "relatives", "occasion": "wedding"},
    {"budget": "comfortable", "mood": "grumpy"},
    {"party_size": "3", "companion": "daughters", "mood": "excited"},
    {"party_size": "2", "companion": "best friend", "home_town": "Marlbeck", "budget": "tight"},
    {"occasion": "retirement", "mood": "calm"},
    {"party_size": "2", "companion": "wife", "occasion": "retirement", "budget": "generous"},
    {"party_size": "4", "companion": "kids", "mood": "anxious"},
    {"name": "Thandiwe", "home_town": "Skerrow", "occasion": "birthday"},
    {"party_size": "1", "companion": "alone", "mood": "calm", "budget": "generous"},
    {"party_size": "5", "home_town": "Dunholt", "budget": "tight"},
    {"party_size": "2", "companion": "fiancee", "occasion": "engagement", "mood": "cheerful"},
    {"party_size": "6", "companion": "colleagues", "occasion": "conference", "budget": "comfortable"},
    {"home_town": "Vellacott", "mood": "tired", "occasion": "business trip"},
    {"party_size": "3", "companion": "cousins", "occasion": "reunion", "mood": "cheerful"},
    {"party_size": "2", "budget": "comfortable", "companion": "brother"},
    {"party_size": "4", "companion": "friends", "occasion": "concert", "mood": "excited"},
    {"budget": "tight", "mood": "anxious"},
    {"name": "Casimir", "party_size": "1", "occasion": "job interview"},
    {"party_size": "3", "home_town": "Ashgrave", "mood": "hurried"},
    {"companion": "husband", "occasion": "anniversary", "budget": "generous"},
    {"party_size": "5", "companion": "kids", "mood": "grumpy", "budget": "comfortable"},
    {"party_size": "7", "companion": "family", "occasion": "birthday", "home_town": "Crowle Bay"},
    {"mood": "excited", "home_town": "Inverlune"},
    {"party_size": "2", "companion": "father", "occasion": "graduation", "mood": "calm"},
    {"party_size": "1", "companion": "alone", "home_town": "Stroudhaven"},
    {"party_size": "4", "occasion": "wedding", "budget": "tight"},
    {"party_size": "8", "companion": "friends", "mood": "cheerful", "occasion": "reunion"},
    {"name": "Ingeborg", "budget": "comfortable", "mood": "tired"},
    {"party_size": "2", "companion": "grandmother", "mood": "calm", "home_town": "Quenby"},
    {"party_size": "3", "occasion": "birthday", "budget": "tight"},
    {"occasion": "conference", "mood": "grumpy", "home_town": "Rushmoor Cross"},
    {"party_size": "6", "companion": "students", "budget": "tight", "mood": "hurried"},
    {"party_size": "2", "companion": "girlfriend", "occasion": "birthday", "mood": "excited"},
    {"party_size": "1", "occasion": "business trip", "budget": "generous", "mood": "hurried"},
    {"party_size": "4", "companion": "wife", "home_town": "Thornwick", "budget": "comfortable"},
    {"companion": "colleagues", "mood": "anxious"},
    {"party_size": "5", "occasion": "anniversary", "mood": "cheerful"},
    {"party_size": "2", "name": "Leocadia", "occasion": "honeymoon", "budget": "generous"},
    {"party_size": "3", "companion": "sons", "home_town": "Ebbsworth", "budget": "tight"},
    {"home_town": "Fairholme Quay", "budget": "comfortable", "mood": "calm"},
    {"party_size": "4", "companion": "teammates", "mood": "tired"},
    {"party_size": "1", "name": "Matthias", "mood": "anxious"},
    {"party_size": "6", "home_town": "Yarrowby", "occasion": "retirement"},
    {"companion": "wife", "mood": "hurried", "budget": "tight"},
    {"party_size": "2", "occasion": "wedding", "mood": "cheerful", "home_town": "Nettlestead"},
    {"party_size": "3", "companion": "friends", "budget": "generous", "mood": "calm"},
    {"party_size": "5", "companion": "nephews", "mood": "tired", "occasion": "concert"},
    {"occasion": "engagement", "budget": "comfortable", "home_town": "Oakhanger"},
    {"party_size": "4", "mood": "grumpy", "occasion": "business trip"},
)  # fmt: skip

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER = rf"(?P<number>\d{{1,2}}|{'|'.join(_NUMBERS)}|both)"
_AM = r"(?:i'm|i am|we're|we are)"
_BE = r"(?:i'm|i am|i'll be|i will be|we're|we are|we'll be|we will be)"
_SO = r"(?:(?:so|very|really|just|quite|still|all|rather|pretty|actually|totally|completely|perfectly|feeling|a bit) )*"

_PARTY = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:there(?:'s| is| are| will be|'ll be)|{_BE}|just|only|the|all|for) {_NUMBER} of us\b",
        rf"\b{_BE} (?:a (?:party|group|family) of )?{_NUMBER}(?: people| persons|$|[.,!?])",
        rf"\b(?:my|our) (?:party|group) (?:is|has|of)(?: a)? {_NUMBER}\b",
        rf"\b(?:for|with) (?:a (?:party|group) of )?{_NUMBER} (?:people|persons?|guests|travellers)\b",
        rf"\ba (?:party|group) of {_NUMBER}\b",
        rf"\btable for {_NUMBER}\b(?! (?:o'clock|oh|ten|fifteen|twenty|thirty|forty|fifty|in the|noon)|[:.]\d| ?[ap]m)",
    )
)
_ALONE = re.compile(
    rf"\b{_BE} (?:(?:just|all|travelling|traveling|going|coming|staying|here) )*(?:alone|solo|on my own|by myself)\b"
    r"|\bi (?:travel|come|go) (?:alone|solo|on my own|by myself)\b"
    r"|\b(?:it's|it is|it will be|it'll be|there's|there is) (?:just|only) (?:me|myself)(?! and\b)\b"
    r"|\b(?:nobody|no one) (?:is coming|is travelling|comes|travels|else is coming|will be) (?:along )?(?:with me)?"
)
_RELATION = (
    r"(?:best |old |little |big |two |three |four )?(?:wife|husband|partner|boyfriend|girlfriend|fiancee?|spouse|boss"
    r"|colleagues?|coworkers?|kids?|children|child|sons?|daughters?|parents|mother|mum|mom|father|dad|brothers?|sisters?"
    r"|family|friends?|cousins?|nephews?|nieces?|uncle|aunt|relatives|teammates|team|students?|class|grand(?:mother|father"
    r"|parents))"
)
_ALONG = re.compile(
    rf"\b(?:{_BE} (?:travelling|traveling|coming|going|here|staying)|i travel|i come|i go|it's (?:just |only )?me) "
    rf"(?:together )?(?:with|and) my (?P<who>{_RELATION})\b"
    rf"|\bmy (?P<pair>{_RELATION}) and (?:i|me)\b"
    rf"|\bmy (?P<joins>{_RELATION}) (?:is|are|will be) (?:coming|travelling|going|joining|with me)\b"
    rf"|\bi(?:'m| am) (?:bringing|taking) my (?P<brought>{_RELATION})\b"
)
_WITHOUT = re.compile(
    rf"\bmy (?P<who>{_RELATION}) (?:isn't|is not|aren't|are not|won't be|will not be) "
    r"(?:coming|travelling|joining|here|with)"
)
# What may stand after "from" and is no town.
_NO_TOWN = (
    "a", "an", "the", "there", "here", "this", "that", "out", "abroad", "work", "home", "overseas", "far", "around",
    "nearby", "you", "one", "my", "our", "your", "another", "somewhere", "where", "different", "other", "monday",
    "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "tomorrow", "today", "and", "or", "about", "at",
    "now", "noon", "midday",
)  # fmt: skip
_TOWN = r"(?P<town>[^\W\d_][\w'-]*(?: [^\W\d_][\w'-]*){0,2})"
_HOME = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b{_AM} (?:all |both |originally |actually |not far )?from {_TOWN}",
        rf"\b(?:i|we) (?:all |both )?(?:come|hail) (?:all the way )?from {_TOWN}",
        rf"\b(?:coming|travelling|traveling|driving) (?:all the way|up|down|over) from {_TOWN}",
        rf"\b{_AM} coming from {_TOWN}",
        rf"\b(?:i|we) (?:all |both |actually |now )?live in {_TOWN}",
        rf"\b{_AM} based in {_TOWN}",
        rf"\b(?:my|our) home ?town is {_TOWN}",
        rf"\b(?:my|our) home is (?:in )?{_TOWN}",
        rf"\bback home in {_TOWN}",
    )
)
_NAME = re.compile(
    r"\bmy name(?:'s| is) (?P<name>[^\W\d_][\w'-]*)|\b(?:i'm|i am) called (?P<called>[^\W\d_][\w'-]*)"
    r"|\bthis is (?P<speaking>[^\W\d_][\w'-]*) speaking\b"
)
_BUDGET = {
    "tight": re.compile(
        r"\bon a (?:very |really |rather )?(?:tight|small|low|limited|shoestring|student) budget\b|\bon a shoestring\b"
        r"|\b(?:my|our|the) budget is (?:very |really |quite |rather |a bit )?(?:tight|small|limited|low)\b"
        r"|\bmoney is (?:very |really |quite |rather |a bit )?tight\b"
        r"|\b(?:i|we) (?:can't|cannot|can not) (?:afford|spend) (?:very )?much\b"
        r"|\b(?:i|we) (?:don't|do not) have (?:very )?much (?:money|to spend)\b"
        r"|\b(?:watch|count)(?:ing)? (?:every penny|(?:my|our|the) pennies)\b"
        rf"|\b{_AM} (?:broke|short of money)\b"
    ),
    "comfortable": re.compile(
        r"\b(?:have|with|on|got) a (?:comfortable|reasonable|decent|fair) budget\b"
        r"|\b(?:my|our|the) budget is (?:quite |fairly |pretty )?(?:comfortable|reasonable|decent)\b"
        r"|\b(?:i|we) can spend a (?:fair|reasonable|decent) (?:amount|bit)\b"
    ),
    "generous": re.compile(
        r"\b(?:money|price|cost|expense)(?: is|'s) (?:really )?no (?:object|problem|issue)\b"
        r"|\b(?:a|an) (?:generous|unlimited|huge|big) budget\b"
        r"|\b(?:my|our|the) budget is (?:very |really |quite )?(?:generous|unlimited|huge)\b|\bthe sky is the limit\b"
        r"|\b(?:i|we) (?:have|got) (?:plenty of|lots of|more than enough) money\b|\bspare no expense\b"
        r"|\b(?:i|we) can spend (?:freely|whatever (?:i|we) (?:like|want))\b"
    ),
}
_FEELING = rf"\b(?:i'm|i am|we're|we are|i feel|we feel) {_SO}"
_NOT = r"(?:i'm|i am|we're|we are|i feel) not "
_CHEERFUL = re.compile(
    rf"\b{_AM} in (?:such )?(?:a|an) (?:very |really )?"
    r"(?:great|good|wonderful|fantastic|lovely|cheerful|excellent) mood\b"
    rf"|{_FEELING}(?:cheerful|overjoyed|on top of the world)\b"
    rf"|{_FEELING}(?:happy|delighted|thrilled)(?= ?(?:today|this morning|right now|[.!]|$))"
)
_GLOOMY = re.compile(
    rf"\b{_AM} in (?:such )?(?:a|an) (?:very |really )?(?:bad|foul|terrible|awful|rotten) mood\b"
    rf"|{_FEELING}(?:grumpy|miserable|fed up|annoyed|sad|gloomy|cross)\b"
)
_UNHURRIED = re.compile(
    r"\btake (?:all )?your time\b|\bno (?:rush|hurry)\b|\bnot in (?:a|any) (?:rush|hurry)\b"
    r"|\b(?:i|we) (?:have|'ve got|have got) (?:all day|plenty of time|all the time in the world)\b"
)
_RUSHED = re.compile(
    r"(?<!not )\bin (?:a|such a) (?:bit of a |real |great |terrible )?(?:rush|hurry)\b|\bpressed for time\b"
    r"|\b(?:i|we) (?:don't|do not) have (?:much|any) time\b"
)
_NERVOUS = re.compile(
    rf"{_FEELING}(?:panicking|stressed|nervous|anxious|worried|terrified|in a panic|upset|frantic)\b|\bi worry that\b"
)
_RELAXED = re.compile(
    rf"{_FEELING}(?:relaxed|calm|at ease|carefree|serene)\b"
    rf"|\b{_NOT}(?:worried|nervous|anxious)\b(?! about (?:the|which|what|where))"
    r"|\bnothing (?:worries|can worry|upsets) (?:me|us)\b"
)
_ENERGETIC = re.compile(
    rf"{_FEELING}(?:full of energy|wide awake|well rested|bursting with energy|energetic|fresh as a daisy)\b"
    rf"|\b{_NOT}(?:tired|sleepy)(?: at all)?\b|\bi slept (?:really |very |so )?well\b"
)
_BORED = re.compile(
    rf"{_FEELING}(?:bored|dreading)\b|\b{_NOT}(?:really |very |at all )?(?:excited|looking forward)\b"
    r"|\bi (?:don't|do not) (?:really )?(?:care about|feel like) this trip\b"
    r"|\bi (?:couldn't|could not) care less about (?:this|the) trip\b"
)
# Per mood, what nobody in it says.
_OPPOSITE = {
    "hurried": (_UNHURRIED,),
    "cheerful": (_GLOOMY,),
    "grumpy": (_CHEERFUL,),
    "tired": (_ENERGETIC,),
    "anxious": (_RELAXED,),
    "excited": (_BORED,),
    "calm": (_NERVOUS, _RUSHED),
}
# "A concert hall" is a place to see.
_OCCASION = rf"(?P<occasion>{'|'.join(OCCASIONS)})(?! (?:halls?|rooms?|venues?|cent(?:re|er)s?)\b)"
_EVENTS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:for|celebrat\w+|it's|it is|on|marks?|attend\w*) (?:my|our)(?: own)? (?:\w+ ){{0,2}}?{_OCCASION}\b",
        rf"\b(?:for|celebrat\w+) my \w+'s (?:\w+ ){{0,2}}?{_OCCASION}\b",
        rf"{_BE} (?:\w+ ){{0,3}}?(?:for|to|on|attending|celebrating) (?:(?:a|an|the|my|our) )?(?:\w+ )?{_OCCASION}\b",
        rf"\b(?:i|we) (?:come|came|travel|visit) (?:\w+ ){{0,2}}?for (?:(?:a|an|the) )?(?:\w+ )?{_OCCASION}\b",
    )
)


# Each pattern of a kind of fact, or of a mood, needs one of these pieces of text. Most messages have none, and that is
# found out much faster than by the patterns.
_ALONE_CUES = ("alone", "solo", "my own", "myself", "just me", "only me", "nobody", "no one")
_CUES = {
    "party_size": (
        "of us", "party", "group", "people", "person", "guests", "travellers", "table for", "i'm", "i am", "i'll be",
        "i will be", "we're", "we are", "we'll be", "we will be", *_ALONE_CUES,
    ),
    "home_town": ("from", "live in", "based in", "home"),
    "budget": (
        "budget", "shoestring", "money", "afford", "spend", "penny", "pennies", "broke", "no object", "no problem",
        "no issue", "sky is", "expense",
    ),
    "occasion": OCCASIONS,
    "companion": ("my ", *_ALONE_CUES),
    "name": ("my name", "called", "speaking"),
    "hurried": ("time", "rush", "hurry", "all day"),
    "cheerful": ("mood", "grumpy", "miserable", "fed up", "annoyed", "sad", "gloomy", "cross"),
    "grumpy": ("mood", "cheerful", "overjoyed", "top of the world", "happy", "delighted", "thrilled"),
    "tired": ("energ", "awake", "rested", "fresh", "tired", "sleepy", "slept"),
    "anxious": ("relaxed", "calm", "at ease", "carefree", "serene", "worr", "nervous", "anxious", "upsets"),
    "excited": ("bored", "dreading", "excited", "looking forward", "trip"),
    "calm": (
        "panic", "stressed", "nervous", "anxious", "worr", "terrified", "upset", "frantic", "rush", "hurry", "time",
    ),
    "text": (),
}  # fmt: skip


_DENIED = re.compile(r"(?:\bnot|n't|\bnever|\bno longer)(?: \w+)? *$")


def _stated(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The matches that are not denied by a "not" before them."""
    return (match for match in pattern.finditer(text) if not _DENIED.search(text[: match.start()]))


@lru_cache(maxsize=4096)  # Whoever chooses among wordings, and all who judge the chosen one, ask the same.
def _may_speak_of(kind: str, plain: str) -> bool:
    """Whether a message may say something of a kind of fact, or of a mood."""
    return any(map(plain.__contains__, _CUES.get(kind, ())))


def _number(word: str) -> str:
    if word == "both":
        return "2"
    return str(_NUMBERS.index(word) + 1) if word in _NUMBERS else str(int(word))


def _party_sizes(plain: str) -> frozenset[str]:
    """How many people a message says there are."""
    said = {_number(match["number"]) for pattern in _PARTY for match in _stated(pattern, plain)}
    return frozenset({*said, "1"} if any(_stated(_ALONE, plain)) else said)


def contradicts(fact: Fact, text: str, acts: Sequence[UserAct]) -> bool:
    """Whether a user utterance, parsed into `acts`, contradicts a fact. Nothing contradicts a fact of kind ``"text"``.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    kind, value = fact.kind, fact.value
    if kind not in _TEXTS:
        raise ValueError(f"the kind of a profile fact must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "party_size":
        for act in acts:
            if act.slot == "people" and act.kind == "inform" and act.value not in (None, DONTCARE, value):
                return True
    plain = plain_form(text)
    # Most of what is looked at says nothing of the profile.
    if not _may_speak_of(value if kind == "mood" else kind, plain):
        return False
    return _other_town(value, plain, acts) if kind == "home_town" else _says_otherwise(kind, value, plain)


def _other_town(home: str, plain: str, acts: Sequence[UserAct]) -> bool:
    departures = {act.value for act in acts if act.kind == "inform" and act.slot == "departure" and act.value}
    return any(
        not f"{town} ".startswith(f"{plain_form(home)} ")
        and town.split()[0] not in _NO_TOWN
        and not any(town.startswith(departure) for departure in departures)
        for town in _home_towns(plain)
    )


@lru_cache(maxsize=1024)
def _home_towns(plain: str) -> tuple[str, ...]:
    """Where a message says that its speaker comes from."""
    return tuple(match["town"] for pattern in _HOME for match in _stated(pattern, plain))


@lru_cache(maxsize=1024)
def _says_otherwise(kind: str, value: str, plain: str) -> bool:
    """Whether a message alone, whatever it was taken to ask for, contradicts a fact."""
    if kind == "party_size":
        return bool(_party_sizes(plain) - {value})
    if kind == "budget":
        return any(other != value and any(_stated(_BUDGET[other], plain)) for other in BUDGETS)
    if kind == "occasion":
        alike = {value}.union(*(group for group in _ALIKE if value in group))
        return any(match["occasion"] not in alike for pattern in _EVENTS for match in _stated(pattern, plain))
    if kind == "mood":
        return any(pattern.search(plain) for pattern in _OPPOSITE[value])
    if kind == "companion":
        if value == "alone":
            return any(_stated(_ALONG, plain))
        return any(_stated(_ALONE, plain)) or any(
            match["who"] == plain_form(value) for match in _WITHOUT.finditer(plain)
        )
    if kind == "name":
        names = (match["name"] or match["called"] or match["speaking"] for match in _stated(_NAME, plain))
        return any(name != plain_form(value).split()[0] for name in names)
    return False


_MENTIONS = {
    "party_size": ("There are {} of us.", "We are a group of {}.", "It is for {} people."),
    "home_town": ("I'm from {}.", "We live in {}.", "I am coming all the way from {}."),
    "companion": ("I'm travelling with my {}.", "My {} will be with me.", "I am bringing my {}."),
    "name": ("My name is {}.", "I'm called {}."),
    "text": ("{}",),
}
_SPECIAL_MENTIONS = {
    ("party_size", "1"): ("It is just me.", "I'm travelling alone.", "It is for one person."),
    ("companion", "alone"): ("I'm travelling alone.", "I am on my own.", "Nobody is coming with me."),
    ("budget", "tight"): ("Money is a bit tight.", "I'm on a tight budget.", "I can't spend much."),
    ("budget", "comfortable"): ("I have a comfortable budget.", "We can spend a fair amount."),
    ("budget", "generous"): ("Money is no object.", "My budget is generous.", "We spare no expense."),
    ("occasion", "anniversary"): ("It's for our anniversary.", "We are celebrating our anniversary."),
    ("occasion", "birthday"): ("It's for my birthday.", "I am celebrating my birthday."),
    ("occasion", "honeymoon"): ("We are on our honeymoon.", "It's our honeymoon."),
    ("occasion", "conference"): ("I'm in town for a conference.", "I am attending a conference."),
    ("occasion", "reunion"): ("We are coming for a reunion.", "It's for our reunion."),
    ("occasion", "wedding"): ("I'm going to a wedding.", "We are in town for a wedding."),
    ("occasion", "graduation"): ("We are coming for a graduation.", "I'm in town for a graduation."),
    ("occasion", "retirement"): ("I am celebrating my retirement.", "It's for my retirement."),
    ("occasion", "engagement"): ("We are celebrating our engagement.", "It's for our engagement."),
    ("occasion", "job interview"): ("I'm coming for a job interview.", "I am in town for a job interview."),
    ("occasion", "business trip"): ("I'm on a business trip.", "We are on a business trip."),
    ("occasion", "concert"): ("We are going to a concert.", "I'm in town for a concert."),
    ("mood", "hurried"): ("I'm in a hurry.", "I don't have much time.", "I am pressed for time."),
    ("mood", "cheerful"): ("I'm in a wonderful mood.", "I am feeling cheerful today."),
    ("mood", "grumpy"): ("I'm in a bad mood.", "I am rather grumpy today."),
    ("mood", "tired"): ("I'm really tired.", "It has been a long day.", "I am worn out."),
    ("mood", "anxious"): ("I'm a bit nervous about all this.", "I am worried that something will go wrong."),
    ("mood", "excited"): ("I'm so excited about this trip!", "I can hardly wait."),
    ("mood", "calm"): ("I'm quite relaxed.", "I am in no hurry.", "Take your time."),
}
_DENIALS = {
    "hurried": ("Take your time, there is no rush.", "I'm in no hurry.", "I have all day."),
    "cheerful": ("I'm in a terrible mood.", "I am so fed up today."),
    "grumpy": ("I'm in a great mood!", "I am feeling cheerful today."),
    "tired": ("I'm full of energy.", "I am wide awake.", "I slept really well."),
    "anxious": ("I'm completely relaxed.", "I am not worried at all.", "Nothing worries me."),
    "excited": ("I'm bored already.", "I am not looking forward to it.", "I don't care about this trip."),
    "calm": ("I'm so stressed!", "I am really worried.", "I'm in a terrible rush."),
}
_OTHER_TOWNS = ("Grimsdale", "Port Ellory", "Averne Carr", "Holloway Bridge")
_OTHER_NAMES = ("Bartholomew", "Zdenka", "Ludmila", "Ferdinand")


def mention(fact: Fact, rng: Random) -> str:
    """A short sentence in which a user states the fact."""
    ways = _SPECIAL_MENTIONS.get((fact.kind, fact.value)) or _MENTIONS[fact.kind]
    return rng.choice(ways).format(fact.value)


def contradiction(fact: Fact, rng: Random) -> str:
    """A short sentence with which a user contradicts the fact.

    Raises
    ------
    ValueError
        For a kind that nothing contradicts.
    """
    kind, value = fact.kind, fact.value
    if kind == "party_size":
        other = rng.choice([str(n) for n in range(2, 10) if str(n) != value])
    elif kind == "home_town":
        other = rng.choice([town for town in _OTHER_TOWNS if plain_form(town) != plain_form(value)])
    elif kind == "name":
        other = rng.choice([name for name in _OTHER_NAMES if plain_form(name) != plain_form(value)])
    elif kind == "budget":
        other = rng.choice([budget for budget in BUDGETS if budget != value])
    elif kind == "occasion":
        alike = {value}.union(*(group for group in _ALIKE if value in group))
        other = rng.choice([occasion for occasion in OCCASIONS if occasion not in alike])
    elif kind == "companion":
        other = rng.choice(("wife", "boss", "sister")) if value == "alone" else "alone"
    elif kind == "mood":
        return rng.choice(_DENIALS[value])
    else:
        raise ValueError(f"the kind of a fact that can be contradicted must not be {kind!r}")
    return mention(Fact(kind, other, ""), rng)
