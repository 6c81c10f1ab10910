"""``ugst tiny``: train a small user model from scratch on collected conversations.

Conversations become token sequences with and without the goal state, of which only the user's replies are learnt. A
byte-level BPE tokenizer and a small Llama are trained on them, and exported as safetensors.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm

from ugst_env.envs.episode import Episode
from ugst_env.goal import START, Category, ComponentState, GoalState, Status
from ugst_env.training.collect import default_tracker, read_conversations, replay
from ugst_env.training.launch import fast_bfloat16, launch, own_folder
from ugst_env.users.protocol import UserReply
from ugst_env.users.tiny import SPECIAL_TOKENS, Codec, topic_of


@dataclass(frozen=True)
class TinyConfig:
    """All that decides what comes out.

    Raises
    ------
    ValueError
        For a number out of range.
    """

    data: Path = field(metadata={"help": "folder of conversations, as `ugst collect` writes them"})
    out: Path = field(metadata={"help": "folder for the tokenizer, the checkpoint, the log and the model"})
    free: float = field(default=0.5, metadata={"help": "share of conversations learnt without the goal state as well"})
    trace: float = field(
        default=0.0, metadata={"help": "share of conversations of which the goal states are learnt as well"}
    )
    copy_tokens: bool = field(default=True, metadata={"help": "whether values are copy tokens; no spells them out"})
    condition_marks: bool = field(
        default=True, metadata={"help": "whether what the goal hangs on or asks for is marked in the agent's words"}
    )
    vocabulary: int = field(default=2048, metadata={"help": "tokens of the tokenizer"})
    hidden: int = field(default=192, metadata={"help": "width of the model"})
    layers: int = field(default=4, metadata={"help": "layers of the model"})
    heads: int = field(default=6, metadata={"help": "attention heads"})
    kv_heads: int = field(default=1, metadata={"help": "key/value heads; one makes generation twice as fast as six"})
    intermediate: int = field(default=512, metadata={"help": "width of the feed-forward layers"})
    tokens: int = field(default=6_000_000, metadata={"help": "training length, in tokens read"})
    batch_tokens: int = field(default=3072, metadata={"help": "tokens per batch, padding included"})
    learning_rate: float = field(default=2e-3, metadata={"help": "AdamW, linear warmup, then cosine to a twentieth"})
    warmup: int = field(default=200, metadata={"help": "steps of the warmup"})
    processes: int = field(default=1, metadata={"help": "processes that share the work"})
    seed: int = field(default=1, metadata={"help": "the only source of chance"})
    resume: bool = field(default=False, metadata={"help": "go on where an earlier run stopped"})

    def __post_init__(self) -> None:
        for name in ("vocabulary", "hidden", "layers", "heads", "kv_heads", "tokens", "batch_tokens", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("free", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


# How often a training sequence shows a wrong state instead of the true one: a model that writes states itself will be
# wrong at times, and must find back from the conversation alone. If it is known what a model wrote, that is shown
# where it was wrong, else something made up.
WRONG_STATES = 0.2
OWN_STATES = 0.5


def _mistaken(states: Sequence[GoalState], turn: int, rng: random.Random) -> tuple[GoalState, GoalState | None]:
    """A wrong state for a turn, and the one before it: another turn's, or with parts ticked off that nobody raised."""
    at = rng.randrange(len(states)) if rng.random() < 0.3 else turn
    state, before = states[at], states[at - 1] if at else None
    rows = list(state.items())
    raised = {
        c.objective for c, now in rows if c.category is Category.OBJECTIVE and now.status is not Status.INCOMPLETE
    }
    untold = [
        k for k, (c, now) in enumerate(rows) if c.objective in raised and now == ComponentState(START[c.category])
    ]
    if at == turn and untold:
        ticked = set(rng.sample(untold, min(len(untold), rng.choice((1, 1, 2)))))
        states_now = [now for _, now in rows]
        for k in ticked:
            done = Status.ALIGNED if rows[k][0].category is Category.PREFERENCE else Status.COMPLETE
            states_now[k] = ComponentState(done, served=True)
        for k, (head, _) in enumerate(rows):
            parts = [states_now[j] for j, (c, _) in enumerate(rows) if c.objective == head.objective and j != k]
            if head.category is Category.OBJECTIVE and head.objective in raised and all(part.served for part in parts):
                states_now[k] = ComponentState(Status.COMPLETE, served=True)
        state = GoalState(state.goal, tuple(states_now))
    return state, before


