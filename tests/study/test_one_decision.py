"""A running study and its report decide alike: random studies, compared after every look."""

from pathlib import Path

import pytest

from study.analysis.answering.decision import Cause, Label
from study.analysis.study import Study, contexts
from study.analysis.verdict import Verdict, decide
from study.frame import write_frames
from tests.study.random_studies import KINDS, RandomStudy, draw_case

QUICK, LONG = {"everything": 2}, 42


def verdicts(study: RandomStudy) -> dict[str, Verdict]:
    """What the report says of the frames that are written now and loaded again, by context."""
    write_frames(study.folder)
    opened = Study.open(study.folder)
    every = [context for task in opened.tasks for context in contexts(opened, task)]
    return {context.key: decide(opened, context, study.design.margin) for context in every}


def compare(study: RandomStudy) -> None:
    """Every decision and every number of the driver is that of the report, bit for bit."""
    found = verdicts(study)
    for key, progress in study.progress().items():
        verdict = found[key]
        if progress.roles is None:
            assert verdict.cause is Cause.SCREENING, key
            assert verdict.problem == progress.problem
            continue
        assert verdict.stage is not None
        assert verdict.stage.roles == progress.roles
        assert verdict.images == progress.images
        assert repr(verdict.stage.looks) == repr(progress.looks)
        if not progress.looks:
            assert verdict.cause is Cause.SCREENING
            continue
        look = progress.looks[-1]
        assert verdict.label == (look.label or Label.UNDETERMINED)
        for name in ("gap", "improvement", "remaining", "closure"):
            assert repr(getattr(verdict.contrasts, name)) == repr(getattr(look, name))
        assert verdict.contrasts.differences["gap"].index.tolist() == list(look.used)


def is_final(verdict: Verdict, study: RandomStudy) -> bool:
    """Whether no more planned seeds could change that a context is undetermined."""
    look = verdict.look
    if look is None or look.label is None:
        return bool(verdict.problem)
    learned = verdict.cause not in (Cause.RAW_NOT_LEARNED, Cause.PRETRAINED_NOT_LEARNED)
    unlikely = any(chance < study.design.hopeless for _, chance in look.chances.values())
    return not learned or look.number == look.looks or look.gap.below(study.design.margin) or unlikely


def check(kind: str, seed: int, folder: Path, *, small: bool = False) -> int:
    """Compares driver and report at every moment of a study; returns how many looks there were."""
    study = RandomStudy(draw_case(seed, kind, small=small), folder, compare).run()
    compare(study)
    for verdict in verdicts(study).values():
        if verdict.label is Label.UNDETERMINED and verdict.context.answerable:
            assert is_final(verdict, study), verdict.cause
    return sum(len(progress.looks) for progress in study.progress().values())


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of hundreds of studies need not survive a power failure."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.parametrize("kind", KINDS)
def test_driver_and_report_agree(kind: str, tmp_path: Path):
    looks = [check(kind, seed, tmp_path / str(seed), small=True) for seed in range(QUICK.get(kind, 1))]
    assert sum(looks) > 0, "nothing was decided, so nothing was compared"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_driver_and_report_agree_in_hundreds_of_studies(kind: str, tmp_path: Path):
    looks = [check(kind, seed, tmp_path / str(seed)) for seed in range(LONG)]
    assert sum(looks) > LONG / 2, "too little was decided to compare"
