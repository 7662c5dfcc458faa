"""The provenance of a report: the weights that trials really used, and changes that were accepted."""

import pandas as pd

from study.reporting.provenance import provenance


def frame(*rows: tuple[int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["seed", "weights_digest"])


def test_the_weights_that_were_used_are_named_with_their_seeds():
    manifest = {"weights": {"source": "/tmp/photos", "per_seed": True}}
    trials = frame((2, "b" * 64), (0, "a" * 64), (1, "a" * 64), (0, ""))
    rows = dict(provenance(manifest, trials))
    assert rows["weights"] == (
        f"pre-trained on photos, once for each answering seed; {'a' * 16}… (seeds 0, 1); {'b' * 16}… (seed 2)"
    )


def test_weights_are_left_out_where_none_were_used():
    assert "weights" not in dict(provenance({"weights": {"source": ""}}, frame((0, ""))))


def test_accepted_changes_are_told_with_their_time():
    accepted = [
        {"when": "2026-01-02", "changes": ["the code in segstrat/"], "commit": "0123456789abc"},
        {"when": "2026-01-03", "changes": ["the data d1", "the budget (1 before, 2 now)"], "commit": None},
    ]
    assert dict(provenance({"accepted": accepted}, frame()))["accepted changes"] == (
        "2026-01-02: the code in segstrat/ (commit 0123456789); "
        "2026-01-03: the data d1, the budget (1 before, 2 now)"
    )
