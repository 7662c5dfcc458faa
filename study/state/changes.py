"""What differs between a study's beginning and its resume: refused with advice, or accepted and kept."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segstrat.errors import UserError
from segstrat.store import DamagedFileError, Store, read_object
from study.analysis.intervals import MIN_SEEDS
from study.state.manifest import meaning

RESTORE = "go back to commit {commit}"
# What a resumed study must share with its beginning: the manifest's key, its words, and how to undo a change.
FIXED = {
    "space_source": ("the space's file", "restore that file"),
    "code": ("the code in segstrat/", RESTORE),
    "scheduler": ("the scheduler", "leave out --scheduler"),
    "seeds": ("the seeds", "leave out --seeds"),
    "budget": ("the budget", "leave out --budget"),
    "weights": ("the pre-trained weights", "give those of the beginning ({weights})"),
    "precision": ("the precision", "pass --precision {precision}"),
}
SHOWN = ("seeds", "budget", "precision")
# Packages of which two major versions give other trials: OpenCV 4.14 and 5.0 warp an image to other pixels,
# and Optuna 4.9 and 5.0 propose other points from the same trials.
MAJOR_VERSIONS = {"opencv-python-headless": "OpenCV", "optuna": "Optuna"}


@dataclass(frozen=True)
class Change:
    """One difference in words, and what undoes it."""

    words: str
    advice: str


def changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What differs between a study's beginning and its resume."""
    places = {
        "commit": (recorded.get("commit") or "unknown")[:10],
        "weights": (recorded.get("weights") or {}).get("source") or "none",
        "precision": recorded.get("precision"),
    }
    found = []
    for key, (words, advice) in FIXED.items():
        before, after = recorded.get(key), now.get(key)
        if key == "weights":
            before, after = weights_identity(before or {}), weights_identity(after or {})
        if key == "space_source":
            before, after = meaning((before or "").encode()), meaning((after or "").encode())
        if key == "precision" and before is None:
            # Not recorded by earlier versions.
            continue
        if before != after and not (key == "seeds" and _only_more_seeds(recorded, now)):
            if key in SHOWN:
                words += f" ({before} before, {after} now)"
            found.append(Change(words, advice.format(**places)))
    found += _other_versions(recorded, now)
    numerics_now = now["options"]["numerics"]
    for name, before in recorded["options"]["numerics"].items():
        after = numerics_now.get(name)
        if name == "precision" and recorded.get("precision") is not None:
            # Compared above: `auto` and the precision that it means here do not differ.
            continue
        if before != after:
            flag = f"--{name.replace('_', '-')}"
            found.append(Change(f"{flag} ({before} before, {after} now)", f"leave out {flag}"))
    if recorded["data"]["digest"] != now["data"]["digest"]:
        name = now["data"]["name"]
        found.append(Change(f"the data {name}", "restore its files, or give the same --data and --data-root"))
    # Trials that a search proposed are in both: they are read from the recorded manifest.
    old, new = _trial_ids(recorded), _trial_ids(now)
    expected = old <= new if _only_more_seeds(recorded, now) else old == new
    if not expected and not found:
        words = f"the trials ({len(new - old)} new, {len(old - new)} gone)"
        found.append(Change(words, RESTORE.format(**places)))
    return found


def _other_versions(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Packages of another major version, whose other versions give other trials."""
    found = []
    for package, name in MAJOR_VERSIONS.items():
        before, after = ((manifest.get("versions") or {}).get(package, "") for manifest in (recorded, now))
        searched = package != "optuna" or now.get("search") == "tpe"
        known = before[:1].isdigit() and after[:1].isdigit()
        if searched and known and before.partition(".")[0] != after.partition(".")[0]:
            words = f"the version of {name} ({before} before, {after} now)"
            found.append(Change(words, f"install {package}=={before}"))
    return found


def weights_identity(weights: Mapping[str, Any]) -> Any:
    """What must stay the same of a manifest's `weights`; a file or folder may be moved.

    Where the project pre-trains, files are added as they are made; `study.driver.weights` compares those.
    """
    own = weights.get("self")
    if own:
        # Files of self-supervision are added as they are made, too.
        rest = {key: value for key, value in weights.items() if key != "self"}
        return [weights_identity(rest), own.get("data_digest"), own.get("epochs")]
    if weights.get("per_seed"):
        return [weights.get("data_digest"), weights.get("epochs")]
    return sorted((weights.get("files") or {}).values()) or weights.get("source")


def refuse_changes(study: Store, found: Sequence[Change]) -> None:
    """Raises a UserError that says what changed since the study was begun, and how to undo it."""
    if found:
        words = ", ".join(change.words for change in found)
        advice = ", ".join(dict.fromkeys(change.advice for change in found))
        raise UserError(
            f"{study.uri} cannot be resumed as it was begun: {words} changed since; {advice}, or pass "
            "--accept-changes to mix both"
        )


def refuse_mixture(study: Store, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises a UserError where accepted changes give cells a second configuration.

    Means over both would stand under the name of one. Trials that are gone from the plan are kept, so that
    those a search proposed are not lost: two trials of one point and seed are what shows it.
    """
    seen: dict[str, str] = {}
    twins = 0
    for trial in now["trials"]:
        config = trial.get("config") or {}
        point = json.dumps([trial.get("axes"), config.get("seed"), config.get("tasks")], sort_keys=True)
        twins += seen.setdefault(point, trial["trial_id"]) != trial["trial_id"]
    if twins:
        words = ", ".join(change.words for change in changes(recorded, now))
        raise UserError(
            f"{study.uri} cannot be resumed: with {words} changed, {twins} of its trials would be trained "
            "again in another configuration, and its cells would mix both; undo that, or give --name for "
            "another study"
        )


def accepted_changes(recorded: Mapping[str, Any], now: Mapping[str, Any], words: Sequence[str]) -> list[Any]:
    """The manifest's `accepted`: all changes that were accepted so far, the newest last.

    Args:
        words: what is accepted now.
    """
    before = list(recorded.get("accepted") or [])
    if not words:
        return before
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return [*before, {"when": when, "changes": list(words), "commit": now.get("commit")}]


def answered_plans(study: Store, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[int]:
    """With how many seeds a study of one stage was answered before it got those of now, ascending.

    Whoever adds seeds because of an answer errs more often than the answer says, so its intervals are
    widened (`study.analysis.study.Context.plans`). Without an interval there was nothing to decide by.
    """
    before = list(recorded.get("extended_from") or ())
    if not _only_more_seeds(recorded, now) or len(recorded["seeds"]) < MIN_SEEDS:
        return before
    try:
        trials = read_object(study, "verdict.json")["trials"]
    except (FileNotFoundError, DamagedFileError, KeyError):
        return before
    answered = trials.get("unfinished") == 0 and trials.get("completed", 0) > 0
    return [*before, len(recorded["seeds"])] if answered else before


def _only_more_seeds(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a study of one stage is extended by seeds: every trial so far keeps its meaning."""
    one_stage = not (recorded.get("design") or now.get("design"))
    return one_stage and set(recorded["seeds"]) < set(now["seeds"])


def _trial_ids(manifest: Mapping[str, Any]) -> set[str]:
    trials: Sequence[Mapping[str, Any]] = manifest["trials"]
    return {trial["trial_id"] for trial in trials}
