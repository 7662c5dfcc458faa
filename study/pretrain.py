"""Pre-trains a backbone on image classification, or without labels: what raw training is compared with.

    uv run python study/pretrain.py --backbone resnet18 --width 0.25 --data figures
    uv run python study/pretrain.py --backbone sunet64 --data DIR --epochs 60 --out sunet64.pth
    uv run python study/pretrain.py --self --data DIR

DIR contains train/<class>/<image> and val/<class>/<image>. With --self it contains images at any depth, or a
dataset.toml, of whose splits the training images are used. The result is for `run.py --weights FILE`. The
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
from segstrat.config import BACKBONES, OWN_DATA, TIMM_PREFIX
from segstrat.errors import UserError, unknown_name
from segstrat.formatting import format_duration
from segstrat.models.weights import read_about
from segstrat.pretraining.cached import build_learner, whole_machine
from segstrat.pretraining.job import (
    FIGURES,
    Pretraining,
    PretrainReport,
    PretrainSource,
    SelfSource,
    probe_words,
)
from segstrat.pretraining.loop import check_writable, pretrain, state_store
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
        wanted = "one with images" if options.without_labels else "one with train/ and val/"
        raise UserError(f"--data {options.data}: no such folder; give figures, or {wanted}")
    source = _source(options)
    data = source.open(cache_dir())
    run = Pretraining(backbone=options.backbone, width=options.width, seed=options.seed, source=source)
    recipe = run.recipe(data)
    model = build_learner(options.backbone, options.width, data, recipe)
    kind = "self-" * options.without_labels
    name = f"{options.backbone.replace('/', '-')}-{options.width:g}-{kind}{data.name}.pth"
    out = Path(options.out or name)
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
        f"{f'{len(data.classes)} classes' if data.classes else 'no labels'}, {recipe.epochs} epochs, "
        f"{machine.threads} threads, {machine.device}"
    )
    reports = pretrain(model, data, recipe, out, machine=machine, resume=options.resume)
    last = follow(reports)
    probe = probe_words(read_about(out))
    print(f"{out} ({last}{f', {probe}' if probe else ''})" if last else out)


def _source(options: argparse.Namespace) -> PretrainSource | SelfSource:
    if not options.without_labels:
        return PretrainSource(name=options.data, epochs=options.epochs)
    if options.data == FIGURES:
        return SelfSource(protocol=FIGURES, epochs=options.epochs)
    if (Path(options.data).expanduser() / "dataset.toml").is_file():
        return SelfSource(protocol=OWN_DATA, root=options.data, epochs=options.epochs)
    return SelfSource(folder=options.data, epochs=options.epochs)


def follow(reports: Iterable[PretrainReport]) -> PretrainReport | None:
    """Prints a line after every epoch; returns the last report, None if every epoch had been trained."""
    report = None
    for report in reports:
        left = (report.epochs - report.epoch) * report.seconds
        print(
            f"epoch {report.epoch}/{report.epochs}, loss {report.train_loss:.3f}, {report}, "
            f"{report.seconds:.1f} s, about {format_duration(left)} left",
            file=sys.stderr,
        )
    return report


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = StrictParser(
        prog="study/pretrain.py",
        description="Pre-trains a backbone on images with or without classes, for `run.py --weights`.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--backbone", default="resnet18", metavar="NAME", help="backbone of an FCN, or a SUNet")
    add("--width", type=_width, default=1.0, metavar="F", help="multiplier on its channels (default: 1)")
    add("--data", default="figures", metavar="figures|DIR", help="training images (default: figures)")
    add("--self", action="store_true", dest="without_labels", help="learn from images alone, without labels")
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
