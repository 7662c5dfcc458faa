"""`uv run python -m benchmarks [--quick] [names]`: runs benchmarks, prints tables, writes JSON.

Without names, all that this machine can run are run. `--quick` runs them at a tiny size, to check that they
work; its numbers are meaningless. `--dry` does the same for `gpu` on a CPU.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import hardware
from benchmarks.peers import UnavailableError
from benchmarks.table import table
from benchmarks.timing import Comparison

BENCHMARKS = {
    "input": "training input on one core against torchvision v2, albumentations, kornia",
    "loader": "threads against worker processes, on all cores",
    "step": "FCN-32s-ResNet-18 training step on the CPU against plain eager float32",
    "metric": "confusion matrix against torchmetrics and others",
    "epoch": "a whole epoch against a plain loop of torchvision's recipe",
    "parity": "losses of bfloat16 and float32 over a short training, three seeds",
    "study": "wall-clock time of a study against the sum of its trainings",
    "gpu": "on a CUDA GPU, in ten minutes: steps, epochs, memory, determinism, packed trials, pre-training",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the named benchmarks; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(f"{name:10} {what}" for name, what in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="which benchmarks (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round")
    parser.add_argument("--dry", action="store_true", help="gpu: every line on the CPU, uncompiled, tiny")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: .benchmarks/<time>.json")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(BENCHMARKS)}")
    console = Console()
    facts = hardware.describe()
    console.print(f"{facts['processor']}, {facts['cores']} cores, GPU: {facts['gpu'] or 'none'}")
    quick = options.quick or options.dry
    path = options.json or Path(".benchmarks") / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}

    def write() -> None:
        # After every part: a later one may be killed.
        path.write_text(json.dumps({"quick": quick, "machine": facts, "results": results}, indent=1))

    for name in options.names or BENCHMARKS:
        try:
            if name == "gpu":
                _run_on_gpu(results, write, console, dry=options.dry, tiny=quick)
                continue
            comparisons: list[Comparison] = importlib.import_module(f"benchmarks.{name}").run(quick=quick)
        except UnavailableError as missing:
            console.print(f"[yellow]{name} was skipped: {missing}[/yellow]")
            continue
        results[name] = [comparison.to_dict() for comparison in comparisons]
        for comparison in comparisons:
            console.print(table(comparison, verdicts=not quick))
        write()
    write()
    console.print(f"Written: {path}")
    return 0


def _run_on_gpu(
    results: dict[str, Any], write: Callable[[], None], console: Console, *, dry: bool, tiny: bool
) -> None:
    from benchmarks import gpu

    def done(section: str, result: gpu.SectionResult) -> None:
        results.setdefault("gpu", {})[section] = result.to_dict()
        console.print(gpu.section_table(section, result))
        write()

    if dry:
        # Compiling for a CPU takes minutes and shows nothing about a GPU.
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
    try:
        gpu.run_sections(done, device="cpu" if dry else "cuda", tiny=tiny)
    finally:
        if dry:
            del os.environ["TORCH_COMPILE_DISABLE"]


if __name__ == "__main__":
    sys.exit(main())
