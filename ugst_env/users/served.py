"""A chat model behind an OpenAI-compatible server as the simulated user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ugst_env.models.chat import ChatRequest
from ugst_env.models.served import ChatClient
from ugst_env.users.prompts import messages, read_reply, without_control_tokens
from ugst_env.users.protocol import UserReply, UserRequest


class ServedUser:
    """A user simulator that asks a server for the user's words, with the prompt that `LanguageModelUser` has.

    Servers tokenise messages as they find them, so whatever chat templates use as control tokens is taken out of the
    messages beforehand. What a reply took is its `usage`, and of a whole conversation ``info["usage"]``.

    Parameters
    ----------
    model
        The model's name, as the server knows it.
    trace
        Whether the model is asked to reason before each message (`UserReply.trace`).
    temperature, top_p
        How tokens are drawn.
    max_new_tokens, trace_tokens
        The most tokens of a message, and of the reasoning trace in addition.
    **connection
        See `ChatClient`: ``base_url``, ``api_key``, ``concurrency``, ``timeout``, ``cache``, ``price``, ...

    Raises
    ------
    ValueError
        If an option is out of range, or there is no server to ask.
    """

    def __init__(
        self,
        model: str,
        *,
        trace: bool = False,
        temperature: float = 0.7,
        top_p: float = 1.0,
        max_new_tokens: int = 64,
        trace_tokens: int = 192,
        **connection: Any,
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {top_p}")
        self.client = ChatClient(model, **connection)
        self.trace = trace
        self.temperature, self.top_p = temperature, top_p
        self._message_tokens, self._trace_tokens = max_new_tokens, trace_tokens

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        """Answer each request, in order; all are under way at once."""
        replies = dict(self.stream(requests))
        return [replies[k] for k in range(len(replies))]

    def stream(self, requests: Iterable[UserRequest]) -> Iterator[tuple[int, UserReply]]:
        """Answer each request as ``(position, reply)``, in the order in which the replies come."""
        for k, answer in self.client.stream(map(self._chat, requests)):
            if answer.error is not None:
                yield k, UserReply("", error=answer.error, usage=answer.usage)
            else:
                told = read_reply(answer.text, finished=answer.finished, trace=self.trace)
                yield k, UserReply(told.text, told.end, told.trace, told.error, answer.usage)

    def _chat(self, request: UserRequest) -> ChatRequest:
        return ChatRequest(
            tuple((role, without_control_tokens(text)) for role, text in messages(request, trace=self.trace)),
            seed=request.seed,
            max_tokens=self._message_tokens + (self._trace_tokens if self.trace else 0),
            temperature=self.temperature,
            top_p=self.top_p,
        )

    def forget(self, episodes: Sequence[str]) -> None:
        """Nothing is kept here; prefixes are the server's to remember."""
