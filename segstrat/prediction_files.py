"""Images in, label maps out: what `study/predict.py` reads and writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segstrat.data import build_protocol
from segstrat.data.dataset import Dataset
from segstrat.data.palette import voc_palette
from segstrat.errors import UserError
from segstrat.paths import cache_dir
from segstrat.predict import TrainedTrial
from segstrat.store import Store

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


def write_maps(
    out: Path, name: str, image: np.ndarray, maps: dict[str, np.ndarray], competition: str
) -> None:
    """Writes the index PNG and the overlay of every task."""
    palette = voc_palette()
    for task, index_HW in maps.items():
        folder = out / task
        if task == "semseg":
            folder = out / "results" / "VOC2012" / "Segmentation" / f"{competition}_test_cls"
        picture = Image.fromarray(index_HW)
        picture.putpalette(palette.tobytes())
        _save(picture, folder / f"{name}.png")
        # Class 0 is the background: there the image is left as it is.
        share = np.where(index_HW == 0, 0.0, 0.55)[..., None]
        overlay = ((1 - share) * image + share * palette[index_HW]).astype(np.uint8)
        _save(Image.fromarray(overlay), out / "overlays" / task / f"{name}.jpg")


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
