"""UGSTText-v0: words and tool calls, the same reward as the discrete environment, alone and in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from dialogues import BOOK_THAI, FIND_THAI

from ugst_env.envs.discrete import UGSTEnv
from ugst_env.envs.text import CHARSET, MAX_AGENT_TEXT, MAX_OBSERVATION, MAX_TOOL_CALLS, SILENCE, WAIT, UGSTTextEnv
from ugst_env.envs.vector import UGSTTextVectorEnv
from ugst_env.training.clerks import handcrafted
from ugst_env.users.protocol import UserReply


@pytest.fixture
def env() -> Iterator[UGSTTextEnv]:
    made = UGSTTextEnv(user="scripted", goals=BOOK_THAI, privileged=True)
    yield made
    made.close()


def call(tool: str, **arguments: Any) -> str:
    return json.dumps({"name": tool, "arguments": arguments})


def booking(act: Any) -> str:
    """The tool call that carries out a booking act."""
    handle = "trainID" if act.domain == "train" else "name"
    numbers = {slot: int(value) if slot in ("people", "stay") else value for slot, value in act.booking.items()}
    return call(f"book_{act.domain}", **{handle: act.entity}, **numbers)


@pytest.mark.parametrize("user", ["scripted", "ugst-tiny"])
def test_the_words_of_acts_are_worth_what_the_acts_are(user: str) -> None:
    """An agent that says what UGST-v0's agent says meets the same user, the same goal states and the same rewards."""
    episodes = 60 if user == "scripted" else 6
    acting, speaking = (kind(user=user, goals="challenge:val") for kind in (UGSTEnv, UGSTTextEnv))
    for seed in range(episodes):
        observation, info = acting.reset(seed=seed)
        _, spoken_info = speaking.reset(seed=seed)
        rng, over = np.random.default_rng(seed), False
        while not over:
            allowed = np.flatnonzero(info["action_mask"][:-1])  # The last action is goodbye: words can't end the talk.
            action = handcrafted(observation, info["action_mask"]) if seed % 3 else rng.choice(allowed)
            observation, reward, terminated, truncated, info = acting.step(int(action))
            episode, other = acting.core.episode, speaking.core.episode
            assert episode is not None
            assert other is not None
            act = episode.belief.last_act
            if act is not None and act.kind == "bye":
                break
            if act is not None and act.kind == "book":
                result, nothing, *_ = speaking.step(booking(act))
                assert nothing == 0
                assert json.loads(result).get("reference") == act.reference
            heard, same, *ends, spoken_info = speaking.step(info["agent_text"])
            assert same == pytest.approx(reward)
            assert ends == [terminated, truncated]
            assert other.state == episode.state
            assert spoken_info["user_text"] == info["user_text"]
            assert heard == info["user_text"]
            over = terminated or truncated
    acting.close()
    speaking.close()


