"""Writes the embedded scenes with one rare class: `uv run python -m segstrat.data.figures.rare DIR`.

Only people's heads are labeled, 1 % of the pixels, in most of the scenes; all else is background. The images
are those of `figures`, as data of the `folder` protocol.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segstrat.commands import StrictParser
from segstrat.data.figures.kinds import PARTS
from segstrat.data.figures.write import ensure_figures
from segstrat.errors import UserError

RARE = "head"
_TOML = f"""name = "figures-{RARE}s"
images = "images"
[splits]
train = "train.txt"
val = "val.txt"
test = "test.txt"
[tasks.semseg]
labels = "labels"
classes = ["background", "{RARE}"]
"""


def write_rare(out: Path) -> Path:
    """Writes the data set into a new folder.

    Returns:
        the embedded classification images, on which a backbone can be pre-trained.

    Raises:
        UserError: if the folder exists, or cannot be written.
    """
    root = ensure_figures()
    try:
        for name in ("images", "labels"):
            (out / name).mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}); give a new folder") from error
    lookup = np.zeros(256, np.uint8)
    lookup[PARTS.index(RARE)], lookup[255] = 1, 255
    for split in ("train", "val", "test"):
        ids = (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text(encoding="utf-8")
        (out / f"{split}.txt").write_text(ids, encoding="utf-8")
        for name in ids.split():
            (out / "images" / f"{name}.png").write_bytes((root / "JPEGImages" / f"{name}.png").read_bytes())
            labels = np.asarray(Image.open(root / "SegmentationPart" / f"{name}.png"))
            Image.fromarray(lookup[labels]).save(out / "labels" / f"{name}.png")
    (out / "dataset.toml").write_text(_TOML, encoding="utf-8")
    return root / "Classification"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    parser = StrictParser(description="Write the embedded scenes with one rare class.")
    parser.add_argument("out", metavar="DIR", type=Path, help="a new folder")
    try:
        out = parser.parse_strictly(arguments).out
        singles = write_rare(out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{out} written; a study of it: --data folder --data-root {out} --pretrain-on {singles}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
