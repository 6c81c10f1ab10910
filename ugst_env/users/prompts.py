"""What a chat model is told when it plays the user, and how its answer is read.

The roles are swapped: the model's ``assistant`` turns are the customer's words, and the clerk's words (the agent's)
come as ``user`` messages. The first of them is a fixed opener, so that the model always answers somebody.

All that others wrote (the goal, the agent's words) is data. `quote` takes from it what could be mistaken for the marks
that are used here; that it can't become a control token is the tokeniser's part (`ugst_env.users.language_model`).
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache

from ugst_env.goal import Ask, Category, Cause, Component, GoalState, Need, Objective, Status, UserGoal, Want
from ugst_env.users.protocol import UserReply, UserRequest

MAX_TEXT = 600
"""The most characters of a user's message."""
TEXT_CHARSET = frozenset(string.printable) - frozenset("\t\n\r\x0b\x0c")
"""The characters that a cleaned message is made of: printable ASCII."""
MAX_QUOTE = 1500
"""The most characters that are taken over from one message of the agent, or from one component of a goal."""

OPENER = "Hello! What can I do for you?"
END_MARK = "[END]"
GOODBYE = "Goodbye."

# ------------------------------------------------------------------------------------------------------------- prompts

_ROLE = """\
You play a customer who talks with the clerk of a travel desk. Whatever you read after this is what the clerk says to \
you. You answer as the customer."""

_BEHAVIOUR = """\
How you play:
- One short message at a time, one or two sentences, in the first person. Nothing but the customer's words: no names \
in front, no quotation marks, no comments.
- You are never the clerk. You don't offer help, look things up or confirm bookings; you ask, tell and answer.
- Bring up your wishes bit by bit, two or three details in a message, and finish one task before the next.
- Stay with what is written above. Don't invent wishes, and don't give one up because the clerk has something else, \
unless it is only nice to have or you are told what to take instead.
- If the clerk gets something wrong, say so.
- You have {max_turns} messages for everything. When all is done, or the clerk can't do more for you, say goodbye and \
write {end} after it. Don't write {end} before that.
- Your own rules of talking go before these."""

_STEERING = """\
Behind the clerk's words you find the state of your goal, part by part. The clerk can't see it.
- INCOMPLETE: not brought up yet. ATTEMPTED: you did your part. COMPLETE: done.
- ALIGNED: kept so far, or (if nice to have) mentioned. MISALIGNED: broken, or (if nice to have) not mentioned yet.
Go for what is INCOMPLETE or not mentioned yet. Never read the state out."""

_REPEAT = """\
Behind the clerk's words you find your goal once more. The clerk can't see it. Never read it out."""

_TRACE = """\
Think before each message, in this form:
<think>
State: what is done and what is open.
Plan: what you say now, and how the rest fits into the messages that you have left.
Care: how you stay true to who you are and to your rules of talking.
</think>
Then comes the message, alone."""


# The same goal and the same words come up turn after turn, and a character at a time is slow.
@lru_cache(maxsize=8192)
def quote(text: str, *, limit: int = MAX_QUOTE) -> str:
    """Make foreign text harmless in a prompt: one line, at most `limit` characters, no brackets or controls."""
    text = "".join(c for c in text[: 4 * limit] if c.isspace() or unicodedata.category(c)[0] != "C")
    text = " ".join(text.translate(_BRACKETS).split())
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."


_BRACKETS = str.maketrans({"[": "(", "]": ")", "\uff3b": "(", "\uff3d": ")"})


def describe(component: Component) -> str:
    """A component of a goal in plain words: its own text, or one made of its parts."""
    content = component.content
    if content.text or isinstance(content, Need):
        return quote(content.text)
    if isinstance(content, Objective):
        return quote(f"{content.action} a {content.domain}")
    if isinstance(content, Ask):
        return quote(f"find out the {content.slot}")
    if isinstance(content, Want):
        wish = f"{content.slot}: {content.value}"
        if content.otherwise is not None:
            when = "nothing fits" if content.condition == "no_match" else content.condition
            wish += f"; if {when}, then {content.otherwise} instead"
        return quote(wish)
    return quote(f"{content.kind}: {content.value}")


