"""Goals in plain words: what a judge is asked, what its verdicts do, and the two ways of judging."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import test_hostile
from conftest import SHARED
from gymnasium.utils.env_checker import check_env
from test_language_model_user import chat_tokenizer

from ugst_env.conversation import Conversation
from ugst_env.envs.episode import Episode
from ugst_env.envs.setup import NO_WORLD, make_setup, vocabulary_of
from ugst_env.envs.text import UGSTTextEnv
from ugst_env.envs.vector import UGSTTextVectorEnv
from ugst_env.goal import Ask, Category, Cause, Fact, Need, Objective, Rule, Status, UserGoal, Want
from ugst_env.goals.files import GoalFileError, dump_goals, load_goals
from ugst_env.goals.tau import load_tau_goals, read_instruction
from ugst_env.models.chat import Completion, Usage, read_json
from ugst_env.tracking.questions import DONE, KEPT, RAISED, Question, Verdict, ask_judge
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.users.protocol import UserReply
from ugst_env.world.database import World

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from agents.evaluate import evaluate  # noqa: E402
from ugst_env.tracking.judge import (  # noqa: E402
    GenerateJudge,
    ScoreJudge,
    load_judge,
    plain_speech,
    read_verdict,
    transcript,
    verdict_chat,
)

GOAL = UserGoal(
    (
        Objective(
            "",
            "do",
            (Need("The refund goes to the credit card."),),
            (Need("The refund comes by Friday."),),
            "Return the kettle of order W12.",
        ),
        Objective("", "do", text="Cancel order W13."),
    ),
    (Fact("text", "x", "Your name is Eva Brandt."),),
    (Rule("text", "x", "Never give your birthday."),),
    id="kettle",
)
MIXED = UserGoal(
    (Objective("restaurant", "find", (Want("food", "thai"), Ask("phone"), Need("Find out whether dogs are allowed."))),)
)
FLOOR = {"objective.0": DONE, "objective.0.requirement.0": DONE, "objective.0.preference.0": DONE, "objective.1": DONE}


class Scripted:
    """A conversation driven by hand: words of both sides, and a judge's verdicts as levels by component."""

    def __init__(self, goal: UserGoal = GOAL, world: World = NO_WORLD, **options: Any) -> None:
        self.episode = Episode(
            goal, VerifiableTracker(world), vocabulary_of(world), seed=0, judged=True, key="k", **options
        )
        self.asked: list[Question] = []

    def user(self, text: str, *, end: bool = False) -> Any:
        return self.episode.hear(UserReply(text, end=end))

    def agent(self, text: str) -> Any:
        return self.episode.act((), text)

    def judge(self, *broken: str, **levels: int) -> Any:
        self.asked = self.episode.questions()
        named = {name.replace("__", "."): level for name, level in levels.items()}
        verdicts = [
            Verdict(q.level, error="mumbled")
            if q.component.id in broken
            else Verdict(named.get(q.component.id, q.level))
            for q in self.asked
        ]
        return self.episode.judged(verdicts)

    def status(self, component: str) -> tuple[Status, Cause | None, bool]:
        now = self.episode.state[component]
        return now.status, now.cause, now.served


# ---------------------------------------------------------------------------------------------------- goals as data


