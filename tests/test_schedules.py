import math

import pytest

from segstrat.schedules import cosine


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 1.0), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1.0, 0.0), (2.0, 0.0)]
)
def test_cosine_has_the_closed_forms_values(progress: float, share: float):
    assert math.isclose(cosine(progress), share, abs_tol=1e-12)
