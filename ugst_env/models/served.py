"""Chat models behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, hosted ones.

`ChatClient.complete` takes a batch and returns when all of it is answered. Inside, the requests run at once on an event
loop of their own thread, over connections that are kept. What can pass (429, 5xx, time-outs, broken answers) is tried
again with back-off; what can't becomes the `error` of that one answer. The key is sent to the server and stands nowhere
else: not in the cache, nor in a repr or an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from diskcache import Cache, JSONDisk

HOSTED = "https://api.openai.com/v1"
MAX_BODY = 2_000_000
"""The most bytes of an answer that are read."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PASSING = (408, 409, 425, 429)
_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class ChatRequest:
    """What a served model is asked.

    Parameters
    ----------
    messages
        The chat as ``(role, text)``.
    seed
        Sent along; how far it is heeded is up to the server.
    max_tokens
        The most tokens of the answer.
    temperature, top_p
        How tokens are drawn.
    """

    messages: tuple[tuple[str, str], ...]
    seed: int
    max_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0


@dataclass(frozen=True)
class Usage:
    """What answers cost.

    Parameters
    ----------
    prompt_tokens, completion_tokens
        As the server counts them; 0 for answers from the cache.
    calls
        HTTP requests, those that failed included.
    cached
        Answers that came from the cache.
    cost
        In the currency of `ChatClient.price`; 0 without prices.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    cached: int = 0
    cost: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.calls + other.calls,
            self.cached + other.cached,
            self.cost + other.cost,
        )


@dataclass(frozen=True)
class Completion:
    """A served model's answer.

    Parameters
    ----------
    text
        What the model wrote.
    finished
        Whether it came to an end by itself.
    usage
        What it took.
    error
        Why there is no answer; None if there is one.
    """

    text: str = ""
    finished: bool = True
    usage: Usage = Usage()
    error: str | None = None


class _Passing(Exception):
    """A failure that may be gone next time; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class ChatClient:
    """Batches of chat completions from an OpenAI-compatible server.

    Parameters
    ----------
    model
        The model's name, as the server knows it.
    base_url
        Where the server is, up to ``/v1``. None takes ``OPENAI_BASE_URL`` of the environment, else the hosted one.
    api_key
        None takes ``OPENAI_API_KEY`` of the environment; servers of one's own often need none.
    concurrency
        The most requests under way at once.
    timeout
        Seconds for one try, connection included.
    attempts
        The most tries per request.
    backoff
        The wait before a second try is drawn from 0 to this many seconds, and twice as many before each further one; a
        server's ``Retry-After`` is heeded, up to 30 s.
    cache
        Folder for answers. The key is the whole request, so that a run again is free and gives the same.
    price
        What a million prompt tokens and a million completion tokens cost, for `Usage.cost`.
    options
        Further fields of the request's body; None takes a field out (``{"max_tokens": None,
        "max_completion_tokens": 64}``).

    Raises
    ------
    ValueError
        If a number is out of range, the address is none, or the hosted server is to be used without a key.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        concurrency: int = 128,
        timeout: float = 60.0,
        attempts: int = 6,
        backoff: float = 0.5,
        cache: str | Path | None = None,
        price: tuple[float, float] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not model:
            raise ValueError("the name of the served model is empty")
        for name, value in (("concurrency", concurrency), ("attempts", attempts)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if timeout <= 0 or backoff < 0:
            raise ValueError(f"timeout must be above 0 and backoff not below, got {timeout} and {backoff}")
        address = (base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED).rstrip("/")
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must be an address such as http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError("base_url must not hold a user name or password; give a key as api_key")
        key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        if not key and address == HOSTED:
            raise ValueError(
                "no server and no key: give base_url, or api_key, or set OPENAI_BASE_URL or OPENAI_API_KEY"
            )
        self.model, self.base_url = model, address
        self.concurrency, self.timeout, self.attempts, self.backoff = concurrency, timeout, attempts, backoff
        self.price = price
        self._key = key
        self._options = dict(options or {})
        self._proxies = parts.hostname not in _LOOPBACK
        self._folder = Path(cache) if cache is not None else None
        self._start()

    def __repr__(self) -> str:
        return f"ChatClient({self.model!r}, base_url={self.base_url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.__dict__.items() if name not in ("_lock", "_line", "_hang_up", "_cache")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._hang_up: weakref.finalize[..., ChatClient] | None = None
        self._cache = Cache(str(self._folder), disk=JSONDisk, eviction_policy="none") if self._folder else None

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """Answer each request, in order. Nothing that a server does raises; it becomes an `error`."""
        answers = dict(self.stream(requests))
        return [answers[k] for k in range(len(answers))]

    def stream(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[int, Completion]]:
        """Answer each request as ``(position, answer)``, in the order in which the answers come."""
        line = self._open()
        done: SimpleQueue[tuple[int, Future[Completion]]] = SimpleQueue()
        futures: list[Future[Completion]] = []
        try:
            for k, request in enumerate(requests):
                future = asyncio.run_coroutine_threadsafe(self._answer(request, line), line.loop)
                future.add_done_callback(lambda future, k=k: done.put((k, future)))  # type: ignore[misc]
                futures.append(future)
            for _ in futures:
                k, future = done.get()
                yield k, future.result()
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Close all connections and end the thread; `complete` opens them again."""
        with self._lock:
            self._line = None
            if self._hang_up is not None:
                self._hang_up()

    def _open(self) -> _Line:
        if self._line is not None and self._line.process != os.getpid():
            self._start()  # A fork takes neither threads nor locks nor connections along.
        with self._lock:
            if self._line is None:
                self._line = line = _Line(asyncio.new_event_loop(), asyncio.Semaphore(self.concurrency), os.getpid())
                threading.Thread(target=_run, args=(line.loop,), name=f"served {self.model}", daemon=True).start()
                self._hang_up = weakref.finalize(self, _close, line)
            return self._line

    def _session(self, line: _Line) -> aiohttp.ClientSession:
        """The connections, which have to be made within the event loop."""
        if line.session is None:
            line.session = aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self.timeout),
                trust_env=self._proxies,
            )
        return line.session

    def _body(self, request: ChatRequest) -> bytes:
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "seed": request.seed,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            **self._options,
        }
        return json.dumps({name: value for name, value in body.items() if value is not None}).encode()

    async def _answer(self, request: ChatRequest, line: _Line) -> Completion:
        body = self._body(request)
        name = hashlib.sha256(self.base_url.encode() + b"\n" + body).hexdigest()
        if self._cache is not None and (known := self._cache.get(name)) is not None:
            return Completion(known["text"], known["finished"], Usage(cached=1))
        usage = Usage()
        reason = ""
        for attempt in range(self.attempts):
            try:
                async with line.slots:
                    usage += Usage(calls=1)
                    answer = await self._try(body, self._session(line))
            except _Passing as failure:
                reason = str(failure)
                if attempt + 1 < self.attempts:
                    drawn = random.uniform(0, self.backoff * 2**attempt)
                    await asyncio.sleep(min(max(drawn, failure.wait), _LONGEST_WAIT))
                continue
            if answer.error is None and self._cache is not None:
                self._cache.set(name, {"text": answer.text, "finished": answer.finished})
            return Completion(answer.text, answer.finished, usage + answer.usage, answer.error)
        return Completion(usage=usage, error=f"{reason} (tried {self.attempts} times)")

    async def _try(self, body: bytes, session: aiohttp.ClientSession) -> Completion:
        """One HTTP request.

        Raises
        ------
        _Passing
            If another try may help.
        """
        url, headers = f"{self.base_url}/chat/completions", {"Content-Type": "application/json"}
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                parts: list[bytes] = []
                size = 0
                async for part in response.content.iter_any():
                    parts.append(part)
                    size += len(part)
                    if size > MAX_BODY:
                        raise _Passing(f"the server's answer is longer than {MAX_BODY} bytes")
                status, wait = response.status, _seconds(response.headers.get("Retry-After"))
        except (TimeoutError, asyncio.TimeoutError):
            raise _Passing(f"the server gave no answer within {self.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as failure:
            raise _Passing(f"the connection failed ({self._safe(type(failure).__name__, str(failure))})") from None
        text = b"".join(parts).decode("utf-8", errors="replace")
        if status == 200:
            return self._read(text)
        told = f"the server answered HTTP {status}: {self._safe(_message(text))}"
        if status in _PASSING or status >= 500:
            raise _Passing(told, wait)
        return Completion(error=told)

    def _read(self, text: str) -> Completion:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise _Passing(f"the server's answer is no JSON: {self._safe(text)}") from None
        try:
            choice = answer["choices"][0]
            said = choice["message"].get("content") or ""
            ended = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            said = None
        if not isinstance(said, str):
            raise _Passing(f"the server's answer is no chat completion: {self._safe(text)}")
        told = answer.get("usage")
        read, wrote = (_count(told, name) for name in ("prompt_tokens", "completion_tokens"))
        price = self.price or (0.0, 0.0)
        usage = Usage(read, wrote, cost=(read * price[0] + wrote * price[1]) / 1e6)
        return Completion(said, ended != "length", usage)

    def _safe(self, *words: str) -> str:
        """Foreign text for an error: short, on one line, without the key."""
        text = " ".join(": ".join(words).split())
        text = text.replace(self._key, "***") if self._key else text
        return text if len(text) <= 200 else text[:197] + "..."


@dataclass
class _Line:
    """An event loop in a thread of its own, and the connections that live there."""

    loop: asyncio.AbstractEventLoop
    slots: asyncio.Semaphore
    process: int
    session: aiohttp.ClientSession | None = None

    async def hang_up(self) -> None:
        if self.session is not None:
            await self.session.close()
            self.session = None


def _close(line: _Line) -> None:
    if line.process == os.getpid() and line.loop.is_running():
        asyncio.run_coroutine_threadsafe(line.hang_up(), line.loop).result(timeout=5)
        line.loop.call_soon_threadsafe(line.loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def _message(text: str) -> str:
    """What an error's body says."""
    try:
        told = json.loads(text)
        error = told.get("error", told.get("detail", told.get("message")))
        return str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError, RecursionError):
        return text


def _count(usage: Any, name: str) -> int:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else 0
