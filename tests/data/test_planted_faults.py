"""No planted fault passes the check of the data without a word, and what is sound passes without one."""

from pathlib import Path

import numpy as np
import pytest

from segstrat.data import build_protocol
from segstrat.data.audit.checks import audit
from segstrat.data.audit.headers import Needs
from segstrat.errors import UserError
from tests.data.planted import ASKED, FAULTS, sound

NEEDS = Needs(stride=32, smallest_crop=48, largest_crop=64)


def said(root: Path, cache: Path | None = None) -> list[str]:
    """Errors and warnings of the check that a study makes."""
    try:
        report = audit(build_protocol("folder", root, cache_dir=cache), needs=NEEDS)
    except UserError as error:
        return [str(error)]
    return [*report.errors, *report.warnings]


@pytest.mark.parametrize("seed", range(10))
def test_a_sound_data_set_passes_without_a_word(tmp_path, seed):
    sound(tmp_path / "data", seed, square=seed % 2 == 0)
    assert said(tmp_path / "data") == []


@pytest.mark.parametrize("name", FAULTS)
def test_every_kind_of_fault_is_said(tmp_path, name):
    data = sound(tmp_path / "data", len(name), **ASKED[name])
    FAULTS[name](data)
    data.describe()
    messages = said(tmp_path / "data")
    assert messages
    assert all("\n" not in message for message in messages)


@pytest.mark.slow
def test_a_hundred_random_data_sets_with_a_fault(tmp_path):
    rng = np.random.default_rng(7)
    silent = []
    for seed in range(100):
        name = str(rng.choice(list(FAULTS)))
        root = tmp_path / f"data{seed}"
        data = sound(root, 100 + seed, **ASKED[name])
        FAULTS[name](data)
        data.describe()
        cache = tmp_path / f"cache{seed}" if seed % 2 else None
        if not said(root, cache):
            silent.append((seed, name))
    assert silent == []
