"""Trial records -> two tidy frames: `trials`, one row per trial, and `epochs`, trial × epoch × split × task.

    from study.frame import load
    trials, epochs = load("results/my-study")

Read `status` first: only a `completed` trial has a final value, and the `last_…` columns of any other trial
are what it showed when it ended. docs/reading-results.md lists the columns.
"""

import hashlib
import io
import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from segstrat.config import start_of
from segstrat.errors import UserError
from segstrat.store import DamagedFileError, StorageError, Store, read_with_copy, say_once
from study.frame.build import (
    ADDED_KEYS,
    EPOCH_KEYS,
    SCHEMA,
    SCORES,
    STATUSES,
    TRIAL_KEYS,
    build_trials_and_epochs,
    epoch_table,
)
from study.frame.schema import check_manifest

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "STATUSES",
    "OldFrameError",
    "build_frames",
    "digests",
    "epoch_table",
    "load",
    "read_frame",
    "read_manifest",
    "write_frames",
]

MANIFEST = "manifest.json"
# Columns of text that may be empty, which CSV does not distinguish from a missing value.
TEXTS = ("error", "checkpoint", "weights_digest", "context")

Frames = tuple[pd.DataFrame, pd.DataFrame]


class OldFrameError(UserError):
    """Frames that lack columns which this version reads."""


def load(folder: str | Path | Store) -> Frames:
    """The frames of a study, as written while it ran.

    `epochs.attrs["classes"]` names the classes of each task, in the order of the `iou` arrays.

    Raises:
        UserError: if there are none.
        OldFrameError: if they were written by a version with other columns.
    """
    store = _store(folder)
    trials, epochs = read_frame(store, "trials"), read_frame(store, "epochs")
    if trials is None or epochs is None:
        raise UserError(
            f"{store.uri} contains no frames (trials.parquet or .csv, epochs.parquet or .csv); "
            "give the folder of a study, such as results/wd_grid"
        )
    missing = [name for name in TRIAL_KEYS if name not in trials and name not in ADDED_KEYS]
    missing += [name for name in (*EPOCH_KEYS, *SCORES, "iou") if name not in epochs]
    if "tasks" in trials:
        prefixes = ("",) if read_manifest(store).get("value") == "best" else ("", "last_")
        tasks = dict.fromkeys(task for names in trials["tasks"] for task in str(names).split("+"))
        parts = itertools.product(prefixes, tasks, ("train", "val"), ("loss", "miou"))
        names = [f"{prefix}{task}_{split}_{score}" for prefix, task, split, score in parts]
        missing += [name for name in names if name not in trials]
    if missing:
        raise OldFrameError(
            f"the frames in {store.uri} are of another version, they lack {', '.join(missing)}; "
            f"`{_command(store)}` writes them again from the trials' records"
        )
    if "initialization" not in trials:
        starts = [start_of("", pretrained=bool(value)) for value in trials["pretrained"]]
        trials.insert(list(trials.columns).index("pretrained") + 1, "initialization", starts)
    epochs.attrs["classes"] = (read_manifest(store).get("data") or {}).get("classes", {})
    return trials, epochs


def _command(store: Store) -> str:
    return f"uv run python -m study.frame {shlex.quote(store.uri)}"


def read_frame(store: Store, name: str) -> pd.DataFrame | None:
    """A frame from its parquet file, or from CSV where that is missing or damaged; None without either.

    Raises:
        UserError: if neither file can be read.
    """
    problem: Exception | None = None
    if store.exists(f"{name}.parquet"):
        try:
            return pd.read_parquet(io.BytesIO(store.read(f"{name}.parquet")))
        except StorageError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            problem = error
    if store.exists(f"{name}.csv"):
        try:
            frame = _read_csv(store.read(f"{name}.csv"))
        except (OSError, ValueError, TypeError) as error:
            problem = problem or error
        else:
            if problem is not None:
                say_once(f"{(store / f'{name}.parquet').uri} cannot be read; {name}.csv is used")
            return frame
    if problem is not None:
        reason = str(problem).partition("\n")[0]
        raise UserError(
            f"{store.uri}: {name}.parquet and {name}.csv cannot be read ({reason}); "
            f"`{_command(store)}` writes them again from the trials' records"
        )
    return None


def read_manifest(folder: str | Path | Store) -> dict[str, Any]:
    """Settings, data, machine and the planned trials; empty where there is no manifest.

    Raises:
        UserError: if it cannot be read.
    """
    store = _store(folder)
    try:
        return read_with_copy(store, MANIFEST, _check_form)
    except FileNotFoundError:
        return {}
    except DamagedFileError as error:
        raise UserError(f"{store.uri}: {error}; restore it from a copy") from error


