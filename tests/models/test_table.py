"""The table of docs/models.md."""

from pathlib import Path

import pytest

from segstrat.architectures import BACKBONES
from segstrat.models.table import BEGIN, END, markdown, rows, update

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


def printed() -> list[str]:
    return DOCS.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()


def test_the_docs_show_what_the_code_builds():
    lines = markdown(["resnet18", "squeezenet1_1", "sunet64"]).splitlines()
    assert len(lines) == 2 + 3 * 3
    assert [line for line in lines if line not in printed()] == []
    # A header of two lines, and three heads or strides for each backbone.
    assert len(printed()) == 2 + 3 * len(BACKBONES)


@pytest.mark.slow
def test_the_whole_table_is_up_to_date():
    assert update(DOCS.read_text()) == DOCS.read_text()


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
