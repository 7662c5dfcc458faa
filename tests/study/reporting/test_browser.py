"""A real browser opens the page: phone and desktop, light and dark. Needs a Chromium; skips without one."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from segstrat.image_counts import ImageCounts, write_counts
from segstrat.store import Store
from study.frame import write_frames
from study.reporting.gallery import write_gallery
from study.reporting.render import write_report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

DECAYS = (0.0, 5e-4, 1e-3)
MANY = [f"a class with a rather long name {index}" for index in range(100)]
# Width and height of the window.
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
VIEWS = [(size, theme) for size in SIZES for theme in ("light", "dark")]
# In the page: what reaches beyond the window without scrolling in a box of its own.
OVERFLOW = """() => [...document.querySelectorAll("body *")].filter((each) => {
  if (each.closest(".scroll, pre, .panels svg, svg") && !each.matches(".scroll, pre")) return false;
  const box = each.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((each) => `${each.tagName}.${each.className}: ${each.textContent.slice(0, 40)}`)"""


def grid(make_trial, seeds, contexts=({},)):
    noise = np.random.default_rng(0)
    return [
        make_trial(
            {"pretrained": pretrained, "weight_decay": decay, "seed": seed, **context},
            (0.25 + 0.1 * pretrained + 40 * decay * (not pretrained) + 0.002 * noise.normal()),
        )
        for context in contexts
        for seed in seeds
        for pretrained in (False, True)
        for decay in DECAYS
    ]


def add_pictures(folder: Path, classes: list[str]) -> None:
    """A gallery of four predictions, as `study.reporting.gallery` describes it, and confusions."""
    rng = np.random.default_rng(0)
    count, side = len(classes), 24
    write_gallery(
        Store(folder),
        "semseg",
        images=rng.integers(0, 255, (6, side, side, 3), np.uint8),
        valid=np.full((6, 2), side),
        labels=rng.integers(0, count, (6, side, side), np.uint8),
        predictions=rng.integers(0, count, (4, 6, side, side), np.uint8),
        names=np.array(["raw, reference (weight decay 0)"] * 4),
        classes=np.array(classes),
        palette=rng.integers(0, 255, (256, 3), np.uint8),
        ids=np.array([f"image {index}" for index in range(6)]),
        caption=np.array("Six validation images."),
    )
    for trial in (folder / "trials").iterdir():
        confusion = rng.integers(1, 1000, (count, count)) + np.diag(np.full(count, 10_000))
        hits, labeled, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        counts = ImageCounts(("a",), hits[None], labeled[None], predicted[None], confusion=confusion)
        write_counts(Store(trial), {("semseg", "val"): counts})


@pytest.fixture(scope="module")
def pages(tmp_path_factory, study_into, trial_of) -> dict[str, Path]:
    """The page of each kind of study; of the files beside it, those for print are empty."""
    contexts = [{"label_fraction": share} for share in (0.25, 0.5, 1.0)]
    roles = {"pretrained": "arm", "weight_decay": "treatment"}
    nuisance = {"roles": roles | {"label_fraction": "nuisance"}}
    many = {"data": {"name": "folder", "title": "many-classes", "classes": {"semseg": MANY}, "digest": "1"}}
    kinds = {
        "settled": (grid(trial_of, range(5)), {"roles": roles}),
        "undetermined": (grid(trial_of, [0]), {"roles": roles}),
        "contexts": (grid(trial_of, range(3), contexts), nuisance),
        "hundred": (grid(trial_of, range(3)), {"roles": roles, **many}),
    }
    found = {}
    root = tmp_path_factory.mktemp("pages")
    for name, (trials, manifest) in kinds.items():
        classes = MANY if name == "hundred" else ["background", "cat", "dog", "bird"]
        folder = study_into(root / name, [trial | {"classes": len(classes)} for trial in trials], **manifest)
        add_pictures(folder, classes)
        write_frames(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("study.reporting.figure_files.png", lambda _: b"")
            write_report(folder)
        found[name] = folder / "report.html"
    return found


@pytest.fixture(scope="module")
def open_page(browser) -> Iterator[Callable]:
    """Opens a page in a window; returns it and the messages of its scripts, which must be none."""
    opened = []

    def open_it(path: Path, size: str = "desktop", theme: str = "light"):
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, has_touch=size == "phone"
        )
        opened.append(context)
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: problems.append(request.url) if "http" in request.url else None)
        page.goto(path.as_uri())
        return page, problems

    yield open_it
    for context in opened:
        context.close()


@pytest.mark.parametrize("kind", ["settled", "undetermined", "contexts", "hundred"])
def test_every_page_fits_its_window_and_draws_every_figure(pages, open_page, kind):
    assert pages[kind].stat().st_size < 1_000_000
    for size, theme in VIEWS:
        page, problems = open_page(pages[kind], size, theme)
        # The answer is on the first screen.
        assert page.locator("h1").bounding_box()["y"] < SIZES[size][1] / 2
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert page.evaluate(OVERFLOW) == [], (size, theme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (size, theme)
        figures = page.evaluate(
            "[...document.querySelectorAll('figure svg')].map((svg) => [svg.getBoundingClientRect().width, "
            "svg.getBoundingClientRect().height, svg.querySelectorAll('path, use').length])"
        )
        assert len(figures) >= 5
        assert all(width > 150 and height > 100 and parts > 5 for width, height, parts in figures), figures
        paper = page.evaluate("getComputedStyle(document.querySelector('.hero')).backgroundColor")
        assert (min(map(int, re.findall(r"\d+", paper)[:3])) > 200) is (theme == "light")
        assert problems == []


def test_pictures_of_predictions_are_shown(pages, open_page):
    page, _ = open_page(pages["settled"])
    page.locator(".gallery").scroll_into_view_if_needed()
    shown = "[...document.querySelectorAll('.gallery img')].filter((each) => each.naturalWidth > 0).length"
    page.wait_for_function(f"{shown} >= 36")
    assert page.evaluate(shown) == 36


def test_no_table_repeats_a_row(pages, open_page):
    for path in pages.values():
        page, _ = open_page(path)
        repeated = page.evaluate(
            "[...document.querySelectorAll('table')].flatMap((table) => [...table.tBodies[0].rows]"
            ".map((row) => row.textContent).filter((text, i, all) => all.indexOf(text) !== i))"
        )
        assert repeated == []


def test_tables_sort_by_the_clicked_column(pages, open_page):
    page, _ = open_page(pages["settled"])
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    table = page.locator("section[id$=-trials] table")
    head = table.locator("th", has_text="weight decay")
    column = head.evaluate("(each) => each.cellIndex")

    def values() -> list[float]:
        return table.evaluate(
            f"(each) => [...each.tBodies[0].rows].map((row) => Number(row.cells[{column}].dataset.value))"
        )

    head.click()
    assert values() == sorted(values())
    assert len(set(values())) == len(DECAYS)
    head.press("Enter")
    assert values() == sorted(values(), reverse=True)


@pytest.mark.parametrize("size", SIZES)
def test_curves_answer_to_the_pointer(pages, open_page, size):
    page, problems = open_page(pages["settled"], size)
    curves = page.locator("svg[data-curves]").last
    curves.scroll_into_view_if_needed()
    tip = page.locator(".curves").last.locator(".tip")
    assert not tip.is_visible()
    box = curves.bounding_box()
    # The last of four epochs is at the right end.
    place = (box["x"] + 0.93 * box["width"], box["y"] + 0.4 * box["height"])
    page.touchscreen.tap(*place) if size == "phone" else page.mouse.move(*place)
    assert tip.is_visible()
    words = tip.inner_text()
    assert words.startswith("epoch 4")
    scores = [float(value) for value in re.findall(r"\d\.\d{3}", words)]
    assert scores == sorted(scores, reverse=True)
    (best,) = re.findall(r"(\d\.\d{3}) pre-trained, best, validation", words)
    assert float(best) == pytest.approx(0.35, abs=0.01)
    shown = tip.bounding_box()
    assert shown["x"] >= 0
    assert shown["x"] + shown["width"] <= SIZES[size][0]
    assert problems == []


def test_files_beside_the_page_can_be_followed(pages, open_page):
    page, _ = open_page(pages["settled"])
    links = page.evaluate(
        "[...document.querySelectorAll('a[href]')].map((each) => each.getAttribute('href'))"
    )
    files = [link for link in links if not link.startswith("#")]
    assert (pages["settled"].parent / "figures" / "overview.png").stat().st_size > 10_000
    assert {"trials.csv", "epochs.csv", "verdict.json", "manifest.json", "figures/"} <= set(files)
    assert all((pages["settled"].parent / name).exists() for name in files)
