"""What a cluster that cannot be joined is told as."""

import os
import subprocess
import sys

import pytest
import ray

from segstrat.errors import UserError
from study.on_ray import runtime


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
