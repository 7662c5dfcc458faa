"""The benchmark of GPUs, on the CPU at tiny sizes: every line runs, and no section can spoil the others."""

import json
import os
import re
import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.__main__ import main
from benchmarks.gpu import SECTIONS, Section, run_section
from benchmarks.on_gpu.setting import Row, Setting
from benchmarks.scenes import scenes_folder

OF_SEVERAL_PROCESSES = {"packed", "probe"}


@pytest.fixture(scope="module")
def setting():
    with scenes_folder(4, 2, drawn=4) as root:
        yield Setting(device="cpu", root=root, tiny=True, cores=1)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generating code for a CPU takes minutes."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def rows_of(section: str, setting: Setting) -> dict[str, Row]:
    rows = list(SECTIONS[section].rows(setting))
    found = {row.name: row for row in rows}
    assert len(found) == len(rows), "two rows have one name"
    return found


@pytest.mark.usefixtures("uncompiled")
def test_steps_are_compared_with_their_roof(setting: Setting):
    rows = rows_of("step", setting)
    names = [name for name in rows if name.startswith("segstrat")]
    assert names == [
        "segstrat, float32",
        "segstrat, fastest precision",
        "segstrat, compiled",
        "segstrat, compiled, CUDA graphs",
    ]
    (roof,) = (row.value for name, row in rows.items() if name.startswith("roof"))
    for name in names:
        assert rows[name].note.startswith(f"{rows[name].value / roof:.2f} × roof")
    assert rows["kernels, fastest precision"].value > 0


@pytest.mark.usefixtures("uncompiled")
def test_epochs_are_compared_with_the_usual_recipe(setting: Setting):
    rows = rows_of("epoch", setting)
    assert len(rows) == 5
    rate = rows["segstrat, device cache"].value / rows["torchvision's recipe"].value
    assert rows["segstrat, device cache"].note.startswith(f"{rate:.1f} × torchvision's")
    assert re.search(r"data wait \d+\.\d% of the last", rows["segstrat, device cache"].note)


def test_validation_is_counted_in_batches(setting: Setting):
    # The two validation images have one size each.
    assert "2 images in 2 batches" in rows_of("validation", setting)["validation"].note


@pytest.mark.usefixtures("uncompiled")
def test_deterministic_training_is_compared_tensor_by_tensor(setting: Setting):
    rows = rows_of("resume", setting)
    assert {name: row.value for name, row in rows.items() if isinstance(row.value, str)} == dict.fromkeys(
        ("eager: repeated", "eager: resumed", "compiled: repeated", "compiled: resumed"), "bit-identical"
    )


@pytest.mark.usefixtures("uncompiled")
def test_memory_is_noted_after_every_epoch(setting: Setting):
    for row in rows_of("memory", setting).values():
        assert row.value == 0
        assert row.note.endswith("0, 0, 0, 0")


def test_pre_training_is_extrapolated_to_imagenet(setting: Setting):
    rows = rows_of("pretraining", setting)
    hours = 90 * 1_281_167 / rows["whole epoch"].value / 3600
    assert f"90 epochs: {hours:.0f} hours" in rows["whole epoch"].note


@pytest.mark.usefixtures("uncompiled")
def test_sunets_are_timed(setting: Setting):
    assert all(row.value > 0 for row in rows_of("sunet", setting).values())


def fine(_: Setting):
    yield Row(name="a", value=1.0)


def failing(_: Setting):
    yield Row(name="a", value=1.0)
    raise ValueError("no such kernel")


def dying(_: Setting):
    yield Row(name="a", value=1.0)
    os._exit(7)


def endless(_: Setting):
    yield Row(name="a", value=1.0)
    while True:
        time.sleep(1)


@pytest.mark.parametrize(
    ("rows", "status", "error"),
    [
        (fine, "done", ""),
        (failing, "failed", "ValueError: no such kernel"),
        (dying, "failed", "its process ended with exit code 7"),
        (endless, "out of time", ""),
    ],
)
def test_what_was_measured_before_a_section_ended_is_kept(setting: Setting, rows, status: str, error: str):
    # Forked, the process need not import torch; one that does not end by itself gets two seconds.
    seconds = 2.0 if rows is endless else 60
    result = run_section(Section("t", rows, seconds), setting, seconds, method="fork")
    assert result.status == status
    assert result.rows == [Row(name="a", value=1.0)]
    assert error in result.error
    assert bool(result.error) == bool(error)


def test_results_are_written_after_every_section(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    seen = []

    def run(section: Section, setting: Setting, seconds: float) -> gpu.SectionResult:
        assert setting.device == "cpu"
        assert 0 < seconds <= section.seconds
        seen.append(list(json.loads(path.read_text())["results"].get("gpu", {})) if path.exists() else [])
        return gpu.SectionResult("done", 1.0, [Row(name="a", value=float(len(seen)))])

    monkeypatch.setattr(gpu, "run_section", run)
    assert main(["gpu", "--dry", "--json", str(path)]) == 0
    names = list(SECTIONS)
    assert seen == [names[:number] for number in range(len(names))]
    record = json.loads(path.read_text())
    assert record["quick"]
    assert record["results"]["gpu"][names[-1]]["rows"][0]["value"] == len(names)


def test_all_sections_share_ten_minutes(monkeypatch):
    monkeypatch.setattr(gpu, "run_section", lambda *_: gpu.SectionResult("done"))
    found = {}
    gpu.run_sections(found.__setitem__, device="cpu", tiny=True, seconds=0.0)
    assert {result.status for result in found.values()} == {"no time left"}
    assert list(found) == list(SECTIONS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_command_runs_dry(tmp_path):
    path = tmp_path / "result.json"
    assert main(["gpu", "--dry", "--json", str(path)]) == 0
    results = json.loads(path.read_text())["results"]["gpu"]
    assert {name: result["error"] for name, result in results.items()} == dict.fromkeys(SECTIONS, "")
    assert all(results[name]["rows"] for name in OF_SEVERAL_PROCESSES)
