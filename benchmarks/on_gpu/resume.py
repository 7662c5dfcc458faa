"""Whether deterministic training repeats itself bit for bit, also after a resume, and what it costs."""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.on_gpu.setting import Row, Rows, Setting
from segstrat.checkpoint import load_checkpoint
from segstrat.machine import Machine
from segstrat.store import Store
from segstrat.train import train

EPOCHS = 3


def resume_rows(setting: Setting) -> Rows:
    """Weights after 3 epochs in one go, again, and stopped after the first epoch and resumed."""
    for name, compiled in (("eager", False), ("compiled", True)):
        with tempfile.TemporaryDirectory(prefix="segstrat-benchmark-") as folder:
            exact = setting.machine(deterministic=True, compile=compiled)
            first, seconds = _weights(setting, exact, Path(folder, "a"), stops=())
            again, _ = _weights(setting, exact, Path(folder, "b"), stops=())
            resumed, _ = _weights(setting, exact, Path(folder, "c"), stops=(1,))
            free, free_seconds = _weights(
                setting, setting.machine(compile=compiled), Path(folder, "d"), stops=()
            )
        yield Row(name=f"{name}: repeated", value=_verdict(first, again))
        yield Row(name=f"{name}: resumed", value=_verdict(first, resumed))
        yield Row(
            name=f"{name}: time of a deterministic training",
            value=seconds / free_seconds,
            unit="×",
            note=f"of a free one, whose weights are {_verdict(first, free)}",
        )


def _weights(
    setting: Setting, machine: Machine, folder: Path, stops: tuple[int, ...]
) -> tuple[dict[str, torch.Tensor], float]:
    """The weights at the end, and the seconds of the last call after its first epoch."""
    store, data = Store(folder), setting.data(fewer=True)
    folder.mkdir(parents=True)
    for stop in (*stops, EPOCHS):
        start = time.perf_counter()
        reports = train(setting.config(epochs=EPOCHS), machine=machine, protocol=data, store=store)
        for report in reports:
            if report.epoch == 1:
                start = time.perf_counter()
            if report.epoch == stop:
                break
        seconds = time.perf_counter() - start
        reports.close()  # type: ignore[attr-defined]
    state = load_checkpoint(store)
    assert state is not None
    return state["model"], seconds


def _verdict(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> str:
    different = [name for name, value in one.items() if not torch.equal(value, other[name])]
    return "bit-identical" if not different else f"different in {len(different)} of {len(one)} tensors"