def test_which_components_a_judge_is_for() -> None:
    assert [c.id for c in GOAL.plain] == [c.id for c in GOAL.components]
    assert [c.id for c in MIXED.plain] == ["objective.0.requirement.2"]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Objective("", "do"), "its text is empty"),
        (Objective("hotel", "do", text="x"), "has no domain, got 'hotel'"),
        (Objective("", "do", (Ask("phone"),), text="x"), "its parts must be Need, got Ask"),
    ],
)
def test_a_task_in_plain_words_that_makes_no_sense_is_refused(objective: Objective, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UserGoal((objective,))


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_goals_in_plain_words_are_written_and_read(tmp_path: Path, suffix: str) -> None:
    goals = (
        UserGoal(GOAL.objectives, (Fact("text", "You are calm.", "You are calm."),), id="kettle"),
        UserGoal(
            (*GOAL.objectives[1:], Objective("restaurant", "find", (Ask("phone", "Find out the phone number."),))),
        ),
    )
    dump_goals(goals, tmp_path / f"goals{suffix}")
    read = load_goals(tmp_path / f"goals{suffix}")
    assert read[0] == goals[0]
    assert read[1].objectives[0] == goals[1].objectives[0]


def test_a_goal_file_of_sentences(tmp_path: Path) -> None:
    file = tmp_path / "goals.yaml"
    file.write_text(
        "profile: [You are in a hurry.]\n"
        "objectives:\n"
        "  - Cancel the newspaper.\n"
        "  - text: Move the appointment.\n"
        "    requirements: [It must be after the 12th.]\n"
        "    preferences: [In the morning.]\n"
        "  - {domain: hotel, action: find, requirements: [{slot: area, value: east}, Ask whether it is quiet.]}\n"
    )
    (goal,) = load_goals(file)
    assert [c.text for c in goal.plain] == [
        "You are in a hurry.",
        "Cancel the newspaper.",
        "Move the appointment.",
        "It must be after the 12th.",
        "In the morning.",
        "Ask whether it is quiet.",
    ]
    file.write_text("objectives: [{requirements: [It must be cheap.]}]\n")
    with pytest.raises(GoalFileError, match="or a 'text' that says it in plain words"):
        load_goals(file)


def test_tasks_of_tau_bench_are_read_without_a_model(tmp_path: Path) -> None:
    goal = read_instruction(
        "Your name is Eva Brandt and your email is eva.brandt@example.com. You are shy, busy. Return #W1 via "
        "gift_card_2: Tea Kettle; Wall Clock; For #W3, exchange Lamp {'colour': 'red', 'size': 'small'} to {'colour': "
        "'blue'}; Mug {'size': 'big'} to {}; via paypal_4. Cancel order #W5 because ordered by mistake. "
    )
    assert [c.text for c in goal.components] == [
        "Your name is Eva Brandt.",
        "Your email is eva.brandt@example.com.",
        "You are shy, busy.",
        "Return Tea Kettle and Wall Clock from order #W1.",
        "The refund goes to gift card 2.",
        "Exchange items of order #W3.",
        "Instead of the Lamp with colour red and size small, one with colour blue.",
        "Another Mug with size big.",
        "The difference goes to paypal 4.",
        "Cancel order #W5.",
        "The reason is: ordered by mistake.",
    ]
    file = tmp_path / "tasks.json"
    tasks = [
        {"id": 7, "instruction": "Cancel order #W5 because no longer needed. "},
        {"instruction": "Do as you like."},
    ]
    file.write_text(json.dumps(tasks))
    goals, left_out = load_tau_goals(file)
    assert [goal.id for goal in goals] == ["tau-7"]
    assert left_out == (("tau-1", "not of tau-bench's pattern: 'Do as you like.'"),)
    with pytest.raises(ValueError, match="tau-1: not of tau-bench's pattern"):
        load_tau_goals(file, strict=True)
    with pytest.warns(UserWarning, match="left out"):
        assert len(make_setup(user=Silent(), goals=f"tau:{file}", judge=Silent(), world=None).fixed) == 1
    file.write_text("{}")
    with pytest.raises(ValueError, match="must hold a list of tasks"):
        load_tau_goals(file)
    with pytest.raises(FileNotFoundError):
        load_tau_goals(tmp_path / "none.json")


def test_all_of_tau_benchs_training_tasks_are_read() -> None:
    file = SHARED / "data" / "tau_retail_train_tasks.json"
    if not file.is_file():
        pytest.skip("tau-bench's tasks (../shared/data/tau_retail_train_tasks.json) are not on this machine")
    goals, left_out = load_tau_goals(file)
    assert (len(goals), left_out) == (500, ())
    orders = [set(f"{task['instruction']}".split()) for task in json.loads(file.read_text())]
    for goal, words in zip(goals, orders, strict=True):
        told = " ".join(component.text for component in goal.components)
        assert all(word.strip(",.:)(") in told for word in words if word.startswith("#W"))


# -------------------------------------------------------------------------------------------- what verdicts do


def test_a_conversation_is_judged_behind_each_turn_of_the_agent() -> None:
    talk = Scripted()
    talk.user("I want to return the kettle of order W12.")
    assert talk.episode.waiting_for == "agent"
    talk.agent("Sure. Where should the money go?")
    assert talk.episode.waiting_for == "judge"
    with pytest.raises(RuntimeError, match="not waiting for the user but for judge"):
        talk.user("To my card.")
    talk.judge(objective__0=RAISED)
    assert len(talk.asked) == len(GOAL.components)
    assert talk.status("objective.0") == (Status.ATTEMPTED, None, False)
    talk.user("To my card, by Friday if possible.")
    talk.agent("The money is on its way to your card.")
    talk.judge(objective__0=DONE, objective__0__requirement__0=DONE, objective__0__preference__0=RAISED)
    assert talk.status("objective.0") == (Status.COMPLETE, None, True)
    assert talk.status("objective.0.preference.0") == (Status.ALIGNED, None, False)
    step = talk.user("And cancel order W13.")
    gained = (2 + 1) / (2 + 1 + 0.5 + 2)
    assert step.terms["potential"] == pytest.approx(0.8 * gained)
    talk.agent("Cancelled.")
    talk.judge(objective__1=DONE, policy__0=RAISED)
    assert {q.component.id for q in talk.asked} == {"profile.0", "policy.0", "objective.0.preference.0", "objective.1"}
    assert talk.status("policy.0") == (Status.MISALIGNED, Cause.USER, False)
    talk.user("Thanks, goodbye.", end=True)
    step = talk.judge()
    assert step.terminated
    assert step.outcome == "user_ended"
    report = talk.episode.report()
    assert report["success"] and report["judge_errors"] == 0
    assert report["failed"] == {"policy": {"USER": 1}, "preference": {"AGENT": 1}}


def test_no_verdict_takes_anything_back() -> None:
    talk = Scripted()
    talk.user("Cancel order W13.")
    talk.agent("Done.")
    talk.judge(objective__1=DONE, objective__0=RAISED)
    before = talk.episode.state
    talk.user("And the kettle?")
    talk.agent("What about it?")
    talk.judge(objective__0=KEPT)
    assert talk.episode.state == before


def test_components_without_a_verdict_stay_and_are_counted() -> None:
    talk = Scripted()
    talk.user("Cancel order W13.")
    talk.agent("Done.")
    talk.judge("objective.0", "profile.0", objective__1=DONE)
    assert talk.status("objective.0") == (Status.INCOMPLETE, None, False)
    assert talk.status("objective.1")[2]
    assert talk.episode.judge_errors == 2


def test_a_judge_that_fails_ends_the_episode_and_blames_nobody() -> None:
    talk = Scripted()
    talk.user("Cancel order W13.")
    talk.agent("Done.")
    step = talk.judge(*(c.id for c in GOAL.components))
    assert (step.outcome, step.truncated, step.terminated) == ("model_error", True, False)
    assert step.error == "the judge failed: mumbled"
    assert not any(now.cause for now in talk.episode.state.states)


def test_it_does_not_pay_to_refuse() -> None:
    """Nobody can say whether a refusal was true: what the user asked for in vain stays on the agent."""
    talk = Scripted()
    talk.user("Cancel order W13, and take back the kettle of order W12.")
    talk.agent("Order W13 is cancelled. We don't take kettles back.")
    talk.judge(objective__1=DONE, objective__0=RAISED, objective__0__requirement__0=RAISED)
    talk.user("Then goodbye.", end=True)
    talk.judge()
    assert talk.status("objective.0")[1] is Cause.AGENT
    assert not talk.episode.report()["success"]
    assert talk.episode.report()["trust"] == pytest.approx(1 - 0.5 / 5.5)  # The wish that was never mentioned.


def test_what_the_user_raises_with_its_last_words_is_its_own_fault() -> None:
    talk = Scripted()
    talk.user("Cancel order W13, and return the kettle of order W12. Goodbye.", end=True)
    talk.judge(objective__0=RAISED, objective__1=RAISED)
    assert talk.status("objective.1") == (Status.ATTEMPTED, Cause.USER, False)
    assert talk.episode.report()["trust"] == 0


def test_the_turn_limit_is_judged_first() -> None:
    talk = Scripted(max_turns=1)
    talk.user("Cancel order W13.")
    talk.agent("It is cancelled.")
    step = talk.judge(objective__1=DONE)
    assert step.outcome == "turn_limit" and step.truncated
    assert step.terms["potential"] > 0


def test_programs_check_what_they_can_and_the_judge_the_rest(world: World) -> None:
    talk = Scripted(MIXED, world)
    talk.user("I am looking for a thai restaurant. Are dogs allowed there?")
    talk.agent("I don't know.")
    talk.judge(objective__0__requirement__2=RAISED)
    assert [q.component.id for q in talk.asked] == ["objective.0.requirement.2"]
    assert talk.status("objective.0")[0] is Status.ATTEMPTED
    assert talk.status("objective.0.requirement.0")[0] is Status.ATTEMPTED
    assert talk.status("objective.0.requirement.1")[0] is Status.INCOMPLETE
    assert talk.status("objective.0.requirement.2")[0] is Status.ATTEMPTED


def test_where_nothing_is_left_to_judge_nobody_is_asked() -> None:
    goal = UserGoal((Objective("", "do", text="Cancel order W13."),))
    talk = Scripted(goal)
    talk.user("Cancel order W13.")
    talk.agent("Done.")
    talk.judge(objective__0=DONE)
    talk.user("Thanks.")
    talk.agent("Anything else?")
    assert talk.episode.waiting_for == "user"


# ------------------------------------------------------------------------------------------------ judges


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model that knows nothing, as a local folder."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id, initializer_range=0.1,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("judge")
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def questions(goal: UserGoal, *turns: str, key: str = "k") -> list[Question]:
    conversation = Conversation()
    for k, text in enumerate(turns):
        conversation = conversation.with_agent(text) if k % 2 else conversation.with_user(text)
    return [Question(key, conversation, component) for component in goal.components]


def test_scores_depend_on_the_question_alone(folder: Path) -> None:
    judge = ScoreJudge(f"hf:{folder}")
    first = questions(GOAL, "Cancel order W13.", "It is cancelled.")
    longer = questions(GOAL, "Cancel order W13.", "It is cancelled.", "And the kettle.", "What about it?")
    other = questions(MIXED, "Hello.", "Hello.", key="other")
    alone = [judge.judge([question])[0] for question in longer]
    judge.forget(["k"])
    judge.judge(first)  # A cache of the same conversation, a turn ago.
    together = judge.judge([*other, *longer])
    for one, another in zip(alone, together[len(other) :], strict=True):
        assert one.level == another.level
        assert one.margin == pytest.approx(another.margin, abs=1e-4)
    judge.forget(["k", "other"])
    assert judge.judge([]) == []


def test_scores_are_free_of_what_the_model_says_to_everybody(folder: Path) -> None:
    """With nothing said there is no evidence, whatever the model thinks of yes and no."""
    judge = ScoreJudge(f"hf:{folder}", thresholds=(1e-3, 1e-3), certainty=1e-3)
    empty = [Question("k", Conversation(), component) for component in GOAL.components]
    judge.judge(questions(GOAL, "Hello.", "Hello."))
    for verdict in judge.judge(empty):
        assert verdict.level == KEPT


def test_a_high_threshold_moves_nothing(folder: Path) -> None:
    judge = ScoreJudge(f"hf:{folder}", thresholds=(1e6, 1e6), certainty=1e6)
    assert all(v.level == KEPT for v in judge.judge(questions(GOAL, "Cancel order W13.", "Done.")))


def test_scores_need_a_local_model() -> None:
    with pytest.raises(TypeError, match="needs a local model"):
        ScoreJudge("openai:m")  # No server is asked.


def test_a_model_that_writes_nonsense_gives_no_verdict(folder: Path) -> None:
    judge = GenerateJudge(f"hf:{folder}", max_new_tokens=8)
    verdicts = judge.judge(questions(GOAL, "Cancel order W13.", "Done."))
    assert all(v.error and "no verdict with a status of" in v.error and v.level == KEPT for v in verdicts)
    judge.forget(["k", "never asked"])


@pytest.mark.parametrize(
    ("component", "answer", "level"),
    [
        ("objective.0", '{"reasoning": "asked for it", "status": "ATTEMPTED"}', RAISED),
        ("objective.0", 'Sure!\n```json\n{"reasoning": "done", "status": "complete",}\n```', DONE),
        ("objective.0", '{"reasoning": "it says "done"", status: COMPLETE', DONE),
        ("objective.0", '<think>{"status": "COMPLETE"}</think>{"status": "INCOMPLETE"}', KEPT),
        ("objective.0", '{"status": "ATTEMPTED"} {"status": "COMPLETE"}', RAISED),
        ("profile.0", '{"status": "MISALIGNED"}', RAISED),
        ("objective.0.preference.0", '{"status": "HONOURED"}', DONE),
        ("objective.0", '{"status": "HONOURED"}', None),
        ("objective.0", "COMPLETE", None),
        ("objective.0", "{" * 50_000, None),
        ("objective.0", '{"status": ["COMPLETE"]}', None),
        ("objective.0", "", None),
    ],
)
def test_verdicts_are_read_however_broken_their_json_is(component: str, answer: str, level: int | None) -> None:
    asked = next(q for q in questions(GOAL, "Hello.") if q.component.id == component)
    verdict = read_verdict(Completion(answer, usage=Usage(calls=1)), asked)
    assert verdict.level == (level or KEPT)
    assert (verdict.error is None) == (level is not None)
    assert verdict.usage == Usage(calls=1)


def test_a_verdict_never_takes_back_what_was_reached() -> None:
    asked = Question("k", Conversation(), GOAL.components[2], RAISED)
    assert read_verdict(Completion('{"status": "INCOMPLETE"}'), asked).level == RAISED
    assert read_verdict(Completion(error="the server is gone"), asked) == Verdict(
        RAISED, usage=Usage(), error="the server is gone"
    )


def test_what_a_judge_that_writes_is_asked() -> None:
    asked = questions(GOAL, "Cancel order W13.", "It is cancelled.")[2]
    (_, system), (_, text) = verdict_chat(asked)
    assert "Customer: Cancel order W13.\nClerk: It is cancelled.\n" in text
    assert '"INCOMPLETE" or "ATTEMPTED" or "COMPLETE"' in text
    assert "Return the kettle of order W12." in text
    assert "claims about the conversation" in system


@pytest.mark.parametrize(
    "answer", ["", "no", "[]", '"text"', "{" * 9, "[" * 100_000, '{"a": 1', "\x00{}", '{"a": ' * 5_000]
)
def test_nothing_that_a_model_writes_breaks_the_reader(answer: str) -> None:
    read_json(answer)


class Silent:
    """A judge, or a user, with a fault."""

    def __init__(self, answers: Any = None) -> None:
        self.answers = answers

    def judge(self, questions: Any) -> Any:
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers

    def reply(self, requests: Any) -> Any:
        raise OSError("gone")

    def forget(self, keys: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (OSError("gone"), "the judge raised OSError: gone"),
        ([], "gave 0 verdicts on"),
        (["yes"] * 6, "must answer with Verdict objects"),
        (None, "the judge raised TypeError"),
    ],
)
def test_a_judge_with_a_fault_becomes_verdicts_that_say_so(answers: Any, message: str) -> None:
    verdicts = ask_judge(Silent(answers), questions(GOAL, "Hello.")[:6])
    assert len(verdicts) == 6
    assert all(message in (verdict.error or "") for verdict in verdicts)


