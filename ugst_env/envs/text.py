"""UGSTText-v0: the agent speaks in its own words and works with tools."""

from __future__ import annotations

import json
import string
import unicodedata
from typing import Any

import numpy as np
from gymnasium import spaces

from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.claims import read_agent
from ugst_env.envs.core import DialogueCore, DialogueEnv
from ugst_env.envs.episode import Episode, Step
from ugst_env.envs.setup import Setup
from ugst_env.envs.tools import Call, carry_out, read_calls, tool_schemas
from ugst_env.users.protocol import UserReply, UserRequest

MAX_AGENT_TEXT = 4000
"""The most characters of a message that count; what is longer is cut."""
MAX_OBSERVATION = 10_000
MAX_TOOL_CALLS = 8
"""The most tool calls from one message to the user to the next."""
CHARSET = frozenset(string.printable) - frozenset("\t\r\x0b\x0c")
"""The characters of observations: printable ASCII and the line break."""

WAIT = "One moment, please."
SILENCE = "..."


def legible(text: str) -> str:
    """A text in the characters of `CHARSET`: accents are dropped, what has no counterpart is a question mark."""
    if text.isascii() and text.isprintable():
        return text[:MAX_OBSERVATION]
    text = unicodedata.normalize("NFKD", text[: 2 * MAX_OBSERVATION])
    shown = (" " if c.isspace() and c != "\n" else c for c in text if unicodedata.category(c)[0] not in "M")
    return "".join(c if c in CHARSET else "?" for c in shown if unicodedata.category(c) != "Cf")[:MAX_OBSERVATION]


def _words(message: str) -> str:
    """What the user hears of a message: at most `MAX_AGENT_TEXT` characters, no control or format characters."""
    kept = (c for c in message[:MAX_AGENT_TEXT] if c.isspace() or unicodedata.category(c)[0] != "C")
    text = "".join(kept).strip()
    return text if any(c.isalnum() for c in text) else SILENCE


class TextCore(DialogueCore[str, str]):
    """A conversation slot whose actions are messages: plain words for the user, or tool calls."""

    observation_space = spaces.Text(MAX_OBSERVATION, min_length=0, charset=CHARSET)
    action_space = spaces.Text(MAX_AGENT_TEXT, min_length=0, charset=CHARSET)
    nothing = ""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._messages: list[dict[str, Any]] = []
        self._deeds: list[AgentAct] = []
        self._calls = 0
        self._observation = ""

    def begin(self, rng: np.random.Generator, options: dict[str, Any] | None) -> UserRequest:
        self._messages, self._deeds, self._calls, self._observation = [], [], 0, ""
        return super().begin(rng, options)

    def check(self, action: str) -> None:
        if not isinstance(action, str):
            raise ValueError(f"action must be a string (the agent's message), got {type(action).__name__}")

    def carry_out(self, action: str, episode: Episode) -> Step:
        calls = read_calls(action[:MAX_AGENT_TEXT])
        if calls is not None and self._calls < MAX_TOOL_CALLS:
            self._observation = legible(self._work(calls))
            return Step()
        # An agent that only ever calls tools must not hold the user for ever.
        text = _words(action) if calls is None else WAIT
        acts = read_agent(
            text if calls is None else "",
            world=self.setup.world,
            vocabulary=self.setup.vocabulary,
            belief=episode.belief,
            deeds=self._deeds,
        )
        self._messages.append({"role": "assistant", "content": text})
        self._deeds, self._calls, self._observation = [], 0, ""
        return episode.act(acts, text)

    def _work(self, calls: list[Call | str]) -> str:
        """Carry tool calls out; the observation is their results, a line each."""
        results: list[str] = []
        noted: list[dict[str, Any]] = []
        for call in calls:
            if self._calls >= MAX_TOOL_CALLS:
                call = f"no more than {MAX_TOOL_CALLS} tool calls between two messages: speak to the user now"
            else:
                self._calls += 1
            results.append(json.dumps(self._result(call)))
            # Chat templates want a tool's answer to follow a call, so a malformed one is noted as well.
            name, arguments = (call.name, call.arguments) if isinstance(call, Call) else ("malformed", {})
            function = {"name": name[:60], "arguments": json.dumps(arguments)}
            noted.append({"id": f"call_{len(self._messages)}_{len(noted)}", "type": "function", "function": function})
        self._messages.append({"role": "assistant", "content": "", "tool_calls": noted})
        for entry, result in zip(noted, results, strict=True):
            self._messages.append({"role": "tool", "tool_call_id": entry["id"], "content": result})
        return "\n".join(results)

    def _result(self, call: Call | str) -> dict[str, Any]:
        if isinstance(call, str):
            return {"error": call}
        try:
            domain = call.name.removeprefix("book_")
            if any(deed.domain == domain and deed.reference is not None for deed in self._deeds):
                # Else an agent could book its way through all there is before the user hears of it.
                raise ValueError(f"a {domain} was booked already: tell the user first")
            result, deed = carry_out(call, self.setup.world)
        except ValueError as error:
            return {"error": str(error)}
        if deed is not None:
            self._deeds.append(deed)
        return result

    def hear(self, reply: UserReply) -> Step:
        step = super().hear(reply)
        episode = self.shown()
        turns = episode.conversation.turns
        if turns and turns[-1].agent is None:
            self._messages.append({"role": "user", "content": turns[-1].user})
            self._observation = legible(turns[-1].user)
        return step

    def view(self) -> tuple[str, dict[str, Any]]:
        self.shown()
        return self._observation, {"messages": list(self._messages), "tools": list(tool_schemas(self.setup.world))}


class UGSTTextEnv(DialogueEnv[str, str]):
    """A booking clerk's job in plain words: the action is the agent's message, the observation what it gets to read.

    A message is heard by the user, or it is a tool call (`ugst_env.envs.tools`): then the observation is the result,
    and the user waits. The user's words are the observation else. Tool calls cost no user turn, but at most
    `MAX_TOOL_CALLS` are answered between two messages; the next one tells the user to wait, which costs a turn.

    ``info["messages"]`` holds the conversation in the chat format, from the agent's side and without a system message;
    ``info["tools"]`` the schemas of the tools. What the agent says is read by `ugst_env.dialogue.claims`, tracked and
    paid as in UGST-v0. Words alone book nothing and end nothing. The conversation ends when the user leaves, or with
    the turn limit.

    Parameters
    ----------
    render_mode
        ``"ansi"`` (`render()` returns text), ``"human"`` (each step is printed) or None.
    **arguments
        See `ugst_env.envs.setup.Setup`.
    """

    core_type = TextCore
