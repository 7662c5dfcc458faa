"""The weights of the pre-trained arm: checked before trials start, and trained where the project pre-trains.

Where weights are given, all trials start from that checkpoint. Otherwise each answering seed has its own
pre-training, so that the intervals over seeds include its variation. Screening only nominates: all its seeds
share the pre-training of seed 0, on which no answering seed starts.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segstrat.errors import UserError
from segstrat.records import Stage
from segstrat.store import cache_dir
from study.analysis.answering.design import AnsweringDesign
from study.driver.stages import first_fresh_seed
from study.planning.settings import StudySettings
from study.planning.trials import PlannedTrial

if TYPE_CHECKING:
    from segstrat.pretraining.cached import PretrainRequest
    from segstrat.pretraining.job import PretrainJob
    from segstrat.pretraining.source import PretrainSource

SCREENING_SEED = 0


class Weights:
    """Gives every pre-trained trial the file of its weights, trained here where none is given.

    Args:
        design: of the answering stage; its first look's weights are made together with those of screening.
        recorded: `weights` in the manifest of a study that is resumed.
        accept_changes: use weights that differ from those that the study has used so far.
    """

    def __init__(
        self,
        settings: StudySettings,
        design: AnsweringDesign | None = None,
        recorded: Mapping[str, Any] | None = None,
        *,
        accept_changes: bool = False,
    ) -> None:
        self._settings = settings
        self._design = design
        self._recorded: Mapping[str, str] = (recorded or {}).get("files", {})
        self._accept_changes = accept_changes
        self._accepted: list[str] = []
        self._data_digest = ""
        self._made: dict[PretrainRequest, Path] = {}
        self._files: dict[str, str] = dict(self._recorded)

    @property
    def per_seed(self) -> bool:
        """Whether the project itself pre-trains, once per seed."""
        return not self._settings.weights

    @property
    def source(self) -> str:
        """`imagenet`, the path of a file, or the images on which the project pre-trains."""
        return self._settings.weights or self._settings.pretrain_on or "figures"

    def check(self, trials: Sequence[PlannedTrial], *, download: bool = True) -> None:
        """Checks the given weights, or the images of the pre-training, for every backbone and width.

        Args:
            download: fetch `imagenet` weights that are not in the cache, to check their content.

        Raises:
            UserError: if they are missing or cannot be read, or do not fit one of the backbones.
        """
        configs = [trial.config for trial in trials if trial.config.pretrained]
        if not configs:
            return
        # Torch is imported only where there is something to check.
        import torch

        from segstrat.models import assemble_backbone
        from segstrat.models.weights import check_backbone_weights
        from segstrat.pretraining.loop import check_crop

        data = None
        if self.per_seed:
            data = self._images.open(cache_dir())
            self._data_digest = data.digest
        for backbone, width in dict.fromkeys((config.backbone or "", config.width) for config in configs):
            with torch.device("meta"):
                network = assemble_backbone(backbone, width)
            if data is None:
                check_backbone_weights(network, self._settings.weights, download=download)
            else:
                check_crop(network, self._images.recipe(backbone, data, SCREENING_SEED))

    def place(
        self,
        trials: Sequence[PlannedTrial],
        *,
        at_once: int | None = None,
        threads: int | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> list[PlannedTrial]:
        """The trials with the paths of their weights, which are trained first if necessary.

        Args:
            at_once: pre-trainings at the same time; default: one per GPU, or one.
            threads: CPU threads of each; default: an equal share of the cores.
            on_tick: called several times a second while weights are trained; what it raises ends that. It
                continues after the last complete epoch the next time.

        Raises:
            UserError: if weights differ from those that the study has used, or a pre-training diverges.
        """
        self._ensure(self._wanted(trials), at_once=at_once, threads=threads, on_tick=on_tick)
        return [self._placed(trial) for trial in trials]

    def missing(self, trials: Sequence[PlannedTrial]) -> "list[PretrainRequest]":
        """The pre-trainings that must be made, or looked up in the cache, before these trials start."""
        return [request for request in self._wanted(trials) if request not in self._made]

    def describe(self) -> dict[str, Any]:
        """For the manifest: the source, and the digest of every file of weights that trials were given."""
        found: dict[str, Any] = {"source": self.source, "per_seed": self.per_seed}
        if self.per_seed:
            epochs = self._settings.pretrain_epochs or None
            found |= {"data_digest": self._data_digest, "epochs": epochs, "files": dict(self._files)}
        elif self.source != "imagenet":
            found["files"] = {self._given.name: file_digest(self._given)}
        return found

    def take_accepted(self) -> list[str]:
        """In words, which files differ from those that the study used before; each is named once."""
        words, self._accepted = self._accepted, []
        return words

    def outlook(self, trials: Sequence[PlannedTrial]) -> str:
        """What will be pre-trained before these trials and the first look; '' without a pre-trained arm."""
        if not self.per_seed and any(trial.config.pretrained for trial in trials):
            return f"{self.source}, one checkpoint: every statement is given this checkpoint"
        wanted = self._wanted(trials)
        if not wanted:
            return ""
        there = len(wanted) - len(self.to_make(trials))
        name = Path(self.source).name
        count = f"{len(wanted)} pre-training{'s' * (len(wanted) != 1)} on {name}"
        when = ""
        if self._design is not None:
            looks = self._design.looks
            when = f" up to the first look ({looks[0]} seeds), one more for each later seed"
        return f"{count}{when}; {there} of them in the cache"

    def to_make(self, trials: Sequence[PlannedTrial]) -> "list[PretrainJob]":
        """The pre-trainings before these trials and the first look that are not in the cache."""
        wanted = self._wanted(trials)
        if not wanted:
            return []
        from segstrat.pretraining.cached import make_job

        cache = cache_dir()
        data = self._images.open(cache)
        jobs = [make_job(request, self._images, data, cache) for request in wanted]
        return [job for job in jobs if not job.out.is_file()]

    @property
    def _images(self) -> "PretrainSource":
        from segstrat.pretraining.source import PretrainSource

        epochs = self._settings.pretrain_epochs or None
        return PretrainSource(name=self._settings.pretrain_on or "figures", epochs=epochs)

    @property
    def _given(self) -> Path:
        return Path(self._settings.weights).expanduser().absolute()

    def _wanted(self, trials: Sequence[PlannedTrial]) -> "list[PretrainRequest]":
        """The pre-trainings of these trials; with screening trials, also those of the first look.

        Those are needed in any case, and so no slot is idle while the one of screening is trained.
        """
        pretrained = [trial for trial in trials if trial.config.pretrained]
        if not (self.per_seed and pretrained):
            return []
        wanted = {self._request(trial): None for trial in pretrained}
        if self._design is not None and any(trial.stage is Stage.SCREENING for trial in trials):
            first = first_fresh_seed(self._settings)
            for request in list(wanted):
                for seed in range(first, first + self._design.looks[0]):
                    wanted[dataclasses.replace(request, seed=seed)] = None
        return list(wanted)

    def _request(self, trial: PlannedTrial) -> "PretrainRequest":
        from segstrat.pretraining.cached import PretrainRequest

        seed = SCREENING_SEED if trial.stage is Stage.SCREENING else trial.config.seed
        return PretrainRequest(backbone=trial.config.backbone or "", width=trial.config.width, seed=seed)

    def _ensure(
        self,
        wanted: "Sequence[PretrainRequest]",
        **how: Any,
    ) -> None:
        missing = [request for request in wanted if request not in self._made]
        if not missing:
            return
        from segstrat.pretraining.cached import ensure_all_pretrained

        made = ensure_all_pretrained(missing, cache_dir(), self._images, **how)
        for path in made.values():
            digest = file_digest(path)
            differs = self._recorded.get(path.name, digest) != digest
            if differs and self._accept_changes:
                self._accepted.append(f"the weights {path.name}")
            elif differs:
                raise UserError(
                    f"weights {path.name} were trained again and differ from those that this study used "
                    "before, as on another processor or version of torch; restore that file in the cache, "
                    "or pass --accept-changes to mix both"
                )
            self._files[path.name] = digest
        self._made |= made

    def _placed(self, trial: PlannedTrial) -> PlannedTrial:
        if not trial.config.pretrained:
            return trial
        weights = self.source
        if weights != "imagenet":
            weights = str(self._made[self._request(trial)] if self.per_seed else self._given)
        return dataclasses.replace(trial, config=dataclasses.replace(trial.config, weights=weights))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
