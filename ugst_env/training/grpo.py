"""``ugst grpo``: train a user model on conversation prefixes with TRL's `GRPOTrainer`.

Stage 3 of arXiv 2507.20152: several replies are drawn for one prefix, each is rewarded by what it does to the goal
state, and the model moves towards the better ones. The reward needs no model call: `ugst_env.reward.reply_indicators`
on the verifiable tracker's verdict. What an optimiser could do instead of playing the user is worth nothing, see
`hack_in`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz
from tqdm import tqdm

from ugst_env.dialogue.acts import UserAct
from ugst_env.dialogue.understanding import Context, Vocabulary, understand
from ugst_env.goal import Category, Status
from ugst_env.models.causal import Prompt
from ugst_env.reward import SIMULATOR_WEIGHT, reply_indicators
from ugst_env.tracking.verifiable import Tracked, VerifiableTracker
from ugst_env.training.collect import default_tracker, read_conversations, replay
from ugst_env.training.launch import fast_bfloat16, launch, own_folder
from ugst_env.training.sft import fit, lora_config, note_config
from ugst_env.training.weights import Trainee, load_trainee
from ugst_env.users.language_model import LanguageModelUser
from ugst_env.users.prompts import messages, read_reply
from ugst_env.users.protocol import UserReply, UserRequest
from ugst_env.users.tiny import MAX_REPLY_TOKENS, TinyUser


@dataclass(frozen=True)
class GRPOStage:
    """All that decides what comes out.

    Raises
    ------
    ValueError
        For a number out of range.
    """

    data: tuple[Path, ...] = field(metadata={"help": "folders of conversations, whose prefixes are replied to"})
    out: Path = field(metadata={"help": "folder for checkpoints, the log and the model"})
    model: str = field(default="ugst-tiny", metadata={"help": "where to start: ugst-tiny, hf:NAME, a .gguf file"})
    prefixes: int = field(default=5000, metadata={"help": "prefixes drawn from the conversations"})
    probe: int = field(
        default=4,
        metadata={"help": "replies drawn per prefix beforehand; alike rewarded prefixes are left out; 0: off"},
    )
    steered: float = field(default=0.0, metadata={"help": "share of prefixes with the goal state in the prompt"})
    generations: int = field(default=8, metadata={"help": "replies per prefix"})
    batch: int = field(default=16, metadata={"help": "prefixes per step, over all processes"})
    steps: int = field(default=350, metadata={"help": "optimisation steps"})
    learning_rate: float = field(default=1e-4, metadata={"help": "AdamW, linear warmup, then down to nothing"})
    temperature: float = field(default=1.0, metadata={"help": "how replies are drawn"})
    max_new_tokens: int = field(default=72, metadata={"help": "the most tokens of a reply"})
    lora: int = field(default=0, metadata={"help": "rank of LoRA on all linear layers; 0 trains every weight"})
    save_steps: int = field(default=25, metadata={"help": "steps from checkpoint to checkpoint"})
    processes: int = field(default=1, metadata={"help": "processes that share each step"})
    seed: int = field(default=1, metadata={"help": "the only source of chance"})
    resume: bool = field(default=False, metadata={"help": "go on from the newest checkpoint"})

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data must name at least one folder of conversations")
        for name in ("prefixes", "batch", "steps", "processes", "save_steps", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.generations < 2:
            raise ValueError(f"generations must be at least 2, to compare replies, got {self.generations}")
        if self.batch % self.processes:
            raise ValueError(f"batch must be a multiple of processes, got {self.batch} and {self.processes}")
        if not 0 <= self.steered <= 1:
            raise ValueError(f"steered must be in [0, 1], got {self.steered}")
        if self.temperature <= 0 or self.learning_rate <= 0:
            raise ValueError("temperature and learning_rate must be above 0")


# -------------------------------------------------------------------------------------------------------------- reward


@dataclass(frozen=True)
class Prefix:
    """C_{i-1} with all that judging u_i takes.

    Parameters
    ----------
    request
        What the user model is asked.
    tracked
        The tracker's view before the reply.
    context
        What the reply answers to.
    """

    request: UserRequest
    tracked: Tracked
    context: Context


MOST_WORDS = 60
MOST_THINGS = 4
_QUOTE = 8


def hack_in(reply: UserReply, acts: Sequence[UserAct], prefix: Prefix) -> str | None:
    """Why a reply earns nothing at all, whatever it does to the goal state; None for an honest one.

    * ``unusable``: empty, endless or cut off (`UserReply.error`).
    * ``endless``: more than `MOST_WORDS` words.
    * ``everything``: more things stated or asked than `MOST_THINGS`, or than the turns that are left call for.
    * ``quoting``: `_QUOTE` words in a row of the goal's own text.
    * ``repeating``: what the user said before, to the letter or nearly so.
    """
    if reply.error is not None:
        return "unusable"
    words = reply.text.lower().split()
    if len(words) > MOST_WORDS:
        return "endless"
    request = prefix.request
    todo = sum(
        c.objective is not None and now.status in (Status.INCOMPLETE, Status.MISALIGNED)
        for c, now in prefix.tracked.state.items()
    )
    things = {(a.domain, a.slot) for a in acts if a.slot is not None and a.kind in ("inform", "negate", "request")}
    if len(things) > max(MOST_THINGS, -(-todo // max(1, request.max_turns - request.turn))):
        return "everything"
    said = " ".join(words)
    for component in request.goal.components:
        goal_words = component.text.lower().split()
        for k in range(len(goal_words) - _QUOTE + 1):
            if " ".join(goal_words[k : k + _QUOTE]) in said:
                return "quoting"
    before = [turn.user.lower() for turn in request.conversation.turns]
    # Short messages ("yes, please") may well come twice.
    if len(words) > 3 and any(fuzz.ratio(said, text) >= 95 for text in before[-3:]):
        return "repeating"
    return None


def _answers(acts: Sequence[UserAct], track: Tracked) -> bool:
    """Whether a reply answers the clerk's question, or gives a value other than the one that the clerk just claimed."""
    last = track.last_act
    if last is None:
        return False
    told = [act for act in acts if act.kind in ("inform", "negate") and act.domain == last.domain]
    if last.kind == "request":
        return any(act.slot == last.slot for act in told)
    claimed = {**last.claims, **last.booking}
    return any(act.slot in claimed and act.value != claimed[act.slot] for act in told)


