"""Batched generation with any Hugging Face causal language model, re-using key/value caches from turn to turn.

A batch is *packed*: the new tokens of all rows stand one after another in a single sequence, and only attention knows
where a row begins and ends. So nothing is padded, however ragged the prompts are, and prefill and decoding are the same
computation. Keys and values live in slot buffers (per layer two tensors ``[slots, heads, capacity, head_dim]``, one
slot per conversation, left-aligned), are written and attended to in place: nothing is copied from turn to turn.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_LOG = logging.getLogger(__name__)

Ids = npt.NDArray[np.int64]

_ATTENTION = "ugst_slots"
# What an attention layer may ask for that `_slot_attention` does not compute.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "sinks")
_ROPE_BY_LENGTH = ("dynamic", "longrope")


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue.

    Parameters
    ----------
    key
        Names a conversation, whose cache may be re-used. The reply does not depend on it.
    ids
        The token ids, control tokens included: nothing is added to them.
    seed
        The only source of chance.
    banned
        Token ids that the reply must not contain.
    """

    key: str
    ids: tuple[int, ...]
    seed: int
    banned: tuple[int, ...] = ()


# ----------------------------------------------------------------------------------------------------------- attention


@dataclass(frozen=True)
class _Piece:
    """New tokens ``first:last`` of a packed batch, which take positions ``start:`` of one slot."""

    slot: int
    first: int
    last: int
    start: int


@dataclass(frozen=True)
class _Run:
    """Rows ``first:last`` of a decoding batch that lie in neighbouring slots, so that a view covers them.

    `mask` is ``[rows, 1, 1, length]``, additive; None where all rows have the same length.
    """

    slot: int
    first: int
    last: int
    length: int
    mask: torch.Tensor | None


@dataclass(frozen=True)
class _Plan:
    """Where the keys and values of a packed batch belong: `pieces` when prefilling, `runs` when decoding."""

    slots: _Slots
    pieces: tuple[_Piece, ...] = ()
    masks: tuple[torch.Tensor, ...] = ()
    runs: tuple[_Run, ...] = ()
    rows: torch.Tensor | None = None
    positions: torch.Tensor | None = None


def _zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """A tensor of zeros (not empty memory: a masked NaN is still a NaN), with the type and place of another."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    # NumPy gets its zeros from the operating system page by page, when they are first written: spare capacity is free.
    size = math.prod(shape) * like.element_size()
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(like.dtype).view(shape)


class _Slots:
    """The buffers: ``layers[i]`` is ``(keys, values)``, each ``[count, heads, capacity, head_dim]``."""

    def __init__(self) -> None:
        self.count = 0
        self.capacity = 0
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def layer(self, index: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if index not in self.layers:
            self.layers[index] = (
                _zeros(keys, self.count, keys.shape[1], self.capacity, keys.shape[3]),
                _zeros(values, self.count, values.shape[1], self.capacity, values.shape[3]),
            )
        return self.layers[index]

    def rebuild(self, count: int, capacity: int, kept: Sequence[tuple[int, int, int]]) -> None:
        """Reallocate, moving ``(old slot, new slot, length)``; layer by layer, to keep the peak low."""
        self.count, self.capacity = count, capacity
        for index, old in self.layers.items():
            new = tuple(_zeros(t, count, t.shape[1], capacity, t.shape[3]) for t in old)
            for source, target, length in kept:
                for before, after in zip(old, new, strict=True):
                    after[target, :, :length] = before[source, :, :length]
            self.layers[index] = (new[0], new[1])

    def copy(self, source: int, target: int, length: int) -> None:
        for pair in self.layers.values():
            for buffer in pair:
                buffer[target, :, :length] = buffer[source, :, :length]

    @property
    def bytes_per_token(self) -> int:
        return sum(t.shape[1] * t.shape[3] * t.element_size() for pair in self.layers.values() for t in pair)


def _slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    ugst_plan: _Plan | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Write the new keys and values into their slots, and attend to the slots.

    `query` is ``[1, heads, tokens, head_dim]``, `key` and `value` ``[1, kv_heads, tokens, head_dim]``; the result is
    ``[1, tokens, heads, head_dim]``.
    """
    if ugst_plan is None or any(options.get(name) is not None for name in _UNSUPPORTED):
        raise NotImplementedError(f"{type(module).__name__} needs more than plain attention")
    index: int = module.layer_idx  # type: ignore[assignment]
    keys, values = ugst_plan.slots.layer(index, key, value)
    _, heads, tokens, dim = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads  # Query heads of one key/value head are folded into its queries: no key is repeated.
    if ugst_plan.rows is not None:
        keys[ugst_plan.rows, :, ugst_plan.positions] = key[0].transpose(0, 1)
        values[ugst_plan.rows, :, ugst_plan.positions] = value[0].transpose(0, 1)
        folded = query[0].transpose(0, 1).reshape(tokens, kv_heads, group, dim)
        parts = []
        for run in ugst_plan.runs:
            last = run.slot + run.last - run.first
            parts.append(
                F.scaled_dot_product_attention(
                    folded[run.first : run.last],
                    keys[run.slot : last, :, : run.length],
                    values[run.slot : last, :, : run.length],
                    attn_mask=run.mask,
                    scale=scaling,
                )
            )
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return attended.reshape(1, tokens, heads, -1), None
    output = query.new_empty(tokens, heads, value.shape[3])
    for piece, mask in zip(ugst_plan.pieces, ugst_plan.masks, strict=True):
        count = piece.last - piece.first
        end = piece.start + count
        keys[piece.slot, :, piece.start : end] = key[0, :, piece.first : piece.last]
        values[piece.slot, :, piece.start : end] = value[0, :, piece.first : piece.last]
        attended = F.scaled_dot_product_attention(
            query[:, :, piece.first : piece.last].reshape(1, kv_heads, group * count, dim),
            keys[piece.slot : piece.slot + 1, :, :end],
            values[piece.slot : piece.slot + 1, :, :end],
            attn_mask=mask if group == 1 else mask.repeat(group, 1),
            scale=scaling,
        )
        output[piece.first : piece.last] = attended.reshape(heads, count, -1).transpose(0, 1)
    return output[None], None


ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _slot_attention)


