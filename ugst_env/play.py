"""``ugst play``: a person takes the agent's place and talks with a simulated user, in the terminal."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ugst_env.envs.render import WIDTH, render_text
from ugst_env.envs.text import UGSTTextEnv

HELP = """\
You are the clerk. What you write is heard by the user, except for a line that begins with "/":
  /search hotel area=north stars=4     look for something; values with spaces in quotes
  /details hotel "Kittiwake Lodge"     all that is known of one place or train
  /book restaurant "Hanami Sushi Bar" people=2 day=monday time=19:00
  /tools  what can be searched by and booked     /help  this     /quit  leave (Ctrl-D as well)"""


@dataclass(frozen=True)
class PlayConfig:
    """What ``ugst play`` is given.

    Raises
    ------
    ValueError
        For a number out of range.
    """

    user: str = field(
        default="ugst-tiny", metadata={"help": "the simulated user: ugst-tiny, scripted, hf:NAME, a .gguf, openai:NAME"}
    )
    goals: str = field(default="challenge:val", metadata={"help": "challenge:train|val|test, or a goal file"})
    judge: str | None = field(
        default=None, metadata={"help": "for goals in plain words: hf:NAME, a .gguf, openai:NAME"}
    )
    goal: int = field(default=-1, metadata={"help": "which of the goals, from 0; -1 draws one"})
    world: str = field(default="default", metadata={"help": "default, a folder with the tables of a world, or none"})
    blind: bool = field(default=False, metadata={"help": "hide the goal and its state until the end"})
    steering: bool = field(default=True, metadata={"help": "whether a model is shown the goal state"})
    max_turns: int = field(default=10, metadata={"help": "limit of user turns"})
    seed: int = field(default=0, metadata={"help": "draws the goal and the user's words"})
    save: Path | None = field(default=None, metadata={"help": "a JSON file for the conversation and its goal state"})

    def __post_init__(self) -> None:
        if self.goal < -1:
            raise ValueError(f"goal must be an index from 0, or -1 to draw one, got {self.goal}")
        if self.save is not None and not self.save.resolve().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.save.resolve().parent} to save the conversation in")


def read_command(line: str, tools: list[dict[str, Any]]) -> str:
    """The tool call that a line such as ``/search hotel area=north`` stands for, as a message of the agent.

    Raises
    ------
    ValueError
        Saying how a command is written.
    """
    words = shlex.split(line[1:])
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    if len(words) < 2 or words[0] not in ("search", "details", "book"):
        raise ValueError("a command is /search, /details or /book, then what: /search hotel area=north (or /help)")
    tool = f"{words[1]}_details" if words[0] == "details" else f"{words[0]}_{words[1]}"
    if tool not in schemas:
        known = [name for name in schemas if name.startswith(words[0]) or name.endswith(words[0])]
        known = [name.removeprefix(f"{words[0]}_").removesuffix(f"_{words[0]}") for name in known]
        raise ValueError(f"/{words[0]} takes one of {', '.join(known)}, got {words[1]!r}")
    handle = next(iter(schemas[tool]["properties"]))
    arguments: dict[str, str] = {}
    for word in words[2:]:
        slot, equals, value = word.partition("=")
        arguments.update({slot: value} if equals else {handle: word})
    return json.dumps({"name": tool, "arguments": arguments})


def play(config: PlayConfig, ask: Callable[[], str], say: Callable[[str], None]) -> dict[str, Any]:
    """Hold a conversation: `ask` gives the person's next line (EOFError: they leave), `say` shows a text.

    Returns
    -------
    dict
        What ``--save`` writes: the goal state, the messages, outcome and rewards.
    """
    env = UGSTTextEnv(
        user=config.user,
        goals=config.goals,
        judge=config.judge,
        world=None if config.world == "none" else config.world,
        steering=config.steering,
        max_turns=config.max_turns,
        privileged=True,
    )
    observation, info = env.reset(seed=config.seed, options={} if config.goal < 0 else {"goal": config.goal})
    total, over = 0.0, False
    say(HELP)
    _show(env, observation, config.blind, say)
    while not over:
        try:
            line = ask().strip()
        except (EOFError, KeyboardInterrupt):
            line = "/quit"
        if line == "/quit":
            break
        if line in ("", "/help"):
            say(HELP)
            continue
        if line == "/tools":
            for tool in info["tools"]:
                say(f"{tool['function']['name']}: {', '.join(tool['function']['parameters']['properties'])}")
            continue
        try:
            message = read_command(line, info["tools"]) if line.startswith("/") else line
        except ValueError as error:
            say(str(error))
            continue
        observation, reward, terminated, truncated, info = env.step(message)
        total += reward
        over = terminated or truncated
        if message != line:
            say(_legibly(observation))
        else:
            _show(env, observation, config.blind, say)
            say(f"reward {reward:+.3f}")
    if over or config.blind:
        _show(env, "", False, say)
    ending = info["outcome"] if over else "you left"
    verdict = f"; served everything: {'yes' if info['success'] else 'no'}" if over else ""
    say(f"{ending}{verdict}; return {total:.3f}" + (f"; {info['error']}" if "error" in info else ""))
    record = {
        "user": config.user,
        "seed": config.seed,
        "outcome": info["outcome"] if over else None,
        "success": info.get("success"),
        "return": total,
        "messages": info["messages"],
        "goal_state": info["goal_state"],
    }
    env.close()
    return record


def _legibly(result: str) -> str:
    """A tool's result for people."""
    data = json.loads(result.split("\n")[0])
    if "results" not in data:
        return "; ".join(f"{key}: {value}" for key, value in data.items())
    rows = [", ".join(f"{key} {value}" for key, value in row.items()) for row in data["results"]]
    return "\n".join([f"{data['count']} found", *rows])


def _show(env: UGSTTextEnv, heard: str, blind: bool, say: Callable[[str], None]) -> None:
    if blind:
        say(f"user: {heard}" if heard else "(the user has left)")
    else:
        width = min(WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns)
        say(render_text(env.core.shown(), colour=sys.stdout.isatty(), width=width))


def run(config: PlayConfig) -> None:
    """Play in the terminal, and save the conversation where that is asked for."""
    record = play(config, lambda: input("you> "), lambda text: print(text, flush=True))
    if config.save is not None:
        part = config.save.with_name(config.save.name + ".part")
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        part.replace(config.save)
        print(f"saved in {config.save}", file=sys.stderr)
