"""Image files: which file an id means, what its header says, and its pixels as 8-bit RGB.

Everything that becomes a network's input is read here: training, prediction and pre-training see the same
pixels of a file. Pillow reads all formats, and the tag of a GeoTIFF that matters here, its value of no data;
OpenCV reads 16-bit colors, which Pillow reduces to 8 bits.
"""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from segstrat.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Formats of images, in any case."""

MOST_PIXELS = 178_956_970
"""Twice Pillow's limit against decompression bombs: where Pillow refuses to go on."""

# `open_image` checks the size, with a message that helps; Pillow would warn at half of it, in every process.
Image.MAX_IMAGE_PIXELS = None
# It would print several lines for every tag of a GeoTIFF that it does not know; 0 silences it. OpenCV 5 has
# moved the function.
(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)

SIXTEEN_BITS = 65535
_ORIENTATION, _NODATA, _SUBFILE, _WIDTH, _LENGTH = 0x0112, 42113, 254, 256, 257
_BITS, _PHOTOMETRIC, _PLANAR = 258, 262, 284
TRANSPOSED = (5, 6, 7, 8)
"""Orientation tags that exchange height and width."""


@dataclass(frozen=True)
class ImageFormat:
    """How the images of a data set are read.

    Args:
        maximum: the value that becomes 255, for images of more than 8 bits; by default that of 16 bits.
            Images of 32-bit integers or floats need one.
        orientation: `stored` ignores orientation tags, `upright` obeys them, `auto` obeys them unless the
            label has the size of the stored picture.
    """

    maximum: float | None = None
    orientation: str = "stored"


STORED = ImageFormat()
"""Published data sets: as their labels, as stored."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of an image file says.

    Args:
        size: height and width as stored.
        mode: Pillow's name of the pixel format.
        depth: `1`, `2`, `4`, `8` or `16` bits per channel, `32` for integers, `float`.
        format: Pillow's name of the file format.
        orientation: the tag of the same name (EXIF 0x0112), 1 if there is none.
        alpha: whether pixels may be transparent.
        pages: number of pictures, without reduced copies and previews.
        palette: (N, 3) uint8 as bytes; empty without one.
    """

    size: tuple[int, int]
    mode: str
    depth: str
    format: str
    orientation: int
    alpha: bool
    pages: int
    palette: bytes

    def upright_size(self) -> tuple[int, int]:
        """Height and width once the orientation tag is obeyed."""
        return self.size[::-1] if self.orientation in TRANSPOSED else self.size


def open_image(path: Path) -> Image.Image:
    """An image of which the header has been read.

    Raises:
        UserError: if the file is missing, unreadable, not an image, or too large.
    """
    try:
        image = Image.open(path)
        if getattr(image, "tag_v2", {}).get(_ORIENTATION, 1) in TRANSPOSED:
            # Pillow 13 maps the pixels of an uncompressed file with its sides exchanged: garbled.
            image = Image.open(io.BytesIO(path.read_bytes()))
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that can be read; {_remedy(path)}") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened ({error.strerror or error}); check the data root"
        ) from error
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, OverflowError) as error:
        # Pillow's parsers of damaged headers raise these, too.
        raise UserError(f"{path} is damaged ({error}); download it again") from error
    if image.width * image.height > MOST_PIXELS:
        raise UserError(
            f"{path} is {image.width}×{image.height} pixels, more than {MOST_PIXELS / 1e6:.0f} million; cut "
            "it and its label into tiles of the same names, for example with `magick FILE -crop 1024x1024 "
            "+repage tiles/NAME-%04d.png` or gdal_retile.py, keep the tiles of one picture in one split, and "
            "list the tiles' ids"
        )
    return image


