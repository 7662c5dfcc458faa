"""The report's gallery: the same validation images with their label and each arm's prediction.

`gallery-<task>.npz` is in a study's folder and is written where torch is available (`study/predict.py
--gallery`); reading it needs numpy and pillow only. It holds N images of at most 240 pixels a side, padded to
one size, and the index maps of K predictions:

    images       (N, H, W, 3) uint8 RGB
    valid        (N, 2) int: height and width of each image inside its padding
    labels       (N, H, W) uint8
    predictions  (K, N, H, W) uint8
    names        (K,) str: what made each prediction
    classes      (C,) str
    palette      (256, 3) uint8
    ids          (N,) str
    caption      () str
"""

import base64
import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from segstrat.store import Store, say_once

VOID = 255
ARRAYS = ("images", "valid", "labels", "predictions", "names", "classes", "palette", "ids", "caption")


@dataclass(frozen=True)
class Tile:
    """An image as a page holds it."""

    source: str
    text: str


@dataclass(frozen=True)
class Key:
    """A class with its colour."""

    name: str
    color: str


@dataclass(frozen=True)
class Gallery:
    """Rows of tiles below their heads: image, label, then each prediction."""

    caption: str
    heads: list[str]
    rows: list[list[Tile]]
    keys: list[Key]


def file_name(task: str) -> str:
    """Name of a task's gallery in a study's folder."""
    return f"gallery-{task}.npz"


def read_gallery(store: Store, task: str) -> Gallery | None:
    """The gallery of a task; None where the study has none."""
    if not store.exists(file_name(task)):
        return None
    try:
        content = _arrays(store.read(file_name(task)))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        say_once(f"{store.uri}/{file_name(task)} cannot be read ({error}); the report shows no predictions")
        return None
    names = [str(name) for name in content["names"]]
    palette = content["palette"].astype(np.uint8)
    rows = []
    present: set[int] = set()
    for index, image_id in enumerate(content["ids"]):
        height, width = (int(side) for side in content["valid"][index])
        maps = [content["labels"][index], *(each[index] for each in content["predictions"])]
        maps = [each[:height, :width] for each in maps]
        for each in maps:
            present |= {int(value) for value in np.unique(each)}
        tiles = [Tile(_photo(content["images"][index][:height, :width]), f"image {image_id}")]
        for each, what in zip(maps, ["label", *names], strict=True):
            tiles.append(Tile(_index_map(each, palette), f"{what} of {image_id}"))
        rows.append(tiles)
    return Gallery(
        caption=str(content["caption"]),
        heads=["image", "label", *names],
        rows=rows,
        keys=_keys(present, [str(name) for name in content["classes"]], palette),
    )


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    found = np.load(io.BytesIO(data))
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise ValueError("it is one array, not an archive of arrays")
    missing = [name for name in ARRAYS if name not in found]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return {name: found[name] for name in ARRAYS}


def write_gallery(store: Store, task: str, **arrays: Any) -> None:
    """Writes a gallery; the arrays are those of this module's docstring."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    store.write(file_name(task), buffer.getvalue())


def _keys(present: set[int], classes: list[str], palette: np.ndarray) -> list[Key]:
    names = {index: name for index, name in enumerate(classes)} | {VOID: "void"}  # noqa: C416
    return [
        Key(names.get(value, f"class {value}"), "#{:02x}{:02x}{:02x}".format(*palette[value]))
        for value in sorted(present)
    ]


def _photo(image_HWC: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _index_map(index_HW: np.ndarray, palette: np.ndarray) -> str:
    image = Image.fromarray(index_HW.astype(np.uint8), mode="L")
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
