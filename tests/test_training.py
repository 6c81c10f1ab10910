"""The training stages: what is kept and resumed, what is learnt and what is masked, what a reply is worth."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ugst_env.cli import main
from ugst_env.dialogue.acts import AgentAct
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.envs.setup import make_setup
from ugst_env.goal import Ask, Category, Objective, UserGoal, Want
from ugst_env.goals.files import goal_of, goal_record
from ugst_env.goals.generator import SPLIT_POLICIES, challenge, fits
from ugst_env.goals.policies import compatible, make_rule
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.collect import CollectConfig, collect, read_conversations, replay, varied_policy
from ugst_env.training.grpo import Prefix, judge
from ugst_env.training.launch import own_folder
from ugst_env.training.sft import encode_conversation
from ugst_env.training.tiny import TinyConfig, encode, lost_track, read_shards, run, turns_of, write_shards
from ugst_env.training.weights import AverageStage, average, load_trainee, save_trainee
from ugst_env.users.protocol import UserReply
from ugst_env.users.tiny import Codec, TinyUser
from ugst_env.world.database import World


@pytest.fixture(scope="module")
def tracker(world: World) -> VerifiableTracker:
    return VerifiableTracker(world)


@pytest.fixture(scope="module")
def vocabulary(world: World) -> Vocabulary:
    return Vocabulary.from_world(world)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some conversations of the scripted user, every now and then a stray turn."""
    folder = tmp_path_factory.mktemp("collected") / "data"
    collect(
        CollectConfig(
            out=folder, user="scripted", conversations=24, stray="drift", stray_rate=0.1, clerks="mixed", varied=0.5
        )
    )
    return folder


# ------------------------------------------------------------------------------------------------------------- collect


def test_goals_come_back_from_records(world: World) -> None:
    for goal in challenge("test", world):
        record = json.loads(json.dumps(goal_record(goal)))
        assert goal_record(goal_of(record)) == record
        assert [c.content for c in goal_of(record).components if not isinstance(c.content, Objective)] == [
            c.content for c in goal.components if not isinstance(c.content, Objective)
        ]


def test_replay_is_what_happened(collected: Path, tracker: VerifiableTracker, vocabulary: Vocabulary) -> None:
    for row in read_conversations(collected):
        for episode, _, _ in replay(row, tracker, vocabulary):
            assert episode.waiting_for == "user"
        assert {c.value: rate for c, rate in episode.state.success_rates().items()} == row["rates"]
        assert episode.outcome == row["outcome"]


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    config = CollectConfig(out=tmp_path / "data", conversations=2, user="scripted", processes=1)
    with own_folder(config.out, resume=False), pytest.raises(FileExistsError, match="another process is writing into"):
        collect(replace(config, resume=True))
    # Nothing was written, so there is nothing to resume.
    assert sum(collect(config).values()) == 2
    with pytest.raises(FileExistsError, match="is not empty"):
        collect(config)


def test_collecting_resumes_without_loss_or_duplicate(collected: Path, tmp_path: Path) -> None:
    whole = (collected / "part-0.jsonl").read_text()
    lines = whole.splitlines(keepends=True)
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "part-0.jsonl").write_text("".join(lines[:9]) + lines[9][:40])
    config = CollectConfig(
        out=torn, user="scripted", conversations=24, stray="drift", stray_rate=0.1, clerks="mixed", varied=0.5
    )
    with pytest.raises(FileExistsError, match="not empty"):
        collect(config)
    counts = collect(replace(config, resume=True, batch=5))
    assert counts == {"kept": 24}
    assert sorted((torn / "part-0.jsonl").read_text().splitlines()) == sorted(whole.splitlines())


def test_processes_hold_the_same_conversations(collected: Path, tmp_path: Path) -> None:
    config = CollectConfig(
        out=tmp_path / "two",
        user="scripted",
        conversations=24,
        stray="drift",
        stray_rate=0.1,
        clerks="mixed",
        varied=0.5,
        processes=2,
    )
    collect(config)
    assert read_conversations(tmp_path / "two") == read_conversations(collected)


