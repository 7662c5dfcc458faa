"""A smaller copy of a folder data set, for machines without a GPU.

    uv run python -m segstrat.data.shrink DIR OUT --short-side 128

DIR contains a `dataset.toml` (docs/data.md). Images are resampled with a Lanczos filter, labels to the
nearest pixel; ids, splits and classes stay the same.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from segstrat.data.labels import load_pixels, open_image
from segstrat.data.readers import folder
from segstrat.errors import UserError


def shrink(source: Path, out: Path, short_side: int) -> int:
    """Writes the copy, in PNG files; returns the number of its images.

    Args:
        short_side: length of the shorter side of every image and label, in pixels; smaller ones are not
            enlarged.

    Raises:
        UserError: if `source` cannot be read, or `out` contains something.
    """
    described = folder.read(source)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give a new folder")
    items = {item.id: item for split in described.splits for item in described.items(split)}
    for item in items.values():
        _copy(item.image, out / "images" / f"{item.id}.png", short_side, Image.Resampling.LANCZOS)
        for task, label in item.labels.items():
            _copy(label.path, out / task / f"{item.id}.png", short_side, Image.Resampling.NEAREST)
    for split in described.splits:
        ids = "".join(f"{item.id}\n" for item in described.items(split))
        (out / f"{split}.txt").write_text(ids, encoding="utf-8")
    tables = tomllib.loads((source / "dataset.toml").read_text(encoding="utf-8"))["tasks"]
    text = _description(f"{described.name}-{short_side}", described.splits, tables)
    (out / "dataset.toml").write_text(text, encoding="utf-8")
    return len(items)


def _copy(path: Path, target: Path, short_side: int, resampling: Image.Resampling) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_image(path) as image:
        image = load_pixels(image, path)
        factor = min(1.0, short_side / min(image.size))
        width, height = (round(side * factor) for side in image.size)
        image.resize((width, height), resampling).save(target)


def _description(name: str, splits: Iterable[str], tables: dict[str, Any]) -> str:
    lines = [f"name = {json.dumps(name)}", 'images = "images"', "", "[splits]"]
    lines += [f'{split} = "{split}.txt"' for split in splits]
    for task, table in tables.items():
        lines += ["", f"[tasks.{task}]", f'labels = "{task}"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items() if key != "labels"]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m segstrat.data.shrink", description="Writes a smaller copy of a folder data set."
    )
    parser.add_argument("source", type=Path, metavar="DIR", help="folder with a dataset.toml")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder")
    parser.add_argument("--short-side", type=int, default=128, metavar="N", help="in pixels (default: 128)")
    options = parser.parse_args(arguments)
    try:
        if options.short_side < 1:
            raise UserError(f"--short-side {options.short_side}: expected a whole number ≥ 1")
        count = shrink(options.source, options.out, options.short_side)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {count:,} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
