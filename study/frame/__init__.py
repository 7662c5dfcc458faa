"""Trial records -> two tidy frames: `trials`, one row per trial, and `epochs`, trial × epoch × split × task.

    from study.frame import load
    trials, epochs = load("results/my-study")

While a study runs, its frames grow by parts (`GrowingFrames`), which `load` puts together; in the end there
are `trials` and `epochs` alone, each as parquet and CSV.

Read `status` first: only a `completed` trial has a final value, and the `last_…` columns of any other trial
are what it showed when it ended. docs/reading-results.md lists the columns.
"""

import hashlib
import io
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
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
    Rows,
    build_trials_and_epochs,
    epoch_table,
    frames_of,
    rows_of,
)
from study.frame.schema import check_manifest

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "STATUSES",
    "GrowingFrames",
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
SELF_SUPERVISION = "self-supervision.json"
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
    trials, epochs, facts = _load(_store(folder))
    epochs.attrs["classes"] = facts["classes"]
    return trials, epochs


def _load(store: Store) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """The frames, and what their files hold besides the rows, see `_frame_facts`."""
    frames = _read_frames(store)
    # What is needed of the manifest, which is long where there are many trials, is in the files themselves.
    known = {str(key): value for key, value in frames[0].attrs.items()}
    facts = known if "classes" in known else _frame_facts(read_manifest(store))
    for frame in frames:
        # pandas copies them with each operation.
        frame.attrs = {}
    trials, epochs = _with_parts(store, frames, facts)
    missing = [name for name in TRIAL_KEYS if name not in trials and name not in ADDED_KEYS]
    missing += [name for name in (*EPOCH_KEYS, *SCORES, "iou") if name not in epochs]
    if "tasks" in trials:
        prefixes = ("",) if facts["value"] == "best" else ("", "last_")
        tasks = dict.fromkeys(task for names in trials["tasks"].unique() for task in str(names).split("+"))
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
        trials.insert(list(trials).index("pretrained") + 1, "initialization", starts)
    return trials, epochs, facts


def _read_frames(store: Store) -> Frames:
    trials, epochs = read_frame(store, "trials"), read_frame(store, "epochs")
    if trials is None or epochs is None:
        raise UserError(
            f"{store.uri} contains no frames (trials.parquet or .csv, epochs.parquet or .csv); "
            "give the folder of a study, such as results/wd_grid"
        )
    return trials, epochs