class TestTools:
    def test_a_booking_by_hand(self, env: UGSTTextEnv) -> None:
        """From the first search to the reference, in an agent's own words."""
        opening, info = env.reset(seed=0)
        assert opening == info["messages"][-1]["content"]
        assert {tool["function"]["name"] for tool in info["tools"]} >= {"search_hotel", "train_details", "book_train"}
        found = json.loads(env.step(call("search_restaurant", food="Thai", area="south"))[0])
        assert found["count"] == 1
        name = found["results"][0]["name"]
        assert name == "Bangkok Orchid"
        known = json.loads(env.step(call("restaurant_details", name=name))[0])
        env.step(f"I found {name}, a Thai restaurant in the south. How many of you will be eating, and when?")
        for _ in range(4):
            _, _, terminated, truncated, _ = env.step(f"Their phone number is {known['phone']}. Which day and time?")
            assert not terminated
            assert not truncated
            if "19:00" in str(env.core.shown().belief.values) and "monday" in str(env.core.shown().belief.values):
                break
        made = env.step(call("book_restaurant", name=name, people=2, day="Monday", time="19:00"))[0]
        reference = json.loads(made)["reference"]
        _, _, terminated, _, info = env.step(f"Done. Your reference is {reference}.")
        assert terminated
        assert info["success"]
        assert [m["role"] for m in info["messages"][:4]] == ["user", "assistant", "tool", "assistant"]
        assert info["messages"][1]["tool_calls"][0]["id"] == info["messages"][2]["tool_call_id"]

    @pytest.mark.parametrize(
        "message",
        [
            '{"name": "search_restaurant", "arguments": {"area": "south"}}',
            '{"name": "search_restaurant", "parameters": {"area": "South"}}',
            'Let me look. <tool_call>\n{"name": "search_restaurant", "arguments": {"area": "south"}}\n</tool_call>',
            '```json\n{"name": "search_restaurant", "arguments": {"area": "south"}}\n```',
            '[{"name": "search_restaurant", "arguments": {"area": "south"}}]',
            '{"tool_calls": [{"id": "1", "type": "function", "function": '
            '{"name": "search_restaurant", "arguments": "{\\"area\\": \\"south\\"}"}}]}',
        ],
    )
    def test_every_common_form_of_a_call(self, env: UGSTTextEnv, message: str) -> None:
        env.reset(seed=0)
        observation, reward, *_ = env.step(message)
        assert json.loads(observation)["count"] > 5
        assert reward == 0
        assert env.core.shown().turn == 1

    @pytest.mark.parametrize(
        ("message", "told"),
        [
            ("{", "no JSON"),
            ('{"name": 3}', "a tool call is"),
            ('{"status": "COMPLETE"}', "a tool call is"),
            ('{"name": "end_conversation", "arguments": {}}', "there is no tool 'end_conversation'"),
            ('{"name": "search_hotel", "arguments": [1]}', "no JSON object"),
            ('{"name": "search_hotel", "arguments": "{"}', "no JSON object"),
            (call("search_hotel", colour="red"), "does not take 'colour'"),
            (call("search_hotel", area="downtown"), "area must be one of centre, north"),
            (call("search_train", leaveAt="soon"), "HH:MM"),
            (call("search_hotel", area=["north"]), "area must be a string"),
            (call("hotel_details"), "needs 'name'"),
            (call("hotel_details", name="Nowhere Inn"), "there is no hotel 'nowhere inn'"),
            (call("book_restaurant", name="Bangkok Orchid", people=0, day="monday", time="19:00"), "people must be"),
            (call("book_restaurant", name="Bangkok Orchid", people=True, day="monday", time="19:00"), "people must be"),
            ("<tool_call></tool_call>", "no JSON"),
            ("[" * 4000, "no JSON"),
            ('{"tool_calls": []}', "list of tool calls is empty"),
        ],
    )
    def test_a_malformed_call_is_answered_with_what_is_wrong(self, env: UGSTTextEnv, message: str, told: str) -> None:
        env.reset(seed=0)
        before = env.goal_state
        observation, reward, terminated, truncated, info = env.step(message)
        if message.startswith("[["):
            assert env.core.shown().turn == 2  # No call at all, but words, and a turn.
            return
        assert told in json.loads(observation)["error"]
        assert (reward, terminated, truncated) == (0, False, False)
        assert env.goal_state == before
        assert info["messages"][-1]["role"] == "tool"

    def test_several_calls_at_once_have_a_line_each(self, env: UGSTTextEnv) -> None:
        env.reset(seed=0)
        both = "".join(f"<tool_call>{call('search_hotel', area=area)}</tool_call>" for area in ("north", "south"))
        results = [json.loads(line) for line in env.step(both)[0].split("\n")]
        assert len(results) == 2
        assert all(result["count"] for result in results)

    def test_calls_between_two_messages_are_bounded(self, env: UGSTTextEnv) -> None:
        env.reset(seed=0)
        for _ in range(MAX_TOOL_CALLS):
            assert "count" in env.step(call("search_hotel"))[0]
        assert env.core.shown().turn == 1
        _, _, _, _, info = env.step(call("search_hotel"))
        assert info["agent_text"] == WAIT
        assert env.core.shown().turn == 2
        many = "".join(f"<tool_call>{call('search_hotel')}</tool_call>" for _ in range(MAX_TOOL_CALLS + 2))
        results = [json.loads(line) for line in env.step(many)[0].split("\n")]
        assert ["error" in result for result in results] == [False] * MAX_TOOL_CALLS + [True] * 2

    def test_an_agent_that_only_calls_tools_comes_to_an_end(self, env: UGSTTextEnv) -> None:
        env.reset(seed=0)
        for _ in range(12 * (MAX_TOOL_CALLS + 1)):
            _, _, terminated, truncated, info = env.step(call("search_hotel"))
            if terminated or truncated:
                break
        assert info["outcome"] in ("turn_limit", "user_ended")

    def test_one_booking_of_a_kind_until_the_user_hears_of_it(self, env: UGSTTextEnv) -> None:
        """Else an agent could book everything there is and have the right one among it."""
        env.reset(seed=0)
        details = {"people": 2, "day": "monday", "time": "19:00"}
        assert "reference" in env.step(call("book_restaurant", name="Abyssinia Table", **details))[0]
        again = env.step(call("book_restaurant", name="Bangkok Orchid", **details))[0]
        assert "booked already" in json.loads(again)["error"]


