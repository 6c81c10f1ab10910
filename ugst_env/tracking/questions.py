"""What a judge is asked about the parts of a goal in plain words, and what its verdicts do to the goal state.

A judge (`ugst_env.tracking.judge`) only ever says how far a component has come. That statuses move one way, and who is
to blame, is decided here and by the goal state: an answer below what was reached before counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ugst_env.conversation import Conversation
from ugst_env.goal import Category, Cause, Component, ComponentState, GoalState, Status

if TYPE_CHECKING:
    from ugst_env.models.chat import Usage

KEPT, RAISED, DONE = 0, 1, 2
"""How far a component has come: nothing happened; the user did its part, or broke it; the agent did its part, too."""

HIGHEST: Mapping[Category, int] = {
    Category.PROFILE: RAISED,
    Category.POLICY: RAISED,
    Category.OBJECTIVE: DONE,
    Category.REQUIREMENT: DONE,
    Category.PREFERENCE: DONE,
}

_MOVES: Mapping[tuple[Category, int], Mapping[str, Any]] = {
    (Category.PROFILE, RAISED): {"status": Status.MISALIGNED, "cause": Cause.USER},
    (Category.POLICY, RAISED): {"status": Status.MISALIGNED, "cause": Cause.USER},
    (Category.OBJECTIVE, RAISED): {"status": Status.ATTEMPTED},
    (Category.OBJECTIVE, DONE): {"status": Status.COMPLETE, "cause": None, "served": True},
    (Category.REQUIREMENT, RAISED): {"status": Status.ATTEMPTED},
    (Category.REQUIREMENT, DONE): {"status": Status.COMPLETE, "cause": None, "served": True},
    (Category.PREFERENCE, RAISED): {"status": Status.ALIGNED},
    (Category.PREFERENCE, DONE): {"status": Status.ALIGNED, "cause": None, "served": True},
}


@dataclass(frozen=True)
class Question:
    """A component whose status is to be judged.

    Parameters
    ----------
    key
        Names the conversation, whose cache may be re-used.
    conversation
        What was said so far.
    component
        What it is about.
    level
        How far it had come before.
    """

    key: str
    conversation: Conversation
    component: Component
    level: int = KEPT


@dataclass(frozen=True)
class Verdict:
    """What a judge says.

    Parameters
    ----------
    level
        How far the component has come, never less than before.
    margin
        The evidence, in nats, for the step that was asked about (`ugst_env.tracking.judge.ScoreJudge`).
    reasoning
        The judge's words (`ugst_env.tracking.judge.GenerateJudge`).
    usage
        What a served model took for it.
    error
        Why there is no verdict; `level` is then what it was.
    """

    level: int
    margin: float = 0.0
    reasoning: str = ""
    usage: Usage | None = None
    error: str | None = None


class Judge(Protocol):
    """Anything that can judge components: a batch of questions in, a batch of verdicts out."""

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Answer each question, in order."""
        ...

    def forget(self, keys: Iterable[str]) -> None:
        """Drop whatever is cached for these conversations."""
        ...


def level_of(component: Component, now: ComponentState) -> int:
    """How far a component has come."""
    if now.served:
        return HIGHEST[component.category]
    if component.category in (Category.PROFILE, Category.POLICY):
        return KEPT if now.status is Status.ALIGNED else RAISED
    return KEPT if now.status in (Status.INCOMPLETE, Status.MISALIGNED) else RAISED


def to_ask(state: GoalState, conversation: Conversation, *, key: str) -> list[Question]:
    """The questions about a goal: one for each part in plain words that can still move."""
    asked = ((c, level_of(c, now)) for c, now in state.items() if c.plain and not (now.served or now.user_fault))
    return [Question(key, conversation, c, level) for c, level in asked if level < HIGHEST[c.category]]


def take_verdicts(
    state: GoalState, questions: Sequence[Question], verdicts: Sequence[Verdict], *, left: bool
) -> GoalState:
    """The goal state after the judge's verdicts on `questions`.

    Where the user has `left`, what it raised only with its last words is its own fault: nobody could answer them.
    """
    for question, verdict in zip(questions, verdicts, strict=True):
        component = question.component
        if verdict.error is not None or verdict.level <= question.level:
            continue
        move = dict(_MOVES[component.category, verdict.level])
        if left and verdict.level == RAISED:
            move["cause"] = Cause.USER
        state = state.move(component.id, **move)
    return state


def ask_judge(judge: Judge, questions: Sequence[Question]) -> list[Verdict]:
    """Ask a judge, turning whatever goes wrong with it into verdicts that say so."""
    problem = ""
    try:
        verdicts = list(judge.judge(questions))
        if len(verdicts) != len(questions):
            problem = f"the judge gave {len(verdicts)} verdicts on {len(questions)} questions"
        elif not all(isinstance(verdict, Verdict) for verdict in verdicts):
            problem = "the judge must answer with Verdict objects"
    except Exception as error:
        problem = f"the judge raised {type(error).__name__}: {error}"
    return [Verdict(q.level, error=problem) for q in questions] if problem else verdicts
