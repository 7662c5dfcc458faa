"""What a cluster that cannot be joined is told as."""

import os
import subprocess
import sys

import pytest
import ray

from segstrat.errors import UserError
from study.on_ray import runtime
from study.on_ray.runtime import LOST_SECONDS, ClusterLostError, ClusterWatch
from study.planning.resources import Node


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            "RPC error: InvalidAuthToken: Authentication token is missing or incorrect",
            "10.0.0.1:6379: the cluster asks for a token; set RAY_AUTH_MODE=token, and copy",
        ),
        ("connection refused", "Ray at 10.0.0.1:6379 cannot be used: Failed to connect"),
    ],
)
def test_a_cluster_that_asks_for_a_token_is_named_as_one(monkeypatch, cause, words):
    def refuse(**_):
        try:
            raise RuntimeError(cause)
        except RuntimeError as error:
            raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from error

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UserError, match=words):
        runtime._init({"address": "10.0.0.1:6379"}, attempts=1)


def test_no_late_call_joins_another_cluster_of_this_machine():
    """Ray reads this when it is imported; by default `ray.get` after a shutdown starts or joins a cluster."""
    code = """
from study.on_ray.runtime import prepare_environment
prepare_environment(joining=False)
from ray._private import auto_init_hook
print(auto_init_hook.enable_auto_connect)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


class FakeRay:
    """Two services and some nodes, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.nodes = [Node(address="10.0.0.1", cpus=2, gpus=0, node_id="a")]
        self.silent: set[int] = set()
        self.asked = 0
        self.watch = ClusterWatch(
            {"the raylet": ("h", 1), "the GCS": ("h", 2)},
            nodes=lambda: self.nodes,
            answers=self.answers,
            clock=lambda: self.now,
        )

    def answers(self, address: tuple[str, int]) -> bool:
        self.asked += 1
        return address[1] not in self.silent

    def until(self, second: float) -> None:
        """Asks for news as often as a driver does."""
        while self.now < second:
            assert self.watch.news() == []
            self.now += 0.25


def test_ray_is_given_up_when_a_part_of_it_stays_silent():
    cluster = FakeRay()
    cluster.until(60)
    assert cluster.asked < 2 * 62, "once a second"
    cluster.silent = {2}
    cluster.until(60 + LOST_SECONDS - 1)
    cluster.silent = set()
    cluster.until(70)
    cluster.silent = {2}
    with pytest.raises(ClusterLostError, match=r"the GCS has ended \(nothing answers at h:2\)"):
        cluster.until(80)
    assert LOST_SECONDS - 1.5 < cluster.now - 70 < LOST_SECONDS + 1.5


def test_an_error_of_ray_is_explained_where_ray_has_ended():
    cluster = FakeRay()
    with pytest.raises(ValueError, match="broken"), cluster.watch.explaining():
        raise ValueError("broken")
    cluster.silent = {1}
    with pytest.raises(ClusterLostError, match="the raylet has ended"), cluster.watch.explaining():
        raise ValueError("broken")


def test_nodes_that_come_and_go_are_told_once():
    cluster = FakeRay()
    cluster.watch.look_at_nodes()
    cluster.nodes = [*cluster.nodes, Node(address="10.0.0.2", cpus=1, gpus=0, node_id="b")]
    cluster.watch.look_at_nodes()
    cluster.watch.look_at_nodes()
    assert cluster.watch.news() == ["node 10.0.0.2 with 1 core has joined; nodes now: 2"]
    cluster.nodes = cluster.nodes[1:]
    cluster.watch.look_at_nodes()
    assert cluster.watch.news() == ["node 10.0.0.1 with 2 cores was lost; nodes now: 1"]
    assert cluster.watch.news() == []


def test_an_error_that_announces_its_reason_is_told_with_it(monkeypatch):
    def init(**_):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 1.2.3\n    Python: 3.9")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"started with: Ray: 1\.2\.3 Python: 3\.9; --verbose"):
        runtime._init({"address": "somewhere:1"}, attempts=1)


def test_a_process_that_leaves_quickly_loses_nothing(tmp_path):
    """Its other threads end, what was registered for the end runs, and what was printed arrives."""
    code = """
import atexit, pathlib, sys, threading
from study.on_ray.runtime import end_process
folder, opened = pathlib.Path(sys.argv[1]), threading.Event()
threading.Thread(target=lambda: (opened.wait(), (folder / "thread").touch())).start()
atexit.register((folder / "registered").touch)
class Held:
    def __del__(self):
        print("taken apart")
held = Held()
print("printed")
opened.set()
end_process(3)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "printed\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"thread", "registered"}
