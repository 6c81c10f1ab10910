"""The weights of a user model: loaded for training, and saved so that ``hf:<folder>`` plays the user again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ugst_env.users.language_model import LanguageModelUser
from ugst_env.users.loading import open_model
from ugst_env.users.tiny import TinyUser


@dataclass(frozen=True)
class Trainee:
    """A user simulator whose model is to be trained.

    Parameters
    ----------
    user
        The simulator; it goes on speaking with the weights as they are.
    model
        Its ``transformers`` model.
    tokenizer
        A ``transformers`` tokenizer with a padding token, for the trainers of TRL.
    """

    user: TinyUser | LanguageModelUser
    model: Any
    tokenizer: Any


def load_trainee(name: str) -> Trainee:
    """The user model that `name` stands for, in float32 on CPUs.

    Raises
    ------
    ValueError, FileNotFoundError
        If it is no language model, or there is none.
    """
    source = "" if name == "ugst-tiny" else name.removeprefix("hf:")
    if source == name and not name.endswith(".gguf"):
        raise ValueError(
            f"a model to train must be 'ugst-tiny', 'hf:<folder or hub name>' or a .gguf file, got {name!r}"
        )
    if source == name and not Path(name).is_file():
        raise FileNotFoundError(f"there is no GGUF file at {name}")
    import torch

    # Not the cached one: its weights are about to change. Nor are they what UGST_DTYPE wants for inference.
    user = open_model(source, dtype=None if torch.cuda.is_available() else torch.float32)
    if isinstance(user, TinyUser):
        from transformers import PreTrainedTokenizerFast

        tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=user.codec.tokenizer, pad_token="<pad>", eos_token="<end>"
        )
    else:
        tokenizer = user.format.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
    return Trainee(user, user.model.model, tokenizer)


@dataclass(frozen=True)
class AverageStage:
    """Which models to average, the one whose settings count last, and where the result goes (``out/model``)."""

    models: tuple[str, ...]
    out: Path


def average(config: AverageStage) -> None:
    """Average the weights of models that were trained one from the other (SWA, arXiv 1803.05407).

    Raises
    ------
    ValueError
        Without models, or where they differ in their parameters.
    """
    if not config.models:
        raise ValueError("models must name at least one model to average, got none")
    trainees = [load_trainee(name) for name in config.models]
    *others, last = (trainee.model.state_dict() for trainee in trainees)
    for name, other in zip(config.models, others, strict=False):
        if {k: v.shape for k, v in other.items()} != {k: v.shape for k, v in last.items()}:
            raise ValueError(f"{name} and {config.models[-1]} differ in their parameters, so they have no average")
    trainees[-1].model.load_state_dict({k: sum(o[k] for o in (*others, last)) / len(trainees) for k in last})
    save_trainee(trainees[-1], trainees[-1].model, config.out / "model")


def save_trainee(trainee: Trainee, model: Any, folder: Path) -> None:
    """Write the model as safetensors with its tokenizer; LoRA weights are merged into it.

    What was there before is replaced only when the new one is complete.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if isinstance(trainee.user, TinyUser):
        from ugst_env.training.tiny import export

        export(model, trainee.user.codec.tokenizer, part)
    else:
        from safetensors.torch import save_file

        # save_pretrained refuses models that came from GGUF files; the weights are plain by now.
        tied = getattr(model, "_tied_weights_keys", None) or {}
        weights = {k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}
        if model.config.get_text_config().tie_word_embeddings:
            weights = {k: v for k, v in weights.items() if k not in tied and k != "lm_head.weight"}
        save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
        config = {k: v for k, v in model.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
        config |= {"architectures": [type(model).__name__], "dtype": str(next(iter(weights.values())).dtype)[6:]}
        (part / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")
        trainee.tokenizer.save_pretrained(part)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
