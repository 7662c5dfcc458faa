"""Exports of annotation tools, written as each tool writes them, and what their labels are."""

import base64
import io
import json
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segstrat.data import build_protocol

H, W = 36, 48
Expected = dict[str, np.ndarray]
"""Id -> (H, W) class names; "void" where nothing is labelled."""


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (H, W), orientation: int = 1) -> Path:
    name = zlib.crc32(f"{path.parent.name}/{path.name}".encode())
    pixels = np.random.default_rng([seed, name]).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    tags = image.getexif()
    if orientation != 1:
        tags[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=tags)
    return path


def stripes(seed: int, values: Sequence[int], size: tuple[int, int] = (H, W)) -> np.ndarray:
    """Every value, in vertical stripes of random order."""
    order = np.random.default_rng(seed).permutation(values)
    columns = np.arange(size[1]) * len(order) // size[1]
    return np.broadcast_to(order[columns], size).copy()


def names_of(values_HW: np.ndarray, names: dict[int, str]) -> np.ndarray:
    return np.vectorize(lambda value: names.get(int(value), "void"), otypes=[object])(values_HW)


def write_png(path: Path, values_HW: np.ndarray, dtype: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values_HW.astype(dtype)).save(path)
    return path


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read(out: Path) -> tuple[dict[str, list[str]], Expected]:
    """Ids by split and label maps as names, through the `folder` protocol."""
    protocol = build_protocol("folder", out)
    names = dict(enumerate(protocol.tasks["semseg"].classes))
    splits, labels = {}, {}
    for split, dataset in (("train", protocol.train), ("val", protocol.val), ("test", protocol.test)):
        if dataset is not None and len(dataset):
            splits[split] = list(dataset.ids)
            for index in range(len(dataset)):
                sample = dataset.read(index)
                labels[sample.id] = names_of(sample.labels["semseg"], names)
    return splits, labels


def assert_same(found: Expected, expected: Expected) -> None:
    assert found.keys() == expected.keys()
    for name, labels_HW in expected.items():
        assert (found[name] == labels_HW).all(), name


# --- COCO ---

CATEGORIES = [
    {"id": 3, "name": "cow", "supercategory": "animal"},
    {"id": 17, "name": "cat", "supercategory": "animal"},
    {"id": 44, "name": "never", "supercategory": "none"},
]


def rle(mask_HW: np.ndarray, compressed: bool) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    if compressed:
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    runs, last, bits = [0], 0, mask_HW.ravel(order="F").astype(int)
    for bit in bits:
        if bit != last:
            runs.append(0)
            last = bit
        runs[-1] += 1
    return {"size": list(mask_HW.shape), "counts": runs}


def coco_annotations(first: int) -> list[dict]:
    """Of four images: polygons (two parts, fractions), RLEs with holes, crowds and overlaps; one has none."""
    yy, xx = np.mgrid[:H, :W]
    ring = (np.hypot(yy - 9, xx - 12) < 8) & (np.hypot(yy - 9, xx - 12) > 3)
    parts = [[1.5, 1.5, 9.25, 2, 8, 9.75, 2, 8], [15, 10, 22, 10, 22, 16, 15, 16]]
    shapes: list[tuple[int, int, object, int]] = [
        (0, 3, parts, 0),
        (0, 17, [[3, 3, 7, 3, 7, 7, 3, 7]], 0),
        (0, 17, [[-4, 12, 30, 12, 30, 30, -4, 30]], 0),
        (1, 17, rle(ring, compressed=True), 0),
        (1, 3, rle(yy > 12, compressed=False), 0),
        (1, 3, rle((xx > 5) & (xx < 20), compressed=True), 1),
        (2, 3, rle(xx < 9, compressed=False), 1),
        (2, 17, [[2, 2, 20, 2, 20, 15, 2, 15]], 0),
    ]
    return [
        {
            "id": first + number,
            "image_id": 100 + first + image,
            "category_id": category,
            "segmentation": shape,
            "iscrowd": crowd,
            "area": 0,
            "bbox": [0, 0, 1, 1],
        }
        for number, (image, category, shape, crowd) in enumerate(shapes)
    ]


