"""Train `ugst-tiny`: ``python -m ugst_env.training.tiny --out runs/tiny`` (resumable: run it again with ``--resume``).

1. Scripted users talk to a spread of clerks (competent, random, stubborn, wrong) about training goals. Conversations
   become token sequences with and without goal state, with and without reasoning trace; only the user's replies are
   learnt.
2. A byte-level BPE tokenizer and a small Llama are trained on them.
3. The model is measured on the validation goals, and exported as safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm

from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.goal import Rule
from ugst_env.goals.generator import SPLIT_POLICIES, challenge, goal_source
from ugst_env.goals.policies import make_rule
from ugst_env.metrics import Alignment, alignment, converse
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.clerks import clerk_act
from ugst_env.users.protocol import UserReply
from ugst_env.users.scripted import DRIFT_MODES, ScriptedUser
from ugst_env.users.tiny import SPECIAL_TOKENS, Codec, TinyUser, topic_of
from ugst_env.world.database import World


@dataclass(frozen=True)
class TinyConfig:
    """All that decides what comes out.

    Parameters
    ----------
    conversations
        Number of training conversations.
    shard
        Conversations per file; a shard is written at once, and never again.
    stray
        Share of user turns that drift (and are not learnt): the model meets states that a perfect user never sees.
    varied
        Share of conversations whose policy is drawn from `VARIED_RULES` instead of the training policies.
    free, trace
        Share of conversations that are learnt without the goal state as well; share of which one turn is learnt with a
        trace as well.
    copy_tokens
        Whether the goal's values are copy tokens; False spells them out.
    vocabulary, hidden, layers, heads, kv_heads, intermediate
        Size of tokenizer and model. One key/value head for all heads makes generation from the cache twice as fast.
    tokens
        Training length, in tokens read.
    batch_tokens, learning_rate, warmup
        Optimisation: AdamW, linear warmup of so many steps, then cosine to a twentieth.
    minutes
        Wall-clock limit of the training loop of a single process; the schedule is stretched over `tokens` all the same.
    seed
        The only source of chance.
    """

    conversations: int = 12000
    shard: int = 500
    stray: float = 0.08
    varied: float = 0.4
    free: float = 0.3
    trace: float = 0.15
    copy_tokens: bool = True
    vocabulary: int = 2048
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 1
    intermediate: int = 512
    tokens: int = 14_000_000
    batch_tokens: int = 3072
    learning_rate: float = 2e-3
    warmup: int = 200
    minutes: float = 120.0
    seed: int = 1


# Rules whose parameter a user has to understand and not just repeat: a few training policies do not teach that.
VARIED_RULES = {
    "max_words": tuple(str(n) for n in range(7, 25)),
    "min_words": tuple(str(n) for n in range(3, 9)),
    "max_sentences": ("1", "2", "3", "4"),
    "max_things": ("1", "2", "3", "4"),
    "never_say": (
        "please", "need", "like", "find", "could", "looking", "good", "fine", "book", "would", "any", "nice", "great",
        "mind", "can", "care", "get", "should", "tell", "know", "i'm", "town", "me", "lovely", "thank", "thanks/thank",
    ),
    "withhold": ("pricerange", "area", "people", "stay", "time", "food", "stars", "type", "day", "arriveBy", "leaveAt"),
    "not_first": ("pricerange", "area", "people", "stay", "time", "food", "stars", "type", "day", "arriveBy"),
    "no_mark": ("?", "!", ",", "'", "."),
    "end_mark": ("!", ".", "..."),
}  # fmt: skip


def varied_rule(rng: random.Random) -> Rule:
    """A rule of `VARIED_RULES`, never one that the validation or test goals have."""
    held_out = {(rule.kind, rule.value) for split in ("val", "test") for rule in SPLIT_POLICIES[split]}
    while True:
        kind = rng.choice(list(VARIED_RULES))
        value = rng.choice(VARIED_RULES[kind])
        if (kind, value) not in held_out:
            return make_rule(kind, value)


CLERK_MIXES = (
    (0.55, {"competent": 1.0}),
    (0.15, {"competent": 0.6, "random": 0.4}),
    (0.12, {"competent": 0.6, "stubborn": 0.4}),
    (0.18, {"competent": 0.6, "wrong": 0.4}),
)
MAX_TURNS = 10


@dataclass(frozen=True)
class Setting:
    """The shared parts of a simulation."""

    world: World
    vocabulary: Vocabulary
    tracker: VerifiableTracker

    @classmethod
    def default(cls) -> Setting:
        world = World.load()
        return cls(world, Vocabulary.from_world(world), VerifiableTracker(world))


def talk(setting: Setting, config: TinyConfig, number: int) -> tuple[Episode, list[tuple[UserReply, bool]]]:
    """Conversation `number` of the training set: the episode, and each user reply with whether it strayed."""
    rng = random.Random(f"{config.seed}/{number}")
    goal = goal_source("challenge:train", setting.world)(rng)
    if rng.random() < config.varied:
        goal = replace(goal, policy=(varied_rule(rng),))
    episode = Episode(goal, setting.tracker, setting.vocabulary, seed=rng.getrandbits(60), max_turns=MAX_TURNS)
    straight = ScriptedUser(setting.world, setting.vocabulary)
    # A stray user does not leave early: nothing could be learnt after it.
    modes = [mode for mode in DRIFT_MODES if mode != "terminate"]
    mix = rng.choices([m for _, m in CLERK_MIXES], [weight for weight, _ in CLERK_MIXES])[0]
    replies: list[tuple[UserReply, bool]] = []
    over = False
    while not over:
        stray = rng.random() < config.stray
        user = ScriptedUser(setting.world, setting.vocabulary, drift={rng.choice(modes): 1.0}) if stray else straight
        reply = user.reply([episode.request()])[0]
        replies.append((reply, stray))
        over = episode.hear(reply).over
        if not over:
            act = clerk_act(mix, episode.belief, setting.world, rng, turn=episode.turn, max_turns=MAX_TURNS)
            over = episode.act(act).over
    return episode, replies


def _planned(reply: UserReply) -> list[tuple[str, str, str]]:
    parts = (piece.split(" ", 2) for piece in reply.trace.split("; "))
    return [(p[0], p[1] if len(p) > 1 else "", p[2] if len(p) > 2 else "") for p in parts]


def encode(
    codec: Codec, episode: Episode, replies: list[tuple[UserReply, bool]], *, steering: bool, trace_turn: int | None
) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them are learnt: all straight replies, or that of `trace_turn`."""
    goal = episode.goal
    handles = codec.handles(goal)
    ids = codec.goal(goal, steering=steering, trace=trace_turn is not None)
    learnt = [False] * len(ids)

    def add(piece: list[int], learn: bool = False) -> None:
        ids.extend(piece)
        learnt.extend([learn] * len(piece))

    topic: str | None = None
    for index, (reply, stray) in enumerate(replies):
        state = episode.shown[index]
        if steering:
            add(codec.state(state, left=MAX_TURNS - index))
        add([codec.ids["<user>"]])
        topic = topic_of(reply.text, topic)
        words = codec.reply(reply.text, handles, topic, end=reply.end)
        if trace_turn == index:
            add(codec.trace(state, _planned(reply), left=MAX_TURNS - index), True)
            add(words, True)
            break
        add(words, trace_turn is None and not stray)
        if reply.end or index >= len(episode.conversation.turns):
            break
        agent = episode.conversation.turns[index].agent
        if agent is None:
            break
        topic = topic_of(agent, topic)
        add(codec.agent(agent, handles, topic))
    return ids, learnt


