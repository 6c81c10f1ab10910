"""Any chat model as the simulated user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ugst_env.models.causal import CausalModel, Prompt, load
from ugst_env.users.prompts import MAX_TEXT, TEXT_CHARSET, clean, messages, read_reply
from ugst_env.users.protocol import UserReply, UserRequest

__all__ = ["MAX_TEXT", "TEXT_CHARSET", "ChatFormat", "LanguageModelUser", "clean"]

# Private-use characters, which no template writes or strips.
_PLACE = "\ue000{}\ue001"
_PLACES = re.compile("\ue000(\\d+)\ue001")


class ChatFormat:
    """A tokenizer's chat template, applied so that no message can forge a control token.

    The template is rendered with place holders instead of the messages. Only its own pieces are parsed for control
    tokens; the messages are tokenised as plain text, and put in their places as token ids.

    Parameters
    ----------
    tokenizer
        A ``transformers`` tokenizer with a chat template.

    Attributes
    ----------
    control_ids : frozenset of int
        The tokens that a message can never contain.
    stop_ids : frozenset of int
        The tokens that end the model's turn.

    Raises
    ------
    ValueError
        If there is no chat template, or it drops, repeats or reorders messages.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError("the tokenizer has no chat template, and a user simulator needs a chat model")
        self.tokenizer = tokenizer
        added = {int(i): token for i, token in tokenizer.added_tokens_decoder.items()}
        special = {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        # Added tokens that are plain words or blanks control nothing.
        self.control_ids = frozenset(
            special | {i for i, token in added.items() if not re.fullmatch(r"\w+|\s+", token.content)}
        )
        self._template = lru_cache(maxsize=1024)(self._encode_template)
        self._data = lru_cache(maxsize=16384)(self._encode_data)
        self._system_role = self._takes_system_role()
        closing = self._template(self._pieces(self._dialogue(), generate=False)[-1])
        ends = [i for i in closing if i in special][:1]
        self._closing = tuple(closing[: closing.index(ends[0]) + 1]) if ends else (int(tokenizer.eos_token_id),)
        # A reasoning model may well write "<think>".
        self.stop_ids = frozenset(ends) | {i for i in special if i not in added or "think" not in added[i].content}

    def encode(self, chat: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """The ids of a chat of ``(role, text)``, up to where the model's next turn begins."""
        ids, closing = self.open(chat)
        return (*ids, *closing)

    def open(self, chat: Sequence[tuple[str, str]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of a chat up to the end of its last text, to which `data` can be added, and those that close it."""
        chat = list(chat)
        if not self._system_role and chat[0][0] == "system":
            chat[:2] = [(chat[1][0], f"{chat[0][1]}\n\n{chat[1][1]}")]
        pieces = self._pieces([role for role, _ in chat], generate=True)
        ids = list(self._template(pieces[0]))
        for (_, text), piece in zip(chat, pieces[1:], strict=True):
            ids += self._data(text)
            closing = self._template(piece)
            ids += closing
        return tuple(ids[: len(ids) - len(closing)]), closing

    def data(self, text: str) -> tuple[int, ...]:
        """The ids of a piece of text, none of them a control token."""
        return self._data(text)

    def target(self, text: str) -> tuple[int, ...]:
        """The ids of the model's own turn, with the token that ends it."""
        return (*self._data(text), *self._closing)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a reply, without the token that ended it."""
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _dialogue(self) -> list[str]:
        return [*(["system"] if self._system_role else []), "user", "assistant", "user", "assistant"]

    def _takes_system_role(self) -> bool:
        try:
            self._pieces(["system", "user", "assistant", "user"], generate=True)
        except Exception:
            self._pieces(["user", "assistant", "user"], generate=True)
            return False
        return True

    def _pieces(self, roles: Sequence[str], *, generate: bool) -> tuple[str, ...]:
        """What the template writes before, between and behind messages of these roles."""
        chat = [{"role": role, "content": _PLACE.format(k)} for k, role in enumerate(roles)]
        text: str = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generate)
        parts = _PLACES.split(text)
        if parts[1::2] != [str(k) for k in range(len(roles))]:
            raise ValueError("the chat template drops, repeats or reorders messages")
        return tuple(parts[::2])

    def _encode_template(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    def _encode_data(self, text: str) -> tuple[int, ...]:
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(i for i in ids if i not in self.control_ids)


class LanguageModelUser:
    """A user simulator that asks a chat model for the user's words.

    It is told the goal in its system prompt. A request with a `state` is *steered*: the model is shown every
    component's status before it replies. A reply depends on the request alone, not on the rest of the batch nor on
    earlier calls.

    Parameters
    ----------
    source
        A folder, a ``*.gguf`` file, the name of a model on the Hugging Face hub, or ``(model, tokenizer)``.
    trace
        Whether the model is asked to reason before each message (`UserReply.trace`).
    temperature, top_p
        How tokens are drawn; temperature 0 takes the likeliest.
    max_new_tokens
        The most tokens of a message. A message that is not over by then ends after its last whole sentence.
    trace_tokens
        The most tokens of the reasoning trace, in addition.
    max_length
        The most tokens of a prompt and its reply; None takes what the model can read, at most 4096.
    device, dtype
        As in `ugst_env.models.causal.load`.
    cache_bytes
        The most memory for keys and values (see `CausalModel`).

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such model, it has no chat template, or an option is out of range.
    """

    def __init__(
        self,
        source: str | Path | tuple[Any, Any],
        *,
        trace: bool = False,
        temperature: float = 0.7,
        top_p: float = 1.0,
        max_new_tokens: int = 64,
        trace_tokens: int = 192,
        max_length: int | None = None,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        cache_bytes: int = 4 << 30,
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {top_p}")
        model, tokenizer = source if isinstance(source, tuple) else load(source, device=device, dtype=dtype)
        self.format = ChatFormat(tokenizer)
        self.trace = trace
        self.temperature = temperature
        self.top_p = top_p
        self._message_tokens, self._trace_tokens = max_new_tokens, trace_tokens
        readable = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 4096
        self.model = CausalModel(
            model,
            eos_ids=_eos_ids(model, tokenizer),
            device=device,
            max_length=min(max_length or 4096, readable),
            cache_bytes=cache_bytes,
        )

    @property
    def new_tokens(self) -> int:
        """The most tokens of an answer, its trace included."""
        return self._message_tokens + (self._trace_tokens if self.trace else 0)

    def reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        """Answer each request, in order, in one batch.

        A failure of the model becomes the `error` of every reply; a conversation that is too long for it, of that one.
        """
        try:
            return self._reply(requests)
        except Exception as error:
            return [UserReply("", error=repr(error)) for _ in requests]

    def forget(self, episodes: Sequence[str]) -> None:
        """Drop the caches of these conversations."""
        self.model.forget(episodes)

    def _reply(self, requests: Sequence[UserRequest]) -> list[UserReply]:
        prompts = [Prompt(r.episode, self.format.encode(messages(r, trace=self.trace)), r.seed) for r in requests]
        longest = self.model.max_length - self.new_tokens
        fit = [prompt for prompt in prompts if len(prompt.ids) <= longest]
        answers = iter(
            self.model.generate(
                fit,
                max_new_tokens=self.new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                stop_ids=self.format.stop_ids,
            )
        )
        replies = []
        for prompt in prompts:
            if len(prompt.ids) > longest:
                error = f"too long: the conversation has {len(prompt.ids)} tokens, the model reads {longest}"
                replies.append(UserReply("", error=error))
                continue
            ids = next(answers)
            finished = ids[-1] in self.format.stop_ids | self.model.eos_ids
            replies.append(read_reply(self.format.decode(ids), finished=finished, trace=self.trace))
        return replies


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for source in (tokenizer, model.config, getattr(model, "generation_config", None)):
        ids = getattr(source, "eos_token_id", None)
        if isinstance(ids, int):
            found.add(ids)
        elif isinstance(ids, Iterable):
            found.update(int(i) for i in ids)
    return frozenset(found)
