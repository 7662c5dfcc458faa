"""Label files mean what their tool wrote, whatever their depth and format."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segstrat.data.dataset import VOID
from segstrat.data.labels import ColorLabels, IndexPng, label_values, to_values
from segstrat.errors import UserError
from tests.data.tiffs import GEOTIFF, no_data, write_tiff

LABELS = np.arange(48).reshape(6, 8) % 4
ROAD, SKY = (128, 64, 128), (70, 130, 180)


def grey_png(path: Path, labels: np.ndarray, bits: int) -> None:
    """A grey PNG of 1, 2, 4, 8 or 16 bits, written byte by byte: Pillow writes no 2 and 4 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = b""
    for row in labels:
        if bits == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            flat = "".join(f"{value:0{bits}b}" for value in row.tolist())
            flat += "0" * (-len(flat) % 8)
            rows += b"\0" + int(flat, 2).to_bytes(len(flat) // 8, "big")
    head = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_pngs_of_every_depth(tmp_path, bits):
    labels = LABELS % 2**bits
    grey_png(tmp_path / "a.png", labels, bits)
    np.testing.assert_array_equal(IndexPng((0, 1, 2, 3))(tmp_path / "a.png"), labels)


@pytest.mark.parametrize("bits", [2, 4])
def test_the_largest_value_of_few_bits_is_a_class_and_not_void(tmp_path, bits):
    largest = 2**bits - 1
    labels = np.where(LABELS > 1, largest, 0)
    grey_png(tmp_path / "a.png", labels, bits)
    np.testing.assert_array_equal(IndexPng((0, largest))(tmp_path / "a.png"), LABELS > 1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_pngs_of_every_depth(tmp_path, bits):
    labels = (LABELS % 2**bits).astype(np.uint8)
    picture = Image.fromarray(labels)
    picture.putpalette([value for level in range(2**bits) for value in (level, 9, 200)])
    picture.save(tmp_path / "a.png", bits=bits)
    assert (tmp_path / "a.png").read_bytes()[24] == bits
    np.testing.assert_array_equal(IndexPng((0, 1, 2, 3))(tmp_path / "a.png"), labels)


def test_sixteen_bit_values_are_classes(tmp_path):
    stored = np.array([7, 1000, 24001, 65535])[LABELS].astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        IndexPng((7, 1000, 24001), (65535,))(tmp_path / "a.png"), np.array([0, 1, 2, VOID])[LABELS]
    )
    with pytest.raises(UserError, match="contains label 24001"):
        IndexPng((7, 1000), (65535,))(tmp_path / "a.png")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_tiffs_with_no_data(tmp_path, kind, compression):
    empty = 200 if kind == np.uint8 else 9999
    stored = np.where(LABELS == 3, empty, LABELS).astype(kind)
    Image.fromarray(stored).save(tmp_path / "a.tif", compression=compression, tiffinfo={42113: str(empty)})
    expected = np.where(LABELS == 3, VOID, LABELS)
    np.testing.assert_array_equal(IndexPng((0, 1, 2))(tmp_path / "a.tif"), expected)


def test_no_number_is_void_where_it_is_no_data(tmp_path):
    stored = np.where(LABELS == 3, np.nan, LABELS).astype(np.float32)
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo={42113: "nan"})
    np.testing.assert_array_equal(
        IndexPng((0, 1, 2))(tmp_path / "a.tif"), np.where(LABELS == 3, VOID, LABELS)
    )
    Image.fromarray(stored).save(tmp_path / "b.tif")
    with pytest.raises(UserError, match=r"b\.tif contains label -1"):
        IndexPng((0, 1, 2))(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("kind", "empty"),
    [
        (np.uint8, "255"),
        (np.int16, "-9999"),
        (np.int32, "-2147483648"),
        (np.uint32, "4294967295"),
        (np.float32, "-3.4028234663852886e+38"),
        (np.float32, "inf"),
        (np.float32, "1e10"),
    ],
)
def test_geotiffs_as_geographic_tools_write_them(tmp_path, kind, empty):
    declared = np.float64(empty).astype(kind)
    stored = np.where(LABELS == 3, declared, LABELS.astype(kind)).astype(kind)
    write_tiff(tmp_path / "a.tif", stored, tags=GEOTIFF | no_data(empty))
    expected = np.where(LABELS == 3, VOID, LABELS)
    np.testing.assert_array_equal(IndexPng((0, 1, 2), ())(tmp_path / "a.tif"), expected)


