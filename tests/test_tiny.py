"""The shipped model: what its prompt says, what its tokens become, and how it plays the user."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3
from tokenizers import Tokenizer

import ugst_env  # noqa: F401
from ugst_env.conversation import Conversation
from ugst_env.dialogue.understanding import Vocabulary
from ugst_env.envs.episode import Episode
from ugst_env.goal import Ask, Objective, UserGoal, Want
from ugst_env.goals.generator import challenge, goal_source
from ugst_env.metrics import alignment, converse
from ugst_env.tracking.verifiable import VerifiableTracker
from ugst_env.training.clerks import clerk_act
from ugst_env.users.protocol import UserRequest
from ugst_env.users.scripted import ScriptedUser
from ugst_env.users.tiny import NO_HANDLES, SHIPPED, Codec, TinyUser
from ugst_env.world.database import World


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(Tokenizer.from_file(str(SHIPPED / "tokenizer.json")))


@pytest.fixture(scope="module")
def tiny() -> TinyUser:
    return TinyUser()


@pytest.fixture(scope="module")
def episodes(world: World) -> list[Episode]:
    """Conversations of the scripted user about training goals."""
    vocabulary, rng = Vocabulary.from_world(world), random.Random(3)
    source = goal_source("challenge:train", world)
    return converse(
        ScriptedUser(world, vocabulary), [source(rng) for _ in range(40)], VerifiableTracker(world), vocabulary
    )


def test_package_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 15 * 2**20


def test_words_survive_the_tokens(codec: Codec, episodes: list[Episode]) -> None:
    """Every reply comes back as it was said, up to capital letters inside sentences."""
    for episode in episodes:
        handles = codec.handles(episode.goal)
        for turn in episode.conversation.turns:
            back = codec.read(codec.reply(turn.user, handles, end=False), episode.goal)
            assert back.error is None
            assert back.text.lower() == turn.user.lower().replace("moderately priced", "moderate")


def test_words_have_the_tokens_that_they_have_in_a_text(codec: Codec) -> None:
    rng = random.Random(0)
    pieces = [
        "a",
        "Table",
        "for",
        "4",
        "12:30",
        "it's",
        "n't",
        ",",
        ".",
        "?",
        " ",
        "  ",
        "\t",
        "\n",
        "é",
        "½",
        "中",
        "🙂",
    ]
    for _ in range(2000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 12)))
        ids = codec.tokenizer.encode(text, add_special_tokens=False).ids
        assert codec._plain(text) == ids, repr(text)
        said = codec._spell(ids, NO_HANDLES)
        assert said == " ".join(text.split())


def test_prompt_grows_only_at_its_end(codec: Codec, world: World) -> None:
    vocabulary = Vocabulary.from_world(world)
    user, tracker, rng = ScriptedUser(world, vocabulary), VerifiableTracker(world), random.Random(0)
    for k, goal in enumerate(challenge("val", world)[:10]):
        episode = Episode(goal, tracker, vocabulary, seed=k)
        before: list[int] = []
        over = False
        while not over:
            prompt = codec.prompt(episode.request(), trace=False)
            assert prompt[: len(before)] == before
            before = prompt
            over = episode.hear(user.reply([episode.request()])[0]).over
            if not over:
                act = clerk_act({"competent": 1.0}, episode.belief, world, rng, turn=episode.turn, max_turns=10)
                over = episode.act(act).over


@pytest.mark.parametrize("options", [{}, {"steering": False}, {"steering": False, "repeat": True}])
@pytest.mark.parametrize("trace", [False, True])
def test_what_was_written_a_turn_ago_changes_no_prompt(
    codec: Codec, episodes: list[Episode], options: dict[str, bool], trace: bool
) -> None:
    others = None
    for told in episodes[:10]:
        requests = []
        for turn in range(len(told.conversation.turns)):
            said = Conversation(told.conversation.turns[:turn])
            requests.append(
                UserRequest(
                    episode="one name for all",
                    goal=told.goal,
                    conversation=said,
                    state=told.shown[turn] if options.get("steering", True) else None,
                    agent_act=None,
                    turn=turn,
                    max_turns=10,
                    seed=0,
                    states=told.shown[: turn + 1] if options.get("steering", True) else (),
                    traces=("<hotel.area> <ATT>",) * turn,
                    repeat=options.get("repeat", False),
                )
            )
        past = others
        for request in requests:
            past = codec.past(request, trace=trace, known=past)
            assert codec.prompt(request, trace=trace, past=past) == codec.prompt(request, trace=trace)
        # The past of another conversation, of a later turn, or of the same turns told otherwise, is no use.
        others = past
        assert codec.past(requests[0], trace=trace, known=past).ids == codec.past(requests[0], trace=trace).ids
        retold = replace(requests[-1], conversation=Conversation().with_user("No."), turn=1)
        assert codec.prompt(retold, trace=trace, past=past) == codec.prompt(retold, trace=trace)


@pytest.mark.parametrize(
    "text", ["<end>", "<bye><end>", "<=hotel.area>", "<user> hello <agent>", "\u0000<state>\u202e", "<|im_start|>"]
)
def test_text_is_never_a_control_token(codec: Codec, world: World, text: str) -> None:
    goal = challenge("val", world)[0]
    ids = codec.agent(text, codec.handles(goal))
    control = {codec.ids[token] for token in ("<end>", "<bye>", "<user>", "<state>", "<=hotel.area>")}
    assert ids[0] == codec.ids["<agent>"]
    assert not control & set(ids[1:])


def test_unfinished_and_empty_replies_are_errors(codec: Codec, world: World) -> None:
    goal = challenge("val", world)[0]
    handles = codec.handles(goal)
    whole = codec.reply("I need a train.", handles, end=False)
    assert codec.read(whole[:-1], goal).error is not None
    assert codec.read([codec.end], goal).error is not None
    assert codec.read(whole, goal).error is None


def test_names_never_seen_are_copied(codec: Codec, world: World) -> None:
    """A value that no training conversation holds comes back letter by letter."""
    from dataclasses import replace

    goal = challenge("val", world)[0]
    objective = goal.objectives[0]
    want = next(part for part in objective.requirements if hasattr(part, "value"))
    strange = replace(want, value="zyxwv qqj")
    other = replace(
        goal, objectives=(replace(objective, requirements=(strange, *objective.requirements[1:])), *goal.objectives[1:])
    )
    ids = codec.reply("Something like zyxwv qqj, please.", codec.handles(other), end=False)
    assert "zyxwv qqj" in codec.read(ids, other).text.lower()
    assert len(ids) < 12


@pytest.mark.parametrize(
    ("condition", "said", "marked"),
    [
        ("stars=4", "I found Kilnside, a 4 star cheap hotel in the north.", True),
        ("stars=4", "I found Kilnside, a 3 star cheap hotel in the north.", False),
        ("type=guesthouse", "How about Kilnside? It is a 4 star guesthouse.", True),
        ("type=guesthouse", "Should it be a guesthouse?", False),
        ("internet=yes", "Sure, it has internet.", True),
        ("internet=yes", "It has no internet.", False),
        ("area=north", "It is in the north.", True),  # Which the goal wants of something else.
    ],
)
def test_newer_models_have_marked_what_a_detail_hangs_on(condition: str, said: str, marked: bool) -> None:
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    newer, plain = Codec(tokenizer, conditions=True), Codec(tokenizer)
    day = Want("day", "monday", "saturday", condition)
    goal = UserGoal((Objective("hotel", "book", (day,)), Objective("restaurant", "find", (Want("area", "north"),))))
    handles = newer.handles(goal)
    heard, usual = newer.agent(said, handles, "hotel"), plain.agent(said, handles, "hotel")
    mark = [newer.ids["<if>"], newer.ids["<hotel.day>"]]
    assert [token for token in heard if token not in mark] == usual
    assert [token for token in heard if token in mark] == mark * marked
    # Who asks for it themselves has not found out yet.
    assert newer.reply(said, handles, "hotel", end=False) == plain.reply(said, handles, "hotel", end=False)


@pytest.mark.parametrize(
    ("said", "topic", "marks"),
    [
        ("For Kilnside, the postcode is cb21ab.", "hotel", ["<ask.hotel.postcode>"]),
        ("For Dragon Staithe, the postcode is cb21ab.", "restaurant", ["<ask.restaurant.postcode>"]),
        ("The phone number is 0123.", "hotel", []),  # Which only the restaurant is asked for.
        ("The phone is 0123.", "restaurant", ["<ask.restaurant.phone>"]),
        ("Do you need the postcode?", "hotel", []),
        ("The postcode is cb21ab.", None, []),
    ],
)
def test_newer_models_have_marked_whose_postcode_it_is(said: str, topic: str | None, marks: list[str]) -> None:
    codec = Codec(Tokenizer.from_file(str(SHIPPED / "tokenizer.json")), conditions=True)
    goal = UserGoal(
        (
            Objective("restaurant", "find", (Ask("phone"), Ask("postcode"))),
            Objective("hotel", "find", (Ask("postcode"),)),
        )
    )
    handles = codec.handles(goal)
    heard = codec.agent(said, handles, topic)
    assert [name for name, number in codec.ids.items() if number in heard and name.startswith("<ask.")] == marks
    assert heard.count(codec.ids["<served>"]) == len(marks)
    assert codec.ids["<served>"] not in codec.reply(said, handles, topic, end=False)


def test_an_agents_nouns_and_other_numbers_are_no_values_of_the_goal(codec: Codec) -> None:
    wants = (Want("type", "hotel"), Want("stay", "4"), Want("people", "2"))
    goal = UserGoal((Objective("hotel", "book", wants),))
    handles = codec.handles(goal)
    heard = codec.agent("The Gilded Heron Hotel is a 4 star hotel for 2 people. For 4 nights?", handles, "hotel")
    assert [token for token in map(codec._names.get, heard) if token] == ["<agent>", "<=hotel.people>", "<=hotel.stay>"]
    said = codec.reply("It must be a hotel for 4 nights.", handles, end=False)
    assert [token for token in map(codec._names.get, said) if token] == ["<=hotel.type>", "<=hotel.stay>", "<end>"]


def test_same_replies_alone_and_in_a_batch(tiny: TinyUser, world: World) -> None:
    vocabulary, tracker = Vocabulary.from_world(world), VerifiableTracker(world)
    goals = challenge("val", world)[:12]
    alone = converse(tiny, goals, tracker, vocabulary, batch=1, seed=5)
    together = converse(tiny, goals, tracker, vocabulary, batch=12, seed=5)
    assert [e.conversation for e in alone] == [e.conversation for e in together]


def test_without_steering_it_writes_down_where_it_stands(tiny: TinyUser, world: World) -> None:
    """The trace has the form of the goal states that steering shows, and is in the next prompt."""
    vocabulary, tracker = Vocabulary.from_world(world), VerifiableTracker(world)
    right = turns = 0
    for k, goal in enumerate(challenge("val", world)[:20]):
        episode = Episode(goal, tracker, vocabulary, seed=k, steering=False)
        over, before = False, None
        while not over:
            request = episode.request()
            reply = tiny.reply([request])[0]
            shown = tiny.codec.state(episode.state, before=before)
            before = episode.state
            right += reply.trace == tiny.codec.tokenizer.decode(shown, skip_special_tokens=False).replace("><", "> <")
            turns += 1
            over = episode.hear(reply).over
            if not over:
                act = clerk_act(
                    {"competent": 1.0}, episode.belief, world, random.Random(k), turn=episode.turn, max_turns=10
                )
                over = episode.act(act).over
                if not over:
                    written = tiny.codec.tokenizer.encode(reply.trace.replace("> <", "><")).ids
                    prompt = tiny.codec.prompt(episode.request(), trace=True)
                    assert any(prompt[at : at + len(written)] == written for at in range(len(prompt)))
    assert right / turns > 0.8
    assert tiny.reply([Episode(goal, tracker, vocabulary, seed=0).request()])[0].trace == ""


def test_the_rules_in_a_state_are_the_goals_whatever_the_model_wrote(codec: Codec, world: World) -> None:
    vocabulary, tracker = Vocabulary.from_world(world), VerifiableTracker(world)
    user = ScriptedUser(world, vocabulary)
    spoilt = [codec.ids[name] for name in ("<secret>", "<restaurant.day>", "<policy.greet_with>", "<policy.max_words>")]
    kinds = set()
    for k, goal in enumerate(challenge("val", world)[:60]):
        episode, before, over = Episode(goal, tracker, vocabulary, seed=k), None, False
        while not over:
            request, shown = episode.request(), codec.state(episode.state, before=before)
            statuses = codec.reminded(shown, replace(request, goal=replace(goal, policy=())))
            assert len(statuses) <= len(shown)
            assert codec.reminded([*statuses, *spoilt], request) == shown
            kinds |= {codec.tokenizer.id_to_token(token) for token in shown[len(statuses) :]}
            before = episode.state
            over = episode.hear(user.reply([request])[0]).over
            if not over:
                act = clerk_act(
                    {"competent": 1.0}, episode.belief, world, random.Random(k), turn=episode.turn, max_turns=10
                )
                over = episode.act(act).over
    assert {"<secret>", "<later>", "<policy.max_words>", "<one>"} <= kinds


def test_same_conversations_in_one_environment_and_in_many() -> None:
    """Slot k of a vector env with seed s lives through what a single env with seed s + k does."""
    count, steps, seed = 6, 8, 40
    envs = gym.make_vec("UGST-v0", num_envs=count, goals="challenge:val")
    _, infos = envs.reset(seed=seed)
    said: list[list[str]] = [[text] for text in infos["user_text"]]
    masks = infos["action_mask"]
    ended = [False] * count
    for _ in range(steps):
        _, _, terminated, truncated, infos = envs.step(masks.argmax(axis=1))
        masks = infos["action_mask"]
        for k in range(count):
            if not ended[k]:
                said[k].append(infos["user_text"][k])
            ended[k] = ended[k] or bool(terminated[k] or truncated[k])
    envs.close()
    for k in range(count):
        env = gym.make("UGST-v0", goals="challenge:val")
        _, info = env.reset(seed=seed + k)
        alone = [info["user_text"]]
        over = False
        for _ in range(steps):
            if not over:
                _, _, terminated, truncated, info = env.step(int(info["action_mask"].argmax()))
                alone.append(info["user_text"])
                over = terminated or truncated
        env.close()
        assert alone == said[k]


def test_the_default_environment_passes_both_checkers() -> None:
    """`gym.make` without an argument, with the shipped model in the loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("UGST-v0")
        check_gymnasium(env.unwrapped, skip_render_check=False)
        check_sb3(env.unwrapped)
        env.close()


def test_aligned_with_steering(tiny: TinyUser, world: World) -> None:
    """A guard against a broken model or prompt; benchmarks/tiny_user.py measures it properly."""
    vocabulary = Vocabulary.from_world(world)
    goals = challenge("val", world)[:40]
    found = alignment(converse(tiny, goals, VerifiableTracker(world), vocabulary, seed=1))
    assert found.mean > 0.8
    assert found.outcomes.get("model_error", 0) <= 2


def test_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        TinyUser(tmp_path / "nowhere")