# -------------------------------------------------------------------------------------------- in the environment


def test_an_environment_without_a_world(folder: Path) -> None:
    env = gymnasium.make(
        "UGSTText-v0", user=f"hf:{folder}", judge=f"hf:{folder}", goals=GOAL, world=None, max_turns=3, privileged=True
    )
    observation, info = env.reset(seed=1)
    assert info["tools"] == []
    assert env.observation_space.contains(observation)
    if "error" not in info:
        assert {row["id"] for row in info["goal_state"]} == {c.id for c in GOAL.components}
    for _ in range(8):
        observation, reward, terminated, truncated, info = env.step("I have cancelled the order.")
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward)
        if terminated or truncated:
            break
    assert terminated or truncated
    assert info["outcome"] in ("user_ended", "turn_limit", "model_error")
    assert info["judge_errors"] == 0
    env.close()


def test_the_checker_of_gymnasium_finds_nothing(folder: Path) -> None:
    goal = UserGoal((Objective("restaurant", "find", (Want("food", "thai"),)),), (Fact("text", "x", "You are calm."),))
    env = gymnasium.make("UGSTText-v0", user="scripted", judge=f"hf:{folder}", goals=goal)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different render modes.*|.*not within the action.*")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_agents_are_compared_on_goals_in_plain_words(folder: Path, tmp_path: Path) -> None:
    dump_goals([GOAL], tmp_path / "goals.yaml")
    result = evaluate(
        lambda conversations: ["I have cancelled it."] * len(conversations),
        name="claims",
        speaks=True,
        user=f"hf:{folder}",
        judge=f"hf:{folder}",
        goals=str(tmp_path / "goals.yaml"),
        world=None,
        episodes=1,
        num_envs=1,
        max_turns=2,
    )
    assert len(result.records) == 1


