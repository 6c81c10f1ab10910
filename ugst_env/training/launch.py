"""What a training function runs on: several processes that average their gradients, and the number format."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def fast_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 here: on a GPU, or a CPU with instructions for it.

    Other CPUs emulate it, at a tenth of the speed or worse.
    """
    import torch

    # Older versions of torch do not tell.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.cuda.is_available() or bool(known.get("avx512_bf16") or known.get("amx_bf16"))


_LOCK = ".lock"


@contextmanager
def own_folder(out: Path, *, resume: bool) -> Iterator[None]:
    """Make a stage's folder, and have it to oneself: a second process would write the same things once more.

    Raises
    ------
    FileExistsError
        If it is a file, holds something and `resume` is off, or another process has it.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file: name a folder")
    if out.exists() and any(path.name != _LOCK for path in out.iterdir()) and not resume:
        raise FileExistsError(f"{out} is not empty: name another folder, or resume there")
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(f"another process is writing into {out}: let it finish, or name another folder") from None
    try:
        yield
    finally:
        lock.release()


def launch(work: Callable[[Any], None], config: Any, processes: int) -> None:
    """Call ``work(config)`` in `processes` processes, as ``torchrun --nproc-per-node`` would.

    Each process finds its place in the usual variables (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``,
    ``MASTER_PORT``). Under torchrun, and with one process, `work` is called in this one.
    """
    if processes == 1 or "WORLD_SIZE" in os.environ:
        work(config)
        return
    from torch.multiprocessing import start_processes  # type: ignore[attr-defined]

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_processes(  # type: ignore[no-untyped-call]
        _enter, args=(work, config, processes, port), nprocs=processes, start_method="spawn"
    )


def _end_with_parent() -> None:
    """Whoever starts again after a kill shall not find a rival that writes into the same folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _enter(rank: int, work: Callable[[Any], None], config: Any, processes: int, port: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
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
