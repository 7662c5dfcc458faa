"""Copies pre-trained weights through the study's folder to nodes that do not share the driver's disk."""

import dataclasses
import socket
from collections.abc import Iterable
from pathlib import Path

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.paths import cache_dir
from segstrat.store import Store

FOLDER = "weights"


def share_weights(study: Store, configs: Iterable[TrialConfig]) -> None:
    """Copies the weight files of all trials into the study; on the driver."""
    weights = study / FOLDER
    for source in {config.weights for config in configs if config.weights} - {"imagenet"}:
        path = Path(source)
        content = path.read_bytes()
        # A copy that is damaged would fail every pre-trained trial of another node.
        if not weights.exists(path.name) or weights.read(path.name) != content:
            weights.write(path.name, content)


def local_config(config: TrialConfig, study: Store) -> TrialConfig:
    """A trial's config with the path of its weights on this node, copied from the study if necessary.

    Raises:
        UserError: if the file is neither on this node nor in the study.
    """
    if config.weights in (None, "imagenet") or Path(config.weights).exists():
        return config
    name = Path(config.weights).name
    if not (study / FOLDER).exists(name):
        raise UserError(
            f"weights {config.weights} are neither on node {socket.gethostname()} nor in {study.uri}; put "
            "the file at the same place on every node, and give its absolute path"
        )
    here = Store(cache_dir() / FOLDER)
    here.write(name, (study / FOLDER).read(name))
    return dataclasses.replace(config, weights=str(here.local_path / name))
