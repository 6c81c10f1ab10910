"""Batched generation with re-used caches says what the plain model says."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from ugst_env.models.causal import CausalModel, Prompt, _make_room, load, sample  # noqa: E402

VOCABULARY = 96
STOPS = frozenset(range(6))


def llama(**options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            # Wide weights, so that what a token says depends on all that came before.
            "initializer_range": 0.3,
        }
        | options
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def weights() -> Any:
    return llama()


def causal(model: Any, **options: Any) -> CausalModel:
    return CausalModel(model, **{"eos_ids": STOPS, "device": "cpu", "max_length": 400} | options)


def prompts(count: int, *, seed: int = 0, low: int = 3, high: int = 60) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    return [
        Prompt(f"c{k}", tuple(int(i) for i in rng.integers(6, VOCABULARY, size=rng.integers(low, high))), seed=100 + k)
        for k in range(count)
    ]


OPTIONS: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.3}


@torch.inference_mode()
def plain(model: Any, prompt: Prompt, *, max_new_tokens: int, temperature: float, top_p: float = 1.0) -> list[int]:
    """What the reply must be: every token from a forward pass over the whole text."""
    ids, uniform = list(prompt.ids), np.random.default_rng(prompt.seed).random(max_new_tokens)
    reply: list[int] = []
    while len(reply) < max_new_tokens and STOPS.isdisjoint(reply):
        logits = model(input_ids=torch.tensor([ids + reply])).logits[:, -1]
        reply += sample(logits.float(), uniform[len(reply) :][:1], temperature=temperature, top_p=top_p)
    return reply


def test_replies_are_the_plain_models(weights: Any) -> None:
    batch = prompts(16)
    replies = causal(weights).generate(batch, **OPTIONS)
    assert replies == [plain(weights, prompt, **OPTIONS) for prompt in batch]
    lengths = {len(reply) for reply in replies}
    assert len(lengths) > 3, "rows are meant to finish at different times"
    assert all(STOPS.isdisjoint(reply[:-1]) for reply in replies)


def test_batch_of_one_and_of_sixteen_agree(weights: Any) -> None:
    batch = prompts(16, seed=1)
    together = causal(weights).generate(batch, **OPTIONS)
    alone = causal(weights)
    assert together == [alone.generate([prompt], **OPTIONS)[0] for prompt in batch]
    assert together[::-1] == causal(weights).generate(batch[::-1], **OPTIONS)
    fresh = causal(weights)
    assert together[3:9] == fresh.generate(batch[3:9], **OPTIONS)


def test_seeds_and_nothing_else_are_chance(weights: Any) -> None:
    model = causal(weights)
    [prompt] = prompts(1)
    first = model.generate([prompt], **OPTIONS)
    assert model.generate([prompt], **OPTIONS) == first
    assert model.generate([Prompt("another key", prompt.ids, prompt.seed)], **OPTIONS) == first
    others = {
        tuple(model.generate([Prompt("c0", prompt.ids, seed)], **OPTIONS)[0]) for seed in (-1, 1, 2, 2**63, 2**70)
    }
    assert len(others) > 1


@pytest.mark.parametrize("options", [{}, {"prefill_tokens": 7}, {"cache_bytes": 1}, {"cache_bytes": 400_000}])
def test_turns_that_reuse_caches_agree_with_fresh_ones(weights: Any, options: dict[str, Any]) -> None:
    model = causal(weights, **options)
    rng = np.random.default_rng(2)
    batch = prompts(9, seed=3)
    for turn in range(5):
        asked = [batch[k] for k in rng.permutation(len(batch))[: rng.integers(1, 10)]]
        replies = model.generate(asked, **OPTIONS)
        assert replies == causal(weights).generate(asked, **OPTIONS), turn
        grown = {}
        for prompt, reply in zip(asked, replies, strict=True):
            # Some keep what was said, some have it reworded, one starts anew.
            kept = prompt.ids + tuple(reply[: rng.integers(0, len(reply) + 1)])
            if rng.random() < 0.1:
                kept = kept[: len(kept) // 2]
            added = tuple(int(i) for i in rng.integers(6, VOCABULARY, size=rng.integers(1, 30)))
            grown[prompt.key] = Prompt(prompt.key, kept + added, seed=int(rng.integers(1000)))
        batch = [grown.get(prompt.key, prompt) for prompt in batch]
        if turn == 2:
            model.forget(["c1", "c4", "never heard of"])


def test_only_what_is_new_is_read(weights: Any) -> None:
    model = causal(weights)
    read: list[int] = []
    run = model._run
    model._run = lambda ids, *rest: (read.append(len(ids)), run(ids, *rest))[1]  # type: ignore[method-assign]
    [prompt] = prompts(1, low=50)
    [reply] = model.generate([prompt], **OPTIONS)
    assert read[0] == len(prompt.ids) and set(read[1:]) == {1}
    read.clear()
    model.generate([Prompt("c0", (*prompt.ids, *reply, 7, 8), 0)], **OPTIONS)
    assert read[0] == 3, "the last token of the reply and the two new ones"


def test_rows_that_finished_drop_out(weights: Any) -> None:
    model = causal(weights)
    read: list[int] = []
    run = model._run
    model._run = lambda ids, *rest: (read.append(len(ids)), run(ids, *rest))[1]  # type: ignore[method-assign]
    replies = model.generate(prompts(16), **OPTIONS)
    assert read[1:] == [sum(len(reply) > step for reply in replies) for step in range(1, max(map(len, replies)))]


def test_a_key_may_come_twice(weights: Any) -> None:
    model = causal(weights)
    [prompt, other] = prompts(2)
    twice = [prompt, Prompt(prompt.key, other.ids, other.seed), prompt]
    replies = model.generate(twice, **OPTIONS)
    assert replies == [plain(weights, p, **OPTIONS) for p in twice]
    assert model.cached_keys == (prompt.key,)


@pytest.mark.parametrize("known", [False, True])
def test_a_prompt_that_several_rows_share_is_read_once(weights: Any, known: bool) -> None:
    model = causal(weights)
    first, other = prompts(2, low=40)
    if known:  # One of the rows has read the beginning before.
        model.generate([Prompt("c2", first.ids[:25], 0)], **OPTIONS)
    read: list[int] = []
    run = model._run
    model._run = lambda ids, *rest: (read.append(len(ids)), run(ids, *rest))[1]  # type: ignore[method-assign]
    group = [Prompt(f"c{k}", first.ids, seed=k) for k in range(4)]
    batch = [*group[:2], Prompt("other", other.ids, other.seed), *group[2:]]
    replies = model.generate(batch, **OPTIONS)
    assert replies == [plain(weights, prompt, **OPTIONS) for prompt in batch]
    assert len({tuple(reply) for reply in replies}) == len(batch)
    assert read[0] == len(first.ids) + len(other.ids) - (25 if known else 0)
    # From here on each goes its own way.
    later = [
        Prompt(prompt.key, (*prompt.ids, *reply, 7, 8), prompt.seed + 9)
        for prompt, reply in zip(batch, replies, strict=True)
    ]
    read.clear()
    assert model.generate(later, **OPTIONS) == [plain(weights, prompt, **OPTIONS) for prompt in later]
    assert read[0] == 3 * len(batch)


def test_memory_is_bounded_and_freed(weights: Any) -> None:
    limit = 300_000
    model = causal(weights, cache_bytes=limit)
    for start in range(4):
        model.generate([Prompt(f"{start}.{p.key}", p.ids, p.seed) for p in prompts(6)], **OPTIONS)
        held = sum(t.nbytes for pair in model._slots.layers.values() for t in pair)
        assert 0 < held <= limit
    keys = model.cached_keys
    assert 6 <= len(keys) < 24 and keys[-1].startswith("3.")
    model.forget(keys)
    assert model.cached_keys == () and not model._slots.layers


def test_nan_is_reported_and_does_not_stay(weights: Any) -> None:
    model = causal(llama())
    batch = prompts(3)
    norm = model.model.model.layers[0].input_layernorm.weight
    kept = norm.data.clone()
    norm.data[:] = float("nan")
    for temperature in (0.0, 1.0):
        with pytest.raises(FloatingPointError, match="not finite"):
            model.generate(batch, max_new_tokens=3, temperature=temperature)
    norm.data[:] = kept
    # The same slots, with rows of other lengths: what is left of the longer ones is masked, but would still be NaN.
    batch = [Prompt(p.key, q.ids, 0) for p, q in zip(batch, (*batch[1:], batch[0]), strict=True)]
    assert model.generate(batch, **OPTIONS) == causal(weights).generate(batch, **OPTIONS)


def test_a_failure_leaves_the_model_usable(weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal(weights)
    batch = prompts(3)
    expected = model.generate(batch, **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(weights.lm_head, "forward", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.generate(batch, **OPTIONS)
    assert weights.config._attn_implementation == "sdpa"
    assert model.generate(batch, **OPTIONS) == expected


def test_a_model_in_training_is_left_as_it_was() -> None:
    weights = llama(attention_dropout=0.5)
    batch = prompts(2)
    expected = causal(weights).generate(batch, **OPTIONS)
    weights.train()
    model = causal(weights)
    assert model.generate(batch, **OPTIONS) == expected
    assert weights.training
    assert not any(p.is_inference() for p in weights.parameters())
    weights(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()


def gpt2() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.3
    )
    return transformers.GPT2LMHeadModel(config).eval()


def qwen2() -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, initializer_range=0.3,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(config).eval()


def mistral(window: int) -> Any:
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=window, initializer_range=0.3,
    )  # fmt: skip
    return transformers.MistralForCausalLM(config).eval()


def gemma2() -> Any:
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=4096, initializer_range=0.3, attn_implementation="eager",
    )  # fmt: skip
    return transformers.Gemma2ForCausalLM(config).eval()


def mamba() -> Any:
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=2, initializer_range=0.3
    )
    return transformers.MambaForCausalLM(config).eval()


def dynamic_rope() -> Any:
    return llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (gpt2, None),
        (qwen2, None),
        (lambda: mistral(4096), None),
        (lambda: mistral(16), "sliding window of 16 tokens"),
        (gemma2, "more than plain attention"),
        (mamba, ""),
        (dynamic_rope, "depends on the length"),
    ],
    ids=["gpt2", "qwen2", "mistral", "mistral-window", "gemma2", "mamba", "dynamic-rope"],
)
def test_every_architecture_is_right_and_plain_ones_reuse_caches(
    build: Any, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    weights = build()
    model = causal(weights)
    told = [record.getMessage() for record in caplog.records if record.name == "ugst_env.models.causal"]
    assert len(told) == (reason is not None) and all(line.endswith(str(model.why_not)) for line in told)
    assert model.reuses_cache == (reason is None), model.why_not
    assert reason is None or reason in str(model.why_not)
    batch = prompts(4)
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.0}
    for _ in range(2):
        replies = model.generate(batch, **options)
        assert replies == [plain(weights, prompt, **options) for prompt in batch]
        batch = [Prompt(p.key, (*p.ids, *r, 9, 11), p.seed + 1) for p, r in zip(batch, replies, strict=True)]


def test_half_precision_runs() -> None:
    model = causal(llama().to(torch.bfloat16))
    assert model.reuses_cache, model.why_not
    batch = prompts(4)
    replies = model.generate(batch, **OPTIONS)
    batch = [Prompt(p.key, (*p.ids, *r, 9), 0) for p, r in zip(batch, replies, strict=True)]
    assert all(model.generate(batch, **OPTIONS))


# ------------------------------------------------------------------------------------------------------------ sampling


def test_sample_follows_the_distribution() -> None:
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(0))
    uniform = np.random.default_rng(0).random(20_000)
    drawn = sample(logits.expand(len(uniform), -1), uniform, temperature=0.8)
    frequencies = np.bincount(drawn, minlength=12) / len(drawn)
    assert frequencies == pytest.approx(torch.softmax(logits[0] / 0.8, -1).numpy(), abs=0.012)


def test_top_p_draws_from_the_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]]))
    uniform = np.linspace(0, 1, 1000, endpoint=False)
    drawn = sample(logits.expand(1000, -1), uniform, temperature=1.0, top_p=0.7)
    assert np.bincount(drawn, minlength=4) / 1000 == pytest.approx([0, 0.625, 0, 0.375], abs=0.01)
    assert set(sample(logits.expand(1000, -1), uniform, temperature=1.0, top_p=1e-9)) == {1}


def test_tokens_without_mass_are_never_drawn() -> None:
    logits = torch.full((2, 6), -np.inf)
    logits[:, 3] = 0.0
    assert sample(logits, np.array([0.0, np.nextafter(1, 0)]), temperature=1.0) == [3, 3]
    assert sample(logits, np.zeros(2), temperature=0) == [3, 3]


# ------------------------------------------------------------------------------------------------------------ contract


def test_bad_arguments_are_named(weights: Any) -> None:
    model = causal(weights, max_length=32)
    [prompt] = prompts(1, high=5)
    for options, message in (
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"temperature": -1}, "temperature must not be negative, got -1"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate([prompt], **OPTIONS | options)
    for ids, message in (
        ((), "is empty"),
        ((1,) * 32, "32 tokens"),
        ((VOCABULARY,), "outside 0..95"),
        ((-1,), "outside"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate([Prompt("c", ids, 0)], **OPTIONS)
    with pytest.raises(ValueError, match="max_length"):
        causal(weights, max_length=1)


def test_replies_end_at_max_length_and_batches_may_be_empty(weights: Any) -> None:
    model = causal(weights, max_length=32, eos_ids=[])
    assert model.generate([], **OPTIONS) == []
    replies = model.generate([Prompt("a", (7,) * 30, 0), Prompt("b", (7,) * 3, 0)], **OPTIONS)
    assert [len(reply) for reply in replies] == [2, 20]


def test_stop_ids_stop_beside_eos(weights: Any) -> None:
    model = causal(weights)
    [prompt] = prompts(1)
    reply = model.generate([prompt], **OPTIONS)[0]
    stop = reply[3]
    assert model.generate([prompt], **OPTIONS, stop_ids=frozenset([stop])) == [reply[: reply.index(stop) + 1]]


# ------------------------------------------------------------------------------------------------------------- loading


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def tokenizer(*, template: str | None) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    found.chat_template = template
    return found


TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}{% endfor %}"


def test_load_reads_a_folder(weights: Any, tmp_path: Path) -> None:
    weights.save_pretrained(tmp_path)
    tokenizer(template=TEMPLATE).save_pretrained(tmp_path)
    model, found = load(tmp_path, device="cpu")
    assert found.chat_template == TEMPLATE
    assert model.dtype is torch.float32 and not model.training
    batch = prompts(2)
    assert causal(model).generate(batch, **OPTIONS) == causal(weights).generate(batch, **OPTIONS)


def test_the_number_format_can_be_chosen_from_outside(
    weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.save_pretrained(tmp_path)
    tokenizer(template=TEMPLATE).save_pretrained(tmp_path)
    monkeypatch.setenv("UGST_DTYPE", "bfloat16")
    assert load(tmp_path, device="cpu")[0].dtype is torch.bfloat16
    assert load(tmp_path, device="cpu", dtype=torch.float32)[0].dtype is torch.float32
    monkeypatch.setenv("UGST_DTYPE", "int3")
    with pytest.raises(ValueError, match="UGST_DTYPE must be one of float32, bfloat16, float16, got 'int3'"):
        load(tmp_path, device="cpu")


def test_load_says_what_is_missing(weights: Any, tmp_path: Path, offline: None) -> None:
    with pytest.raises(FileNotFoundError, match="no model folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no model folder"):
        load("./nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="no GGUF file"):
        load(tmp_path / "model.gguf")
    with pytest.raises(FileNotFoundError, match="no config"):
        load(tmp_path)
    with pytest.raises(ValueError, match="neither in the local cache nor to be had from the hub"):
        load("nobody/has-such-a-model")
    weights.save_pretrained(tmp_path)
    tokenizer(template=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no chat template"):
        load(tmp_path)


def test_load_refuses_pickled_weights(weights: Any, tmp_path: Path) -> None:
    weights.config.save_pretrained(tmp_path)
    tokenizer(template=TEMPLATE).save_pretrained(tmp_path)
    torch.save(weights.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        load(tmp_path, device="cpu")


def test_banned_tokens_are_never_drawn(weights: Any) -> None:
    model = causal(weights)
    prompt = Prompt("a", (1, 2, 3), seed=4)
    free = model.generate([prompt], max_new_tokens=12, temperature=1.0)[0]
    banned = replace(prompt, banned=tuple(set(free)))
    other = Prompt("b", (1, 2, 3), seed=4)
    replies = model.generate([banned, other], max_new_tokens=12, temperature=1.0)
    assert not set(replies[0]) & set(free)
    assert replies[1] == free


# ------------------------------------------------------------------------------------------------------------- scoring


@torch.inference_mode()
def plain_scores(model: Any, prompt: Prompt, tails: list[list[int]], labels: list[int]) -> Any:
    """What the scores must be: each branch by a forward pass over the whole text."""
    rows = [model(input_ids=torch.tensor([[*prompt.ids, *tail]])).logits[0, -1].log_softmax(-1) for tail in tails]
    return torch.stack(rows)[:, labels].double().numpy()


def some_tails(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[int(i) for i in rng.integers(6, VOCABULARY, size=rng.integers(1, 9))] for _ in range(count)]


@pytest.mark.parametrize("options", [{}, {"prefill_tokens": 16}, {"cache_bytes": 1}, {"max_length": 80}])
def test_scores_are_those_of_whole_texts(weights: Any, options: dict[str, Any]) -> None:
    """Whatever is cached, packed together or read in parts."""
    model, labels = causal(weights, **options), [7, 8, 50]
    batch = prompts(5)
    tails = [some_tails(k % 4 * 5, seed=k) for k in range(5)]
    for _ in range(2):
        found = model.score(batch, tails, labels)
        for prompt, branches, scores in zip(batch, tails, found, strict=True):
            assert scores.shape == (len(branches), 3)
            if branches:
                np.testing.assert_allclose(scores, plain_scores(weights, prompt, branches, labels), atol=1e-4)
    grown = [Prompt(p.key, (*p.ids, 9, 10, 11), p.seed) for p in batch]
    for prompt, branches, scores in zip(grown, tails, model.score(grown, tails, labels), strict=True):
        if branches:
            np.testing.assert_allclose(scores, plain_scores(weights, prompt, branches, labels), atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"prefill_tokens": 16}, {"cache_bytes": 1}])
@pytest.mark.parametrize("reuses", [True, False])
def test_likelihoods_are_those_of_whole_texts(weights: Any, options: dict[str, Any], reuses: bool) -> None:
    model, batch = causal(weights, **options), prompts(4)
    model.why_not = None if reuses else "for the sake of this test"
    texts = [list(zip(some_tails(k, seed=k), some_tails(k, seed=k + 9), strict=True)) for k in range(4)]
    for _ in range(2):
        for prompt, pairs, found in zip(batch, texts, model.likelihood(batch, texts), strict=True):
            for (head, text), likelihoods in zip(pairs, found, strict=True):
                with torch.inference_mode():
                    logits = weights(input_ids=torch.tensor([[*prompt.ids, *head, *text]])).logits[0].log_softmax(-1)
                begin = len(prompt.ids) + len(head)
                expected = [float(logits[begin + i - 1, token]) for i, token in enumerate(text)]
                np.testing.assert_allclose(likelihoods, expected, atol=1e-4)
    with pytest.raises(ValueError, match="at least one token each"):
        model.likelihood(batch[:1], [[([], [7])]])


def test_scoring_leaves_replies_as_they_are(weights: Any) -> None:
    batch = prompts(4)
    model = causal(weights)
    expected = causal(weights).generate(batch, **OPTIONS)
    model.score(batch, [some_tails(3)] * 4, [7])
    assert model.generate(batch, **OPTIONS) == expected
    model.score(batch, [some_tails(3)] * 4, [7])
    assert model.generate(batch, **OPTIONS) == expected


def test_what_is_known_is_not_read_again(weights: Any) -> None:
    model, read = causal(weights), []
    run = model._run
    model._run = lambda ids, *rest: read.append(len(ids)) or run(ids, *rest)  # type: ignore[method-assign,func-returns-value]
    prompt, tails = prompts(1, low=50)[0], [[7, 8], [9]]
    model.score([prompt], [tails], [7])
    model.score([Prompt(prompt.key, (*prompt.ids, 20, 21), 0)], [tails], [7])
    assert read == [len(prompt.ids), 3, 2, 3]


def test_scores_without_the_cache(weights: Any) -> None:
    model = causal(weights)
    model.why_not = "for the sake of this test"
    prompt, tails = prompts(1)[0], some_tails(3)
    np.testing.assert_allclose(
        model.score([prompt], [tails], [7, 8])[0], plain_scores(weights, prompt, tails, [7, 8]), atol=1e-4
    )


@pytest.mark.parametrize(
    ("tails", "told"), [([[]], "got 0 to 0"), ([[7] * 400], "must have 1 to"), ([[VOCABULARY]], "token ids outside")]
)
def test_branches_that_cannot_be_scored(weights: Any, tails: list[list[int]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        causal(weights).score(prompts(1), [tails], [7])


@pytest.mark.parametrize("variable", [None, "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_memory_is_kept_unless_somebody_else_sees_to_it(
    variable: str | None, weights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    causal(weights)
    assert gc.get_freeze_count() > 0  # What torch brought is no garbage.
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda *option: told.append(option)))
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "glibc.malloc.arena_max=2" if variable == "GLIBC_TUNABLES" else "1000000")
    _make_room.__wrapped__()
    assert [size for _, size in told] == ([32 << 20, 256 << 20] if variable is None else [])
