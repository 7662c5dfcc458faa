"""Predicts with trained models: label maps of images, or the gallery of a study's report.

    uv run python study/predict.py --trial results/<study>/<trial_id> --images DIR --out DIR
    uv run python study/predict.py --trial results/<study>/<trial_id> --split test --out DIR
    uv run python study/predict.py --gallery results/<study>

The maps of `semseg` are index PNGs with VOC's palette in results/VOC2012/Segmentation/comp6_test_cls/, in
the format of the VOC 2012 evaluation server (comp5 for models trained on VOC's own images only). Other tasks
have a folder of their name, and overlays/ has images to look at.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from rich.console import Console
from rich.progress import track

from segstrat.errors import UserError
from segstrat.paths import data_root
from segstrat.predict import load_trial, predict
from segstrat.prediction_files import folder_images, read_images, split_images, trial_store, write_maps
from study.reporting.make_gallery import make_gallery
from study.reporting.render import write_report


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
        raise UserError("--trial needs --out and one of --images DIR and --split NAME")
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of factors in (0, 8] such as 0.75,1,1.25")
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
