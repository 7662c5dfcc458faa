"""What a training step needs of a GPU."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory that a trial's process needs on its GPU, and the share of a step that the GPU is busy."""

    memory_gib: float
    busy: float
