"""The tables of docs/models.md and docs/spaces.md."""

import dataclasses

import pytest

from docs.make_tables import DOCS, field_table, model_table, rows, updated
from segstrat.config import BACKBONES, TrialConfig

MODELS, FIELDS = ((DOCS / page).read_text(encoding="utf-8") for page in ("models.md", "spaces.md"))


def test_the_docs_show_what_the_code_builds():
    lines = model_table(["resnet18", "squeezenet1_1", "sunet64"]).splitlines()
    assert len(lines) == 2 + 3 * 3
    printed = [line for line in MODELS.partition("<!-- models: begin -->")[2].splitlines() if line]
    assert [line for line in lines if line not in printed] == []
    # A header of two lines, and three heads or strides for each backbone.
    assert printed.index("<!-- models: end -->") == 2 + 3 * len(BACKBONES)


@pytest.mark.slow
def test_the_whole_table_is_up_to_date():
    assert updated(MODELS, "models", model_table()) == MODELS


def test_multiply_adds_against_a_count_by_hand():
    first = next(rows(["resnet18"]))
    # (C_in · C_out · k², cells at 512²) of the stem, then per stage.
    layers = [(3 * 64 * 49, 256**2)]
    layers += [(64 * 64 * 9, 128**2)] * 4
    for inputs, outputs, side in [(64, 128, 64), (128, 256, 32), (256, 512, 16)]:
        layers += [(inputs * outputs * 9, side**2), (inputs * outputs, side**2)]
        layers += [(outputs * outputs * 9, side**2)] * 3
    layers += [(512 * 21, 16**2)]
    # Every cell of the transposed convolution meets every class of 64 × 64 pixels.
    layers += [(21 * 21 * 64**2, 16**2)]
    assert first.multiply_adds == sum(weights * cells for weights, cells in layers)
    assert first.parameters == 11_176_512 + 512 * 21 + 21 + 21 * 21 * 64**2
    assert first.weights == "resnet18-f37072fd.pth"


def test_the_docs_show_all_fields():
    assert updated(FIELDS, "fields", field_table()) == FIELDS, "run: uv run python docs/make_tables.py"


def test_every_field_has_its_default_and_a_meaning():
    rows = [line.strip("| ").split(" | ") for line in field_table().splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == [field.name for field in dataclasses.fields(TrialConfig)]
    assert all(row[-1].endswith(".") for row in rows)
    (decay,) = [row for row in rows if row[0] == "`weight_decay`"]
    assert decay[1:3] == ["`0.0005`", "a number ≥ 0"]


@pytest.mark.parametrize("text", ["no table here", "<!-- models: begin -->\nold", "<!-- models: end -->"])
def test_a_page_without_markers_is_left_alone(text):
    with pytest.raises(ValueError, match="models: begin"):
        updated(text, "models", "new")
