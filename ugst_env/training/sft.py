"""``ugst sft``: fine-tune a user model on collected conversations, with TRL's `SFTTrainer`.

The model sees the goal and the conversation, and learns the user's turns; everything else is masked. Goal states are
left out of its prompt, so it learns to track its goal by itself (stage 2 of arXiv 2507.20152).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.collect import default_tracker, read_conversations, replay
from ugst_env.training.launch import fast_bfloat16, launch, own_folder
from ugst_env.training.tiny import encode, lost_track, turns_of
from ugst_env.training.weights import Trainee, load_trainee, save_trainee
from ugst_env.users.language_model import ChatFormat, LanguageModelUser
from ugst_env.users.prompts import messages, reason, write_reply
from ugst_env.users.protocol import UserReply
from ugst_env.users.tiny import TinyUser


@dataclass(frozen=True)
class SFTStage:
    """All that decides what comes out.

    Raises
    ------
    ValueError
        For a number out of range.
    """

    data: tuple[Path, ...] = field(metadata={"help": "folders of conversations, as `ugst collect` writes them"})
    out: Path = field(metadata={"help": "folder for checkpoints, the log and the model"})
    model: str = field(default="ugst-tiny", metadata={"help": "where to start: ugst-tiny, hf:NAME, a .gguf file"})
    trace: float = field(
        default=0.0,
        metadata={"help": "share of conversations learnt with reasoning traces (ugst-tiny: goal states it writes)"},
    )
    steered: float = field(default=0.0, metadata={"help": "share of conversations learnt with goal states in addition"})
    lost: int = field(
        default=1,
        metadata={
            "help": "ugst-tiny, with trace: how often a conversation is learnt in which it wrote a wrong goal state"
        },
    )
    limit: int = field(default=0, metadata={"help": "read only so many conversations; 0 reads all"})
    epochs: float = field(default=1.0, metadata={"help": "passes over the conversations"})
    learning_rate: float = field(default=1e-3, metadata={"help": "AdamW, linear warmup, then cosine"})
    batch: int = field(default=8, metadata={"help": "sequences per step, over all processes"})
    lora: int = field(default=0, metadata={"help": "rank of LoRA on all linear layers; 0 trains every weight"})
    max_length: int = field(default=2048, metadata={"help": "longer sequences are left out, and counted"})
    save_steps: int = field(default=200, metadata={"help": "steps from checkpoint to checkpoint"})
    processes: int = field(default=1, metadata={"help": "processes that share each step"})
    seed: int = field(default=1, metadata={"help": "the only source of chance"})
    resume: bool = field(default=False, metadata={"help": "go on from the newest checkpoint"})

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data must name at least one folder of conversations")
        for name in ("lost", "batch", "processes", "max_length", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.lost > 1 and not self.trace:
            raise ValueError(f"lost needs trace above 0: it is goal states that are learnt again, got {self.lost}")
        if self.batch % self.processes:
            raise ValueError(f"batch must be a multiple of processes, got {self.batch} and {self.processes}")
        for name, low, high in (("epochs", 0, 1e6), ("learning_rate", 0, 1), ("steered", -1, 1), ("trace", -1, 1)):
            if not low < getattr(self, name) <= high or (low < 0 and getattr(self, name) < 0):
                raise ValueError(f"{name} is out of range: got {getattr(self, name)}")


Sequence = tuple[list[int], list[bool]]


def encode_chat(
    chat: ChatFormat, turns: Iterable[tuple[Episode, UserReply, bool]], *, steering: bool, trace: bool
) -> list[Sequence]:
    """Token ids of a conversation for a chat model, and which of them are learnt.

    One sequence as long as each prompt begins with what came before it; with goal states or traces, one per turn.
    """
    sequences: list[Sequence] = []
    for episode, reply, learn in turns:
        request = episode.request()
        thought = reason(request, reply.trace) if trace else ""
        if not steering:
            request = replace(request, state=None, states=())
        prompt = list(chat.encode(messages(request, trace=trace)))
        target = list(chat.target(write_reply(replace(reply, trace=thought))))
        learn = learn and reply.error is None
        if sequences and prompt[: len(sequences[-1][0])] == sequences[-1][0]:
            ids, mask = sequences.pop()
        else:
            ids, mask = [], []
        mask = [*mask, *[False] * (len(prompt) - len(ids)), *[learn] * len(target)]
        sequences.append(([*prompt, *target], mask))
    return sequences


def encode_conversation(
    trainee: Trainee,
    row: dict[str, Any],
    tracker: VerifiableTracker,
    vocabulary: Vocabulary,
    *,
    trace: float,
    steered: float,
    lost: int = 1,
    seed: int,
) -> list[Sequence]:
    """The training sequences of a collected conversation; those in which nothing is learnt are left out.

    Raises
    ------
    ValueError
        If `lost` is not 1 for a chat model, which writes no goal states.
    """
    rng = random.Random(f"sft/{seed}/{row['seed']}/{row['number']}")
    steerings = (False, True) if rng.random() < steered else (False,)
    traced = rng.random() < trace
    user = trainee.user
    sequences: list[Sequence] = []
    for steering in steerings:
        turns = replay(row, tracker, vocabulary)
        if isinstance(user, LanguageModelUser):
            if lost != 1:
                raise ValueError(f"lost is for ugst-tiny, which writes goal states; a chat model takes 1, got {lost}")
            sequences += encode_chat(user.format, turns, steering=steering, trace=traced)
        else:
            lived = turns_of(turns)
            for _ in range(lost if traced and not steering and lost_track(user.codec, lived) else 1):
                sequences.append(encode(user.codec, lived, steering=steering, trace=traced and not steering, rng=rng))
    return [(ids, mask) for ids, mask in sequences if any(mask)]


def _encode_all(config: SFTStage) -> list[Sequence]:
    rows = [row for folder in config.data for row in read_conversations(folder)]
    rows = rows[: config.limit] if config.limit else rows
    parts = [rows[k : k + 250] for k in range(0, len(rows), 250)]
    if config.processes == 1:
        work: Iterable[list[Sequence]] = map(partial(_encode_part, config), parts)
        return [s for part in tqdm(work, total=len(parts), desc="encoding", unit="part") for s in part]
    with multiprocessing.get_context("spawn").Pool(config.processes) as pool:
        work = pool.imap(partial(_encode_part, config), parts)
        return [s for part in tqdm(work, total=len(parts), desc="encoding", unit="part") for s in part]


def _encode_part(config: SFTStage, rows: list[dict[str, Any]]) -> list[Sequence]:
    tracker, vocabulary = default_tracker()
    trainee = load_trainee(config.model)
    options = {"trace": config.trace, "steered": config.steered, "lost": config.lost, "seed": config.seed}
    return [s for row in rows for s in encode_conversation(trainee, row, tracker, vocabulary, **options)]  # type: ignore[arg-type]


def write_sequences(config: SFTStage) -> None:
    """Encode the conversations into ``out/sequences.npz``, once.

    Raises
    ------
    ValueError
        If no sequence is short enough.
    """
    path = config.out / "sequences.npz"
    if path.exists():
        return
    sequences = _encode_all(config)
    fitting = [(ids, mask) for ids, mask in sequences if len(ids) <= config.max_length]
    if not fitting:
        raise ValueError(f"none of {len(sequences)} sequences has at most max_length = {config.max_length} tokens")
    if len(fitting) < len(sequences):
        print(f"{len(sequences) - len(fitting)} of {len(sequences)} sequences are too long and left out")
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.concatenate([np.array(ids, dtype=np.int32) for ids, _ in fitting]),
            mask=np.concatenate([np.array(mask, dtype=bool) for _, mask in fitting]),
            lengths=np.array([len(ids) for ids, _ in fitting], dtype=np.int32),
        )
    part.replace(path)


def train(config: SFTStage) -> None:
    """The training itself, in each of the processes."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Padding stands to the right and is not learnt, so no token needs a mask; plain causal attention is faster."""
        batch: dict[str, Any] = pad(examples)
        batch["attention_mask"].fill_(1)
        return batch

    gpu = torch.cuda.is_available()
    if not gpu and config.processes > 1:
        torch.set_num_threads(1)
    trainee = load_trainee(config.model)
    if isinstance(trainee.user, TinyUser) and config.trace:
        trainee.model.config.trace = True
    pad = DataCollatorForLanguageModeling(pad_token_id=trainee.tokenizer.pad_token_id)
    with np.load(config.out / "sequences.npz", allow_pickle=False) as stored:
        ends = np.cumsum(stored["lengths"])[:-1]
        ids = np.split(stored["ids"], ends)
        labels = np.split(np.where(stored["mask"], stored["ids"], -100), ends)
    dataset = Dataset.from_dict({"input_ids": ids, "labels": labels})
    steps = -(-len(ids) * config.epochs // config.batch)
    arguments = SFTConfig(
        output_dir=str(config.out / "checkpoints"),
        per_device_train_batch_size=config.batch // config.processes,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(min(100, steps // 10)),
        weight_decay=0.01,
        adam_beta2=0.98,
        train_sampling_strategy="group_by_length",
        logging_steps=20,
        save_steps=config.save_steps,
        save_total_limit=1,
        max_length=None,
        packing=False,
        bf16=fast_bfloat16(),
        use_cpu=not gpu,
        # A chat model's activations are what fills the memory; ugst-tiny's are nothing.
        gradient_checkpointing=isinstance(trainee.user, LanguageModelUser),
        report_to="none",
        seed=config.seed,
        data_seed=config.seed,
        ddp_find_unused_parameters=False,
    )
    trainer = SFTTrainer(
        model=trainee.model,
        args=arguments,
        data_collator=collate,
        train_dataset=dataset,
        processing_class=trainee.tokenizer,
        peft_config=lora_config(config.lora),
    )
    fit(trainer, trainee, config)


def fit(trainer: Any, trainee: Trainee, config: Any) -> None:
    """Train, from the newest checkpoint if the configuration says so; then the first process writes model and log."""
    checkpoints = config.out / "checkpoints"
    resume = config.resume and checkpoints.is_dir() and any(checkpoints.glob("checkpoint-*"))
    try:
        trainer.train(resume_from_checkpoint=True if resume else None)
    except KeyboardInterrupt:
        print(f"\nstopped; go on from the newest checkpoint in {checkpoints} with --resume", file=sys.stderr)
        raise
    if os.environ.get("RANK", "0") == "0":
        save_trainee(trainee, trainer.accelerator.unwrap_model(trainer.model), config.out / "model")
        log = "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
        (config.out / "log.jsonl").write_text(log)
        print(f"the model is in {config.out / 'model'}: play it as hf:{config.out / 'model'}")


def lora_config(rank: int) -> Any:
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def note_config(config: Any) -> None:
    """Note a stage's configuration in its folder."""
    (config.out / "config.json").write_text(json.dumps(asdict(config), indent=2, default=str) + "\n")


def run(config: SFTStage) -> None:
    """Fine-tune, and write the model to ``out/model``."""
    for folder in config.data:
        read_conversations(folder)
    with own_folder(config.out, resume=config.resume):
        note_config(config)
        write_sequences(config)
        launch(train, config, config.processes)
