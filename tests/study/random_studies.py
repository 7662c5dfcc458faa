"""Random studies of two stages with known truth: without training, run by the study's own driver loop."""

import contextlib
import dataclasses
import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from segstrat.config import GIVEN, INITIALIZATIONS, RAW, SELF
from segstrat.image_counts import COUNTS, ImageCounts, image_half, write_counts
from segstrat.records import EpochReport, SplitScore, TrialStatus, write_records
from segstrat.store import Store
from study.analysis.answering.design import AnsweringDesign
from study.cli import make_settings, parse
from study.driver.loop import Loop, Observers
from study.driver.stages import AnsweringLog, as_screening, contexts_to_answer, study_facts, two_stage_search
from study.planning.space import Space, load_space
from study.planning.trials import PlannedTrial, plan
from study.search.base import History
from study.search.two_stage import BetterHalf, Progress, split_by_seed
from study.state.halving import HalvingRule
from study.state.manifest import ManifestFile
from study.state.trial_states import TrialStates, count_final
from tests.study.fakes import FACTS, LocalExecutor

EPOCHS = 4
FLOORS = {"val": 0.05, "test": 0.06}
# Images of each half, and of the test split.
NAMES = [f"image {number}" for number in range(40)]
HALVES = {half: [name for name in NAMES if image_half(name) == half][:4] for half in ("a", "b")}
PIXELS = 10**6

