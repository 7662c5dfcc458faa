"""The weights of the pre-trained arm: checked before trials start, and planned where the project pre-trains.

Where weights are given, all trials start from that checkpoint. Otherwise, and for every trial whose
initialization is `self`, each answering seed has its own pre-training, so that the intervals over seeds
include its variation. Screening only nominates: all its seeds share the pre-training of seed 0, on which no
answering seed starts.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segstrat.config import GIVEN, SELF, TrialConfig
from segstrat.errors import UserError
from segstrat.pretraining.job import FIGURES, PretrainData, Pretraining, PretrainSource, SelfSource
from segstrat.records import Stage
from segstrat.store import Store, cache_dir
from study.analysis.answering.design import AnsweringDesign
from study.cli import StudySettings
from study.driver.stages import first_fresh_seed
from study.planning.trials import PlannedTrial
from study.state.pretrainings import FOLDER, PlannedPretraining, epochs_done, share_file

SCREENING_SEED = 0
Source = PretrainSource | SelfSource
# What the report shows of self-supervision.
LEARNED = ("losses", "errors", "nearest_patch_error", "probe", "probe_of_random_features", "examples")


class Weights:
    """Knows which weights every pre-trained trial starts from, and where they are.

    Args:
        design: of the answering stage, whose next look decides what is trained ahead of time.
        recorded: `weights` in the manifest of a study that is resumed.
        shared: folder of the weights that all nodes see; None for a study on one machine.
        accept_changes: use weights that differ from those that the study has used so far.
    """

    def __init__(
        self,
        settings: StudySettings,
        design: AnsweringDesign | None = None,
        recorded: Mapping[str, Any] | None = None,
        *,
        shared: Store | None = None,
        accept_changes: bool = False,
    ) -> None:
        self._settings = settings
        self._design = design
        given: Mapping[str, str] = (recorded or {}).get("files", {})
        own: Mapping[str, str] = ((recorded or {}).get("self") or {}).get("files", {})
        self._recorded: Mapping[str, str] = {**given, **own}
        self._shared = shared
        self._accept_changes = accept_changes
        self._accepted: list[str] = []
        self._planned: dict[Pretraining, PlannedPretraining] = {}
        self._files: dict[type[Source], dict[str, str]] = {PretrainSource: dict(given), SelfSource: dict(own)}
        self._made: set[str] = set()
        self._taken: set[str] = set()
        self._gives = True
        self._learned: dict[str, dict[str, Any]] = {}
        self._opened: dict[Source, PretrainData] = {}

    @property
    def per_seed(self) -> bool:
        """Whether the project itself makes the weights that are not `self`, once per seed."""
        return not self._settings.weights

    @property
    def source(self) -> str:
        """`imagenet`, the path of a file, or the images on which the project pre-trains."""
        return self._settings.weights or self._settings.pretrain_on or FIGURES

    def check(self, trials: Sequence[PlannedTrial], *, download: bool = True) -> None:
        """Checks the given weights, or the images of the pre-training, for every backbone and width.

        Args:
            download: fetch `imagenet` weights that are not in the cache, to check their content.

        Raises:
            UserError: if they are missing or cannot be read, or do not fit one of the backbones.
        """
        configs = [trial.config for trial in trials if trial.config.pretrained]
        self._gives = any(config.start == GIVEN for config in configs)
        if not configs:
            return
        # Torch is imported only where there is something to check.
        import torch

        from segstrat.models import assemble_backbone
        from segstrat.models.weights import check_backbone_weights
        from segstrat.pretraining.loop import check_crop

        networks = ((each.backbone or "", each.width, self._source_of(each)) for each in configs)
        for backbone, width, source in dict.fromkeys(networks):
            with torch.device("meta"):
                network = assemble_backbone(backbone, width)
            if source is None:
                check_backbone_weights(network, self._settings.weights, download=download)
            else:
                made = Pretraining(backbone=backbone, width=width, seed=SCREENING_SEED, source=source)
                check_crop(network, made.recipe(self._data(source)))

    def of(self, trial: PlannedTrial) -> PlannedPretraining | None:
        """The pre-training whose weights a trial starts from; None if it starts from given ones or none."""
        config = trial.config
        source = self._source_of(config)
        if source is None:
            return None
        seed = SCREENING_SEED if trial.stage is Stage.SCREENING else config.seed
        return self._plan(config.backbone or "", config.width, seed, source)

    def of_next_look(self, trials: Sequence[PlannedTrial]) -> list[PlannedPretraining]:
        """The pre-trainings of the seeds of the next look, as far as the trials that are known tell."""
        if self._design is None:
            return []
        first = first_fresh_seed(self._settings)
        known = [trial for trial in trials if trial.stage is Stage.ANSWERING]
        count = 0
        if known:
            newest = max(trial.config.seed for trial in known)
            count = newest - first + 1
            known = [trial for trial in known if trial.config.seed == newest]
        start = [trial.config for trial in known or trials]
        look = next((seeds for seeds in self._design.looks if seeds > count), count)
        networks = dict.fromkeys((each.backbone or "", each.width, self._source_of(each)) for each in start)
        return [
            self._plan(backbone, width, seed, source)
            for seed in range(first + count, first + look)
            for backbone, width, source in networks
            if source is not None
        ]

    def find(self, job: PlannedPretraining, seconds: float | None = None) -> bool:
        """Whether the weights of a pre-training exist; then trials can be given them.

        Args:
            seconds: that it took, where this study has trained them.
        """
        if job.file in self._made:
            return True
        from segstrat.data.cache.entries import hold
        from segstrat.pretraining.cached import is_sound

        path = _cached(job)
        if is_sound(path):
            if self._shared is not None:
                share_file(self._shared, path)
        elif self._shared is not None and self._shared.exists(job.file):
            Store(path.parent).write(path.name, self._shared.read(job.file))
        if not is_sound(path):
            return False
        hold(path)
        self._made.add(job.file)
        made = job.pretraining
        if isinstance(made.source, SelfSource):
            from segstrat.models.weights import read_about

            about = {key: value for key, value in read_about(path).items() if key in LEARNED}
            network = {"seed": made.seed, "backbone": made.backbone, "width": made.width}
            # Not in the file of weights, which is the same wherever and whenever it is made.
            about |= {} if seconds is None else {"seconds": seconds}
            self._learned[job.file] = {**network, **about}
        return True

    def epochs_done(self, job: PlannedPretraining) -> int:
        """How many epochs of a pre-training are complete that has not ended."""
        return epochs_done(job, self._shared or Store(cache_dir() / FOLDER))

    def placed(self, trial: PlannedTrial) -> PlannedTrial:
        """The trial with the path of its weights, which exist.

        Raises:
            UserError: if they differ from those that the study has used.
        """
        if not trial.config.pretrained:
            return trial
        weights = self.source
        if job := self.of(trial):
            weights = str(_cached(job))
            self._take(_cached(job), type(job.pretraining.source))
        elif weights != "imagenet":
            weights = str(self._given)
            if self._shared is not None and weights not in self._made:
                share_file(self._shared, self._given)
                self._made.add(weights)
        return dataclasses.replace(trial, config=dataclasses.replace(trial.config, weights=weights))

    def describe(self) -> dict[str, Any]:
        """For the manifest: the source, and the digest of every file of weights that trials were given.

        Of self-supervision the same under `self`, where trials start from it.
        """
        found: dict[str, Any] = {"source": self.source, "per_seed": self.per_seed}
        if self.per_seed:
            found |= self._facts_of(self._given_source)
        elif self.source != "imagenet":
            found["files"] = {self._given.name: file_digest(self._given)}
        if self._own_source not in self._opened:
            return found
        own = {"source": f"{self._own_source.name} without labels", **self._facts_of(self._own_source)}
        # Without a trial that starts from given weights, these are all that there are.
        return {**(found if self._gives else {**own, "per_seed": True}), "self": own}

    def _facts_of(self, source: Source) -> dict[str, Any]:
        data = self._opened.get(source)
        digest = data.digest if data else ""
        return {"data_digest": digest, "epochs": source.epochs, "files": dict(self._files[type(source)])}

    def take_accepted(self) -> list[str]:
        """In words, which files differ from those that the study used before; each is named once."""
        words, self._accepted = self._accepted, []
        return words

    def take_learned(self) -> dict[str, dict[str, Any]]:
        """What self-supervision learned, by file of weights, for the report; each is named once."""
        found, self._learned = self._learned, {}
        return found

    def outlook(self, trials: Sequence[PlannedTrial]) -> str:
        """What will be pre-trained before these trials and the first look; '' without a pre-trained arm."""
        parts = []
        sources = dict.fromkeys(self._source_of(each.config) for each in trials if each.config.pretrained)
        if None in sources:
            fetched = ", downloaded when the study starts unless it is in torch's cache" * (
                self.source == "imagenet"
            )
            parts.append(f"{self.source}{fetched}, one checkpoint: the answer holds for this checkpoint only")
        wanted = self._wanted(trials)
        for source in sources:
            jobs = [job for job in wanted if job.pretraining.source == source]
            if not jobs:
                continue
            there = sum(_cached(job).is_file() for job in jobs)
            count = f"{len(jobs)} pre-training{'s' * (len(jobs) != 1)} {source}"
            when = ""
            if self._design is not None:
                looks = self._design.looks
                when = f" up to the first look ({looks[0]} seeds), one more for each later seed"
            parts.append(f"{count}{when}; {there} of them in the cache")
        return "; ".join(parts)

    def to_make(self, trials: Sequence[PlannedTrial]) -> list[PlannedPretraining]:
        """The pre-trainings before these trials and the first look that are not in the cache."""
        return [job for job in self._wanted(trials) if not _cached(job).is_file()]

    def _source_of(self, config: TrialConfig) -> Source | None:
        """Where the weights of a trial are made; None where they are given, or it starts from none."""
        if config.start == SELF:
            return self._own_source
        return self._given_source if config.pretrained and self.per_seed else None

    @property
    def _given_source(self) -> PretrainSource:
        settings = self._settings
        return PretrainSource(name=settings.pretrain_on or FIGURES, epochs=settings.pretrain_epochs or None)

    @property
    def _own_source(self) -> SelfSource:
        settings = self._settings
        return SelfSource(
            protocol=settings.data,
            root=settings.data_root,
            folder=settings.pretrain_self,
            epochs=settings.pretrain_epochs or None,
        )

    def _data(self, source: Source) -> PretrainData:
        if source not in self._opened:
            self._opened[source] = source.open(cache_dir())
        return self._opened[source]

    @property
    def _given(self) -> Path:
        return Path(self._settings.weights).expanduser().absolute()

    def _wanted(self, trials: Sequence[PlannedTrial]) -> list[PlannedPretraining]:
        """The pre-trainings of these trials and of the next look."""
        jobs = [job for trial in trials if (job := self.of(trial))]
        return list(dict.fromkeys([*jobs, *(self.of_next_look(trials) if jobs else [])]))

    def _plan(self, backbone: str, width: float, seed: int, source: Source) -> PlannedPretraining:
        pretraining = Pretraining(backbone=backbone, width=width, seed=seed, source=source)
        if pretraining not in self._planned:
            from segstrat.pretraining.cached import weights_name

            data = self._data(source)
            self._planned[pretraining] = PlannedPretraining(
                pretraining=pretraining,
                file=weights_name(pretraining, data),
                epochs=pretraining.recipe(data).epochs,
            )
        return self._planned[pretraining]

    def _take(self, path: Path, kind: type[Source]) -> None:
        """Notes the digest of a file that trials start from."""
        if path.name in self._taken:
            return
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
        self._files[kind][path.name] = digest
        self._taken.add(path.name)


def _cached(job: PlannedPretraining) -> Path:
    """The file of a pre-training's weights in this machine's cache."""
    return cache_dir() / FOLDER / job.file


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
