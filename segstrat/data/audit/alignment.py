"""Whether labels lie on their objects: the borders of classes against the edges of the images.

Along the borders of a label that fits, an image changes more than elsewhere. A label that is mirrored, turned
or of another image has borders anywhere.
"""

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np

from segstrat.data.audit.headers import Findings
from segstrat.data.boundaries import nearest_class
from segstrat.data.dataset import VOID, Sample

SIDE = 256
"""Images are compared at this size of their longer side."""

_LEAST = 4
_NEAR, _SHIFTED = 3, 1.5
_BETTER, _MOST = 1.25, 0.75
# Of 240 photographs of VOC the labels fit 2.1 times as well as those of other images (a quarter below 1.7).
_FITS, _MISFIT = 1.15, 0.3


def _scaled(label_HW: np.ndarray, factor: float) -> np.ndarray:
    """The label enlarged about its center, in the same size."""
    height, width = label_HW.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0, factor)
    return cv2.warpAffine(
        np.ascontiguousarray(label_HW),
        matrix,
        (width, height),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )


_MOVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored left to right": lambda label: label[:, ::-1],
    "mirrored upside down": lambda label: label[::-1],
    "turned by 180 degrees": lambda label: label[::-1, ::-1],
    "turned by 90 degrees clockwise": lambda label: np.rot90(label, -1),
    "turned by 90 degrees counter-clockwise": lambda label: np.rot90(label),
    "mirrored along its diagonal": lambda label: label.T,
} | {
    f"enlarged {factor:.2g} times about the center": partial(_scaled, factor=factor)
    for factor in (0.5, 2 / 3, 0.75, 0.8, 1.25, 4 / 3, 1.5, 2)
}


def edge_fit(slope_HW: np.ndarray, label_HW: np.ndarray) -> float:
    """How much an image changes along the borders of a label, relative to the whole image; NaN without any.

    Args:
        slope_HW: size of the image's gradient.
        label_HW: uint8.
    """
    border_HW = _borders(label_HW)
    if not 0.002 < border_HW.mean() < 0.6:
        return float("nan")
    return float(slope_HW[border_HW].mean() / max(slope_HW.mean(), 1e-6))


def _borders(label_HW: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels next to another class."""
    border = np.zeros(label_HW.shape, np.uint8)
    border[:, 1:] |= label_HW[:, 1:] != label_HW[:, :-1]
    border[1:] |= label_HW[1:] != label_HW[:-1]
    return cv2.dilate(border, np.ones((3, 3), np.uint8)) > 0


def best_shift(slopes: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> tuple[int, int, float]:
    """Rows and columns by which the labels, shifted together, fit best, and how much better than as they are.

    Args:
        slopes: sizes of the images' gradients, at most `SIDE` pixels a side.
        labels: of the images.
    """
    # Shifts of up to a quarter, those by −1 at the end.
    reach = np.arange(-SIDE // 4, SIDE // 4 + 1)
    shape = (SIDE + len(reach), SIDE + len(reach))
    total = np.zeros((shape[0], shape[1] // 2 + 1), np.complex128)
    for slope_HW, label_HW in zip(slopes, labels, strict=True):
        border_HW = _borders(label_HW).astype(np.float64)
        planes = [np.fft.rfft2(plane - plane.mean(), shape) for plane in (slope_HW, border_HW)]
        scale = np.linalg.norm(slope_HW - slope_HW.mean()) * np.linalg.norm(border_HW - border_HW.mean())
        total += planes[0] * planes[1].conj() / max(float(scale), 1e-9)
    window = np.fft.irfft2(total, shape)[np.ix_(reach, reach)]
    row, column = np.unravel_index(window.argmax(), window.shape)
    near = np.abs(reach) <= _NEAR
    here = max(float(window[np.ix_(near, near)].max()), 1e-9)
    return int(reach[row]), int(reach[column]), float(window.max() / here)


def check_alignment(task: str, samples: Sequence[Sample]) -> Findings:
    """Labels that fit their images better when moved, and labels that do not fit.

    Args:
        samples: some images with labels of the task.
    """
    found = Findings()
    slopes, labels = (
        zip(*[_prepare(sample, task) for sample in samples], strict=True) if samples else ((), ())
    )
    own = np.array([edge_fit(slope, label) for slope, label in zip(slopes, labels, strict=True)])
    usable = [index for index, value in enumerate(own) if np.isfinite(value)]
    if len(usable) < _LEAST:
        return found
    found_moves = {}
    for words, move in _MOVES.items():
        moved = np.array([_fit_moved(slopes[i], move(labels[i])) for i in usable])
        gain = moved / np.maximum(own[usable], 1e-9)
        better = gain > _BETTER
        if np.isfinite(moved).sum() >= _LEAST and better.mean() >= _MOST:
            found_moves[words] = float(np.nanmedian(gain)), int(better.sum())
    if found_moves:
        words, (_, count) = max(found_moves.items(), key=lambda item: item[1])
        found.warnings.append(
            f"{count} of {len(usable)} {task} labels follow the edges of their images better when they are "
            f"{words}; look at the contact sheet"
        )
        return found
    rows, columns, factor = best_shift([slopes[i] for i in usable], [labels[i] for i in usable])
    if factor > _SHIFTED:
        found.warnings.append(
            f"{task} labels follow the edges of their images better when they are shifted by {columns} "
            f"pixels to the right and {rows} down (of images whose longer side is {SIDE}); look at the "
            "contact sheet"
        )
        return found
    others = np.array([_fit_of_others(i, usable, slopes, labels) for i in usable])
    relative = own[usable] / np.where(others > 0, others, np.nan)
    known = np.isfinite(relative)
    if known.sum() < _LEAST:
        return found
    typical = float(np.median(relative[known]))
    usual = float(np.median(own[usable]))
    misfits = [
        samples[i].id
        for i, value in zip(usable, relative, strict=True)
        if value < min(1.0, _MISFIT * typical) or own[i] < _MISFIT * usual
    ]
    if typical < _FITS:
        found.warnings.append(
            f"{task} labels follow the edges of their images no better than labels of other images do; check "
            "that every label belongs to its image, and look at the contact sheet"
        )
    elif misfits:
        found.warnings.append(
            f"the {task} label of {misfits[0]} and {len(misfits) - 1} more of {len(usable)} do not follow "
            "the edges of their images as the others do; look whether they belong to them"
        )
    return found


def _prepare(sample: Sample, task: str) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of the image and its label, at a common small size."""
    grey = cv2.cvtColor(np.ascontiguousarray(sample.image), cv2.COLOR_RGB2GRAY)
    label = np.ascontiguousarray(sample.labels[task])
    scale = min(1.0, SIDE / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    void = label == VOID
    if void.any() and not void.all():
        label = nearest_class(label, void)
    smooth = cv2.GaussianBlur(grey, (0, 0), 1)
    slope = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return slope, label


def _fit_moved(slope_HW: np.ndarray, label_HW: np.ndarray) -> float:
    return (
        edge_fit(slope_HW, np.ascontiguousarray(label_HW))
        if label_HW.shape == slope_HW.shape
        else float("nan")
    )


def _fit_of_others(
    index: int, usable: Sequence[int], slopes: Sequence[np.ndarray], labels: Sequence[np.ndarray]
) -> float:
    """The usual fit of other images' labels on an image."""
    height, width = slopes[index].shape
    fits = [
        edge_fit(slopes[index], cv2.resize(labels[other], (width, height), interpolation=cv2.INTER_NEAREST))
        for other in usable
        if other != index
    ]
    known = [fit for fit in fits if np.isfinite(fit)]
    return float(np.median(known)) if known else float("nan")
