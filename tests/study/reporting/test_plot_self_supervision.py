"""Self-supervision on the page: loss, errors, probes and reconstructions."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from segstrat.store import Store
from study.frame import SELF_SUPERVISION, write_frames
from study.reporting.plot_self_supervision import (
    SelfSupervision,
    add_runs,
    draw_self_supervision,
    self_supervision_of,
    self_supervision_picture,
    self_supervision_table,
)
from study.reporting.render import write_study_report


def run(seed: int, **more: object) -> dict:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "JPEG")
    facts = {"losses": [2.0, 1.0], "errors": [0.9, 0.5 + 0.01 * seed], "nearest_patch_error": 1.3}
    picture = base64.b64encode(file.getvalue()).decode()
    return {"seed": seed, "backbone": "resnet18", "width": 0.25, "examples": picture, **facts, **more}


def test_runs_are_added_file_by_file_and_read_in_the_order_of_their_seeds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert self_supervision_of(store) is None
    add_runs(store, {"b.pth": run(2)})
    add_runs(store, {"a.pth": run(1)})
    found = self_supervision_of(store)
    assert found is not None
    assert [each["seed"] for each in found.runs] == [1, 2]
    table = self_supervision_table(found)
    assert table.to_dict("list") == {
        "run": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "loss": [2.0, 1.0] * 2, "error": [0.9, 0.51, 0.9, 0.52],
    }  # fmt: skip


def test_errors_and_probes_are_stated(tmp_path: Path) -> None:
    plain = SelfSupervision([run(1), run(2)])
    assert plain.sentence == (
        "2 runs: the squared error of masked patches in images that were held out is 0.51 to 0.52 of that of "
        "each image's mean color; copying the nearest patch has 1.30."
    )
    probed = SelfSupervision([run(1, probe=0.42, probe_of_random_features=0.2)])
    assert probed.sentence.endswith("classifies 42 % of images, of random features 20 %.")
    figure = draw_self_supervision(self_supervision_table(plain), 1.3)
    lines = {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines["held-out images"] == [0.9, 0.51]
    assert lines["nearest patch"] == [1.3, 1.3]
    assert self_supervision_picture(None) is None


def test_a_damaged_file_costs_its_section_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    store.write(SELF_SUPERVISION, b'{"w.pth": {"seed": 1}}')
    assert self_supervision_of(store) is None
    assert "the report shows no self-supervision" in caplog.text


@pytest.mark.usefixtures("undrawn")
def test_the_page_shows_it(study_writer, make_trial) -> None:
    trials = [
        make_trial({"pretrained": False, "weight_decay": decay, "seed": seed}, 0.3)
        for decay in (0.0, 1e-3)
        for seed in range(3)
    ]
    folder = study_writer(trials)
    write_frames(folder)
    write_study_report(folder, files=False)
    assert "Self-supervision" not in (folder / "report.html").read_text()
    add_runs(Store(folder), {"a.pth": run(1)})
    write_study_report(folder, files=False)
    page = (folder / "report.html").read_text()
    assert f"data:image/jpeg;base64,{run(1)['examples']}" in page
    assert "<h2>Self-supervision</h2>" in page
    write_study_report(folder, files=False, images=False)
    page = (folder / "report.html").read_text()
    assert "image/jpeg" not in page
    assert "their reconstructions" not in page
    assert "<h2>Self-supervision</h2>" in page