KINDS = (
    *("clean", "early divergence", "late divergence", "failures", "test", "halves", "mixed"),
    *("lost", "multi-task", "nuisance", "tuned", "starts", "everything"),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One random study.

    Args:
        gap, gain: truth, in mIoU; `spread` is the standard deviation of a score over seeds.
        early, late: probability that a trial diverges before, or after, its first validation.
        failing: probability that a trial fails.
        scored: the images of which trials may have counts, drawn for each trial: `val`, `halves`, `test`.
        lost: probability that the counts of a trial are lost, or damaged, when it ends.
        stop_after: outcomes after which the driver is killed, and files are lost; None: never.
    """

    seed: int
    kind: str
    max_seeds: int
    screening_seeds: int
    concurrent: int
    gap: float
    gain: float
    spread: float
    early: float = 0.0
    late: float = 0.0
    failing: float = 0.0
    scored: tuple[str, ...] = ("halves",)
    lost: float = 0.0
    stop_after: int | None = None
    space: Space = field(repr=False)


def draw_case(seed: int, kind: str, *, small: bool = False) -> Case:
    """The case of that number.

    Args:
        small: with few cells, contexts and looks.
    """
    rng = random.Random(f"{kind}/{seed}")
    every = kind == "everything"
    space = load_space("wd_grid")
    decays = [0.0, *rng.sample([1e-4, 5e-4, 1e-3, 5e-3], 1 if small else rng.choice((1, 1, 2)))]
    axes, roles = {**space.axes, "weight_decay": decays}, dict(space.roles)
    # Several at once make many contexts and cells.
    shapes = (
        {rng.choice(("", "nuisance", "tuned", "multi-task", "starts"))}
        if small
        else {name for name in ("nuisance", "tuned", "multi-task", "starts") if rng.random() < 0.3}
    )
    shapes = shapes if every else {kind}
    if "nuisance" in shapes:
        axes["label_fraction"] = [0.125, 0.25, 0.5, 1.0][-(2 if small else rng.choice((2, 4))) :]
        roles["label_fraction"] = "nuisance"
    if "tuned" in shapes:
        axes["learning_rate"], roles["learning_rate"] = (
            [0.01, 0.05, 0.2][: 2 if small else rng.choice((2, 3))],
            "tuned",
        )
    if "multi-task" in shapes:
        more = [("parts",)] if rng.random() < 0.5 else []
        axes["tasks"] = [("semseg",), *more, ("semseg", "parts")]
        roles["tasks"] = "arm"
        axes["weight_decay"] = decays[:2]
    if "starts" in shapes:
        axes = {"initialization": list(INITIALIZATIONS)} | {
            k: v for k, v in axes.items() if k != "pretrained"
        }
        roles = {"initialization": "arm"} | {k: v for k, v in roles.items() if k != "pretrained"}
    scored = {"test": ("test",), "mixed": ("val", "halves", "test"), "clean": ("val", "halves", "test")}
    chosen = scored.get(kind, ("halves",) if rng.random() < 0.7 else ("test",))
    if kind in ("clean", "failures", "early divergence", "late divergence"):
        chosen = (rng.choice(("val", "halves", "test")),)
    if every and rng.random() < 0.3:
        chosen = rng.choice((("val", "halves"), ("halves", "test"), ("val", "test")))

    def some(name: str, *probabilities: float) -> float:
        return rng.choice(probabilities) if kind == name or (every and rng.random() < 0.5) else 0.0

    return Case(
        seed=seed,
        kind=kind,
        max_seeds=4 if small else rng.choice((4, 6)),
        screening_seeds=rng.choice((1, 2)),
        concurrent=rng.choice((1, 3, 8)),
        gap=rng.choice((0.0, 0.01, 0.02, 0.05, 0.08)),
        gain=rng.choice((0.0, 0.0, 0.02, 0.06)),
        spread=rng.choice((0.003, 0.006, 0.012)),
        early=some("early divergence", 0.05, 0.15, 0.3),
        late=some("late divergence", 0.05, 0.2),
        failing=some("failures", 0.03, 0.1),
        scored=chosen,
        lost=some("lost", 0.03, 0.1),
        stop_after=rng.randrange(3, 40) if rng.random() < 0.4 else None,
        space=dataclasses.replace(
            space,
            axes=axes,
            roles=roles,
            on={},
            base=space.base | {"tasks": ("semseg",), "epochs": EPOCHS, "model": "fcn8s", "width": 0.25},
        ),
    )


class RandomStudy:
    """A case that is run in one folder by the loop, the search and the log of a real study.

    Args:
        looked: called with the study after every look, and whenever a context cannot go on.
    """

    def __init__(self, case: Case, folder: Path, looked: Callable[["RandomStudy"], None]) -> None:
        self.case, self.folder, self._looked = case, Store(folder), looked
        self.design = AnsweringDesign(
            max_seeds=case.max_seeds, raw_candidates=2, pretrained_candidates=2, reference_values=2
        )
        self.attempts: dict[str, int] = {}
        seeds = tuple(range(case.screening_seeds))
        flags = parse(["--space", "wd_grid"])
        self.settings = make_settings(
            flags, {}, {"name": "x", "seeds": seeds, "max_seeds": self.design.max_seeds}
        )
        planned = as_screening(plan(case.space, "figures", seeds=seeds, weights="w"))
        first, self.later = split_by_seed(planned)
        self.trials = first if self.later else list(planned)
        self.manifest = {
            "schema": 1, "study": "x", "seeds": list(seeds), "scheduler": HalvingRule().to_dict(),
            "data": {"name": "figures"}, "question": "?", "options": {}, "trials": [],
            **study_facts(case.space, self.design),
        }  # fmt: skip

    def run(self) -> "RandomStudy":
        """Runs it to its end; where the driver is killed, files are lost and another driver goes on."""
        self._drive(self.case.stop_after)
        if self.case.stop_after is not None:
            self._lose_files()
            self._drive(None)
        return self

    def progress(self) -> dict[str, Progress]:
        """What the driver has decided, by context."""
        return self.search.progress(self.states.in_order())

    def _drive(self, stop_after: int | None) -> None:
        case = self.case
        self.states = TrialStates(self.folder, HalvingRule(), case.space.metric)
        for trial in self.trials:
            self.states.add(trial)
        self.states.resume()
        file = ManifestFile(self.folder, self.manifest)
        file.put_trials(self.trials)
        history = History(self.folder, study_facts(case.space, self.design, file.content))
        later = BetterHalf(contexts_to_answer(history, self.trials), history, self.later)
        self.search = two_stage_search(
            self.settings,
            case.space,
            self.design,
            self.trials,
            history=history,
            weights="w",
            screening=later if self.later else None,
            recorded=file.content.get("answering"),
        )
        log = AnsweringLog(self.search, self.states, file, Console(file=io.StringIO()))
        log.update()
        before = count_final(self.states.by_id.values())
        last: list[object] = [None]

        def record(trials: Sequence[PlannedTrial]) -> None:
            self.trials += trials
            file.put_trials(trials)

        def finished(_: object) -> None:
            log.update()
            now = {key: (found.looks, found.problem) for key, found in self.progress().items()}
            if now and now != last[0]:
                last[0] = now
                self._looked(self)

        class Killed(Exception):
            pass

        def on_tick() -> None:
            if stop_after is not None and count_final(self.states.by_id.values()) - before >= stop_after:
                raise Killed

        executor = LocalExecutor(self._train, concurrent=case.concurrent, seed=case.seed)
        loop = Loop(self.states, self.search, executor, Observers(finished=[finished]), record=record)
        with contextlib.suppress(Killed):
            loop.run(on_tick)
        self.manifest = dict(file.content)

    def _lose_files(self) -> None:
        """Some pixel counts are gone, others damaged."""
        rng = random.Random(f"files/{self.case.seed}")
        for state in self.states.in_order():
            folder = self.states.folder(state.trial)
            if state.record.status is TrialStatus.COMPLETED and rng.random() < 3 * self.case.lost:
                damage(folder, rng)

    def _train(self, trial: PlannedTrial) -> Iterator[EpochReport]:
        """The reports of a trial, whose files are written as by a worker."""
        case, config = self.case, trial.config
        attempt = self.attempts[trial.trial_id] = self.attempts.get(trial.trial_id, 0) + 1
        rng = random.Random(f"{case.seed}/{trial.trial_id}")
        fate, at = rng.random(), rng.randrange(2, EPOCHS)
        lost = rng.random() < case.lost and attempt == 1
        images = rng.choice(case.scored)
        folder = self.states.folder(trial)
        scores = {task: self._scores(trial, task, rng) for task in config.tasks}
        reports: list[EpochReport] = []
        facts = FACTS
        for epoch in range(1, EPOCHS + 1):
            if fate < case.failing and epoch == 2 and attempt == 1:
                raise OSError("the disk is full")
            early = case.failing <= fate < case.failing + case.early
            late = case.failing + case.early <= fate < case.failing + case.early + case.late
            diverges = (early and epoch == 1) or (late and epoch == at)
            last = epoch == EPOCHS
            if not diverges:
                facts = self._facts(facts, scores, images, last=last)
            reports.append(self._report(epoch, scores, images, diverges=diverges))
            if last and not diverges and images != "val":
                splits = ("val", "test") if images == "test" else ("val",)
                counts = {
                    (task, split): counts_of(found, split)
                    for task, found in scores.items()
                    for split in splits
                }
                write_counts(folder, counts)
            write_records(folder, facts, reports)
            if last and lost and images != "val":
                damage(folder, rng)
            yield reports[-1]
            if diverges:
                return

    def _scores(self, trial: PlannedTrial, task: str, rng: random.Random) -> dict[str, float]:
        """Final mIoU on both halves of the validation images and on the test images."""
        case, config = self.case, trial.config
        value = 0.25 + case.gap * {RAW: 0.0, SELF: 0.7, GIVEN: 1.0}[config.start]
        treated = config.weight_decay > 0 or config.multi_task
        value += case.gain * (1.0 if not config.pretrained else 0.3) * treated
        value -= 200 * (config.weight_decay - 5e-4) ** 2 * 100 * treated
        value -= 0.01 * (config.learning_rate != 0.05) * bool(trial.tuned)
        value += random.Random(f"{case.seed}/{config.seed}/{task}").gauss(0, 0.01) + rng.gauss(0, case.spread)
        return {part: value + rng.gauss(0, 0.002) for part in ("a", "b", "test")}

    def _facts(self, facts, scores, images: str, *, last: bool):
        floors = {task: {"val": FLOORS["val"]} for task in scores}
        if last and images == "test":
            floors = {task: dict(FLOORS) for task in scores}
        # Trials of first versions have neither.
        halves = {task: counts_of(found, "val").half_mious() for task, found in scores.items()}
        if images == "val":
            return facts
        return dataclasses.replace(facts, constant_miou=floors, half_miou=halves if last else {})

    def _report(self, epoch: int, scores: dict, images: str, *, diverges: bool) -> EpochReport:
        last = epoch == EPOCHS
        found: list[SplitScore] = []
        for task, values in scores.items() if not diverges else ():
            final = counts_of(values, "val").miou()
            found.append(
                split_score("val", task, final * (0.5 + 0.5 * epoch / EPOCHS) if not last else final)
            )
            if last and images == "test":
                found.append(split_score("test", task, counts_of(values, "test").miou()))
        status = "diverged" if diverges else "completed" if last else "running"
        return EpochReport(
            epoch=epoch, epochs=EPOCHS, status=status, scores=tuple(found), learning_rate=0.1, seconds=1.0,
            images_per_second=1.0, data_wait=0.0, message="not finite" if diverges else "",
        )  # fmt: skip


def split_score(split: str, task: str, value: float) -> SplitScore:
    return SplitScore(
        split=split, task=task, loss=1.0, miou=value, miou_thesis=value, pixel_accuracy=value,  # type: ignore[arg-type]
        class_accuracy=value, iou=(value,),
    )  # fmt: skip


def counts_of(values: dict[str, float], split: str) -> ImageCounts:
    """Pixel counts of one class whose IoU on each half, or on the test images, is nearly the given one."""
    parts = ("a", "b") if split == "val" else ("test",)
    ids, hits = [], []
    for part in parts:
        for number, name in enumerate(HALVES.get(part, NAMES[:4])):
            ids.append(name)
            iou = min(max(values[part] + (number - 1.5) * 1e-3, 0.0), 1.0)
            hits.append(round(2 * PIXELS * iou / (1 + iou)))
    column = np.array(hits, np.int64)[:, None]
    whole = np.full_like(column, PIXELS)
    return ImageCounts(tuple(ids), column, whole, whole)


def damage(folder: Store, rng: random.Random) -> None:
    """Deletes a trial's pixel counts, or cuts them short."""
    if not folder.exists(COUNTS) or rng.random() < 0.5:
        folder.delete(COUNTS)
    else:
        folder.write(COUNTS, folder.read(COUNTS)[:100])
