"""RLlib on one node and on two, one of which is killed. Needs the extra ``rllib``: run by ``make rllib``."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="RLlib is not installed here: `make rllib` tests it in an environment of its own")

import ray
from ray.cluster_utils import Cluster

from agents.evaluate import evaluate, find_policy
from ugst_env.envs.rllib import MaskedVectorEnv

ROOT = Path(__file__).resolve().parents[1]


def example(path: str) -> Any:
    """A script of examples/ as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "examples" / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head and a second node, each a raylet with processes of its own."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_masks_stand_beside_observations() -> None:
    envs = MaskedVectorEnv(3, user="scripted")
    observations, infos = envs.reset(seed=0)
    for _ in range(30):
        assert envs.observation_space.contains(observations)
        assert np.array_equal(observations["action_mask"], np.stack(infos["action_mask"]))
        actions = observations["action_mask"].argmax(axis=1)
        observations, _, terminated, truncated, infos = envs.step(actions)
        if (terminated | truncated).any():
            break
    with pytest.raises(ValueError, match="needs autoreset_mode NEXT_STEP"):
        MaskedVectorEnv(3, user="scripted", autoreset_mode="SameStep")


def test_training_goes_on_when_a_node_dies(two_nodes: Cluster) -> None:
    second = two_nodes.add_node(num_cpus=2, resources={"second": 1})
    config = example("rllib_ppo.py").ppo(runners=3, envs=4, batch=96, seed=1, user="scripted")
    algorithm = config.build_algo()
    module = algorithm.get_module()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    algorithm.train()
    where = algorithm.env_runner_group.foreach_env_runner(
        lambda _: ray.get_runtime_context().get_node_id(), local_env_runner=False
    )
    assert len(set(where)) == 2, "all runners are on one node"
    two_nodes.remove_node(second, allow_graceful=False)
    steps = [algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"] for _ in range(3)]
    assert steps[-1] > steps[0] > 96
    after = algorithm.get_module().state_dict()
    assert any(not bool((after[name] == weight).all()) for name, weight in before.items())
    algorithm.stop()


def test_no_goal_is_lost_when_a_node_dies(two_nodes: Cluster, tmp_path: Path) -> None:
    second = two_nodes.add_node(num_cpus=2)
    cluster = example("cluster/evaluate.py")
    out, jobs = tmp_path / "records.jsonl", [(1, goal) for goal in range(48)]

    def kill() -> None:
        while len(cluster.read(out)) < 4 and not ended.is_set():
            time.sleep(0.1)
        two_nodes.remove_node(second, allow_graceful=False)

    ended = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    records = cluster.evaluate_on_cluster(
        "handcrafted", jobs, out, part=4, goals="challenge:val", user="scripted", max_turns=12
    )
    ended.set()
    killer.join()
    assert [(record.seed, record.goal) for record in records] == jobs
    _, policy = find_policy("handcrafted")
    alone = evaluate(policy, goals="challenge:val", user="scripted", max_turns=12, jobs=jobs)
    assert sorted(map(repr, records)) == sorted(map(repr, alone.records))
    # What is there is not played again, and a line that was cut off is.
    text = out.read_text()
    out.write_text(text[:-20])
    again = cluster.evaluate_on_cluster("handcrafted", jobs, out, goals="challenge:val", user="scripted", max_turns=12)
    assert sorted(map(repr, again)) == sorted(map(repr, alone.records))
    assert len(out.read_text().splitlines()) == len(jobs)


def test_what_always_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = example("cluster/evaluate.py")
    out = tmp_path / "records.jsonl"
    command = "evaluate.py --agent ppo:nowhere.zip --goals challenge:val --part 100 --user scripted --out"
    monkeypatch.setattr(sys, "argv", [*command.split(), str(out)])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(SystemExit, match=r"100 of 100 conversations are missing"):
        cluster.main()
    ray.shutdown()
    assert "given up after 3 tries" in "".join(capfd.readouterr())