def test_only_aligned_conversations_are_kept(tmp_path: Path) -> None:
    config = CollectConfig(
        out=tmp_path / "kept", user="scripted", drift="contradict=0.2", conversations=30, keep="aligned"
    )
    counts = collect(config)
    rows = read_conversations(tmp_path / "kept")
    assert 0 < counts["kept"] == len(rows) < 30 == sum(counts.values())
    assert all(set(row["rates"].values()) == {1.0} for row in rows)
    assert any(why.endswith("not held") for why in counts)
    # The dropped ones are remembered, and not held again.
    assert collect(replace(config, resume=True)) == counts


def test_varied_policies_are_never_held_out_and_always_matter(world: World) -> None:
    rng = random.Random(0)
    held_out = {(rule.kind, rule.value) for split in ("val", "test") for rule in SPLIT_POLICIES[split]}
    sizes = set()
    for goal in challenge("val", world):
        for _ in range(10):
            policy = varied_policy(rng, goal.objectives)
            sizes.add(len(policy))
            assert not held_out & {(rule.kind, rule.value) for rule in policy}
            assert all(compatible(a, b) for a, b in itertools.combinations(policy, 2))
            # Rules about a slot are about one of the goal's, and there is room for all that is to be said.
            assert fits(goal.objectives, policy)
    assert sizes == {1, 2, 3}


def test_some_varied_goals_have_neither_profile_nor_rules(tmp_path: Path) -> None:
    config = CollectConfig(out=tmp_path / "data", user="scripted", conversations=40, varied=1.0)
    collect(config)
    goals = [row["goal"] for row in read_conversations(config.out)]
    bare = [goal for goal in goals if not goal.get("policy")]
    assert 1 <= len(bare) <= 15
    assert not any(goal.get("profile") for goal in bare)
    assert all(goal["profile"] for goal in goals if goal not in bare)


