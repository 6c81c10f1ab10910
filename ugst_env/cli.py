"""The ``ugst`` command: one subcommand per stage, with an option for every field of the stage's configuration."""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

# name: (module, configuration, what it does)
STAGES = {
    "play": ("ugst_env.play", "PlayConfig", "talk with a simulated user yourself, as its agent"),
    "decompose": ("ugst_env.goals.decompose", "DecomposeConfig", "split goals in prose into parts that can be tracked"),
    "collect": ("ugst_env.training.collect", "CollectConfig", "hold conversations for training"),
    "tiny": ("ugst_env.training.tiny", "TinyConfig", "train a small user model from scratch"),
    "sft": ("ugst_env.training.sft", "SFTStage", "fine-tune a user model on collected conversations"),
    "grpo": ("ugst_env.training.grpo", "GRPOStage", "train a user model by GRPO on the goal-state reward"),
    "align": ("ugst_env.align", "AlignConfig", "measure how well user models keep to their goals"),
}


def _yes_or_no(text: str) -> bool:
    answers = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in answers:
        raise argparse.ArgumentTypeError(f"yes or no expected, got {text!r}")
    return answers[text.lower()]


def _add_options(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    hints = get_type_hints(config)
    for item in fields(config):
        kind: Any = hints[item.name]
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(part for part in get_args(kind) if part is not type(None))
        required = item.default is MISSING and item.default_factory is MISSING
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        options: dict[str, Any] = {"help": item.metadata.get("help", "")}
        if kind is bool and default is False:
            options["action"] = "store_true"
        elif get_origin(kind) is tuple:
            options.update(type=get_args(kind)[0], nargs="*", metavar=item.name.upper())
        else:
            options.update(type=_yes_or_no if kind is bool else kind, metavar="yes|no" if kind is bool else None)
        if required:
            options["required"] = True
        elif options.get("action") is None:
            options["default"] = default
            if default not in (None, "", ()):
                shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
                shown = {True: "yes", False: "no"}[shown] if isinstance(shown, bool) else shown
                options["help"] += f" (default: {shown})".replace("%", "%%")
        parser.add_argument(f"--{item.name.replace('_', '-')}", **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stage.

    Returns
    -------
    int
        The exit status: 0, 1 for bad input, 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="ugst",
        description="Simulated users: talk with them, train them, and measure how well they keep to their goals.",
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="stage")
    for name, (_, _, what) in STAGES.items():
        stage = stages.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        # Importing a stage takes seconds; only the one that is asked for is.
        if given[:1] == [name]:
            _add_options(stage, getattr(importlib.import_module(STAGES[name][0]), STAGES[name][1]))
    options = vars(parser.parse_args(given))
    module_name, config_name, _ = STAGES[options.pop("stage")]
    module = importlib.import_module(module_name)
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    try:
        module.run(getattr(module, config_name)(**options))
    except KeyboardInterrupt:
        print("\nstopped; what is done so far is kept, go on with --resume", file=sys.stderr)
        return 130
    except (ValueError, OSError, TypeError, ImportError) as error:
        print(f"ugst {given[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
