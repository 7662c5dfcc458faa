"""The table of fields in docs/spaces.md."""

import dataclasses
from pathlib import Path

from segstrat.config import TrialConfig
from segstrat.config_table import markdown, update

DOCS = Path(__file__).parents[1] / "docs" / "spaces.md"


def test_the_docs_are_up_to_date():
    text = DOCS.read_text(encoding="utf-8")
    assert update(text) == text, "run: uv run python -m segstrat.config_table docs/spaces.md"


def test_every_field_has_its_default_and_a_meaning():
    rows = [line.strip("| ").split(" | ") for line in markdown().splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == [field.name for field in dataclasses.fields(TrialConfig)]
    assert all(row[-1].endswith(".") for row in rows)
    (decay,) = [row for row in rows if row[0] == "`weight_decay`"]
    assert decay[1:3] == ["`0.0005`", "a number ≥ 0"]
