"""Uses what was trained: label maps of images, or the gallery of a study's report.

    python study/predict.py --trial results/<study>/<trial_id> --images DIR --out DIR
    python study/predict.py --trial results/<study>/<trial_id> --split test --out DIR
    python study/predict.py --gallery results/<study>

The maps of `semseg` are index PNGs with VOC's palette below results/VOC2012/Segmentation/comp6_test_cls/, as
the VOC 2012 evaluation server wants them (comp5 for models that saw VOC's own images only); other tasks lie
below a folder of their name, pictures to look at below overlays/.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).parents[1])

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from segstrat.data import build_protocol
from segstrat.data.dataset import Dataset
from segstrat.data.palette import voc_palette
from segstrat.errors import UserError
from segstrat.paths import cache_dir, data_root
from segstrat.predict import TrainedTrial, load_trial, predict
from segstrat.store import Store
from study.analysis.contrasts import trial_settings
from study.analysis.study import Study
from study.analysis.verdict import Verdict, decide_all
from study.report import write_report
from study.reporting.gallery import write_gallery
from study.reporting.plot_training import shown_settings

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
TILE = 240
GALLERY_IMAGES = 6


def trial_store(path: str) -> Store:
    """The folder of a trial given as results/<study>/<trial_id> or with the trials/ between."""
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
            raise UserError(f"{path} cannot be read as an image ({error}); mend or remove it") from error


def split_images(
    trial: TrainedTrial, split: str, root: Path | None, *, cached: bool = True
) -> tuple[Dataset, list[str]]:
    """The data set of a split of the trial's own protocol, and the names of its images.

    Args:
        cached: decode all of them once, instead of each that is read.
    """
    protocol = build_protocol(
        trial.config.data, root, tasks=trial.config.tasks, cache_dir=cache_dir() if cached else None
    )
    dataset: Dataset | None = getattr(protocol, split)
    if dataset is None:
        raise UserError(f"--split {split}: the data {trial.config.data} has none; choose train or val")
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


def make_gallery(study_folder: str, root: Path | None, device: str) -> list[str]:
    """Writes the gallery of each task, for the report to show; returns the tasks that got one.

    Raises:
        UserError: if no trial that the report shows has a checkpoint.
    """
    store = Store(study_folder)
    study = Study.open(store)
    done = []
    for task in study.tasks:
        verdicts = decide_all(study, task)
        chosen = _gallery_trials(verdicts[0]) if verdicts else []
        models = [
            (name, load_trial(store / "trials" / trial_id, device))
            for name, trial_id in chosen
            if any(each.endswith(".pt") for each in (store / "trials" / trial_id).names())
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
    labels = trial_settings(verdict.context)
    found = []
    for name, pretrained, setting in shown_settings(verdict):
        same = trials[(trials["pretrained"].astype(bool) == pretrained) & (labels == setting)]
        same = same[same["status"] == "completed"].sort_values("seed")
        if len(same):
            found.append((f"{name} ({setting})", str(same["trial_id"].iloc[0])))
    return found


def _write_task_gallery(
    store: Store, task: str, models: Sequence[tuple[str, TrainedTrial]], root: Path | None
) -> None:
    first = models[0][1]
    dataset, ids = split_images(first, "val", root, cached=False)
    labelled = [index for index in range(len(ids)) if task in dataset.tasks_of(index)]
    # Evenly spread and not chosen by anyone's eye.
    picked = [labelled[i] for i in np.linspace(0, len(labelled) - 1, GALLERY_IMAGES).round().astype(int)]
    tiles, labels, sizes = [], [], []
    predictions: list[list[np.ndarray]] = [[] for _ in models]
    for index in picked:
        sample = dataset.read(index)
        tiles.append(_tile(sample.image, cv2.INTER_AREA))
        labels.append(_tile(sample.labels[task], cv2.INTER_NEAREST))
        sizes.append(tiles[-1].shape[:2])
        for (_, trial), column in zip(models, predictions, strict=True):
            column.append(_tile(predict(trial, sample.image)[task], cv2.INTER_NEAREST))
    write_gallery(
        store,
        task,
        images=_stack(tiles),
        valid=np.array(sizes),
        labels=_stack(labels),
        predictions=np.stack([_stack(column) for column in predictions]),
        names=np.array([name for name, _ in models]),
        classes=np.array(first.tasks[task].classes),
        palette=voc_palette(),
        ids=np.array([ids[index] for index in picked]),
        caption=np.array(
            f"{len(picked)} validation images of {task}, evenly spread over the split; the model of the "
            "last epoch and the lowest completed seed of each setting."
        ),
    )


def _tile(array: np.ndarray, interpolation: int) -> np.ndarray:
    """The array with its longer side at most `TILE` pixels."""
    scale = min(1.0, TILE / max(array.shape[:2]))
    if scale == 1.0:
        return np.array(array)
    size = (max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale)))
    return cv2.resize(array, size, interpolation=interpolation)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of different height and width in one, zeros beyond each."""
    height, width = (max(array.shape[side] for array in arrays) for side in (0, 1))
    stacked = np.zeros((len(arrays), height, width, *arrays[0].shape[2:]), np.uint8)
    for place, array in zip(stacked, arrays, strict=True):
        place[: array.shape[0], : array.shape[1]] = array
    return stacked


def run(options: argparse.Namespace, console: Console) -> None:
    """Does what the command line asks for."""
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    root = data_root(options.data_root)
    if options.gallery:
        tasks = make_gallery(options.gallery, root, device)
        write_report(options.gallery)
        console.print(f"gallery of {', '.join(tasks)} written")
        return
    if not options.out or bool(options.images) == bool(options.split):
        raise UserError("--trial goes with --out and with one of --images DIR and --split NAME")
    trial = load_trial(trial_store(options.trial), device, options.checkpoint)
    if options.images:
        paths = folder_images(Path(options.images))
        images, count = read_images(paths), len(paths)
    else:
        dataset, ids = split_images(trial, options.split, root)
        images, count = ((name, dataset.read(index).image) for index, name in enumerate(ids)), len(ids)
    out = Path(options.out)
    for name, image in track(images, "predicting", total=count, console=console):
        maps = predict(trial, image, scales=options.scales, flip=options.flip)
        write_maps(out, name, image, maps, options.competition)
    console.print(f"{count} images, {', '.join(trial.tasks)}, {trial.checkpoint}: {out}")


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 8 for scale in scales):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of factors in (0, 8] such as 0.75,1,1.25")
    return scales


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="study/predict.py", description="Predicts with a trained trial, or makes a report's gallery."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--trial", metavar="DIR", help="results/<study>/<trial_id>")
    what.add_argument("--gallery", metavar="DIR", help="results/<study>: write the gallery of its report")
    parser.add_argument("--images", metavar="DIR", help="folder of images of any size")
    parser.add_argument("--split", choices=("train", "val", "test"), help="a split of the trial's own data")
    parser.add_argument("--out", metavar="DIR", help="where the maps go")
    parser.add_argument(
        "--checkpoint", metavar="NAME", help="file in the trial's folder (default: the newest)"
    )
    parser.add_argument("--flip", action="store_true", help="average over the mirrored image")
    parser.add_argument(
        "--scales", type=_scales, default=(1.0,), metavar="0.75,1,1.25", help="average over sizes"
    )
    parser.add_argument(
        "--competition", choices=("comp5", "comp6"), default="comp6", help="VOC's folder name"
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of the data sets (default: $SEGSTRAT_DATA)"
    )
    parser.add_argument("--device", help="torch device (default: cuda where there is one)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        run(make_parser().parse_args(arguments), Console(highlight=False))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