def test_a_stray_model_notes_its_goal_state_for_every_turn(tmp_path: Path) -> None:
    """Also for the turns that it does not take, if it is not shown the goal state."""
    config = CollectConfig(
        out=tmp_path / "own", user="scripted", stray="ugst-tiny", stray_rate=0.4, steering=False, conversations=6
    )
    collect(config)
    turns = [turn for row in read_conversations(config.out) for turn in row["turns"]]
    assert {turn["learn"] for turn in turns} == {True, False}
    assert all("<INC>" in turn["trace"] or "<COM>" in turn["trace"] or "<ATT>" in turn["trace"] for turn in turns)
    # The stray model is drawn from more freely than it plays, and plays as before.
    collect(replace(config, out=tmp_path / "greedy", stray_temperature=0.0))
    assert [*read_conversations(tmp_path / "greedy")] != [*read_conversations(config.out)]
    assert make_setup(user="ugst-tiny").user.temperature == TinyUser().temperature > 0
    collect(replace(config, out=tmp_path / "shown", steering=True))
    assert not any(
        "<" in turn.get("trace", "") for row in read_conversations(tmp_path / "shown") for turn in row["turns"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collect", "--user", "nobody"], "unknown user 'nobody'"),
        (["collect", "--user", "scripted", "--goals", "challenge:best"], "challenge:train"),
        (["collect", "--user", "scripted", "--keep", "some"], "keep must be"),
        (["collect", "--user", "scripted", "--drift", "forget"], "forget=0.1"),
        (["collect", "--user", "scripted", "--drift", "sulk=0.1"], "unknown drift mode 'sulk'"),
        (["collect", "--user", "scripted", "--stray-temperature", "-1"], "stray_temperature must not"),
        (["collect", "--user", "scripted", "--conversations", "0"], "conversations must be at least 1"),
        (["sft", "--data", "nowhere"], "no conversations in nowhere"),
        (["grpo", "--data", "nowhere"], "no conversations in nowhere"),
        (["grpo", "--data", "nowhere", "--generations", "1"], "at least 2"),
        (["tiny", "--data", "nowhere"], "no conversations in nowhere"),
        (["align", "--user", "nobody"], "unknown user 'nobody'"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"ugst {arguments[0]}: ")
    assert message in error


# ------------------------------------------------------------------------------------------------------------ training


def test_only_straight_replies_are_learnt(collected: Path, tracker: VerifiableTracker, vocabulary: Vocabulary) -> None:
    codec = Codec(TinyUser().codec.tokenizer)
    strayed = 0
    for row in read_conversations(collected):
        for steering in (False, True):
            ids, mask = encode(codec, turns_of(replay(row, tracker, vocabulary)), steering=steering)
            pieces: list[list[int]] = [[]]
            for token, learn in zip(ids, mask, strict=True):
                if learn:
                    pieces[-1].append(token)
                elif pieces[-1]:
                    pieces.append([])
            goal = goal_of(row["goal"])
            said = [codec.read(piece, goal).text.lower() for piece in pieces if piece]
            wanted = [
                turn["user"].lower().replace("moderately priced", "moderate") for turn in row["turns"] if turn["learn"]
            ]
            assert said == wanted
            strayed += len(wanted) < len(row["turns"])
            assert (codec.ids["<state>"] in ids) == steering
    assert strayed


def test_a_prompt_ends_as_it_is_trained(collected: Path, tracker: VerifiableTracker, vocabulary: Vocabulary) -> None:
    """What the model reads when it plays is what it read when it learnt."""
    codec = Codec(TinyUser().codec.tokenizer)
    for row in read_conversations(collected)[:8]:
        ids, _ = encode(codec, turns_of(replay(row, tracker, vocabulary)), steering=True)
        for episode, _, _ in replay(row, tracker, vocabulary):
            prompt = codec.prompt(episode.request(), trace=False)
            assert ids[: len(prompt)] == prompt


def test_a_model_learns_to_write_what_steering_shows(
    collected: Path, tracker: VerifiableTracker, vocabulary: Vocabulary
) -> None:
    codec = Codec(TinyUser().codec.tokenizer)
    for row in read_conversations(collected)[:8]:
        steered, _ = encode(codec, turns_of(replay(row, tracker, vocabulary)), steering=True)
        ids, mask = encode(codec, turns_of(replay(row, tracker, vocabulary)), steering=False, trace=True)
        assert ids == steered
        traces: tuple[str, ...] = ()
        for (episode, _, learn), turn in zip(replay(row, tracker, vocabulary), row["turns"], strict=True):
            request = replace(episode.request(), state=None, states=(), traces=traces)
            prompt = codec.prompt(request, trace=True)
            assert ids[: len(prompt)] == prompt
            answer = ids[len(prompt) : ids.index(codec.end, len(prompt)) + 1]
            said = answer.index(codec.ids["<user>"]) + 1
            assert all(mask[len(prompt) : len(prompt) + said])
            assert set(mask[len(prompt) + said : len(prompt) + len(answer)]) == {learn}
            assert not set(answer) & set(codec.banned(episode.goal, trace=True))
            if learn:
                read = codec.read(answer, episode.goal)
                assert (read.error, read.end) == (None, turn["end"]) and read.trace
            traces = (*traces, codec.read(answer, episode.goal).trace)


def test_nothing_is_learnt_from_a_wrong_state(
    collected: Path, tracker: VerifiableTracker, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ugst_env.training.tiny.WRONG_STATES", 1.0)
    codec = Codec(TinyUser().codec.tokenizer)
    row = read_conversations(collected)[0]
    _, mask = encode(
        codec, turns_of(replay(row, tracker, vocabulary)), steering=False, trace=True, rng=random.Random(0)
    )
    assert not any(mask)


@pytest.mark.parametrize("shown", [0.0, 1.0])
def test_a_model_learns_to_find_back_from_its_own_mistakes(
    collected: Path,
    tracker: VerifiableTracker,
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
    shown: float,
) -> None:
    """The state that it wrote stands in the place of the true one, and is not learnt; what comes after it is."""
    monkeypatch.setattr("ugst_env.training.tiny.OWN_STATES", shown)
    codec = Codec(TinyUser().codec.tokenizer)
    row = next(row for row in read_conversations(collected) if len(row["turns"]) > 2)
    true, mask = encode(codec, turns_of(replay(row, tracker, vocabulary)), steering=False, trace=True)
    states = [ep.state for ep, *_ in replay(row, tracker, vocabulary)]
    right = [codec.state(now, before=states[k - 1] if k else None) for k, now in enumerate(states)]
    own = [codec.tokenizer.id_to_token(token) for token in right[0]]
    turns = [{**turn, "trace": " ".join(own)} for turn in row["turns"]]
    wrong = sum(state != right[0] for state in right)
    assert wrong
    assert not lost_track(codec, turns_of(replay(row, tracker, vocabulary)))
    told = turns_of(replay({**row, "turns": turns}, tracker, vocabulary))
    assert lost_track(codec, told)
    ids, learnt = encode(codec, told, steering=False, trace=True, rng=random.Random(0))
    if not shown:
        assert (ids, learnt) == (true, mask)
        return
    assert sum(learnt) < sum(mask)
    text, piece = [*ids], [*right[0], codec.ids["<user>"]]
    assert sum(text[at : at + len(piece)] == piece for at in range(len(text))) >= wrong
    # The first state is right, so it is learnt, and so is what is said after it.
    begin = next(at for at in range(len(text)) if text[at : at + len(piece)] == piece)
    assert all(learnt[begin : begin + len(piece)])


def test_a_conversation_in_which_the_model_lost_track_is_learnt_again(
    collected: Path, tracker: VerifiableTracker, vocabulary: Vocabulary
) -> None:
    row = next(row for row in read_conversations(collected) if len(row["turns"]) > 2)
    trainee = load_trainee("ugst-tiny")
    first = next(replay(row, tracker, vocabulary))[0].state
    codec = Codec(TinyUser().codec.tokenizer)
    own = " ".join(str(codec.tokenizer.id_to_token(token)) for token in codec.state(first, before=None))
    stuck = {**row, "turns": [{**turn, "trace": own} for turn in row["turns"]]}
    right = {**row, "turns": [{**turn, "trace": own if k == 0 else ""} for k, turn in enumerate(row["turns"])]}
    for talk, times in ((stuck, 3), (right, 1)):
        sequences = encode_conversation(trainee, talk, tracker, vocabulary, trace=1.0, steered=0.0, lost=3, seed=0)
        assert len(sequences) == times


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from ugst_env.training.launch import launch\n"
        "def work(folder):\n"
        "    (Path(folder) / f'{os.getpid()}.pid').touch()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    launch(work, sys.argv[1], 2)\n"
    )
    script, folder = tmp_path / "program.py", tmp_path / "pids"
    script.write_text(program)
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(folder)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    pids = [int(path.stem) for path in folder.iterdir()]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_runs, pids))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_training_from_scratch_resumes(collected: Path, tmp_path: Path) -> None:
    config = TinyConfig(
        data=collected,
        out=tmp_path / "m",
        tokens=6000,
        batch_tokens=2048,
        hidden=32,
        layers=1,
        heads=2,
        intermediate=64,
    )
    run(config)
    shards = {path.name: path.read_bytes() for path in (tmp_path / "m" / "data").iterdir()}
    with pytest.raises(FileExistsError, match="not empty"):
        run(config)
    run(replace(config, tokens=9000, resume=True))
    write_shards(config)
    assert shards == {path.name: path.read_bytes() for path in (tmp_path / "m" / "data").iterdir()}
    assert all(mask.any() for _, mask in read_shards(tmp_path / "m" / "data", longest=2048))
    assert TinyUser(tmp_path / "m" / "model").reply([]) == []


