"""The weights of the pre-trained arm: checked, and trained where none are given, before trials start."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from segstrat.paths import cache_dir
from study.planning.settings import StudySettings
from study.planning.trials import PlannedTrial


class Weights:
    """Gives every pre-trained trial the file of its backbone's weights, trained here if necessary."""

    def __init__(self, settings: StudySettings) -> None:
        self._source = settings.weights
        self._files: dict[tuple, Path] = {}

    def check(self, trials: Sequence[PlannedTrial], *, download: bool = True) -> None:
        """Checks the weights that were given against every backbone and width of the study.

        Args:
            download: fetch `imagenet` weights that are not in the cache, to check their content.

        Raises:
            UserError: if they are missing or cannot be read, or do not fit one of the backbones.
        """
        configs = [trial.config for trial in trials if trial.config.pretrained]
        if not configs or not self._source:
            return
        # Torch is imported only where there is something to check.
        import torch

        from segstrat.models import assemble_backbone
        from segstrat.models.weights import check_backbone_weights

        for backbone, width in dict.fromkeys((config.backbone or "", config.width) for config in configs):
            with torch.device("meta"):
                network = assemble_backbone(backbone, width)
            check_backbone_weights(network, self._source, download=download)

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
        from segstrat.pretraining.cached import ensure_pretrained

        key = (trial.config.backbone or "", trial.config.width)
        if key not in self._files:
            self._files[key] = ensure_pretrained(*key, cache_dir())
        return self._files[key]