@lru_cache(maxsize=1024)
def system_prompt(goal: UserGoal, *, max_turns: int, steering: bool, trace: bool, repeat: bool = False) -> str:
    """The part of the prompt that stays the same throughout a conversation."""
    parts: dict[Category, list[str]] = {}
    tasks: list[str] = []
    for component in goal.components:
        words = describe(component)
        if component.objective is None:
            parts.setdefault(component.category, []).append(f"- {words}")
        elif component.category is Category.OBJECTIVE:
            tasks.append(f"{component.objective + 1}. {words}")
        elif component.category is Category.PREFERENCE:
            tasks.append(f"   - nice to have, so mention it: {words}")
        else:
            tasks.append(f"   - {'to find out' if isinstance(component.content, Ask) else 'a must'}: {words}")
    sections = [_ROLE]
    if Category.PROFILE in parts:
        sections.append("\n".join(["Who you are:", *parts[Category.PROFILE]]))
    if Category.POLICY in parts:
        sections.append("\n".join(["Your rules of talking, for every message:", *parts[Category.POLICY]]))
    sections.append("\n".join(["What you want:", *tasks]))
    sections.append(_BEHAVIOUR.format(max_turns=max_turns, end=END_MARK))
    if steering:
        sections.append(_STEERING)
    elif repeat:
        sections.append(_REPEAT)
    if trace:
        sections.append(_TRACE)
    return "\n\n".join(sections)


_STATE_HEAD = "[The state of your goal."
_GOAL_HEAD = "[Your goal once more."
_STATE_FOOT = "[Now your message to the clerk.]"
_STUCK = {
    Cause.AGENT: " (the clerk failed)",
    Cause.WORLD: " (there is no such thing)",
    Cause.USER: " (your own mistake)",
}
_STANDINGS = {
    (status, cause): f" = {status.value}{_STUCK[cause] if cause else ''}"
    for status in Status
    for cause in (None, *Cause)
}
_NAMES = {
    Category.PROFILE: "who you are",
    Category.POLICY: "your rule",
    Category.OBJECTIVE: "task",
    Category.REQUIREMENT: "  must",
    Category.PREFERENCE: "  nice to have",
}


def state_note(state: GoalState, *, turn: int, max_turns: int) -> str:
    """S_{i-1} with every status, as it stands before a reply. `turn` counts from 0."""
    lines = [f"{_STATE_HEAD} {_message_count(turn, max_turns)}]"]
    for line, now in zip(_lines(state.goal), state.states, strict=True):
        lines.append(line + _STANDINGS[now.status, now.cause])
    lines.append(_STATE_FOOT)
    return "\n".join(lines)


@lru_cache(maxsize=1024)
def _lines(goal: UserGoal) -> tuple[str, ...]:
    """What the notes say of each component, up to its status."""
    return tuple(f"{_NAMES[component.category]}: {describe(component)}" for component in goal.components)


def goal_note(goal: UserGoal, *, turn: int, max_turns: int) -> str:
    """The goal as `state_note` has it, without any status (the ablation of arXiv 2507.20152)."""
    return "\n".join((f"{_GOAL_HEAD} {_message_count(turn, max_turns)}]", *_lines(goal), _STATE_FOOT))


def _message_count(turn: int, max_turns: int) -> str:
    return f"Message {turn + 1} of {max_turns}{', your last one' if max_turns - turn <= 1 else ''}."


