"""Where data and caches lie on this node; every node of a cluster answers for itself."""

import os
from pathlib import Path

import platformdirs


def data_root(given: str | None = None) -> Path | None:
    """The data root: as given on the command line, else `$SEGSTRAT_DATA` of this node."""
    root = given or os.environ.get("SEGSTRAT_DATA")
    return Path(root).expanduser().absolute() if root else None


def cache_dir() -> Path:
    """The cache of this node: `$SEGSTRAT_CACHE`, else the user's cache directory."""
    given = os.environ.get("SEGSTRAT_CACHE")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_cache_dir("segstrat"))
