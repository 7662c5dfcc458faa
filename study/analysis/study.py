"""`Study`: frames and manifest of one study, what its axes mean, and the contexts that it compares.

A running study and its report see the same `Study`: the one of its trials in memory, the other of the frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segstrat.config import GIVEN, RAW, REGULARIZERS, SELF
from segstrat.formatting import axis_name, format_value, setting_label
from segstrat.image_counts import HALVES
from segstrat.scores import BOUNDARY, MIOU, WORDS, Metric
from segstrat.store import Store
from study.analysis.intervals import CONFIDENCE
from study.analysis.spending import spent_errors, tail_probabilities
from study.frame import load, read_manifest, read_self_supervision
from study.frame.build import (
    HALVED,
    IMAGES,
    START_WORDS,
    TEST,
    VALIDATION,
    identified,
    metric_of,
    splitting_axes,
    untreated_value,
)

# Treatments that train longer instead of regularizing.
LONGER = ("epochs_factor", "schedule")
SCREENING, ANSWERING = "screening", "answering"

# What a network starts from, two by two, as it is compared.
PAIRINGS = ((RAW, GIVEN), (RAW, SELF), (SELF, GIVEN))


@dataclass(frozen=True)
class Study:
    """A study as the analysis sees it.

    Args:
        name: the study's name.
        manifest: what was asked; may be empty.
        trials, epochs: the frames, see `study.frame`; those of earlier versions get the columns they lack.
            Where the study judges its trials by another score than mIoU, the columns of mIoU hold that score
            here, so that everything is computed from it.
    """

    name: str
    manifest: Mapping[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame

    def __post_init__(self) -> None:
        if "initialization" not in self.trials:
            starts = np.where(self.trials["pretrained"].astype(bool), GIVEN, RAW)
            object.__setattr__(self, "trials", self.trials.assign(initialization=starts))
        if not {"cell", "setting", "context", "reference"} <= set(self.trials):
            object.__setattr__(self, "trials", identified(self.trials, self.manifest))
        if self.metric.score != MIOU:
            object.__setattr__(self, "trials", by_own_score(self.trials, self.metric))
            object.__setattr__(self, "epochs", epochs_by_own_score(self.epochs, self.metric))

    @property
    def metric(self) -> Metric:
        """By what the study judges its trials."""
        return metric_of(self.manifest)

    def score_words(self, task: str) -> str:
        """The score by which the trials of a task are judged, such as `mIoU`."""
        return self.metric.of(task).words

    @classmethod
    def open(cls, folder: str | Path | Store) -> "Study":
        """Reads a study's folder.

        Raises:
            UserError: if there are no frames, or of another version.
        """
        store = folder if isinstance(folder, Store) else Store(folder)
        trials, epochs = load(store)
        manifest = read_manifest(store)
        if runs := read_self_supervision(store):
            manifest = {**manifest, "self_supervision": runs}
        name = manifest.get("study") or store.uri.rstrip("/").rpartition("/")[2]
        return cls(name, manifest, trials, epochs)

    def axes(self, role: str) -> list[str]:
        """Names of the axes of a role (`arm`, `treatment`, `nuisance`, `tuned`) that the frame has."""
        roles = self.manifest.get("roles") or {}
        return [axis for axis, found in roles.items() if found == role and axis in self.trials]

    @property
    def pairings(self) -> tuple[tuple[str, str], ...]:
        """The starting points that are compared, two by two; the first pair is the study's main one."""
        starts = set(self.trials["initialization"])
        return tuple(pair for pair in PAIRINGS if starts >= set(pair)) or PAIRINGS[:1]

    @property
    def plans(self) -> tuple[int, ...]:
        """See `Context.plans`."""
        ended = self.manifest.get("extended_from") or ()
        return (*ended, len(self.manifest["seeds"])) if ended else ()

    def self_seconds(self, trials: pd.DataFrame) -> pd.Series:
        """Seconds of the self-supervision that each trial starts from: 0 without any, NaN where unknown."""
        runs = self.manifest.get("self_supervision") or ()
        if not runs:
            return pd.Series(np.nan, index=trials.index).where(trials["initialization"] == SELF, 0.0)
        known = {(run["backbone"], run["width"], run["seed"]): run.get("seconds", np.nan) for run in runs}
        widths = trials["width"] if "width" in trials else pd.Series(1.0, index=trials.index)
        keys = zip(trials["backbone"], widths, trials["seed"], strict=True)
        seconds = pd.Series([known.get(key, np.nan) for key in keys], index=trials.index, dtype=float)
        return seconds.where(trials["initialization"] == SELF, 0.0)

    @property
    def varies_multi_task(self) -> bool:
        """Whether multi-task training is among what may stand in for pre-training."""
        return self.trials["multi_task"].astype(bool).nunique() > 1

    @property
    def tasks(self) -> list[str]:
        """Tasks that any trial learned, the one of the study's metric first."""
        names = self.trials["tasks"].unique()
        found = dict.fromkeys(task for tasks in names for task in str(tasks).split("+"))
        return sorted(found, key=lambda task: task != self.metric.task)

    def trials_of(self, task: str) -> pd.DataFrame:
        """The trials that learned a task."""
        names = [tasks for tasks in self.trials["tasks"].unique() if task in str(tasks).split("+")]
        return self.trials[self.trials["tasks"].isin(names)]

    def strategies(self, task: str) -> tuple[str, ...]:
        """Axes whose values make a setting: `tasks` where the task's trials vary it, then the treatments."""
        tasks_axis = ["tasks"] if self.trials_of(task)["tasks"].nunique() > 1 else []
        return (*tasks_axis, *self.axes("treatment"))

    def reference_levels(self, task: str) -> dict[str, Any]:
        """The reference's value on each axis of `strategies`; this is its only definition.

        The reference is raw (trained from scratch), single-task, with every regularizer at 0. A treatment
        that is not a regularizer, such as the strength of augmentation, has its smallest value there. A study
        need not contain the reference.
        """
        trials = self.trials_of(task)
        levels: dict[str, Any] = {}
        for axis in self.strategies(task):
            if axis == "tasks":
                levels[axis] = min(trials[axis], key=lambda tasks: (str(tasks).count("+"), str(tasks)))
            else:
                levels[axis] = untreated_value(axis, trials[axis])
        return levels

    @property
    def fixed_regularizers(self) -> dict[str, float]:
        """Regularizers that every trial has, the reference included, with their strength."""
        found = {}
        for axis in REGULARIZERS:
            levels = set(self.trials[axis].astype(float)) if axis in self.trials else set()
            if len(levels) == 1 and levels != {0.0}:
                found[axis] = levels.pop()
        return found

    @property
    def protocols(self) -> set[str]:
        """Keys of the data protocols of its trials."""
        return set(self.trials["data"].astype(str)) if "data" in self.trials else set()

    @property
    def value(self) -> str:
        """Prefix of the primary value's columns: the last epoch's, or the best's where only that is known.

        The last epoch of a completed trial is not selected; published tables may have the best one only.
        """
        return "" if self.manifest.get("value") == "best" else "last_"

    def column(self, task: str, split: str, score: str) -> str:
        """Column of `trials` with the primary value of a score."""
        return f"{self.value}{task}_{split}_{score}"

    def training_split(self, task: str) -> str:
        """On which training scores trials are compared.

        `train_clean`, whole images without augmentation or dropout, where every trial that completed has
        them; otherwise `train`, the augmented crops of the last epoch (and all that the thesis has).
        """
        trials = self.trials_of(task)
        completed = trials[trials["status"] == "completed"]
        clean = completed.get(self.column(task, "train_clean", "miou"))
        known = clean is not None and len(clean) > 0 and bool(clean.notna().all())
        return "train_clean" if known else "train"

    def training_words(self, task: str) -> str:
        """What the training scores are that trials are compared by, a sentence."""
        if self.training_split(task) == "train":
            return "Training scores are those of augmented crops while training."
        return "Training scores are those of training images without augmentation, after the last epoch."

    @property
    def data_name(self) -> str:
        """Name of the protocol or of the user's data set, with `(synthetic)` where the data is drawn."""
        data = self.manifest.get("data") or {}
        name = str(data.get("title") or data.get("name", "unknown data"))
        return f"{name} (synthetic)" if data.get("synthetic") else name