def messages(request: UserRequest, *, trace: bool) -> list[tuple[str, str]]:
    """The chat as ``(role, text)``: system, then clerk (``user``) and customer (``assistant``) in turn, a clerk's last.

    A pure function of the request, so that neither a forgotten cache nor another process changes a reply. For that
    reason only the newest goal state appears, at the very end: what stands before it is the same again next turn.
    """
    steering = request.state is not None
    system = system_prompt(
        request.goal, max_turns=request.max_turns, steering=steering, trace=trace, repeat=request.repeat
    )
    chat = [("system", system), ("user", OPENER)]
    for speaker, text in request.conversation.messages():
        chat.append(("assistant" if speaker == "user" else "user", quote(text) or "..."))
    if chat[-1][0] != "user":
        raise ValueError("it is not the user's turn: the conversation ends with the user's own words")
    if request.state is not None:
        note = state_note(request.state, turn=request.turn, max_turns=request.max_turns)
        chat[-1] = ("user", f"{chat[-1][1]}\n\n{note}")
    elif request.repeat:
        note = goal_note(request.goal, turn=request.turn, max_turns=request.max_turns)
        chat[-1] = ("user", f"{chat[-1][1]}\n\n{note}")
    return chat


# ------------------------------------------------------------------------------------------------------------- replies

_PUNCTUATION = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u2032": "'", "\u00b4": "'",
        "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00ab": '"', "\u00bb": '"', "\u2033": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2015": "-", "\u2212": "-",
        "\u2022": "-", "\u00d7": "x", "\u2044": "/", "\u00df": "ss", "\u00e6": "ae", "\u00c6": "Ae", "\u00f8": "o",
        "\u00d8": "O", "\u0142": "l", "\u0141": "L", "\u0131": "i", "\u0153": "oe", "\u0152": "Oe", "\u00f0": "d",
        "\u00fe": "th", "\u0111": "d",
        "\t": " ", "\x0b": "\n", "\x0c": "\n", "\r": "\n", "\u2028": "\n", "\u2029": "\n",
    }
)  # fmt: skip
_MONEY = re.compile(r"(\u00a3|\u20ac|\$)\s?(\d+(?:[.,]\d+)*)")
_COINS = {"\u00a3": "pounds", "\u20ac": "euros", "$": "dollars"}


def fold(text: str) -> str:
    """Spell text in printable ASCII and newlines; what has no ASCII spelling is dropped."""
    if text.isascii() and text.isprintable():
        return text
    text = _MONEY.sub(lambda m: m[0] if m[1] == "$" else f"{m[2]} {_COINS[m[1]]}", text)
    text = unicodedata.normalize("NFKD", text.translate(_PUNCTUATION)).translate(_PUNCTUATION)
    return "".join(c for c in text if c in TEXT_CHARSET or c == "\n")


_TEMPLATE = re.compile(
    r"<\|[^<>|\n]{0,60}\|>"
    r"|</?(?:s|unk|pad|bos|eos|mask|sep|cls|start_of_turn|end_of_turn|turn)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|SYS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>",
    re.IGNORECASE,
)


@lru_cache(maxsize=8192)
def without_control_tokens(text: str) -> str:
    """Text without what chat templates write around messages, for servers that tokenise messages as they are."""
    while True:
        shorter = _TEMPLATE.sub(" ", text)
        if shorter == text:
            return text
        text = shorter


# A turn's header as templates write it: control token, role, perhaps another control token.
_HEADER = re.compile(
    r"\s*(?:<\|(?:im_start|start_header_id|start_of_role|start)\|>|<start_of_turn>)\s*\w{0,20}\s*"
    r"(?:<\|(?:end_header_id|end_of_role|message|im_sep)\|>)?",
    re.IGNORECASE,
)

