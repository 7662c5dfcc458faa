"""A worker's steps of a pre-training: short, so that it can be ended at any time."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from segstrat.errors import UserError
from segstrat.pretraining.job import Pretraining, PretrainReport
from study.on_ray import jobs
from study.on_ray.jobs import StudyJob
from study.state.pretrainings import PlannedPretraining
from tests.study.fakes import planned

JOB = PlannedPretraining(pretraining=Pretraining(backbone="resnet18", seed=3), file="w3.pth", epochs=2)
EPOCH = PretrainReport(epoch=1, epochs=2, train_loss=1.0, top1=0.5, top5=0.6, seconds=3.0)
SETTINGS = {"job_id": "w3.pth", "store": "results/s", "study": "s", "cpus": 2, "gpus": 0}


def worker(steps: list, clock: Iterator[float] | None = None) -> StudyJob:
    """A worker without its actor, whose pre-training yields these steps, or raises them."""

    class Scripted(StudyJob):
        closed = False

        def pretrain_steps(self, planned: PlannedPretraining) -> Iterator[PretrainReport | None]:
            assert planned == JOB
            try:
                for step in steps:
                    if isinstance(step, Exception):
                        raise step
                    yield step
            finally:
                self.closed = True

    made = object.__new__(Scripted)
    made.setup({**SETTINGS, "pretraining": JOB.to_dict()})
    return made


def result(*reports: PretrainReport, error: str = "", done: bool = False) -> dict:
    return {"reports": [asdict(each) for each in reports], "error": error, "done": done}


def test_it_reports_each_epoch_and_that_its_weights_exist() -> None:
    job = worker([None, None, EPOCH, None])
    assert job.step() == result(), "nothing is loaded yet"
    assert job.step() == result(EPOCH)
    assert job.step() == result(done=True)
    assert job.closed
    assert repr(job) == "pre-train resnet18, seed 3 on figures"


def test_a_step_ends_after_a_second_within_a_long_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.4, 0.8, 1.2, 1.2, 1.3])
    monkeypatch.setattr(jobs.time, "monotonic", lambda: next(now))
    job = worker([None] * 4 + [EPOCH])
    assert job.step() == result()
    assert job.step() == result(), "three steps of the epoch"
    assert job.step() == result(EPOCH)


def test_what_the_user_has_to_fix_is_a_result_and_other_errors_are_retried() -> None:
    job = worker([UserError("resnet18 diverged")])
    job.step()
    assert job.step() == result(error="resnet18 diverged", done=True)
    broken = worker([OSError("no space left")])
    broken.step()
    with pytest.raises(OSError, match="no space left"):
        broken.step()


def test_a_process_takes_a_trial_after_a_pre_training(tmp_path: Path) -> None:
    job = worker([None, EPOCH])
    # What an actor of Tune has besides.
    job._trial_info, job._logdir = None, str(tmp_path)
    job.step()
    job.step()
    trial = planned(0).to_dict()
    job.reset_config({**trial.pop("config"), **SETTINGS, "trial": trial})
    assert job.closed
    assert repr(job) == planned(0).label
    job.reset_config({**SETTINGS, "pretraining": JOB.to_dict()})
    assert repr(job) == "pre-train resnet18, seed 3 on figures"


def test_it_gets_the_share_of_a_trial_and_one_gpu_at_most() -> None:
    config = {**SETTINGS, "pretraining": JOB.to_dict()}
    shares = [
        (0, {"CPU": 2}),
        (0.5, {"CPU": 2, "GPU": 0.5}),
        (1, {"CPU": 2, "GPU": 1}),
        (4, {"CPU": 2, "GPU": 1}),
    ]
    for gpus, bundle in shares:
        assert StudyJob.default_resource_request({**config, "gpus": gpus}).bundles == [bundle]
