"""A trial in two processes under Ray Train, on CPUs: the training of one process, and its resume."""

import pytest

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.store import Store
from segstrat.train import train
from study.driver.placement import refuse_uneven
from study.on_ray import multi_gpu
from study.on_ray.trainable import SegmentationTrial
from study.planning.trials import PlannedTrial

pytestmark = pytest.mark.cluster


@pytest.mark.timeout(600)
def test_two_processes_give_the_reports_of_one(cluster, tiny_data, tmp_path):
    # Without batch norm, which torch synchronizes between processes on GPUs only.
    config = TrialConfig(
        data="folder", model="fcn32s", backbone="squeezenet1_1", width=0.25, crop_size=32, batch_size=4,
        epochs=3, learning_rate=0.02,
    )  # fmt: skip
    study = Store(tmp_path)
    store = study / "trials" / "t"
    together = list(
        multi_gpu.epoch_reports(
            config,
            study,
            "t",
            {"precision": "float32"},
            data=str(tiny_data),
            cache=False,
            workers=2,
            cpus=2,
            use_gpu=False,
        )
    )
    alone = list(train(config, machine=Machine(data_root=tiny_data, precision="float32")))
    assert [report.epoch for report in together] == [1, 2, 3]
    assert together[-1].status == "completed"
    for report, expected in zip(together, alone, strict=True):
        for name, value in expected.metrics().items():
            assert report.metrics()[name] == pytest.approx(value, rel=1e-2, abs=1e-3), name
    assert len([name for name in store.names() if name.endswith(".pt")]) >= 2, "one process wrote checkpoints"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_cannot_start_ends_the_trial_with_its_reason(cluster, tmp_path):
    config = TrialConfig(data="folder", model="fcn32s", width=0.25, epochs=1)
    missing = str(tmp_path / "missing")
    reports = multi_gpu.epoch_reports(
        config, Store(tmp_path), "t", {}, data=missing, cache=False, workers=1, cpus=1, use_gpu=False
    )
    with pytest.raises(UserError, match="missing"):
        next(reports)


def test_the_trial_itself_leaves_the_gpus_to_its_processes():
    request = SegmentationTrial.default_resource_request({"cpus": 8, "gpus": 2, "store": "study"})
    assert request.bundles == [{"CPU": multi_gpu.SUPERVISOR_CPUS}]
    request = SegmentationTrial.default_resource_request({"cpus": 8, "gpus": 0.5})
    assert request.bundles == [{"CPU": 8.0, "GPU": 0.5}]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batch_size": 5}, "is not divisible by it"),
        ({"batch_size": 4, "accumulation_steps": 2}, "set batch_size to the whole batch"),
        ({"batch_size": 4, "asynchronous": True}, "in one process"),
    ],
)
def test_what_several_gpus_cannot_share_is_refused_before_anything_starts(fields, words):
    config = TrialConfig(**fields)
    trial = PlannedTrial(trial_id="t", order=0, arm="raw", axes={"seed": 0}, config=config)
    with pytest.raises(UserError, match=words):
        refuse_uneven([trial], 2)
