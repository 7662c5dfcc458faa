"""`Machine`: where and how a trial runs. Nothing here changes what a trial learns."""

import ctypes
import gc
import os
import shutil
import sysconfig
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from segstrat.config import Numerics

# A minute or two of compilation, at a gain of a few milliseconds per step; see docs/benchmarks.md.
COMPILE_STEPS = 20_000
# Memory that CUDA itself takes for a process that has loaded its kernels, besides torch's allocations.
CONTEXT_GIB = 0.6

# cuBLAS is deterministic only with a fixed workspace. Torch reads this once, at the first matrix product of a
# process, which may belong to an earlier trial that was not deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Machine(Numerics):
    """Device and folders of a training run, besides its `Numerics`; precision `auto` is resolved here.

    Args:
        device: a torch device name.
        threads: CPU threads of this trial: intra-op threads and input threads share them.
        cache_dir: folder of decoded data; None: decode on the fly.
        memory_fraction: share of the GPU's memory that this process may use, in (0, 1]: one that needs more
            runs out of memory itself, instead of its neighbors on the GPU.
    """

    device: str = "cpu"
    threads: int = 1
    data_root: Path | None = None
    cache_dir: Path | None = None
    memory_fraction: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "auto":
            object.__setattr__(self, "precision", fastest_precision(self.torch_device))

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.device)

    def current_device(self) -> torch.device:
        """The device with its index, because every thread has its own current CUDA device."""
        device = self.torch_device
        if device.type == "cuda" and device.index is None:
            return torch.device("cuda", torch.cuda.current_device())
        return device

    def apply(self) -> None:
        """Sets what torch holds for the whole process, which may have run another trial before."""
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic)
        # Code that earlier trials compiled counts towards torch's limit of recompilations, beyond which
        # nothing is compiled, and its CUDA graphs keep their memory.
        torch.compiler.reset()
        if self.torch_device.type == "cpu":
            keep_freed_memory()
        if self.torch_device.type == "cuda":
            # What an earlier trial cached would look like used memory to other processes on this GPU.
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(self._allocatable(), self.current_device())

    def compiles(self, steps: int, processes: int = 1) -> bool:
        """Whether a trial of so many training steps is compiled; by default one of several processes is not.

        Synchronized batch norm interrupts compiled code at every layer.
        """
        if self.compile != "auto":
            return self.compile
        repaid = self.torch_device.type == "cuda" and steps >= COMPILE_STEPS and processes == 1
        return repaid and has_c_compiler()

    def _allocatable(self) -> float:
        """Share of the GPU's memory that torch may allocate; on a shared GPU, CUDA itself needs some too."""
        if self.memory_fraction == 1:
            return 1.0
        total = torch.cuda.get_device_properties(self.current_device()).total_memory / 2**30
        return max(0.0, self.memory_fraction - CONTEXT_GIB / total)

    def autocast(self) -> AbstractContextManager:
        """The context in which matrix products run in `precision`."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16)


# Options of glibc's `mallopt`, see its manual page, and the largest values that it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_TRIM, _LARGEST_MMAP = 2**31 - 1, 2**25


def keep_freed_memory() -> None:
    """Has glibc keep freed memory for the next step; does nothing with another C library.

    Every step allocates the same tensors again. By default large blocks come from the system and go back to
    it, so that each step of a small network touches a thousand new pages.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM)
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP)


def has_c_compiler() -> bool:
    """Whether compiled CUDA code can be built here: Triton compiles a C extension for each kernel."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return compiler is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()


def fastest_precision(device: torch.device) -> Precision:
    """The type of matrix products that the device's hardware multiplies fastest.

    Torch runs bfloat16 everywhere, but on a processor without units for it more slowly than float32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # AVX-512 BF16 and AMX on x86, BF16 on Arm.
    units = ("avx512_bf16", "amx_bf16", "bf16")
    has_units = device.type == "cpu" and any(torch.cpu.get_capabilities().get(unit) for unit in units)
    return "bfloat16" if has_units else "float32"
