"""What a served user costs beyond its server: a loopback server answers every request after a fixed delay.

    python benchmarks/served.py [--delay 0.05] [--steps 60] [--json OUT]

*Clients*: CPU milliseconds per call of `ChatClient` and of what else there is (aiohttp, httpx, httpx2 and the openai
SDK are measured if they are installed). *Environments*: steps of `UGST-v0` with `num_envs` conversations; ideally a
step takes one delay, whatever `num_envs` is, and the efficiency is that ideal over what it took.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvicorn
from rich.console import Console
from rich.table import Table

from ugst_env.envs.vector import UGSTVectorEnv
from ugst_env.models.chat import ChatRequest
from ugst_env.models.served import ChatClient
from ugst_env.users.served import ServedUser

SAID = ("I need a cheap restaurant in the north.", "It is for four people on friday.", "What is the phone number?")


def run_server(delay: float, pipe: Connection) -> None:
    """Answer chat completions after `delay` seconds, in this process, for ever."""
    usage = {"prompt_tokens": 300, "completion_tokens": 10}

    async def complete(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        await asyncio.sleep(delay)
        said = {"role": "assistant", "content": SAID[json.loads(body)["seed"] % len(SAID)]}
        answer = json.dumps({"choices": [{"message": said, "finish_reason": "stop"}], "usage": usage}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as door:
        # An answer's head and body are two writes: the second must not wait until the client has confirmed the first.
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe.send(door.getsockname()[1])
        config = uvicorn.Config(complete, log_level="critical", access_log=False, lifespan="off")
        uvicorn.Server(config).run(sockets=[door])


REQUEST = ChatRequest((("system", "x" * 2000), ("user", "Hello! What can I do for you?")), seed=1, max_tokens=64)


def _ours(url: str, calls: int) -> None:
    client = ChatClient("m", base_url=url, concurrency=32)
    client.complete([REQUEST] * calls)
    client.close()


def _aiohttp(url: str, calls: int) -> None:
    aiohttp = importlib.import_module("aiohttp")

    async def main() -> None:
        slots = asyncio.Semaphore(32)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one() -> None:
                async with slots:
                    body = {"model": "m", "messages": _messages(), "seed": 1}
                    async with session.post(f"{url}/chat/completions", json=body) as response:
                        await response.json()

            await asyncio.gather(*(one() for _ in range(calls)))

    asyncio.run(main())


def _sdk(url: str, calls: int) -> None:
    openai = importlib.import_module("openai")

    async def main() -> None:
        slots = asyncio.Semaphore(32)
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:

            async def one() -> None:
                async with slots:
                    await client.chat.completions.create(model="m", messages=_messages(), seed=1)

            await asyncio.gather(*(one() for _ in range(calls)))

    asyncio.run(main())


def _plain(name: str) -> Callable[[str, int], None]:
    def run(url: str, calls: int) -> None:
        httpx = importlib.import_module(name)

        async def main() -> None:
            slots = asyncio.Semaphore(32)
            async with httpx.AsyncClient() as client:

                async def one() -> None:
                    async with slots:
                        body = {"model": "m", "messages": _messages(), "seed": 1}
                        (await client.post(f"{url}/chat/completions", json=body)).json()

                await asyncio.gather(*(one() for _ in range(calls)))

        asyncio.run(main())

    return run


def _messages() -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in REQUEST.messages]


CLIENTS = {
    "ours (libcurl)": _ours,
    "aiohttp": _aiohttp,
    "httpx2": _plain("httpx2"),
    "httpx": _plain("httpx"),
    "openai SDK": _sdk,
}


def measure_clients(url: str, calls: int = 400) -> dict[str, float]:
    """CPU milliseconds of this process per call, for each client that is installed; medians of three runs."""
    found: dict[str, float] = {}
    for name, run in CLIENTS.items():
        try:
            run(url, 32)
        except ImportError:
            continue
        times = []
        for _ in range(3):
            before = time.process_time()
            run(url, calls)
            times.append((time.process_time() - before) / calls * 1e3)
        found[name] = statistics.median(times)
    return found


def measure_steps(url: str, num_envs: int, steps: int, delay: float) -> dict[str, float]:
    """Efficiency of the vector env, and the CPU milliseconds of a conversation's step."""
    envs = UGSTVectorEnv(num_envs, user=ServedUser("m", base_url=url, concurrency=num_envs), goals="challenge:val")
    envs.reset(seed=0)
    masks = envs.action_masks()
    for _ in range(5):
        envs.step(masks.argmax(axis=1))
    began, cpu = time.perf_counter(), time.process_time()
    for k in range(steps):
        # Actions rotate, so that conversations take many turns; masks cost the agent's time, not the environment's.
        envs.step(((masks.argmax(axis=1) + k) % 44).astype(int))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    envs.close()
    return {
        "num_envs": num_envs,
        "steps_per_second": num_envs * steps / took,
        "efficiency": delay * steps / took,
        "cpu_ms": cpu / (num_envs * steps) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What a served user costs beyond its server.")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds until the server answers (0.05)")
    parser.add_argument("--steps", type=int, default=60, help="steps of the vector env (60)")
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 16, 64, 128])
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    mine, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=run_server, args=(options.delay, theirs), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{mine.recv()}/v1"
    clients = measure_clients(url)
    rows = [measure_steps(url, count, options.steps, options.delay) for count in options.envs]
    server.terminate()
    console = Console()
    table = Table(title="CPU of a call, ms", title_justify="left")
    table.add_column("client")
    table.add_column("ms", justify="right")
    for name, cost in clients.items():
        table.add_row(name, f"{cost:.2f}")
    console.print(table)
    table = Table(title=f"UGST-v0, a server that answers after {options.delay * 1e3:.0f} ms", title_justify="left")
    for column in ("environments", "steps/s", "of the ideal, %", "CPU of a step, ms"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = f"{row['steps_per_second']:.0f}", f"{100 * row['efficiency']:.0f}", f"{row['cpu_ms']:.2f}"
        table.add_row(f"{row['num_envs']:.0f}", *numbers)
    console.print(table)
    if options.json:
        found: dict[str, Any] = {"delay": options.delay, "clients_cpu_ms": clients, "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
