"""TensorBoard files of a running study."""

import dataclasses
import math

from segstrat.store import Store
from study.console.tensorboard import EventFiles
from study.state.trial_states import TrialState
from tests.study.fakes import planned, report


def test_a_diverged_epoch_is_written_without_a_warning(tmp_path, caplog):
    files = EventFiles(Store(tmp_path), tmp_path / "scratch")
    state = TrialState(trial=planned(0))
    files.add(state, report(1, 0.2))
    diverged = report(2, 0.0, status="diverged")
    files.add(state, dataclasses.replace(diverged, images_per_second=math.nan, data_wait=math.inf))
    files.close()
    assert caplog.messages == []
    (file,) = (tmp_path / "tensorboard").rglob("events*")
    assert file.stat().st_size > 0
