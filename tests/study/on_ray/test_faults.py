"""Trials that fail in every way, under a real Ray, with a few lines in place of the real training."""

import json
from pathlib import Path

import pytest

from segstrat.config import TrialConfig
from segstrat.scores import Metric
from segstrat.store import Store
from study.driver.loop import Loop
from study.driver.session import CommonFailureError
from study.on_ray.trainable import SegmentationTrial
from study.on_ray.tune_executor import TuneExecutor
from study.planning.trials import PlannedTrial
from study.search.base import FixedPlan
from study.state.halving import HalvingRule
from study.state.trial_states import TrialStates

pytestmark = pytest.mark.cluster

EPOCHS = 4
METRIC = Metric("semseg")


def scripted_trial() -> type[SegmentationTrial]:
    """A trial class whose training does what the file `script` of its trial says, and counts its starts.

    Made in a function, so that Ray sends the class itself and not its name to the workers.
    """

    class ScriptedTrial(SegmentationTrial):
        def epoch_reports(self):
            import os
            import signal
            import time

            from segstrat.errors import UserError
            from segstrat.records import EpochReport, SplitScore, TrialFacts, read_records, write_records

            script = json.loads(self.store.read("script.json"))
            starts = len([name for name in self.store.names() if name.startswith("start")]) + 1
            self.store.write(f"start{starts}", json.dumps(script_facts(self)).encode())
            facts = TrialFacts(
                num_parameters=1, realised_weight_decay=0.0, dropout_modules=0, init_digest="",
                weights_digest="", data_digest="", train_images=1, val_images=1, device="cpu",
                precision="float32",
            )  # fmt: skip
            _, reports = read_records(self.store)
            for epoch in range(len(reports) + 1, self.trial.config.epochs + 1):
                event = script.get(f"{epoch}/{starts}", script.get(f"{epoch}/*"))
                if event == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if event == "fix":
                    raise UserError("labels of image 7 are missing; add them")
                if event == "disk":
                    raise OSError(28, "No space left on device")
                value = 0.1 * epoch
                scores = tuple(
                    SplitScore(
                        split=split, task="semseg", loss=1.0, miou=value, miou_thesis=value,
                        pixel_accuracy=value, class_accuracy=value, iou=(value,),
                    )
                    for split in ("train", "val")
                )  # fmt: skip
                status = "completed" if epoch == self.trial.config.epochs else "running"
                status = "diverged" if event == "nan" else status
                report = EpochReport(
                    epoch=epoch, epochs=self.trial.config.epochs, status=status,
                    scores=() if event == "nan" else scores, learning_rate=0.1, seconds=0.1,
                    images_per_second=1.0, data_wait=0.0, message="not finite" if event == "nan" else "",
                )  # fmt: skip
                reports.append(report)
                write_records(self.store, facts, reports)
                if event == "kill after writing":
                    os.kill(os.getpid(), signal.SIGKILL)
                while event == "wait" and not (self.study / "trials").exists("go"):
                    time.sleep(0.05)
                yield report

    def script_facts(trial):
        import os

        import ray

        return {
            "gpus": ray.get_gpu_ids(),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "pid": os.getpid(),
        }

    return ScriptedTrial


