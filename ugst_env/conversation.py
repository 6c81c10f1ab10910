"""What was said: turns of a user utterance and the agent's answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """t_i = (u_i, a_i): the user speaks, then the agent. `agent` is None while its answer is awaited."""

    user: str
    agent: str | None = None


@dataclass(frozen=True)
class Conversation:
    """C_i, the turns so far. Immutable: adding words gives a new conversation."""

    turns: tuple[Turn, ...] = ()

    def with_user(self, text: str) -> Conversation:
        return Conversation((*self.turns, Turn(text)))

    def with_agent(self, text: str) -> Conversation:
        if not self.turns or self.turns[-1].agent is not None:
            raise ValueError("the agent answers a user utterance, but none is waiting for an answer")
        return Conversation((*self.turns[:-1], Turn(self.turns[-1].user, text)))

    def messages(self) -> Iterator[tuple[str, str]]:
        """Yield ``("user", text)`` and ``("agent", text)`` in order."""
        for turn in self.turns:
            yield "user", turn.user
            if turn.agent is not None:
                yield "agent", turn.agent