def test_averaged_weights_are_the_mean_and_play(tmp_path: Path) -> None:
    import torch

    moved = load_trainee("ugst-tiny")
    with torch.no_grad():
        for weight in moved.model.parameters():
            weight.add_(0.5)
    save_trainee(moved, moved.model, tmp_path / "moved")
    average(AverageStage(("ugst-tiny", f"hf:{tmp_path / 'moved'}"), tmp_path / "both"))
    before, after = (load_trainee(n).model.state_dict() for n in ("ugst-tiny", f"hf:{tmp_path / 'both' / 'model'}"))
    assert all(torch.allclose(after[k] - before[k], torch.tensor(0.25), atol=2e-3) for k in before)
    assert TinyUser(tmp_path / "both" / "model").reply([]) == []
    with pytest.raises(ValueError, match="at least one model to average"):
        average(AverageStage((), tmp_path / "none"))


@pytest.mark.slow
def test_the_whole_recipe_runs_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ugst_env.training import recipe

    arguments = ["recipe", "--out", str(tmp_path / "r"), "--processes", "1", "--scale", "0.005"]
    monkeypatch.setattr("sys.argv", arguments)
    # Later rounds do what the third does, and passes in between what the last does.
    first, *_, last = recipe.PASSES
    monkeypatch.setattr(recipe, "PASSES", [(rounds[:n], *how) for (rounds, *how), n in ((first, 3), (last, 1))])
    recipe.main()
    assert TinyUser(tmp_path / "r" / "grpo" / "model").reply([]) == []
    log = [json.loads(line) for line in (tmp_path / "r" / "grpo" / "log.jsonl").read_text().splitlines()]
    assert any("rewards/policy/mean" in row or "train_loss" in row for row in log)
    capsys.readouterr()
    recipe.main()
    assert "== " + str(tmp_path / "r" / "sft-1") not in capsys.readouterr().out.splitlines()


