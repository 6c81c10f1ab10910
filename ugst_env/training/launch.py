"""Run a training function in several processes of this machine that average their gradients."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any


def launch(work: Callable[[Any], None], config: Any, processes: int) -> None:
    """Call ``work(config)`` in `processes` processes, as ``torchrun --nproc-per-node`` would.

    Each process finds its place in the usual variables (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``,
    ``MASTER_PORT``). Under torchrun, and with one process, `work` is called in this one.
    """
    if processes == 1 or "WORLD_SIZE" in os.environ:
        work(config)
        return
    from torch import multiprocessing

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.start_processes(  # type: ignore[attr-defined, no-untyped-call]
        _enter, args=(work, config, processes, port), nprocs=processes, start_method="spawn"
    )


def _enter(rank: int, work: Callable[[Any], None], config: Any, processes: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(processes),
        LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        work(config)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
