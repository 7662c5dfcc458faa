"""Where this node keeps data and caches; the nodes of a cluster may differ."""

import os
from pathlib import Path

import platformdirs


def data_root(given: str | None = None) -> Path | None:
    """The data root: the one given on the command line, else this node's `$SEGSTRAT_DATA`."""
    root = given or os.environ.get("SEGSTRAT_DATA")
    return Path(root).expanduser().absolute() if root else None


def cache_dir() -> Path:
    """Folder of everything that can be built again: `$SEGSTRAT_CACHE`, else the user's cache directory."""
    given = os.environ.get("SEGSTRAT_CACHE")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_cache_dir("segstrat"))