def test_no_data_that_is_a_class_stays_one(tmp_path):
    write_tiff(tmp_path / "a.tif", LABELS.astype(np.uint8), tags=GEOTIFF | no_data("0"))
    np.testing.assert_array_equal(IndexPng((0, 1, 2, 3))(tmp_path / "a.tif"), LABELS)


def test_no_data_between_two_labels_is_not_the_lower_one(tmp_path):
    write_tiff(tmp_path / "a.tif", LABELS.astype(np.uint8), tags=GEOTIFF | no_data("1.5"))
    with pytest.raises(UserError, match="contains label 1"):
        IndexPng((0, 2, 3))(tmp_path / "a.tif")


@pytest.mark.parametrize("value", [1.5, 1e30])
def test_fractions_and_huge_numbers_are_no_labels(tmp_path, value):
    write_tiff(tmp_path / "a.tif", np.where(LABELS == 3, value, LABELS).astype(np.float32))
    with pytest.raises(UserError, match="labels that are not whole numbers"):
        IndexPng((0, 1, 2))(tmp_path / "a.tif")


def test_a_tiff_with_white_zero_keeps_its_values(tmp_path):
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    tag = struct.pack("<HHI", 262, 3, 1)
    assert content.count(tag + struct.pack("<I", 1)) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(tag + struct.pack("<I", 1), tag + struct.pack("<I", 0)))
    np.testing.assert_array_equal(IndexPng((0, 1, 2, 3))(tmp_path / "a.tif"), LABELS)


def test_grey_stored_in_three_channels_is_read(tmp_path):
    Image.fromarray(np.repeat(LABELS[..., None], 3, 2).astype(np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(IndexPng((0, 1, 2, 3))(tmp_path / "a.png"), LABELS)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_labels_are_refused_whatever_their_name(tmp_path, kind):
    Image.fromarray(LABELS.astype(np.uint8)).convert("RGB").save(tmp_path / "a.png", kind)
    for decode in (IndexPng((0, 1, 2, 3)), ColorLabels((ROAD, SKY))):
        with pytest.raises(UserError, match=f"a {kind} file, which changes class numbers"):
            decode(tmp_path / "a.png")


def test_colors_are_classes(tmp_path):
    colors = np.array([ROAD, SKY, (0, 0, 0)], np.uint8)[LABELS % 3]
    decode = ColorLabels((SKY, ROAD), ((0, 0, 0),))
    expected = np.array([1, 0, VOID])[LABELS % 3]
    Image.fromarray(colors).save(tmp_path / "rgb.png")
    Image.fromarray(colors).convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(colors).quantize(4).save(tmp_path / "palette.png")
    for name in ("rgb", "rgba", "palette"):
        np.testing.assert_array_equal(decode(tmp_path / f"{name}.png"), expected)


def test_a_color_of_no_class_is_named_with_the_nearest(tmp_path):
    colors = np.array([ROAD, SKY], np.uint8)[LABELS % 2]
    colors[2, 3] = (129, 65, 128)
    Image.fromarray(colors).save(tmp_path / "a.png")
    with pytest.raises(
        UserError, match=r"1 pixels of the color \[129, 65, 128\].*nearest is \[128, 64, 128\]"
    ):
        ColorLabels((ROAD, SKY))(tmp_path / "a.png")


def test_transparent_labels_are_refused(tmp_path):
    colors = np.dstack([np.array([ROAD, SKY], np.uint8)[LABELS % 2], np.full((6, 8), 255, np.uint8)])
    colors[0, 0, 3] = 0
    Image.fromarray(colors).save(tmp_path / "a.png")
    for decode in (ColorLabels((ROAD, SKY)), IndexPng((0, 1))):
        with pytest.raises(UserError, match="transparent pixels"):
            decode(tmp_path / "a.png")


def test_one_transparent_color_that_no_pixel_has_does_not_matter(tmp_path):
    grey = np.repeat(LABELS[..., None], 3, 2).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=(9, 9, 9))
    np.testing.assert_array_equal(IndexPng((0, 1, 2, 3))(tmp_path / "a.png"), LABELS)
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=(2, 2, 2))
    with pytest.raises(UserError, match="transparent pixels"):
        IndexPng((0, 1, 2, 3))(tmp_path / "a.png")


@pytest.mark.parametrize(
    "decode",
    [
        IndexPng((0, 1, 2, 3)),
        IndexPng((0, 255, 7, 9), ()),
        IndexPng((0, 255, 7000, 9), (8,)),
        ColorLabels((ROAD, SKY, (1, 2, 3), (0, 0, 0))),
    ],
)
def test_written_values_are_read_back(tmp_path, decode):
    values = to_values(LABELS.astype(np.uint8), label_values(decode))
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), LABELS)
