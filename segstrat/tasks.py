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
    """

    name: str
    classes: tuple[str, ...]
    ignore_index: int = 255

    def __init__(self, name: str, classes: Sequence[str] | int, ignore_index: int = 255) -> None:
        names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else tuple(classes)
        if len(names) < 2:
            raise ValueError(f"task {name!r} has {len(names)} classes; at least 2 are needed")
        if 0 <= ignore_index < len(names):
            raise ValueError(f"task {name!r}: ignore_index {ignore_index} is one of its class labels")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "classes", names)
        object.__setattr__(self, "ignore_index", ignore_index)

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)
