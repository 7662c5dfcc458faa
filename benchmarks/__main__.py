"""`uv run python -m benchmarks [--quick] [names]`: runs benchmarks, prints tables, writes JSON.

Without names, all that fit this machine run. `--quick` runs them at tiny size, to see that they work;
its numbers mean nothing.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import hardware
from benchmarks.peers import UnavailableError
from benchmarks.timing import Claim, Comparison

BENCHMARKS = {
    "input": "training input on one core against torchvision v2, albumentations, kornia",
    "loader": "threads against worker processes, on all cores",
    "step": "FCN-32s-ResNet-18 training step on the CPU against plain eager float32",
    "metric": "confusion matrix against torchmetrics and others",
    "epoch": "a whole epoch against a plain loop of torchvision's recipe",
    "gpu": "step and its roof, epochs, data wait and packed trials on a CUDA GPU",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmarks that were asked for; returns the exit code."""
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
            console.print(f"[yellow]{name} was left out: {missing}[/yellow]")
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


def table(comparison: Comparison, *, verdicts: bool) -> Table:
    """Median times, and the median and quartiles of the rounds' ratios to the reference."""
    rounds = len(comparison.seconds[comparison.reference])
    result = Table(title=f"{comparison.title} ({rounds} rounds)", title_justify="left", min_width=60)
    result.add_column("")
    result.add_column(f"ms / {comparison.unit}", justify="right")
    result.add_column(f"× time of {comparison.reference}", justify="right")
    result.add_column("quartiles", justify="right")
    for name in comparison.seconds:
        ratio, low, high = comparison.ratio(comparison.reference, name)
        time_ms = f"{comparison.median(name) * 1e3:.3g}"
        result.add_row(name, time_ms, f"{ratio:.2f}", f"{low:.2f}–{high:.2f}")
    lines = [_verdict(comparison, claim) for claim in comparison.claims if verdicts]
    result.caption = "\n".join(lines + comparison.notes)
    result.caption_justify = "left"
    return result


def _verdict(comparison: Comparison, claim: Claim) -> str:
    ratio = comparison.ratio(claim.faster, claim.slower)[0]
    word = "met" if ratio >= claim.at_least else "missed"
    return f"{claim.faster} against {claim.slower}: {ratio:.2f}×, wanted {claim.at_least:g}×: {word}"


if __name__ == "__main__":
    sys.exit(main())