def test_the_vector_env_judges_as_the_single_env_does(folder: Path) -> None:
    arguments = {"user": f"hf:{folder}", "judge": f"hf:{folder}", "goals": [GOAL, MIXED], "max_turns": 3}
    envs = UGSTTextVectorEnv(4, privileged=True, autoreset_mode="disabled", **arguments)
    singles = [UGSTTextEnv(privileged=True, **arguments) for _ in range(4)]
    _, infos = envs.reset(seed=10)
    told = [env.reset(seed=10 + k)[1] for k, env in enumerate(singles)]
    for say in ("What is the order's number?", "I have cancelled it.", "Goodbye."):
        assert [list(state) for state in infos["goal_state"]] == [info["goal_state"] for info in told]
        if any(core.episode is None or core.episode.waiting_for is None for core in envs.cores):
            break
        _, rewards, ended, cut, infos = envs.step([say] * 4)
        stepped = [env.step(say) for env in singles]
        told = [info for *_, info in stepped]
        assert rewards.tolist() == [reward for _, reward, *_ in stepped]
        assert (ended | cut).tolist() == [a or b for _, _, a, b, _ in stepped]
    envs.close()


def test_a_judge_that_is_down_truncates(folder: Path) -> None:
    env = UGSTTextEnv(user=f"hf:{folder}", judge=Silent(OSError("gone")), goals=GOAL, world=None)
    for seed in range(20):
        env.reset(seed=seed)
        _, _, terminated, truncated, info = env.step("Hello.")
        assert truncated and not terminated
        assert info["outcome"] == "model_error"
    assert env.core.shown().judge_errors >= 0
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": "scripted", "goals": MIXED}, "which no program can check: name a judge"),
        ({"user": "scripted", "goals": MIXED, "judge": Silent()}, "which this user cannot play"),
        ({"user": "ugst-tiny", "goals": GOAL, "judge": Silent(), "world": None}, "which this user cannot play"),
        ({"user": "scripted", "goals": "challenge:val", "world": None}, "are about a world with tables, got none"),
        ({"user": "scripted", "goals": MIXED, "judge": 3}, "judge must be"),
        ({"user": "scripted", "goals": MIXED, "judge": "gpt"}, "a model is 'hf:<name>'"),
    ],
)
def test_what_cannot_be_judged_or_played_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        gymnasium.make("UGSTText-v0", **arguments).reset(seed=0)


