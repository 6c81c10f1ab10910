"""Simulated users behind one batched protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ugst_env.users.protocol import UserReply, UserRequest, UserSimulator

if TYPE_CHECKING:
    from ugst_env.users.language_model import LanguageModelUser

__all__ = ["LanguageModelUser", "UserReply", "UserRequest", "UserSimulator"]


def __getattr__(name: str) -> object:
    # Importing torch takes seconds, and scripted users do without it.
    if name == "LanguageModelUser":
        from ugst_env.users.language_model import LanguageModelUser

        return LanguageModelUser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
