"""Image files become 8-bit RGB as they were meant: depth, orientation, transparency, names."""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from segstrat.data.images import ImageFiles, header, read_rgb, turned
from segstrat.errors import UserError
from tests.data.tiffs import GEOTIFF, no_data, write_tiff

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
REQUIRED = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def encoded(image: Image.Image, kind: str, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_eight_bit_colors_are_those_of_pillow(tmp_path, kind):
    image = Image.fromarray(RGB)
    image.save(tmp_path / "a.img", kind)
    with Image.open(tmp_path / "a.img") as plain:
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.img"), np.array(plain.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_other_modes_are_converted_as_pillow_does(tmp_path, mode):
    image = Image.fromarray(RGB).convert(mode)
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), np.array(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("maximum", "values"), [(None, 65535), (4095, 4095)])
def test_sixteen_bit_grey_is_scaled_by_the_stated_maximum(tmp_path, suffix, maximum, values):
    grey = RNG.integers(0, values + 1, (20, 30)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    expected = np.floor(grey * (255 / values) + 0.5)
    pixels = read_rgb(tmp_path / f"a.{suffix}", maximum)
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, 2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_colors_keep_their_order_and_range(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), WIDE[..., ::-1])
    assert header(tmp_path / f"a.{suffix}").depth == "16"
    expected = np.floor(WIDE * (255 / 65535) + 0.5)
    np.testing.assert_array_equal(read_rgb(tmp_path / f"a.{suffix}"), expected)
    dim = (WIDE // 16).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), dim[..., ::-1])
    assert read_rgb(tmp_path / f"a.{suffix}", 4095).max() == 255


def test_transparent_sixteen_bit_colors_are_mixed_with_black(tmp_path):
    alpha = np.full((20, 30, 1), 32768, np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), np.concatenate([WIDE[..., ::-1], alpha], 2))
    assert np.abs(read_rgb(tmp_path / "a.png") - WIDE / 257 / 2).max() <= 1


SPARE = {338: ("H", (0,))}
"""One channel more than the colors, of no stated meaning, such as infrared."""


@pytest.mark.parametrize("planar", [False, True])
def test_a_geotiff_of_8_bits_is_read_whatever_its_layout(tmp_path, planar):
    write_tiff(tmp_path / "a.tif", RGB, photometric=2, planar=planar, tags=GEOTIFF | no_data("0"))
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), RGB)


def test_a_geotiff_of_16_bits_is_read_without_a_word(tmp_path, capfd):
    write_tiff(tmp_path / "a.tif", WIDE, photometric=2, tags=GEOTIFF)
    expected = np.floor(WIDE * (255 / 65535) + 0.5)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), expected)
    four = np.concatenate([WIDE, WIDE[..., :1]], 2)
    write_tiff(tmp_path / "a.tif", four, photometric=2, tags=GEOTIFF | SPARE)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("values", "photometric", "planar", "message"),
    [
        (WIDE, 2, True, "16-bit colors that cannot be read; .*INTERLEAVE=PIXEL"),
        (np.concatenate([WIDE, WIDE[..., :1]], 2), 5, False, "16-bit colors that cannot be read"),
        (WIDE[..., 0], 0, False, "has 0 as white, with 16 bits; save it with 0 as black"),
        (np.full((20, 30), 0.5, np.float32), 0, False, "has 0 as white"),
        (RGB.astype(np.float32), 2, False, "more channels or other numbers than grey or RGB"),
        (RGB[..., 0].astype(np.float64), 1, False, "more channels or other numbers than grey or RGB"),
    ],
    ids=["planes", "inks", "white is 0", "floats with white as 0", "colors in floats", "doubles"],
)
def test_a_tiff_that_would_be_misread_is_refused(tmp_path, values, photometric, planar, message):
    write_tiff(tmp_path / "a.tif", values, photometric=photometric, planar=planar)
    with pytest.raises(UserError, match=message):
        read_rgb(tmp_path / "a.tif", 65535)


OLD_PILLOW = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13,
    reason="Pillow 13 is the first that reads grey multiplied with alpha",
)


@pytest.mark.parametrize("kind", [pytest.param(1, marks=OLD_PILLOW), 2])
def test_transparent_grey_is_mixed_with_black(tmp_path, kind):
    """Alpha of a TIFF may be stored multiplied with the grey (1) or apart from it (2)."""
    grey = np.full((20, 30), 100, np.uint8)
    alpha = np.where(np.arange(30) < 15, 255, 0).astype(np.uint8)
    stored = np.dstack([np.where(alpha > 0, grey, 0), np.broadcast_to(alpha, grey.shape)]).astype(np.uint8)
    write_tiff(tmp_path / "a.tif", stored, tags={338: ("H", (kind,))})
    pixels = read_rgb(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels, np.repeat(np.where(alpha > 0, grey, 0)[..., None], 3, 2))


def test_values_above_the_maximum_are_refused_not_clipped(tmp_path):
    Image.fromarray(WIDE[..., 0]).save(tmp_path / "a.png")
    with pytest.raises(
        UserError, match=r"a\.png has values from .* scaled from 0 to 4095; .*image_max = \d+"
    ):
        read_rgb(tmp_path / "a.png", 4095)


