"""`ugst align`: what it refuses, what a killed run keeps, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from dialogues import FIND_THAI, THAI

from ugst_env import align
from ugst_env.align import AlignConfig, choose_goals, clerk_mix, name_row, run
from ugst_env.conversation import Conversation
from ugst_env.envs.episode import Episode
from ugst_env.envs.setup import vocabulary_of
from ugst_env.goal import GoalState
from ugst_env.goals.files import goal_record
from ugst_env.metrics import Talk
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.users.prompts import clean, messages
from ugst_env.users.protocol import UserReply, UserRequest
from ugst_env.users.scripted import ScriptedUser
from ugst_env.world import World

pytest.importorskip("lexicalrichness", reason="lexicalrichness (extra train) is not installed")


class Steerable:
    """Plays like the scripted user when it is steered, else it forgets; and notes what it was shown."""

    def __init__(self, world: World) -> None:
        vocabulary = vocabulary_of(world)
        self.trace = False
        self.good = ScriptedUser(world, vocabulary)
        self.bad = ScriptedUser(world, vocabulary, drift={"forget": 0.6})
        self.asked: list[tuple[bool, bool, bool]] = []

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        self.asked += [(r.state is not None, r.repeat, self.trace) for r in requests]
        shadow = [r if r.state is not None else replace(r, state=self.states[r.episode].state) for r in requests]
        return [
            (self.good if asked.state is not None else self.bad).reply([full])[0]
            for asked, full in zip(requests, shadow, strict=True)
        ]

    def forget(self, episodes: Sequence[str]) -> None:
        pass

    states: dict[str, Episode]


@pytest.fixture
def steerable(world: World, monkeypatch: pytest.MonkeyPatch) -> Steerable:
    """Takes the place of ugst-tiny, and can look into every conversation although it is not shown the state."""
    user = Steerable(world)
    user.states = {}
    begin = Talk.begin

    def begun(*arguments: Any, **options: Any) -> Talk:
        talk = begin(*arguments, **options)
        user.states[talk.episode.key] = talk.episode
        return talk

    monkeypatch.setattr(Talk, "begin", begun)
    monkeypatch.setattr(align, "load_user", lambda name, *_: user if name == "ugst-tiny" else user.good)
    return user


def config(out: Path, **changes: Any) -> AlignConfig:
    given: dict[str, Any] = {"user": "scripted", "goals": "challenge:val", "limit": 4, "seeds": 2, "draws": 50}
    return AlignConfig(**{**given, "out": out / "run", **changes})


def conversations(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run" / "conversations.jsonl").read_text().splitlines()]


def test_every_option_says_what_it_is() -> None:
    assert all(item.metadata.get("help") for item in fields(AlignConfig))


def test_users_by_stages_are_measured_and_compared(steerable: Steerable, tmp_path: Path, capsys: Any) -> None:
    content = run(
        config(tmp_path, user="mine=ugst-tiny", against=("scripted",), stages=("prompt", "repeat", "steering"))
    )
    rows = {(row["user"], row["stage"]): row for row in content["rows"]}
    # The scripted user always sees the goal state, whatever the stage.
    assert list(rows) == [("mine", "prompt"), ("mine", "repeat"), ("mine", "steering"), ("scripted", "steering")]
    assert {asked[:2] for asked in steerable.asked} == {(False, False), (False, True), (True, False)}
    assert all(row["conversations"] == 8 and row["goals"] == 4 and row["seeds"] == 2 for row in rows.values())
    same, better = rows["scripted", "steering"], rows["mine", "steering"]
    assert {key: same[key] for key in ("rates", "drift")} == {key: better[key] for key in ("rates", "drift")}
    assert better["mean"]["value"] > rows["mine", "prompt"]["mean"]["value"]
    assert rows["mine", "prompt"]["failure_modes"]["forgetting"]["value"] > 0
    differences = {(tuple(d["row"]), tuple(d["baseline"])): d for d in content["differences"]}
    gain = differences[("mine", "steering"), ("mine", "prompt")]
    assert gain["pairs"] == 8
    assert gain["mean"]["value"] == pytest.approx(better["mean"]["value"] - rows["mine", "prompt"]["mean"]["value"])
    assert differences[("scripted", "steering"), ("mine", "steering")]["mean"] == {"value": 0, "low": 0, "high": 0}
    assert json.loads((tmp_path / "run" / "align.json").read_text()) == content
    for name in ("drift.png", "success.png", "failure_modes.png"):
        assert (tmp_path / "run" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    shown = capsys.readouterr().out
    for words in ("mine, steering", "mean of five", "role reversal", "MTLD", "paired by goal and seed"):
        assert words in shown


def test_trace_is_switched_on_for_its_stage_only(steerable: Steerable, tmp_path: Path) -> None:
    run(config(tmp_path, user="ugst-tiny", stages=("steering+trace", "steering"), limit=1, seeds=1))
    traced = [asked[2] for asked in steerable.asked]
    assert traced[0] and not traced[-1] and sorted(traced, reverse=True) == traced
    assert steerable.trace is False


def test_a_killed_run_goes_on_with_the_same_results(tmp_path: Path) -> None:
    whole = run(config(tmp_path / "a", batch=3))
    lines = (tmp_path / "a" / "run" / "conversations.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 8
    torn = tmp_path / "b" / "run"
    torn.mkdir(parents=True)
    (torn / "config.json").write_bytes((tmp_path / "a" / "run" / "config.json").read_bytes())
    (torn / "conversations.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][: len(lines[3]) // 2])
    resumed = run(config(tmp_path / "b", resume=True))
    told = conversations(tmp_path / "b")
    assert told[:3] == conversations(tmp_path / "a")[:3]
    places = sorted((c["number"], c["seed"]) for c in told)
    assert places == [(number, seed) for number in range(4) for seed in range(2)]
    assert resumed["rows"] == whole["rows"]
    # All is there: nothing is held again, and fewer goals are a part of it.
    fewer = run(config(tmp_path / "b", resume=True, limit=2, seeds=1))
    assert conversations(tmp_path / "b") == told
    assert fewer["rows"][0]["conversations"] == 2


def test_a_model_that_fails_does_not_stop_the_others(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    class Failing(ScriptedUser):
        def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
            broken = UserReply("", error="[too long]")
            replies = super().reply(requests)
            return [broken if r.turn == 1 and r.seed % 2 else reply for r, reply in zip(requests, replies, strict=True)]

    monkeypatch.setattr(align, "load_user", lambda *_: Failing(world, vocabulary_of(world)))
    [row] = run(config(tmp_path))["rows"]
    failed = [told for told in conversations(tmp_path) if told["outcome"] == "model_error"]
    assert 0 < len(failed) < 8 and row["errors"] == {"[too long]": len(failed)}
    assert row["mean"]["value"] < 1
    assert f"scripted, steering: {len(failed)} conversations failed: [too long]" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ("prompt", "steer")}, "unknown stage 'steer'; accepted: prompt, repeat, steering"),
        ({"stages": ()}, "at least one of prompt"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"clerks": "kind"}, "unknown clerk 'kind'; accepted: competent"),
        ({"clerks": "competent=0.5,wrong=lots"}, "shares such as competent=0.6"),
        ({"against": ("scripted",)}, "a name of its own, got 'scripted' 2 times"),
    ],
)
def test_bad_settings_are_refused_at_once(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "nobody"}, "the user 'nobody' cannot be loaded: unknown user 'nobody'; accepted"),
        ({"against": ("x=hf:/no/such/folder",)}, "the user 'x' cannot be loaded"),
        ({"against": ("gone.gguf",)}, "no GGUF file at gone.gguf"),
        ({"goals": "gone.yaml"}, "no file 'gone.yaml'"),
        ({"goals": "challenge:train", "limit": None}, "endless: say by limit"),
        ({"goals": "multiwoz:goals.json"}, "need its databases"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        run(config(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_a_folder_is_neither_overwritten_nor_mixed_up(tmp_path: Path) -> None:
    run(config(tmp_path, limit=1, seeds=1))
    with pytest.raises(FileExistsError, match="is not empty"):
        run(config(tmp_path, limit=1))
    for changes, message in (
        ({"max_turns": 5}, "begun with max_turns=10, got 5"),
        ({"clerks": "wrong"}, "begun with clerks='competent', got 'wrong'"),
        ({"user": "scripted=ugst-tiny"}, "begun with 'scripted' as user 'scripted', got 'ugst-tiny'"),
    ):
        with pytest.raises(ValueError, match=message):
            run(config(tmp_path, resume=True, **changes))
    told = conversations(tmp_path)[0]
    (tmp_path / "run" / "conversations.jsonl").write_text(json.dumps({**told, "goal": "another"}) + "\n")
    with pytest.raises(ValueError, match="number 0 was 'another'"):
        run(config(tmp_path, resume=True))


def test_goals_of_a_file_and_drawn_goals(tmp_path: Path) -> None:
    path = tmp_path / "goals.json"
    path.write_text(json.dumps([goal_record(replace(FIND_THAI, id=f"g{k}", policy=(), profile=())) for k in range(3)]))
    goals, _ = choose_goals(config(tmp_path, goals=str(path), limit=2))
    assert [goal.id for goal in goals] == ["g0", "g1"] and goals[0].objectives[0].domain == THAI.domain
    few, _ = choose_goals(config(tmp_path, goals="challenge:train", limit=2))
    more, _ = choose_goals(config(tmp_path, goals="challenge:train", limit=3))
    assert more[:2] == few and more[2] != more[1]


def test_names_and_mixes() -> None:
    assert clerk_mix("competent") == {"competent": 1.0}
    assert clerk_mix("competent=0.6, wrong=0.4") == {"competent": 0.6, "wrong": 0.4}
    users = AlignConfig(user="sft=hf:runs/a=b", against=("hf:x/y", "scripted")).users()
    assert users == [("sft", "hf:runs/a=b"), ("hf:x/y", "hf:x/y"), ("scripted", "scripted")]
    assert name_row("hf:/a/very/long/path/to/some/model", "prompt") == "some/model, prompt"


# --------------------------------------------------------------------------------------------- the goal, told once more


def test_the_goal_is_repeated_without_any_status(world: World) -> None:
    vocabulary = vocabulary_of(world)
    told = Episode(FIND_THAI, VerifiableTracker(world), vocabulary, seed=0, steering=False, repeat=True)
    told.hear(UserReply("I need a Thai restaurant."))
    told.conversation = Conversation(told.conversation.turns).with_agent("Which part of town?")
    told.waiting_for = "user"
    request = told.request()
    assert request.repeat and request.state is None and request.states == ()
    [*before, (role, last)] = messages(request, trace=False)
    assert role == "user" and last.startswith("Which part of town?\n\n[Your goal once more. Message 2 of 10.]")
    assert last.rstrip().endswith("[Now your message to the clerk.]")
    assert "  must: It must serve Thai food." in last and last.count("\n") == len(FIND_THAI.components) + 3
    assert not any(
        status in text for status in ("INCOMPLETE", "ATTEMPTED", "ALIGNED") for _, text in [*before, ("", last)]
    )
    # But for the statuses, it is what steering shows.
    steered = messages(replace(request, repeat=False, state=GoalState.start(FIND_THAI)), trace=False)[-1][1]
    lines = [line.partition(" = ")[0] for line in steered.splitlines()]
    assert lines[3:] == last.splitlines()[3:]
    assert messages(replace(request, repeat=False), trace=False)[-1][1] == "Which part of town?"


def test_a_goal_read_out_is_cut_off() -> None:
    assert clean("In the south. [Your goal once more. Message 2 of 10.] task: Find") == "In the south."
