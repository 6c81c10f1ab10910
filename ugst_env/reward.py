"""From goal-state transitions to the agent's reward.

The reward is the difference of a potential (Ng, Harada & Russell 1999): ``Phi(S)`` is the weighted share of the goal's
trustworthy components that the agent has served, so no cycle of acts gains, and the number of components does not
matter.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from math import isfinite

from ugst_env.goal import START, Category, Component, GoalState, Status, UserGoal


@dataclass(frozen=True)
class RewardWeights:
    """What a component is worth, relative to the others of the same goal, and what a turn costs.

    Parameters
    ----------
    objective, requirement, preference
        Relative weights of one component of the category. Profile and policy never pay the agent.
    turn_cost
        Taken off each step's reward.
    success_bonus
        Share of the return, in [0, 1), that is paid at the end of a successful episode; the potential has the rest.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, all are zero, or `success_bonus` is not in [0, 1).
    """

    objective: float = 2.0
    requirement: float = 1.0
    preference: float = 0.5
    turn_cost: float = 0.01
    success_bonus: float = 0.2

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isfinite(value) or value < 0:
                raise ValueError(f"RewardWeights.{item.name} must be a finite number >= 0, got {value!r}")
        if self.objective + self.requirement + self.preference == 0:
            raise ValueError("RewardWeights: objective, requirement and preference are all 0, one must be positive")
        if self.success_bonus >= 1:
            raise ValueError(f"RewardWeights.success_bonus must be in [0, 1), got {self.success_bonus!r}")

    def of(self, component: Component) -> float:
        """The relative weight of a component, 0 for profile and policy."""
        return self._by_category.get(component.category, 0.0)

    @cached_property
    def _by_category(self) -> dict[Category, float]:
        return {
            Category.OBJECTIVE: float(self.objective),
            Category.REQUIREMENT: float(self.requirement),
            Category.PREFERENCE: float(self.preference),
        }


def _served_shares(weights: RewardWeights, trusted: GoalState, *states: GoalState) -> list[float]:
    """Of each of `states`, the weighted share that is served of the components without a user's fault in `trusted`."""
    paying = [(k, weight) for k, weight in _paying(weights, trusted.goal) if not trusted.states[k].user_fault]
    total = sum([weight for _, weight in paying])
    served = [sum([weight for k, weight in paying if state.states[k].served]) for state in states]
    return [share / total if total else 0.0 for share in served]


@lru_cache(maxsize=512)  # A goal lasts for a whole conversation.
def _paying(weights: RewardWeights, goal: UserGoal) -> tuple[tuple[int, float], ...]:
    """The components that can pay, by position, with their weights: all but profile and policy."""
    return tuple((k, weights.of(c)) for k, c in enumerate(goal.components) if c.objective is not None)


def potential(state: GoalState, weights: RewardWeights) -> float:
    """Phi(S): the weighted share of the trustworthy components that the agent served, in [0, 1]."""
    return _served_shares(weights, state, state)[0]


def trust(state: GoalState, weights: RewardWeights) -> float:
    """The weighted share of the goal that no fault of the simulated user has spoilt, in [0, 1]."""
    total = sum(weights.of(component) for component in state.goal.components)
    spoilt = sum(weights.of(component) for component, now in state.items() if now.user_fault)
    return 1.0 - spoilt / total if total else 1.0


def success(state: GoalState) -> bool:
    """Whether the agent served every objective and requirement that it can be held to, and at least one objective."""
    tasks = [(c, s) for c, s in state.items() if c.category in (Category.OBJECTIVE, Category.REQUIREMENT)]
    done = any(c.category is Category.OBJECTIVE and s.served for c, s in tasks)
    return done and all(s.served or s.user_fault for _, s in tasks)