def _remedy(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        start = b""
    if start[:2] in (b"II", b"MM"):
        return (
            "its TIFF has more channels or other numbers than grey or RGB of 8 or 16 bits; convert it, an "
            "image for example with `gdal_translate -ot Byte -scale -b 1 -b 2 -b 3 FILE NEW`, a label with "
            "`gdal_translate -ot UInt16 -b 1 FILE NEW`"
        )
    if start[4:8] == b"ftyp":
        return "it is a HEIC picture of a phone; save it as JPEG, for example with `magick FILE FILE.jpg`"
    return "download it again"


def load_pixels(image: Image.Image, path: Path) -> Image.Image:
    """Decodes all pixels of an opened image.

    Raises:
        UserError: if the file is truncated or damaged.
    """
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from error
    return image


def header(path: Path) -> Header:
    """The header of a file; no pixel is decoded.

    Raises:
        UserError: as `open_image`.
    """
    with open_image(path) as image:
        return Header(
            size=stored_size(image),
            mode=image.mode,
            depth=depth(image),
            format=image.format or "",
            orientation=orientation(image),
            alpha=has_alpha(image),
            pages=_pages(image),
            palette=bytes(image.palette.palette) if image.mode == "P" and image.palette else b"",
        )


def depth(image: Image.Image) -> str:
    """Bits per channel of the file, of an opened image that is not decoded yet: see `Header`."""
    raw = raw_mode(image)
    if image.mode == "F":
        return "float"
    if image.mode == "1":
        return "1"
    if image.format in ("PNG", "TIFF"):
        # Pillow's raw mode of the planes of a TIFF does not tell.
        if ";16" in raw or (image.mode != "I" and 16 in _bits(image)):
            return "16"
        if image.mode in ("L", "P") and raw[2:3] in ("2", "4"):
            return raw[2]
    return "32" if image.mode == "I" else "8"


def _bits(image: Image.Image) -> Sequence[int]:
    return getattr(image, "tag_v2", {}).get(_BITS, ())


def raw_mode(image: Image.Image) -> str:
    """Pillow's name of how the pixels are stored in the file, of an image that is not decoded yet."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return image.mode
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def orientation(image: Image.Image) -> int:
    """The orientation tag of an opened image, 1 (upright) if it has none.

    Pillow itself turns TIFF files as their tag says, and their size with it.
    """
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info["exif"])
        tag = exif.get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, AttributeError):
        return 1  # a damaged tag turns nothing
    return tag if tag in range(1, 9) else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an opened image, before an orientation tag is obeyed; of a TIFF file after that."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_ORIENTATION, 1) in TRANSPOSED:
        return int(tags[_WIDTH]), int(tags[_LENGTH])
    return image.height, image.width


def has_alpha(image: Image.Image) -> bool:
    """Whether pixels of an opened image may be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def to_rgba(image: Image.Image) -> Image.Image:
    """An image with alpha as RGBA, whose colors are not multiplied by it."""
    return image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")


def min_alpha(image: Image.Image) -> int:
    """The smallest alpha of an RGBA image."""
    low, _ = image.getchannel("A").getextrema()
    return int(low)  # type: ignore[arg-type]


def nodata(image: Image.Image) -> float | None:
    """The value that a GeoTIFF declares to be no data (GDAL's tag 42113)."""
    tags = getattr(image, "tag_v2", None)
    try:
        return float(str(tags[_NODATA]).strip(" \0")) if tags and _NODATA in tags else None
    except ValueError:
        return None


def _pages(image: Image.Image) -> int:
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":  # phones append previews to their photographs
        return 1
    if image.format != "TIFF":
        return count
    pages = 0
    for frame in range(count):
        image.seek(frame)
        # Bits of a reduced copy and of a mask.
        pages += not int(image.tag_v2.get(_SUBFILE, 0)) & 0b101  # type: ignore[attr-defined]
    image.seek(0)
    return max(1, pages)


def read_rgb(path: Path, maximum: float | None = None, *, upright: bool = True) -> np.ndarray:
    """The pixels of a file, (H, W, 3) uint8 RGB.

    Args:
        maximum: see `ImageFormat`.
        upright: turn the picture as its orientation tag says.

    Raises:
        UserError: if the file cannot be read, or has a value that is larger than `maximum`.
    """
    with open_image(path) as image:
        turn = orientation(image) if upright else 1
        return turned(rgb_pixels(image, path, maximum), turn)


def read_wide(path: Path) -> np.ndarray:
    """The values of a file as stored, of any depth: (H, W), or (H, W, 3) for colors."""
    with open_image(path) as image:
        if depth(image) in ("16", "32", "float"):
            return _wide_values(image, path)
        return rgb_pixels(image, path)


def rgb_pixels(image: Image.Image, path: Path, maximum: float | None = None) -> np.ndarray:
    """The pixels of an opened image as stored, (H, W, 3) uint8 RGB.

    Grey is repeated, CMYK converted without a color profile, and what is transparent mixed with black. More
    than 8 bits are scaled so that `maximum` becomes 255.

    Raises:
        UserError: as `read_rgb`.
    """
    bits = depth(image)
    if bits not in ("16", "32", "float"):
        image = load_pixels(image, path)
        if has_alpha(image):
            image = to_rgba(image)
            if min_alpha(image) < 255:
                image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if maximum is None and bits != "16":
        raise UserError(
            f"{path} has {'floating-point' if bits == 'float' else '32-bit'} values, which have no natural "
            "maximum; state in dataset.toml which one is white, for example image_max = 1.0"
        )
    empty = nodata(image)
    values = _wide_values(image, path)
    if empty is not None:
        values = np.where(np.isnan(values) if np.isnan(empty) else values == empty, 0, values)
    pixels = scaled(values, SIXTEEN_BITS if maximum is None else maximum, path)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def _wide_values(image: Image.Image, path: Path) -> np.ndarray:
    """Values of an image of more than 8 bits: (H, W), or (H, W, 3) for colors."""
    tags = getattr(image, "tag_v2", {})
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        if tags.get(_PHOTOMETRIC, 1) == 0:
            raise UserError(f"{path} has 0 as white, with {depth(image)} bits; save it with 0 as black")
        return np.array(load_pixels(image, path))
    content = np.fromfile(path, dtype=np.uint8)
    # OpenCV takes planes for pixels, and black ink for alpha.
    unknown = tags.get(_PLANAR, 1) != 1 or image.mode not in ("RGB", "RGBA", "RGBX", "LA", "L")
    values = None if unknown else cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise UserError(
            f"{path} has 16-bit colors that cannot be read; save it as a PNG or as an uncompressed TIFF, "
            "for example with `gdal_translate -co INTERLEAVE=PIXEL FILE NEW`"
        )
    values = turned(values, int(tags.get(_ORIENTATION, 1)))
    if values.ndim == 2:
        return values
    if not has_alpha(image):
        values = values[..., :3]
    elif values.shape[2] in (2, 4):
        # Transparent pixels are mixed with black.
        alpha = values[..., -1:].astype(np.float32) / SIXTEEN_BITS
        values = (values[..., :-1] * alpha).astype(np.uint16)
    return values[..., ::-1]


def scaled(values: np.ndarray, maximum: float, path: Path) -> np.ndarray:
    """Values from 0 to `maximum` as uint8 from 0 to 255.

    Raises:
        UserError: if a value is outside.
    """
    low, high = values.min(initial=0), values.max(initial=0)
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > maximum:
        raise UserError(
            f"{path} has values from {low:g} to {high:g}, but the images are scaled from 0 to {maximum:g}; "
            "state the largest value of all images in dataset.toml, for example image_max = "
            f"{high if np.isfinite(high) else 1.0:g}, and remove values below 0 or that are not numbers"
        )
    if values.dtype == np.uint16:
        table = np.floor(np.arange(int(high) + 1) * (255 / maximum) + 0.5)
        return table.astype(np.uint8)[values]
    return np.floor(values * (255 / maximum) + 0.5).astype(np.uint8)


def turned(pixels: np.ndarray, tag: int) -> np.ndarray:
    """Stored pixels (H, W[, C]) as the orientation tag says to show them (EXIF 2.3, tag 0x0112)."""
    if tag in TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    # Which axes are reversed, after rows and columns have changed places.
    rows = {3: True, 4: True, 7: True, 8: True}.get(tag, False)
    columns = {2: True, 3: True, 6: True, 7: True}.get(tag, False)
    if tag == 1:
        return pixels
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])