def _check_form(content: dict[str, Any]) -> None:
    # One of another schema, a newer one for example, is refused by that number.
    if content.get("schema") == SCHEMA:
        check_manifest(content)


def write_frames(folder: str | Path | Store) -> Frames:
    """Builds the frames and writes them as parquet and CSV, each atomically."""
    store = _store(folder)
    trials, epochs = build_frames(store)
    for name, frame in (("trials", trials), ("epochs", epochs)):
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        store.write(f"{name}.parquet", buffer.getvalue())
        text = frame.copy()
        for column in _array_columns(text):
            text[column] = text[column].map(_array_text, na_action="ignore")
        for column in text.columns.difference(_array_columns(text)):
            if not pd.api.types.is_numeric_dtype(text[column]):
                text[column] = text[column].map(_escaped, na_action="ignore")
        store.write(f"{name}.csv", text.to_csv(index=False).encode())
    return trials, epochs


def build_frames(folder: str | Path | Store) -> Frames:
    """The frames of everything in the manifest, from the trials' own records.

    A trial of the manifest without a record yet is in `trials` too, as `unfinished`.

    Raises:
        UserError: if the folder has no manifest, or one of another schema.
    """
    store = _store(folder)
    manifest = read_manifest(store)
    if manifest.get("schema") != SCHEMA:
        found = f"schema {manifest.get('schema')!r}" if manifest else "no manifest.json"
        raise UserError(f"{store.uri} has {found}; expected a study's folder of schema {SCHEMA}")
    return build_trials_and_epochs(store, manifest)


# What a repetition of a study on such a machine may differ in.
INCIDENTAL = ("seconds", "images_per_second", "data_wait", "study", "checkpoint", "error", "device")


def digests(frames: Frames) -> tuple[str, str]:
    """Digests of both frames without times, names and paths: equal where a study was reproduced exactly.

    Returns:
        for `trials` and `epochs` the first 12 hex digits of a SHA-256. The order of rows and columns, columns
        without any value, and whether the frames were read from parquet or CSV make no difference.
    """
    trials, epochs = (frame.drop(columns=[*INCIDENTAL], errors="ignore") for frame in frames)
    return _digest(trials, ["trial_id"]), _digest(epochs, list(EPOCH_KEYS))


def _digest(frame: pd.DataFrame, keys: list[str]) -> str:
    total = hashlib.sha256()
    ordered = frame.dropna(axis=1, how="all").sort_values(keys)
    for name in sorted(map(str, ordered)):
        values = [_plain_text(value) for value in ordered[name]]
        if any(values):
            total.update("\0".join([name, *values]).encode() + b"\n")
    return total.hexdigest()[:12]


def _plain_text(value: Any) -> str:
    """A value of a frame as text that does not depend on its type of number; '' where there is none."""
    if isinstance(value, np.ndarray | list):
        return " ".join(map(_plain_text, value))
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    return repr(float(value))


# Before 3.1, pandas' default parser of numbers is off by one in the last digit now and then.
_EXACT_NUMBERS: dict[str, Any] = {}
if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):
    _EXACT_NUMBERS = {"float_precision": "round_trip"}


def _read_csv(data: bytes) -> pd.DataFrame:
    if not data.endswith(b"\n"):
        raise ValueError("the CSV file is empty or truncated")
    frame = pd.read_csv(io.BytesIO(data), dtype={"trial_id": str}, **_EXACT_NUMBERS)
    for name in TEXTS:
        if name in frame:
            frame[name] = frame[name].astype(object).fillna("")
    for name in _array_columns(frame):
        frame[name] = frame[name].map(_parse_array, na_action="ignore").astype(object)
    for name in frame.columns.difference(_array_columns(frame)):
        if not pd.api.types.is_numeric_dtype(frame[name]):
            frame[name] = frame[name].map(_unescaped, na_action="ignore")
    return frame


# Spreadsheets run text that begins so as a formula, and take an apostrophe before it for "this is text".
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def _escaped(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _unescaped(value: Any) -> Any:
    quoted = isinstance(value, str) and value[:1] == "'" and value[1:].startswith(_FORMULA)
    return value[1:] if quoted else value


def _parse_array(text: str) -> np.ndarray:
    return np.array(json.loads(text), dtype=float)


def _array_text(values: np.ndarray) -> str:
    return json.dumps(values.tolist())


def _array_columns(frame: pd.DataFrame) -> list[str]:
    """Columns whose values are arrays; CSV holds them as JSON lists."""
    return [str(name) for name in frame if name == "iou" or str(name).endswith("_jackknife")]


def _store(folder: str | Path | Store) -> Store:
    return folder if isinstance(folder, Store) else Store(folder)
