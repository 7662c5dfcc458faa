"""PASCAL-Part (Chen et al. 2014): parts of VOC objects, merged into six parts of people."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segstrat.data.labels import load_matlab
from segstrat.errors import UserError

MERGED = {
    **dict.fromkeys(("head", "hair", "nose", "mouth"), 1),
    **dict.fromkeys(("leye", "reye", "lear", "rear", "lebrow", "rebrow"), 1),
    **dict.fromkeys(("torso", "neck"), 2),
    **dict.fromkeys(("luarm", "ruarm"), 3),
    **dict.fromkeys(("llarm", "rlarm", "lhand", "rhand"), 4),
    **dict.fromkeys(("luleg", "ruleg"), 5),
    **dict.fromkeys(("llleg", "rlleg", "lfoot", "rfoot"), 6),
}
"""Part of a person in PASCAL-Part -> class of PASCAL-Person-Part."""


@dataclass(frozen=True)
class PascalPartMat:
    """Decodes the people of an annotation; everything else, and pixels without a part, is background."""

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8 classes 0–6.

        Raises:
            UserError: if the file is damaged, or a person has an unknown part.
        """
        annotation = load_matlab(path, "anno")
        try:
            return _merge(annotation["objects"][0, 0].ravel(), path)
        except (ValueError, IndexError, AttributeError) as error:
            raise UserError(f"{path} is not a PASCAL-Part annotation ({error}); download it again") from error


def _merge(objects: np.ndarray, path: Path) -> np.ndarray:
    labels_HW = np.zeros(objects[0]["mask"].shape, dtype=np.uint8)
    for annotated in objects:
        if str(annotated["class"].item()) != "person":
            continue
        for part in annotated["parts"].ravel():
            name = str(part["part_name"].item())
            if name not in MERGED:
                raise UserError(f"{path}: a person has the part {name!r}; known are {', '.join(MERGED)}")
            labels_HW[part["mask"] > 0] = MERGED[name]
    return labels_HW