def coco_decoded(path: Path) -> Expected:
    """By pycocotools' own reader: crowds below, then objects, the smaller above the larger."""
    coco = COCO(str(path))
    decoded = {}
    for image in coco.loadImgs(coco.getImgIds()):
        labels_HW = np.full((image["height"], image["width"]), "background", object)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        masks = [coco.annToMask(each).astype(bool) for each in annotations]
        for each, mask in zip(annotations, masks, strict=True):
            if each["iscrowd"]:
                labels_HW[mask] = "void"
        order = sorted(range(len(masks)), key=lambda index: -masks[index].sum())
        for index in order:
            if not annotations[index]["iscrowd"]:
                labels_HW[masks[index]] = coco.cats[annotations[index]["category_id"]]["name"]
        decoded[Path(image["file_name"]).stem] = labels_HW
    return decoded


def coco(root: Path) -> Expected:
    expected: Expected = {}
    for number, split in enumerate(("train", "val")):
        first = 10 * number
        images = []
        for index in range(4):
            name = f"{split}_{index}.jpg"
            photo(root / f"{split}2017" / name, seed=index)
            images.append({"id": 100 + first + index, "file_name": name, "height": H, "width": W})
        content = {"images": images, "annotations": coco_annotations(first), "categories": CATEGORIES}
        path = write_json(root / "annotations" / f"instances_{split}2017.json", content)
        write_json(root / "annotations" / f"captions_{split}2017.json", {"images": images, "annotations": []})
        expected |= coco_decoded(path)
    return expected


