"""The benchmarks of speed and of long runs: that they run, are reproducible, and can be stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LONG_RUN = (sys.executable, "benchmarks/long_run.py")


def long_run(path: Path, *options: str) -> dict[str, object]:
    # What it says of memory is for long runs: 160 steps are all warm-up.
    done = subprocess.run([*LONG_RUN, "--json", path, *options], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_a_long_run_is_reproducible_from_its_seed(tmp_path: Path) -> None:
    short = ("--envs", "8", "--steps", "160")
    first, again, other = (
        long_run(tmp_path / f"{k}.json", *short, "--seed", seed) for k, seed in enumerate(("3", "3", "4"))
    )
    assert first["steps"] == 160 and first["episodes"] == again["episodes"] and first["model_errors"] == 0
    assert first["digest"] == again["digest"] != other["digest"]
    assert (tmp_path / "0.png").stat().st_size > 1000


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a single process")
def test_ctrl_c_ends_a_long_run_cleanly(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    process = subprocess.Popen(
        [*LONG_RUN, "--envs", "8", "--steps", "4000", "--json", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A background job may have been started with SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    seen = b""
    # The steps are noted in 50 samples: after 10 % there are some. A busy machine skips per cents.
    while not re.search(rb" [1-9]\d%", seen):
        piece = os.read(process.stderr.fileno(), 4096)
        assert piece, seen[-2000:]
        seen += piece
    process.send_signal(signal.SIGINT)
    told, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest[-2000:]
    assert b"Traceback" not in rest and b"digest" in told
    assert 0 < json.loads(out.read_text())["steps"] < 4000


def test_throughput_compares_every_way(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = f"benchmarks/throughput.py --envs 2 --turns 14 --rounds 1 --json {out}".split()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    ways = json.loads(out.read_text())["envs"]["2"]
    assert set(ways) == {"limit", "equal rows", "vector", "no re-use", "sync", "async"}
    assert all(row["turns_per_second"] > 0 for row in ways.values())
    assert ways["limit"]["share_of_limit"] == 1
    assert ways["limit"]["written_per_turn"] > 1 and 0 < ways["vector"]["model_share"] < 1
    assert "is spent outside its model" in done.stdout
