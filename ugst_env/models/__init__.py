"""Language models behind one batched protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ugst_env.models.causal import CausalModel, Prompt, load

__all__ = ["CausalModel", "Prompt", "load"]


def __getattr__(name: str) -> object:
    # Importing torch takes seconds, and most of the package does without it.
    if name in __all__:
        from ugst_env.models import causal

        return getattr(causal, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
