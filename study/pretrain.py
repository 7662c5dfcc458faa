"""Pre-trains a backbone on image classification: what studies compare with training from scratch.

    uv run python study/pretrain.py --backbone resnet18 --width 0.25 --data figures
    uv run python study/pretrain.py --backbone sunet64 --data DIR --epochs 60 --out sunet64.pth

DIR contains train/<class>/<image> and val/<class>/<image>. The result is for `run.py --weights FILE`. The
hyperparameters are in `RECIPES`; only --epochs changes them. Exit codes: 0 done; 2 a wrong argument, data or
file; 130 after Ctrl-C: continue after the last complete epoch with --resume.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script: the project's folder, and not study/, is where modules are looked for.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segstrat.atomic import only_builder
from segstrat.config import TrialConfig
from segstrat.data.figures import ensure_figures
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.paths import cache_dir
from segstrat.pretraining.classifier import build_classifier
from segstrat.pretraining.images import ClassificationData, open_classification
from segstrat.pretraining.loop import PretrainReport, pretrain, run_key, state_store
from segstrat.pretraining.recipe import Recipe
from study.cli import StrictParser

# `folder` is the usual ImageNet recipe (He et al. 2016; label smoothing: Szegedy et al. 2016), with crops
# scaled down by `fitted` where images are small; `figures` takes one or two minutes on two cores.
RECIPES = {
    "figures": Recipe(
        epochs=10, batch_size=64, learning_rate=0.1, warmup_epochs=1, crop_size=80, resize=80,
        smallest_crop=0.8,
    ),
    "folder": Recipe(
        epochs=90, batch_size=256, learning_rate=0.1, warmup_epochs=5, crop_size=224, resize=256,
        smallest_crop=0.08,
    ),
}  # fmt: skip
# Without batch norm they need a tenth of the rate; fc6 and fc7 were published with dropout.
WITHOUT_BATCH_NORM = {"vgg16": 0.5, "alexnet": 0.5, "squeezenet1_1": 0.0}


def recipe_for(backbone: str, data: str, epochs: int | None = None) -> Recipe:
    """The recipe of a backbone on `figures` or a folder; with another number of epochs if one is given."""
    recipe = RECIPES["figures" if data == "figures" else "folder"]
    if backbone in WITHOUT_BATCH_NORM:
        rate = recipe.learning_rate / 10
        recipe = dataclasses.replace(recipe, learning_rate=rate, dropout=WITHOUT_BATCH_NORM[backbone])
    return dataclasses.replace(recipe, epochs=epochs) if epochs else recipe


def fitted(recipe: Recipe, data: ClassificationData) -> Recipe:
    """The recipe with crops no larger than the images: enlarging costs time and adds no information.

    The size of the images is the median short side of up to 64 of them, evenly spaced in the sorted list.
    """
    chosen = np.linspace(0, len(data.train) - 1, min(64, len(data.train))).astype(int)
    short = int(np.median([min(data.train.read(index).shape[:2]) for index in chosen.tolist()]))
    if short >= recipe.resize:
        return recipe
    crop_size = max(32, round(recipe.crop_size * short / recipe.resize))
    return dataclasses.replace(recipe, resize=max(32, short), crop_size=crop_size)


def open_data(name: str, cache: Path | None = None) -> ClassificationData:
    """The classification split of `figures`, or a folder.

    Raises:
        UserError: for a folder that is missing or not laid out as a classification set.
    """
    if name != "figures":
        root = Path(name).expanduser()
        if not root.is_dir():
            raise UserError(f"--data {name}: no such folder; give figures, or a folder with train/ and val/")
        return open_classification(root)
    root = ensure_figures(cache)
    facts = json.loads((root / "figures.json").read_text(encoding="utf-8"))
    return open_classification(root / "Classification", name="figures", digest=facts["digest"])


def this_machine() -> Machine:
    """All of this machine: a GPU with bfloat16 matrix products if there is one, else every core."""
    if torch.cuda.is_available():
        return Machine(device="cuda", threads=_cores(), precision="bfloat16")
    return Machine(threads=_cores())


def ensure_pretrained(config: TrialConfig, cache: Path) -> Path:
    """The file with the weights of a trial's backbone, pre-trained on `figures`; trains it if necessary.

    The file is cached by a digest of backbone, width, data, recipe and code. An interrupted run continues
    after its last complete epoch; of several processes, one trains while the others wait.

    Raises:
        UserError: if the cache cannot be written, or the training diverges.
    """
    assert config.backbone is not None
    data = open_data("figures", cache)
    recipe = recipe_for(config.backbone, "figures")
    model = build_classifier(config.backbone, config.width, len(data.classes), recipe)
    key = run_key(model, data, recipe)
    out = cache / "weights" / f"{config.backbone}-{config.width:g}-{key[:10]}.pth"
    if out.is_file():
        return out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with only_builder(out.with_suffix(".lock")):
            if not out.is_file():
                reports = pretrain(model, data, recipe, out, machine=this_machine(), resume=True)
                show(reports, f"pre-train {config.backbone} on figures (once)", recipe.epochs)
    except OSError as error:
        raise UserError(
            f"pre-trained weights cannot be written to {out.parent} ({error.strerror or error}); free some "
            "space there, or set SEGSTRAT_CACHE to another folder"
        ) from error
    return out


def show(reports: Iterator[PretrainReport], title: str, epochs: int) -> PretrainReport | None:
    """Consumes the reports with a progress bar on standard error, or lines if that is not a terminal.

    Returns:
        the last report, or None if every epoch had been trained before.
    """
    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    report = None
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=epochs, note="")
        for report in reports:
            note = f"loss {report.train_loss:.3f}, top-1 {report.top1:.1%}, top-5 {report.top5:.1%}"
            bar.update(task, completed=report.epoch, note=note)
            if not console.is_terminal:
                console.print(
                    f"{title}: epoch {report.epoch}/{epochs}, {note}, {report.seconds:.1f} s", soft_wrap=True
                )
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        _run(_parse(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; continue after the last complete epoch with --resume",
            file=sys.stderr,
        )
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    data = open_data(options.data, cache_dir())
    recipe = fitted(recipe_for(options.backbone, options.data, options.epochs), data)
    model = build_classifier(options.backbone, options.width, len(data.classes), recipe)
    out = Path(options.out or f"{options.backbone}-{options.width:g}-{data.name}.pth")
    if out.exists():
        raise UserError(f"--out {out} exists already; choose another name, or delete the file")
    begun = bool(state_store(out).names())
    if begun and not options.resume:
        raise UserError(f"{out} was started already: continue with --resume, or choose another --out")
    if options.resume and not begun:
        raise UserError(f"--resume: there is no unfinished run of {out}; remove the flag to start one")
    machine = this_machine()
    Console(stderr=True, highlight=False).print(
        f"{options.backbone} at width {options.width:g} on {data.name}: {len(data.train):,} images, "
        f"{len(data.classes)} classes, {recipe.epochs} epochs, {machine.threads} threads, {machine.device}"
    )
    reports = pretrain(model, data, recipe, out, machine=machine, resume=options.resume)
    last = show(reports, "pre-train", recipe.epochs)
    scores = f" (top-1 {last.top1:.1%}, top-5 {last.top5:.1%})" if last else ""
    print(f"{out}{scores}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = StrictParser(
        prog="study/pretrain.py",
        description="Pre-trains a backbone on image classification, for `run.py --weights`.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--backbone", default="resnet18", metavar="NAME", help="backbone of an FCN, or a SUNet")
    add("--width", type=float, default=1.0, metavar="F", help="multiplier on its channels (default: 1)")
    add("--data", default="figures", metavar="figures|DIR", help="training images (default: figures)")
    add("--epochs", type=_at_least_one, metavar="N", help="passes over the images (default: the recipe's)")
    add("--out", metavar="FILE", help="output file (default: BACKBONE-WIDTH-DATA.pth)")
    add("--resume", action="store_true", help="continue after the last complete epoch")
    return parser.parse_strictly(arguments)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number ≥ 1")
    return int(text)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