class TestTheContract:
    def test_the_vector_env_lives_through_what_single_ones_do(self) -> None:
        def policy(k: int, step: int) -> str:
            return ("Which area?", call("search_hotel", area="north"), "How about Kittiwake Lodge?", "{")[
                (k + step) % 4
            ]

        together = UGSTTextVectorEnv(5, user="ugst-tiny", goals="challenge:val", autoreset_mode="disabled")
        observations, infos = together.reset(seed=20)
        assert together.observation_space.contains(observations)
        rows = [[observation] for observation in observations]
        for step in range(6):
            observations, rewards, *_, infos = together.step([policy(k, step) for k in range(5)])
            assert together.observation_space.contains(observations)
            for k in range(5):
                rows[k].append((observations[k], rewards[k], len(infos["messages"][k])))
        together.close()
        for k in range(5):
            alone = UGSTTextEnv(user="ugst-tiny", goals="challenge:val")
            row: list[Any] = [alone.reset(seed=20 + k)[0]]
            for step in range(6):
                observation, reward, *_, info = alone.step(policy(k, step))
                row.append((observation, reward, len(info["messages"])))
            alone.close()
            assert rows[k] == row

    def test_make_vec_gives_one_batch_per_step(self) -> None:
        env = gymnasium.make_vec("UGSTText-v0", num_envs=3, user="scripted", goals=[FIND_THAI, BOOK_THAI])
        assert isinstance(env, UGSTTextVectorEnv)
        env.reset(seed=0, options={"goals": [0, 1, 0]})
        for wrong in ("hello", ["a", "b"], [1, 2, 3], None):
            with pytest.raises(ValueError, match="string"):
                env.step(wrong)
        env.close()

    @pytest.mark.parametrize("action", [3, None, b"hello", ["hello"]])
    def test_an_action_is_a_string(self, env: UGSTTextEnv, action: Any) -> None:
        env.reset(seed=0)
        with pytest.raises(ValueError, match="action must be a string"):
            env.step(action)

    @pytest.mark.parametrize("message", ["", "   \n\t ", "\x00\x1b[;", "\u200b\u202e", "!?"])
    def test_silence_is_a_turn(self, env: UGSTTextEnv, message: str) -> None:
        env.reset(seed=0)
        _, reward, *_, info = env.step(message)
        assert info["agent_text"] == SILENCE
        assert reward <= 0

    def test_a_message_without_end_is_cut(self, env: UGSTTextEnv) -> None:
        env.reset(seed=0)
        *_, info = env.step("word " * 20_000)
        assert len(info["agent_text"]) <= MAX_AGENT_TEXT

    def test_observations_stay_in_the_space_whatever_the_user_says(self) -> None:
        class Babel:
            """A user that speaks in tongues, which is what a served model may do."""

            needs_state = False

            def reply(self, requests: Any) -> list[UserReply]:
                texts = ("Grüß Gott, 東京! \u202edlrow\u200b", "a\x00b\tc", "né\u0301e \U0001f600", "x" * 2000)
                return [UserReply(texts[request.turn % 4]) for request in requests]

        env = UGSTTextEnv(user=Babel())
        observation, info = env.reset(seed=0)
        assert observation == "Gru? Gott, ??! dlrow"
        assert info["user_text"] == "Grüß Gott, 東京! \u202edlrow\u200b"
        for _ in range(4):
            observation, *_ = env.step("Which area?")
            assert env.observation_space.contains(observation)
            assert set(observation) <= CHARSET
            assert len(observation) <= MAX_OBSERVATION