def test_floats_need_a_maximum(tmp_path):
    values = RNG.random((20, 30)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"floating-point values.*image_max = 1\.0"):
        read_rgb(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif", 1.0)[..., 1], np.floor(values * 255 + 0.5))


@pytest.mark.parametrize("bad", [np.nan, -0.5, np.inf])
def test_floats_that_are_no_brightness_are_refused(tmp_path, bad):
    values = np.full((4, 4), 0.5, np.float32)
    values[1, 2] = bad
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="has values from"):
        read_rgb(tmp_path / "a.tif", 1.0)


def test_no_data_of_a_geotiff_is_black(tmp_path):
    values = np.full((4, 4), 0.5, np.float32)
    values[0] = -9999
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={42113: "-9999"})
    pixels = read_rgb(tmp_path / "a.tif", 1.0)
    assert (pixels[0] == 0).all()
    assert (pixels[1:] == 128).all()


def test_transparent_pixels_are_mixed_with_black(tmp_path):
    alpha = np.full((20, 30), 255, np.uint8)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "opaque.png"), RGB)
    alpha[:10] = 0
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "half.png")
    pixels = read_rgb(tmp_path / "half.png")
    assert (pixels[:10] == 0).all()
    np.testing.assert_array_equal(pixels[10:], RGB[10:])


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientation_tags_are_obeyed_as_pillow_does(tmp_path, tag):
    picture = Image.fromarray(RGB)
    exif = picture.getexif()
    exif[0x0112] = tag
    for kind in ("png", "jpg", "webp"):
        picture.save(tmp_path / f"a.{kind}", exif=exif)
        assert header(tmp_path / f"a.{kind}").orientation == tag
        with Image.open(tmp_path / f"a.{kind}") as image:
            expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
            stored = np.array(image.convert("RGB"))
        np.testing.assert_array_equal(read_rgb(tmp_path / f"a.{kind}"), expected)
        np.testing.assert_array_equal(read_rgb(tmp_path / f"a.{kind}", upright=False), stored)
        assert header(tmp_path / f"a.{kind}").upright_size() == expected.shape[:2]
    np.testing.assert_array_equal(
        turned(RGB, tag), np.array(ImageOps.exif_transpose(encoded(picture, "PNG", exif=exif)))
    )


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("kind", ["grey", "grey of 16 bits", "colors"])
def test_tiffs_are_turned_as_their_tag_says(tmp_path, tag, compression, kind):
    pixels = {"grey": RGB[..., 0], "grey of 16 bits": WIDE[..., 0], "colors": RGB}[kind]
    Image.fromarray(pixels).save(tmp_path / "plain.tif")
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression, tiffinfo={0x0112: tag})
    expected = turned(read_rgb(tmp_path / "plain.tif"), tag)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), expected)
    assert header(tmp_path / "a.tif").size == expected.shape[:2]


def test_a_huge_image_says_how_to_cut_it(tmp_path):
    Image.new("1", (14000, 14000)).save(tmp_path / "a.png")
    message = r"is 14000×14000 pixels, more than 179 million; cut it and its label into tiles"
    with pytest.raises(UserError, match=message):
        header(tmp_path / "a.png")


def test_a_large_image_is_read_without_a_warning(tmp_path):
    Image.new("1", (10000, 9500)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert header(tmp_path / "a.png").size == (9500, 10000)


def test_a_stack_has_pages_and_a_pyramid_has_one(tmp_path):
    pages = [Image.fromarray(RGB) for _ in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    assert header(tmp_path / "stack.tif").pages == 3
    assert header(tmp_path / "stack.tif").size == (20, 30)
    Image.fromarray(RGB).save(tmp_path / "a.tif")
    assert header(tmp_path / "a.tif").pages == 1


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"<html>", b"II*\0\xff\xff\xff\xff", b"\xff\xd8\xff"]
)
def test_what_is_no_image_is_one_sentence(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png"):
        read_rgb(tmp_path / "a.png")


def test_a_heic_picture_says_what_to_do(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    with pytest.raises(UserError, match=r"HEIC picture of a phone; save it as JPEG"):
        read_rgb(tmp_path / "a.jpg")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize("suffix", [form for s in REQUIRED for form in (s, s.upper(), s.title())])
def test_every_suffix_in_any_case_is_found(tmp_path, suffix):
    touch(tmp_path, f"a{suffix}", f"sub/my photo.1{suffix}", f"._a{suffix}", "a.txt")
    files = ImageFiles(tmp_path)
    assert files.find("a") == tmp_path / f"a{suffix}"
    assert files.find("sub/my photo.1") == tmp_path / f"sub/my photo.1{suffix}"


def test_two_files_of_one_id_are_refused(tmp_path):
    touch(tmp_path, "a.jpg", "a.JPEG")
    with pytest.raises(UserError, match=r"two files of the id a: a\.JPEG and a\.jpg"):
        ImageFiles(tmp_path).find("a")
    assert ImageFiles(tmp_path).find("a", apart_from=[tmp_path / "a.jpg"]) == tmp_path / "a.JPEG"


def test_names_are_the_same_however_unicode_composes_them(tmp_path):
    touch(tmp_path, "cafe\u0301.jpg")
    assert ImageFiles(tmp_path).find("caf\u00e9").name == "cafe\u0301.jpg"
