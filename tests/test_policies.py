"""Every rule of the bank can be broken, and where a change of the surface can mend a text, `comply` mends it."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugst_env.dialogue.acts import UserAct
from ugst_env.dialogue.understanding import Context, Vocabulary, understand
from ugst_env.goal import Rule
from ugst_env.goals.policies import (
    NO_LIMIT,
    POLICIES,
    SURFACE,
    Utterance,
    compatible,
    comply,
    comply_all,
    limits,
    make_rule,
    number_words,
    time_words,
    violates,
)
from ugst_env.world import World

TEXTS = (
    "I need a hotel in the centre for 4 people from Friday.",
    "What's the phone number?",
    "Thanks, that's perfect. Okay, actually I just really want a table at 17:15 for 2! Sorry.",
    "Hello, hi. I don't want that",
    "ok",
    "Sorry!",
    "A train leaving after 5pm or 5.30 p.m., the 21st, 20th, TR1234.",
    "Well... yes? No! It is at St. John's, e.g. there.",
    "I’m from the north… isn’t that “nice”?",
)
ACTS = (
    UserAct("request", "hotel", "phone"),
    UserAct("inform", "hotel", "area", "centre"),
    *(
        UserAct("inform", "hotel", slot, "4")
        for slot in ("pricerange", "people", "stay", "time", "food", "stars", "day")
    ),
)
MENDABLE = tuple(rule for rule in POLICIES if rule.kind in SURFACE)
SITUATIONS = tuple(product((True, False), (True, False)))


def said(text: str, *, acts: tuple[UserAct, ...] = ACTS, first: bool = True, last: bool = True) -> Utterance:
    return Utterance(text, acts, None, first, last)


def test_bank_is_large_varied_and_without_doubles() -> None:
    assert len(POLICIES) >= 60
    assert len({(rule.kind, rule.value) for rule in POLICIES}) == len(POLICIES) == len({r.text for r in POLICIES})
    assert 14 <= len({rule.kind for rule in POLICIES}) <= 20


@pytest.mark.parametrize("rule", POLICIES, ids=lambda rule: f"{rule.kind}-{rule.value}")
def test_every_rule_can_be_broken_and_kept(rule: Rule) -> None:
    long = "So many words, " * 12 + "and more. One. Two. Three. WHY?!"
    assert any(violates(rule, said(text)) for text in (*TEXTS, long, "hello"))
    assert not violates(rule, said("  "))
    kept = comply_all([rule], "i see", said("", acts=()), Random(0))
    assert not violates(rule, said(kept, acts=()))


@pytest.mark.parametrize("rule", MENDABLE, ids=lambda rule: f"{rule.kind}-{rule.value}")
def test_comply_mends_the_surface(rule: Rule) -> None:
    for text, (first, last), seed in product(TEXTS, SITUATIONS, range(3)):
        mended = comply(rule, text, said(text, first=first, last=last), Random(seed))
        assert not violates(rule, said(mended, first=first, last=last)), mended
        assert comply(rule, mended, said(mended, first=first, last=last), Random(seed)) == mended


@given(st.text(max_size=60), st.sampled_from(MENDABLE), st.integers(0, 3))
def test_comply_mends_any_text(text: str, rule: Rule, seed: int) -> None:
    assert not violates(rule, said(comply(rule, text, said(text), Random(seed))))


def test_compatible_rules_can_be_kept_together_in_any_order() -> None:
    rng = Random(0)
    pairs = [(a, b) for a in POLICIES for b in POLICIES if a != b and compatible(a, b)]
    assert len(pairs) > 1000
    assert all(compatible(b, a) for a, b in pairs)
    for a, b in rng.sample(pairs, 500):
        text, (first, last) = rng.choice(TEXTS), rng.choice(SITUATIONS)
        mended = said(comply_all((a, b), text, said(text, first=first, last=last), rng), first=first, last=last)
        assert not any(violates(rule, mended) for rule in (a, b) if rule.kind in SURFACE), (a, b, mended.text)


@pytest.mark.parametrize(
    ("kind", "value", "text", "broken"),
    [
        ("say_word", "please", "PLEASE tell me", False),
        ("say_word", "please", "I am pleased to book", True),
        ("say_word", "if you don't mind", "The phone, if you don’t mind", False),
        ("open_with", "Hello there", '  "hello  there", I need a room', False),
        ("open_with", "So", "Some rooms", True),
        ("close_with", "Cheers", "Book it. cheers!!  ", False),
        ("close_with", "Cheers", "Cheers, book it", True),
        ("sign_name", "Yuki", "Book it - YUKI.", False),
        ("address_as", "sir", "The desire", True),
        ("never_say", "okay/ok", "Looking for a book", False),
        ("never_say", "okay/ok", "OK then", True),
        ("never_say", "thanks/thank", "No, thank you", True),
        ("max_words", "8", "one two three four five six seven eight - ...", False),
        ("max_words", "8", "one two three four five six seven eight nine", True),
        ("max_sentences", "1", "A table at 5 p.m. for two near St. John's... yes", False),
        ("max_sentences", "1", "A table. For two", True),
        ("no_mark", "!", "Wow！", True),
        ("no_mark", "?", "What", False),
        ("end_mark", "...", "I wonder… ", False),
        ("end_mark", ".", "Is it cheap.", False),
        ("end_mark", "!", "Is it cheap?", True),
        ("case", "lower", "a room at nº 5", False),
        ("case", "upper", "A ROOM FOR i", True),
        ("no_digits", "all", "two at five", False),
        ("no_digits", "all", "room ²", True),
        ("no_contractions", "all", "St. John's is the church's name", False),
        ("no_contractions", "all", "It’s fine", True),
        ("no_contractions", "all", "They ARE NOT, I'D SAY", True),
    ],
)
def test_what_breaks_a_rule(kind: str, value: str, text: str, broken: bool) -> None:
    assert violates(make_rule(kind, value), said(text)) is broken


def test_rules_about_what_is_told() -> None:
    area = UserAct("inform", "hotel", "area", "east")
    for rule in (make_rule("withhold", "area"), make_rule("not_first", "area")):
        assert violates(rule, said("east", acts=(area,)))
        assert not violates(rule, said("where?", acts=(UserAct("request", "hotel", "area"),)))
    withhold = make_rule("withhold", "area")
    asked = said("east", acts=(area,))._replace(requested=("hotel", "area"))
    assert not violates(withhold, asked)
    assert violates(withhold, asked._replace(requested=("hotel", "stars")))
    assert not violates(withhold, asked._replace(requested=None, agent_named=frozenset({"area"})))
    assert not violates(make_rule("not_first", "area"), said("east", acts=(area,), first=False))
    one = make_rule("max_things", "1")
    assert not violates(one, said("a hotel", acts=(UserAct("inform", "hotel"), area, area, UserAct("thank"))))
    assert violates(one, said("and the phone?", acts=(area, UserAct("request", "hotel", "phone"))))


def test_words_and_endings_are_only_due_in_their_place() -> None:
    assert not violates(make_rule("say_word", "please"), said("Yes.", acts=(UserAct("affirm"),)))
    assert not violates(make_rule("ask_with", "may I ask"), said("East.", acts=ACTS[1:2]))
    assert not violates(make_rule("greet_with", "hi there"), said("East.", first=False))
    assert not violates(make_rule("leave_with", "take care"), said("East.", last=False))


def test_comply_keeps_a_text_that_complies() -> None:
    for rule in POLICIES:
        for text in TEXTS:
            if not violates(rule, said(text)):
                assert comply(rule, text, said(text), Random(0)) == text


def test_text_rules_are_never_broken_and_unknown_ones_refused() -> None:
    assert not violates(Rule("text", "Be nice.", "Be nice."), said("No!"))
    with pytest.raises(ValueError, match="say_word"):
        violates(Rule("sing", "opera", ""), said("La"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [("max_words", "3"), ("max_words", "ten"), ("max_words", "٣٠"), ("withhold", "colour"), ("case", "title"),
     ("end_mark", "?"), ("no_mark", "ab"), ("say_word", " - "), ("no_digits", "5"), ("sing", "opera")],
)  # fmt: skip
def test_make_rule_refuses(kind: str, value: str) -> None:
    with pytest.raises(ValueError, match=kind if kind != "sing" else "must be one of"):
        make_rule(kind, value)


def test_limits_tell_what_is_left_for_the_content() -> None:
    assert limits(()) == limits([make_rule("case", "lower")])
    assert limits(()).max_things == NO_LIMIT and limits(()).max_words is None
    both = limits([make_rule("max_words", "14"), make_rule("open_with", "Hello there"), make_rule("withhold", "area")])
    assert both.max_words == 12 and both.max_things == 1 and both.withheld == {"area"}
    assert limits([make_rule("max_things", "1"), make_rule("not_first", "day")]).not_first == {"day"}


def test_pairs_that_no_user_can_keep() -> None:
    for a, b in (
        (("close_with", "Cheers"), ("sign_name", "Yuki")),
        (("never_say", "thanks/thank"), ("close_with", "Many thanks")),
        (("never_say", "hello/hi"), ("open_with", "Hello there")),
        (("no_contractions", "all"), ("say_word", "if you don't mind")),
        (("no_mark", "!"), ("end_mark", "!")),
        (("max_words", "8"), ("say_word", "please")),
        (("case", "lower"), ("case", "upper")),
    ):
        assert not compatible(make_rule(*a), make_rule(*b))


def test_numbers_and_times_in_words() -> None:
    assert [number_words(n) for n in (0, 13, 40, 21, 305)] == [
        "zero", "thirteen", "forty", "twenty one", "three hundred and five",
    ]  # fmt: skip
    assert time_words(17, 15) == "quarter past five pm" and time_words(0, 30) == "half past twelve am"
    assert time_words(11, 45) == "eleven forty five am" and time_words(9, 5) == "nine oh five am"
    rule = make_rule("no_digits", "all")
    mended = comply(rule, "Table for 2 at 19:30 on the 3rd, TR10.", said(""), Random(0))
    assert mended == "Table for two at half past seven pm on the third, TR ten."


SPOKEN = (
    ("I need a hotel in the centre with 4 stars and parking.", "hotel"),
    ("What's the phone number?", "hotel"),
    ("I'd like a cheap Italian restaurant.", "restaurant"),
    ("Book it for 2 people on Friday at 17:15, please.", "restaurant"),
    ("Book it for 2 people for 3 nights from Tuesday.", "hotel"),
    ("A train from Ellerwick to Quillminster on Monday, leaving after 09:30.", "train"),
    ("I don't care about the area.", "hotel"),
)


def test_comply_changes_nothing_that_is_understood(world: World) -> None:
    vocabulary = Vocabulary.from_world(world)

    def slots(text: str, domain: str) -> set[UserAct]:
        acts = understand(text, vocabulary, Context(domain, None, None))
        return {act for act in acts if act.kind in ("inform", "negate", "request", "book")}

    for text, domain in SPOKEN:
        acts = understand(text, vocabulary, Context(domain, None, None))
        assert acts
        for rule in POLICIES:
            mended = comply(rule, text, said(text, acts=acts, last=False), Random(1))
            assert slots(mended, domain) == slots(text, domain), mended
