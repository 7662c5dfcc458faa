"""TIFF files written byte by byte, in layouts that Pillow and OpenCV do not write themselves."""

import struct
from pathlib import Path

import numpy as np

_FORMATS = {"u": 1, "i": 2, "f": 3}
GEOTIFF = {
    33550: ("d", (0.1, 0.1, 0.0)),
    33922: ("d", (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0)),
    34735: ("H", (1, 1, 0, 1, 3072, 0, 1, 32632)),
}
"""The tags of pixel size, place and projection that GDAL writes."""


def no_data(text: str) -> dict[int, tuple[str, tuple]]:
    """GDAL's tag for the value of pixels without data."""
    return {42113: ("s", (text.encode() + b"\0",))}


def write_tiff(
    path: Path,
    values: np.ndarray,
    *,
    photometric: int = 1,
    planar: bool = False,
    tags: dict[int, tuple[str, tuple]] | None = None,
) -> Path:
    """An uncompressed little-endian TIFF with one strip, or one for each plane.

    Args:
        values: (H, W) or (H, W, C).
        photometric: 0 for white as zero, 1 for black as zero, 2 for RGB, 5 for CMYK.
        planar: whether each channel is stored by itself.
        tags: further tags: number -> `struct` type and values.
    """
    pixels = values.reshape(*values.shape[:2], -1)
    height, width, channels = pixels.shape
    bits = values.dtype.itemsize * 8
    planes = [pixels[..., c] for c in range(channels)] if planar else [pixels]
    strips = [plane.astype(values.dtype.newbyteorder("<")).tobytes() for plane in planes]
    places = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    entries: dict[int, tuple[str, tuple]] = {
        256: ("I", (width,)), 257: ("I", (height,)), 258: ("H", (bits,) * channels), 259: ("H", (1,)),
        262: ("H", (photometric,)), 273: ("I", tuple(places)), 277: ("H", (channels,)), 278: ("I", (height,)),
        279: ("I", tuple(map(len, strips))), 284: ("H", (2 if planar else 1,)),
        339: ("H", (_FORMATS[values.dtype.kind],) * channels),
    } | (tags or {})  # fmt: skip
    start = 8 + sum(map(len, strips))
    beyond = start + 2 + 12 * len(entries) + 4
    head, tail = struct.pack("<H", len(entries)), b""
    for number, (kind, content) in sorted(entries.items()):
        data = content[0] if kind == "s" else struct.pack(f"<{len(content)}{kind}", *content)
        count = len(data) if kind == "s" else len(content)
        head += struct.pack("<HHI", number, {"s": 2, "H": 3, "I": 4, "d": 12}[kind], count)
        if len(data) <= 4:
            head += data.ljust(4, b"\0")
        else:
            head += struct.pack("<I", beyond + len(tail))
            tail += data + b"\0" * (len(data) % 2)
    content = struct.pack("<2sHI", b"II", 42, start) + b"".join(strips) + head + b"\0" * 4 + tail
    path.write_bytes(content)
    return path
