"""The contact sheet: training images and their labels in the colors of the classes, to look at first.

A renumbered palette, classes that are off by one or labels beside their objects show at a glance.
"""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segstrat import atomic
from segstrat.data.audit.contents import count_labels
from segstrat.data.dataset import VOID, Dataset, Sample
from segstrat.data.loading.augment import sides
from segstrat.data.palette import has_background, label_palette
from segstrat.data.protocols import DataProtocol
from segstrat.errors import UserError
from segstrat.tasks import Task

SHEETS = "sheets"
"""Where the sheets are in the cache folder."""

IMAGES = 12
_COUNTED = 64
_TILE = (240, 180)
_GAP, _COLUMNS, _LINE = 12, 3, 20
_INK, _PAPER, _MUTED = (30, 30, 30), (255, 255, 255), (110, 110, 110)
_STRENGTH = 0.6

Shares = dict[str, dict[str, np.ndarray]]
"""Task -> split -> share of each class among the labelled pixels, and of void among all (last)."""


def write_sheet(protocol: DataProtocol, folder: Path, messages: Sequence[str] = ()) -> Path:
    """Writes `<name>-<digest>.png` and a page of that name that shows it; returns the path of the page.

    Args:
        messages: errors and warnings of the audit, for the page.

    Raises:
        UserError: if the folder cannot be written.
    """
    samples = _samples(protocol.train)
    shares = _shares(protocol)
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', protocol.name)}-{protocol.digest}"
    page = folder / f"{name}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = draw_sheet(samples, protocol.tasks, shares)
        # The name of a temporary file would not tell the format.
        with atomic.replacing(folder / f"{name}.png") as part:
            picture.save(part, format="PNG")
        text = _page(protocol, shares, f"{name}.png", len(samples), messages)
        atomic.write_bytes(page, text.encode("utf-8"))
    except OSError as error:
        raise UserError(
            f"the contact sheet {page} cannot be written ({error.strerror or error}); choose another cache "
            "folder"
        ) from error
    return page


