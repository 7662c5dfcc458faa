"""What the sections share: where and at which size they measure, and the rows that they yield."""

import dataclasses
import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.input import BATCH
from benchmarks.roofline import call_seconds
from segstrat.config import TrialConfig
from segstrat.data import DataProtocol, build_protocol
from segstrat.data.dataset import Subset
from segstrat.machine import Machine, fastest_precision


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured value.

    Args:
        value: a number in `unit`, or a word.
        note: what a reader needs besides, such as other units or the goal.
    """

    name: str
    value: float | str
    unit: str = ""
    note: str = ""


Rows = Iterator[Row]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and at which size a section measures.

    Args:
        device: `cuda`, or `cpu` for a dry run.
        root: folder of the scenes, see `benchmarks.scenes`.
        tiny: sizes at which only the code is tried.
        cores: CPU cores that may be used.
    """

    device: str
    root: Path
    tiny: bool
    cores: int

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.device)

    @property
    def crop_size(self) -> int:
        """Side of the crops in pixels."""
        return 64 if self.tiny else 512

    @property
    def batch_size(self) -> int:
        """Images of a training batch."""
        return 2 if self.tiny else BATCH

    @property
    def repeats(self) -> int:
        """Timed repeats of what is short."""
        return 1 if self.tiny else 5

    def data(self, *, fewer: bool = False) -> DataProtocol:
        """The scenes, decoded into a cache; with `fewer` training images, 20 epochs are short."""
        data = build_protocol("folder", self.root, cache_dir=self.root / "cache")
        if not fewer:
            return data
        count = min(len(data.train), 300)
        return dataclasses.replace(data, train=Subset(data.train, list(range(count))))

    def config(self, **fields: Any) -> TrialConfig:
        """FCN-32s-ResNet-18 as in the thesis."""
        defaults: dict[str, Any] = {"data": "folder", "epochs": 1000, "width": 0.125 if self.tiny else 1.0}
        sizes = {"crop_size": self.crop_size, "batch_size": self.batch_size}
        return TrialConfig(**(defaults | sizes | fields))

    def machine(self, **fields: Any) -> Machine:
        """In the fastest precision, on all cores; by default nothing is compiled or kept on the device."""
        fast = fastest_precision(self.torch_device)
        defaults = {"precision": fast, "compile": False, "device_cache": False, "threads": self.cores}
        return Machine(device=self.device, data_root=self.root, **(defaults | fields))


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median wall-clock seconds of a call, see `call_seconds`."""
    return statistics.median(call_seconds(work, device, repeats))


def reserved_mib(device: torch.device) -> float:
    """Device memory that torch's allocator holds now; 0 on a CPU."""
    return torch.cuda.memory_reserved(device) / 2**20 if device.type == "cuda" else 0.0


def peak_mib(device: torch.device) -> float:
    """The most that torch's allocator has held; 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else 0.0


def used_mib(device: torch.device) -> float:
    """Device memory that is in use by all processes, CUDA's own included; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 2**20


def release(device: torch.device) -> None:
    """Gives back what earlier measurements of this process hold."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
