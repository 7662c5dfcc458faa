"""The command `uv run python -m segstrat.data.cache`: lists the cache and deletes what is asked for."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from segstrat.commands import StrictParser
from segstrat.data.cache.entries import Entry, delete, list_entries
from segstrat.errors import UserError
from segstrat.formatting import format_bytes, format_duration
from segstrat.store import cache_dir

MOST_DIGITS = 6
UNITS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 for a mistake."""
    parser = StrictParser(
        prog="python -m segstrat.data.cache",
        description="Lists the entries of the cache with size and age, or deletes some. Everything in the "
        "cache is built again when a study needs it. What a running study uses is never deleted.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="delete these entries")
    parser.add_argument("--older-than", type=_age, metavar="30d", help="delete entries not used for so long")
    parser.add_argument("--all", action="store_true", help="delete every entry")
    parser.add_argument("--cache-dir", type=Path, help="the cache folder (default: $SEGSTRAT_CACHE)")
    try:
        _run(parser.parse_strictly(arguments))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    if bool(options.names) + options.all + (options.older_than is not None) > 1:
        raise UserError("give names, --older-than or --all: only one of them")
    cache = options.cache_dir or cache_dir()
    if not cache.is_dir() and os.path.lexists(cache):
        raise UserError(f"cache folder {cache} is no folder; give another one with --cache-dir")
    entries = list_entries(cache)
    if options.names:
        chosen = _named(entries, options.names)
    elif options.all:
        chosen = entries
    elif options.older_than is not None:
        chosen = [entry for entry in entries if entry.age > options.older_than]
    else:
        _show(entries, cache)
        return
    freed = 0
    for entry in chosen:
        if delete(entry):
            freed += entry.size
            print(f"deleted {entry.name} ({format_bytes(entry.size)})")
        else:
            print(f"kept {entry.name}: a running process uses it, or the file system cannot tell")
    print(f"{format_bytes(freed)} freed in {cache}")


def _named(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    known = {entry.name: entry for entry in entries}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "the command without arguments lists all entries"
            raise UserError(f"the cache has no entry {name!r}; {hint}")
    return [known[name] for name in dict.fromkeys(names)]


def _show(entries: Sequence[Entry], cache: Path) -> None:
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        print(
            f"{entry.name:{width}}  {format_bytes(entry.size):>9}  last used {format_duration(entry.age)} ago"
        )
    print(f"{len(entries)} entries, {format_bytes(sum(entry.size for entry in entries))} in {cache}")


def _age(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not number.isdecimal() or len(number) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 12h, 30d or 8w")
    return int(number) * UNITS[unit]


if __name__ == "__main__":
    raise SystemExit(main())