def draw_sheet(samples: Sequence[Sample], tasks: dict[str, Task], shares: Shares) -> Image.Image:
    """The picture: for each image its pixels, and next to them the labels of every task; below, the "
    "classes."""
    panels = 1 + len(tasks)
    cell = (panels * _TILE[0] + _GAP, _TILE[1] + _LINE + _GAP)
    rows = -(-max(1, len(samples)) // _COLUMNS)
    legends = [_legend(task, shares[name]) for name, task in tasks.items()]
    width = max(_COLUMNS * cell[0] + _GAP, *(legend.width + 2 * _GAP for legend in legends))
    height = rows * cell[1] + _GAP + sum(legend.height + _GAP for legend in legends)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, sample in enumerate(samples):
        left = _GAP + index % _COLUMNS * cell[0]
        top = _GAP + index // _COLUMNS * cell[1]
        draw.text((left, top), _shortened(sample.id, 26 * panels), _INK, font=_font())
        shown = [sample.image, *(_overlay(sample, task) for task in tasks.values())]
        for place, pixels in enumerate(shown):
            sheet.paste(_fitted(pixels), (left + place * _TILE[0], top + _LINE))
    top = rows * cell[1] + _GAP
    for legend in legends:
        sheet.paste(legend, (_GAP, top))
        top += legend.height + _GAP
    return sheet


def _samples(dataset: Dataset) -> list[Sample]:
    places = np.linspace(0, len(dataset) - 1, min(len(dataset), IMAGES))
    found = []
    for index in sorted({round(place) for place in places}):
        try:
            found.append(dataset.read(index))
        except UserError:  # the audit names it
            continue
    return found


def _shares(protocol: DataProtocol) -> Shares:
    """Shares among up to 64 label maps of each split."""
    splits = {"train": protocol.train, "val": protocol.val, "test": protocol.test}
    shares: Shares = {}
    for name, task in protocol.tasks.items():
        shares[name] = {}
        for split, dataset in splits.items():
            if dataset is None:
                continue
            try:
                total = count_labels(dataset, task, least=_COUNTED, further=False).total().astype(float)
            except UserError:  # the audit names the file
                continue
            classes = total[: task.num_classes]
            void = total[VOID] / max(1.0, total.sum())
            shares[name][split] = np.append(classes / max(1.0, classes.sum()), void)
    return shares


def _overlay(sample: Sample, task: Task) -> np.ndarray:
    """The image with its labels in color and their borders in white; plain where it has none."""
    label_HW = sample.labels.get(task.name)
    if label_HW is None:
        return np.full_like(sample.image, 255)
    colors = label_palette(task.classes)[label_HW].astype(np.float32)
    plain = (label_HW == 0) & has_background(task.classes)
    share = np.where(plain, 0.0, _STRENGTH)[..., None]
    blended = ((1 - share) * sample.image + share * colors).astype(np.uint8)
    border = np.zeros(label_HW.shape, bool)
    border[:, 1:] |= label_HW[:, 1:] != label_HW[:, :-1]
    border[1:] |= label_HW[1:] != label_HW[:-1]
    # As wide as a line on the sheet.
    wide = max(1, round(max(label_HW.shape) / _TILE[0]))
    blended[cv2.dilate(border.astype(np.uint8), np.ones((wide, wide), np.uint8)) > 0] = 255
    return blended


def _fitted(pixels: np.ndarray) -> Image.Image:
    tile = Image.new("RGB", _TILE, (235, 235, 235))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = min((_TILE[0] - 4) / picture.width, _TILE[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    tile.paste(picture.resize(size), (0, 0))
    return tile


def _legend(task: Task, shares: dict[str, np.ndarray]) -> Image.Image:
    """Color, name and shares of every class, in columns."""
    names = [*task.classes, "void"]
    colors = label_palette(task.classes)
    rows = min(len(names), 12)
    columns = -(-len(names) // rows)
    width = 180 + 62 * max(2, len(shares))
    picture = Image.new("RGB", (max(columns * width, 500), (rows + 1) * _LINE + 4), _PAPER)
    draw = ImageDraw.Draw(picture)
    title = f"{task.name}: share of the labelled pixels in {', '.join(shares)}"
    draw.text((0, 0), title, _INK, font=_font())
    for index, name in enumerate(names):
        left, top = index // rows * width, (index % rows + 1) * _LINE
        color = colors[VOID if index == task.num_classes else index]
        draw.rectangle((left, top + 3, left + 14, top + 15), tuple(color.tolist()), _MUTED)
        numbers = "  ".join(f"{values[index]:6.1%}" for values in shares.values())
        draw.text((left + 22, top), _shortened(name, 18), _INK, font=_font())
        draw.text((left + 160, top), numbers, _MUTED, font=_font())
    return picture


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _page(protocol: DataProtocol, shares: Shares, picture: str, count: int, messages: Sequence[str]) -> str:
    title = html.escape(f"{protocol.name}: {count} of {len(protocol.train):,} training images")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        "<style>body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1560px;padding:0 1em}"
        "td,th{padding:.1em .8em;text-align:right}td:nth-child(2),th:nth-child(2){text-align:left}"
        "i{display:inline-block;width:1em;height:1em;border:1px solid #888}img{max-width:100%}</style>",
        f"<h1>{title}</h1><p>Each image, and beside it its labels in the colors of the classes. Do the "
        "colors lie on the objects, and are their names right?</p>",
        *(f"<p><b>{html.escape(message)}</b></p>" for message in messages),
        f'<img src="{html.escape(picture)}" alt="images with labels">',
    ]
    for name, task in protocol.tasks.items():
        parts += _table(name, task, shares[name])
        pairs = sides(task.classes) if task.swap is None else task.swap
        if not protocol.flip:
            parts.append("<p>Training never mirrors an image.</p>")
        elif pairs:
            listed = ", ".join(f"{first} ↔ {second}" for first, second in pairs)
            parts.append(f"<p>In mirrored images these change places: {html.escape(listed)}.</p>")
    return "\n".join(parts)


def _table(name: str, task: Task, shares: dict[str, np.ndarray]) -> list[str]:
    colors = label_palette(task.classes)
    heads = "".join(f"<th>{split}</th>" for split in shares)
    rows = [
        f"<h2>{html.escape(name)}</h2><p>Shares of the labelled pixels (void: of all pixels) in up to "
        f"{_COUNTED} label maps of each split.</p>",
        f"<table><tr><th></th><th>class</th><th>in the files</th>{heads}</tr>",
    ]
    for index, label in enumerate([*task.classes, "void"]):
        void = index == task.num_classes
        red, green, blue = colors[VOID if void else index].tolist()
        value = "" if void else str(task.values[index] if task.values else index)
        cells = "".join(f"<td>{values[index]:.2%}</td>" for values in shares.values())
        rows.append(
            f'<tr><td><i style="background:rgb({red},{green},{blue})"></i></td><td>{html.escape(label)}</td>'
            f"<td>{html.escape(value)}</td>{cells}</tr>"
        )
    return [*rows, "</table>"]
