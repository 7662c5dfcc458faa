#!/usr/bin/env bash
# Pillow 13.0.0: a TIFF with an orientation tag is turned by Pillow itself, any other format is not.
#
# The same picture of 6×4 pixels, saved with orientation 6 (to be shown turned by 90°), in four formats.
# Expected: `Image.open` treats the tag of all formats alike; `ImageOps.exif_transpose` is the call that turns.
# Seen:     JPEG, PNG and WebP keep 6×4 and the tag. TIFF is 4×6 as soon as it is opened, still says 6 until its
#           pixels are read, and then has lost the tag. Code that reads size and tag from the header, as a check of
#           many files does, turns a TIFF twice; code that ignores tags gets TIFFs turned all the same.
# Here:     segstrat/data/convert.py compares labels with the upright size, and makes an exception for TIFF.
#
# Installs the pinned package into a temporary folder, and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv -q "$work/venv"
uv pip install -q --python "$work/venv/bin/python" pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys

import PIL
from PIL import Image

ORIENTATION = 0x0112
seen = {}
for name in ("JPEG", "PNG", "WEBP", "TIFF"):
    image = Image.new("RGB", (6, 4), (200, 100, 50))
    tags = image.getexif()
    tags[ORIENTATION] = 6
    image.save(f"a.{name}", name, exif=tags)
    with Image.open(f"a.{name}") as opened:
        before = opened.size, opened.getexif().get(ORIENTATION)
        opened.load()
        after = opened.size, opened.getexif().get(ORIENTATION)
    seen[name] = before, after
    print(f"Pillow {PIL.__version__} {name:5} opened: size {before[0]}, tag {before[1]}; loaded: {after[0]}, tag {after[1]}")
others = {seen[name] for name in ("JPEG", "PNG", "WEBP")}
same = others == {(((6, 4), 6), ((6, 4), 6))} and seen["TIFF"] == (((4, 6), 6), ((4, 6), None))
print("as described" if same else "no longer as described")
sys.exit(0 if same else 1)
PY
