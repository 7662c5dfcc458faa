"""Where data and caches lie on this node; every node of a cluster answers for itself."""

import dataclasses
import os
import socket
from pathlib import Path

import platformdirs

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.store import Store


def data_root(given: str | None = None) -> Path | None:
    """The data root: as given on the command line, else `$SEGSTRAT_DATA` of this node."""
    root = given or os.environ.get("SEGSTRAT_DATA")
    return Path(root).expanduser().absolute() if root else None


def cache_dir() -> Path:
    """The cache of this node: `$SEGSTRAT_CACHE`, else the user's cache directory."""
    given = os.environ.get("SEGSTRAT_CACHE")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_cache_dir("segstrat"))


def local_config(config: TrialConfig, study: Store) -> TrialConfig:
    """A trial's config with the path of its pre-trained weights on this node.

    Weights that the driver made are in the study's store too, for nodes that do not share its disk.

    Raises:
        UserError: if they are in neither place.
    """
    if config.weights in (None, "imagenet") or Path(config.weights).exists():
        return config
    name = Path(config.weights).name
    if not (study / "weights").exists(name):
        raise UserError(f"weights {config.weights} are not on node {socket.gethostname()}")
    here = Store(cache_dir() / "weights")
    here.write(name, (study / "weights").read(name))
    return dataclasses.replace(config, weights=str(here.local_path / name))
