"""Chat models behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, hosted ones.

`ChatClient.complete` takes a batch and returns when all of it is answered; `stream` yields the answers as they come.
The requests run at once, over connections that are kept, by libcurl's multi interface: asynchronous clients written in
Python take four times as much CPU time per call, or more (`benchmarks/served.py`). What can pass (429, 5xx, time-outs,
broken answers) is tried again with back-off; what can't becomes the `error` of that one answer. The key is sent to the
server and stands nowhere else: not in the cache, nor in a repr or an error.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import random
import select
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import pycurl
from diskcache import Cache, JSONDisk

from ugst_env.models.chat import ChatRequest, Completion, Usage

HOSTED = "https://api.openai.com/v1"
MAX_BODY = 2_000_000
"""The most bytes of an answer that are read."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PASSING = (408, 409, 425, 429)
_LONGEST_WAIT = 30.0
_BETWEEN_LOOKS = 0.002

_ABANDONED: list[_Line] = []


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
        # The end of a request's body, which is the same again and again, by what it depends on.
        self._settings: dict[tuple[int, float, float], str] = {}
        self._start()

    def __repr__(self) -> str:
        return f"ChatClient({self.model!r}, base_url={self.base_url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lines", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lines: list[_Line] = []
        self._cache = Cache(str(self._folder), disk=JSONDisk, eviction_policy="none") if self._folder else None

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """Answer each request, in order. Nothing that a server does raises; it becomes an `error`."""
        answers = dict(self.stream(requests))
        return [answers[k] for k in range(len(requests))]

    def forget(self, keys: Iterable[str]) -> None:
        """Nothing is kept here; prefixes are the server's to remember."""

    def stream(self, requests: Iterable[ChatRequest]) -> Iterator[tuple[int, Completion]]:
        """Answer each request as ``(position, answer)``, in the order in which the answers come.

        A request is sent as soon as `requests` yields it, while others may still be in the making.
        """
        line = self._line()
        # (when, position, job): what waits for its first or its next try.
        queue: list[tuple[float, int, _Job]] = []
        fresh = enumerate(requests)
        more = True
        try:
            while more or queue or line.busy:
                if more and len(line.busy) < self.concurrency:
                    k, request = next(fresh, (-1, None))
                    more = request is not None
                    if request is not None:
                        job = self._job(k, request)
                        if isinstance(job, _Job):
                            heapq.heappush(queue, (0.0, k, job))
                        else:
                            yield k, job
                now = time.monotonic()
                while queue and queue[0][0] <= now and len(line.busy) < self.concurrency:
                    self._send(heapq.heappop(queue)[2], line)
                if not queue and not line.busy:
                    continue  # There is nothing to wait for.
                room = len(line.busy) < self.concurrency
                for job in line.finished(0.0 if more and room else queue[0][0] - now if queue and room else 1.0):
                    answer, wait = self._outcome(job)
                    if answer is None:
                        heapq.heappush(queue, (time.monotonic() + wait, job.position, job))
                    else:
                        yield job.position, answer
        finally:
            line.drop()
            self._lines.append(line)

    def _job(self, position: int, request: ChatRequest) -> _Job | Completion:
        """What is to be sent for a request, or its answer where that is known."""
        body = self._body(request)
        if self._cache is None:
            return _Job(position, "", body)
        name = hashlib.sha256(self.base_url.encode() + b"\n" + body).hexdigest()
        known = self._cache.get(name)
        if known is None:
            return _Job(position, name, body)
        return Completion(known["text"], known["finished"], Usage(cached=1))

    def close(self) -> None:
        """Close all connections that are not in use; `complete` opens them again."""
        while self._lines and self._process == os.getpid():
            self._lines.pop().close()

    def _line(self) -> _Line:
        """Connections for one call of `stream`: several threads, or a call within another, have their own."""
        if self._process != os.getpid():
            # A fork must not speak, not even to say goodbye, on connections that its parent goes on with.
            _ABANDONED.extend(self._lines)
            self._start()
        return self._lines.pop() if self._lines else _Line(self.concurrency)

    def _new_handle(self) -> pycurl.Curl:
        handle = pycurl.Curl()
        handle.setopt(pycurl.URL, f"{self.base_url}/chat/completions")
        headers = ["Content-Type: application/json", "Expect:"]
        handle.setopt(pycurl.HTTPHEADER, [*headers, f"Authorization: Bearer {self._key}"] if self._key else headers)
        handle.setopt(pycurl.TIMEOUT_MS, max(1, int(1000 * self.timeout)))
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.CAINFO, certifi.where())
        if not self._proxies:
            handle.setopt(pycurl.NOPROXY, "*")
        return handle

    def _send(self, job: _Job, line: _Line) -> None:
        job.tries += 1
        job.answer.clear()
        handle = line.free.pop() if line.free else self._new_handle()
        handle.setopt(pycurl.POSTFIELDS, job.body)
        handle.setopt(pycurl.WRITEFUNCTION, job.write)
        line.begin(handle, job)

    def _outcome(self, job: _Job) -> tuple[Completion | None, float]:
        """The answer of a job whose try is over; or None, and how many seconds to wait before the next."""
        try:
            answer = self._judge(job)
        except _Passing as failure:
            if job.tries < self.attempts:
                drawn = random.uniform(0, self.backoff * 2 ** (job.tries - 1))
                return None, min(max(drawn, failure.wait), _LONGEST_WAIT)
            return Completion(usage=Usage(calls=job.tries), error=f"{failure} (tried {self.attempts} times)"), 0.0
        if answer.error is None and self._cache is not None:
            self._cache.set(job.name, {"text": answer.text, "finished": answer.finished})
        return answer, 0.0

    def _judge(self, job: _Job) -> Completion:
        """What one try came to.

        Raises
        ------
        _Passing
            If another try may help.
        """
        if len(job.answer) > MAX_BODY:
            raise _Passing(f"the server's answer is longer than {MAX_BODY} bytes")
        if job.failure is not None:
            code, told = job.failure
            if code == pycurl.E_OPERATION_TIMEDOUT:
                raise _Passing(f"the server gave no answer within {self.timeout:g} s")
            raise _Passing(f"the connection failed ({self._safe(told)})")
        text = job.answer.decode("utf-8", errors="replace")
        if job.status == 200:
            return self._read(text, job.tries)
        told = f"the server answered HTTP {job.status}: {self._safe(_message(text))}"
        if job.status in _PASSING or job.status >= 500:
            raise _Passing(told, job.wait)
        return Completion(usage=Usage(calls=job.tries), error=told)

    def _body(self, request: ChatRequest) -> bytes:
        settings = (request.max_tokens, request.temperature, request.top_p)
        if settings not in self._settings:
            names = ("max_tokens", "temperature", "top_p")
            body = {"model": self.model, **dict(zip(names, settings, strict=True)), **self._options}
            self._settings[settings] = json.dumps({name: value for name, value in body.items() if value is not None})
        seed = "" if "seed" in self._options else f'"seed": {request.seed}, '
        said = ", ".join(map(_message_json, request.messages))
        return f'{{"messages": [{said}], {seed}{self._settings[settings][1:]}'.encode()

    def _read(self, text: str, calls: int) -> Completion:
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
        usage = Usage(read, wrote, calls, cost=(read * price[0] + wrote * price[1]) / 1e6)
        return Completion(said, ended != "length", usage)

    def _safe(self, *words: str) -> str:
        """Foreign text for an error: short, on one line, without the key."""
        text = " ".join(": ".join(words).split())
        text = text.replace(self._key, "***") if self._key else text
        return text if len(text) <= 200 else text[:197] + "..."


