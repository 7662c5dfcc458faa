"""Names of the files in a trial's folder."""

import re
from collections.abc import Iterable

RECORDS = "records.json"
"""The trial's facts and one report per epoch."""

_CHECKPOINT = re.compile(r"checkpoint-(\d{6})\.pt")


def checkpoint_name(epoch: int) -> str:
    """File of the state after `epoch`."""
    return f"checkpoint-{epoch:06d}.pt"


def digest_name(checkpoint: str) -> str:
    """File of a checkpoint's SHA-256."""
    return f"{checkpoint}.sha256"


def checkpoint_epochs(names: Iterable[str]) -> list[int]:
    """Epochs of the checkpoints among the names of a folder, ascending."""
    return sorted(int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name)))