# ------------------------------------------------------------------------------------------------------------ sampling


def sample(
    logits: torch.Tensor, uniform: npt.NDArray[np.float64], *, temperature: float, top_p: float = 1.0
) -> list[int]:
    """Draw a token per row by inverting the cumulative distribution, in the order of the vocabulary.

    Parameters
    ----------
    logits
        ``[rows, vocabulary]``, float32.
    uniform
        ``[rows]`` in [0, 1), one number per row.
    temperature
        0 takes the likeliest token.
    top_p
        Draw among the likeliest tokens that together have at least this probability.

    Raises
    ------
    FloatingPointError
        If a row's logits are not finite.
    """
    if temperature == 0:
        best, tokens = logits.max(dim=-1)
        if not bool(torch.isfinite(best).all()):
            raise FloatingPointError("the model's logits are not finite")
        return [int(token) for token in tokens.tolist()]
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_p < 1:
        probabilities = probabilities.masked_fill(probabilities < _least_likely(probabilities, top_p), 0)
    mass = probabilities.cumsum(dim=-1, dtype=torch.float64)
    total = mass[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise FloatingPointError("the model's logits are not finite")
    target = torch.from_numpy(uniform[:, None]).to(mass.device) * total
    # right=True: the first token whose cumulative mass exceeds the target, so a token without mass is never drawn.
    tokens = torch.searchsorted(mass, target, right=True).clamp_(max=mass.shape[1] - 1)
    return [int(token) for token in tokens[:, 0].tolist()]


def _least_likely(probabilities: torch.Tensor, top_p: float, among: int = 32) -> torch.Tensor:
    """The probability ``[rows, 1]`` of the least likely token that is still drawn."""
    # A model that knows what it wants to say hesitates between few tokens: to sort them all takes ten times as long.
    among = min(among, probabilities.shape[1])
    ordered = probabilities.topk(among, dim=-1).values
    inside = (ordered.cumsum(dim=-1) - ordered < top_p).sum(dim=-1, keepdim=True)
    least = ordered.gather(1, (inside - 1).clamp_(min=0))
    if among < probabilities.shape[1] and bool((cut := inside[:, 0] == among).any()):
        least[cut] = _least_likely(probabilities[cut], top_p, probabilities.shape[1])
    return least


@dataclass(frozen=True)
class _Branch:
    """A continuation to be read, and of which of its tokens the logits are wanted."""

    ids: Ids
    start: int
    stop: int


@dataclass
class _Row:
    """A prompt that is being answered: its uniforms (one per new token) and the reply so far."""

    prompt: Prompt
    ids: Ids
    limit: int
    uniform: npt.NDArray[np.float64]
    slot: int = -1
    length: int = 0
    reply: list[int] | None = None


@dataclass
class _Cached:
    """The conversation in a slot: `ids` are the tokens whose keys and values it holds."""

    slot: int
    ids: Ids


def _common_prefix(a: Ids, b: Ids) -> int:
    shorter = min(len(a), len(b))
    different = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(different[0]) if len(different) else shorter


# --------------------------------------------------------------------------------------------------------------- model


class CausalModel:
    """A causal language model that answers batches of prompts, and remembers what it has read.

    A reply is a pure function of ``(ids, seed)``: neither the other rows of the batch, nor their number, nor what is
    cached changes it (up to float noise of about 1e-6 in the probabilities).

    Models whose attention is plain and full (Llama, Qwen2, SmolLM, GPT-2 and their kin) get the packed slot cache; a
    small probe at construction compares it with the model's own forward pass. For all others (sliding windows shorter
    than `max_length`, recurrent layers, soft caps, rope that depends on the length) rows are answered one by one,
    without re-use: slower, and right. `reuses_cache` says which it is.

    Not thread-safe. After the weights changed, call `clear`.

    Parameters
    ----------
    model
        A ``transformers`` causal language model; it is moved to `device`.
    eos_ids
        Token ids that always end a reply.
    device
        A torch device, or ``"auto"``: the GPU if there is one, else the CPU.
    max_length
        The most tokens of a prompt and its reply together.
    cache_bytes
        The most memory for keys and values. Beyond it, the conversations that were not used for longest are dropped
        (they cost a prefill when they come back), and a batch that does not fit is answered in parts.
    prefill_tokens
        How many new tokens are read at once; bounds the memory of activations.

    Attributes
    ----------
    tokens : int
        How many tokens went through the model so far, read or written.
    """

    def __init__(
        self,
        model: Any,
        *,
        eos_ids: Iterable[int],
        device: str | torch.device = "auto",
        max_length: int = 4096,
        cache_bytes: int = 4 << 30,
        prefill_tokens: int = 2048,
    ) -> None:
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2 tokens, got {max_length}")
        self.device = _device(device)
        self.model = model.to(self.device)
        self.eos_ids = frozenset(eos_ids)
        self.max_length = max_length
        self.cache_bytes = cache_bytes
        self.prefill_tokens = prefill_tokens
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        self._slots = _Slots()
        self._cached: dict[str, _Cached] = {}  # Least recently used first.
        self._bytes_per_token = 0
        self.tokens = 0
        _make_room()
        self.why_not = self._why_no_reuse()
        if self.why_not is not None:
            _LOG.warning(
                "%s reads each conversation anew at every turn, which is slow: %s",
                type(self.model).__name__,
                self.why_not,
            )
        self.clear()

    @property
    def reuses_cache(self) -> bool:
        """Whether keys and values are re-used from turn to turn (`why_not` says why they are not)."""
        return self.why_not is None

    @property
    def cached_keys(self) -> tuple[str, ...]:
        """The conversations whose keys and values are held, least recently used first."""
        return tuple(self._cached)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop what is cached under `keys`; unknown keys are ignored."""
        for key in keys:
            self._cached.pop(key, None)
        if not self._cached:
            self._slots = _Slots()

    def clear(self) -> None:
        """Drop all caches, as is needed after the weights changed."""
        self._cached = {}
        self._slots = _Slots()

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        stop_ids: frozenset[int] = frozenset(),
    ) -> list[list[int]]:
        """Answer each prompt, in order.

        Parameters
        ----------
        max_new_tokens
            The most tokens of a reply; less where `max_length` leaves less.
        temperature
            0 takes the likeliest token.
        top_p
            Draw among the likeliest tokens that together have at least this probability.
        stop_ids
            Token ids that end a reply, beside `eos_ids`.

        Returns
        -------
        list of list of int
            The new tokens of each prompt. The token that ended a reply is its last; a reply without one was cut.

        Raises
        ------
        ValueError
            If an option is out of range, or a prompt is empty, too long, or holds an unknown token id.
        FloatingPointError
            If the model's logits are not finite.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {top_p}")
        rows = [self._row(prompt, max_new_tokens) for prompt in prompts]
        stops = self.eos_ids | stop_ids

        masks = {banned: self._ban(banned) for banned in {prompt.banned for prompt in prompts}}
        bans = {id(row): masks[row.prompt.banned] for row in rows} if any(masks) else {}

        def draw(logits: torch.Tensor, drawn: Sequence[_Row], step: int) -> list[int]:
            uniform = np.array([row.uniform[step] for row in drawn])
            logits = logits.float()
            if bans:
                logits = logits.masked_fill(torch.stack([bans[id(row)] for row in drawn]), -torch.inf)
            return sample(logits, uniform, temperature=temperature, top_p=top_p)

        with self._ready():
            if not self.reuses_cache:
                for row in rows:
                    self._answer_alone(row, stops, draw)
            else:
                for batch in self._batches(rows):
                    try:
                        self._answer(batch, stops, draw)
                    except BaseException:
                        # Nobody knows what a slot holds now, and a NaN in it would reach whoever gets the slot next.
                        self.clear()
                        raise
        return [row.reply or [] for row in rows]

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[Prompt], branches: Sequence[Sequence[Sequence[int]]], labels: Sequence[int]
    ) -> list[npt.NDArray[np.float64]]:
        """How likely single tokens are behind several continuations of each prompt. No text is generated.

        The prompt itself is read once, and what its key has in common with an earlier call not even that. All branches
        are read at once: each sees the prompt and itself.

        Parameters
        ----------
        prompts
            What the branches have in common; seeds and bans do not matter.
        branches
            For each prompt the token ids of its continuations, none of them empty.
        labels
            The token ids to score.

        Returns
        -------
        list of array
            For each prompt float64 ``[branches, labels]``, log-probabilities over the whole vocabulary.

        Raises
        ------
        ValueError
            If a prompt or a branch is empty, too long, or holds an unknown token id.
        FloatingPointError
            If the model's logits are not finite.
        """
        scores = [np.zeros((len(tails), len(labels))) for tails in branches]
        ends = [[(tail, len(tail) - 1, len(tail)) for tail in tails] for tails in branches]
        for k, branch, found in self._branches(prompts, ends):
            scores[k][branch] = found[-1, list(labels)].double().cpu().numpy()
        return scores

    @torch.inference_mode()
    def likelihood(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[tuple[Sequence[int], Sequence[int]]]]
    ) -> list[list[npt.NDArray[np.float64]]]:
        """How likely texts are behind several continuations of each prompt. No text is generated.

        Parameters
        ----------
        prompts
            As in `score`.
        texts
            For each prompt ``(head, text)`` as token ids, neither of them empty.

        Returns
        -------
        list of list of array
            For each text float64 ``[tokens]``, the log-probability of each of its tokens behind the prompt, the head
            and the tokens before it.

        Raises
        ------
        ValueError, FloatingPointError
            As in `score`.
        """
        if not all(head and text for pairs in texts for head, text in pairs):
            raise ValueError("heads and texts must have at least one token each")
        spans = [
            [((*head, *text), len(head) - 1, len(head) + len(text) - 1) for head, text in pairs] for pairs in texts
        ]
        told: list[list[npt.NDArray[np.float64]]] = [[np.empty(0)] * len(pairs) for pairs in texts]
        for k, branch, found in self._branches(prompts, spans):
            ids = torch.tensor([int(i) for i in texts[k][branch][1]], device=found.device)
            told[k][branch] = found.gather(1, ids[:, None])[:, 0].double().cpu().numpy()
        return told

    def _branches(
        self, prompts: Sequence[Prompt], branches: Sequence[Sequence[tuple[Sequence[int], int, int]]]
    ) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Read ``(ids, start, stop)`` behind each prompt; yield the positions of prompt and branch, and log p there.

        The tensor is float32 ``[stop - start, vocabulary]``: what comes behind each of these tokens.
        """
        rows: list[_Row] = []
        for prompt, tails in zip(prompts, branches, strict=True):
            longest = max((len(ids) for ids, _, _ in tails), default=0)
            shortest = min((len(ids) for ids, _, _ in tails), default=1)
            if not shortest or len(prompt.ids) + longest > self.max_length:
                raise ValueError(
                    f"the branches of {prompt.key!r} must have 1 to {self.max_length - len(prompt.ids)} tokens, "
                    f"got {shortest} to {longest}"
                )
            self._row(Prompt("", tuple(i for ids, _, _ in tails for i in ids) or (0,), 0), 1)
            rows.append(self._row(prompt, max(1, sum(len(ids) for ids, _, _ in tails))))
        places = {id(row): k for k, row in enumerate(rows)}
        forks = {
            id(row): [_Branch(np.asarray(ids, dtype=np.int64), start, stop) for ids, start, stop in tails]
            for row, tails in zip(rows, branches, strict=True)
        }
        seen = [0] * len(rows)
        with self._ready():
            for row, logits in self._read_branches(rows, forks):
                k = places[id(row)]
                found = logits.float().log_softmax(-1)
                if not bool(torch.isfinite(found).all()):
                    raise FloatingPointError("the model's logits are not finite")
                yield k, seen[k], found
                seen[k] += 1

    def _read_branches(
        self, rows: Sequence[_Row], forks: dict[int, list[_Branch]]
    ) -> Iterator[tuple[_Row, torch.Tensor]]:
        for batch in self._batches(list(rows)) if self.reuses_cache else ():
            try:
                names = self._assign(batch)
                self._prefill(sorted(batch, key=lambda row: row.slot))
                yield from self._fork(batch, forks)
            except BaseException:
                self.clear()
                raise
            for name, row in names.items():
                self._cached[name].ids = row.ids
            self.forget([name for name, row in names.items() if name != row.prompt.key])
        for row in rows if not self.reuses_cache else ():
            for branch in forks[id(row)]:
                whole = torch.from_numpy(np.concatenate([row.ids, branch.ids]))[None].to(self.device)
                self.tokens += whole.numel()
                begin = len(row.ids)
                logits = self.model(input_ids=whole, use_cache=False).logits[0]
                yield row, logits[begin + branch.start : begin + branch.stop]

    def _fork(self, rows: Sequence[_Row], forks: dict[int, list[_Branch]]) -> Iterator[tuple[_Row, torch.Tensor]]:
        """Read all branches behind rows whose prompts are read; yield each branch's logits, row by row in order.

        Branches stand behind one another in their row's slot, and are overwritten by whatever comes next.
        """
        pieces: list[tuple[_Row, list[_Branch]]] = []
        filled = 0

        def read() -> Iterator[tuple[_Row, torch.Tensor]]:
            packed, positions, masks, ids, owners = [], [], [], [], []
            keep: list[int] = []
            sizes: list[int] = []
            at = 0
            for row, tails in pieces:
                start, size = len(row.ids), sum(len(tail.ids) for tail in tails)
                branch = np.repeat(np.arange(len(tails)), [len(tail.ids) for tail in tails])
                depth = np.concatenate([np.arange(len(tail.ids)) for tail in tails])
                own = (branch[:, None] == branch) & (depth[:, None] >= depth)
                seen = np.concatenate([np.ones((size, start), dtype=bool), own], axis=1)
                mask = np.where(seen, np.float32(0), np.float32(-np.inf))
                masks.append(torch.from_numpy(mask).to(device=self.device, dtype=self.model.dtype))
                packed.append(_Piece(row.slot, at, at + size, start))
                positions.append(start + depth)
                for tail in tails:
                    ids.append(tail.ids)
                    keep += range(at + tail.start, at + tail.stop)
                    sizes.append(tail.stop - tail.start)
                    at += len(tail.ids)
                owners += [row] * len(tails)
            plan = _Plan(self._slots, pieces=tuple(packed), masks=tuple(masks))
            kept = torch.tensor(keep, device=self.device)
            logits = self._run(np.concatenate(ids), np.concatenate(positions), plan, kept)
            yield from zip(owners, torch.split(logits, sizes), strict=True)

        for row in rows:
            room = self._slots.capacity - len(row.ids)
            taken: list[_Branch] = []
            for tail in forks[id(row)]:
                used = sum(len(other.ids) for other in taken)
                if taken and (used + len(tail.ids) > room or filled + len(tail.ids) > self.prefill_tokens):
                    pieces.append((row, taken))
                    yield from read()
                    pieces, filled, taken = [], 0, []
                taken.append(tail)
                filled += len(tail.ids)
            if taken:
                pieces.append((row, taken))
            if filled >= self.prefill_tokens:
                yield from read()
                pieces, filled = [], 0
        if pieces:
            yield from read()

    def _ban(self, banned: tuple[int, ...]) -> torch.Tensor:
        mask = torch.zeros(self.vocabulary, dtype=torch.bool, device=self.device)
        mask[list(banned)] = True
        return mask

    def _row(self, prompt: Prompt, max_new_tokens: int) -> _Row:
        ids = np.asarray(prompt.ids, dtype=np.int64)
        if not len(ids):
            raise ValueError(f"prompt {prompt.key!r} is empty, a model needs at least one token")
        if len(ids) >= self.max_length:
            raise ValueError(
                f"prompt {prompt.key!r} has {len(ids)} tokens, max_length={self.max_length} must exceed it"
            )
        if ids.min() < 0 or ids.max() >= self.vocabulary:
            raise ValueError(f"prompt {prompt.key!r} holds token ids outside 0..{self.vocabulary - 1}")
        limit = min(max_new_tokens, self.max_length - len(ids))
        uniform = np.random.default_rng(prompt.seed % 2**64).random(limit)
        return _Row(prompt, ids, limit, uniform)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Evaluation mode for the time of a call, so that a model that is in training can be used in between."""
        training = self.model.training
        if training:
            self.model.eval()
        try:
            yield
        finally:
            if training:
                self.model.train()

    # ---------------------------------------------------------------------------------------------- with the slot cache

    def _answer(
        self,
        rows: list[_Row],
        stops: frozenset[int],
        draw: Callable[[torch.Tensor, Sequence[_Row], int], list[int]],
    ) -> None:
        names = self._assign(rows)
        active = sorted(rows, key=lambda row: row.slot)
        tokens = draw(self._prefill_once(active), active, 0)
        step = 0
        while True:
            going = []
            for row, token in zip(active, tokens, strict=True):
                assert row.reply is not None
                row.reply.append(token)
                if token not in stops and len(row.reply) < row.limit:
                    going.append((row, token))
            if not going:
                break
            step += 1
            active = [row for row, _ in going]
            tokens = draw(self._decode(active, [token for _, token in going]), active, step)
        for name, row in names.items():
            assert row.reply is not None
            # The last token was drawn but never read.
            held = np.concatenate([row.ids, np.asarray(row.reply[:-1], dtype=np.int64)])
            self._cached[name].ids = held
        self.forget([name for name, row in names.items() if name != row.prompt.key])

    def _assign(self, rows: list[_Row]) -> dict[str, _Row]:
        """Give every row a slot, and set its `length` to the prefix that the slot already holds."""
        names: dict[str, _Row] = {}
        for row in rows:
            # A key that comes twice in a batch can't share one slot: the later ones get a slot for this call.
            name = row.prompt.key
            while name in names:
                name += "'"
            names[name] = row
        for name in names:
            if name in self._cached:
                self._cached[name] = self._cached.pop(name)
        self._reserve(names, max(len(row.ids) + row.limit for row in rows))
        free = iter(sorted(set(range(self._slots.count)) - {cached.slot for cached in self._cached.values()}))
        for name, row in names.items():
            cached = self._cached.get(name)
            if cached is None:
                cached = self._cached[name] = _Cached(next(free), np.empty(0, dtype=np.int64))
            # At least one token must be read, to have logits to draw from.
            row.slot, row.length = cached.slot, min(_common_prefix(cached.ids, row.ids), len(row.ids) - 1)
            row.reply = []
        return names

    def _capacity(self, length: int) -> int:
        """The capacity for rows of `length` tokens: geometric growth from what there is, so that growing is rare."""
        if length <= self._slots.capacity:
            return self._slots.capacity
        wanted = max(length * 3 // 2, self._slots.capacity * 2)
        return max(length, min(-(-wanted // 64) * 64, self.max_length))

    def _most_slots(self, capacity: int) -> int:
        return max(1, self.cache_bytes // (capacity * self._bytes_per_token))

    def _reserve(self, names: Iterable[str], length: int) -> None:
        """Make room for `names` at `length` tokens, dropping the least recently used others where memory ends."""
        wanted = set(names)
        capacity = self._capacity(length)
        most = max(self._most_slots(capacity), len(wanted))
        excess = len(wanted | set(self._cached)) - most
        if excess > 0:
            for key in [key for key in self._cached if key not in wanted][:excess]:
                del self._cached[key]
        needed = len(wanted | set(self._cached))
        if needed <= self._slots.count <= most and capacity == self._slots.capacity:
            return
        grown = self._slots.count * 2 if needed > self._slots.count else self._slots.count
        count = max(needed, min(grown, most))
        kept = []
        for slot, cached in enumerate(self._cached.values()):
            kept.append((cached.slot, slot, len(cached.ids)))
            cached.slot = slot
        self._slots.rebuild(count, capacity, kept)

    def _batches(self, rows: list[_Row]) -> Iterator[list[_Row]]:
        """Split rows so that each part fits into `cache_bytes`."""
        if not rows:
            return
        capacity = self._capacity(max(len(row.ids) + row.limit for row in rows))
        most = self._most_slots(capacity)
        for first in range(0, len(rows), most):
            yield rows[first : first + most]

    def _prefill_once(self, rows: list[_Row]) -> torch.Tensor:
        """`_prefill`, where a prompt that several rows share, as in a group of GRPO, is read by one of them."""
        prompts = [row.ids.tobytes() for row in rows]
        readers: dict[bytes, _Row] = {}
        for prompt, row in zip(prompts, rows, strict=True):
            if prompt not in readers or row.length > readers[prompt].length:
                readers[prompt] = row
        if len(readers) == len(rows):
            return self._prefill(rows)
        logits = self._prefill(list(readers.values()))
        for prompt, row in zip(prompts, rows, strict=True):
            if row is not readers[prompt]:
                self._slots.copy(readers[prompt].slot, row.slot, len(row.ids))
                row.length = len(row.ids)
        places = {prompt: place for place, prompt in enumerate(readers)}
        return logits[[places[prompt] for prompt in prompts]]

    def _prefill(self, rows: list[_Row]) -> torch.Tensor:
        """Read what is new in each row. Returns the logits after each row's last token, ``[rows, vocabulary]``."""
        logits: list[torch.Tensor] = []
        pieces: list[_Piece] = []
        ids: list[Ids] = []
        lasts: list[int] = []
        filled = 0

        def flush() -> None:
            nonlocal filled
            if filled:
                found = self._forward(ids, pieces, lasts)
                if lasts:
                    logits.append(found)
                pieces.clear()
                ids.clear()
                lasts.clear()
                filled = 0

        for row in rows:
            while row.length < len(row.ids):
                count = min(len(row.ids) - row.length, self.prefill_tokens)
                if filled + count > self.prefill_tokens:
                    flush()
                pieces.append(_Piece(row.slot, filled, filled + count, row.length))
                ids.append(row.ids[row.length : row.length + count])
                filled += count
                row.length += count
            lasts.append(filled - 1)
        flush()
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _forward(self, ids: Sequence[Ids], pieces: Sequence[_Piece], lasts: Sequence[int]) -> torch.Tensor:
        positions = [np.arange(p.start, p.start + p.last - p.first) for p in pieces]
        dtype = self.model.dtype
        masks = []
        for p, position in zip(pieces, positions, strict=True):
            seen = np.arange(p.start + p.last - p.first) <= position[:, None]
            mask = np.where(seen, np.float32(0), np.float32(-np.inf))
            masks.append(torch.from_numpy(mask).to(device=self.device, dtype=dtype))
        plan = _Plan(self._slots, pieces=tuple(pieces), masks=tuple(masks))
        # Without a row that ends here the logits are of no use: one position is the least that models compute.
        keep = torch.tensor(lasts or [0], device=self.device)
        return self._run(np.concatenate(ids), np.concatenate(positions), plan, keep)

    def _decode(self, rows: Sequence[_Row], tokens: Sequence[int]) -> torch.Tensor:
        """Read one token per row (rows ordered by slot). Returns logits ``[rows, vocabulary]``."""
        slots = np.array([row.slot for row in rows])
        positions = np.array([row.length for row in rows])
        breaks = [0, *(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), len(rows)]
        runs = []
        for first, last in pairwise(breaks):
            lengths = positions[first:last] + 1
            longest = int(lengths.max())
            mask = None
            if int(lengths.min()) < longest:
                seen = np.arange(longest) < lengths[:, None]
                values = np.where(seen, np.float32(0), np.float32(-np.inf))[:, None, None]
                mask = torch.from_numpy(values).to(device=self.device, dtype=self.model.dtype)
            runs.append(_Run(int(slots[first]), first, last, longest, mask))
        plan = _Plan(
            self._slots,
            runs=tuple(runs),
            rows=torch.from_numpy(slots).to(self.device),
            positions=torch.from_numpy(positions).to(self.device),
        )
        logits = self._run(np.asarray(tokens, dtype=np.int64), positions, plan, 0)
        for row in rows:
            row.length += 1
        return logits

    def _run(self, ids: Ids, positions: Ids, plan: _Plan, keep: torch.Tensor | int) -> torch.Tensor:
        self.tokens += len(ids)
        config = self.model.config
        usual = config._attn_implementation
        config._attn_implementation = _ATTENTION
        try:
            output = self.model(
                input_ids=torch.from_numpy(ids)[None].to(self.device),
                position_ids=torch.from_numpy(positions)[None].to(self.device),
                use_cache=False,
                logits_to_keep=keep,
                ugst_plan=plan,
            )
        finally:
            config._attn_implementation = usual
        logits: torch.Tensor = output.logits[0]
        return logits

    # ------------------------------------------------------------------------------------------- without the slot cache

    def _answer_alone(
        self,
        row: _Row,
        stops: frozenset[int],
        draw: Callable[[torch.Tensor, Sequence[_Row], int], list[int]],
    ) -> None:
        row.reply = []
        past: Any = None
        new = torch.from_numpy(row.ids)[None].to(self.device)
        whole = new
        while True:
            self.tokens += whole.numel() if past is None else 1
            if past is None:
                output = self.model(input_ids=whole, use_cache=True)
            else:
                output = self.model(input_ids=new, past_key_values=past, use_cache=True)
            past = getattr(output, "past_key_values", None)
            token = draw(output.logits[:, -1], [row], len(row.reply))[0]
            row.reply.append(token)
            if token in stops or len(row.reply) >= row.limit:
                return
            new = torch.tensor([[token]], device=self.device)
            whole = torch.cat([whole, new], dim=1)

    @torch.inference_mode()
    def _why_no_reuse(self) -> str | None:
        """None if the packed slot cache gives the model's own logits, else the reason why it is not used."""
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        if window is not None and getattr(config, "use_sliding_window", True) and window < self.max_length:
            return f"its attention has a sliding window of {window} tokens, less than max_length={self.max_length}"
        rope = getattr(config, "rope_parameters", None) or {}
        if any(kind in str(rope.get("rope_type")) for kind in _ROPE_BY_LENGTH):
            return f"its rope type {rope['rope_type']!r} depends on the length of the text"
        rng = np.random.default_rng(0)
        texts = [rng.integers(self.vocabulary, size=size) for size in (7, 4)]
        with self._ready():
            try:
                self._slots.count, self._slots.capacity = 3, 16
                rows = [
                    _Row(Prompt("", (), 0), text[:-2], 1, np.zeros(1), slot=slot)
                    for text, slot in zip(texts, (0, 2), strict=True)
                ]
                found = [self._prefill(rows)]
                found.append(self._decode(rows, [int(text[-2]) for text in texts]))
                for row, text in zip(rows, texts, strict=True):
                    row.ids = text
                    row.length -= 1  # The token before is read a second time, as when only a prefix is kept.
                found.append(self._prefill(rows))
            except Exception as error:
                return f"the model does not take the slot cache ({type(error).__name__}: {error})"
            self._bytes_per_token = self._slots.bytes_per_token
            for i, text in enumerate(texts):
                ids = torch.from_numpy(text)[None].to(self.device)
                expected = self.model(input_ids=ids, use_cache=False).logits[0, -3:].float()
                actual = torch.stack([logits[i] for logits in found]).float()
                noise = 1e-3 if expected.dtype is self.model.dtype else 5e-2
                if not torch.allclose(actual, expected, rtol=0, atol=noise * float(expected.abs().max().clamp(min=1))):
                    return "the slot cache does not give the model's own logits"
        if not self._bytes_per_token:
            return "the model has no attention layer that takes the slot cache"
        return None


@cache
def _make_room() -> None:
    """Free the process from two costs of having a model in it; done once, and a tenth of a rollout's time.

    What torch and transformers brought is never garbage, but a pass of Python's collector over all of it takes 0.2 s
    each time: what there is now is left out of it (``gc.unfreeze()`` takes that back). And glibc returns the memory of
    each large tensor to the system, to get it again, page by page, for the next: it is told to keep up to 256 MB,
    unless one of its ``MALLOC_...`` variables is set.
    """
    gc.collect()
    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        for option, size in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 256 << 20)):
            mallopt(option, size)


# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


# ------------------------------------------------------------------------------------------------------------- loading


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


DTYPES = ("float32", "bfloat16", "float16")


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"UGST_DTYPE must be one of {', '.join(DTYPES)}, got {name!r}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load(
    source: str | Path, *, device: str | torch.device = "auto", dtype: torch.dtype | None = None
) -> tuple[Any, Any]:
    """Load a chat model and its tokenizer.

    Weights are read from safetensors (or GGUF) only, and no code that comes with a model is run.

    Parameters
    ----------
    source
        A folder, a ``*.gguf`` file, or the name of a model on the Hugging Face hub.
    device
        A torch device, or ``"auto"``: the GPU if there is one, else the CPU.
    dtype
        None takes what the environment variable ``UGST_DTYPE`` names (``bfloat16``, say, on a CPU with instructions for
        it), else float32 on a CPU and bfloat16 on a GPU.

    Raises
    ------
    FileNotFoundError
        If `source` is a path that does not exist, or a folder without a model.
    ValueError
        If `source` is a name that neither the hub nor the local cache knows, the model has no chat template, or
        ``UGST_DTYPE`` is none of `DTYPES`.
    """
    place = _device(device)
    dtype = dtype or _dtype(os.environ.get("UGST_DTYPE") or ("bfloat16" if place.type == "cuda" else "float32"))
    name, options = _locate(source)
    options |= {"trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(f"the tokenizer of {str(source)!r} has no chat template; a chat model is needed")
        if "gguf_file" in options:
            model = _load_gguf(Path(name) / options["gguf_file"], dtype)
        else:
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True, **options)
    except OSError as error:
        if Path(name).exists():
            raise FileNotFoundError(f"{str(source)!r} is not a model with safetensors weights: {error}") from error
        raise ValueError(
            f"the model {str(source)!r} is neither in the local cache nor to be had from the hub; "
            "accepted are a folder, a *.gguf file, and the name of a model on the hub"
        ) from error
    return model.to(place).eval(), tokenizer


class _Names:
    """The names of a model's weights, for the GGUF reader. Without its modules, which would be looked up one by one."""

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.state_dict = model.state_dict

    def named_children(self) -> tuple[()]:
        return ()


def _load_gguf(path: Path, dtype: torch.dtype) -> Any:
    # `from_pretrained` would do, but asks for accelerate, which nothing here needs.
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    read: Any = load_gguf_checkpoint
    weights = read(str(path), return_tensors=True, model_to_load=_Names(model))["tensors"]
    missing, unknown = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    if unknown or set(missing) - tied:
        raise OSError(f"weights without a place: {unknown}; places without weights: {sorted(set(missing) - tied)}")
    return model


def _locate(source: str | Path) -> tuple[str, dict[str, Any]]:
    path = Path(source).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise FileNotFoundError(f"there is no GGUF file {str(source)!r}")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"the folder {str(source)!r} has no config.json, so it holds no model")
        return str(path), {}
    text = str(source)
    # A hub name is "name" or "owner/name"; all else can only be meant as a path.
    if isinstance(source, Path) or path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise FileNotFoundError(f"there is no model folder {text!r}")
    return text, {}