_CUSTOMER = "customer|user|client|travell?er|guest|visitor|tourist|caller|human"
_CLERK = (
    "clerk|agent|travel (?:agent|clerk|desk)|system|operator|staff|receptionist|representative|concierge|"
    "customer (?:service|support)(?: \\w+)?|support|bot|chatbot|host"
)
_LABEL = r"[*_#>\[(\s]*(?:the )?(?:{})(?: \d)?(?:\s?\([^()\n]{{0,30}}\))?[*_\])]*\s?:[*_]*"
_OWN = f"{_CUSTOMER}|assistant|me|you|message|reply|response|answer"
_OWN_LABEL = re.compile(_LABEL.format(_OWN) + r"\s*", re.IGNORECASE)
_CLERK_LABEL = re.compile(_LABEL.format(_CLERK), re.IGNORECASE)
_NEXT_LABEL = re.compile(r"\n" + _LABEL.format(f"{_CUSTOMER}|{_CLERK}|assistant"), re.IGNORECASE)
# Within a line only a capitalised name after the end of a sentence is a label: "ask the agent: ..." is not.
_INLINE_LABEL = re.compile(r"(?<=[.!?\"')\]])\s+[*\[(]*(?:Customer|User|Clerk|Agent|Assistant)[*\])]*\s?:")
_END = re.compile(
    r"\[\s*/?\s*END\b[^\]\n]{0,30}(?:\]|$)|^[ \t]*[<(*]*END[>)*]*[.!]?[ \t]*$", re.IGNORECASE | re.MULTILINE
)
# `quote` takes square brackets from all data, so a model can have these only from the prompt, and repeats it.
_PARROTED = re.compile(
    "|".join(rf"[\[(]{re.escape(mark[1:-1])}" for mark in (_STATE_HEAD, _GOAL_HEAD, _STATE_FOOT)), re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?]+[\"')]*(?=\s|$)")


def _own_words(text: str) -> tuple[str, bool]:
    """The part of a model's answer that the customer says, and whether anything was cut off behind it."""
    text = fold(text)
    while True:
        before = text
        text = text.lstrip()
        for pattern in (_HEADER, _TEMPLATE, _OWN_LABEL):
            if found := pattern.match(text):
                text = text[found.end() :]
        if text == before:
            break
    if _CLERK_LABEL.match(text):
        return "", True
    cuts = [found.start() for p in (_TEMPLATE, _PARROTED, _NEXT_LABEL, _INLINE_LABEL) if (found := p.search(text))]
    return (text[: min(cuts)], True) if cuts else (text, False)


_STAGE_DIRECTION = re.compile(r"^\s*\*[^*\n]{1,60}\*\s+")
_MARKDOWN = re.compile(r"[*`]|__")
_BULLETS = re.compile(r"^(?:\s*(?:[#>]+|-)\s+)+")


def _tidy(text: str) -> str:
    text = _MARKDOWN.sub("", _STAGE_DIRECTION.sub("", text))
    text = " ".join(_BULLETS.sub("", text).split())
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    if text.count('"') == 1 and (text[0] == '"' or text[-1] == '"'):
        text = text.replace('"', "").strip()
    return "" if set(text) <= set("\"' ") else text


