"""How many images a folder of one's own has, and how large they are: what a recipe is chosen by."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image, UnidentifiedImageError

from segstrat.data.files import find_image, read_ids
from segstrat.data.readers import folder

SAMPLE = 64


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """Of the training images: their number, and the median of their shorter sides in pixels."""

    train_images: int
    short_side: int


def image_facts(data: str, root: Path | None) -> ImageFacts | None:
    """The facts of a folder, from its lists and the headers of up to 64 images; None for other protocols.

    Raises:
        UserError: for a folder without `dataset.toml`, or a list that cannot be read.
    """
    if data != "folder":
        return None
    described = folder.read(root)
    names = read_ids(described.splits["train"])
    step = max(1, len(names) // SAMPLE)
    sides = [_short_side(find_image(described.images, name)) for name in names[::step]]
    known = [side for side in sides if side]
    return ImageFacts(train_images=len(names), short_side=int(median(known)) if known else 0)


def _short_side(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, UnidentifiedImageError):  # the data check reports it, with all the others
        return 0