def _frame_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What parquet files of the frames hold besides the rows."""
    classes = (manifest.get("data") or {}).get("classes", {})
    return {"classes": classes, **{name: manifest.get(name) for name in ("value", "metric", "roles")}}


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


def read_self_supervision(folder: str | Path | Store) -> list[dict[str, Any]]:
    """What the runs of self-supervision of a study learned, and their seconds, in the order of their seeds.

    Empty where there are none, or where the file cannot be read, which is said: no answer depends on it.
    """
    store = _store(folder)
    try:
        content = read_with_copy(store, SELF_SUPERVISION)
        return sorted(content.values(), key=lambda run: (run["seed"], run["backbone"], run["width"]))
    except FileNotFoundError:
        return []
    except (DamagedFileError, AttributeError, KeyError, TypeError) as error:
        name = f"{store.uri}/{SELF_SUPERVISION}"
        say_once(f"{name} cannot be read ({error}); the report shows no self-supervision")
        return []


def _check_form(content: dict[str, Any]) -> None:
    # One of another schema, a newer one for example, is refused by that number.
    if content.get("schema") == SCHEMA:
        check_manifest(content)


def write_frames(folder: str | Path | Store) -> Frames:
    """Builds the frames and writes them as parquet and CSV, each atomically."""
    store = _store(folder)
    frames = build_frames(store)
    _write_frames(store, frames, _frame_facts(read_manifest(store)))
    return frames


def _write_frames(store: Store, frames: Frames, facts: dict[str, Any]) -> None:
    """Writes both frames in place of what there is; a kill at any moment leaves frames that `load` can read.

    The epochs come first, so that a trial that has ended is never without them, and the parts go last.
    """
    parts = [_part_name(*span) for span in _parts(store)]
    for name, frame in zip(("epochs", "trials"), frames[::-1], strict=True):
        store.write(f"{name}.parquet", _parquet(frame, facts))
        text = frame.copy()
        for column in _array_columns(text):
            text[column] = text[column].map(_array_text, na_action="ignore")
        for column in text.columns.difference(_array_columns(text)):
            if not pd.api.types.is_numeric_dtype(text[column]):
                text[column] = text[column].map(_escaped, na_action="ignore")
        store.write(f"{name}.csv", text.to_csv(index=False).encode())
    for part in parts:
        store.delete(part)


def _parquet(frame: pd.DataFrame, facts: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    frame = frame.copy(deep=False)
    frame.attrs.update(facts)
    # Scores hardly ever repeat: a dictionary of them takes longer to write and to read than they do.
    texts = [name for name in map(str, frame) if frame[name].dtype in (object, "str")]
    frame.to_parquet(
        buffer, index=False, use_dictionary=[each for each in texts if each not in _array_columns(frame)]
    )
    return buffer.getvalue()


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


# A part of the frames of a running study: a line of JSON for each trial that changed at the steps `first` to
# `last`, with its rows.
_PART = re.compile(r"frames-(\d{6})-(\d{6})\.jsonl")
# So many parts of one size become one of the next.
FANOUT = 8


class GrowingFrames:
    """The frames of a study that runs, written in constant time for each trial that changes.

    The first call writes them as a whole; each further one writes a part with the rows of the changed trials.
    Eight parts of one size become one, so that there are few of them and each row is copied a few times only.
    `gather` makes frames of all of them, once they have grown enough.

    Args:
        study: the study's folder, of which there is no other writer.
        manifest: gives the study's manifest as it is now.
    """

    def __init__(self, study: Store, manifest: Callable[[], Mapping[str, Any]]) -> None:
        self._study = study
        self._manifest = manifest
        self._known: set[str] = set()
        self._step = 0
        # Trials in the frames, and in the parts since.
        self._whole = self._since = 0

    def update(self, trial_ids: Iterable[str]) -> None:
        """Writes these trials, and those that are new in the manifest, as their records say now."""
        manifest = self._manifest()
        planned = {trial["trial_id"]: trial for trial in manifest["trials"]}
        if not self._whole:
            write_frames(self._study)
            self._known, self._whole = {*planned}, len(planned)
            return
        changed = sorted(({*planned} - self._known) | ({*trial_ids} & {*planned}))
        if not changed:
            return
        rows = [rows_of(self._study, manifest, planned[trial_id]) for trial_id in changed]
        self._step += 1
        text = "".join(json.dumps(each, default=np.ndarray.tolist) + "\n" for each in rows)
        self._study.write(_part_name(self._step, self._step), text.encode())
        self._known.update(changed)
        self._since += len(changed)
        self._merge()

    def gather(self) -> None:
        """Writes the frames with the rows of all parts, where these are an eighth of them."""
        if self._since and self._since * FANOUT >= self._whole:
            trials, epochs, facts = _load(self._study)
            _write_frames(self._study, (trials, epochs), facts)
            self._whole, self._since = len(trials), 0

    def _merge(self) -> None:
        """Makes one part of the last ones, as long as so many of them have one size."""
        size = FANOUT
        while self._step % size == 0:
            spans = [span for span in _parts(self._study) if span[0] > self._step - size]
            if len(spans) > 1:
                joined = b"".join(self._study.read(_part_name(*span)) for span in spans)
                self._study.write(_part_name(spans[0][0], spans[-1][1]), joined)
                for span in spans:
                    self._study.delete(_part_name(*span))
            size *= FANOUT


def _part_name(first: int, last: int) -> str:
    return f"frames-{first:06d}-{last:06d}.jsonl"


def _parts(store: Store) -> list[tuple[int, int]]:
    """First and last step of each part, in order; one that is within another one was merged into it."""
    spans = [(int(match[1]), int(match[2])) for name in store.names() if (match := _PART.fullmatch(name))]
    kept: list[tuple[int, int]] = []
    for first, last in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or first > kept[-1][1]:
            kept.append((first, last))
    return kept


# A running study merges parts now and then; what is listed may be gone when it is read.
_TRIES = 5


def _with_parts(store: Store, frames: Frames, facts: Mapping[str, Any]) -> Frames:
    """The frames with what the parts of a running study say."""
    for left in reversed(range(_TRIES)):
        try:
            parts = [store.read(_part_name(*span)) for span in _parts(store)]
        except FileNotFoundError:
            if not left:
                raise
        else:
            break
    newest: dict[str, Rows] = {}
    try:
        for line in b"".join(parts).splitlines():
            row, epoch_rows = json.loads(line)
            newest[row["trial_id"]] = row, epoch_rows
        return _joined(frames, list(newest.values()), facts) if newest else frames
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{store.uri}: a part of the frames (frames-….jsonl) cannot be read ({type(error).__name__}); "
            f"`{_command(store)}` writes them again from the trials' records"
        ) from error


def _joined(frames: Frames, newer: list[Rows], facts: Mapping[str, Any]) -> Frames:
    """The frames with newer rows of some trials, in the order of the study."""
    for row in itertools.chain.from_iterable([trial, *of_epochs] for trial, of_epochs in newer):
        row |= {name: np.array(value, float) for name, value in row.items() if isinstance(value, list)}
    added = frames_of(newer, {**facts, "data": {"classes": facts["classes"]}})
    replaced = {row["trial_id"] for row, _ in newer}
    trials, epochs = (
        pd.concat(
            [part for part in (old[~old["trial_id"].isin(replaced)], new) if len(part)], ignore_index=True
        )
        if len(new)
        else old
        for old, new in zip(frames, added, strict=True)
    )
    # A column without a value in one part has no type there.
    trials = trials.infer_objects().sort_values("order", ignore_index=True)
    places = epochs["trial_id"].map(dict(zip(trials["trial_id"], trials.index, strict=True)))
    epochs = epochs.iloc[places.argsort(kind="stable")].reset_index(drop=True)
    return trials, epochs


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
