"""What the numbers were measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from segstrat.machine import fastest_precision
from segstrat.parallel import cpu_cores

PACKAGES = (
    *("torch", "torchvision", "opencv-python-headless", "numpy", "ray"),
    *("albumentations", "kornia", "torchmetrics", "segmentation-models-pytorch"),
)


def describe() -> dict[str, Any]:
    """Processor, GPU, versions and the load at the start."""
    return {
        "processor": _processor(),
        "cores": cpu_cores(),
        "bfloat16_units": "yes" if cpu_has_bfloat16() else "no",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware."""
    return fastest_precision(torch.device("cpu")) == "bfloat16"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
