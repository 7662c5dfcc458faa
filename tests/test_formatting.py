import numpy as np
import pytest

from segstrat.formatting import format_duration, format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1e-4, "1e-4"),
        (5e-4, "5e-4"),
        (0.02, "0.02"),
        (0.5, "0.5"),
        (3, "3"),
        (np.float64(0.001), "1e-3"),
        (True, "yes"),
        (False, "no"),
        ("x", "x"),
        (("semseg", "parts"), "semseg+parts"),
        (None, "None"),
    ],
)
def test_values_are_written_short(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (6000, "1.7 h"), (200_000, "2.3 days")],
)
def test_durations_have_a_unit(seconds, text):
    assert format_duration(seconds) == text
