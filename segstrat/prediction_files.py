"""Images in, label maps out: what `study/predict.py` reads and writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from segstrat.data import build_protocol
from segstrat.data.dataset import Dataset
from segstrat.data.palette import has_background, label_palette
from segstrat.errors import UserError
from segstrat.metrics import ConfusionMatrix
from segstrat.predict import TrainedTrial
from segstrat.store import Store, cache_dir
from segstrat.tasks import Task

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def trial_store(path: str) -> Store:
    """The folder of a trial given as results/<study>/<trial_id> or with `trials/` in between."""
    store = Store(path)
    if store.exists():
        return store
    parent, _, name = path.rstrip("/").rpartition("/")
    nested = Store(parent or ".") / "trials" / name
    if nested.exists():
        return nested
    raise UserError(f"{path}: there is no such trial; give results/<study>/<trial_id>")


def study_of(trial: Store) -> Store | None:
    """The study that a trial's folder is part of, if it is in one."""
    base, mark, query = trial.uri.partition("?")
    study, _, rest = base.rstrip("/").rpartition("/trials/")
    return Store(f"{study}{mark}{query}") if study and "/" not in rest else None


def folder_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted.

    Raises:
        UserError: if there are none, or if two of them would get one name in the output.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder}: there is no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"--images {folder}: no image there ({', '.join(sorted(SUFFIXES))})")
    names = [path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"--images {folder}: two files are called {name}; their results would be one file"
            )
    return paths


def read_images(paths: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and RGB pixels (H, W, 3) uint8 of each file."""
    for path in paths:
        try:
            with Image.open(path) as image:
                yield path.stem, np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{path} cannot be read as an image ({error}); repair or remove it") from error


def split_images(
    trial: TrainedTrial, split: str, root: Path | None, *, cached: bool = True
) -> tuple[Dataset, list[str]]:
    """The data set of a split of the trial's own protocol, and the names of its images.

    Args:
        cached: decode the whole split into the cache, instead of each image when it is read.
    """
    protocol = build_protocol(
        trial.config.data, root, tasks=trial.config.tasks, cache_dir=cache_dir() if cached else None
    )
    dataset: Dataset | None = getattr(protocol, split)
    if dataset is None:
        raise UserError(f"--split {split}: data {trial.config.data} has no such split; choose train or val")
    return dataset, list(dataset.ids)


@dataclass(frozen=True)
class MapFiles:
    """Where predictions are written.

    Args:
        out: the folder above all others.
        competition: `comp5` or `comp6`, the name in VOC's folder of results.
    """

    out: Path
    competition: str

    def maps(self, task: str) -> Path:
        """Folder of a task's index PNGs; that of `semseg` is the one that VOC's server expects."""
        if task == "semseg":
            return self.out / "results" / "VOC2012" / "Segmentation" / f"{self.competition}_test_cls"
        return self.out / task

    def overlays(self, task: str) -> Path:
        """Folder of a task's images to look at."""
        return self.out / "overlays" / task

    def write(
        self, name: str, image: np.ndarray, maps: dict[str, np.ndarray], tasks: dict[str, Task]
    ) -> None:
        """Writes the index PNG and the overlay of every task."""
        for task, index_HW in maps.items():
            palette = label_palette(tasks[task].classes)
            picture = Image.fromarray(index_HW)
            picture.putpalette(palette.tobytes())
            _save(picture, self.maps(task) / f"{name}.png")
            # On a background the image is left as it is; any other class 0 is tinted like the rest.
            plain = (index_HW == 0) & has_background(tasks[task].classes)
            share = np.where(plain, 0.0, 0.55)[..., None]
            overlay = ((1 - share) * image + share * palette[index_HW]).astype(np.uint8)
            _save(Image.fromarray(overlay), self.overlays(task) / f"{name}.jpg")


class SplitScores:
    """mIoU of predictions on a labelled split, per task, as training counts it.

    Args:
        tasks: of the model.
    """

    def __init__(self, tasks: dict[str, Task]) -> None:
        self._counts = {
            name: ConfusionMatrix(task.num_classes, task.ignore_index) for name, task in tasks.items()
        }

    def add(self, maps: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> None:
        """Counts one image; tasks without a label are left out."""
        for task, label_HW in labels.items():
            prediction_BHW, target_BHW = (
                torch.from_numpy(np.array(array)[None].astype(np.int64)) for array in (maps[task], label_HW)
            )
            self._counts[task].update(prediction_BHW, target_BHW)

    def lines(self) -> list[str]:
        """One line per task that had labels: mIoU and pixel accuracy."""
        scores = {name: matrix.compute() for name, matrix in self._counts.items() if matrix.counts.any()}
        return [
            f"{name}: mIoU {score['miou']:.4f}, pixel accuracy {score['pixel_accuracy']:.4f}"
            for name, score in scores.items()
        ]


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
