"""The command `uv run python -m segstrat.data.download voc sbd --root DIR`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from segstrat.commands import StrictParser
from segstrat.data.download.fetch import install
from segstrat.data.download.published import DATA_SETS
from segstrat.errors import UserError, unknown_name


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 if every data set is there, 1 if one must be downloaded by hand, 2 on an error."""
    parser = StrictParser(
        prog="python -m segstrat.data.download",
        description="Downloads published data sets into a data root, or says how to get them.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"of {', '.join(DATA_SETS)}")
    parser.add_argument(
        "--root",
        type=Path,
        default=os.environ.get("SEGSTRAT_DATA"),
        help="data root ($SEGSTRAT_DATA)",
    )
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    console = Console(soft_wrap=True, highlight=False)
    left = 0
    verbose = False
    try:
        options = parser.parse_strictly(arguments)
        verbose = options.verbose
        root = checked_root(options.root)
        for name in options.names:
            if name not in DATA_SETS:
                raise unknown_name("data set", name, DATA_SETS)
        for name in options.names:
            if install(name, root, progress=True):
                console.print(f"{DATA_SETS[name].name} is in {root}", markup=False)
            else:
                left = 1
                console.print(f"{DATA_SETS[name].name} has no free mirror. By hand:", markup=False)
                console.print(DATA_SETS[name].by_hand.format(root=root), markup=False)
    except (UserError, OSError) as error:
        if verbose:
            raise
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to continue")
        return 130
    return left


def checked_root(root: Path | None) -> Path:
    """The data root; downloads create it.

    Raises:
        UserError: if none is given, or if it is a file.
    """
    if root is None:
        raise UserError("no data root: give --root DIR, or set SEGSTRAT_DATA")
    if Path(root).exists() and not Path(root).is_dir():
        raise UserError(f"--root {root}: that is a file; give a folder")
    return Path(root).absolute()


if __name__ == "__main__":
    sys.exit(main())
