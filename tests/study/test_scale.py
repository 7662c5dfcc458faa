"""Work, bytes and lines that must not grow with the number of trials, or not faster than it."""

import json
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from segstrat.records import write_records
from segstrat.store import Store
from study.driver.loop import Loop, Observers
from study.frame import GrowingFrames, digests, load, read_manifest, write_frames
from study.reporting.figure_style import MOST_MARKERS
from study.reporting.render import write_report
from study.run import main
from study.search.base import FixedPlan
from study.state.halving import HalvingRule
from study.state.trial_states import TrialStates
from tests.study.fakes import FACTS, LocalExecutor
from tests.study.large_studies import (
    METRIC,
    end_trial,
    planned_trials,
    trial_reports,
    write_large_study,
)


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    """The files of thousands of trials need not survive a power failure."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def traffic(monkeypatch):
    """Counts the files that are read, and the bytes that are read and written, through `Store`."""
    count: Counter[str] = Counter()
    read, write = Store.read, Store.write

    def counted_read(self, name):
        data = read(self, name)
        count.update(files=1, read=len(data))
        return data

    def counted_write(self, name, data):
        count.update(written=len(data))
        write(self, name, data)

    monkeypatch.setattr(Store, "read", counted_read)
    monkeypatch.setattr(Store, "write", counted_write)
    return count


def grow(folder: Path, trials: int, more: int) -> tuple[GrowingFrames, Store, list[str]]:
    """A study of which `more` trials have ended since its frames were first written."""
    study = write_large_study(folder, trials, waiting=more)
    manifest = read_manifest(study)
    frames = GrowingFrames(study, lambda: manifest)
    frames.update([])
    ended = planned_trials(trials)[-more:]
    for trial in ended:
        end_trial(study, trial)
    return frames, study, [trial.trial_id for trial in ended]


def test_a_finished_trial_costs_the_frames_the_same_in_a_small_and_a_large_study(tmp_path, traffic):
    costs = []
    for trials in (40, 320):
        frames, _, ended = grow(tmp_path / str(trials), trials, 32)
        traffic.clear()
        for trial_id in ended:
            frames.update([trial_id])
        costs.append({name: total / 32 for name, total in traffic.items()})
    small, large = costs
    assert small == pytest.approx(large, rel=0.05)
    # Its records and outcome, and its row in parts that were merged.
    assert large["files"] < 5
    assert large["written"] < 40_000


def test_growing_frames_are_those_of_the_records(tmp_path):
    frames, study, ended = grow(tmp_path, 100, 70)
    for step, trial_id in enumerate(ended, start=1):
        frames.update([trial_id])
        if step in (1, 8, 63, 64, 70):
            grown = load(study)
            assert grown[0]["status"].eq("unfinished").sum() == 70 - step
            assert grown[1].attrs["classes"] == read_manifest(study)["data"]["classes"]
    parts = [name for name in study.names() if name.startswith("frames-")]
    assert len(parts) == 7, "one part of 64 trials and six of one"
    frames.gather()
    assert not [name for name in study.names() if name.startswith("frames-")]
    gathered = load(study)
    write_frames(study)
    whole = load(study)
    for found in (grown, gathered):
        for one, other in zip(found, whole, strict=True):
            pd.testing.assert_frame_equal(one, other)


def test_a_trial_that_changes_twice_is_in_the_frames_once(tmp_path):
    frames, study, ended = grow(tmp_path, 30, 5)
    trial = planned_trials(30)[-1]
    folder = study / "trials" / trial.trial_id
    outcome = folder.read("outcome.json")
    folder.delete("outcome.json")
    write_records(folder, FACTS, trial_reports(trial)[:2])
    frames.update(ended)
    assert load(study)[0].set_index("trial_id")["epochs_run"][trial.trial_id] == 2
    write_records(folder, FACTS, trial_reports(trial))
    folder.write("outcome.json", outcome)
    frames.update([trial.trial_id])
    grown = load(study)
    assert digests(grown) == digests(write_frames(study))


def update_all(frames: GrowingFrames, trial_ids: list[str]) -> None:
    for trial_id in trial_ids:
        frames.update([trial_id])
        frames.gather()


@pytest.mark.parametrize("written", range(0, 8, 2))
def test_frames_are_right_after_a_kill_at_any_write(tmp_path, monkeypatch, written):
    """What a kill leaves lacks at most the trial in progress, which the next driver adds."""
    frames, study, ended = grow(tmp_path, 40, 16)
    for trial_id in ended[:7]:
        frames.update([trial_id])
    write, left = Store.write, [written]

    class Killed(BaseException):
        pass

    def dying(self, name, data):
        if self.uri == study.uri:
            if not left[0]:
                raise Killed
            left[0] -= 1
        write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", dying)
        with pytest.raises(Killed):
            update_all(frames, ended[7:])
    trials, epochs = load(study)
    done = trials[trials["status"] == "completed"]
    assert set(done["trial_id"]) <= set(epochs["trial_id"]), "no ended trial is without its epochs"
    assert trials["trial_id"].is_unique
    assert len(trials) == 40
    assert not epochs.duplicated(["trial_id", "epoch", "split", "task"]).any()
    GrowingFrames(study, lambda: read_manifest(study)).update([])
    assert digests(load(study)) == digests(write_frames(study))
    assert trials["status"].ne("unfinished").sum() >= 24 + 7


def test_a_merge_that_was_killed_counts_no_trial_twice(tmp_path):
    frames, study, ended = grow(tmp_path, 40, 16)
    parts = {}
    for trial_id in ended[:8]:
        frames.update([trial_id])
        parts |= {name: study.read(name) for name in study.names() if name.startswith("frames-")}
    merged = load(study)
    for name, data in parts.items():
        study.write(name, data)
    for one, other in zip(load(study), merged, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_a_damaged_part_is_one_sentence(tmp_path, capsys):
    frames, study, ended = grow(tmp_path, 20, 3)
    frames.update(ended)
    (part,) = [name for name in study.names() if name.startswith("frames-")]
    for data in (b"[[", b"3\n", b'[{"trial_id": 1}]\n', b"\xff\n"):
        study.write(part, data)
        with pytest.raises(Exception, match="a part of the frames"):
            load(study)
    from study.frame.__main__ import main as rebuild

    assert rebuild([study.uri]) == 0
    assert len(load(study)[0]) == 20


def test_frames_are_loaded_without_the_manifest_and_the_trials(tmp_path, traffic):
    study = write_large_study(tmp_path, 60)
    write_frames(study)
    traffic.clear()
    trials, epochs = load(study)
    assert traffic["files"] == 2
    assert epochs.attrs["classes"] == read_manifest(study)["data"]["classes"]
    assert trials.attrs == {}, "pandas copies attributes with every operation"


def status_lines(study: Store, capsys, *flags: str) -> list[str]:
    assert main(["--status", study.uri, *flags]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_status_of_many_trials_is_a_screen_and_reads_outcomes_only(
    tmp_path, capsys, traffic, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "150")
    study = write_large_study(tmp_path, 400, waiting=10)
    traffic.clear()
    lines = status_lines(study, capsys)
    assert len(lines) < 55
    # The manifest, an outcome of each trial, records and outcomes of those that are shown.
    assert traffic["files"] <= 1 + 390 + 2 * 40
    assert (
        "400 trials: 383 completed, 4 diverged, 3 failed, 10 waiting; --verbose lists them all"
        in "\n".join(lines)
    )
    assert any("a worker died" in line for line in lines)
    assert len(status_lines(study, capsys, "--verbose")) > 400


def test_messages_that_all_differ_are_not_all_listed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    study = write_large_study(tmp_path, 120)
    for number, trial in enumerate(planned_trials(120)):
        path = tmp_path / "trials" / trial.trial_id / "outcome.json"
        outcome = json.loads(path.read_text())
        path.write_text(json.dumps(outcome | {"status": "failed", "error": f"no luck with {number}"}))
    lines = status_lines(study, capsys)
    assert len(lines) < 100
    assert "… 80 more messages" in lines


def test_the_page_of_many_trials_is_below_a_megabyte(tmp_path):
    study = write_large_study(tmp_path, 420, epochs=2)
    write_frames(study)
    write_report(study, files=False)
    page = study.read("report.html").decode()
    assert len(page.encode()) < 0.75e6
    rows = re.search(r'id="[^"]*-trials">.*?</section>', page, re.DOTALL)
    assert rows is not None
    assert rows[0].count("<tr>") == 201
    assert "a worker died" in rows[0], "failures are not hidden behind the best"
    assert "Of 420 trials these are 200" in page
    assert 'href="trials.csv"' in page
    # A marker is an element; a figure has those of two arms, and of some other lines.
    assert max(figure.count("<use") for figure in page.split("<svg")) < 1.2 * MOST_MARKERS
    assert re.search(r"Of 4\d\d trials, 400 are drawn\.", page)
    assert not study.exists("cells.csv")


def test_many_cells_are_in_a_file_beside_the_page(tmp_path, undrawn):
    study = write_large_study(tmp_path, 404, sampled=True, epochs=2)
    write_frames(study)
    write_report(study, files=False)
    page = study.read("report.html").decode()
    assert "Of 202 cells these are 200" in page
    assert 'href="cells.csv"' in page
    assert len(pd.read_csv(tmp_path / "cells.csv")) == 202


def test_the_driver_remembers_little_of_a_trial_that_has_ended(tmp_path):
    """Its memory over 500 tiny trials: what is known of each trial, and nothing that piles up beside it."""
    planned = planned_trials(500)
    study = Store(tmp_path)
    states = TrialStates(study, HalvingRule.of("none"), METRIC)
    for trial in planned:
        states.add(trial)

    def train(trial):
        for report in trial_reports(trial):
            write_records(states.folder(trial), FACTS, [report])
            yield report

    memory: list[int] = []

    def finished(_):
        memory.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        executor = LocalExecutor(train, concurrent=2)
        Loop(states, FixedPlan(), executor, Observers(finished=[finished])).run()
    finally:
        tracemalloc.stop()
    assert len(memory) == 500
    per_trial = (memory[-1] - memory[100]) / 400
    assert per_trial < 20_000, f"{per_trial:.0f} bytes"
