"""The vector environment: the same conversations as single ones, in one batch per step, in every autoreset mode."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from dialogues import BOOK_THAI, FIND_THAI
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from numpy.typing import NDArray

from ugst_env.envs.actions import ACTION_INDEX, OBSERVATION_SIZE, Action
from ugst_env.envs.discrete import UGSTEnv
from ugst_env.envs.setup import vocabulary_of
from ugst_env.envs.vector import UGSTVectorEnv
from ugst_env.training.clerks import handcrafted
from ugst_env.users.protocol import UserReply, UserRequest
from ugst_env.users.scripted import ScriptedUser
from ugst_env.world.database import World

REQ_MORE = ACTION_INDEX[Action("req_more")]
BYE = ACTION_INDEX[Action("bye")]
MODES = list(AutoresetMode)


def policy(observation: NDArray[np.float32], mask: NDArray[np.int8]) -> int:
    """A deterministic agent that is competent most of the time."""
    if int(observation.sum()) % 5 == 0:
        return int(np.flatnonzero(mask)[int(observation.sum()) % int(mask.sum())])
    return handcrafted(observation, mask)


Row = tuple[list[float], float, bool, bool, str]


def single(seed: int, steps: int) -> list[Row]:
    """What a single environment goes through in at least `steps` steps, resets without a seed in between."""
    env, rows = UGSTEnv(user="scripted"), []
    observation, info = env.reset(seed=seed)
    rows.append((observation.tolist(), 0.0, False, False, info["user_text"]))
    while len(rows) < steps:
        action = policy(observation, info["action_mask"])
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append((observation.tolist(), reward, terminated, truncated, info["user_text"]))
        if terminated or truncated:
            observation, info = env.reset()
            rows.append((observation.tolist(), 0.0, False, False, info["user_text"]))
    env.close()
    return rows[:steps]


def vector(mode: AutoresetMode, num_envs: int, seed: int, steps: int) -> list[list[Row]]:
    """The same for each slot of a vector environment."""
    env = UGSTVectorEnv(num_envs, user="scripted", autoreset_mode=mode)
    observations, infos = env.reset(seed=seed)
    rows: list[list[Row]] = [
        [(observations[k].tolist(), 0.0, False, False, infos["user_text"][k])] for k in range(num_envs)
    ]
    while min(map(len, rows)) < steps:
        masks = env.action_masks()
        actions = np.array([policy(observations[k], masks[k]) for k in range(num_envs)])
        observations, rewards, terminations, truncations, infos = env.step(actions)
        ended = terminations | truncations
        for k in range(num_envs):
            end = (float(rewards[k]), bool(terminations[k]), bool(truncations[k]))
            if mode is AutoresetMode.SAME_STEP and ended[k]:
                rows[k].append((infos["final_obs"][k].tolist(), *end, infos["final_info"]["user_text"][k]))
                rows[k].append((observations[k].tolist(), 0.0, False, False, infos["user_text"][k]))
            else:
                rows[k].append((observations[k].tolist(), *end, infos["user_text"][k]))
        if mode is AutoresetMode.DISABLED and ended.any():
            observations, infos = env.reset(options={"reset_mask": ended})
            for k in np.flatnonzero(ended):
                rows[k].append((observations[k].tolist(), 0.0, False, False, infos["user_text"][k]))
    env.close()
    return [slot[:steps] for slot in rows]


STEPS = 16


@pytest.fixture(scope="module")
def alone() -> list[list[Row]]:
    return [single(100 + k, STEPS) for k in range(64)]


class TestTheSameConversations:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("num_envs", [1, 64])
    def test_with_one_environment_or_with_64(self, alone: list[list[Row]], mode: AutoresetMode, num_envs: int) -> None:
        """Slot k with seed s is the single environment with seed s + k, through all the episodes that follow."""
        together = vector(mode, num_envs, 100, STEPS)
        for k in range(num_envs):
            assert together[k] == alone[k], f"slot {k}"
        assert sum(row[2] or row[3] for slot in together for row in slot) >= num_envs

    def test_a_seed_per_slot(self) -> None:
        env = UGSTVectorEnv(3, user="scripted")
        one, _ = env.reset(seed=[5, 5, 9])
        assert (one[0] == one[1]).all()
        assert not (one[0] == one[2]).all()

    def test_steps_of_others_do_not_matter(self) -> None:
        """A slot whose neighbours do something else lives through the same conversation."""
        said = []
        for other in (REQ_MORE, BYE):
            env = UGSTVectorEnv(2, user="scripted")
            env.reset(seed=0)
            texts = []
            for _ in range(4):
                infos = env.step(np.array([REQ_MORE, other]))[4]
                texts.append(infos["user_text"][0])
            said.append(texts)
        assert said[0] == said[1]


class Counting:
    """A scripted user that notes the batches that it is asked for."""

    def __init__(self, world: World) -> None:
        self.user = ScriptedUser(world, vocabulary_of(world))
        self.needs_state = True
        self.batches: list[int] = []
        self.alive: set[str] = set()
        self.forgotten: list[str] = []

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        self.batches.append(len(requests))
        self.alive |= {request.episode for request in requests}
        return self.user.reply(requests)

    def forget(self, episodes: Sequence[str]) -> None:
        self.forgotten += episodes
        self.alive -= set(episodes)


class TestBatches:
    def test_one_batch_per_step(self, world: World) -> None:
        user = Counting(world)
        env = gymnasium.make_vec("UGST-v0", num_envs=64, user=user)
        assert isinstance(env, UGSTVectorEnv)
        env.reset(seed=0)
        assert user.batches == [64]
        slots = np.arange(64)
        for step in range(12):
            # Some leave, so that episodes begin while others go on.
            env.step(np.where(slots % 9 == step % 9, BYE, REQ_MORE))
            assert len(user.batches) == step + 2
        # An agent that leaves needs no reply; its slot opens anew in the next step's batch, with those that go on.
        assert all(40 < size <= 64 for size in user.batches)
        env.close()

    @pytest.mark.parametrize("mode", MODES)
    def test_no_more_than_what_waits_is_asked(self, world: World, mode: AutoresetMode) -> None:
        user = Counting(world)
        env = UGSTVectorEnv(4, user=user, autoreset_mode=mode)
        env.reset(seed=0)
        env.step(np.array([REQ_MORE, BYE, REQ_MORE, BYE]))
        expected = [4, 2, 2] if mode is AutoresetMode.SAME_STEP else [4, 2]
        assert user.batches == expected

    @pytest.mark.parametrize("mode", MODES)
    def test_nothing_grows_and_nothing_stays(self, world: World, mode: AutoresetMode) -> None:
        user = Counting(world)
        env = UGSTVectorEnv(4, user=user, autoreset_mode=mode, max_turns=2)
        env.reset(seed=0)
        for step in range(30):
            _, _, terminations, truncations, _ = env.step(np.full(4, REQ_MORE if step % 3 else BYE))
            assert len(user.alive) <= 4
            ended = terminations | truncations
            if mode is AutoresetMode.DISABLED and ended.any():
                env.reset(options={"reset_mask": ended})
            if step % 7 == 0:
                env.reset()  # in the middle of the conversations
        env.close()
        assert user.alive == set()
        assert len(user.forgotten) == len(set(user.forgotten))


class TestAutoreset:
    def test_next_step_ignores_the_action_that_follows_an_end(self) -> None:
        env = UGSTVectorEnv(2, user="scripted", autoreset_mode="next_step")
        env.reset(seed=0)
        _, _, terminations, _, infos = env.step(np.array([BYE, REQ_MORE]))
        assert terminations.tolist() == [True, False]
        assert infos["outcome"][0] == "agent_ended"
        observations, rewards, terminations, truncations, infos = env.step(np.array([BYE, REQ_MORE]))
        assert rewards[0] == 0
        assert not (terminations | truncations).any()
        assert infos["user_text"][0]
        assert env.observation_space.contains(observations)

    def test_same_step_gives_the_end_and_the_beginning(self) -> None:
        env = UGSTVectorEnv(2, user="scripted", autoreset_mode=AutoresetMode.SAME_STEP)
        env.reset(seed=0)
        observations, rewards, terminations, _, infos = env.step(np.array([BYE, REQ_MORE]))
        assert terminations.tolist() == [True, False]
        assert rewards[0] == pytest.approx(-0.01)
        assert infos["_final_obs"].tolist() == [True, False]
        assert infos["_final_info"].tolist() == [True, False]
        assert infos["final_obs"][0].shape == (OBSERVATION_SIZE,)
        assert not (infos["final_obs"][0] == observations[0]).all()
        assert infos["final_info"]["outcome"][0] == "agent_ended"
        assert infos["user_text"][0]

    def test_disabled_waits_for_the_caller(self) -> None:
        env = UGSTVectorEnv(3, user="scripted", autoreset_mode=AutoresetMode.DISABLED)
        env.reset(seed=0)
        before = env.step(np.array([BYE, REQ_MORE, REQ_MORE]))[0]
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"slots \[0\] are over"):
            env.step(np.full(3, REQ_MORE))
        after, infos = env.reset(options={"reset_mask": np.array([True, False, False])})
        assert not (after[0] == before[0]).all()
        assert (after[1:] == before[1:]).all()
        assert infos["_user_text"].tolist() == [True, False, False]
        env.step(np.full(3, REQ_MORE))

    def test_a_partial_reset_leaves_the_others_seed_alone(self) -> None:
        said = []
        for partial in (False, True):
            env = UGSTVectorEnv(2, user="scripted", autoreset_mode=AutoresetMode.DISABLED)
            env.reset(seed=0)
            if partial:
                env.reset(seed=77, options={"reset_mask": np.array([True, False])})
            said.append(env.step(np.full(2, REQ_MORE))[4]["user_text"][1])
        assert said[0] == said[1]

    def test_infos_of_failed_openings_come_with_the_first_step(self) -> None:
        class Mute:
            def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
                return [UserReply("") for _ in requests]

        env = UGSTVectorEnv(2, user=Mute())
        env.reset(seed=0)
        _, rewards, terminations, truncations, infos = env.step(np.full(2, REQ_MORE))
        assert (truncations & ~terminations).all()
        assert rewards.tolist() == [0.0, 0.0]
        assert infos["outcome"].tolist() == ["model_error"] * 2

    def test_one_bad_reply_ends_one_conversation_only(self) -> None:
        class Half:
            def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
                texts = ["I am looking for a restaurant.", "" if requests[0].turn else "I need a train."]
                return [UserReply(texts[k % 2]) for k in range(len(requests))]

        env = UGSTVectorEnv(2, user=Half())
        env.reset(seed=0)
        _, _, _, truncations, _ = env.step(np.full(2, REQ_MORE))
        assert truncations.tolist() == [False, True]


def plain(infos: Any) -> Any:
    """Vector infos as nested lists, to be compared."""
    if isinstance(infos, dict):
        return {key: plain(value) for key, value in infos.items()}
    return (infos.dtype, infos.tolist())


class TestGymnasium:
    def test_infos_are_gathered_as_gymnasium_does_it(self) -> None:
        slots = [
            {"text": "a", "mask": np.ones(4, dtype=np.int8), "terms": {"gain": 0.5, "cost": 1.0}},
            {"text": "b", "mask": np.zeros(4, dtype=np.int8), "terms": {"gain": 0.1}, "outcome": None, "success": True},
            {"final_obs": np.arange(3.0), "final_info": {"text": "c", "failed": {"policy": {"USER": 2}}}, "turns": 3},
            {"final_obs": np.arange(3.0), "final_info": {"text": "d", "failed": {}}, "turns": 4, "text": "e"},
        ]
        ours, theirs = UGSTVectorEnv(5, user="scripted"), VectorEnv[Any, Any, Any]()
        theirs.num_envs = 5
        found: list[Any] = []
        for env in (ours, theirs):
            infos: dict[str, Any] = {}
            for k, info in enumerate(slots):
                infos = env._add_info(infos, info, k)
            found.append(plain(infos))
        assert found[0] == found[1]
        assert found[0]["final_info"]["_text"][1] == [False, False, True, True, False]

    def test_its_spaces_and_metadata(self) -> None:
        env = UGSTVectorEnv(3, user="scripted")
        assert env.single_action_space == gymnasium.spaces.Discrete(44)
        assert env.action_space.shape == (3,)
        assert env.observation_space.shape == (3, OBSERVATION_SIZE)
        assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        assert UGSTVectorEnv(1, user="scripted", autoreset_mode="SameStep").autoreset_mode is AutoresetMode.SAME_STEP

    @pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
    def test_episode_statistics_are_counted_right(self, mode: AutoresetMode) -> None:
        if mode is AutoresetMode.SAME_STEP and gymnasium.__version__ < "1.3":
            pytest.skip(f"Gymnasium {gymnasium.__version__} itself counts too few steps in this mode")
        env = RecordEpisodeStatistics(UGSTVectorEnv(3, user="scripted", autoreset_mode=mode, max_turns=4))
        observations, infos = env.reset(seed=0)
        totals, lengths, finished = np.zeros(3), np.zeros(3, dtype=int), 0
        ended = np.zeros(3, dtype=bool)
        for _ in range(25):
            masks = env.unwrapped.action_masks()  # type: ignore[attr-defined]
            actions = np.array([policy(observations[k], masks[k]) for k in range(3)])
            starting = ended if mode is AutoresetMode.NEXT_STEP else np.zeros(3, dtype=bool)
            observations, rewards, terminations, truncations, infos = env.step(actions)
            totals += rewards
            lengths += ~starting
            ended = terminations | truncations
            statistics = infos["final_info"] if mode is AutoresetMode.SAME_STEP and ended.any() else infos
            for k in np.flatnonzero(ended):
                source = statistics if "episode" in statistics else infos
                assert source["episode"]["r"][k] == pytest.approx(totals[k], abs=1e-5)
                assert source["episode"]["l"][k] == lengths[k]
                totals[k], lengths[k], finished = 0, 0, finished + 1
        assert finished > 5

    @pytest.mark.parametrize(("mode", "kind"), [("sync", SyncVectorEnv), ("async", AsyncVectorEnv)])
    def test_gymnasiums_own_vector_envs_hold_it_too(self, mode: str, kind: type[VectorEnv[Any, Any, Any]]) -> None:
        env = gymnasium.make_vec("UGST-v0", num_envs=2, vectorization_mode=mode, user="scripted")
        try:
            assert isinstance(env, kind)
            ours = UGSTVectorEnv(2, user="scripted")
            theirs, info = env.reset(seed=3)
            mine, my_info = ours.reset(seed=3)
            assert (theirs == mine).all()
            for _ in range(12):
                theirs, rewards, *_, info = env.step(np.full(2, REQ_MORE))
                mine, my_rewards, *_, my_info = ours.step(np.full(2, REQ_MORE))
                assert (theirs == mine).all()
                assert rewards.tolist() == pytest.approx(my_rewards.tolist())
                assert info["user_text"].tolist() == my_info["user_text"].tolist()
        finally:
            env.close()

    def test_goals_per_slot(self) -> None:
        env = UGSTVectorEnv(2, user="scripted", goals=[FIND_THAI, BOOK_THAI])
        env.reset(seed=0, options={"goals": [1, 0]})
        assert [state.goal for state in env.goal_states] == [BOOK_THAI, FIND_THAI]
        env.reset(seed=0, options={"goal": 0})
        assert [state.goal for state in env.goal_states] == [FIND_THAI, FIND_THAI]

    def test_render(self) -> None:
        env = UGSTVectorEnv(2, user="scripted", render_mode="ansi")
        env.reset(seed=0)
        pictures = env.render()
        assert pictures is not None
        assert len(pictures) == 2
        assert all("goal state" in picture for picture in pictures)
        assert UGSTVectorEnv(1, user="scripted").render() is None

    def test_observations_do_not_change_afterwards(self) -> None:
        env = UGSTVectorEnv(2, user="scripted")
        first, infos = env.reset(seed=0)
        copy, masks = first.copy(), [mask.copy() for mask in infos["action_mask"]]
        env.step(np.full(2, REQ_MORE))
        assert (first == copy).all()
        assert all((a == b).all() for a, b in zip(infos["action_mask"], masks, strict=True))


@pytest.mark.parametrize(("before", "after"), [(700, 12800), (0, 0), (50000, 50000)])
def test_the_garbage_collector_waits_for_whole_steps_unless_it_waits_longer_or_is_off(before: int, after: int) -> None:
    young, *older = gc.get_threshold()
    try:
        gc.set_threshold(before, *older)
        UGSTVectorEnv(num_envs=64, user="scripted").close()
        assert gc.get_threshold() == (after, *older)
    finally:
        gc.set_threshold(young, *older)