def by_own_score(trials: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The `trials` frame with the study's score in the columns of mIoU."""
    renamed: dict[str, str] = {}
    for task in dict.fromkeys(task for tasks in trials["tasks"] for task in str(tasks).split("+")):
        own = metric.of(task).score
        pairs = zip(*(_score_names(task, score) for score in (MIOU, own)), strict=True)
        if own != MIOU:
            renamed |= {miou: trials.get(name, np.nan) for miou, name in pairs if miou in trials}
    return trials.assign(**renamed)


def epochs_by_own_score(epochs: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The `epochs` frame with the study's score as `miou`."""
    if epochs.empty:
        return epochs
    if metric.score == BOUNDARY:
        return epochs.assign(miou=epochs.get(BOUNDARY, np.nan))
    rows = zip(epochs["task"], epochs["miou"], epochs["iou"], strict=True)
    own = {task: metric.of(task) for task in epochs["task"].unique()}
    scores = [miou if own[task].score == MIOU else own[task].from_iou(iou) for task, miou, iou in rows]
    return epochs.assign(miou=scores)


def _score_names(task: str, score: str) -> list[str]:
    """The columns of a score."""
    final = [
        f"{prefix}{task}_{split}_{score}"
        for prefix in ("", "last_")
        for split in ("train", "train_clean", "val", "test")
    ]
    halves = [f"last_{task}_val_{score}_{half}" for half in HALVES]
    both = [f"{task}_{split}_constant_{score}" for split in ("val", "test")]
    return [*final, *halves, *both, *(f"last_{task}_{split}_{score}_jackknife" for split in ("val", "test"))]


@dataclass(frozen=True)
class Context:
    """The trials among which raw is compared with pre-trained.

    A context has one task and one value of every axis that is not a strategy (backbone, nuisance axes).

    Args:
        fixed: values of the axes that distinguish this context from the study's others.
        reference: the reference's value on each axis that makes a setting, see `Study.reference_levels`.
        trials: the context's trials.
        tuned: axes whose best value is chosen for each setting.
        key: by which the manifest's `answering` knows it; unlike its label it is never shown alone.
        images: on which its scores are reported, one of `study.frame.build.IMAGES`.
        floor: score of the best constant prediction on these images, with which a diverged trial counts;
            None if unknown.
        score: by which its trials are judged, in words.
        starts: what the two arms start from. What every column calls raw is the first, and what it calls
            pre-trained the second.
        pairings: how many pairs of starting points the study compares; they share an error of 5 %.
        plans: with how many seeds a study of one stage was answered before it got more, and how many it has
            now; empty where it was planned so from the beginning.
    """

    task: str
    fixed: Mapping[str, Any]
    reference: Mapping[str, Any]
    trials: pd.DataFrame
    tuned: tuple[str, ...] = ()
    key: str = ""
    images: str = VALIDATION
    floor: float | None = None
    score: str = WORDS[MIOU]
    starts: tuple[str, str] = PAIRINGS[0]
    pairings: int = 1
    plans: tuple[int, ...] = ()

    @property
    def strategies(self) -> tuple[str, ...]:
        """Axes whose values make a setting: `tasks` where varied, then the treatments."""
        return tuple(self.reference)

    @property
    def label(self) -> str:
        """The fixed values and what is compared, in words; empty where the study has one context only."""
        pairing = f"{self.pretrained_name} against {self.raw_name}" if self.pairings > 1 else ""
        return ", ".join(filter(None, [self.values_label, pairing]))

    @property
    def values_label(self) -> str:
        """The fixed values alone, without the starting points."""
        return ", ".join(f"{axis_name(axis)} {format_value(value)}" for axis, value in self.fixed.items())

    @property
    def raw_name(self) -> str:
        """The arm that is to catch up, in words."""
        return START_WORDS[self.starts[0]]

    @property
    def pretrained_name(self) -> str:
        """The arm that it is compared with, in words."""
        return START_WORDS[self.starts[1]]

    @property
    def pretraining_name(self) -> str:
        """What that arm has had, in words."""
        return "pre-training" if self.starts[1] == GIVEN else "self-supervised pre-training"

    @property
    def lines(self) -> tuple[str, str, str, str]:
        """The settings that figures show, in words: the three that are compared, and one more."""
        return (
            f"{self.raw_name}, reference",
            f"{self.raw_name}, best regularized",
            f"{self.pretrained_name}, best",
            f"{self.pretrained_name}, at the reference's setting",
        )

    @property
    def confidence(self) -> float:
        """With which each interval of a study of one stage is computed."""
        ordinary = 1 - (1 - CONFIDENCE) / self.pairings
        if not self.plans:
            return ordinary
        each_side = tuple(error / 2 for error in self._spent)
        # After few added seeds the extension's error alone would allow narrower ones.
        return max(ordinary, 1 - 2 * tail_probabilities(self.plans, each_side)[-1])

    @property
    def joint_confidence(self) -> float:
        """With which such an interval holds, together with those of earlier answers if there are any."""
        return round(1 - self._spent[-1], 6) if self.plans else self.confidence

    @property
    def _spent(self) -> tuple[float, ...]:
        return spent_errors(self.plans, self.plans, (1 - CONFIDENCE) / self.pairings)

    @property
    def pretrained(self) -> pd.Series:
        """Whether each trial starts from pre-trained weights."""
        return self.trials["pretrained"].astype(bool)

    @property
    def completed(self) -> pd.Series:
        """Whether each trial was completed."""
        return self.trials["status"] == "completed"

    @property
    def settings(self) -> pd.Series:
        """The label of each trial's setting with its tuned values, indexed like `trials`."""
        if not self.tuned:
            return self.untuned_settings
        values = zip(*(self.trials[axis] for axis in self.tuned), strict=True)
        labels = [
            f"{setting} ({setting_label(dict(zip(self.tuned, row, strict=True)))})"
            for setting, row in zip(self.untuned_settings, values, strict=True)
        ]
        return pd.Series(labels, index=self.trials.index, dtype=object)

    @property
    def cell_labels(self) -> dict[str, str]:
        """The label of each cell's setting with its tuned values; two arms may have the same."""
        return dict(zip(self.trials["cell"], self.settings, strict=True))

    @property
    def untuned_settings(self) -> pd.Series:
        """The label of each trial's setting, for which the tuned values are chosen; indexed like `trials`."""
        axes = self.strategies
        rows = [*zip(*(self.trials[axis] for axis in axes), strict=True)] or [()] * len(self.trials)
        labels = {row: setting_label(dict(zip(axes, row, strict=True))) for row in dict.fromkeys(rows)}
        if len(set(labels.values())) < len(labels):
            # Sampled values may agree in the digits that a label shows.
            labels = {row: ", ".join(map(str, row)) for row in labels}
        return pd.Series([labels[row] for row in rows], index=self.trials.index, dtype=object)

    @property
    def answerable(self) -> bool:
        """Whether its arms can be compared: there are a reference, another raw cell and a pre-trained one.

        A task of multi-task arms alone has no raw cell but its reference.
        """
        reference, pretrained = self.trials["reference"].astype(bool), self.pretrained
        return bool(reference.any() and pretrained.any() and (~reference & ~pretrained).any())

    def in_stage(self, stage: str) -> "Context":
        """The context without the trials of other stages; a frame without stages has answering trials."""
        stages = self.trials.get("stage", pd.Series(ANSWERING, index=self.trials.index))
        return replace(self, trials=self.trials[stages == stage])

    @property
    def reference_setting(self) -> str:
        """The untuned label of the reference's setting; the context need not have a trial with it."""
        return setting_label(self.reference)

    def at_reference(self, *, but: tuple[str, ...] = ()) -> pd.Series:
        """Which trials have the reference's value on every axis except those named in `but`."""
        found = pd.Series(True, index=self.trials.index)
        for axis, level in self.reference.items():
            if axis not in but:
                found &= self.trials[axis] == level
        return found


def contexts(study: Study, task: str) -> list[Context]:
    """The comparisons that a study allows for a task, in the order of their values."""
    return [paired for group in groups(study, task) for paired in _pairs(study, group)]


def groups(study: Study, task: str) -> list[Context]:
    """The trials of a task that differ in starting point and setting alone, whatever they start from."""
    trials = study.trials_of(task)
    if trials.empty:
        return []
    reference = study.reference_levels(task)
    tuned = tuple(study.axes("tuned"))
    splitting = [axis for axis in splitting_axes(study.manifest.get("roles") or {}) if axis in trials]
    varied = [axis for axis in splitting if trials[axis].nunique(dropna=False) > 1]
    grouped = trials.groupby(splitting, sort=True, dropna=False) if splitting else [((), trials)]
    found = []
    for values, group in grouped:
        fixed = {axis: value for axis, value in zip(splitting, values, strict=True) if axis in varied}
        key = ", ".join(filter(None, [task, group["context"].iloc[0]]))
        images = reporting_images(study, key, task, group)
        floor = _floor(study, task, group, "test" if images == TEST else "val")
        score = study.score_words(task)
        context = Context(task, fixed, reference, group, tuned, key, images, floor, score)
        found.append(replace(context, plans=study.plans))
    return found


def _pairs(study: Study, group: Context) -> list[Context]:
    """A group's trials, two starting points at a time."""
    pairings = study.pairings
    found = []
    for pairing in pairings:
        trials = group.trials
        if pairing != PAIRINGS[0] or len(pairings) > 1:
            trials = trials[trials["initialization"].isin(pairing)]
            first = trials["initialization"] == pairing[0]
            at_reference = replace(group, trials=trials).at_reference()
            trials = trials.assign(pretrained=~first, reference=first & at_reference)
        paired = replace(group, trials=trials, starts=pairing, pairings=len(pairings))
        if len(pairings) > 1:
            paired = replace(paired, key=f"{group.key}, {paired.pretrained_name} against {paired.raw_name}")
            recorded = (study.manifest.get("answering") or {}).get(paired.key, {}).get("images")
            paired = replace(paired, images=recorded or group.images)
        found.append(paired)
    return found


def reporting_images(study: Study, key: str, task: str, trials: pd.DataFrame) -> str:
    """The images on which a context reports, one of `study.frame.build.IMAGES`.

    A setting that was chosen because it did well on some images looks better on them than on others. So a
    study with a test split chooses on validation images and reports on test images. Without one, and with
    pixel counts of every image, each half of the validation images chooses for the other half. Otherwise the
    same images choose and report, and the report says so.

    They are fixed by the trials that choose, all of which must have been scored on them, and recorded in the
    manifest before the first look; a lost file never changes them.

    Args:
        key: the context's.
        trials: the context's.
    """
    recorded = (study.manifest.get("answering") or {}).get(key, {}).get("images")
    if recorded:
        return str(recorded)
    screening = trials[trials["stage"] == SCREENING] if "stage" in trials else trials.iloc[:0]
    choosing = screening if len(screening) and study.manifest.get("design") else trials
    completed = choosing[choosing["status"] == "completed"]
    if f"{task}_images" in completed:
        found = completed[f"{task}_images"].dropna()
    else:
        found = _scored_images(completed, task)
    return min(found, key=IMAGES.index, default=VALIDATION)


def _scored_images(trials: pd.DataFrame, task: str) -> pd.Series:
    """The best images on which each trial has a score, for frames that do not say it."""

    def has(column: str) -> pd.Series:
        return trials[column].notna() if column in trials else pd.Series(False, index=trials.index)

    halves = np.logical_and.reduce([has(f"last_{task}_val_miou_{half}") for half in HALVES])
    found = pd.Series(np.where(halves, HALVED, VALIDATION), index=trials.index)
    return found.where(~has(f"last_{task}_test_miou"), TEST)


def _floor(study: Study, task: str, trials: pd.DataFrame, split: str) -> float | None:
    """mIoU of the best constant prediction, which depends on labels only; None where nothing says it.

    Args:
        trials: of the context. Another context of the same data has the same floor.
    """
    everywhere = study.trials
    if "data" in everywhere:
        everywhere = everywhere[everywhere["data"].isin(set(trials["data"]))]
    for place in dict.fromkeys((split, "val")):
        column = f"{task}_{place}_constant_miou"
        for source in (trials, everywhere):
            if column in source and source[column].notna().any():
                return float(source[column].dropna().iloc[0])
        known = (study.manifest.get("data") or {}).get("constant_miou", {}).get(task, {})
        if place in known and study.metric.of(task).score == MIOU:
            return float(known[place])
    return None