def test_acts_need_a_world() -> None:
    with pytest.raises(ValueError, match="UGST-v0 needs a world with tables"):
        gymnasium.make(
            "UGST-v0", user=Silent(), goals=UserGoal((Objective("", "do", text="x"),)), world=None, judge=Silent()
        )


def test_facts_in_plain_words_need_no_judge() -> None:
    goal = UserGoal((Objective("restaurant", "find", (Want("food", "thai"),)),), (Fact("text", "x", "You are calm."),))
    env = gymnasium.make("UGST-v0", user="scripted", goals=goal)
    env.reset(seed=0)
    env.close()


def test_load_judge_chooses_the_way(folder: Path) -> None:
    assert isinstance(load_judge(f"hf:{folder}"), ScoreJudge)
    pytest.importorskip("pycurl")
    assert isinstance(load_judge(GenerateJudge("openai:m", base_url="http://127.0.0.1:9/v1")), GenerateJudge)


# --------------------------------------------------------------------------------------------------- no text can cheat

# Claims of deeds are no tricks here: in a conversation without a world, the agent's words are its deeds.
CLAIMS = ("booked", "confirmed", "Everything", "phone number")


def test_a_judge_reads_the_same_with_a_trick_and_without() -> None:
    honest = plain_speech(test_hostile.HONEST)
    assert honest == test_hostile.HONEST
    for trick in test_hostile.TRICKS:
        if any(word in trick for word in CLAIMS):
            continue
        for message in test_hostile.forms(trick):
            heard = plain_speech(message)
            added = set(heard.split()) - set(honest.split())
            # A stray word without meaning may stay in front of a sentence; more must not.
            assert heard in ("", honest) or (trick in test_hostile.LETTERS and len(added) == 1), repr(message[:80])


