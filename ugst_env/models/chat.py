"""Chat models of any kind behind one batched protocol: requests in, completions out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from json_repair import repair_json

if TYPE_CHECKING:
    from ugst_env.models.causal import CausalModel
    from ugst_env.users.language_model import ChatFormat


@dataclass(frozen=True)
class ChatRequest:
    """What a chat model is asked.

    Parameters
    ----------
    messages
        The chat as ``(role, text)``.
    seed
        The source of chance; how far a server heeds it is up to the server.
    max_tokens
        The most tokens of the answer.
    temperature, top_p
        How tokens are drawn; temperature 0 takes the likeliest.
    key
        Names the conversation: a local model may keep a cache under it. It is not sent anywhere.
    """

    messages: tuple[tuple[str, str], ...]
    seed: int
    max_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0
    key: str = ""


@dataclass(frozen=True)
class Usage:
    """What answers of a served model cost.

    Parameters
    ----------
    prompt_tokens, completion_tokens
        As the server counts them; 0 for answers from the cache.
    calls
        HTTP requests, those that failed included.
    cached
        Answers that came from the cache.
    cost
        In the currency of `ugst_env.models.served.ChatClient.price`; 0 without prices.
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
    """A chat model's answer.

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


class ChatModel(Protocol):
    """Anything that completes chats."""

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """Answer each request, in order; what can't be answered says why in its `error`."""
        ...

    def forget(self, keys: Iterable[str]) -> None:
        """Drop whatever is cached for these conversations."""
        ...


class LocalChat:
    """A chat model in this process.

    Parameters
    ----------
    form, model
        The chat template and the model behind it (`ugst_env.users.language_model.LanguageModelUser` has both).
    """

    def __init__(self, form: ChatFormat, model: CausalModel) -> None:
        self.form, self.model = form, model

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """Answer each request, in order: one batch for all that are drawn alike."""
        answers: dict[int, Completion] = {}
        alike: dict[tuple[int, float, float], list[int]] = {}
        for k, request in enumerate(requests):
            alike.setdefault((request.max_tokens, request.temperature, request.top_p), []).append(k)
        for (max_tokens, temperature, top_p), places in alike.items():
            batch = [requests[k] for k in places]
            answers.update(zip(places, self._complete(batch, max_tokens, temperature, top_p), strict=True))
        return [answers[k] for k in range(len(requests))]

    def _complete(
        self, requests: Sequence[ChatRequest], max_tokens: int, temperature: float, top_p: float
    ) -> list[Completion]:
        from ugst_env.models.causal import Prompt

        longest = self.model.max_length - max_tokens
        prompts = [Prompt(f"chat/{r.key}", self.form.encode(r.messages), r.seed) for r in requests]
        drawn = iter(
            self.model.generate(
                [prompt for prompt in prompts if len(prompt.ids) <= longest],
                max_new_tokens=max_tokens,
                temperature=temperature,
                top_p=top_p,
                stop_ids=self.form.stop_ids,
            )
        )
        answers = []
        for prompt in prompts:
            if len(prompt.ids) > longest:
                error = f"too long: the chat has {len(prompt.ids)} tokens, the model reads {longest}"
                answers.append(Completion(error=error))
                continue
            ids = next(drawn)
            finished = ids[-1] in self.form.stop_ids | self.model.eos_ids
            answers.append(Completion(self.form.decode(ids), finished))
        return answers

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the caches of these conversations."""
        self.model.forget([f"chat/{key}" for key in keys])


def load_chat(model: str, **connection: Any) -> ChatModel:
    """A chat model by its name; local ones are loaded once per process, and shared with users of the same name.

    Parameters
    ----------
    model
        ``"hf:<folder or hub name>"``, the path of a ``.gguf`` file, or ``"openai:<served model>"``.
    **connection
        For a served model: ``base_url``, ``api_key``, ``cache``, ... (`ugst_env.models.served.ChatClient`).

    Raises
    ------
    ValueError, TypeError, FileNotFoundError, ImportError
        If there is no such model, or it is no chat model.
    """
    if model.startswith("openai:"):
        try:
            from ugst_env.models.served import ChatClient
        except ImportError as error:
            raise ImportError(f"{model!r} needs an extra: pip install ugst-env[served] ({error})") from error
        return ChatClient(model.removeprefix("openai:"), **connection)
    if connection:
        raise TypeError(f"{', '.join(connection)} is for served models alone, got the model {model!r}")
    if not model.startswith("hf:") and not model.endswith(".gguf"):
        raise ValueError(f"a model is 'hf:<name>', a .gguf file or 'openai:<served model>', got {model!r}")
    from ugst_env.users.language_model import LanguageModelUser
    from ugst_env.users.loading import load_model

    found = load_model(model.removeprefix("hf:"))
    if not isinstance(found, LanguageModelUser):
        raise ValueError(f"{model!r} plays users and nothing else; name a chat model")
    return LocalChat(found.format, found.model)


_THOUGHTS = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def read_json(answer: str) -> Any:
    """The JSON value in a model's answer, mended where it is broken, without the words around it; None without one."""
    answer = _THOUGHTS.sub("", answer)
    begin = min((at for at in map(answer.find, "{[") if at >= 0), default=-1)
    if begin < 0:
        return None
    text = answer[begin : begin + MAX_JSON]
    try:
        # Behind the value there may be others, of what the model took for further questions.
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        pass
    try:
        found = repair_json(text, return_objects=True)
    except (ValueError, RecursionError):
        return None
    return found[0] if isinstance(found, list) and text[0] == "{" and found else found


MAX_JSON = 20_000
"""The most characters of an answer that are read as JSON."""