@dataclass(frozen=True)
class UserTurn:
    """A user turn of a conversation: what the agent said before it, the goal state, the turns left, what was said."""

    agent: str | None
    state: GoalState
    left: int
    reply: UserReply
    learn: bool


def turns_of(replayed: Iterable[tuple[Episode, UserReply, bool]]) -> list[UserTurn]:
    """The user turns of a conversation, as `replay` yields it."""
    turns: list[UserTurn] = []
    for episode, reply, learn in replayed:
        agent = episode.conversation.turns[-1].agent or "" if episode.conversation.turns else None
        turns.append(
            UserTurn(agent, episode.state, episode.max_turns - len(turns), reply, learn and reply.error is None)
        )
    return turns


def lost_track(codec: Codec, turns: Sequence[UserTurn]) -> bool:
    """Whether the model, where it wrote goal states, was once wrong about an objective or a part of one."""
    before: GoalState | None = None
    for turn in turns:
        own = codec.trace(turn.reply.trace)
        if own and codec.told(own) != codec.told(codec.state(turn.state, before=before)):
            return True
        before = turn.state
    return False


def encode(
    codec: Codec,
    turns: Sequence[UserTurn],
    *,
    steering: bool,
    trace: bool = False,
    rng: random.Random | None = None,
) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them are learnt.

    The replies that are to be learnt; with `trace`, the goal states before all replies, too. Then some of them, drawn
    with `rng`, are wrong (see `WRONG_STATES`), and neither such a state nor the reply behind it is learnt.
    """
    states = [turn.state for turn in turns]
    goal = states[0].goal
    handles = codec.handles(goal)
    ids = codec.goal(goal, states=steering or trace)
    learnt = [False] * len(ids)
    topic: str | None = None

    def add(piece: list[int], learn: bool = False) -> None:
        ids.extend(piece)
        learnt.extend([learn] * len(piece))

    for k, turn in enumerate(turns):
        if turn.agent is not None:
            topic = topic_of(turn.agent, topic)
            add(codec.agent(turn.agent, handles, topic))
        wrong = False
        if steering or trace:
            state, before = states[k], states[k - 1] if k else None
            add(codec.turn(turn.left))
            told = codec.state(state, before=before)
            if trace and rng is not None:
                own = codec.trace(turn.reply.trace)
                if own and own != told:
                    wrong = rng.random() < OWN_STATES
                    told = own if wrong else told
                elif not own and rng.random() < WRONG_STATES:
                    wrong = True
                    state, before = _mistaken(states, k, rng)
                    told = codec.state(state, before=before)
            add(told, trace and not wrong)
        add([codec.ids["<user>"]], trace and not wrong)
        topic = topic_of(turn.reply.text, topic)
        add(codec.reply(turn.reply.text, handles, topic, end=turn.reply.end), turn.learn and not wrong)
    return ids, learnt


def train_tokenizer(rows: Iterable[Mapping[str, Any]], size: int) -> Tokenizer:
    """A byte-level BPE over the lower-cased text of conversations, with all the special tokens."""
    texts = (
        " " + text.lower() for row in rows for turn in row["turns"] for text in (turn["user"], turn.get("agent", ""))
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _write_atomically(path: Path, write: Any) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


SHARD = 500


def write_shards(config: TinyConfig) -> None:
    """Encode the conversations into ``out/data``, `SHARD` to a file; files that are there already are kept."""
    folder = config.out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_conversations(config.data)
    if not (config.out / "tokenizer.json").exists():
        tokenizer = train_tokenizer(rows[:2000], config.vocabulary)
        _write_atomically(config.out / "tokenizer.json", lambda part: tokenizer.save(str(part)))
    starts = [k for k in range(0, len(rows), SHARD) if not _shard(folder, k).exists()]
    with multiprocessing.get_context("spawn").Pool(config.processes) as pool:
        work = pool.imap_unordered(partial(_write_shard, config), [(k, rows[k : k + SHARD]) for k in starts])
        for _ in tqdm(work, total=len(starts), desc="encoding", unit="shard"):
            pass


def _shard(folder: Path, first: int) -> Path:
    return folder / f"shard-{first // SHARD:05d}.npz"


def _write_shard(config: TinyConfig, job: tuple[int, list[dict[str, Any]]]) -> None:
    first, rows = job
    tracker, vocabulary = default_tracker()
    tokenizer = Tokenizer.from_file(str(config.out / "tokenizer.json"))
    codec = Codec(tokenizer, copy=config.copy_tokens, conditions=config.condition_marks)
    sequences: list[tuple[list[int], list[bool]]] = []
    for row in rows:
        rng = random.Random(f"views/{config.seed}/{row['number']}")
        views = [(True, rng.random() < config.trace)]
        if rng.random() < config.free:
            views.append((False, False))
        for steering, trace in views:
            turns = turns_of(replay(row, tracker, vocabulary))
            sequences.append(encode(codec, turns, steering=steering, trace=trace, rng=rng))
    ids = np.concatenate([np.array(row, dtype=np.uint16) for row, _ in sequences])
    mask = np.concatenate([np.array(learn, dtype=bool) for _, learn in sequences])
    lengths = np.array([len(row) for row, _ in sequences], dtype=np.int32)

    def save(part: Path) -> None:
        with part.open("wb") as file:
            np.savez_compressed(file, ids=ids, mask=mask, lengths=lengths)

    _write_atomically(_shard(config.out / "data", first), save)


Sequences = list[tuple[NDArray[np.uint16], NDArray[np.bool_]]]


def read_shards(folder: Path, *, longest: int) -> Sequences:
    """All training sequences of at most `longest` tokens, in the order they were written."""
    sequences: Sequences = []
    for path in sorted(folder.glob("shard-*.npz")):
        with np.load(path, allow_pickle=False) as shard:
            ends = np.cumsum(shard["lengths"])[:-1]
            pairs = zip(np.split(shard["ids"], ends), np.split(shard["mask"], ends), strict=True)
            sequences += [(ids, mask) for ids, mask in pairs if len(ids) <= longest and mask.any()]
    return sequences


def batches(sequences: Sequences, batch_tokens: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """One epoch of batches: indices of sequences of like length, at most about `batch_tokens` tokens with padding."""
    noise = rng.normal(0, 20, len(sequences))
    order = np.argsort(np.array([len(ids) for ids, _ in sequences]) + noise)
    groups: list[list[int]] = [[]]
    longest = 0
    for k in order:
        longest = max(longest, len(sequences[k][0]))
        if groups[-1] and longest * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
            longest = len(sequences[k][0])
        groups[-1].append(int(k))
    rng.shuffle(groups)
    yield from groups


def build_model(config: TinyConfig, tokenizer: Tokenizer) -> Any:
    """A randomly initialised Llama of the configured size."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.token_to_id("<end>"),
            pad_token_id=tokenizer.token_to_id("<pad>"),
        )
    )
    model.config.copy_tokens = config.copy_tokens
    model.config.condition_marks = config.condition_marks
    return model


