"""A chat model as the agent of UGSTText-v0: any Hugging Face model, GGUF file or OpenAI-compatible server.

Run ``python -m agents.evaluate --agents llm:hf:Qwen/Qwen2.5-7B-Instruct``; see `LLMAgent` for other models.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from ugst_env.envs.text import MAX_TOOL_CALLS
from ugst_env.models.chat import ChatRequest, LocalChat, load_chat

_ROLE = """\
You are the clerk of a travel desk. A customer talks with you. Find out what the customer wants, look it up, tell the \
truth about it, and book it when you are asked to. You know nothing but what your tools tell you.

Either you speak to the customer, in one or two plain sentences; or you call a tool, with one line of JSON and nothing \
else. The tools (a question mark stands behind what may be left out):
{tools}

For example: {{"name": "search_hotel", "arguments": {{"area": "north", "stars": "4"}}}}
The result comes as the next message, which the customer does not see. After at most {calls} tool calls, speak to the \
customer. When you have booked, tell the reference."""

Conversation = tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]
"""``info["messages"]`` and ``info["tools"]``."""


def system_prompt(tools: Sequence[Mapping[str, Any]]) -> str:
    """What the model is told about its job, with its tools in a line each."""
    lines = []
    for tool in tools:
        function = tool["function"]
        needed = function["parameters"]["required"]
        names = [name if name in needed else f"{name}?" for name in function["parameters"]["properties"]]
        lines.append(f"- {function['name']}({', '.join(names)}): {function['description']}")
    return _ROLE.format(tools="\n".join(lines), calls=MAX_TOOL_CALLS)


def chat(conversation: Conversation) -> tuple[tuple[str, str], ...]:
    """A conversation as ``(role, text)`` in turn, tool calls and results in plain text: every chat model reads that."""
    messages, tools = conversation
    turns: list[tuple[str, str]] = [("system", system_prompt(tools))]
    for message in messages:
        text = str(message["content"])
        if message["role"] == "tool":
            role, text = "user", f"Tool result: {text}"
        elif message.get("tool_calls"):
            calls = (call["function"] for call in message["tool_calls"])
            text = "\n".join(f'{{"name": "{call["name"]}", "arguments": {call["arguments"]}}}' for call in calls)
            role = "assistant"
        else:
            role = str(message["role"])
        if turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n{text}")
        else:
            turns.append((role, text))
    return tuple(turns)


_CALL = re.compile(r"^\s*(?:```(?:json)?\s*)?(\{.*?\}\s*\})", re.DOTALL)


def first_move(answer: str) -> str:
    """What the model does first: the tool call at the head of its answer, without what it makes up behind it, or words.

    Small models go on with a result of their own invention.
    """
    call = _CALL.match(answer)
    return call[1] if call else answer


class LLMAgent:
    """A chat model that answers a batch of conversations, each with words for the customer or with a tool call.

    Parameters
    ----------
    model
        ``"hf:<folder or hub name>"``, the path of a ``.gguf`` file, or ``"openai:<served model>"``.
    temperature
        How tokens are drawn; 0 takes the likeliest.
    max_new_tokens
        The most tokens of an answer.
    seed
        The source of chance; an answer depends on it and on the conversation alone.
    **connection
        For a served model: ``base_url``, ``api_key``, ``cache``, ... (`ugst_env.models.served.ChatClient`).

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        If there is no such model.
    """

    def __init__(
        self, model: str, *, temperature: float = 0.0, max_new_tokens: int = 128, seed: int = 1, **connection: Any
    ) -> None:
        self.temperature, self.max_new_tokens, self.seed = temperature, max_new_tokens, seed
        self._chat = load_chat(model, **connection)

    def __call__(self, conversations: Sequence[Conversation]) -> list[str]:
        """The next message in each conversation; empty where the model failed."""
        chats = [self._shortened(chat(conversation)) for conversation in conversations]
        requests = [
            ChatRequest(
                turns,
                seed=zlib.crc32(f"{self.seed}/{turns}".encode()),
                max_tokens=self.max_new_tokens,
                temperature=self.temperature,
                # A local model keeps what a place of the batch has in common from call to call.
                key=f"agent-{k}",
            )
            for k, turns in enumerate(chats)
        ]
        return [first_move(answer.text) for answer in self._chat.complete(requests)]

    def _shortened(self, turns: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The chat without its oldest turns, as far as a local model cannot read it all."""
        if isinstance(self._chat, LocalChat):
            longest = self._chat.model.max_length - self.max_new_tokens
            while len(turns) > 3 and len(self._chat.form.encode(turns)) > longest:
                turns = (turns[0], *turns[3:])
        return turns