def train_tokenizer(setting: Setting, config: TinyConfig, samples: int = 1500) -> Tokenizer:
    """A byte-level BPE over lower-cased conversation text, with all the special tokens."""

    def texts() -> Iterator[str]:
        for number in range(samples):
            for _, text in talk(setting, config, -1 - number)[0].conversation.messages():
                yield " " + text.lower()

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def _write_atomically(path: Path, write: Any) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


def write_shards(
    setting: Setting, config: TinyConfig, codec: Codec, folder: Path, *, worker: int = 0, workers: int = 1
) -> None:
    """Write the training sequences, shard by shard; shards that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    count = -(-config.conversations // config.shard)
    for index in tqdm(range(worker, count, workers), desc="conversations", unit="shard"):
        path = folder / f"shard-{index:05d}.npz"
        if path.exists():
            continue
        rows: list[tuple[list[int], list[bool]]] = []
        for number in range(index * config.shard, min((index + 1) * config.shard, config.conversations)):
            episode, replies = talk(setting, config, number)
            rng = random.Random(f"views/{config.seed}/{number}")
            rows.append(encode(codec, episode, replies, steering=True, trace_turn=None))
            if rng.random() < config.free:
                rows.append(encode(codec, episode, replies, steering=False, trace_turn=None))
            straight = [k for k, (_, stray) in enumerate(replies) if not stray]
            if straight and rng.random() < config.trace:
                rows.append(
                    encode(codec, episode, replies, steering=rng.random() < 0.5, trace_turn=rng.choice(straight))
                )
        ids = np.concatenate([np.array(row, dtype=np.uint16) for row, _ in rows])
        mask = np.concatenate([np.array(learn, dtype=bool) for _, learn in rows])
        lengths = np.array([len(row) for row, _ in rows], dtype=np.int32)

        def save(part: Path, ids: Any = ids, mask: Any = mask, lengths: Any = lengths) -> None:
            with part.open("wb") as file:
                np.savez_compressed(file, ids=ids, mask=mask, lengths=lengths)

        _write_atomically(path, save)


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


def train(config: TinyConfig, out: Path, *, resume: bool, threads: int = 1) -> Any:
    """Train on the shards in ``out/data``; checkpoints and the log go to `out`. Returns the model.

    Under ``torchrun --nproc-per-node N`` each process reads every N-th batch, and gradients are averaged.
    """
    import torch
    from torch import distributed
    from torch.nn import functional

    torch.set_num_threads(threads)
    workers = int(os.environ.get("WORLD_SIZE", "1"))
    worker = int(os.environ.get("RANK", "0"))
    if workers > 1:
        distributed.init_process_group("gloo")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    pad = tokenizer.token_to_id("<pad>") or 0
    model = build_model(config, tokenizer).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    checkpoint = out / "checkpoint.pt"
    seen = step = epoch = 0
    if resume and checkpoint.exists():
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

    began = saved_at = time.monotonic()
    recent: list[float] = []
    bar = tqdm(total=config.tokens, initial=seen, disable=worker > 0, unit="token", unit_scale=True, desc="training")
    model.train()
    try:
        late = False
        while seen < config.tokens and not late:
            # Read anew each time, so that training can begin while conversations are still being written.
            sequences = read_shards(out / "data", longest=min(2048, config.batch_tokens))
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
                # Most CPUs emulate bfloat16, at a tenth of the speed or worse.
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
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
                # Several processes would not see the clock alike.
                late = workers == 1 and time.monotonic() - began >= 60 * config.minutes
                if seen >= config.tokens or late:
                    break
    except KeyboardInterrupt:
        print(f"\nstopped; the model so far is in {out / 'model'}, go on with --resume", file=sys.stderr)
        raise
    finally:
        save()
        bar.close()
    return model


def measure(
    folder: Path, *, split: str, steering: bool, trace: bool = False, goals: int | None = None, seed: int = 0
) -> Alignment:
    """Goal alignment of a trained model against the competent clerk."""
    setting = Setting.default()
    user = TinyUser(folder, trace=trace)
    chosen = challenge(split, setting.world)[:goals]
    return alignment(converse(user, chosen, setting.tracker, setting.vocabulary, steering=steering, seed=seed))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train ugst-tiny from scratch.")
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (more than one is slower on tiny models)")
    parser.add_argument("--stage", choices=("all", "data", "train", "measure"), default="all")
    parser.add_argument("--worker", default="0/1", help="write only every n-th shard: 0/2 and 1/2 in two processes")
    for item in fields(TinyConfig):
        kind = {"int": int, "float": float}.get(str(item.type), str)
        parse = (lambda text: text.lower() in ("1", "true", "yes")) if item.type == "bool" else kind
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=parse, default=item.default)
    options = parser.parse_args()
    config = TinyConfig(**{item.name: getattr(options, item.name) for item in fields(TinyConfig)})
    out: Path = options.out
    if out.exists() and any(out.iterdir()) and not options.resume:
        parser.error(f"{out} is not empty: give another --out, or --resume to go on there")
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    if options.stage in ("all", "data"):
        setting = Setting.default()
        if not (out / "tokenizer.json").exists():
            tokenizer = train_tokenizer(setting, config)
            _write_atomically(out / "tokenizer.json", lambda part: tokenizer.save(str(part)))
        codec = Codec(Tokenizer.from_file(str(out / "tokenizer.json")), copy=config.copy_tokens)
        worker, _, workers = options.worker.partition("/")
        write_shards(setting, config, codec, out / "data", worker=int(worker), workers=int(workers or 1))
    if options.stage in ("all", "train"):
        train(config, out, resume=options.resume, threads=options.threads)
    if options.stage in ("all", "measure"):
        for steering in (True, False):
            found = measure(out / "model", split="val", steering=steering)
            print(json.dumps({"split": "val", "steering": steering, **asdict(found)}))


if __name__ == "__main__":
    main()
