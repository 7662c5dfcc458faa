"""Checkpoints that survive a kill at any moment: written atomically, named by epoch, checked by a digest."""

import hashlib
import io
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from segstrat.records import checkpoint_epochs, checkpoint_name, digest_name
from segstrat.store import Store

KEEP_LAST = 2


def save_checkpoint(store: Store, epoch: int, state: dict[str, Any], *, best_epoch: int | None) -> str:
    """Writes the state after `epoch` and returns the file's name.

    The two newest checkpoints and the one of `best_epoch` are kept, so that a truncated newest one costs an
    epoch and not the trial.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    name = checkpoint_name(epoch)
    store.write(name, data)
    # The digest comes last: a checkpoint without one was never finished.
    store.write(digest_name(name), hashlib.sha256(data).hexdigest().encode())
    epochs = checkpoint_epochs(store.names())
    # A later one is damaged: otherwise training would have continued after it.
    newest = [old for old in epochs if old <= epoch][-KEEP_LAST:]
    for old in epochs:
        if old not in (*newest, best_epoch):
            store.delete(digest_name(checkpoint_name(old)))
            store.delete(checkpoint_name(old))
    return name


class CheckpointWriter:
    """Writes checkpoints in a background thread, one at a time, while the training continues.

    A crash during a write costs the epoch that was being written, besides the one in progress.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[str] | None = None

    def save(self, store: Store, epoch: int, state: dict[str, Any], *, best_epoch: int | None) -> None:
        """Starts `save_checkpoint` on a copy of the state, once the one before is finished.

        Raises:
            OSError: if the one before could not be written.
        """
        self.wait()
        copy = _host_copy(state)
        self._pending = self._pool.submit(save_checkpoint, store, epoch, copy, best_epoch=best_epoch)

    def wait(self) -> None:
        """Returns once the last checkpoint is written.

        Raises:
            OSError: if it could not be.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Lets a write finish and ends the thread; a failed write is not reported any more."""
        self._pool.shutdown()


def _host_copy(value: Any) -> Any:
    """The same value with every tensor copied to the host's memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _host_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_host_copy(item) for item in value)
    return value


def newest_checkpoint(store: Store) -> tuple[int, dict[str, Any]] | None:
    """Epoch and state of the newest checkpoint whose digest matches; None if there is none.

    A truncated or altered file is skipped for the one before it. The folder is listed again after each such
    file, because the worker of a driver that has just ended may still replace old checkpoints by newer ones.
    """
    skipped: set[int] = set()
    while epochs := [epoch for epoch in checkpoint_epochs(store.names()) if epoch not in skipped]:
        state = read_checkpoint(store, checkpoint_name(epochs[-1]))
        if state is not None:
            return epochs[-1], state
        skipped.add(epochs[-1])
    return None


def load_checkpoint(store: Store) -> dict[str, Any] | None:
    """State of the newest checkpoint, see `newest_checkpoint`."""
    newest = newest_checkpoint(store)
    return None if newest is None else newest[1]


def read_checkpoint(store: Store, name: str) -> dict[str, Any] | None:
    """State in one checkpoint file, or None if it or its digest is missing, or does not match."""
    try:
        data, digest = store.read(name), store.read(digest_name(name))
    except FileNotFoundError:
        return None
    if hashlib.sha256(data).hexdigest().encode() != digest:
        return None
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def state_digest(model: nn.Module) -> str:
    """Digest of a model's parameters and buffers, 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
