"""Pre-trains a backbone on image classification: what studies compare with training from scratch.

    uv run python study/pretrain.py --backbone resnet18 --width 0.25 --data figures
    uv run python study/pretrain.py --backbone sunet64 --data DIR --epochs 60 --out sunet64.pth

DIR contains train/<class>/<image> and val/<class>/<image>. The result is for `run.py --weights FILE`. The
hyperparameters are in segstrat/pretraining/recipe.py; only --epochs and --seed change them.

Exit codes: 0 done; 2 a wrong argument, data or file; 130 after Ctrl-C: continue after the last complete epoch
with --resume.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script: the project's folder, and not study/, is where modules are looked for.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from segstrat.commands import StrictParser
from segstrat.config import BACKBONES, TIMM_PREFIX
from segstrat.errors import UserError, unknown_name
from segstrat.formatting import format_duration
from segstrat.pretraining.cached import whole_machine
from segstrat.pretraining.job import FIGURES, PretrainReport, PretrainSource
from segstrat.pretraining.loop import build_classifier, check_writable, pretrain, state_store
from segstrat.store import cache_dir


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        _run(_parse(arguments))
    except (UserError, OSError) as error:
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
    # Before the data, which may have to be drawn or decoded.
    if options.backbone not in BACKBONES and not options.backbone.startswith(TIMM_PREFIX):
        raise unknown_name("backbone", options.backbone, (*BACKBONES, f"{TIMM_PREFIX}<name>"))
    if options.data != FIGURES and not Path(options.data).expanduser().is_dir():
        raise UserError(f"--data {options.data}: no such folder; give figures, or one with train/ and val/")
    source = PretrainSource(name=options.data, epochs=options.epochs)
    data = source.open(cache_dir())
    recipe = source.recipe(options.backbone, data, options.seed)
    model = build_classifier(options.backbone, options.width, len(data.classes), recipe)
    out = Path(options.out or f"{options.backbone.replace('/', '-')}-{options.width:g}-{data.name}.pth")
    if out.exists():
        raise UserError(f"--out {out} exists already; choose another name, or delete the file")
    begun = bool(state_store(out).names())
    if begun and not options.resume:
        raise UserError(f"{out} was started already: continue with --resume, or choose another --out")
    if options.resume and not begun:
        raise UserError(f"--resume: there is no unfinished run of {out}; remove the flag to start one")
    check_writable(out)
    machine = whole_machine()
    Console(stderr=True, highlight=False).print(
        f"{options.backbone} at width {options.width:g} on {data.name}: {len(data.train):,} images, "
        f"{len(data.classes)} classes, {recipe.epochs} epochs, {machine.threads} threads, {machine.device}"
    )
    reports = pretrain(model, data, recipe, out, machine=machine, resume=options.resume)
    last = follow(reports)
    scores = f" (top-1 {last.top1:.1%}, top-5 {last.top5:.1%})" if last else ""
    print(f"{out}{scores}")


def follow(reports: Iterable[PretrainReport]) -> PretrainReport | None:
    """Prints a line after every epoch; returns the last report, None if every epoch had been trained."""
    report = None
    for report in reports:
        left = (report.epochs - report.epoch) * report.seconds
        print(
            f"epoch {report.epoch}/{report.epochs}, loss {report.train_loss:.3f}, top-1 {report.top1:.1%}, "
            f"top-5 {report.top5:.1%}, {report.seconds:.1f} s, about {format_duration(left)} left",
            file=sys.stderr,
        )
    return report


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = StrictParser(
        prog="study/pretrain.py",
        description="Pre-trains a backbone on image classification, for `run.py --weights`.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--backbone", default="resnet18", metavar="NAME", help="backbone of an FCN, or a SUNet")
    add("--width", type=_width, default=1.0, metavar="F", help="multiplier on its channels (default: 1)")
    add("--data", default="figures", metavar="figures|DIR", help="training images (default: figures)")
    add("--epochs", type=_at_least_one, metavar="N", help="passes over the images (default: the recipe's)")
    add("--seed", type=_natural, default=0, metavar="N", help="of initialization and data order (default: 0)")
    add("--out", metavar="FILE", help="output file (default: BACKBONE-WIDTH-DATA.pth)")
    add("--resume", action="store_true", help="continue after the last complete epoch")
    return parser.parse_strictly(arguments)


def _width(text: str) -> float:
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 0 < width <= 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in (0, 4]; 1 is the published network")
    return width


def _natural(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2⁶³ − 1")
    return int(text)


# More epochs than fit into a float are none.
MOST_DIGITS = 9


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number ≥ 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