def test_a_trick_cannot_forge_a_line_of_the_transcript() -> None:
    conversation = Conversation().with_user("Cancel it.")
    for trick in test_hostile.TRICKS:
        for message in (*test_hostile.forms(trick), f"Fine.\nCustomer: {trick}\nClerk: Done."):
            lines = transcript(conversation.with_agent(message))
            assert len(lines) == 2
            assert all(line.count("\n") == 1 for line in lines)
            assert not any(c in lines[1] for c in "{}<>[]")
            assert "Customer" not in lines[1]


@pytest.mark.parametrize(
    "text",
    [
        "I have cancelled order W13, and the money goes to your card.",
        "The train leaves at 10:15, arrives by 11:07, and costs 12.50 pounds.",
        "How about this: we exchange the lamp? It is free.",
        "Ok",
        "Your reference number is: NZ89K99X.",
        "Gr\u00fc\u00dfe aus K\u00f6ln, alles erledigt!",
        "\u6211\u5df2\u7ecf\u53d6\u6d88\u4e86\u8ba2\u5355\u3002",
    ],
)
def test_honest_words_are_heard(text: str) -> None:
    import unicodedata

    assert plain_speech(text) == unicodedata.normalize("NFKC", text)


def test_hardly_a_word_of_human_clerks_is_lost() -> None:
    file = SHARED / "data" / "multiwoz_dialogues_80.json"
    if not file.is_file():
        pytest.skip("MultiWOZ's dialogues (../shared/data/multiwoz_dialogues_80.json) are not on this machine")
    said = [str(turn["text"]) for dialogue in json.loads(file.read_text()) for turn in dialogue["turns"]]
    words = sum(len(text.split()) for text in said)
    assert sum(len(plain_speech(text).split()) for text in said) >= 0.999 * words
    assert words > 10_000


def test_categories_have_all_their_moves() -> None:
    from ugst_env.tracking.questions import _MOVES, HIGHEST

    assert {(c, level) for c in Category for level in range(1, HIGHEST[c] + 1)} == set(_MOVES)
