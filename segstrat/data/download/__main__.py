"""The command `uv run python -m segstrat.data.download voc sbd --root DIR`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from segstrat.data.download.install import install
from segstrat.data.download.published import DATA_SETS
from segstrat.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 if every data set is there, 1 if one must be downloaded by hand, 2 on an error."""
    parser = argparse.ArgumentParser(
        prog="python -m segstrat.data.download",
        description="Downloads published data sets into a data root, or says how to get them.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"of {', '.join(DATA_SETS)}")
    parser.add_argument(
        "--root",
        type=Path,
        default=os.environ.get("SEGSTRAT_DATA"),
        required="SEGSTRAT_DATA" not in os.environ,
        help="data root ($SEGSTRAT_DATA)",
    )
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    root = Path(options.root).absolute()
    console = Console(soft_wrap=True, highlight=False)
    left = 0
    try:
        for name in options.names:
            if install(name, root, progress=True):
                console.print(f"{DATA_SETS[name].name} is in {root}", markup=False)
            else:
                left = 1
                console.print(f"{DATA_SETS[name].name} has no free mirror. By hand:", markup=False)
                console.print(DATA_SETS[name].by_hand.format(root=root), markup=False)
    except UserError as error:
        if options.verbose:
            raise
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to continue")
        return 130
    return left


if __name__ == "__main__":
    sys.exit(main())
