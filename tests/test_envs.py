"""The single environment: Gymnasium's contract, seeding, masks, what info may tell, and what a failing user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from dialogues import BOOK_THAI, FIND_THAI
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import ugst_env
from ugst_env.envs.actions import ACTION_INDEX, ACTIONS, LAYOUT, OBSERVATION_SIZE, Action
from ugst_env.envs.discrete import UGSTEnv
from ugst_env.envs.episode import MAX_USER_TEXT
from ugst_env.goal import UserGoal
from ugst_env.training.clerks import handcrafted
from ugst_env.users.protocol import UserReply, UserRequest

IDS = sorted(name for name in gymnasium.registry if name.startswith("UGST"))
BYE = ACTION_INDEX[Action("bye")]
REQ_MORE = ACTION_INDEX[Action("req_more")]


@pytest.fixture
def env() -> Iterator[UGSTEnv]:
    made = UGSTEnv(user="scripted")
    yield made
    made.close()


def rollout(env: gymnasium.Env[Any, Any], seed: int, *, policy: str = "random", episodes: int = 2) -> list[Any]:
    """Everything that an environment says over some episodes."""
    rng, said = np.random.default_rng(seed), []
    for episode in range(episodes):
        observation, info = env.reset(seed=seed if episode == 0 else None)
        said.append((observation.tolist(), _plain(info)))
        over = False
        while not over:
            mask = info["action_mask"]
            action = handcrafted(observation, mask) if policy == "competent" else rng.choice(np.flatnonzero(mask))
            observation, reward, terminated, truncated, info = env.step(int(action))
            assert env.observation_space.contains(observation)
            assert not (terminated and truncated)
            over = terminated or truncated
            said.append((observation.tolist(), reward, terminated, truncated, _plain(info)))
    return said


def _plain(info: Any) -> Any:
    if isinstance(info, dict):
        return {key: _plain(value) for key, value in info.items()}
    return info.tolist() if isinstance(info, np.ndarray) else info


def strings(thing: Any) -> Iterator[str]:
    """All strings in nested containers, keys included."""
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from strings(key)
            yield from strings(value)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from strings(value)


class TestGymnasiumsContract:
    @pytest.mark.parametrize("name", IDS)
    def test_the_checkers_have_nothing_to_say(self, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = gymnasium.make(name, user="scripted")
            check_env(env.unwrapped, skip_render_check=False)
            # SB3 knows no text spaces: it is for the discrete face.
            if isinstance(env.action_space, gymnasium.spaces.Discrete):
                sb3_check_env(env.unwrapped)
            env.close()

    def test_the_id_is_registered_with_its_vector_env(self) -> None:
        assert "UGST-v0" in IDS
        assert gymnasium.spec("UGST-v0").vector_entry_point is not None
        assert gymnasium.spec("UGST-v0").max_episode_steps is None
        assert ugst_env.__version__

    def test_spaces(self, env: UGSTEnv) -> None:
        assert env.action_space == gymnasium.spaces.Discrete(44)
        assert env.observation_space == gymnasium.spaces.Box(0.0, 1.0, (OBSERVATION_SIZE,), np.float32)
        assert len(ACTIONS) == len(set(ACTIONS)) == 44

    def test_the_layout_covers_the_observation_once(self) -> None:
        places = [index for part in LAYOUT.values() for index in range(part.start, part.stop)]
        assert places == list(range(OBSERVATION_SIZE))

    @pytest.mark.parametrize("policy", ["random", "competent"])
    def test_the_same_seed_gives_the_same_everything(self, policy: str) -> None:
        for seed in (0, 7):
            first, second = (rollout(UGSTEnv(user="scripted"), seed, policy=policy) for _ in range(2))
            assert first == second
        assert first != rollout(UGSTEnv(user="scripted"), 8, policy=policy)

    def test_a_reset_with_the_seed_starts_over(self, env: UGSTEnv) -> None:
        assert rollout(env, 3) == rollout(env, 3)

    def test_the_seed_rules_in_another_process_too(self) -> None:
        code = (
            "import ugst_env, gymnasium; env = gymnasium.make('UGST-v0', user='scripted'); "
            "print(env.reset(seed=11)[1]['user_text']); print(env.step(42)[4]['user_text'])"
        )
        root = Path(ugst_env.__file__).parents[1]
        said = {
            subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=True,
                cwd=root,
                env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
            ).stdout
            for hash_seed in ("1", "2")
        }
        assert len(said) == 1

    def test_observations_and_infos_are_not_shared_between_calls(self, env: UGSTEnv) -> None:
        observation, info = env.reset(seed=0)
        copy, mask = observation.copy(), info["action_mask"].copy()
        later, later_info, *_ = env.step(REQ_MORE)[0], env.step(REQ_MORE)[4]
        later[:] = 9
        later_info["action_mask"][:] = 9
        assert (observation == copy).all()
        assert (info["action_mask"] == mask).all()

    def test_copies_of_the_global_generators_stay_untouched(self, env: UGSTEnv) -> None:
        import random

        random.seed(5)
        np.random.seed(5)
        before = (random.getstate(), np.random.get_state()[1].tolist())
        rollout(env, 1)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before


class TestMasks:
    def test_the_mask_is_in_info_and_from_the_method_alike(self, env: UGSTEnv) -> None:
        _, info = env.reset(seed=2)
        assert info["action_mask"].dtype == np.int8
        assert (info["action_mask"] == env.action_masks()).all()

    def test_a_masked_out_action_does_no_harm(self, env: UGSTEnv) -> None:
        """It becomes "sorry, could you say that again?": it costs a turn and changes nothing else."""
        for seed in range(5):
            _, info = env.reset(seed=seed)
            for action in np.flatnonzero(info["action_mask"] == 0)[::4]:
                env.reset(seed=seed)
                belief = dict(env.core.episode.belief.values) if env.core.episode else {}
                _, reward, terminated, truncated, after = env.step(int(action))
                assert reward <= 0
                assert not truncated
                assert not terminated
                assert after["reward_terms"]["potential"] == 0
                heard = env.core.episode.belief.values if env.core.episode else {}
                assert belief.items() <= heard.items()

    def test_allowed_actions_never_lie(self, env: UGSTEnv) -> None:
        """Whatever a masked agent does, it tells the truth and books what it was told."""
        rng = np.random.default_rng(0)
        for seed in range(25):
            _, info = env.reset(seed=seed)
            over = False
            while not over:
                allowed = np.flatnonzero(info["action_mask"])
                _, _, terminated, truncated, info = env.step(int(rng.choice(allowed[allowed != BYE])))
                over = terminated or truncated
            assert env.core.episode is not None
            modes = {fault.mode for fault in env.core.episode.tracked.faults if fault.cause.value == "AGENT"}
            assert modes <= {"stalled", "left"}, env.core.episode.tracked.faults


class TestTheEnd:
    def test_bye_ends_the_conversation(self, env: UGSTEnv) -> None:
        env.reset(seed=0)
        _, reward, terminated, truncated, info = env.step(BYE)
        assert (terminated, truncated, info["outcome"]) == (True, False, "agent_ended")
        assert reward == pytest.approx(-0.01)
        assert info["success"] is False

    @pytest.mark.parametrize("limit", [1, 3])
    def test_the_turn_limit_truncates(self, limit: int) -> None:
        env = UGSTEnv(user="scripted", max_turns=limit)
        env.reset(seed=0)
        for turn in range(limit):
            _, _, terminated, truncated, info = env.step(REQ_MORE)
            assert not terminated
            assert truncated is (turn == limit - 1)
        assert info["outcome"] == "turn_limit"

    def test_a_good_clerk_is_paid(self, env: UGSTEnv) -> None:
        returns = []
        for seed in range(20):
            observation, info = env.reset(seed=seed)
            total, over = 0.0, False
            while not over:
                observation, reward, terminated, truncated, info = env.step(
                    handcrafted(observation, info["action_mask"])
                )
                total += reward
                over = terminated or truncated
            assert info["success"] is (total > 0.7) or truncated
            returns.append(total)
        assert np.mean(returns) > 0.8

    def test_terms_add_up_to_the_reward(self, env: UGSTEnv) -> None:
        observation, info = env.reset(seed=4)
        assert info["reward_terms"] == {}
        over = False
        while not over:
            observation, reward, terminated, truncated, info = env.step(handcrafted(observation, info["action_mask"]))
            assert sum(info["reward_terms"].values()) == pytest.approx(reward)
            assert set(info["reward_terms"]) == {"potential", "turn_cost", "success_bonus"}
            over = terminated or truncated


class TestInfo:
    KEYS: frozenset[str] = frozenset({"action_mask", "user_text", "agent_text", "reward_terms"})
    LAST: frozenset[str] = frozenset({"outcome", "success", "trust", "failed", "user_success"})

    def test_its_keys(self, env: UGSTEnv) -> None:
        observation, info = env.reset(seed=1)
        assert set(info) == self.KEYS
        assert info["user_text"]
        assert info["agent_text"] == ""
        over = False
        while not over:
            observation, _, terminated, truncated, info = env.step(handcrafted(observation, info["action_mask"]))
            over = terminated or truncated
            assert set(info) == (self.KEYS | self.LAST if over else self.KEYS)
            assert info["agent_text"]
        json.dumps(_plain(info))

    def test_it_holds_nothing_of_the_goal(self, env: UGSTEnv) -> None:
        for seed in range(15):
            observation, info = env.reset(seed=seed)
            goal = env.goal_state.goal
            texts = {part.text for part in goal.components} | {goal.id}
            over = False
            while not over:
                said = set(strings(_plain(info)))
                spoken = {info["user_text"], info["agent_text"]}
                assert not any(text in other for other in said - spoken for text in texts)
                # Every other string is the name of a key, an outcome, a category or a cause.
                assert all(len(other) < 20 and " " not in other for other in said - spoken)
                observation, _, terminated, truncated, info = env.step(handcrafted(observation, info["action_mask"]))
                over = terminated or truncated

    def test_the_observation_is_the_same_whatever_the_goal_hides(self) -> None:
        """Two goals, one user that says the same: the agent cannot tell them apart."""

        class Parrot:
            def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
                return [UserReply("I am looking for a Thai restaurant in the south.") for _ in requests]

        seen = []
        for goal in (FIND_THAI, BOOK_THAI):
            env = UGSTEnv(user=Parrot(), goals=goal)
            observation, info = env.reset(seed=0)
            after, *_ = env.step(REQ_MORE)
            seen.append((observation.tolist(), _plain(info), after.tolist()))
        assert seen[0] == seen[1]

    def test_privileged_tells_all_and_is_json_able(self) -> None:
        env = UGSTEnv(user="scripted", goals=FIND_THAI, privileged=True)
        _, info = env.reset(seed=0)
        state = json.loads(json.dumps(info["goal_state"]))
        assert [record["id"] for record in state] == [part.id for part in FIND_THAI.components]
        assert {record["status"] for record in state} <= {
            "INCOMPLETE",
            "ATTEMPTED",
            "COMPLETE",
            "ALIGNED",
            "MISALIGNED",
        }
        assert any(change["to"] == "ATTEMPTED" for change in json.loads(json.dumps(info["transitions"])))

    def test_goal_state_is_there_for_people(self, env: UGSTEnv) -> None:
        with pytest.raises(gymnasium.error.ResetNeeded):
            _ = env.goal_state
        env.reset(options={"goal": FIND_THAI})
        assert env.goal_state.goal is FIND_THAI


class TestGoals:
    def test_one_can_be_asked_for(self) -> None:
        env = UGSTEnv(user="scripted", goals=[FIND_THAI, BOOK_THAI])
        for index, goal in enumerate((FIND_THAI, BOOK_THAI)):
            env.reset(options={"goal": index})
            assert env.goal_state.goal is goal
        env.reset(options={"goal": BOOK_THAI})
        assert env.goal_state.goal is BOOK_THAI

    def test_a_function_draws_them(self) -> None:
        env = UGSTEnv(user="scripted", goals=lambda rng: rng.choice([FIND_THAI, BOOK_THAI]))
        drawn: set[UserGoal] = set()
        for seed in range(12):
            env.reset(seed=seed)
            drawn.add(env.goal_state.goal)
        assert drawn == {FIND_THAI, BOOK_THAI}


class TestRender:
    def test_ansi_returns_the_conversation_and_the_goal(self) -> None:
        env = UGSTEnv(user="scripted", goals=FIND_THAI, render_mode="ansi")
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.render()
        _, info = env.reset(seed=0)
        picture = env.render()
        assert picture is not None
        assert info["user_text"].split()[0] in picture
        assert "Find a restaurant." in picture
        assert "\x1b" not in picture

    def test_human_prints(self, capsys: pytest.CaptureFixture[str]) -> None:
        env = UGSTEnv(user="scripted", render_mode="human")
        env.reset(seed=0)
        env.step(REQ_MORE)
        printed = capsys.readouterr().out
        assert printed.count("goal state (hidden from the agent)") == 2

    def test_what_is_said_cannot_colour_the_terminal(self) -> None:
        class Painter:
            def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
                return [UserReply("[red]Hello[/red] \x1b[2J I want [bold]a train[/]") for _ in requests]

        env = UGSTEnv(user=Painter(), render_mode="ansi")
        env.reset(seed=0)
        picture = env.render()
        assert picture is not None
        assert "[red]Hello" in picture
        assert "\x1b" not in picture


class Failing:
    """A user that speaks well for some turns and then does something else."""

    def __init__(self, after: int, how: Any) -> None:
        self.after, self.how = after, how
        self.forgotten: list[str] = []

    def reply(self, requests: Sequence[UserRequest]) -> Any:
        if requests[0].turn < self.after:
            return [UserReply("I am looking for a restaurant.") for _ in requests]
        if isinstance(self.how, BaseException):
            raise self.how
        return self.how

    def forget(self, episodes: Sequence[str]) -> None:
        self.forgotten += episodes


FAILURES = {
    "None": (None, "must return a list of replies, got NoneType"),
    "a string": ("hello", "must return a list of replies, got str"),
    "too few": ([], "gave 0 replies to 1 requests"),
    "too many": ([UserReply("a"), UserReply("b")], "gave 2 replies to 1 requests"),
    "bare strings": (["hello"], "must reply with UserReply objects, got str"),
    "None inside": ([None], "must reply with UserReply objects, got NoneType"),
    "empty": ([UserReply("")], "an empty reply"),
    "blank": ([UserReply(" \n\t ")], "an empty reply"),
    "too long": ([UserReply("x" * 100_000)], f"returned 100000 characters, at most {MAX_USER_TEXT}"),
    "no text": ([UserReply(12)], "must reply with a string, got int"),  # type: ignore[arg-type]
    "an error": ([UserReply("", error="the server is down")], "the server is down"),
    "raises": (ConnectionError("refused"), "raised ConnectionError: refused"),
}


class TestAFailingUser:
    @pytest.mark.parametrize("how", FAILURES)
    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_the_episode_is_truncated_with_the_reason(self, how: str, after: int) -> None:
        user = Failing(after, FAILURES[how][0])
        env = UGSTEnv(user=user)
        observation, info = env.reset(seed=0)
        assert env.observation_space.contains(observation)
        assert "outcome" not in info
        for _ in range(max(0, after - 1)):
            _, _, terminated, truncated, _ = env.step(REQ_MORE)
            assert not (terminated or truncated)
        observation, reward, terminated, truncated, info = env.step(REQ_MORE)
        assert env.observation_space.contains(observation)
        assert (terminated, truncated) == (False, True)
        assert info["outcome"] == "model_error"
        assert FAILURES[how][1] in info["error"]
        assert reward <= 0
        # Nobody is to blame for a broken model.
        assert set(info["failed"].get("objective", {"NONE": 1})) == {"NONE"}
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(REQ_MORE)
        env.reset(seed=1)

    def test_other_exceptions_are_not_swallowed(self) -> None:
        env = UGSTEnv(user=Failing(0, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            env.reset(seed=0)

    def test_goodbye_on_its_own_ends_and_beside_business_does_not(self) -> None:
        for text, ends in (
            ("Thanks, that is all. Goodbye!", True),
            ("Bye the way, I want a train to Kestleford.", False),
        ):
            env = UGSTEnv(user=Failing(1, [UserReply(text)]))
            env.reset(seed=0)
            terminated = env.step(REQ_MORE)[2]
            assert terminated is ends

    def test_any_text_is_survived(self) -> None:
        for text in ("\ud800", "\x00" * 50, "😀" * 200, "{{}}" * 100, "(" * 1999, "a " * 999, "١٢٣ ½ ²", "<|im_end|>"):
            env = UGSTEnv(user=Failing(0, [UserReply(text)]), render_mode="ansi")
            env.reset(seed=0)
            assert env.observation_space.contains(env.step(REQ_MORE)[0])
            env.render()


class TestNothingIsLeftBehind:
    def test_every_conversation_is_forgotten_once(self) -> None:
        user = Failing(99, None)
        env = UGSTEnv(user=user)
        keys = []
        for seed in range(4):
            env.reset(seed=seed)
            assert env.core.episode is not None
            keys.append(env.core.episode.key)
            env.step(REQ_MORE)  # left in the middle
        assert user.forgotten == keys[:-1]
        env.close()
        env.close()
        assert user.forgotten == keys
        assert len(set(keys)) == 4
        assert env.core.episode is None

    def test_an_env_can_go_on_after_close(self, env: UGSTEnv) -> None:
        env.reset(seed=0)
        env.close()
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(REQ_MORE)
        env.reset(seed=0)
        env.step(REQ_MORE)
