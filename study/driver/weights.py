"""The weights of the pre-trained arm: found or trained before trials start."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from segstrat.errors import UserError
from segstrat.paths import cache_dir
from study.planning.settings import StudySettings
from study.planning.trials import PlannedTrial


def provide_weights(
    settings: StudySettings, trials: Sequence[PlannedTrial]
) -> tuple[list[PlannedTrial], dict[str, str]]:
    """Gives every pre-trained trial the file of its backbone's weights, trained here if necessary.

    Returns:
        the trials, and the source and digest of the weights.

    Raises:
        UserError: if a file is missing.
    """
    pretrained = [trial for trial in trials if trial.config.pretrained]
    if not pretrained or settings.weights == "imagenet":
        return list(trials), {"source": settings.weights, "digest": ""}
    if settings.weights:
        path = Path(settings.weights).expanduser().absolute()
        if not path.is_file():
            raise UserError(f"--weights {settings.weights}: there is no such file")
        files = {trial.trial_id: path for trial in pretrained}
    else:
        from study.pretrain import ensure_pretrained

        made: dict[tuple, Path] = {}
        for trial in pretrained:
            config = trial.config
            key = (config.backbone, config.width)
            if key not in made:
                made[key] = ensure_pretrained(config, cache_dir())
        files = {trial.trial_id: made[trial.config.backbone, trial.config.width] for trial in pretrained}
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(set(files.values()))}
    placed = [_with_weights(trial, files.get(trial.trial_id)) for trial in trials]
    return placed, {"source": settings.weights or "figures", "digest": " ".join(digests.values())}


def _with_weights(trial: PlannedTrial, path: Path | None) -> PlannedTrial:
    if path is None:
        return trial
    return dataclasses.replace(trial, config=dataclasses.replace(trial.config, weights=str(path)))
