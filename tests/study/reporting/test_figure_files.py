"""Drawings as files for print and as elements of a page."""

import io
from xml.etree import ElementTree

import pytest
from PIL import Image

from study.reporting.figure_files import PNG_DPI, Picture
from study.reporting.figure_style import CSS_NAMES, GRID, INK, MUTED, ORANGE, PAPER, new_panel, theme_css


def drawing(name="x"):
    """Everything that refers to something else by its id: clipped lines, markers, hatched bars."""
    with new_panel("Title") as (figure, ax):
        ax.plot([0, 1, 2], [0, 1, 0], "o-", color=ORANGE)
        ax.barh([0], [2], facecolor="none", edgecolor=MUTED, hatch="////")
        ax.annotate("words", (1, 0.5), color=INK)
    return Picture(name, "What it shows", "How to read it.", (figure,))


def ids_and_references(svg):
    ids, references = [], set()
    for element in ElementTree.fromstring(svg).iter():
        for key, value in element.attrib.items():
            if key == "id":
                ids.append(value)
            elif key.endswith("href"):
                references.add(value.removeprefix("#"))
            references |= {part.partition(")")[0] for part in value.split("url(#")[1:]}
    return ids, references


def test_ids_of_two_drawings_on_a_page_differ_and_every_reference_is_kept():
    found = [ids_and_references(svg) for svg in (*drawing("a").inline("s-"), *drawing("b").inline("s-"))]
    for ids, references in found:
        assert len(ids) == len(set(ids))
        assert references == set(ids)
        assert len(references) >= 3
    assert not set(found[0][0]) & set(found[1][0])


def test_the_page_scales_a_drawing_and_reads_its_title():
    (svg,) = drawing().inline()
    root = ElementTree.fromstring(svg)
    assert svg.startswith("<svg")
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)
    assert root.attrib["aria-label"] == "What it shows"
    assert "metadata" not in svg


def test_every_color_of_the_style_follows_the_theme():
    """A drawing keeps the print colors; the page's rules name each of them, in the form matplotlib writes."""
    (svg,) = drawing().inline()
    rules = theme_css()
    for color in (INK, MUTED, GRID, PAPER, ORANGE):
        as_written = [f"{paint}: {color}" for paint in ("fill", "stroke") if f"{paint}: {color}" in svg]
        assert as_written, color
        assert svg.count(color) == sum(svg.count(text) for text in as_written), "a form without a rule"
        for text in as_written:
            assert f'[style*="{text}"]' in rules
            assert f"var({CSS_NAMES[color]})" in rules
    # A marker is a copy outside the document's tree: a selector with an ancestor would not reach it.
    assert all(rule.startswith("[style") for rule in rules.splitlines())


def test_files_are_fine_enough_for_print():
    picture = drawing()
    files = picture.files()
    assert set(files) == {"x.svg", "x.png"}
    width, height = (PNG_DPI * size for size in picture.panels[0].get_size_inches())
    with Image.open(io.BytesIO(files["x.png"])) as png:
        assert png.size == (int(width), int(height))
    assert b"<text" not in files["x.svg"], "letters are paths, whatever fonts a reader has"


def test_the_same_drawing_gives_the_same_file():
    assert drawing().files()["x.svg"] == drawing().files()["x.svg"]


@pytest.mark.parametrize("first", ["files", "inline"])
def test_a_layout_found_for_one_format_serves_all(first):
    picture, other = drawing(), drawing()
    getattr(picture, first)()
    other.files(), other.inline()
    assert picture.files() == other.files()
