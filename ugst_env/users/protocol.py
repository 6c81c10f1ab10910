"""The one protocol of user simulators: a batch of requests in, a batch of replies out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ugst_env.conversation import Conversation
from ugst_env.dialogue.acts import AgentAct
from ugst_env.goal import GoalState, UserGoal

if TYPE_CHECKING:
    from ugst_env.models.chat import Usage


@dataclass(frozen=True)
class UserRequest:
    """All that a user simulator may know when its turn comes.

    Parameters
    ----------
    episode
        Names the conversation; a simulator may keep a cache under it. The reply must not depend on it.
    goal
        The user's goal.
    conversation
        C_{i-1}: what was said so far (empty at the opening).
    state
        S_{i-1}, the tracked goal state, for steering; None without steering.
    agent_act
        The act behind the agent's newest words, None where it is not known.
    turn, max_turns
        The number of this user turn, from 0, and the limit.
    states
        All states that were shown so far, S_0 .. S_{i-1}, one per user turn; empty without steering. A prompt that
        grows only at its end, turn by turn, is built from them.
    traces
        The reasoning traces of the user's own replies so far, one per user turn, "" where it wrote none.
    repeat
        Whether the goal is to be said again before the reply, without any status: the paper's ablation of steering.
    seed
        The only source of chance: same request, same reply, whatever else is in the batch.
    """

    episode: str
    goal: UserGoal
    conversation: Conversation
    state: GoalState | None
    agent_act: AgentAct | None
    turn: int
    max_turns: int
    seed: int
    states: tuple[GoalState, ...] = ()
    traces: tuple[str, ...] = ()
    repeat: bool = False


@dataclass(frozen=True)
class UserReply:
    """A user turn: its words, whether it ends the conversation, and the reasoning trace if there is one.

    `error` says why no usable reply came (`text` is then ignored, and the episode is truncated). `usage` is what a
    served model took for it.
    """

    text: str
    end: bool = False
    trace: str = ""
    error: str | None = None
    usage: Usage | None = None


class UserSimulator(Protocol):
    """Anything that can play the user.

    One that gets its replies one by one may have a method ``stream(requests)``, too: it takes an iterable of requests,
    and yields ``(position, reply)`` in the order in which the replies come. Then conversations go on while others still
    wait, and the first requests are under way while others are still in the making. One that can't
    play goals with tasks in plain words has an attribute ``plain_words = False``.
    """

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        """Answer each request, in order."""
        ...

    def forget(self, episodes: Sequence[str]) -> None:
        """Drop whatever is cached for these episodes."""
        ...


def ask(user: UserSimulator, requests: Sequence[UserRequest]) -> list[UserReply]:
    """Ask the user simulator, turning whatever goes wrong with it into replies that say so."""
    replies = dict(ask_each(user, requests))
    return [replies[k] for k in range(len(requests))]


def ask_each(user: UserSimulator, requests: Iterable[UserRequest]) -> Iterator[tuple[int, UserReply]]:
    """Ask the user simulator, and yield each reply with its position as it comes.

    Whatever goes wrong with the simulator becomes replies that say so, so that each request has one. What `requests`
    itself raises is raised.
    """
    stream = getattr(user, "stream", None)
    if stream is None:
        listed = list(requests)
        yield from enumerate(_ask_all(user, listed) if listed else ())
        return
    waiting: dict[int, None] = {}
    failed: list[BaseException] = []

    def noted() -> Iterator[UserRequest]:
        try:
            for k, request in enumerate(requests):
                waiting[k] = None
                yield request
        except Exception as error:
            failed.append(error)
            raise

    source = noted()
    problem = "the user model ended its replies early"
    try:
        for k, reply in stream(source):
            if k in waiting:
                del waiting[k]
                yield k, _checked(reply)
    except Exception as error:
        if failed:
            raise
        problem = f"the user model raised {type(error).__name__}: {error}"
    for _ in source:
        pass
    for k in waiting:
        yield k, UserReply("", error=problem)


def _ask_all(user: UserSimulator, requests: Sequence[UserRequest]) -> list[UserReply]:
    try:
        replies = user.reply(requests)
    except Exception as error:
        return [UserReply("", error=f"the user model raised {type(error).__name__}: {error}") for _ in requests]
    if not isinstance(replies, Sequence) or isinstance(replies, str):
        problem = f"the user model must return a list of replies, got {type(replies).__name__}"
        return [UserReply("", error=problem) for _ in requests]
    if len(replies) != len(requests):
        problem = f"the user model gave {len(replies)} replies to {len(requests)} requests"
        return [UserReply("", error=problem) for _ in requests]
    return [_checked(reply) for reply in replies]


def _checked(reply: object) -> UserReply:
    if isinstance(reply, UserReply):
        return reply
    return UserReply("", error=f"the user model must reply with UserReply objects, got {type(reply).__name__}")