class ImageFiles:
    """The files of a folder by name; every folder is listed once.

    Args:
        suffixes: formats of the files that count, in any case.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
        self.folder = folder
        self.suffixes = frozenset(suffixes)
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def named(self, name: str) -> list[Path]:
        """All files `<name>.<suffix>`; `name` may begin with a subfolder."""
        path = self.folder / name
        # A name in a list may be composed as Unicode differently from that of the file.
        return self._stems(path.parent).get(unicodedata.normalize("NFC", path.name), [])

    def find(self, name: str, apart_from: Sequence[Path] = ()) -> Path:
        """The file of an id, or `<id>.jpg` if there is none, so that it is reported as missing.

        Args:
            apart_from: files that are something else.

        Raises:
            UserError: if there are two.
        """
        found = [path for path in self.named(name) if path not in apart_from]
        if len(found) > 1:
            raise UserError(
                f"{self.folder} has two files of the id {name}: {found[0].name} and {found[1].name}; remove "
                "or rename one of them"
            )
        return found[0] if found else self.folder / f"{name}.jpg"

    def names(self) -> list[str]:
        """The names of all files directly in the folder, without suffix, sorted."""
        return sorted(self._stems(self.folder))

    def _stems(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listed:
            listed: dict[str, list[Path]] = {}
            try:
                paths = sorted(folder.iterdir())
            except OSError:
                paths = []  # the missing files are reported one by one
            for path in paths:
                if path.suffix.lower() in self.suffixes and not path.name.startswith("."):
                    listed.setdefault(unicodedata.normalize("NFC", path.stem), []).append(path)
            self._listed[folder] = listed
        return self._listed[folder]


def other_formats(path: Path) -> str:
    """What a folder has in place of a missing file, for messages: `found a.heic`; empty if nothing."""
    try:
        found = sorted(other.name for other in path.parent.iterdir() if other.stem == path.stem)
    except OSError:
        return ""
    return f"found {found[0]}" if found else ""
