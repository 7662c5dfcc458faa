"""Where a study's numbers come from: what its manifest says, as rows of words."""

from collections.abc import Mapping
from typing import Any


def provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value; unknown ones are left out."""
    data, weights = manifest.get("data") or {}, manifest.get("weights") or {}
    commit = str(manifest.get("commit") or "")
    if commit and manifest.get("dirty"):
        commit += " and changes that were not committed"
    images = ""
    if "train_images" in data:
        images = f", {data['train_images']} training and {data.get('val_images')} validation images"
    scheduler = manifest.get("scheduler") or {}
    rungs = ", ".join(f"{share:g}" for share in scheduler.get("rung_fractions", []))
    halving = (
        f"successive halving within each arm: factor {scheduler.get('reduction_factor')}, rungs at "
        f"{rungs} of each trial's budget"
    )
    known = {
        "command": manifest.get("command"),
        "created": manifest.get("created"),
        "commit": commit,
        "data": f"{data.get('title') or data['name']}{images}" if "name" in data else "",
        "data digest": data.get("digest"),
        "weights": str(weights.get("source") or "").rpartition("/")[2],
        "weights digest": weights.get("digest"),
        "seeds": ", ".join(str(seed) for seed in manifest.get("seeds") or []),
        "scheduler": halving if scheduler.get("name") == "asha" else scheduler.get("name"),
        "budget": f"{manifest['budget']:g} of the space's epochs" if "budget" in manifest else "",
        "hardware": _words(manifest.get("hardware")),
        "versions": _words(manifest.get("versions")),
        "confirms": _parent(manifest.get("parent")),
    }
    return [(name, str(value)) for name, value in known.items() if value]


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