def step_reward(before: GoalState, after: GoalState, weights: RewardWeights, *, terminated: bool) -> dict[str, float]:
    """The agent's reward for one step, by term; the reward is the sum of the terms.

    ``potential = (1 - success_bonus) * (Phi_T(S') - Phi_T(S))`` where T, the components that count, is judged on S' for
    both sides. A component that a fault of the user takes out of T therefore moves the reward of that step by exactly
    nothing: it neither costs what was not served nor makes what was served worth more, so an agent has nothing to win
    from provoking its user.

    Parameters
    ----------
    before, after
        The goal state before and after the agent's act and the user's answer.
    terminated
        Whether the conversation came to its own end with this step. Truncation pays no bonus.

    Returns
    -------
    dict
        ``{"potential", "turn_cost", "success_bonus"}``. Summed over an episode and all terms, at most 1.
    """
    now, then = (0.0, 0.0) if after.states == before.states else _served_shares(weights, after, after, before)
    bonus = weights.success_bonus * trust(after, weights) if terminated and success(after) else 0.0
    return {
        "potential": (1.0 - weights.success_bonus) * (now - then),
        "turn_cost": -weights.turn_cost,
        "success_bonus": bonus,
    }


SIMULATOR_WEIGHT = 0.5


def simulator_reward(state: GoalState) -> float:
    """The paper's reward of the *user* (arXiv 2507.20152): ``sum_j 0.5 * I_j``, I_j = 1 where all of category j holds.

    Returns
    -------
    float
        In [0, 2.5]; a category that the goal does not have holds.
    """
    rates = state.success_rates()
    return SIMULATOR_WEIGHT * sum(rates.get(category, 1.0) == 1.0 for category in Category)


def _open_components(state: GoalState) -> list[int]:
    """The components (by position) that it is the user's turn to do something for.

    Those of the objectives in hand: raised and neither served nor lost; where there is none, all that are not raised
    yet. Slots that a rule forbids to bring up unasked are left out.
    """
    rows = list(state.items())
    heads = {c.objective: now for c, now in rows if c.category is Category.OBJECTIVE}
    lost = {index for index in heads if all(now.served or now.user_fault for c, now in rows if c.objective == index)}
    raised = {k for k, now in heads.items() if now.status is not Status.INCOMPLETE and k not in lost}
    in_hand = raised or set(heads) - lost
    secret = {rule.value for rule in state.goal.policy if rule.kind == "withhold"}
    return [
        k
        for k, (c, now) in enumerate(rows)
        if c.objective in in_hand
        and now.status is START[c.category]
        and not (now.served or now.user_fault)
        and getattr(c.content, "slot", None) not in secret
    ]


def reply_indicators(
    before: GoalState, after: GoalState, faults: Collection[str], *, ended: bool, answered: bool
) -> dict[Category, bool]:
    """I_j(u) of the paper's GRPO reward R(u) = sum_j 0.5 * I_j(u), for one reply u of the user.

    * Profile and policy hold if u broke no fact and no rule: none of their components turned MISALIGNED.
    * Objectives, requirements and preferences hold if (1) u put nothing of theirs out of reach (no component got
      ``cause`` USER: a contradicted value, a conversation left early), and (2) u did something for them: one that was
      open advanced, or none was open, or u `answered`. Open is what the user has yet to do its part for (INCOMPLETE,
      or MISALIGNED for preferences) in the objectives in hand, so there is no hurry to start another one.
    * Requirements do not hold if u invented a wish. Objectives do not hold if all was served before u, and u did not
      end the conversation.

    Parameters
    ----------
    before, after
        S_{i-1}, and the state with u taken in; if u ended the conversation, with the conclusions drawn from that.
    faults
        The modes of the faults that u added (`ugst_env.tracking.verifiable.Fault`).
    ended
        Whether u ended the conversation.
    answered
        Whether u answered a question or put a false claim right, with what its goal says: that is worth a turn, and
        held to nothing more.
    """
    components = before.goal.components
    is_open = _open_components(before)
    held: dict[Category, bool] = {}
    for category in Category:
        mine = [k for k, c in enumerate(components) if c.category is category]
        if category in (Category.PROFILE, Category.POLICY):
            held[category] = all(after.states[k].status is before.states[k].status for k in mine)
            continue
        spoilt = any(after.states[k].user_fault and not before.states[k].user_fault for k in mine)
        waiting = [k for k in mine if k in is_open]
        advanced = any(after.states[k].status is not before.states[k].status for k in waiting)
        held[category] = not spoilt and (advanced or answered or not waiting)
    if "invention" in faults:
        held[Category.REQUIREMENT] = False
    parts = [now for c, now in before.items() if c.objective is not None]
    if all(now.served or now.user_fault for now in parts) and not ended:
        held[Category.OBJECTIVE] = False
    return held
