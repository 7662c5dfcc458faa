import threading
from contextlib import closing
from pathlib import Path

import pytest
import torch

from segstrat.checkpoint import CheckpointWriter, load_checkpoint, newest_checkpoint, save_checkpoint
from segstrat.store import Store


def save(store: Store, epoch: int, best: int | None = None) -> None:
    save_checkpoint(store, epoch, {"epoch": epoch, "weight": torch.full((3,), float(epoch))}, best_epoch=best)


def test_the_newest_is_loaded_and_the_two_last_and_the_best_are_kept(tmp_path: Path):
    store = Store(tmp_path)
    for epoch in range(1, 7):
        save(store, epoch, best=2 if epoch >= 2 else None)
    state = load_checkpoint(store)
    assert state is not None
    assert state["epoch"] == 6
    assert torch.equal(state["weight"], torch.full((3,), 6.0))
    kept = [name for name in store.names() if name.endswith(".pt")]
    assert kept == ["checkpoint-000002.pt", "checkpoint-000005.pt", "checkpoint-000006.pt"]


def test_a_truncated_checkpoint_is_skipped_for_the_one_before(tmp_path: Path):
    store = Store(tmp_path)
    save(store, 1)
    save(store, 2)
    damaged = tmp_path / "checkpoint-000002.pt"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    state = load_checkpoint(store)
    assert state is not None
    assert state["epoch"] == 1


def test_a_checkpoint_without_its_digest_was_never_finished(tmp_path: Path):
    store = Store(tmp_path)
    save(store, 1)
    (tmp_path / "checkpoint-000001.pt.sha256").unlink()
    assert load_checkpoint(store) is None


def test_an_empty_folder_has_none(tmp_path: Path):
    assert load_checkpoint(Store(tmp_path)) is None


def test_new_checkpoints_are_kept_although_later_ones_are_damaged(tmp_path: Path):
    store = Store(tmp_path)
    for epoch in (7, 8):
        save(store, epoch)
        (tmp_path / f"checkpoint-{epoch:06d}.pt").write_bytes(b"")
    save(store, 1)
    save(store, 2)
    state = load_checkpoint(store)
    assert state is not None
    assert state["epoch"] == 2
    assert [name for name in store.names() if name.endswith(".pt")] == [
        "checkpoint-000001.pt", "checkpoint-000002.pt",
    ]  # fmt: skip


class LeftStore(Store):
    """A store in which a worker that was left behind trains two more epochs once the folder was listed."""

    def names(self) -> list[str]:
        listed = super().names()
        for epoch in (3, 4) if "checkpoint-000002.pt" in listed else ():
            save(Store(self.uri), epoch)
        return listed


def test_a_checkpoint_that_was_replaced_since_the_folder_was_listed(tmp_path: Path):
    store = LeftStore(tmp_path)
    save(Store(tmp_path), 1)
    save(Store(tmp_path), 2)
    epoch, state = newest_checkpoint(store) or (0, {})
    assert epoch == state["epoch"] == 4


class SlowStore(Store):
    """A store whose writes wait until they are let through."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gate = threading.Event()

    def write(self, name: str, data: bytes) -> None:
        self.gate.wait(60)
        super().write(name, data)


def test_training_continues_while_a_checkpoint_is_written(tmp_path: Path):
    store, weight = SlowStore(tmp_path), torch.zeros(3)
    with closing(CheckpointWriter()) as writer:
        writer.save(store, 1, {"weight": weight, "momenta": [weight]}, best_epoch=None)
        weight += 1
        assert store.names() == []
        store.gate.set()
        writer.wait()
    state = load_checkpoint(store)
    assert state is not None
    assert state["weight"].tolist() == state["momenta"][0].tolist() == [0, 0, 0], "the state of that moment"


def test_a_checkpoint_that_cannot_be_written_is_an_error_at_the_next_one(tmp_path: Path):
    (tmp_path / "file").touch()
    no_folder = Store(tmp_path / "file")
    with closing(CheckpointWriter()) as writer:
        writer.save(no_folder, 1, {}, best_epoch=None)
        with pytest.raises(OSError, match="file"):
            writer.save(no_folder, 2, {}, best_epoch=None)


def test_closing_finishes_the_write(tmp_path: Path):
    with closing(CheckpointWriter()) as writer:
        writer.save(Store(tmp_path), 1, {"epoch": 1}, best_epoch=None)
    assert load_checkpoint(Store(tmp_path)) == {"epoch": 1}