def judge(
    reply: UserReply, prefix: Prefix, tracker: VerifiableTracker, vocabulary: Vocabulary
) -> tuple[dict[Category, bool], str | None]:
    """I_j of a reply by category, and the hack it was caught in (then nothing holds): see `hack_in`, or ``leaving``."""
    if reply.error is not None:
        return dict.fromkeys(Category, False), "unusable"
    acts = understand(reply.text, vocabulary, prefix.context)
    hack = hack_in(reply, acts, prefix)
    if hack is not None:
        return dict.fromkeys(Category, False), hack
    heard = tracker.hear(prefix.tracked, reply.text, acts, end=reply.end)
    if reply.end:
        heard = tracker.finish(heard, "user_ended")
    new = heard.faults[len(prefix.tracked.faults) :]
    if any(fault.mode == "wrongful_ending" for fault in new):
        return dict.fromkeys(Category, False), "leaving"
    indicators = reply_indicators(
        prefix.tracked.state,
        heard.state,
        {fault.mode for fault in new},
        ended=reply.end,
        answered=_answers(acts, prefix.tracked) and all(fault.mode != "invention" for fault in new),
    )
    return indicators, None


# ------------------------------------------------------------------------------------------------------------- replies


def _draw(
    trainee: Trainee, config: GRPOStage, prefixes: Sequence[Prefix], seeds: Sequence[int]
) -> tuple[list[list[int]], list[list[int]], list[UserReply]]:
    """Prompt ids, reply ids and replies, one per prefix, from the weights as they are.

    The goal state that `ugst-tiny` writes before its words belongs to the prompt, as in use: it has a truth, which
    fine-tuning taught, and the reward of the words says next to nothing about it.
    """
    user = trainee.user
    user.model.clear()
    requests = [prefix.request for prefix in prefixes]
    if isinstance(user, TinyUser):
        prompts = [
            user.ask(request, f"grpo/{k}", seed) for k, (request, seed) in enumerate(zip(requests, seeds, strict=True))
        ]
        user.think(prompts, requests)
        stops: frozenset[int] = frozenset()
    else:
        prompts = [
            Prompt(f"grpo/{k}", user.format.encode(messages(request, trace=False)), seed)
            for k, (request, seed) in enumerate(zip(requests, seeds, strict=True))
        ]
        stops = user.format.stop_ids
    longest = _longest(trainee, config)
    drawn = user.model.generate(prompts, max_new_tokens=longest, temperature=config.temperature, stop_ids=stops)
    user.model.clear()
    replies = []
    for request, answer in zip(requests, drawn, strict=True):
        if isinstance(user, TinyUser):
            replies.append(user.codec.read(answer, request.goal))
        else:
            finished = answer[-1] in stops | user.model.eos_ids
            replies.append(read_reply(user.format.decode(answer), finished=finished))
    return [list(prompt.ids) for prompt in prompts], drawn, replies