# -------------------------------------------------------------------------------------------------------------- reward

GOAL = UserGoal(
    objectives=(
        Objective(
            "restaurant",
            "find",
            (Want("area", "north", text="It is in the north."), Ask("phone", text="Get the phone number.")),
            (
                Want(
                    "pricerange", "cheap", text="Ideally it is cheap, but that is not the most important thing of all."
                ),
            ),
            text="Find a restaurant.",
        ),
        Objective("hotel", "find", (Want("stars", "4", text="It has 4 stars."),), text="Find a hotel."),
    ),
    policy=(make_rule("never_say", "please"),),
)


@pytest.fixture
def worth(tracker: VerifiableTracker, vocabulary: Vocabulary) -> Callable[..., tuple[dict[str, bool], str | None]]:
    """I_j of a reply, after these turns of ``(user's words, clerk's act)``, and the hack that it is."""

    def judged(
        text: str, *turns: tuple[str, AgentAct], end: bool = False, error: str | None = None
    ) -> tuple[dict[str, bool], str | None]:
        episode = Episode(GOAL, tracker, vocabulary, seed=0)
        for said, act in turns:
            episode.hear(UserReply(said))
            episode.act(act)
        prefix = Prefix(episode.request(), episode.tracked, episode.context())
        held, hack = judge(UserReply(text, end=end, error=error), prefix, tracker, vocabulary)
        return {category.value: ok for category, ok in held.items()}, hack

    return judged


MORE = AgentAct("req_more")


def test_what_a_reply_moves_is_what_it_is_worth(worth: Any) -> None:
    opening, _ = worth("I need a restaurant in the north.")
    assert opening == {"profile": True, "policy": True, "objective": True, "requirement": True, "preference": False}
    both, _ = worth("I need a restaurant in the north, cheap if possible.")
    assert all(both.values())
    # There is no hurry to raise the hotel while the restaurant is not done.
    later, _ = worth("Cheap if possible.", ("I need a restaurant in the north.", MORE))
    assert later["objective"] and later["preference"] and not later["requirement"]


def test_what_a_reply_breaks_it_loses(worth: Any) -> None:
    rude, _ = worth("A restaurant in the north, please.")
    assert not rude["policy"] and rude["requirement"]
    wrong, _ = worth("I need a restaurant in the south.")
    assert not wrong["requirement"]
    invented, _ = worth("I need a train to Ashbury on monday. And a restaurant in the north.")
    assert not invented["requirement"]
    idle, _ = worth("Let me think about it.")
    assert not idle["objective"] and not idle["requirement"] and not idle["preference"]


def test_answers_are_worth_a_turn(worth: Any) -> None:
    asked = AgentAct("request", "restaurant", "food")
    answered, _ = worth("I don't mind what food it is.", ("I need a restaurant in the north.", asked))
    assert all(answered.values())
    made_up, _ = worth("Thai food.", ("I need a restaurant in the north.", asked))
    assert not made_up["requirement"] and not made_up["preference"]


@pytest.mark.parametrize(
    ("text", "hack"),
    [
        ("word " * 61, "endless"),
        (
            "I want a cheap restaurant in the north, its phone number, address and postcode, and a hotel with 4 stars.",
            "everything",
        ),
        ("A place, ideally it is cheap, but that is not the most important thing of all.", "quoting"),
        ("I need a restaurant in the north.", "repeating"),
    ],
)
def test_hacks_earn_nothing(text: str, hack: str, worth: Any) -> None:
    held, found = worth(text, ("I need a restaurant in the north.", MORE))
    assert found == hack
    assert not any(held.values())


def test_leaving_early_earns_nothing(worth: Any) -> None:
    held, found = worth("Thank you, goodbye.", ("I need a restaurant in the north.", MORE), end=True)
    assert found == "leaving" and not any(held.values())


def test_replies_without_text_earn_nothing(worth: Any) -> None:
    held, found = worth("", error="the model returned an empty reply")
    assert found == "unusable" and set(held) == {c.value for c in Category} and not any(held.values())
