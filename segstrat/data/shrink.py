"""A smaller copy of a folder data set, for machines without a GPU.

    uv run python -m segstrat.data.shrink DIR OUT --short-side 128

DIR contains a `dataset.toml` (docs/data.md). Images are read as a study reads them (8-bit RGB,
upright) and resampled with a Lanczos filter; labels to the nearest pixel, with the values they have. Ids,
splits and classes stay the same.
"""

import json
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segstrat.commands import StrictParser
from segstrat.data.files import FileDataset
from segstrat.data.labels import to_values
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
    splits = {split: described.items(split) for split in described.splits}
    items = {item.id: item for listed in splits.values() for item in listed}
    dataset = FileDataset(list(items.values()), list(described.tasks))
    for index, item in enumerate(dataset.items):
        image = Image.fromarray(dataset.image(index))
        size = _smaller(image.size, short_side)
        _save(image.resize(size, Image.Resampling.LANCZOS), out / "images" / f"{item.id}.png")
        for task in item.labels:
            labels = Image.fromarray(dataset.label(index, task))
            labels_HW = np.array(labels.resize(size, Image.Resampling.NEAREST))
            decode = described.labels[task].decode
            values = to_values(labels_HW, described.tasks[task].values, *decode.ignore[:1])
            _save(Image.fromarray(values), out / task / f"{item.id}.png")
    for split, listed in splits.items():
        (out / f"{split}.txt").write_text("".join(f"{item.id}\n" for item in listed), encoding="utf-8")
    content = tomllib.loads((source / "dataset.toml").read_text(encoding="utf-8-sig"))
    name = f"{described.name}-{short_side}"
    text = _description(name, described.splits, content["tasks"], flip=described.flip)
    (out / "dataset.toml").write_text(text, encoding="utf-8")
    return len(items)


def _smaller(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    factor = min(1.0, short_side / min(size))
    return round(size[0] * factor), round(size[1] * factor)


def _save(picture: Image.Image, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target)


def _description(name: str, splits: Iterable[str], tables: dict[str, Any], *, flip: bool) -> str:
    lines = [f"name = {json.dumps(name)}", 'images = "images"', *([] if flip else ["flip = false"])]
    lines += ["", "[splits]", *(f'{split} = "{split}.txt"' for split in splits)]
    for task, table in tables.items():
        lines += ["", f"[tasks.{task}]", f'labels = "{task}"']
        others = [key for key in table if key not in ("labels", "label_suffix", "colors")]
        lines += [f"{key} = {json.dumps(table[key])}" for key in others]
        if "colors" in table:
            lines += ["", f"[tasks.{task}.colors]"]
            lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table["colors"].items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = StrictParser(
        prog="python -m segstrat.data.shrink", description="Writes a smaller copy of a folder data set."
    )
    parser.add_argument("source", type=Path, metavar="DIR", help="folder with a dataset.toml")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder")
    parser.add_argument("--short-side", type=int, default=128, metavar="N", help="in pixels (default: 128)")
    try:
        options = parser.parse_strictly(arguments)
        if options.short_side < 1:
            raise UserError(f"--short-side {options.short_side}: expected a whole number ≥ 1")
        count = shrink(options.source, options.out, options.short_side)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {count:,} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