def _longest(trainee: Trainee, config: GRPOStage) -> int:
    """The most tokens of a reply."""
    return MAX_REPLY_TOKENS if isinstance(trainee.user, TinyUser) else config.max_new_tokens


Spot = tuple[int, int, bool]
"""A prefix by its place: the position of the conversation, the turn, whether the goal state is in the prompt."""


def _prefixes(rows: Sequence[dict[str, Any]], spots: Iterable[Spot]) -> dict[Spot, Prefix]:
    """The prefixes at these places."""
    tracker, vocabulary = default_tracker()
    wanted: dict[int, list[Spot]] = {}
    for spot in spots:
        wanted.setdefault(spot[0], []).append(spot)
    found: dict[Spot, Prefix] = {}
    for position, mine in wanted.items():
        for turn, (episode, _, _) in enumerate(replay(rows[position], tracker, vocabulary)):
            for spot in mine:
                if spot[1] == turn:
                    request = episode.request()
                    if not spot[2]:
                        request = replace(request, state=None, states=())
                    found[spot] = Prefix(request, episode.tracked, episode.context())
    return found


def choose_prefixes(config: GRPOStage, rows: Sequence[dict[str, Any]], trainee: Trainee) -> list[Spot]:
    """Draw prefixes at random, and keep those on which the model's own replies are not all rewarded alike."""
    rng = random.Random(f"prefixes/{config.seed}")
    places = [
        (position, turn) for position, row in enumerate(rows) for turn, t in enumerate(row["turns"]) if "error" not in t
    ]
    rng.shuffle(places)
    spots = [(position, turn, rng.random() < config.steered) for position, turn in places[: config.prefixes]]
    if not config.probe:
        return spots
    tracker, vocabulary = default_tracker()
    prefixes = _prefixes(rows, spots)
    kept = []
    size = 32
    for start in tqdm(range(0, len(spots), size), desc="probing", unit="batch"):
        chunk = [spot for spot in spots[start : start + size] for _ in range(config.probe)]
        seeds = [rng.getrandbits(62) for _ in chunk]
        _, _, replies = _draw(trainee, config, [prefixes[spot] for spot in chunk], seeds)
        totals: dict[Spot, set[int]] = {}
        for spot, reply in zip(chunk, replies, strict=True):
            held, _ = judge(reply, prefixes[spot], tracker, vocabulary)
            totals.setdefault(spot, set()).add(sum(held.values()))
        kept += [spot for spot, values in totals.items() if len(values) > 1]
    print(f"{len(kept)} of {len(spots)} prefixes have replies to choose from")
    if not kept:
        raise ValueError("all replies to all prefixes are rewarded alike: more prefixes, or a higher temperature")
    return kept


