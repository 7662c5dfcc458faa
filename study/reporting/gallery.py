"""The report's gallery: the same validation images with their label and each arm's prediction.

`gallery-<task>.npz` is in a study's folder and is made where torch and the checkpoints are (`study/predict.py
--gallery`); reading it needs numpy and pillow only. It holds N images of at most 240 pixels a side, padded to
one size, and the index maps of K predictions:

    images       (N, H, W, 3) uint8 RGB
    valid        (N, 2) int: height and width of each image inside its padding
    labels       (N, H, W) uint8
    predictions  (K, N, H, W) uint8
    names        (K,) str: what made each prediction
    classes      (C,) str
    palette      (256, 3) uint8
    ids          (N,) str
    caption      () str
"""

import base64
import io
import textwrap
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from segstrat.errors import UserError
from segstrat.store import Store, say_once
from study.analysis.study import Study
from study.analysis.verdict import Verdict, decide_all
from study.reporting.figure_files import png
from study.reporting.figure_style import INK, MUTED, style
from study.reporting.plot_training import shown_settings

if TYPE_CHECKING:
    from segstrat.predict import TrainedTrial

VOID = 255
TILE = 240
GALLERY_IMAGES = 6
ARRAYS = ("images", "valid", "labels", "predictions", "names", "classes", "palette", "ids", "caption")


@dataclass(frozen=True)
class Gallery:
    """Rows of tiles below their heads: image, label, then each prediction.

    Args:
        rows: tiles as a page contains them, each with its alternative text.
        keys: the classes that appear, each with its color.
    """

    caption: str
    heads: list[str]
    rows: list[list[tuple[str, str]]]
    keys: list[tuple[str, str]]

    def without_images(self) -> "Gallery":
        """Labels and predictions alone."""
        return replace(self, heads=self.heads[1:], rows=[row[1:] for row in self.rows])


OVERVIEW_ROWS = 3
TITLE_LETTERS, TEXT_LETTERS, HEAD_LETTERS = 74, 104, 24


def overview(gallery: Gallery, lines: Sequence[str]) -> bytes:
    """A PNG that says what a study asked and found: the answer above images, labels and predictions.

    Args:
        lines: the answer itself, then the numbers behind it.
    """
    picked = np.linspace(0, len(gallery.rows) - 1, min(OVERVIEW_ROWS, len(gallery.rows))).round().astype(int)
    title = textwrap.wrap(lines[0], TITLE_LETTERS)
    words = textwrap.wrap(" ".join(lines[1:2]), TEXT_LETTERS)
    above = 0.35 + 0.27 * len(title) + 0.2 * len(words)
    tile = 9.0 / len(gallery.heads)
    with style():
        figure = Figure(figsize=(9, above + 0.45 + tile * len(picked)))
        figure.set_layout_engine("none")
        height = figure.get_figheight()
        figure.text(0.01, 1 - 0.12 / height, "\n".join(title), va="top", size=13, weight="bold", color=INK)
        below = 1 - (0.25 + 0.27 * len(title)) / height
        figure.text(0.01, below, "\n".join(words), va="top", size=10, color=MUTED, linespacing=1.4)
        grid = figure.add_gridspec(
            len(picked), len(gallery.heads), left=0.01, right=0.99, bottom=0.01, wspace=0.03, hspace=0.03,
            top=1 - (above + 0.4) / height,
        )  # fmt: skip
        for row, index in enumerate(picked):
            for column, (source, _) in enumerate(gallery.rows[index]):
                ax = figure.add_subplot(grid[row, column])
                ax.imshow(_decoded(source), interpolation="nearest")
                ax.set_axis_off()
                if row == 0:
                    head = "\n".join(textwrap.wrap(gallery.heads[column], HEAD_LETTERS))
                    ax.set_title(head, size=9, weight="normal", color=MUTED, pad=5)
    return png(figure)