def export(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model (float16 safetensors), its configuration and its tokenizer."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().to(torch.float16).contiguous().cpu() for name, value in model.state_dict().items()}
    weights.pop("lm_head.weight", None)
    _write_atomically(folder / "model.safetensors", lambda part: save_file(weights, part, metadata={"format": "pt"}))
    _write_atomically(folder / "tokenizer.json", lambda part: tokenizer.save(str(part)))
    model.config.architectures = ["LlamaForCausalLM"]
    text = json.dumps({**model.config.to_diff_dict(), "dtype": "float16"}, indent=2, default=str)
    _write_atomically(folder / "config.json", lambda part: part.write_text(text + "\n"))


def train(config: TinyConfig) -> None:
    """Train on the shards in ``out/data``; the checkpoint, the log and the model go to ``out``.

    With several processes (see `launch`) each reads its share of the batches, and gradients are averaged.
    """
    import torch
    from torch import distributed
    from torch.nn import functional

    # A second thread costs such a small model more in waiting than it computes.
    torch.set_num_threads(1)
    out = config.out
    workers = int(os.environ.get("WORLD_SIZE", "1"))
    worker = int(os.environ.get("RANK", "0"))
    if workers > 1:
        distributed.init_process_group("gloo")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    short = fast_bfloat16()
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    pad = tokenizer.token_to_id("<pad>") or 0
    model = build_model(config, tokenizer).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    checkpoint = out / "checkpoint.pt"
    seen = step = epoch = 0
    if config.resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        seen, step, epoch = saved["seen"], saved["step"], saved["epoch"]

    def save() -> None:
        if worker > 0:
            return
        content = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "seen": seen,
            "step": step,
            "epoch": epoch,
        }
        _write_atomically(checkpoint, lambda part: torch.save(content, part))
        export(model, tokenizer, out / "model")

    saved_at = time.monotonic()
    recent: list[float] = []
    bar = tqdm(total=config.tokens, initial=seen, disable=worker > 0, unit="token", unit_scale=True, desc="training")
    model.train()
    try:
        sequences = read_shards(out / "data", longest=min(2048, config.batch_tokens))
        while seen < config.tokens:
            rng = np.random.default_rng((config.seed, epoch))
            epoch += 1
            groups = list(batches(sequences, config.batch_tokens // workers, rng))
            for group in groups[worker : len(groups) // workers * workers : workers]:
                rate = min(1.0, (step + 1) / config.warmup)
                rate *= 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, seen / config.tokens)))
                for settings in optimizer.param_groups:
                    settings["lr"] = config.learning_rate * rate
                width = max(len(sequences[k][0]) for k in group)
                ids = torch.full((len(group), width), pad)
                labels = torch.full((len(group), width), -100)
                for row, k in enumerate(group):
                    tokens = torch.from_numpy(sequences[k][0].astype(np.int64))
                    ids[row, : len(tokens)] = tokens
                    labels[row, : len(tokens)] = torch.where(torch.from_numpy(sequences[k][1]), tokens, -100)
                ids, labels = ids.to(device), labels.to(device)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=short):
                    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
                    wanted = labels[:, 1:] != -100
                    logits = model.lm_head(hidden[wanted])
                loss = functional.cross_entropy(logits.float(), labels[:, 1:][wanted])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if workers > 1:
                    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
                    distributed.all_reduce(flat)
                    for p, grad in zip(
                        model.parameters(), torch.split(flat, [p.numel() for p in model.parameters()]), strict=True
                    ):
                        p.grad.copy_(grad.view_as(p) / workers)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                # Counted alike in every process, so that all stop at the same step.
                read = config.batch_tokens if workers > 1 else sum(len(sequences[k][0]) for k in group)
                seen, step = seen + read, step + 1
                recent = [*recent[-99:], loss.item()]
                bar.update(read)
                if step % 50 == 0 and worker == 0:
                    mean = sum(recent) / len(recent)
                    bar.set_postfix(loss=f"{mean:.3f}")
                    with (out / "log.jsonl").open("a") as log:
                        log.write(json.dumps({"step": step, "tokens": seen, "loss": round(mean, 4)}) + "\n")
                if time.monotonic() - saved_at > 120:
                    save()
                    saved_at = time.monotonic()
                if seen >= config.tokens:
                    break
    except KeyboardInterrupt:
        print(f"\nstopped; the model so far is in {out / 'model'}, go on with --resume", file=sys.stderr)
        raise
    finally:
        save()
        bar.close()


def run(config: TinyConfig) -> None:
    """Tokenizer, shards and model, from collected conversations.

    Raises
    ------
    FileExistsError
        If ``out`` holds something and `resume` is off.
    """
    with own_folder(config.out, resume=config.resume):
        _write_atomically(
            config.out / "config.json",
            lambda part: part.write_text(json.dumps(asdict(config), indent=2, default=str) + "\n"),
        )
        write_shards(config)
        launch(train, config, config.processes)
    print(f"the model is in {config.out / 'model'}")
