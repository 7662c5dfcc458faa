"""How Ray's environment is set before Ray is imported."""

import os
import sys

import pytest

from segstrat.errors import UserError
from study.on_ray import runtime
from study.on_ray.runtime import has_token, prepare_environment


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user's home folder without a token, and an environment that says nothing of tokens."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        # Set first, so that what the test sets is taken back too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def before_ray(monkeypatch):
    """As in a process that has not imported Ray yet."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)


@pytest.fixture
def token(home):
    folder = home / ".ray"
    folder.mkdir()
    (folder / "auth_token").write_text("secret")


def auth_mode(*, joining: bool) -> str | None:
    prepare_environment(joining=joining)
    return os.environ.get("RAY_AUTH_MODE")


def test_a_token_is_sent_to_a_cluster_that_is_joined(token, before_ray):
    """Else a cluster that was started with the documented commands refuses the study."""
    assert auth_mode(joining=True) == "token"


def test_without_a_token_none_is_asked_for(before_ray):
    assert not has_token()
    assert auth_mode(joining=True) is None


def test_ray_on_this_machine_alone_decides_itself(token, before_ray):
    assert auth_mode(joining=False) is None


def test_the_users_choice_stands(token, before_ray, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert auth_mode(joining=True) == "disabled"


def test_a_process_that_has_read_the_mode_keeps_it(token):
    """Only its children would be in another mode."""
    import ray  # noqa: F401

    assert auth_mode(joining=True) is None


def test_tokens_are_found_where_ray_reads_them(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert has_token()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "elsewhere"))
    assert not has_token()
    (home / "elsewhere").write_text("secret")
    assert has_token()


def test_a_refused_token_is_named(monkeypatch):
    import ray

    def refuse(**_):
        try:
            raise RuntimeError("RPC error: InvalidAuthToken: Authentication token is missing or incorrect")
        except RuntimeError as error:
            raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from error

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UserError, match="asks for a token that this machine does not have; copy"):
        runtime._init({"address": "10.0.0.1:6379"}, attempts=1)
