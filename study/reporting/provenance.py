"""Where a study's numbers come from: what its manifest says, as rows of words."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

DIGITS = 16
# More numbers are a range.
MOST_NUMBERS = 30


def provenance(manifest: Mapping[str, Any], trials: pd.DataFrame) -> list[tuple[str, str]]:
    """Name and value; unknown ones are left out.

    Args:
        trials: the study's frame, which knows the weights that were really used.
    """
    data, weights = manifest.get("data") or {}, manifest.get("weights") or {}
    commit = str(manifest.get("commit") or "")
    if commit and manifest.get("dirty"):
        commit += " and changes that were not committed"
    images = ""
    if "train_images" in data:
        images = f", {data['train_images']} training and {data.get('val_images')} validation images"
    scheduler = manifest.get("scheduler") or {}
    rungs = ", ".join(f"{share:g}" for share in scheduler.get("rung_fractions", []))
    shares = ", ".join(f"{share:.0%}" for share in scheduler.get("least_shares", []))
    halving = (
        f"screening trials are stopped at {rungs} of their budget with less than {shares} of what the best "
        "one has learned; in screening of one seed, and in searches, also by rank (factor "
        f"{scheduler.get('reduction_factor')})"
        if shares
        else f"successive halving within each arm: factor {scheduler.get('reduction_factor')}, rungs at "
        f"{rungs} of each trial's budget"
    )
    known = {
        "command": manifest.get("command"),
        "created": manifest.get("created"),
        "commit": commit,
        "data": f"{data.get('title') or data['name']}{images}" if "name" in data else "",
        "data digest": data.get("digest"),
        "weights": _weights(weights, trials),
        "accepted changes": "; ".join(_accepted(entry) for entry in manifest.get("accepted") or []),
        "seeds": _numbers(manifest.get("seeds") or []),
        "scheduler": halving if scheduler.get("name") == "asha" else scheduler.get("name"),
        "budget": f"{manifest['budget']:g} of the space's epochs" if "budget" in manifest else "",
        "hardware": _words(manifest.get("hardware")),
        "versions": _words(manifest.get("versions")),
        "confirms": _parent(manifest.get("parent")),
    }
    return [(name, str(value)) for name, value in known.items() if value]


def _weights(weights: Mapping[str, Any], trials: pd.DataFrame) -> str:
    """The source of the weights, and the digest of every file that trials started from."""
    source = str(weights.get("source") or "").rpartition("/")[2]
    if source and weights.get("per_seed"):
        source = f"pre-trained on {source}, once for each answering seed"
    if "weights_digest" not in trials or "seed" not in trials:
        return source
    used = trials[trials["weights_digest"].fillna("") != ""]
    found = []
    for digest, group in used.groupby("weights_digest", sort=False):
        seeds = sorted(set(group["seed"].astype(int)))
        words = f"seed{'s' * (len(seeds) > 1)} {_numbers(seeds)}"
        found.append((seeds, f"{str(digest)[:DIGITS]}… ({words})"))
    return "; ".join(filter(None, [source, *(text for _, text in sorted(found))]))


def _numbers(numbers: Sequence[int]) -> str:
    """`0, 1, 5`; of many the first, the last and how many there are."""
    if len(numbers) <= MOST_NUMBERS:
        return ", ".join(map(str, numbers))
    return f"{min(numbers)} to {max(numbers)} ({len(numbers):,} of them)"


def _accepted(entry: Mapping[str, Any]) -> str:
    """`2026-01-02T03:04:05+00:00: the code in segstrat/ (commit 0123abc)`."""
    commit = f" (commit {str(entry['commit'])[:10]})" if entry.get("commit") else ""
    return f"{entry.get('when')}: {', '.join(entry.get('changes') or [])}{commit}"


def _parent(parent: Mapping[str, Any] | None) -> str:
    if not parent:
        return ""
    return f"the best {parent['top']} cells of each arm of {parent['study']} ({parent['folder']})"


def _words(value: Any) -> str:
    """Nested plain values in a line of words."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} {_words(item)}".strip() for key, item in value.items() if item not in (None, "", [])
        )
    if isinstance(value, list):
        return "; ".join(_words(item) for item in value)
    return "" if value is None else str(value)
