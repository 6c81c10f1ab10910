"""How `ugst-tiny` is made, from nothing: ``make tiny``, or ``python -m ugst_env.training.recipe --out runs/tiny``.

A base that talks like a user but was not trained to keep to its goal, then the stages of arXiv 2507.20152. What is
done already is kept, so a run that was stopped goes on when it is started again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ugst_env.training import collect, grpo, sft, tiny, weights

# Scripted users that lose track, contradict themselves, leave early, waste turns and hop between tasks.
DRIFT = "forget=0.2,contradict=0.15,terminate=0.05,dawdle=0.12,misprioritise=0.12"

# Of each round of fine-tuning: conversations, the share of turns the model takes, whether it is shown goal states. In
# the later rounds it has to write them itself, and learns to find back from its own mistakes.
FIRST_PASS = (
    (12000, 0.25, True),
    (12000, 0.4, False),
    (16000, 0.5, False),
    (16000, 0.5, False),
    (16000, 0.5, False),
    (16000, 0.5, False),
)
LATER_PASS = (
    (12000, 0.5, False),
    (12000, 0.5, False),
    (12000, 0.5, False),
)
# Of each pass: its rounds, how often a conversation is learnt in which the model lost track, the learning rate, and how
# its folders' names end. By the last it loses track in one conversation of eight, and those are where it goes wrong.
PASSES = (
    (FIRST_PASS, 1, 1e-3, "-first"),
    (LATER_PASS, 1, 1e-3, "-second"),
    (LATER_PASS, 1, 1e-3, "-third"),
    (LATER_PASS, 4, 5e-4, ""),
)
# Each round leaves some things better and others worse; the mean of the last ones has less of either.
AVERAGED = 3


def stages(out: Path, *, processes: int, scale: float = 1.0, seed: int = 1) -> Iterator[Any]:
    """The configuration of every stage, in order; `scale` shrinks all amounts of data and training alike.

    1. The base learns from drifting users, with and without goal states.
    2. Fine-tuning, in rounds: the scripted user, steered, holds conversations in which the model of the round before
       takes some of the turns. The scripted user's replies are learnt, in whatever situation it was put, and to write
       the goal state before each, which from now on is the model's reasoning trace.
    3. The weights of the last rounds are averaged.
    4. GRPO on prefixes of the fine-tuned model's own conversations, mostly without goal states.
    5. Steps 2 to 4 three times more, from there.
    """

    def amount(number: int) -> int:
        return max(2 * processes, round(number * scale))

    common: dict[str, Any] = {"processes": processes, "seed": seed, "resume": True}
    train: dict[str, Any] = {"goals": "challenge:train", "clerks": "mixed", "varied": 0.75, **common}
    yield collect.CollectConfig(
        out=out / "base-data", user="scripted", drift=DRIFT, conversations=amount(8000), **train
    )
    yield tiny.TinyConfig(data=out / "base-data", out=out / "base", tokens=amount(6_000_000), trace=1.0, **common)
    before, k = "base", 0
    for rounds, lost, rate, ending in PASSES:
        for conversations, share, steering in rounds:
            k += 1
            model = f"hf:{out / before / 'model'}"
            yield collect.CollectConfig(
                out=out / f"sft-data-{k}",
                user="scripted",
                stray=model,
                stray_rate=share,
                steering=steering,
                conversations=amount(conversations),
                batch=256,
                **{**train, "seed": seed + k},
            )
            yield sft.SFTStage(
                data=(out / f"sft-data-{k}",),
                out=out / f"sft-{k}",
                model=model,
                trace=1.0,
                lost=lost,
                learning_rate=rate,
                batch=16,
                **common,
            )
            before = f"sft-{k}"
        last = tuple(f"hf:{out / f'sft-{k - j}' / 'model'}" for j in reversed(range(AVERAGED)))
        yield weights.AverageStage(models=last, out=out / f"sft{ending}")
        model = f"hf:{out / f'sft{ending}' / 'model'}"
        yield collect.CollectConfig(
            out=out / f"grpo-data{ending}",
            user=model,
            steering=False,
            conversations=amount(1500),
            **{**train, "seed": seed + k + 1, "varied": 0.6},
        )
        yield grpo.GRPOStage(
            data=(out / f"grpo-data{ending}",),
            out=out / f"grpo{ending}",
            model=model,
            prefixes=amount(2400),
            batch=8,
            steps=amount(120),
            # With 4e-5 the model leaves earlier, on the strength of goal states that it wrote and no reward pays for.
            learning_rate=1e-5,
            steered=0.3,
            **common,
        )
        before = f"grpo{ending}"


RUN = {
    collect.CollectConfig: collect.run,
    tiny.TinyConfig: tiny.run,
    sft.SFTStage: sft.run,
    weights.AverageStage: weights.average,
    grpo.GRPOStage: grpo.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make ugst-tiny from nothing.")
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder for everything (runs/tiny)")
    parser.add_argument("--processes", type=int, default=2, help="processes that share the work: 1, 2, 4 or 8")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink all amounts, to try the recipe out")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for config in stages(options.out, processes=options.processes, scale=options.scale, seed=options.seed):
        if type(config) is not collect.CollectConfig and (config.out / "done").exists():
            continue
        print(f"== {config.out}", flush=True)
        run: Any = RUN[type(config)]
        run(config)
        if type(config) is not collect.CollectConfig:
            (config.out / "done").touch()
    print(f"the finished model is in {options.out / 'grpo' / 'model'}")


if __name__ == "__main__":
    main()