@dataclass
class _Job:
    """A request on its way: what is sent, and what the newest try has brought so far.

    `name` is what its answer is called in the cache, `wait` the seconds that the server wants to be left alone for.
    """

    position: int
    name: str
    body: bytes
    tries: int = 0
    answer: bytearray = field(default_factory=bytearray)
    status: int = 0
    failure: tuple[int, str] | None = None
    wait: float = 0.0

    def write(self, data: bytes) -> int | None:
        self.answer += data
        return None if len(self.answer) <= MAX_BODY else -1


_IN, _OUT = getattr(select, "POLLIN", 1), getattr(select, "POLLOUT", 4)


class _Select:
    """What takes the place of `select.poll` where there is none, which is on Windows."""

    def __init__(self) -> None:
        self.watched: dict[int, int] = {}

    def register(self, socket: int, events: int) -> None:
        self.watched[socket] = events

    def unregister(self, socket: int) -> None:
        del self.watched[socket]

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        if not self.watched:
            time.sleep(milliseconds / 1e3)
            return []
        reading, writing = ([s for s, events in self.watched.items() if events & kind] for kind in (_IN, _OUT))
        readable, writable, _ = select.select(reading, writing, [], milliseconds / 1e3)
        return [*((socket, _IN) for socket in readable), *((socket, _OUT) for socket in writable)]


