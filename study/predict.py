"""Predicts with trained models: label maps of images, or the gallery of a study's report.

    uv run python study/predict.py --trial results/<study>/<trial_id> --images DIR --out DIR
    uv run python study/predict.py --trial results/<study>/<trial_id> --split test --out DIR
    uv run python study/predict.py --gallery results/<study>

A split of the trial's own data is also scored. The maps of your own data have the values of its labels and
are in a folder of its name, with one for each task. Those of published data are index PNGs: of `semseg` in
results/VOC2012/Segmentation/comp6_test_cls/, in the format of the VOC 2012 evaluation server (comp5 for
models trained on VOC's own images only), of other tasks in a folder of their name. overlays/ has images to
look at.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from segstrat.commands import StrictParser
from segstrat.config import OWN_DATA
from segstrat.errors import UserError
from segstrat.predict import load_trial, predict
from segstrat.prediction_files import (
    MapFiles,
    SplitScores,
    folder_images,
    read_images,
    split_images,
    study_of,
    trial_store,
)
from segstrat.store import Store, data_root
from study.frame import MANIFEST, read_manifest
from study.reporting.gallery import make_gallery
from study.reporting.render import write_report


def run(options: argparse.Namespace, console: Console) -> None:
    """Does what the command line asks for."""
    check_options(options)
    device = usable_device(options.device)
    if options.gallery:
        tasks = make_gallery(options.gallery, study_data_root(Store(options.gallery), options), device)
        write_report(options.gallery)
        print_line(console, f"gallery of {', '.join(tasks)} written; it is in {options.gallery}/report.html")
        return
    store = trial_store(options.trial)
    trial = load_trial(store, device, options.checkpoint)
    study = study_of(store)
    recorded = (read_manifest(study).get("data") or {}) if study is not None else {}
    own = (recorded.get("title") or OWN_DATA) if trial.config.data == OWN_DATA else None
    files = MapFiles(Path(options.out), options.competition, own)
    scores = SplitScores(trial.tasks)
    samples: Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]
    if options.images:
        paths = folder_images(Path(options.images))
        count, what = len(paths), f"images of {options.images}"
        samples = ((name, image, {}) for name, image in read_images(paths, recorded.get("image_max")))
    else:
        dataset, ids = split_images(trial, options.split, study_data_root(study, options))
        count, what = len(ids), f"{options.split} images"
        samples = ((s.id, s.image, s.labels) for s in map(dataset.read, range(count)))
    for name, image, labels in track(samples, "predicting", total=count, console=console):
        maps = predict(trial, image, scales=options.scales, flip=options.flip)
        files.write(name, image, maps, trial.tasks)
        scores.add(maps, labels)
    print_line(console, f"{count} {what}, {trial.checkpoint}")
    for line in scores.lines():
        print_line(console, line)
    for task in trial.tasks:
        print_line(console, f"label maps of {task}: {files.maps(task)}")
        print_line(console, f"overlays of {task}: {files.overlays(task)}")


def check_options(options: argparse.Namespace) -> None:
    """Raises a UserError for options that do not go together."""
    if bool(options.trial) == bool(options.gallery):
        raise UserError("give one of --trial results/STUDY/TRIAL_ID and --gallery results/STUDY; see --help")
    if options.trial and (not options.out or bool(options.images) == bool(options.split)):
        raise UserError("--trial needs --out and one of --images DIR and --split NAME")
    if options.out and Path(options.out).is_file():
        raise UserError(f"--out {options.out}: that is a file; give a folder")


def usable_device(name: str | None) -> str:
    """The device to predict on: the named one, else a GPU where there is one."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used ({reason}); leave it out, or give cpu") from error
    return name


def study_data_root(study: Store | None, options: argparse.Namespace) -> Path | None:
    """The data root: the one given, else that of the study if it is on this machine, else $SEGSTRAT_DATA."""
    if not options.data_root and study is not None and (study.exists(MANIFEST)):
        recorded = (read_manifest(study).get("data") or {}).get("root")
        if recorded and Path(recorded).is_dir():
            return Path(recorded)
    return data_root(options.data_root)


def print_line(console: Console, line: str) -> None:
    """Prints a line that may contain paths: no markup, and no line break inside."""
    console.print(line, markup=False, soft_wrap=True)


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 8 for scale in scales):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of factors in (0, 8] such as 0.75,1,1.25")
    return scales


def make_parser() -> StrictParser:
    """The command line."""
    parser = StrictParser(
        prog="study/predict.py", description="Predicts with a trained trial, or makes a report's gallery."
    )
    parser.add_argument("--trial", metavar="DIR", help="results/<study>/<trial_id>")
    parser.add_argument("--gallery", metavar="DIR", help="results/<study>: write the gallery of its report")
    parser.add_argument("--images", metavar="DIR", help="folder of images of any size")
    parser.add_argument("--split", choices=("train", "val", "test"), help="a split of the trial's own data")
    parser.add_argument("--out", metavar="DIR", help="folder of the label maps")
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
        "--data-root",
        metavar="DIR",
        help="folder of the data sets (default: the study's, else $SEGSTRAT_DATA)",
    )
    parser.add_argument("--device", help="torch device (default: cuda where there is one)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        run(make_parser().parse_strictly(arguments), Console(highlight=False))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was predicted so far is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
