"""What several tests share: the worlds, and where the data lies that is not part of this project."""

from __future__ import annotations

from pathlib import Path

import pytest

from ugst_env.world import World

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def world() -> World:
    """The shipped city."""
    return World.load()


@pytest.fixture(scope="session")
def multiwoz_db() -> Path:
    """The folder with MultiWOZ's databases."""
    folder = SHARED / "data" / "multiwoz_db"
    if not folder.is_dir():
        pytest.skip("MultiWOZ's databases (../shared/data/multiwoz_db) are not on this machine")
    return folder