class _Line:
    """The connections of one thread, and the tries that are under way on them.

    libcurl is told which sockets are ready: left to look for itself, it goes through all of them at every call.
    """

    def __init__(self, concurrency: int) -> None:
        self.multi = pycurl.CurlMulti()
        self.multi.setopt(pycurl.M_MAXCONNECTS, concurrency)
        self.multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self._alarm)
        self.free: list[pycurl.Curl] = []
        self.busy: dict[pycurl.Curl, _Job] = {}
        # Not epoll, whose object a forked process would share.
        self._sockets: Any = select.poll() if hasattr(select, "poll") else _Select()
        self._due: float | None = None
        self._next_look = 0.0

    def _watch(self, what: int, socket: int, *_: Any) -> None:
        """Libcurl says what it waits for on a socket."""
        if what == pycurl.POLL_REMOVE:
            self._sockets.unregister(socket)
        else:
            self._sockets.register(
                socket, (_IN if what & pycurl.POLL_IN else 0) | (_OUT if what & pycurl.POLL_OUT else 0)
            )

    def _alarm(self, milliseconds: int) -> None:
        """Libcurl says when it wants to be called, whatever the sockets do."""
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1e3

    def begin(self, handle: pycurl.Curl, job: _Job) -> None:
        self.busy[handle] = job
        self.multi.add_handle(handle)

    def finished(self, longest: float) -> list[_Job]:
        """The jobs whose try is over; waits for one, but no longer than `longest` seconds.

        Without waiting, it looks only so often: to ask for a hundred sockets takes as long as to make half a request.
        """
        if longest > 0 and not self.busy:
            time.sleep(longest)
            return []
        now = time.monotonic()
        if longest <= 0 and now < self._next_look:
            self._ring(now)
            return []
        until = now + min(longest, 1.0)
        while True:
            done = self._collect()
            now = time.monotonic()
            if done or until <= now:
                self._next_look = now + _BETWEEN_LOOKS
                return done
            self._go_on(until - now)

    def _go_on(self, longest: float) -> None:
        """Let libcurl see to what is ready, after waiting for something that is."""
        wait = longest if self._due is None else min(longest, self._due - time.monotonic())
        for socket, event in self._sockets.poll(max(1e3 * wait, 0.0)):
            # What is neither is a connection that broke, which libcurl finds out by either.
            ready = (pycurl.CSELECT_IN if event & ~_OUT else 0) | (pycurl.CSELECT_OUT if event & ~_IN else 0)
            self.multi.socket_action(socket, ready)
        self._ring(time.monotonic())

    def _ring(self, now: float) -> None:
        """Call libcurl if it wanted to be called by now; what was begun is sent that way."""
        if self._due is not None and self._due <= now:
            self._due = None
            self.multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _collect(self) -> list[_Job]:
        self._go_on(0.0)
        done = []
        more = True
        while more:
            left, good, bad = self.multi.info_read()
            for handle, failure in [*((h, None) for h in good), *((h, (code, text)) for h, code, text in bad)]:
                job = self.busy.pop(handle)
                job.status, job.failure = handle.getinfo(pycurl.RESPONSE_CODE), failure
                job.wait = 0.0 if job.status == 200 else float(handle.getinfo(pycurl.RETRY_AFTER))
                self.multi.remove_handle(handle)
                self.free.append(handle)
                done.append(job)
            more = left > 0
        return done

    def drop(self) -> None:
        """Give up on whatever is under way."""
        for handle in self.busy:
            self.multi.remove_handle(handle)
            handle.close()
        self.busy.clear()

    def close(self) -> None:
        """Close all connections."""
        self.drop()
        for handle in self.free:
            handle.close()
        self.multi.close()


# A conversation only grows: what was said before stands in each of its requests.
@lru_cache(maxsize=8192)
def _message_json(message: tuple[str, str]) -> str:
    return json.dumps({"role": message[0], "content": message[1]})


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
