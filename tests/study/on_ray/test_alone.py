"""A study that starts its own Ray: what it listens on, and how it can be watched.

Named so that it runs before the tests that share a cluster: two of them on one machine compete for ports.
"""

import contextlib
import ipaddress
import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.cluster

LAUNCH = Path(__file__).parent / "launch.py"
TIMEOUT = 240.0


class Driver:
    """A study in a separate process."""

    def __init__(self, flags: list[str], folder: Path) -> None:
        self.log = folder / "output.txt"
        # A token of this test's own, so that the user's is left alone.
        self.token = secrets.token_hex(32)
        environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(LAUNCH), *flags], stdout=log, stderr=log, env=environment
            )

    @property
    def output(self) -> str:
        # The console breaks long lines.
        return " ".join(self.log.read_text().split())

    def wait_for(self, condition: Callable, what: str):
        """The condition's first true value; fails if the driver ends before."""
        deadline = time.monotonic() + TIMEOUT
        while not (value := condition()):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, f"{what} did not happen: {self.output}"
            time.sleep(0.1)
        return value

    def url(self, name: str) -> str:
        """An address that the console names."""
        found = self.wait_for(lambda: re.search(rf"{name} (http://\S+?),? ", self.output + " "), name)
        return found[1]


@pytest.fixture(scope="module")
def driver(tiny_flags, tmp_path_factory) -> Iterator[Driver]:
    folder = tmp_path_factory.mktemp("alone")
    at = tiny_flags.index("--gpus-per-trial")
    flags = tiny_flags[:at] + tiny_flags[at + 2 :]
    flags += ["--storage", str(folder), "--name", "alone", "--dashboard", "--budget", "20"]
    driver = Driver(flags, folder)
    yield driver
    driver.process.terminate()
    driver.process.wait(60)


def get(url: str, token: str | None = None) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()


@pytest.mark.timeout(400)
def test_the_metrics_endpoint_shows_every_running_trial(driver):
    url = driver.url("Prometheus")

    def samples() -> list[str]:
        return re.findall(r"^ray_segstrat_val_miou\{(.*)\} ", get(url), flags=re.MULTILINE)

    first = driver.wait_for(samples, "a gauge")[0]
    labels = dict(re.findall(r'(\w+)="([^"]*)"', first))
    assert labels["study"] == "alone"
    assert labels["task"] == "semseg"
    assert labels["arm"] in ("raw", "pre-trained")
    assert re.fullmatch(r"[0-9a-f]{10}", labels["trial_id"])
    text = get(url)
    for name in ("epoch", "train_loss", "images_per_second", "data_wait"):
        assert f"ray_segstrat_{name}{{" in text


def test_the_dashboard_knows_the_trials_by_telling_names(driver):
    url = driver.url("dashboard") + "/api/v0/actors?detail=true"
    actors = driver.wait_for(
        lambda: json.loads(get(url, driver.token))["data"]["result"]["result"], "an actor"
    )
    assert "StudyJob" in {actor["class_name"] for actor in actors}
    labels = [actor["repr_name"] for actor in actors]
    assert any(re.fullmatch(r"(raw|pre-trained) weight_decay=\S+ seed=0", label or "") for label in labels), (
        labels
    )


@pytest.mark.timeout(300)
def test_a_browser_shows_the_trials_telling_names(driver, browser, tmp_path):
    picture = Path(os.environ.get("SEGSTRAT_SCREENSHOT", tmp_path / "dashboard.png"))
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    url = driver.url("dashboard")
    context.add_cookies([{"name": "ray-authentication-token", "value": driver.token, "url": url}])
    page = context.new_page()
    page.goto(f"{url}/#/actors")
    page.get_by_text(re.compile(r"(raw|pre-trained) weight_decay=\S+ seed=0")).first.wait_for(timeout=120_000)
    page.screenshot(path=picture)
    context.close()
    assert picture.stat().st_size > 10_000


def test_the_dashboard_asks_for_a_token(driver):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(driver.url("dashboard") + "/api/v0/actors")


def test_nothing_listens_beyond_the_loopback(driver):
    driver.wait_for(lambda: list(driver.log.parent.glob("alone/trials/*/records.json")), "an epoch")
    tree = [psutil.Process(driver.process.pid), *psutil.Process(driver.process.pid).children(recursive=True)]
    assert any("StudyJob" in " ".join(process.cmdline()) for process in tree), "workers are in the tree"
    listening = [
        (process.name(), connection.laddr.ip)
        for process in tree
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3
    beyond = [entry for entry in listening if not is_loopback(entry[1])]
    assert beyond == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("program", "words"), [("raylet", "raylet of this node"), ("gcs_server", "GCS")])
def test_a_study_whose_ray_dies_ends_with_its_report_and_the_command_to_continue(
    tiny_flags, tmp_path, program, words
):
    flags = [*tiny_flags, "--storage", str(tmp_path), "--name", "lost", "--budget", "20"]
    driver = Driver(flags, tmp_path)
    tree: list[psutil.Process] = []
    try:
        driver.wait_for(lambda: list(tmp_path.glob("lost/trials/*/records.json")), "an epoch")
        tree = psutil.Process(driver.process.pid).children(recursive=True)
        (part,) = [process for process in tree if process.name() == program]
        agents = [process for process in tree if process.name().endswith("Agent")]
        part.kill()
        start = time.monotonic()
        assert driver.process.wait(120) == 1
        assert time.monotonic() - start < 30
        assert f"because {'the ' * (program == 'raylet')}{words}" in driver.output.replace("Ray's ", "")
        assert "Continue with: uv run python study/run.py --resume --name lost" in driver.output
        assert (tmp_path / "lost" / "report.html").exists()
        # Ray's own two agents give up on its GCS after a minute; nothing else may stay.
        busy = [process for process in tree if process not in agents]
        _, alive = psutil.wait_procs(busy, timeout=20)
        assert alive == []
    finally:
        for process in [driver.process, *tree]:
            with contextlib.suppress(psutil.Error):
                process.kill()


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