class Scripted:
    """A study of scripted trials."""

    def __init__(self, folder: Path, scripts: dict[str, dict[str, str]]) -> None:
        self.store = Store(folder)
        self.states = TrialStates(self.store, HalvingRule(fractions=()), METRIC)
        self.trials = []
        for order, (name, script) in enumerate(scripts.items()):
            config = TrialConfig(epochs=EPOCHS, weight_decay=order / 1000)
            trial = PlannedTrial(trial_id=name, order=order, arm="raw", axes={}, config=config)
            self.trials.append(trial)
            self.states.add(trial)
            (self.store / "trials" / name).write("script.json", json.dumps(script).encode())

    def run(self, *, gpus: float = 0, concurrent: int = 4, on_tick=lambda: None, **more) -> None:
        settings = {"store": self.store.uri, "study": "scripted", "cpus": 1, "gpus": gpus}
        executor = TuneExecutor(
            settings,
            expected_concurrent=concurrent,
            max_concurrent=concurrent,
            trial_class=scripted_trial(),
            **more,
        )
        with executor:
            Loop(self.states, FixedPlan(), executor).run(on_tick)

    def starts(self, name: str) -> list[dict]:
        folder = self.store / "trials" / name
        return [json.loads(folder.read(file)) for file in folder.names() if file.startswith("start")]

    def outcome(self, name: str) -> tuple[str, str, int]:
        outcome = json.loads((self.store / "trials" / name).read("outcome.json"))
        return outcome["status"], outcome["error"], outcome["attempts"]


def test_every_fault_ends_in_a_retry_or_a_row_with_its_message(cluster, tmp_path):
    study = Scripted(
        tmp_path,
        {
            "fine": {},
            "killed late": {"4/1": "kill after writing"},
            "hopeless": {"2/*": "kill"},
            "often": {"1/1": "kill", "2/2": "disk"},
            "full": {"2/*": "disk"},
            "fix": {"2/*": "fix"},
            "nan": {"3/*": "nan"},
        },
    )
    study.run(max_retries=1)
    assert study.outcome("fine") == ("completed", "", 1)
    assert study.outcome("killed late") == ("completed", "", 2)
    status, error, attempts = study.outcome("hopeless")
    assert (status, attempts) == ("failed", 2)
    assert error == "its process died (killed, out of memory, or its node was lost)"
    assert study.outcome("often") == ("completed", "", 3), "an epoch was gained between its failures"
    assert study.outcome("full") == ("failed", "OSError: [Errno 28] No space left on device", 2)
    assert study.outcome("fix") == ("failed", "labels of image 7 are missing; add them", 1)
    assert study.outcome("nan") == ("diverged", "not finite", 1)
    for name in ("fine", "killed late", "often"):
        epochs = [report.epoch for report in study.states.by_id[name].record.reports]
        assert epochs == [1, 2, 3, 4], f"{name}: every epoch once, those of a dead worker included"
    starts = [start["pid"] for name in study.states.by_id for start in study.starts(name)]
    assert len(set(starts)) < len(starts), "processes that did not fail took up another trial"


def test_trials_that_fail_alike_at_the_start_end_the_study(cluster, tmp_path):
    study = Scripted(tmp_path, {f"t{i}": {"1/*": "fix"} for i in range(12)})

    def stop() -> None:
        if study.states.common_failure():
            raise CommonFailureError(study.states.common_failure())

    with pytest.raises(CommonFailureError, match="labels of image 7"):
        study.run(concurrent=2, on_tick=stop)
    assert sum(bool(study.starts(f"t{i}")) for i in range(12)) < 7


@pytest.mark.parametrize(("gpus", "trials_per_gpu"), [(1, 1), (0.5, 2)])
def test_trials_at_once_get_their_own_gpus(cluster, tmp_path, gpus, trials_per_gpu):
    study = Scripted(tmp_path, {f"t{i}": {"1/*": "wait"} for i in range(4)})

    def go_when_all_wait() -> None:
        if all(study.starts(f"t{i}") for i in range(4)):
            (study.store / "trials").write("go", b"")

    study.run(gpus=gpus, on_tick=go_when_all_wait)
    starts = [study.starts(f"t{i}")[0] for i in range(4)]
    devices = [start["visible"] for start in starts]
    assert sorted(set(devices)) == sorted(devices) if gpus == 1 else True
    assert max(devices.count(device) for device in devices) <= trials_per_gpu
    assert all(start["visible"] == str(start["gpus"][0]) for start in starts)
    assert set(devices) <= {"0", "1", "2", "3"}
