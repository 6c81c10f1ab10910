"""From the `user` argument of an environment to a user simulator."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.users.protocol import UserSimulator
from ugst_env.world.database import World

if TYPE_CHECKING:
    import torch

    from ugst_env.users.language_model import LanguageModelUser
    from ugst_env.users.served import ServedUser
    from ugst_env.users.tiny import TinyUser

ACCEPTED = (
    "'ugst-tiny', 'scripted', 'hf:<folder or hub name>', 'openai:<served model>', the path of a .gguf file, "
    "or an object with reply() and forget()"
)


def load_user(user: str | Path | UserSimulator, world: World, vocabulary: Vocabulary) -> UserSimulator:
    """The simulator that `user` names (see `ugst_env.envs.setup.Setup`); models are loaded once per process.

    Raises
    ------
    ValueError, FileNotFoundError, TypeError
        For an unknown name, a missing file or folder, or an object that cannot play the user.
    ImportError
        If a served model is asked for and the extra `served` is not installed.
    """
    if isinstance(user, (str, Path)):
        name = str(user)
        if name == "scripted":
            from ugst_env.users.scripted import ScriptedUser

            return ScriptedUser(world, vocabulary)
        if name == "ugst-tiny":
            return load_model("")
        if name.startswith("hf:") and len(name) > len("hf:"):
            return load_model(name.removeprefix("hf:"))
        if name.startswith("openai:"):
            return _served_model(
                name.removeprefix("openai:"), os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
            )
        if name.endswith(".gguf"):
            if not Path(name).is_file():
                raise FileNotFoundError(f"user: there is no GGUF file at {name}")
            return load_model(name)
        raise ValueError(f"unknown user {name!r}; accepted: {ACCEPTED}")
    if not callable(getattr(user, "reply", None)):
        raise TypeError(f"user must be {ACCEPTED}; got {type(user).__name__}")
    return user


def open_model(source: str, dtype: torch.dtype | None = None) -> TinyUser | LanguageModelUser:
    """A language-model user with weights of its own: a folder, a hub name, a GGUF file; empty for the shipped model.

    `dtype` is for chat models, see `ugst_env.models.causal.load`.
    """
    from ugst_env.users.tiny import TinyUser

    if not source:
        return TinyUser()
    config = Path(source) / "config.json"
    if config.is_file() and "copy_tokens" in config.read_text(encoding="utf-8"):
        # A model of our own recipe (ugst_env.training) reads another prompt than chat models do.
        return TinyUser(source)
    from ugst_env.users.language_model import LanguageModelUser

    return LanguageModelUser(source, dtype=dtype)


@lru_cache(maxsize=8)
def _served_model(model: str, base_url: str | None, api_key: str | None) -> ServedUser:
    """A user behind a server; environments of one process share its connections."""
    try:
        from ugst_env.users.served import ServedUser
    except ImportError as error:
        raise ImportError(f"user 'openai:{model}' needs an extra: pip install ugst-env[served] ({error})") from error
    return ServedUser(model, base_url=base_url, api_key=api_key)


load_model = lru_cache(maxsize=3)(open_model)
"""`open_model`, once per process."""