def coco_panoptic(root: Path) -> Expected:
    expected: Expected = {}
    segments = [
        {"id": 70_000, "category_id": 3, "iscrowd": 0},
        {"id": 5, "category_id": 17, "iscrowd": 0},
        {"id": 300, "category_id": 17, "iscrowd": 1},
    ]
    for split in ("train", "val"):
        folder = f"panoptic_{split}2017"
        images, annotations = [], []
        for index in range(2):
            numbers_HW = stripes(index, [0, 5, 300, 70_000])
            rgb = np.stack([numbers_HW % 256, numbers_HW // 256 % 256, numbers_HW // 65536], axis=-1)
            write_png(root / "annotations" / folder / f"{split}{index}.png", rgb)
            photo(root / f"{split}2017" / f"{split}{index}.jpg")
            images.append({"id": index, "file_name": f"{split}{index}.jpg", "height": H, "width": W})
            annotations.append(
                {"image_id": index, "file_name": f"{split}{index}.png", "segments_info": segments}
            )
            expected[f"{split}{index}"] = names_of(numbers_HW, {70_000: "cow", 5: "cat"})
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        write_json(root / "annotations" / f"{folder}.json", content)
    return expected


# --- labelme ---


def png_base64(bits_HW: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(bits_HW.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def labelme_mask(shape: dict) -> np.ndarray:
    """As `labelme.utils.shape_to_mask` of labelme 6.3 draws one shape."""
    canvas = Image.fromarray(np.zeros((H, W), np.uint8))
    draw = ImageDraw.Draw(canvas)
    points = [tuple(point) for point in shape["points"]]
    if shape["shape_type"] == "circle":
        (cx, cy), (px, py) = points
        d = math.sqrt((cx - px) ** 2 + (cy - py) ** 2)
        draw.ellipse(((cx - d, cy - d), (cx + d, cy + d)), outline=1, fill=1)
    elif shape["shape_type"] == "rectangle":
        (x0, y0), (x1, y1) = points
        draw.rectangle(((min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))), outline=1, fill=1)
    elif shape["shape_type"] == "mask":
        mask_HW = np.zeros((H, W), bool)
        (x1, y1), (x2, y2) = np.asarray(points).astype(int)
        bits = np.array(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
        mask_HW[y1 : y2 + 1, x1 : x2 + 1] = bits.astype(bool)
        return mask_HW
    else:
        draw.polygon(points, outline=1, fill=1)
    return np.array(canvas, dtype=bool)


def shape(label: str, kind: str, points: list, **more: object) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def labelme(root: Path) -> Expected:
    disc = np.hypot(*np.mgrid[-3:4, -4:5]) < 4
    drawn = [
        shape("cow", "polygon", [[1.4, 2.6], [20.2, 1.1], [12.7, 16.3]]),
        shape("cat", "circle", [[12.0, 9.0], [15.5, 9.0]]),
        shape("__ignore__", "rectangle", [[22.0, 16.0], [15.3, 12.2]]),
        shape("dog", "mask", [[2.0, 8.0], [10.0, 14.0]], mask=png_base64(disc)),
        shape("dog", "oriented_rectangle", [[17, 2], [22, 4], [20, 8], [15, 6]]),
    ]
    expected: Expected = {}
    for index in range(10):
        shapes = [drawn[index % 5], drawn[(index + 1) % 5], drawn[(index + 3) % 5]] if index else []
        labels_HW = np.full((H, W), "background", object)
        for each in shapes:
            labels_HW[labelme_mask(each)] = {"__ignore__": "void"}.get(each["label"], each["label"])
        folder = root / ("farm" if index % 2 else "barn")
        path = photo(folder / f"{index // 2}.jpg", seed=index)
        embedded = base64.b64encode(path.read_bytes()).decode() if index in (3, 6) else None
        if embedded:
            path.unlink()
        point = [shape("nose", "point", [[3.0, 3.0]])] if index == 4 else []
        content = {
            "version": "6.3.1",
            "flags": {},
            "shapes": shapes + point,
            "imagePath": path.name,
            "imageData": embedded,
            "imageHeight": H,
            "imageWidth": W,
        }
        write_json(folder / f"{index // 2}.json", content)
        expected[f"{folder.name}__{index // 2}"] = labels_HW
    return expected


# --- Label images ---


def cvat(root: Path) -> Expected:
    colors = {
        "background": (0, 0, 0),
        "cow": (250, 50, 83),
        "cat": (51, 221, 255),
        "ignored": (224, 224, 192),
    }
    lines = ["# label:color_rgb:parts:actions"]
    lines += [f"{name}:{','.join(map(str, rgb))}::" for name, rgb in colors.items()]
    expected: Expected = {}
    for index in range(8):
        values_HW = stripes(index, range(4))
        rgb = np.array(list(colors.values()), np.uint8)[values_HW]
        name = f"clip {index // 4}/frame_{index:06d}"
        write_png(root / "SegmentationClass" / f"{name}.png", rgb)
        write_png(root / "SegmentationObject" / f"{name}.png", rgb)
        photo(root / "JPEGImages" / f"{name}.PNG", seed=index)
        id_ = name.replace("/", "__").replace(" ", "_")
        expected[id_] = names_of(values_HW, {0: "background", 1: "cow", 2: "cat"})
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = [f'"clip {index // 4}/frame_{index:06d}"' for index in range(8)]
    (lists / "default.txt").write_text("\n".join(names) + "\n")
    (root / "labelmap.txt").write_text("\n".join(lines) + "\n")
    return expected


def roboflow(root: Path) -> Expected:
    expected: Expected = {}
    for split in ("train", "valid", "test"):
        for index in range(2):
            name = f"IMG_{split}{index}_jpg.rf.0a1b2c"
            values_HW = stripes(index, [0, 1, 2])
            photo(root / split / f"{name}.jpg")
            write_png(root / split / f"{name}_mask.png", values_HW)
            expected[name] = names_of(values_HW, {0: "background", 1: "cow", 2: "cat"})
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cow\n2, cat\n")
    return expected


CITYSCAPES = {7: "road", 8: "sidewalk", 24: "person", 33: "bicycle"}


def cityscapes(root: Path, kind: str = "labelIds") -> Expected:
    """Real files of the test split hold nothing that is evaluated."""
    ids = [0, 3, 7, 8, 24, 33]
    train_ids = {0: 255, 3: 255, 7: 0, 8: 1, 24: 11, 33: 18}
    expected: Expected = {}
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "lindau"), ("test", "bonn")):
        for index in range(2):
            name = f"{city}_000000_{index:06d}"
            values_HW = stripes(index, ids if split != "test" else [0, 3])
            photo(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
            folder = root / "gtFine" / split / city
            stored_HW = values_HW if kind == "labelIds" else np.vectorize(train_ids.get)(values_HW)
            write_png(folder / f"{name}_gtFine_{kind}.png", stored_HW)
            write_png(folder / f"{name}_gtFine_instanceIds.png", values_HW * 1000, np.uint16)
            if split != "test":
                expected[name] = names_of(values_HW, CITYSCAPES)
    return expected


def ade20k(root: Path) -> Expected:
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    # Two classes begin alike, and both keep all their words.
    names = {1: "wall", 2: "building, edifice", 131: "screen, silver screen", 142: "screen, CRT screen"}
    for value in range(1, 151):
        rows.append(f"{value}\t0.1\t11664\t1172\t1\t{names.get(value, f'thing {value}')}")
    top = root / "ADEChallengeData2016"
    top.mkdir(parents=True)
    (top / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    shown = names | {2: "building"}
    expected: Expected = {}
    for split, short in (("training", "train"), ("validation", "val")):
        for index in range(2):
            name = f"ADE_{short}_{index:08d}"
            values_HW = stripes(index, [0, 1, 2, 131, 142])
            photo(top / "images" / split / f"{name}.jpg")
            write_png(top / "annotations" / split / f"{name}.png", values_HW)
            expected[name] = names_of(values_HW, shown)
    return expected


def huggingface(root: Path) -> Expected:
    """As `datasets` 5.2 writes it: structs of bytes and path, and the features in the schema's metadata."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "annotation": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("image", image), ("scene", pa.int64()), ("annotation", image)], metadata)
    expected: Expected = {}
    for split, count in (("train", 5), ("validation", 2)):
        rows = []
        for index in range(count):
            values_HW = stripes(index, [0, 1, 2, 255])
            buffer = io.BytesIO()
            Image.fromarray(values_HW.astype(np.uint8)).save(buffer, "PNG")
            path = photo(root / "made" / f"{split}{index}.jpg")
            rows.append(
                {
                    "image": {"bytes": path.read_bytes(), "path": f"{split}_{index}.jpg"},
                    "scene": index,
                    "annotation": {"bytes": buffer.getvalue(), "path": None},
                }
            )
            path.unlink()
            expected[f"{split}_{index}"] = names_of(values_HW, {0: "background", 1: "cow", 2: "cat"})
        (root / "data").mkdir(exist_ok=True)
        table = pa.Table.from_pylist(rows, schema)
        pq.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=2)
    write_json(root / "id2label.json", {"0": "background", "1": "cow", "2": "cat"})
    return expected


def masks(root: Path) -> Expected:
    """Two folders, nested alike; 0 and 255 alone are two classes."""
    expected: Expected = {}
    for index in range(10):
        values_HW = stripes(index, [0, 255])
        photo(root / "Images" / f"day{index % 2}" / f"{index}.JPG", seed=index)
        write_png(root / "Masks" / f"day{index % 2}" / f"{index}.png", values_HW)
        expected[f"day{index % 2}__{index}"] = names_of(values_HW, {0: "background", 255: "object"})
    return expected


def masks_beside(root: Path) -> Expected:
    """Labels beside their images with the suffix `_label`, as colors; one folder a split."""
    colors = np.array([(0, 0, 0), (128, 64, 128), (70, 70, 70)], np.uint8)
    expected: Expected = {}
    for split in ("train", "val"):
        for index in range(2):
            values_HW = stripes(index, range(3))
            photo(root / split / f"{split}{index}.png")
            write_png(root / split / f"{split}{index}_label.png", colors[values_HW])
            named = names_of(values_HW, {0: "background", 1: "#804080", 2: "#464646"})
            expected[f"{split}{index}"] = named
    return expected


Writer = Callable[[Path], Expected]
LAYOUTS: dict[str, tuple[str, Writer, dict[str, int]]] = {
    "coco": ("coco", coco, {"train": 4, "val": 4}),
    "coco-panoptic": ("coco-panoptic", coco_panoptic, {"train": 2, "val": 2}),
    "labelme": ("labelme", labelme, {"train": 7, "val": 1, "test": 2}),
    "cvat": ("cvat", cvat, {"train": 5, "val": 1, "test": 2}),
    "roboflow": ("roboflow", roboflow, {"train": 2, "val": 2, "test": 2}),
    "cityscapes": ("cityscapes", cityscapes, {"train": 4, "val": 2}),
    "cityscapes-train-ids": (
        "cityscapes",
        lambda root: cityscapes(root, "labelTrainIds"),
        {"train": 4, "val": 2},
    ),
    "ade20k": ("ade20k", ade20k, {"train": 2, "val": 2}),
    "huggingface": ("huggingface", huggingface, {"train": 5, "val": 2}),
    "masks": ("masks", masks, {"train": 7, "val": 1, "test": 2}),
    "masks-beside": ("masks", masks_beside, {"train": 2, "val": 2}),
}
