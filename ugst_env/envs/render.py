"""A conversation with its goal state beside it, for a terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ugst_env.envs.episode import Episode
from ugst_env.goal import Status

_COLOURS = {
    Status.INCOMPLETE: "bright_black",
    Status.ATTEMPTED: "yellow",
    Status.COMPLETE: "green",
    Status.ALIGNED: "green",
    Status.MISALIGNED: "red",
}
WIDTH = 140


def _printable(text: str) -> str:
    """The text without control characters: what a model says must not steer the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def render_text(episode: Episode, *, colour: bool, width: int = WIDTH) -> str:
    """The conversation on the left, every goal component with status and cause on the right."""
    words = Text()
    for speaker, text in episode.conversation.messages():
        words.append(f"{speaker:>5}: ", style="bold cyan" if speaker == "user" else "bold magenta")
        words.append(_printable(text) + "\n")
    goal = Text()
    for component, now in episode.state.items():
        indent = "  " if component.id.count(".") > 1 else ""
        goal.append(f"{indent}{now.status.value:<10} ", style=_COLOURS[now.status])
        goal.append(component.text)
        if now.cause is not None:
            goal.append(f"  [{now.cause.value}]", style="red" if not now.served else "blue")
        goal.append("\n")
    table = Table(width=width, expand=False)
    table.add_column(f"conversation, turn {episode.turn} of at most {episode.max_turns}", ratio=3)
    table.add_column("goal state (hidden from the agent)", ratio=2)
    table.add_row(words, goal)
    console = Console(file=StringIO(), width=width, force_terminal=colour, color_system="standard" if colour else None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
