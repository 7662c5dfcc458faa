import html
import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from segstrat.errors import UserError
from segstrat.store import Store
from study.analysis.answer import answer_study
from study.frame import write_frames
from study.report import main
from study.reporting.gallery import write_gallery
from study.reporting.render import make_page, render, write_report
from tests.study.published import table_1_2

ROOT = Path(__file__).parents[3]


def grid(make_trial, seeds=(0, 1, 2)):
    cells = {(False, 0.0): 0.25, (False, 5e-4): 0.29, (True, 0.0): 0.36, (True, 5e-4): 0.34}
    # Of mean 0 over three seeds, and another order in each cell: paired differences must not be constant.
    noise = dict(zip(cells, ((-1, 0, 1), (0, 1, -1), (1, -1, 0), (1, 0, -1)), strict=True))
    return [
        make_trial(
            {"pretrained": pre, "weight_decay": decay, "seed": seed},
            value + 0.002 * seed + 0.001 * noise[pre, decay][seed % 3],
        )
        for seed in seeds
        for (pre, decay), value in cells.items()
    ]


@pytest.fixture
def study(study_writer, make_trial):
    folder = study_writer(grid(make_trial))
    write_frames(folder)
    return folder


class Balance(html.parser.HTMLParser):
    """Counts open tags, and collects what a browser would fetch."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name == "src" or (name == "href" and tag == "link"):
                self.fetched.append(value)

    def handle_startendtag(self, _, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    return parser


def test_the_page_opens_with_the_verdict_and_fetches_nothing(study):
    sentence = write_report(study, files=False)
    text = (study / "report.html").read_text()
    assert parsed(text).fetched == []
    assert not re.search(r"url\((?!#)|@import", text)
    head, _, _ = text.partition("</h1>")
    assert "In part: weight decay narrows the gap" in head
    assert text.index("narrows the gap") < text.index("<svg")
    assert text.count("<details>") > 5, "what few readers need is folded"
    assert sentence.split(":")[0][:40] in text
    for heading in (
        "What would change this answer",
        "Hypothesis and claims",
        "Provenance",
    ):
        assert heading in text
    assert len(text) < 1_000_000
    assert "prefers-color-scheme: dark" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("data", "compared", "claims"),
    [("d1", True, True), ("figures", False, True), ("folder", False, False)],
)
def test_the_thesis_is_compared_on_its_own_data_only(study_writer, make_trial, data, compared, claims):
    trials = [entry | {"axes": entry["axes"] | {"data": data}} for entry in grid(make_trial)]
    own = {"title": "My cats"} if data == "folder" else {}
    folder = study_writer(trials, data={"name": data, **own})
    write_frames(folder)
    sentence = write_report(folder, files=False)
    text = (folder / "report.html").read_text()
    assert ("Comparison with the thesis" in text) is compared
    assert ("claim of the thesis" in text) is claims
    assert ("W. Dai" in text) is claims
    if data == "folder":
        assert "here without closing it (My cats, " in sentence
        assert not re.search(r"\bfolder\b", text.partition("</article>")[0])


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_a_running_study_reloads_itself(study_writer, make_trial):
    trials = grid(make_trial)
    trials[-1] |= {"status": "unfinished"}
    folder = study_writer(trials, scheduler={"name": "asha", "reduction_factor": 2, "rung_fractions": [0.5]})
    write_frames(folder)
    write_report(folder, files=False)
    text = (folder / "report.html").read_text()
    assert 'http-equiv="refresh"' in text
    assert "1 of 12 trials have not finished" in text
    assert not (folder / "figures").exists()
    write_report(folder)
    assert 'http-equiv="refresh"' not in (folder / "report.html").read_text()


def test_the_report_is_rebuilt_without_torch_and_ray(study):
    """On a laptop with the frames alone: neither is importable, and the records are gone."""
    blocker = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'ray', 'optuna'):\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        "import runpy\n"
        f"sys.argv = ['report.py', {str(study)!r}]\n"
        f"runpy.run_path({str(ROOT / 'study' / 'report.py')!r}, run_name='__main__')\n"
    )
    for records in study.glob("trials/*/records.json"):
        records.unlink()
    done = subprocess.run(
        [sys.executable, "-c", blocker], capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert "narrows the gap" in done.stdout
    assert (study / "report.html").is_file()


@pytest.mark.usefixtures("undrawn")
def test_csv_frames_give_the_same_verdict(study):
    first = write_report(study, files=False)
    for name in ("trials", "epochs"):
        (study / f"{name}.parquet").unlink()
    assert write_report(study, files=False) == first


def test_the_thesis_as_a_study_has_a_page():
    text = render([make_page(answer_study(table_1_2()))])
    parsed(text)
    assert "one seed is too few for an interval" in text
    assert "Only the best epoch is known" in text
    assert "9.4" in text


def broken(kind, study_writer, make_trial):
    trials = grid(make_trial)
    if kind == "no trials":
        return study_writer([])
    if kind == "nothing completed":
        return study_writer([entry | {"status": "diverged", "curve": [0.1, None]} for entry in trials])
    if kind == "nothing started":
        return study_writer([entry | {"status": "not started", "curve": []} for entry in trials])
    if kind == "one arm":
        return study_writer([entry for entry in trials if entry["axes"]["pretrained"]])
    if kind == "one seed":
        return study_writer(grid(make_trial, seeds=(0,)))
    if kind == "no roles":
        return study_writer(trials, roles={})
    return study_writer(trials, roles=None, data={})


@pytest.mark.parametrize(
    "kind",
    ["no trials", "nothing completed", "nothing started", "one arm", "one seed", "no roles", "no data facts"],
)
def test_bad_studies_get_a_page_that_says_why(kind, study_writer, make_trial):
    folder = broken(kind, study_writer, make_trial)
    write_frames(folder)
    sentence = write_report(folder, files=kind == "one seed")
    text = (folder / "report.html").read_text()
    parsed(text)
    assert not re.search(
        r"\bnan\b|\bNone\b|<NA>", re.sub(r"<style>.*?</style>|<script>.*?</script>", "", text, flags=re.S)
    )
    verdict = json.loads((folder / "verdict.json").read_text())
    if kind != "no data facts":
        assert verdict["verdict"] == "undetermined"
        assert "ndetermined" in sentence


def test_a_frame_of_another_version_gets_a_page(study):
    pd.read_parquet(study / "trials.parquet").drop(columns="status").to_parquet(study / "trials.parquet")
    sentence = write_report(study)
    assert sentence.startswith("Undetermined: the frames in")
    assert "lack status" in (study / "report.html").read_text()
    assert json.loads((study / "verdict.json").read_text())["verdict"] == "undetermined"


@pytest.mark.usefixtures("undrawn")
def test_a_study_without_a_manifest_says_that_it_has_no_roles(study):
    (study / "manifest.json").unlink()
    assert "states no roles" in write_report(study, files=False)


def test_several_studies_on_one_page(study_writer, make_trial, tmp_path, capsys):
    folders = []
    for name in ("first", "second"):
        folder = study_writer(grid(make_trial), name=name)
        write_frames(folder)
        folders.append(str(folder))
    out = tmp_path / "both.html"
    assert main([*folders, "--out", str(out)]) == 0
    text = out.read_text()
    parsed(text)
    assert "2 studies" in text
    assert text.count('<h1 class="label-narrows">In part: ') == 2
    assert "all together" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_study_of_another_version_is_left_out_of_the_common_page(study, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(study, old)
    pd.read_parquet(old / "trials.parquet").drop(columns="status").to_parquet(old / "trials.parquet")
    out = tmp_path / "both.html"
    assert main([str(old), str(study), "--out", str(out)]) == 0
    assert "old: Undetermined" in capsys.readouterr().out
    assert out.read_text().count('<h1 class="label-narrows">In part: ') == 1


@pytest.mark.usefixtures("undrawn")
def test_studies_of_another_version_alone_have_no_common_page(study, tmp_path, capsys):
    pd.read_parquet(study / "trials.parquet").drop(columns="status").to_parquet(study / "trials.parquet")
    assert main([str(study), str(study), "--out", str(tmp_path / "both.html")]) == 0
    assert "all together" not in capsys.readouterr().out
    assert not (tmp_path / "both.html").exists()


def test_a_wrong_folder_or_margin_is_one_sentence(tmp_path, study, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "contains no frames" in capsys.readouterr().err
    assert main([str(study), "--margin", "2"]) == 2
    assert "--margin" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_one_study_is_also_written_where_out_says(study, tmp_path, capsys):
    out = tmp_path / "pages" / "mine.html"
    assert main([str(study), "--margin", "0.02", "--out", str(out)]) == 0
    beside = (study / "report.html").read_text()
    assert out.read_text().partition("<nav")[0] == beside.partition("<nav")[0]
    # Files are linked from where they are alone.
    assert ('href="trials.csv"' in beside, "trials.csv" in out.read_text()) == (True, False)
    assert json.loads((study / "verdict.json").read_text())["margin"] == 0.02
    printed = capsys.readouterr().out
    assert "margin of 2 points" in printed
    assert f"{study}/report.html" in printed
    assert f"the same page: {out}" in printed
    assert main([str(study), "--out", str(tmp_path)]) == 2
    assert "that is a folder" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_verdict_and_figures_are_written_and_earlier_figures_deleted_but_no_other_files(study):
    figures = study / "figures"
    figures.mkdir()
    own, stale = figures / "my-own.png", figures / "curves-parts-a.png"
    for path in (own, stale):
        path.write_bytes(b"png")
    (figures / "files.txt").write_text(stale.name)
    write_report(study)
    verdict = json.loads((study / "verdict.json").read_text())
    assert verdict["verdict"] == "narrows"
    assert verdict["margin"] == 0.01
    assert verdict["effects"][0]["closure"]["low"] is not None
    files = {path.name for path in figures.iterdir()}
    assert {"semseg-weight_decay-a.svg", "semseg-weight_decay-b.png", "answer-semseg-a.png"} <= files
    assert own.name in files
    assert stale.name not in files
    listed = (figures / "files.txt").read_text().split("\n")
    assert set(listed) == files - {own.name, "files.txt"}


@pytest.mark.usefixtures("undrawn")
def test_of_a_rehearsal_no_figures_are_printed_and_nothing_is_claimed(study_writer, make_trial):
    folder = study_writer(grid(make_trial), options={"space": "wd_grid", "data": "figures", "quick": True})
    write_frames(folder)
    write_report(folder)
    assert [path.name for path in (folder / "figures").iterdir()] == ["files.txt"]
    page = (folder / "report.html").read_text()
    assert page.count("<figure") >= 5
    assert 'href="figures/"' not in page
    assert "this page reloads itself" not in page
    assert "Main effects" not in page
    found = json.loads((folder / "verdict.json").read_text())
    assert not any(found[key] for key in ("claims", "factorial_effects"))


@pytest.mark.usefixtures("undrawn")
def test_a_gallery_is_shown_where_there_is_one(study):
    write_report(study, files=False)
    assert "No gallery yet" in (study / "report.html").read_text()
    shape = (2, 12, 10)
    write_gallery(
        Store(study), "semseg", images=np.zeros((*shape, 3), np.uint8), valid=np.array([[12, 10], [8, 10]]),
        labels=np.ones(shape, np.uint8), predictions=np.stack([np.zeros(shape, np.uint8)] * 2),
        names=np.array(["raw", "pre-trained"]), classes=np.array(["background", "cat"]),
        palette=np.arange(768).reshape(256, 3).astype(np.uint8), ids=np.array(["a", "b"]),
        caption=np.array("Two images."),
    )  # fmt: skip
    write_report(study, files=False)
    text = (study / "report.html").read_text()
    sources = parsed(text).fetched
    assert len(sources) == 2 * 4
    assert all(source.startswith("data:image/") for source in sources)
    assert "Two images." in text
    assert "No gallery yet" not in text
    assert main([str(study), "--no-images"]) == 0
    text = (study / "report.html").read_text()
    assert len(parsed(text).fetched) == 2 * 3
    assert "image/jpeg" not in text, "label maps are PNG, photographs JPEG"
    assert "Two images." in text


@pytest.mark.usefixtures("undrawn")
def test_text_from_outside_is_escaped(study_writer, make_trial):
    folder = study_writer(grid(make_trial), question="Is <script>alert(1)</script> safe?")
    write_frames(folder)
    write_report(folder, files=False)
    assert "<script>alert(1)" not in (folder / "report.html").read_text()


def test_a_store_that_is_nowhere_is_told():
    with pytest.raises(UserError, match="no frames"):
        write_report(Store("/nonexistent/study"))


NAMES = ["US$ and C$", "_under_ 100% {0}", "<b>&amp; [red] \\frac{x^2"]


def test_names_of_classes_and_data_are_shown_as_they_are(study_writer, make_trial):
    """Neither matplotlib, nor SVG, nor the page, nor Rich takes their signs for its own."""
    data = {
        "name": "folder", "title": NAMES[0], "digest": "d", "synthetic": False, "train_images": 9,
        "val_images": 9, "root": "/data", "classes": {"semseg": [*NAMES, "no score"]},
    }  # fmt: skip
    folder = study_writer(grid(make_trial), data=data)
    write_frames(folder)
    sentence = write_report(folder)
    assert NAMES[0] in sentence
    page = (folder / "report.html").read_text()
    figures = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg .*?</svg>", page, re.DOTALL)]
    words = [element for figure in figures for element in figure.iter() if element.tag.endswith("text")]
    texts = {"".join(element.itertext()).strip() for element in words}
    for name in NAMES:
        assert name in texts
        assert html.escape(name, quote=False) in page
    assert NAMES[2] not in page
    assert next((folder / "figures").glob("classes-semseg*.png")).stat().st_size > 1000
