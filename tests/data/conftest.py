"""Tiny files in the official layouts of the published data sets."""

import functools
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segstrat.data.palette import voc_palette

HEIGHT, WIDTH = 6, 8


@functools.cache
def jpeg(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def index_png(labels: np.ndarray, palette: bool = True) -> bytes:
    image = Image.fromarray(labels.astype(np.uint8))
    if palette:
        image.putpalette(voc_palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sbd_mat(labels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    record = {"Boundaries": np.zeros((20, 1), object), "Segmentation": labels.astype(np.uint8)}
    scipy.io.savemat(buffer, {"GTcls": record}, do_compression=True)
    return buffer.getvalue()


@functools.cache
def solid(encode: Callable[..., bytes], label: int, **options: bool) -> bytes:
    return encode(np.full((HEIGHT, WIDTH), label), **options)


class Trees:
    """Writes data sets under `root`; files of the same content are one file with many names."""

    jpeg, index_png, sbd_mat = staticmethod(jpeg), staticmethod(index_png), staticmethod(sbd_mat)

    def __init__(self, root: Path) -> None:
        self.root = root
        self._first: dict[bytes, tuple[Path, int]] = {}

    def write(self, path: str, content: bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        first, names = self._first.get(content, (target, 0))
        # File systems allow some tens of thousands of names a file.
        if names % 20_000 == 0:
            target.write_bytes(content)
            first = target
        else:
            os.link(first, target)
        self._first[content] = (first, names + 1)
        return target

    def list_ids(self, path: str, ids: Iterable[str]) -> None:
        self.write(path, "".join(f"{name}\n" for name in ids).encode())

    def voc(
        self, train: Iterable[str], val: Iterable[str], label: int = 1, top: str = "VOCdevkit/VOC2012"
    ) -> None:
        labels = np.full((HEIGHT, WIDTH), label)
        labels[0] = 255
        content = index_png(labels)
        for split, ids in (("train", train), ("val", val)):
            self.list_ids(f"{top}/ImageSets/Segmentation/{split}.txt", ids)
            for name in ids:
                self.write(f"{top}/JPEGImages/{name}.jpg", jpeg())
                self.write(f"{top}/SegmentationClass/{name}.png", content)

    def sbd(self, train: Iterable[str], val: Iterable[str], label: int = 2) -> None:
        top = "benchmark_RELEASE/dataset"
        for split, ids in (("train", train), ("val", val)):
            self.list_ids(f"{top}/{split}.txt", ids)
            for name in ids:
                self.write(f"{top}/img/{name}.jpg", jpeg())
                self.write(f"{top}/cls/{name}.mat", solid(sbd_mat, label))

    def cihp(self, train: Iterable[str], val: Iterable[str], label: int = 19) -> None:
        for split, folder, ids in (("train", "Training", train), ("val", "Validation", val)):
            top = f"instance-level_human_parsing/{folder}"
            self.list_ids(f"{top}/{split}_id.txt", ids)
            for name in ids:
                self.write(f"{top}/Images/{name}.jpg", jpeg())
                content = solid(index_png, label, palette=False)
                self.write(f"{top}/Category_ids/{name}.png", content)

    def person_part(self, train: Iterable[str], val: Iterable[str], label: int = 6) -> None:
        top = "pascal_person_part"
        for split, ids in (("train", train), ("val", val)):
            self.list_ids(f"{top}/pascal_person_part_trainval_list/{split}_id.txt", ids)
            for name in ids:
                content = solid(index_png, label, palette=False)
                self.write(f"{top}/pascal_person_part_gt/{name}.png", content)


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    """Writes under a fresh data root, `trees.root`."""
    root = tmp_path / "data"
    root.mkdir()
    return Trees(root)


@pytest.fixture(scope="session")
def official_ids(shared_data: Path) -> Callable[[str], list[str]]:
    """The published split list of a name, for example `sbd_train`."""
    return lambda name: (shared_data / "splits" / f"{name}.txt").read_text().split()


@pytest.fixture(scope="session")
def official_trees(
    tmp_path_factory: pytest.TempPathFactory, official_ids: Callable[[str], list[str]]
) -> Path:
    """A data root with every published id of VOC, SBD and Person-Part, as tiny synthetic files."""
    trees = Trees(tmp_path_factory.mktemp("official"))
    trees.voc(official_ids("voc12_seg_train"), official_ids("voc12_seg_val"))
    trees.sbd(official_ids("sbd_train"), official_ids("sbd_val"))
    trees.person_part(official_ids("ppp_train"), official_ids("ppp_val"))
    return trees.root
