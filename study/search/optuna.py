"""Optuna's TPE as a search: one sampler per arm, given outcomes in the study's order, so that timing decides
nothing.

A sampler that receives outcomes in the order of finishing proposes other points on another machine. Here the
n-th point of an arm is a function of the outcomes of that arm's first n − `PARALLEL` points, in order: the
same command proposes the same points, and a resumed study needs no sampler state. The price is that an arm
has at most `PARALLEL` proposed points running.

The first points of the plan (the unregularized one and quasi-random ones, the same in every arm) replace
TPE's random start.

`optuna.db` in the study's folder, for Optuna's own tools: one Optuna study per arm.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.exc import SQLAlchemyError

from segstrat.errors import UserError
from segstrat.records import Stage, TrialStatus
from segstrat.store import Store, say_once
from study.planning.space import Distribution, Space
from study.planning.trials import PlannedTrial, planned_trial
from study.search.base import NoTrial
from study.state.trial_states import TrialState

PARALLEL = 4
STATES = {TrialStatus.COMPLETED: OptunaState.COMPLETE, TrialStatus.STOPPED: OptunaState.PRUNED}
TRIAL_ID = "trial_id"


class OptunaSearch:
    """Proposes points arm by arm, the arm with the fewest points first.

    Args:
        budget: factor on every trial's epochs.
    """

    def __init__(self, space: Space, budget: float) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._budget = budget

    def propose(self, history: Sequence[TrialState]) -> PlannedTrial | NoTrial:
        """The next point of an arm whose earlier points have ended; WAIT if every arm must wait."""
        arms = by_sampler(self._space, history)
        open_arms = [name for name, states in arms.items() if len(states) < self._space.samples]
        for name in sorted(open_arms, key=lambda name: len(arms[name])):
            states = arms[name]
            past = states[: len(states) - PARALLEL + 1]
            if all(state.final for state in past):
                trial = self._point(name, states[0].trial, len(states), past)
                # The position in the study's order must not depend on which arm was quicker.
                order = len(states) * len(arms) + list(arms).index(name)
                self._refuse_repeated(trial, history)
                return dataclasses.replace(trial, order=order)
        return NoTrial.WAIT if open_arms else NoTrial.DONE

    def remaining(self, history: Sequence[TrialState]) -> int:
        """Points that are still to be proposed, of all arms."""
        arms = by_sampler(self._space, history)
        return sum(max(0, self._space.samples - len(states)) for states in arms.values())

    def _point(self, name: str, first: PlannedTrial, number: int, past: Sequence[TrialState]) -> PlannedTrial:
        """The point of that number of an arm, from the arm's past points."""
        seed = int.from_bytes(hashlib.sha256(f"{name}/{number}".encode()).digest()[:4])
        sampler = optuna.samplers.TPESampler(n_startup_trials=0, multivariate=True, seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(
            [as_optuna_trial(self._space, state) for state in past if was_drawn(self._space, state)]
        )
        sampled = self._space.sampled
        values = study.ask(distributions(self._space)).params
        axes = {axis: value for axis, value in first.axes.items() if axis not in sampled and axis != "seed"}
        axes |= {axis: sampled[axis].rounded(value) for axis, value in values.items()}
        return planned_trial(
            self._space,
            first.config.data,
            axes,
            seed=first.config.seed,
            budget=self._budget,
            weights=first.config.weights,
        )

    def _refuse_repeated(self, trial: PlannedTrial, history: Sequence[TrialState]) -> None:
        if any(state.trial.trial_id == trial.trial_id for state in history):
            raise UserError(
                f"Optuna proposes {trial.label} a second time; space {self._space.name} is too small for "
                f"{self._space.samples} points per arm"
            )


def by_sampler(space: Space, history: Sequence[TrialState]) -> dict[str, list[TrialState]]:
    """The trials of each sampler, in the study's order; samplers by name."""
    arms: dict[str, list[TrialState]] = {}
    for state in sorted(history, key=lambda state: state.trial.order):
        arms.setdefault(sampler_name(space, state.trial), []).append(state)
    return dict(sorted(arms.items()))


def sampler_name(space: Space, trial: PlannedTrial) -> str:
    """Name of a trial's sampler: its values on all axes that are not searched."""
    rest = [
        f"{axis}={value}"
        for axis, value in trial.axes.items()
        if axis not in space.sampled and axis != "seed" and space.roles.get(axis) != "arm"
    ]
    return ", ".join([trial.arm, *rest])


def was_drawn(space: Space, state: TrialState) -> bool:
    """Whether a trial is a point of the searched box; the unregularized point is outside."""
    return all(state.trial.axes[axis] in drawn for axis, drawn in space.sampled.items())


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The searched axes as Optuna writes them."""
    return {axis: as_optuna_distribution(drawn) for axis, drawn in space.sampled.items()}


def as_optuna_distribution(drawn: Distribution) -> BaseDistribution:
    """A distribution as Optuna writes it."""
    if drawn.integer:
        return IntDistribution(int(drawn.low), int(drawn.high), log=drawn.log)
    return FloatDistribution(drawn.low, drawn.high, log=drawn.log)


def as_optuna_trial(space: Space, state: TrialState) -> FrozenTrial:
    """A finished trial as Optuna knows it: a stopped one is pruned, never complete."""
    scores = {report.epoch: space.metric.of_report(report) for report in state.record.reports}
    finite = {epoch: value for epoch, value in scores.items() if value is not None and math.isfinite(value)}
    kind = STATES.get(state.record.status, OptunaState.FAIL) if finite else OptunaState.FAIL
    return create_trial(
        state=kind,
        value=finite[max(finite)] if kind == OptunaState.COMPLETE else None,
        params={axis: state.trial.axes[axis] for axis in space.sampled},
        distributions=distributions(space),
        intermediate_values=finite,
        user_attrs={TRIAL_ID: state.trial.trial_id, "status": str(state.record.status)},
    )


DATABASE = "optuna.db"


class OptunaDatabase:
    """Adds finished trials to `optuna.db`.

    Args:
        history: all trials that are known; those that are finished are added now.
        stage: of the trials that the search proposes; others are left out.
    """

    def __init__(
        self, folder: Store, space: Space, history: Sequence[TrialState], stage: Stage = Stage.ANSWERING
    ) -> None:
        self._space = space
        self._stage = stage
        folder.local_path.mkdir(parents=True, exist_ok=True)
        path = folder.local_path / DATABASE
        samplers = by_sampler(space, history)
        try:
            self._open(path, samplers)
        except (SQLAlchemyError, RuntimeError, ValueError) as error:
            aside = path.with_suffix(".damaged.db")
            path.replace(aside)
            reason = str(error).partition("\n")[0]
            say_once(f"{path} cannot be read ({reason}); written again, the old one is {aside.name}")
            self._open(path, samplers)
        for state in history:
            if state.final:
                self.add(state)

    def _open(self, path: Path, samplers: Iterable[str]) -> None:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        self._studies = {
            name: optuna.create_study(
                study_name=name, storage=storage, direction="maximize", load_if_exists=True
            )
            for name in samplers
        }
        self._known = {
            (name, trial.user_attrs.get(TRIAL_ID), trial.state)
            for name, study in self._studies.items()
            for trial in study.get_trials(deepcopy=False)
        }

    def add(self, state: TrialState) -> None:
        """Adds a finished trial; the unregularized point is outside the searched box and left out."""
        if state.trial.stage is not self._stage or not was_drawn(self._space, state):
            return
        trial = as_optuna_trial(self._space, state)
        name = sampler_name(self._space, state.trial)
        # A failed trial may succeed in a resumed study: then both are there.
        key = name, state.trial.trial_id, trial.state
        if key not in self._known:
            self._known.add(key)
            self._studies[name].add_trial(trial)