# ------------------------------------------------------------------------------------------------------------ training


def _reward(category: Category) -> Callable[..., list[float]]:
    def reward(**kwargs: Any) -> list[float]:
        return [float(held[category.value]) for held in kwargs["held"]]

    reward.__name__ = category.value
    return reward


def train(config: GRPOStage) -> None:
    """The training itself, in each of the processes."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]

    gpu = torch.cuda.is_available()
    if not gpu and config.processes > 1:
        torch.set_num_threads(1)
    trainee = load_trainee(config.model)
    rows = [row for folder in config.data for row in read_conversations(folder)]
    spots: list[Spot] = [tuple(spot) for spot in json.loads((config.out / "prefixes.json").read_text())]
    prefixes = _prefixes(rows, spots)
    tracker, vocabulary = default_tracker()
    rank = int(os.environ.get("RANK", "0"))

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        chosen = [prefixes[spots[int(prompt)]] for prompt in prompts]
        rng = random.Random(f"rollout/{config.seed}/{trainer.state.global_step}/{rank}")
        prompt_ids, ids, replies = _draw(trainee, config, chosen, [rng.getrandbits(62) for _ in chosen])
        verdicts = [judge(reply, prefix, tracker, vocabulary) for reply, prefix in zip(replies, chosen, strict=True)]
        hacks = [hack for _, hack in verdicts if hack is not None]
        with (config.out / f"hacks-{rank}.jsonl").open("a") as file:
            row = {"step": trainer.state.global_step, "replies": len(replies)}
            file.write(json.dumps({**row, **{hack: hacks.count(hack) for hack in sorted(set(hacks))}}) + "\n")
        held = [{category.value: ok for category, ok in found.items()} for found, _ in verdicts]
        return {"prompt_ids": prompt_ids, "completion_ids": ids, "logprobs": None, "held": held}

    per_process = config.batch * config.generations // config.processes
    arguments = GRPOConfig(
        output_dir=str(config.out / "checkpoints"),
        per_device_train_batch_size=per_process,
        steps_per_generation=1,
        num_generations=config.generations,
        max_steps=config.steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(10, config.steps // 10),
        adam_beta2=0.98,
        temperature=config.temperature,
        max_completion_length=_longest(trainee, config),
        reward_weights=[SIMULATOR_WEIGHT] * len(Category),
        beta=0.0,
        # Within a group all differences would weigh the same: an early goodbye, which earns nothing, no more than a
        # goodbye that comes a turn late.
        scale_rewards="batch",
        logging_steps=5,
        save_steps=config.save_steps,
        save_total_limit=1,
        bf16=fast_bfloat16(),
        use_cpu=not gpu,
        # A chat model's activations are what fills the memory; ugst-tiny's are nothing.
        gradient_checkpointing=isinstance(trainee.user, LanguageModelUser),
        report_to="none",
        seed=config.seed,
        data_seed=config.seed,
        ddp_find_unused_parameters=False,
    )
    rewards: list[Any] = [_reward(category) for category in Category]
    trainer = GRPOTrainer(
        model=trainee.model,
        reward_funcs=rewards,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [str(k) for k in range(len(spots))]}),
        processing_class=trainee.tokenizer,
        rollout_func=rollout,
        peft_config=lora_config(config.lora),
    )
    fit(trainer, trainee, config)


def run(config: GRPOStage) -> None:
    """Choose the prefixes, train, and write the model to ``out/model``."""
    rows = [row for folder in config.data for row in read_conversations(folder)]
    with own_folder(config.out, resume=config.resume):
        note_config(config)
        chosen = config.out / "prefixes.json"
        if not chosen.exists():
            spots = choose_prefixes(config, rows, load_trainee(config.model))
            chosen.with_suffix(".part").write_text(json.dumps(spots))
            chosen.with_suffix(".part").replace(chosen)
        launch(train, config, config.processes)
