"""One conversation between an agent and a simulated user, from acts to rewards. It does no I/O.

An `Episode` says what it is waiting for and is told the answer, so that a single env, a vector env, a GRPO rollout and
a remote worker can all drive it::

    episode = Episode(goal, world, tracker, vocabulary, seed=0)
    step = episode.hear(user.reply([episode.request()])[0])        # the user's opening
    while not step.over:
        step = episode.act(agent_act)
        if not step.over:
            step = episode.hear(user.reply([episode.request()])[0])

Where the goal has parts in plain words and there is a judge, it also waits for verdicts: behind each turn of the
agent's, and behind the user's last words (``step = episode.judged(judge.judge(episode.questions()))``).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ugst_env.conversation import Conversation
from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.belief import BeliefState
from ugst_env.dialogue.generation import say
from ugst_env.dialogue.understanding import Context, Vocabulary, understand
from ugst_env.goal import GoalState, Transition, UserGoal
from ugst_env.reward import RewardWeights, step_reward, success, trust
from ugst_env.tracking.questions import Question, Verdict, take_verdicts, to_ask
from ugst_env.tracking.verifiable import VerifiableTracker, start
from ugst_env.users.protocol import UserReply, UserRequest

if TYPE_CHECKING:
    from ugst_env.models.chat import Usage

# A user text above this many characters is nonsense, not a message.
MAX_USER_TEXT = 2000


@dataclass(frozen=True)
class Step:
    """What one event led to.

    Parameters
    ----------
    terms
        Reward by term; the reward is their sum. Empty after an agent's act that the user has yet to answer.
    terminated, truncated
        The conversation came to its own end; it was cut off (turn limit, model failure).
    outcome
        How it ended: one of `ugst_env.tracking.verifiable.ENDINGS`, None while it goes on.
    error
        Why the user model failed, if it did.
    before, after
        The goal state before and behind it, the same where nothing was said.
    turn
        How many turns the user had by then.
    """

    terms: dict[str, float] = field(default_factory=dict)
    terminated: bool = False
    truncated: bool = False
    outcome: str | None = None
    error: str | None = None
    before: GoalState | None = None
    after: GoalState | None = None
    turn: int = 0

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """The goal-state transitions that it brought."""
        return () if self.after is None or self.before is None else self.after.changes(self.before, self.turn)

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated


# What an act leads to that the user has yet to answer.
_GOES_ON = Step()


def turn_seed(seed: int, turn: int) -> int:
    """The seed of one user turn of a conversation."""
    return zlib.crc32(f"{seed}/{turn}".encode())


class Episode:
    """One conversation.

    Parameters
    ----------
    goal, world, tracker, vocabulary
        The user's goal, and the shared read-only parts.
    seed
        The conversation's only source of chance.
    weights
        Reward weights.
    max_turns
        Limit of user-agent turns.
    steering
        Whether the user is shown the goal state before each reply.
    repeat
        Whether the user is told its goal again before each reply, without any status.
    judged
        Whether a judge says how far the goal's parts in plain words have come. If not, they stay as they begin.
    key
        A name for the conversation, unique among those alive.
    """

    def __init__(
        self,
        goal: UserGoal,
        tracker: VerifiableTracker,
        vocabulary: Vocabulary,
        *,
        seed: int,
        weights: RewardWeights | None = None,
        max_turns: int = 10,
        steering: bool = True,
        repeat: bool = False,
        judged: bool = False,
        key: str = "",
    ) -> None:
        self.goal = goal
        self.world = tracker.world
        self.conversation = Conversation()
        self.belief = BeliefState()
        self.tracked = start(goal)
        self.turn = 0
        self.max_turns = max_turns
        self.waiting_for: str | None = "user"
        self.outcome: str | None = None
        self._tracker = tracker
        self._vocabulary = vocabulary
        self._weights = weights if weights is not None else RewardWeights()
        self._seed = seed
        self._steering = steering
        self._repeat = repeat
        self._judged = judged and bool(goal.plain)
        self._pending: str | None = None
        self.judge_errors = 0
        self.judge_usage: Usage | None = None
        self.key = key
        self._rng = random.Random(seed)
        self._before = self.tracked.state
        self.shown: tuple[GoalState, ...] = ()
        self.traces: tuple[str, ...] = ()
        self.usage: Usage | None = None

    @property
    def state(self) -> GoalState:
        """The tracked goal state."""
        return self.tracked.state

    def request(self) -> UserRequest:
        """What the user simulator is asked."""
        if self.waiting_for != "user":
            raise RuntimeError(
                f"this episode is not waiting for the user but for {self.waiting_for or 'nothing: it is over'}"
            )
        return UserRequest(
            episode=self.key,
            goal=self.goal,
            conversation=self.conversation,
            state=self.state if self._steering else None,
            agent_act=self.belief.last_act,
            turn=self.turn,
            max_turns=self.max_turns,
            seed=turn_seed(self._seed, self.turn),
            states=(*self.shown, self.state) if self._steering else (),
            traces=self.traces,
            repeat=self._repeat,
        )

    def act(self, acts: AgentAct | Sequence[AgentAct], text: str | None = None) -> Step:
        """Take the agent's turn: an act, in generated words; or with `text` any number of acts, in its own words."""
        if self.waiting_for != "agent":
            raise RuntimeError(
                f"this episode is not waiting for the agent but for {self.waiting_for or 'nothing: it is over'}"
            )
        acts = (acts,) if isinstance(acts, AgentAct) else acts
        self._before = self.state
        words = " ".join(say(act, self._rng) for act in acts) if text is None else text
        self.conversation = self.conversation.with_agent(words)
        self.belief.act(*acts)
        self.tracked = self._tracker.see(self.tracked, *acts)
        if any(act.kind == "bye" for act in acts):
            return self._turn_over("agent_ended")
        return self._turn_over("turn_limit" if self.turn >= self.max_turns else None)

    def _turn_over(self, outcome: str | None) -> Step:
        """Go on to the user, or end with `outcome`; but first to the judge, where it has something to say."""
        self._pending = outcome
        if self._judged and self.questions():
            self.waiting_for = "judge"
            return _GOES_ON
        return self._go_on()

    def _go_on(self) -> Step:
        if self._pending is not None:
            return self._end(self._pending)
        self.waiting_for = "user"
        return _GOES_ON

    def questions(self) -> list[Question]:
        """What the judge is asked: about each part in plain words that can still move."""
        return to_ask(self.state, self.conversation, key=self.key)

    def judged(self, verdicts: Sequence[Verdict]) -> Step:
        """Take the judge's verdicts on `questions`, in that order.

        A component without a verdict stays where it is. Where none has one, the judge has failed: that ends the episode
        as truncated, blaming nobody.
        """
        if self.waiting_for != "judge":
            raise RuntimeError(f"this episode is not waiting for the judge but for {self.waiting_for or 'nothing'}")
        questions = self.questions()
        errors = [verdict.error for verdict in verdicts if verdict.error is not None]
        self.judge_errors += len(errors)
        for spent in (verdict.usage for verdict in verdicts):
            if spent is not None:
                self.judge_usage = spent if self.judge_usage is None else self.judge_usage + spent
        if len(errors) == len(questions):
            return self._end("model_error", error=f"the judge failed: {errors[0]}")
        moved = take_verdicts(self.state, questions, verdicts, left=self._pending == "user_ended")
        self.tracked = self._tracker.judged(self.tracked, moved)
        return self._go_on()

    def hear(self, reply: UserReply) -> Step:
        """Take the user's turn. A reply without usable text ends the episode as truncated, blaming nobody."""
        if self.waiting_for != "user":
            raise RuntimeError(
                f"this episode is not waiting for the user but for {self.waiting_for or 'nothing: it is over'}"
            )
        opening = self.turn == 0
        if opening:
            self._before = self.state
        if reply.usage is not None:
            self.usage = reply.usage if self.usage is None else self.usage + reply.usage
        error = _unusable(reply)
        if error is not None:
            return self._end("model_error", error=error)
        acts = understand(reply.text, self._vocabulary, self.context())
        # Some models say goodbye and forget the signal; a goodbye beside other business is no end.
        end = reply.end or (
            any(a.kind == "bye" for a in acts) and all(a.kind in ("bye", "thank", "deny", "affirm") for a in acts)
        )
        if self._steering:
            self.shown = (*self.shown, self.state)
        self.traces = (*self.traces, reply.trace)
        self.conversation = self.conversation.with_user(reply.text)
        self.turn += 1
        self.belief.hear(acts)
        self.tracked = self._tracker.hear(self.tracked, reply.text, acts, end=end)
        if end:
            return self._turn_over("user_ended")
        self.waiting_for = "agent"
        return self._step(terms=not opening)

    def context(self) -> Context:
        """What the user's next words answer to."""
        last = self.belief.last_act
        requested = (last.domain, last.slot) if last and last.kind == "request" and last.domain and last.slot else None
        return Context(
            domain=self.belief.domain,
            requested=requested,
            offered=self.belief.offered.get(self.belief.domain or ""),
        )

    def _step(self, *, terms: bool, terminated: bool = False, truncated: bool = False, **more: Any) -> Step:
        reward = step_reward(self._before, self.state, self._weights, terminated=terminated) if terms else {}
        return Step(reward, terminated, truncated, before=self._before, after=self.state, turn=self.turn, **more)

    def _end(self, outcome: str, error: str | None = None) -> Step:
        self.waiting_for = None
        self.outcome = outcome
        self.tracked = self._tracker.finish(self.tracked, outcome)
        terminated = outcome in ("user_ended", "agent_ended")
        return self._step(
            terms=bool(self.conversation.turns),
            terminated=terminated,
            truncated=not terminated,
            outcome=outcome,
            error=error,
        )

    def report(self) -> dict[str, Any]:
        """What may be told of a finished episode without giving the goal away.

        Returns
        -------
        dict
            ``success`` (bool), ``trust`` (float), ``failed`` (counts ``{category: {cause: n}}`` of what was not served
            or not kept), ``user_success`` (the user's success rate per category); and ``usage``, if the user is a
            served model: what it took (`ugst_env.models.served.Usage`, as a dict).
        """
        failed: dict[str, dict[str, int]] = {}
        for component, now in self.state.items():
            lost = not now.served if component.objective is not None else not self.state.holds(component, now)
            if lost or now.user_fault:
                causes = failed.setdefault(component.category.value, {})
                cause = now.cause.value if now.cause else "NONE"
                causes[cause] = causes.get(cause, 0) + 1
        return {
            "success": success(self.state),
            "trust": trust(self.state, self._weights),
            "failed": failed,
            "user_success": {category.value: rate for category, rate in self.state.success_rates().items()},
            **({} if self.usage is None else {"usage": asdict(self.usage)}),
            **({"judge_errors": self.judge_errors} if self._judged else {}),
            **({} if self.judge_usage is None else {"judge_usage": asdict(self.judge_usage)}),
        }


def _unusable(reply: UserReply) -> str | None:
    if reply.error is not None:
        return reply.error
    if not isinstance(reply.text, str):
        return f"the user model must reply with a string, got {type(reply.text).__name__}"
    if not reply.text.strip():
        return "the user model returned an empty reply"
    if len(reply.text) > MAX_USER_TEXT:
        return f"the user model returned {len(reply.text)} characters, at most {MAX_USER_TEXT} are accepted"
    return None
