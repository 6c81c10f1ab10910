"""``ugst play``: a person's lines as the agent's messages and tool calls, what is shown, what is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ugst_env import play
from ugst_env.cli import main
from ugst_env.envs.tools import tool_schemas
from ugst_env.world.database import World


def lines(*typed: str) -> Callable[[], str]:
    """A keyboard: the lines one after the other, then the end of the file."""
    left = list(typed)

    def ask() -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    return ask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/search hotel area=north stars=4", ("search_hotel", {"area": "north", "stars": "4"})),
        ('/search attraction type="sports centre"', ("search_attraction", {"type": "sports centre"})),
        ('/details hotel "Kittiwake Lodge"', ("hotel_details", {"name": "Kittiwake Lodge"})),
        ("/book train TR1234 people=2", ("book_train", {"trainID": "TR1234", "people": "2"})),
    ],
)
def test_commands_are_tool_calls(world: World, line: str, expected: tuple[str, dict[str, str]]) -> None:
    message = json.loads(play.read_command(line, list(tool_schemas(world))))
    assert (message["name"], message["arguments"]) == expected


@pytest.mark.parametrize(
    ("line", "told"),
    [("/", "a command is"), ("/find hotel", "a command is"), ("/search taxi", "restaurant, train, got 'taxi'"),
     ("/book attraction x", "one of hotel, restaurant, train"), ('/details hotel "x', "quotation")],
)  # fmt: skip
def test_a_wrong_command_is_explained(world: World, line: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        play.read_command(line, list(tool_schemas(world)))


def test_a_conversation_with_its_goal_state_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown: list[str] = []
    record = play.play(
        play.PlayConfig(user="scripted", goal=3, max_turns=2),
        lines("/help", "/tools", "/nonsense", "/search hotel area=north", "Which area would you like?", "And when?"),
        shown.append,
    )
    screen = "\n".join(shown)
    for part in (
        "goal state (hidden from the agent)",
        "Which area would you like?",
        "book_train: trainID",
        "found\nname",
    ):
        assert part in screen
    assert record["outcome"] == "turn_limit"
    assert record["messages"][0]["role"] == "user"
    assert record["goal_state"][0]["status"]


def test_blind_hides_the_goal_until_the_end() -> None:
    shown: list[str] = []
    record = play.play(play.PlayConfig(user="scripted", blind=True), lines("Which area?"), shown.append)
    assert not any("goal state" in text for text in shown[:-2])
    assert "goal state" in shown[-2]
    assert shown[-1].startswith("you left")
    assert record["outcome"] is None


def test_the_command_saves_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = lines("Which area would you like?", "/quit")
    monkeypatch.setattr("builtins.input", lambda _: typed())
    path = tmp_path / "talk.json"
    assert main(["play", "--seed", "4", "--save", str(path)]) == 0
    assert "goal state" in capsys.readouterr().out
    assert [m["role"] for m in json.loads(path.read_text())["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--goal", "-2"], "goal must be"), (["--goal", "100000"], "options['goal'] must be in"),
     (["--save", "/nowhere/x.json"], "there is no folder"), (["--user", "nobody"], "unknown user"),
     (["--goals", "challenge:dev"], "challenge")],
)  # fmt: skip
def test_bad_input_is_one_sentence(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", *options]) == 1
    # Whatever a model's loading has shown before it, a bar for example.
    error = capsys.readouterr().err.splitlines()[-1]
    assert told in error
    assert error.startswith("ugst play: ")
