"""A study in S3-compatible storage, from its first file to a resume after losing records."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segstrat.store import Store
from study.run import main

pytestmark = pytest.mark.cluster

BUCKET = "segstrat"
EXPIRING_BUCKET = "expiring"


@pytest.fixture(scope="module")
def bucket(cluster) -> str:
    """URI of a folder in a bucket on a server of this machine."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
        Bucket=BUCKET
    )
    yield f"s3://{BUCKET}/results?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


@pytest.mark.timeout(600)
def test_a_study_in_a_bucket_and_its_resume(bucket, undisturbed, tiny_flags, same_frames, capsys):
    flags = [*tiny_flags, "--storage", bucket, "--name", "study", "--max-concurrent", "2"]
    assert main(flags) == 0
    study = Store(bucket) / "study"
    same_frames(undisturbed[2], study)
    names = study.names()
    assert {"manifest.json", "trials.parquet", "report.html", "tensorboard", "trials"} <= set(names)
    assert "lock.json" not in names, "the lease was given back"
    capsys.readouterr()
    assert main(flags) == 2
    assert "exists already" in capsys.readouterr().err

    completed = next(
        study / "trials" / name
        for name in (study / "trials").names()
        if (study / "trials" / name).exists("checkpoint-000008.pt")
    )
    for name in ("outcome.json", "records.json", "checkpoint-000008.pt.sha256"):
        completed.delete(name)
    assert main(["--resume", "--storage", bucket, "--name", "study", "--gpus-per-trial", "0"]) == 0
    same_frames(undisturbed[2], study)


