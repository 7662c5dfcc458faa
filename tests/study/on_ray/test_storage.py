"""A study in S3-compatible storage, from its first file to a resume after losing records."""

import pytest

from segstrat.store import Store
from study.run import main

pytestmark = pytest.mark.cluster

BUCKET = "segstrat"


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
