"""The weights of the pre-trained arm: found, or trained, before a trial starts."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from segstrat.errors import UserError
from segstrat.paths import cache_dir
from study.planning.settings import StudySettings
from study.planning.trials import PlannedTrial


class Weights:
    """Gives every pre-trained trial the file of its backbone's weights, trained here if necessary.

    Raises:
        UserError: if `--weights` names a file that does not exist.
    """

    def __init__(self, settings: StudySettings) -> None:
        self._source = settings.weights
        self._files: dict[tuple, Path] = {}
        if self._source not in ("", "imagenet") and not self._given.is_file():
            raise UserError(f"--weights {self._source}: there is no such file")

    def place(self, trial: PlannedTrial) -> PlannedTrial:
        """The trial with the path of its weights; a raw trial as it is."""
        if not trial.config.pretrained or self._source == "imagenet":
            return trial
        config = dataclasses.replace(trial.config, weights=str(self._file(trial)))
        return dataclasses.replace(trial, config=config)

    def describe(self, trials: Sequence[PlannedTrial]) -> dict[str, str]:
        """Source and digest of the weights of placed trials, for the manifest."""
        names = {trial.config.weights for trial in trials if trial.config.pretrained} - {None, "imagenet"}
        digests = [
            hashlib.sha256(Path(str(name)).read_bytes()).hexdigest() for name in sorted(map(str, names))
        ]
        return {"source": self._source or ("figures" if names else ""), "digest": " ".join(digests)}

    @property
    def _given(self) -> Path:
        return Path(self._source).expanduser().absolute()

    def _file(self, trial: PlannedTrial) -> Path:
        if self._source:
            return self._given
        from study.pretrain import ensure_pretrained

        config = trial.config
        key = (config.backbone, config.width)
        if key not in self._files:
            self._files[key] = ensure_pretrained(config, cache_dir())
        return self._files[key]