def test_a_bucket_that_is_not_there_and_keys_in_the_address(bucket, tiny_flags, capsys, undisturbed):
    missing = bucket.replace(BUCKET, "elsewhere")
    assert main([*tiny_flags, "--storage", missing, "--name", "study"]) == 2
    assert "--storage" in capsys.readouterr().err
    with_keys = bucket.replace("s3://", "s3://key:secret@")
    assert main([*tiny_flags, "--storage", with_keys, "--name", "study"]) == 2
    error = capsys.readouterr().err
    assert "AWS_ACCESS_KEY_ID" in error
    assert "secret@" not in error


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen, str]]:
    """A server in a process of its own, which can be stopped, and the URI of a folder in its bucket."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")

    def created() -> bool:
        try:
            client.create_bucket(Bucket=BUCKET)
        except Exception:
            return False
        return True

    wait_until(created, "a bucket")
    yield process, f"s3://{BUCKET}/results?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    os.kill(process.pid, signal.SIGCONT)
    process.kill()
    process.wait()


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.2)


def outcomes(study: Store) -> int:
    """How many trials have ended."""
    return sum((study / "trials" / name).exists("outcome.json") for name in (study / "trials").names())


EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


class ExpiringServer:
    """S3 on this machine, which calls the credentials expired from when it is told to."""

    def __init__(self, application: Callable) -> None:
        self._application = application
        self.expired = False

    def __call__(self, environ: dict, start_response: Callable) -> list[bytes]:
        if not self.expired:
            return self._application(environ, start_response)
        # A body that nobody reads would look like a lost connection.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        length = str(len(EXPIRED))
        start_response("400 Bad Request", [("Content-Type", "application/xml"), ("Content-Length", length)])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [EXPIRED]


@pytest.fixture
def expiring() -> Iterator[tuple[ExpiringServer, str]]:
    """Such a server, and the URI of a folder in its bucket."""
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    server = ExpiringServer(moto.DomainDispatcherApplication(moto.create_backend_app))
    serving = pytest.importorskip("werkzeug.serving")
    http = serving.make_server("127.0.0.1", 0, server, threaded=True)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    address = f"127.0.0.1:{http.server_address[1]}"
    client = boto3.client("s3", endpoint_url=f"http://{address}", region_name="us-east-1")
    # All servers of one process share their buckets.
    client.create_bucket(Bucket=EXPIRING_BUCKET)
    yield server, f"s3://{EXPIRING_BUCKET}/results?endpoint_override={address}&scheme=http&region=us-east-1"
    http.shutdown()
    thread.join()


@pytest.mark.timeout(600)
def test_credentials_that_expire_in_the_middle_of_a_study(
    expiring, undisturbed, start_driver, tiny_flags, same_frames, capsys
):
    server, uri = expiring
    study = Store(uri) / "study"
    storage = ["--storage", uri, "--name", "study"]
    driver = start_driver([*tiny_flags, *storage, "--max-concurrent", "2"])
    wait_until(lambda: outcomes(study) >= 1 or driver.poll() is not None, "an outcome")
    server.expired = True
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 2, output
    assert "Traceback" not in output
    words = " ".join(output.split())
    command = f"uv run python study/run.py --resume --name study --storage '{uri}'"
    bucket = f"s3://{EXPIRING_BUCKET}/results"
    sentence = f"the credentials for storage {bucket} have expired; renew them; then continue with:"
    assert words.endswith(f"error: {sentence} {command}"), output

    server.expired = False
    ended = {
        name: (study / "trials" / name).read("outcome.json")
        for name in (study / "trials").names()
        if (study / "trials" / name).exists("outcome.json")
    }
    assert 1 <= len(ended) < 9
    # The lease that could not be given back, as if it had been renewed just before.
    lease = json.loads(study.read("lock.json"))
    study.write("lock.json", json.dumps(lease | {"renewed": time.time()}).encode())
    assert main(["--resume", *storage]) == 2
    assert re.search(
        r"process \d+ on .* \(if it has ended already, the study is free in \d+ s\)", capsys.readouterr().err
    )
    study.delete("lock.json")
    assert main(["--resume", *storage, "--gpus-per-trial", "0"]) == 0, capsys.readouterr().err
    for name, outcome in ended.items():
        assert (study / "trials" / name).read("outcome.json") == outcome
    same_frames(undisturbed[2], study)


def end_resumed(study: Store, start_driver, storage: list[str]) -> None:
    """Continues a study whose driver was killed to its end."""
    # The lease of a killed driver expires by itself after a minute and a half.
    study.delete("lock.json")
    driver = start_driver(["--resume", *storage, "--gpus-per-trial", "0"])
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_stops_answering_and_a_driver_killed_meanwhile(
    server, undisturbed, start_driver, tiny_flags, same_frames
):
    process, uri = server
    study = Store(uri) / "study"
    storage = ["--storage", uri, "--name", "study"]
    driver = start_driver([*tiny_flags, *storage, "--max-concurrent", "2"])
    wait_until(lambda: (study / "trials").names() or driver.poll() is not None, "a trial")
    process.send_signal(signal.SIGSTOP)
    time.sleep(20)
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: outcomes(study) >= 2 or driver.poll() is not None, "two outcomes after the stall")
    assert driver.poll() is None, driver.communicate()[0]
    process.send_signal(signal.SIGSTOP)
    driver.kill()
    driver.communicate()
    process.send_signal(signal.SIGCONT)
    end_resumed(study, start_driver, storage)
    same_frames(undisturbed[2], study)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_operators_day_on_two_nodes(
    server, cluster, undisturbed, start_driver, tiny_flags, same_frames, a_worker, trial_workers
):
    """A worker stops for a minute, another one dies; storage fails, and meanwhile the driver and a node."""
    process, uri = server
    study, rng = Store(uri) / "study", random.Random(0)
    folders = {*Path(tempfile.gettempdir()).glob("segstrat-run-*")}
    node = cluster.add_node(num_cpus=2, object_store_memory=80 << 20)
    storage = ["--storage", uri, "--name", "study"]
    driver = start_driver([*tiny_flags, *storage, "--max-concurrent", "4"])
    stopped = a_worker(rng)
    stopped.suspend()
    time.sleep(60)
    stopped.resume()
    a_worker(rng).kill()
    wait_until(lambda: outcomes(study) >= 1 or driver.poll() is not None, "an outcome")
    assert driver.poll() is None, driver.communicate()[0]
    process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    driver.kill()
    driver.communicate()
    cluster.remove_node(node, allow_graceful=False)
    process.send_signal(signal.SIGCONT)
    end_resumed(study, start_driver, storage)
    same_frames(undisturbed[2], study)
    wait_until(lambda: not trial_workers(), "the end of all workers")
    assert not study.exists("lock.json")
    # What an undisturbed study leaves, and the weights that all nodes share.
    left = {name for name in Store(undisturbed[2]).names() if name != "lock.json"}
    assert set(study.names()) <= {*left, "weights"}
    assert all(name.endswith(".pth") for name in (study / "weights").names())
    assert {*Path(tempfile.gettempdir()).glob("segstrat-run-*")} <= folders
