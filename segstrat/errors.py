"""Errors that a user can fix: one sentence with the cause, what was expected and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A problem outside the code (a file, a flag, a space, a checkpoint); shown without a traceback."""


# Of a list in a message: all spaces and backbones, but not the thousand classes of a data set.
MOST_LISTED = 60


def listed(names: Iterable[object], most: int = MOST_LISTED) -> str:
    """`a, b, c`, or `a, b, … and 997 more` of very many."""
    words = [str(name) for name in names]
    more = f", … and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not one of `known`: the nearest one first, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}Known: {listed(names)}.")
