"""Checkpoints that survive a kill at any moment: written whole, named by epoch, guarded by a digest."""

import hashlib
import io
import re
from typing import Any

import torch

from segstrat.store import Store

KEEP_LAST = 2
_NAME = re.compile(r"checkpoint-(\d{6})\.pt")


def save_checkpoint(store: Store, epoch: int, state: dict[str, Any], *, best_epoch: int | None) -> str:
    """Writes the state after `epoch` and returns the file's name.

    The two newest checkpoints and the one of `best_epoch` are kept, so that a torn newest one costs an
    epoch and not the trial.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    name = f"checkpoint-{epoch:06d}.pt"
    store.write(name, data)
    # The digest comes last: a checkpoint without one was never finished.
    store.write(f"{name}.sha256", hashlib.sha256(data).hexdigest().encode())
    keep = {*sorted(_epochs(store))[-KEEP_LAST:], best_epoch}
    for old in _epochs(store):
        if old not in keep:
            store.delete(f"checkpoint-{old:06d}.pt.sha256")
            store.delete(f"checkpoint-{old:06d}.pt")
    return name


def load_checkpoint(store: Store) -> dict[str, Any] | None:
    """State of the newest checkpoint whose digest is right; None if there is none.

    A torn or altered file is passed over for the one before it.
    """
    for epoch in sorted(_epochs(store), reverse=True):
        state = read_checkpoint(store, f"checkpoint-{epoch:06d}.pt")
        if state is not None:
            return state
    return None


def read_checkpoint(store: Store, name: str) -> dict[str, Any] | None:
    """State in one checkpoint file, or None if its digest is missing or does not fit."""
    if not (store.exists(name) and store.exists(f"{name}.sha256")):
        return None
    data = store.read(name)
    if hashlib.sha256(data).hexdigest() != store.read(f"{name}.sha256").decode():
        return None
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _epochs(store: Store) -> list[int]:
    return [int(match[1]) for name in store.names() if (match := _NAME.fullmatch(name))]