def _decoded(source: str) -> np.ndarray:
    """The pixels of a tile as a page contains it."""
    data = base64.b64decode(source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def file_name(task: str) -> str:
    """Name of a task's gallery in a study's folder."""
    return f"gallery-{task}.npz"


def read_gallery(store: Store, task: str) -> Gallery | None:
    """The gallery of a task; None where the study has none."""
    if not store.exists(file_name(task)):
        return None
    try:
        content = _arrays(store.read(file_name(task)))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        say_once(f"{store.uri}/{file_name(task)} cannot be read ({error}); the report shows no predictions")
        return None
    names = [str(name) for name in content["names"]]
    palette = content["palette"].astype(np.uint8)
    rows = []
    present: set[int] = set()
    for index, image_id in enumerate(content["ids"]):
        height, width = (int(side) for side in content["valid"][index])
        maps = [content["labels"][index], *(each[index] for each in content["predictions"])]
        maps = [each[:height, :width] for each in maps]
        for each in maps:
            present |= {int(value) for value in np.unique(each)}
        tiles = [(_photo(content["images"][index][:height, :width]), f"image {image_id}")]
        for each, what in zip(maps, ["label", *names], strict=True):
            tiles.append((_index_map(each, palette), f"{what} of {image_id}"))
        rows.append(tiles)
    return Gallery(
        caption=str(content["caption"]),
        heads=["image", "label", *names],
        rows=rows,
        keys=_keys(present, [str(name) for name in content["classes"]], palette),
    )


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    found = np.load(io.BytesIO(data))
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise ValueError("it is one array, not an archive of arrays")
    missing = [name for name in ARRAYS if name not in found]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return {name: found[name] for name in ARRAYS}


def write_gallery(store: Store, task: str, **arrays: Any) -> None:
    """Writes a gallery; the arrays are those of this module's docstring."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    store.write(file_name(task), buffer.getvalue())


def _keys(present: set[int], classes: list[str], palette: np.ndarray) -> list[tuple[str, str]]:
    names = {index: name for index, name in enumerate(classes)} | {VOID: "void"}  # noqa: C416
    return [
        (names.get(value, f"class {value}"), "#{:02x}{:02x}{:02x}".format(*palette[value]))
        for value in sorted(present)
    ]


def _photo(image_HWC: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _index_map(index_HW: np.ndarray, palette: np.ndarray) -> str:
    image = Image.fromarray(index_HW.astype(np.uint8), mode="L")
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def make_gallery(study_folder: str, root: Path | None, device: str) -> list[str]:
    """Writes the gallery of each task, for the report to show; returns the tasks that got one.

    Args:
        root: folder of the data sets.
        device: torch device that predicts.

    Raises:
        UserError: if no trial that the report shows has a checkpoint.
    """
    # Imported here: everything else of the report is made without torch.
    from segstrat.predict import load_trial

    store = Store(study_folder)
    study = Study.open(store)
    done = []
    for task in study.tasks:
        verdicts = decide_all(study, task)
        chosen = _gallery_trials(verdicts[0]) if verdicts else []
        models = [
            (name, load_trial(store / "trials" / trial_id, device))
            for name, trial_id in chosen
            if any(file.endswith(".pt") for file in (store / "trials" / trial_id).names())
        ]
        if models:
            _write_task_gallery(store, task, models, root)
            done.append(task)
    if not done:
        raise UserError(f"{study_folder}: no completed trial that the report shows has a checkpoint")
    return done


def _gallery_trials(verdict: Verdict) -> list[tuple[str, str]]:
    """Name and trial of each setting that the report shows: the completed one with the lowest seed."""
    trials = verdict.context.trials
    labels = verdict.context.settings
    found = []
    for name, pretrained, setting in shown_settings(verdict):
        same = trials[(verdict.context.pretrained == pretrained) & (labels == setting)]
        same = same[same["status"] == "completed"].sort_values("seed")
        if len(same):
            found.append((f"{name} ({setting}){_doubt(verdict, name)}", str(same["trial_id"].iloc[0])))
    return found


def _doubt(verdict: Verdict, name: str) -> str:
    """That the seeds disagree on a best setting."""
    _, raw, pretrained, _ = verdict.context.lines
    best = {raw: verdict.contrasts.best_raw, pretrained: verdict.contrasts.best_pretrained}
    return ", the seeds disagree" if name in best and not best[name].unanimous else ""


def _write_task_gallery(
    store: Store, task: str, models: "Sequence[tuple[str, TrainedTrial]]", root: Path | None
) -> None:
    from segstrat.data.palette import label_palette
    from segstrat.predict import predict
    from segstrat.prediction_files import split_images

    first = models[0][1]
    dataset, ids = split_images(first, "val", root, cached=False)
    labelled = [index for index in range(len(ids)) if task in dataset.tasks_of(index)]
    # Evenly spread over the split, not hand-picked.
    count = min(GALLERY_IMAGES, len(labelled))
    picked = [labelled[i] for i in np.linspace(0, len(labelled) - 1, count).round().astype(int)]
    tiles, labels, sizes = [], [], []
    predictions: list[list[np.ndarray]] = [[] for _ in models]
    for index in picked:
        sample = dataset.read(index)
        tiles.append(_tile(sample.image))
        labels.append(_tile(sample.labels[task]))
        sizes.append(tiles[-1].shape[:2])
        for (_, trial), column in zip(models, predictions, strict=True):
            column.append(_tile(predict(trial, sample.image)[task]))
    write_gallery(
        store,
        task,
        images=_stack(tiles),
        valid=np.array(sizes),
        labels=_stack(labels),
        predictions=np.stack([_stack(column) for column in predictions]),
        names=np.array([name for name, _ in models]),
        classes=np.array(first.tasks[task].classes),
        palette=label_palette(first.tasks[task].classes),
        ids=np.array([ids[index] for index in picked]),
        caption=np.array(
            f"{len(picked)} validation images of {task}, evenly spread over the split; the model of the "
            "last epoch and the lowest completed seed of each setting."
        ),
    )


def _tile(array: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) or a label map (H, W) with its longer side at most `TILE` pixels."""
    import cv2

    scale = min(1.0, TILE / max(array.shape[:2]))
    if scale == 1.0:
        return np.array(array)
    size = (max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale)))
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA if array.ndim == 3 else cv2.INTER_NEAREST)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of different height and width in one, zeros beyond each."""
    height, width = (max(array.shape[side] for array in arrays) for side in (0, 1))
    stacked = np.zeros((len(arrays), height, width, *arrays[0].shape[2:]), np.uint8)
    for padded, array in zip(stacked, arrays, strict=True):
        padded[: array.shape[0], : array.shape[1]] = array
    return stacked
