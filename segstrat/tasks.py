"""A task: what is labelled at every pixel. A model has one head per task."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, init=False)
class Task:
    """A dense labelling task.

    Args:
        name: key of the task in batches, heads and frames (`semseg`, `parts`, …).
        classes: class names in label order, or a number of unnamed classes.
        ignore_index: label value that is neither trained on nor scored.
        swap: pairs of classes that change places in a mirrored image; None: found by their names.
        values: what stands for each class in the label files, numbers or colors; None: its index.
    """

    name: str
    classes: tuple[str, ...]
    ignore_index: int = 255
    swap: tuple[tuple[str, str], ...] | None = None
    values: tuple[int, ...] | tuple[tuple[int, int, int], ...] | None = None

    def __init__(
        self,
        name: str,
        classes: Sequence[str] | int,
        ignore_index: int = 255,
        *,
        swap: Sequence[Sequence[str]] | None = None,
        values: Sequence[int] | Sequence[Sequence[int]] | None = None,
    ) -> None:
        names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else tuple(classes)
        if len(names) < 2:
            raise ValueError(f"task {name!r} has {len(names)} classes; at least 2 are needed")
        if 0 <= ignore_index < len(names):
            raise ValueError(f"task {name!r}: ignore_index {ignore_index} is one of its class labels")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "classes", names)
        object.__setattr__(self, "ignore_index", ignore_index)
        pairs = None if swap is None else tuple((first, second) for first, second in swap)
        object.__setattr__(self, "swap", pairs)
        plain = values and tuple(v if isinstance(v, int) else tuple(v) for v in values)
        object.__setattr__(self, "values", plain or None)

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)