def _shorten(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    ends = [found.end() for found in _SENTENCE_END.finditer(text) if found.end() <= MAX_TEXT]
    if ends and ends[-1] >= MAX_TEXT // 3:
        return text[: ends[-1]]
    space = text.rfind(" ", 0, MAX_TEXT + 1)
    return text[: space if space > 0 else MAX_TEXT].rstrip()


def clean(text: str) -> str:
    """The one message in a model's answer: printable ASCII, a single line, at most `MAX_TEXT` characters.

    Goes: role labels, everything from the point where the other side begins to speak or the goal state is read out,
    chat-template tokens, the end mark, control characters, surrounding quotation marks, markdown. May leave nothing.
    """
    while True:
        own, _ = _own_words(text)
        shorter = _shorten(_tidy(_END.sub(" ", own)))
        if shorter == text:
            return shorter
        text = shorter


_OPEN = re.compile(r"<\s*(?:think|thinking|thoughts?)\s*>", re.IGNORECASE)
_CLOSE = re.compile(r"<\s*/\s*(?:think|thinking|thoughts?)\s*>", re.IGNORECASE)
_MOVE = re.compile(r"[*_\s]*(?:state|plan|care)[*_]*\s?:", re.IGNORECASE)
_SPOKEN = re.compile(r"^[*_\s]*(?:message|reply|customer|say)[*_]*\s?:[*_\s]*", re.IGNORECASE | re.MULTILINE)


def format_trace(state: str, plan: str, care: str) -> str:
    """A reasoning trace of three moves, as the model is asked to write it before a message.

    Parameters
    ----------
    state
        Where the goal stands.
    plan
        What remains, and how to finish within the turn limit.
    care
        How to stay within profile and policy.
    """
    moves = (f"{name}: {' '.join(words.split())}" for name, words in (("State", state), ("Plan", plan), ("Care", care)))
    return "\n".join(("<think>", *moves, "</think>"))


def reason(request: UserRequest, planned: str) -> str:
    """A reasoning trace in plain words, made from the goal state of a request: what a trainee is to learn to write.

    Parameters
    ----------
    request
        A steered request, so with its state.
    planned
        What is said next, as the scripted user notes it ("inform hotel area; ask hotel phone").

    Raises
    ------
    ValueError
        Without a goal state.
    """
    if request.state is None:
        raise ValueError("a trace is made from the goal state, but the request has none")
    rows = [(component, now) for component, now in request.state.items() if component.objective is not None]
    open_parts = [
        describe(component)
        for component, now in rows
        if not now.served and not now.user_fault and now.status in (Status.INCOMPLETE, Status.MISALIGNED)
    ]
    done = sum(now.status is Status.COMPLETE or now.served for _, now in rows)
    state = f"{done} of {len(rows)} parts are done. Open: {'; '.join(open_parts) or 'nothing that I have to bring up'}"
    left = request.max_turns - request.turn
    steps = [" ".join(filter(None, (_PLANNED.get(k, k), *rest))) for k, *rest in map(str.split, planned.split("; "))]
    pace = -(-len(open_parts) // max(1, left))
    plan = f"now {', '.join(steps) or 'go on'}. {left} messages left, so at least {pace} parts per message"
    rules = [describe(c) for c, _ in request.state.items() if c.category in (Category.PROFILE, Category.POLICY)]
    return format_trace(state, plan, " ".join(rules) or "nothing special")


_PLANNED = {"inform": "tell", "ask": "ask for", "bye": "say goodbye", "raise": "bring up", "correct": "put right"}


def write_reply(reply: UserReply) -> str:
    """What a model has to write for a reply: its trace, its words, and the mark of the end; `read_reply` reads it."""
    words = f"{reply.text} {END_MARK}" if reply.end else reply.text
    return f"{reply.trace}\n{words}" if reply.trace else words


def split_trace(text: str) -> tuple[str, str]:
    """Take a model's answer apart into its reasoning trace and what it says, however broken the form is."""
    closings = list(_CLOSE.finditer(text))
    if closings:
        # A template may already have opened the trace, and a model may close it twice.
        trace, said = text[: closings[-1].start()], text[closings[-1].end() :]
        return _CLOSE.sub("", _OPEN.sub("", trace)).strip(), said
    opening = _OPEN.search(text)
    if opening or _MOVE.match(text):
        inner = text[opening.end() :] if opening else text
        if found := _SPOKEN.search(inner):
            return inner[: found.start()].strip(), inner[found.end() :]
        lines = inner.split("\n")
        moves = [k for k, line in enumerate(lines) if _MOVE.match(line)]
        last = moves[-1] + 1 if moves else len(lines)
        return "\n".join(lines[:last]).strip(), "\n".join(lines[last:])
    return "", text


def read_reply(text: str, *, finished: bool = True, trace: bool = False) -> UserReply:
    """Turn a model's answer into a user's turn.

    Parameters
    ----------
    text
        What the model wrote, without the token that ended it.
    finished
        Whether the model came to an end by itself. If not, only whole sentences count.
    trace
        Whether the reasoning trace is kept. It is taken out of the text either way.
    """
    thought, said = split_trace(text)
    kept = fold(thought).strip() if trace else ""
    own, cut = _own_words(said)
    mark = _END.search(own)
    if mark:
        words = clean(own[: mark.start()]) or clean(own[mark.end() :])
        return UserReply(words or GOODBYE, end=True, trace=kept)
    if not finished and not cut:
        ends = [found.end() for found in _SENTENCE_END.finditer(own)]
        if not ends:
            return UserReply("", trace=kept, error=f"endless: the model came to no end, its text was {_excerpt(text)}")
        own = own[: ends[-1]]
    words = clean(own)
    if not words:
        return UserReply("", trace=kept, error=f"empty: nothing that a user could say was left of {_excerpt(text)}")
    return UserReply(words, trace=kept)


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
