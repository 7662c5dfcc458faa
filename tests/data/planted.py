"""Tiny folder data sets of bright shapes on dark noise, and the faults that are planted in them."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

COLORS = ((30, 30, 30), (230, 190, 80), (80, 200, 220), (210, 90, 160))


@dataclass
class Planted:
    """A data set in `root`: what its `dataset.toml` says, and the pixels of every id."""

    root: Path
    rng: np.random.Generator
    classes: list[str]
    splits: dict[str, list[str]]
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    top: dict[str, object] = field(default_factory=dict)
    task: dict[str, object] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return list(self.images)

    def image_path(self, name: str, suffix: str = "png") -> Path:
        return self.root / "img" / f"{name}.{suffix}"

    def label_path(self, name: str, suffix: str = "png") -> Path:
        return self.root / "lab" / f"{name}.{suffix}"

    def save_image(self, name: str, pixels: np.ndarray | Image.Image, suffix: str = "png", **options) -> None:
        self.image_path(name).unlink(missing_ok=True)
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        picture.save(self.image_path(name, suffix), **options)

    def save_label(self, name: str, pixels: np.ndarray | Image.Image, suffix: str = "png", **options) -> None:
        self.label_path(name).unlink(missing_ok=True)
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        picture.save(self.label_path(name, suffix), **options)

    def describe(self) -> None:
        """Writes the lists and `dataset.toml`."""
        for split, names in self.splits.items():
            (self.root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        lines = ['name = "tiny"', 'images = "img"', *(f"{k} = {json.dumps(v)}" for k, v in self.top.items())]
        lines += ["[splits]", *(f'{split} = "{split}.txt"' for split in self.splits)]
        table = {"labels": "lab", "classes": self.classes} | self.task
        lines += ["[tasks.semseg]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
        (self.root / "dataset.toml").write_text("\n".join(lines) + "\n")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {json.dumps(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def sound(root: Path, seed: int, *, square: bool = False, classes: int | None = None) -> Planted:
    """A data set without a fault: 8 training, 5 validation and 4 test images."""
    rng = np.random.default_rng([2024, seed])
    height, width = (int(rng.integers(48, 90)) for _ in range(2))
    if square:
        width = height
    count = classes or int(rng.integers(2, 5))
    data = Planted(root, rng, ["background", "disc", "box", "bar"][:count], {}, {}, {})
    (root / "img").mkdir(parents=True)
    (root / "lab").mkdir()
    names = [f"p{index:02}" for index in range(17)]
    data.splits = {"train": names[:8], "val": names[8:13], "test": names[13:]}
    for name in names:
        image, label = _scene(rng, (height, width), count)
        data.images[name], data.labels[name] = image, label
        data.save_image(name, image)
        data.save_label(name, label)
    data.describe()
    return data


def _scene(rng: np.random.Generator, size: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = size
    image = np.full((height, width, 3), COLORS[0], np.uint8)
    label = np.zeros(size, np.uint8)
    for kind in rng.permutation(np.arange(1, count)).tolist():
        side = int(min(size) * rng.uniform(0.2, 0.35))
        y, x = int(rng.integers(0, height - side)), int(rng.integers(0, width - side))
        mask = np.zeros(size, np.uint8)
        if kind == 1:
            cv2.circle(mask, (x + side // 2, y + side // 2), side // 2, 1, -1)
        else:
            mask[y : y + (side if kind == 2 else max(3, side // 2)), x : x + side] = 1
        image[mask > 0], label[mask > 0] = COLORS[kind], kind
    noisy = image.astype(int) + rng.integers(-25, 26, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), label


Fault = Callable[[Planted], None]
FAULTS: dict[str, Fault] = {}
ASKED: dict[str, dict[str, Any]] = {}
"""Fault -> what `sound` is asked for."""


def fault(**asked: Any) -> Callable[[Fault], Fault]:
    def register(plant: Fault) -> Fault:
        FAULTS[plant.__name__] = plant
        ASKED[plant.__name__] = asked
        return plant

    return register


def one(data: Planted, split: str = "train") -> str:
    return str(data.rng.choice(data.splits[split]))


# What labels mean.


@fault()
def masks_of_0_and_255(data: Planted) -> None:
    data.classes = ["background", "object"]
    for name in data.ids:
        data.save_label(name, ((data.labels[name] > 0) * 255).astype(np.uint8))


@fault()
def some_masks_of_0_and_255(data: Planted) -> None:
    data.classes = ["background", "object"]
    for index, name in enumerate(data.ids):
        data.save_label(name, ((data.labels[name] > 0) * (255 if index % 3 else 1)).astype(np.uint8))


@fault()
def the_last_class_is_saved_as_255(data: Planted) -> None:
    last = len(data.classes) - 1
    for name in data.ids:
        data.save_label(name, np.where(data.labels[name] == last, 255, data.labels[name]).astype(np.uint8))


@fault()
def labels_begin_at_1(data: Planted) -> None:
    for name in data.ids:
        data.save_label(name, data.labels[name] + np.uint8(1))


@fault()
def a_class_too_many(data: Planted) -> None:
    data.classes = [*data.classes, "nothing"]


@fault()
def a_class_too_few(data: Planted) -> None:
    data.classes = ["background", "disc", "box", "bar", "more"][: len(data.classes)]
    for name in data.ids:
        data.save_label(name, np.where(data.labels[name] == 1, 17, data.labels[name]).astype(np.uint8))


@fault()
def stretched_values(data: Planted) -> None:
    for name in data.ids:
        data.save_label(name, data.labels[name] * np.uint8(60))


@fault()
def colors_without_a_table(data: Planted) -> None:
    for name in data.ids:
        data.save_label(name, np.array(COLORS, np.uint8)[data.labels[name]])


@fault()
def smoothed_colors(data: Planted) -> None:
    data.task = {"colors": dict(zip(data.classes, map(list, COLORS), strict=False))}
    for name in data.ids:
        colors = np.array(COLORS, np.uint8)[data.labels[name]]
        data.save_label(name, cv2.GaussianBlur(colors, (3, 3), 1))


@fault()
def labels_as_jpeg_called_png(data: Planted) -> None:
    for name in data.ids:
        data.save_label(name, Image.fromarray(data.labels[name]), format="JPEG")


@fault()
def renumbered_palettes(data: Planted) -> None:
    for index, name in enumerate(data.ids):
        palette = np.array(COLORS, np.uint8)
        label = data.labels[name]
        if index % 2:
            palette[[0, 1]] = palette[[1, 0]]
            label = np.choose(np.minimum(label, 2), [1, 0, 2]).astype(np.uint8)
            label = np.where(data.labels[name] > 2, data.labels[name], label).astype(np.uint8)
        picture = Image.fromarray(label)
        picture.putpalette(palette.tobytes())
        data.save_label(name, picture)


@fault()
def half_of_the_masks_have_another_depth(data: Planted) -> None:
    for name in data.ids[::2]:
        data.save_label(name, data.labels[name].astype(np.uint16))


@fault()
def fractional_labels(data: Planted) -> None:
    name = one(data)
    data.save_label(name, Image.fromarray(data.labels[name].astype(np.float32) + 0.5), "tif")


@fault()
def transparent_labels(data: Planted) -> None:
    name = one(data)
    label = data.labels[name]
    grey = np.stack([label, label, label, (label > 0) * 255], -1).astype(np.uint8)
    data.save_label(name, grey)


@fault()
def mostly_void(data: Planted) -> None:
    for name in data.ids:
        label = data.labels[name].copy()
        label[(label == 0) & (data.rng.random(label.shape) < 0.9)] = 255
        data.save_label(name, label)


@fault()
def a_void_label(data: Planted) -> None:
    data.save_label(one(data), np.full_like(data.labels[one(data)], 255))


@fault()
def validation_without_objects(data: Planted) -> None:
    for name in data.splits["val"]:
        data.save_label(name, np.zeros_like(data.labels[name]))


@fault()
def a_class_missing_in_validation(data: Planted) -> None:
    last = len(data.classes) - 1
    for name in data.splits["val"]:
        data.save_label(name, np.where(data.labels[name] == last, 0, data.labels[name]).astype(np.uint8))


@fault()
def sides_without_a_twin(data: Planted) -> None:
    data.classes = ["background", "left disc", "box", "bar"][: len(data.classes)]


@fault()
def short_sides(data: Planted) -> None:
    data.classes = ["background", "arm_l", "arm_r", "leg"]
    for name in data.ids:
        label = data.labels[name].copy()
        label[:4, :4], label[-4:, -4:], label[:4, -4:] = 1, 2, 3
        data.save_label(name, label)


@fault()
def masks_inverted_in_some_files(data: Planted) -> None:
    data.classes = ["background", "object"]
    for index, name in enumerate(data.ids):
        mask = (data.labels[name] > 0).astype(np.uint8)
        data.save_label(name, mask if index % 3 else 1 - mask)


@fault(classes=4)
def labels_resized_like_pictures(data: Planted) -> None:
    for name in data.ids:
        height, width = data.labels[name].shape
        small = cv2.resize(data.labels[name], (width // 2, height // 2), interpolation=cv2.INTER_NEAREST)
        data.save_label(name, cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 3))


@fault()
def images_that_were_never_labelled(data: Planted) -> None:
    for name in data.splits["train"][:2]:
        data.save_label(name, np.zeros_like(data.labels[name]))


@fault()
def a_class_name_twice(data: Planted) -> None:
    data.classes[-1] = data.classes[0]


# Which file is which.


@fault()
def labels_of_other_images(data: Planted) -> None:
    for name, other in zip(data.ids, data.ids[1:] + data.ids[:1], strict=True):
        data.save_label(name, data.labels[other])


def _overlap(one_HW: np.ndarray, other_HW: np.ndarray) -> float:
    return float(((one_HW > 0) & (other_HW > 0)).sum())


@fault()
def two_labels_exchanged(data: Planted) -> None:
    pairs = itertools.combinations(data.splits["train"], 2)
    first, second = min(pairs, key=lambda pair: _overlap(*(data.labels[name] for name in pair)))
    data.save_label(first, data.labels[second])
    data.save_label(second, data.labels[first])


@fault()
def mirrored_labels(data: Planted) -> None:
    for name in data.ids:
        data.save_label(name, np.ascontiguousarray(data.labels[name][:, ::-1]))


@fault(square=True)
def turned_labels(data: Planted) -> None:
    for name in data.ids:
        data.save_label(name, np.ascontiguousarray(np.rot90(data.labels[name])))


@fault()
def shifted_labels(data: Planted) -> None:
    for name in data.ids:
        data.save_label(name, np.roll(data.labels[name], 9, axis=1))


@fault()
def labels_of_images_that_were_cropped(data: Planted) -> None:
    for name in data.ids:
        height, width = data.labels[name].shape
        cut = data.images[name][height // 6 : height - height // 6, width // 6 : width - width // 6]
        data.save_image(name, cv2.resize(cut, (width, height)))


@fault()
def labels_of_another_size(data: Planted) -> None:
    name = one(data, "test")
    data.save_label(name, data.labels[name][:-3])


@fault()
def transposed_labels(data: Planted) -> None:
    if data.images[data.ids[0]].shape[0] == data.images[data.ids[0]].shape[1]:
        return shifted_labels(data)
    for name in data.ids:
        data.save_label(name, np.ascontiguousarray(data.labels[name].T))
    return None


@fault()
def an_orientation_tag_on_a_label(data: Planted) -> None:
    name = one(data)
    picture = Image.fromarray(data.labels[name])
    exif = picture.getexif()
    exif[0x0112] = 3
    data.save_label(name, picture, exif=exif)


@fault(square=True)
def orientation_tags_of_square_pictures(data: Planted) -> None:
    tag = int(data.rng.choice([2, 3, 4, 5, 6, 7, 8]))
    for name in data.ids:
        picture = Image.fromarray(data.images[name])
        exif = picture.getexif()
        exif[0x0112] = tag
        data.save_image(name, picture, "jpg", exif=exif, quality=95)


@fault()
def two_files_of_one_id(data: Planted) -> None:
    name = one(data, "val")
    Image.fromarray(data.images[name]).save(data.image_path(name, "JPG"))


@fault()
def two_labels_of_one_id(data: Planted) -> None:
    name = one(data, "val")
    Image.fromarray(data.labels[name]).save(data.label_path(name, "tif"))


@fault()
def images_that_are_labels(data: Planted) -> None:
    shutil.rmtree(data.root / "img")
    data.task = {"labels": "lab"}
    (data.root / "img").symlink_to(data.root / "lab")


@fault()
def an_image_that_is_a_link_to_a_label(data: Planted) -> None:
    name = one(data)
    data.image_path(name).unlink()
    data.image_path(name).symlink_to(data.label_path(name))


@fault()
def ids_in_two_splits(data: Planted) -> None:
    data.splits["val"] = [*data.splits["val"], one(data)]


@fault()
def copies_in_validation(data: Planted) -> None:
    for name, other in zip(data.splits["val"], data.splits["train"], strict=False):
        shutil.copy(data.image_path(other), data.image_path(name))
        shutil.copy(data.label_path(other), data.label_path(name))


@fault()
def training_images_saved_again_for_validation(data: Planted) -> None:
    for name, other in zip(data.splits["val"][:2], data.splits["train"], strict=False):
        data.save_image(name, data.images[other])
        data.image_path(name).unlink()
        picture = Image.fromarray(data.images[other])
        data.save_image(name, picture.resize((picture.width, picture.height)), "jpg", quality=90)
        data.save_label(name, data.labels[other])


@fault()
def one_picture_many_times(data: Planted) -> None:
    first, *others = data.splits["val"]
    for name in others:
        shutil.copy(data.image_path(first), data.image_path(name))
        shutil.copy(data.label_path(first), data.label_path(name))


@fault()
def ids_with_their_suffix(data: Planted) -> None:
    data.splits["train"] = [f"{name}.png" for name in data.splits["train"]]


@fault()
def an_id_twice(data: Planted) -> None:
    data.splits["train"].append(data.splits["train"][0])


@fault()
def an_unknown_format(data: Planted) -> None:
    name = one(data)
    data.image_path(name).rename(data.image_path(name, "heic"))


@fault()
def an_empty_list(data: Planted) -> None:
    data.splits["val"] = []


# What the pixels are.


@fault()
def twelve_bits_of_sixteen(data: Planted) -> None:
    for name in data.ids:
        data.save_image(name, data.images[name][..., 0].astype(np.uint16) * 16)


@fault()
def sixteen_bits(data: Planted) -> None:
    for name in data.ids:
        data.save_image(name, data.images[name][..., 0].astype(np.uint16) * 257)


@fault()
def some_images_have_sixteen_bits(data: Planted) -> None:
    data.top = {"image_max": 65535}
    for name in data.ids[::2]:
        data.save_image(name, data.images[name][..., 0].astype(np.uint16) * 100)


@fault()
def values_above_the_maximum(data: Planted) -> None:
    data.top = {"image_max": 4095}
    for name in data.ids:
        data.save_image(name, data.images[name][..., 0].astype(np.uint16) * 40)


@fault()
def floats(data: Planted) -> None:
    for name in data.ids:
        data.save_image(name, data.images[name][..., 0].astype(np.float32) / 255, "tif")


@fault()
def negative_floats(data: Planted) -> None:
    data.top = {"image_max": 1}
    for name in data.ids:
        data.save_image(name, data.images[name][..., 0].astype(np.float32) / 255 - 0.5, "tif")


@fault()
def floats_saved_as_bytes(data: Planted) -> None:
    for name in data.ids:
        data.save_image(name, (data.images[name] / 255).round().astype(np.uint8))


@fault()
def a_black_image(data: Planted) -> None:
    name = one(data, "val")
    data.save_image(name, np.zeros_like(data.images[name]))


@fault()
def transparent_images(data: Planted) -> None:
    for name in data.ids:
        alpha = ((data.labels[name] > 0) * 255).astype(np.uint8)
        data.save_image(name, np.dstack([data.images[name], alpha]))


@fault()
def cmyk_images(data: Planted) -> None:
    for name in data.ids:
        data.save_image(name, Image.fromarray(data.images[name]).convert("CMYK"), "jpg", quality=95)


@fault()
def a_stack_of_pages(data: Planted) -> None:
    name = one(data)
    pages = [Image.fromarray(data.images[other]) for other in (name, *data.ids[:2])]
    data.save_image(name, pages[0], "tif", save_all=True, append_images=pages[1:])


@fault()
def many_channels(data: Planted) -> None:
    name = one(data)
    pixels = data.images[name].astype(np.float32)
    data.image_path(name).unlink()
    cv2.imwrite(str(data.image_path(name, "tif")), pixels)


@fault()
def a_truncated_image(data: Planted) -> None:
    path = data.image_path(one(data))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@fault()
def an_empty_file(data: Planted) -> None:
    data.label_path(one(data)).write_bytes(b"")


@fault()
def a_small_test_image(data: Planted) -> None:
    name = one(data, "test")
    data.save_image(name, data.images[name][:20])
    data.save_label(name, data.labels[name][:20])


@fault()
def a_huge_image(data: Planted) -> None:
    data.save_image(one(data), Image.new("1", (14000, 14000)))


@fault()
def tiny_training_images(data: Planted) -> None:
    for name in data.splits["train"]:
        data.save_image(name, cv2.resize(data.images[name], (24, 24)))
        data.save_label(name, cv2.resize(data.labels[name], (24, 24), interpolation=cv2.INTER_NEAREST))
