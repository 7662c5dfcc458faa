"""`uv run python -m benchmarks [--quick] [names]`: runs benchmarks, prints tables, writes JSON.

Without names, all that this machine can run are run. `--quick` runs them at a tiny size, to check that they
work; its numbers are meaningless.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

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
    "gpu": "step and its roofline, epochs, data wait and packed trials on a CUDA GPU",
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: .benchmarks/<time>.json")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(BENCHMARKS)}")
    console = Console()
    facts = hardware.describe()
    console.print(f"{facts['processor']}, {facts['cores']} cores, GPU: {facts['gpu'] or 'none'}")
    comparisons: dict[str, list[Comparison]] = {}
    for name in options.names or BENCHMARKS:
        try:
            comparisons[name] = importlib.import_module(f"benchmarks.{name}").run(quick=options.quick)
        except UnavailableError as missing:
            console.print(f"[yellow]{name} was skipped: {missing}[/yellow]")
            continue
        for comparison in comparisons[name]:
            console.print(table(comparison, verdicts=not options.quick))
    record = {"quick": options.quick, "machine": facts, "results": _plain(comparisons)}
    path = options.json or Path(".benchmarks") / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1))
    console.print(f"Written: {path}")
    return 0


def _plain(comparisons: dict[str, list[Comparison]]) -> dict[str, list[dict]]:
    return {name: [each.to_dict() for each in several] for name, several in comparisons.items()}


if __name__ == "__main__":
    sys.exit(main())
