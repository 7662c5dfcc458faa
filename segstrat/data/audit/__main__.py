"""The command `uv run python -m segstrat.data.audit d1 --root DIR`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from segstrat.commands import StrictParser
from segstrat.data.audit.checks import audit
from segstrat.data.audit.overlap import overlaps, published_lists
from segstrat.data.audit.tables import show
from segstrat.data.protocols import build_protocol
from segstrat.errors import UserError
from segstrat.paths import cache_dir


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if the data is fine, 1 if it has errors, 2 if it cannot be found."""
    parser = StrictParser(
        prog="python -m segstrat.data.audit",
        description="Reads every image and label of a protocol and reports errors and warnings.",
    )
    parser.add_argument("protocol", help="name of the protocol, for example d1")
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("SEGSTRAT_DATA"), help="data root ($SEGSTRAT_DATA)"
    )
    parser.add_argument(
        "--cache-dir", type=Path, help="folder of the audit's stamp (default: the user's cache)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    verbose = False
    try:
        options = parser.parse_strictly(arguments)
        verbose = options.verbose
        return _run(options)
    except (UserError, OSError) as error:
        if verbose:
            raise
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2


def _run(options: argparse.Namespace) -> int:
    cache = options.cache_dir or cache_dir()
    protocol = build_protocol(options.protocol, options.root)
    report = audit(protocol, full=True, cache_dir=cache, progress=True)
    rows = overlaps(published_lists(Path(options.root))) if options.root else []
    show(report, protocol, rows, Console())
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
