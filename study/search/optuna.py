"""Optuna's TPE as a search: one sampler an arm, told in the study's order, so that timing decides nothing.

A sampler that hears of trials as they happen to finish proposes other points on another machine. Here the
n-th point of an arm is a function of the outcomes of that arm's first n − `PARALLEL` points, in order:
the same command proposes the same points, and a resumed study needs no sampler state. The price is that an
arm has at most `PARALLEL` proposed points in flight.

The points that the plan begins with (the unregularized one and quasi-random ones, the same in every arm) take
the place of TPE's random start. All finished trials are written to `optuna.db` in the study's folder, one
Optuna study an arm.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from segstrat.errors import UserError
from segstrat.store import Store
from study.planning.distribution import Distribution
from study.planning.space import Space
from study.planning.trials import PlannedTrial, planned_trial
from study.state.trial_states import FINAL, Ledger, TrialRow

PARALLEL = 4
DATABASE = "optuna.db"
STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
TRIAL_ID = "trial_id"


class OptunaSearch:
    """Hands out the planned points first, then Optuna's proposals, arm by arm.

    Args:
        trials: all trials that are known: the startup points and, in a resumed study, earlier proposals.
        waiting: those of them that are still to run.
        folder: the study's folder, which holds the database.
        budget: factor on every trial's epochs.
        on_proposed: called with each new trial before it starts; it must put it on record.
    """

    def __init__(
        self,
        space: Space,
        trials: Sequence[PlannedTrial],
        waiting: Sequence[PlannedTrial],
        ledger: Ledger,
        *,
        folder: Store,
        budget: float,
        on_proposed: Callable[[PlannedTrial], None] = lambda _: None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._ledger = ledger
        self._budget = budget
        self._on_proposed = on_proposed
        self._waiting = sorted(waiting, key=lambda trial: trial.order, reverse=True)
        self._arms: dict[str, list[PlannedTrial]] = {}
        for trial in sorted(trials, key=lambda trial: trial.order):
            self._arms.setdefault(_arm(space, trial), []).append(trial)
        self._arms = dict(sorted(self._arms.items()))
        self._distributions: dict[str, BaseDistribution] = {
            axis: as_optuna(drawn) for axis, drawn in space.sampled.items()
        }
        self._database = _Database(folder, self._arms)
        for row in ledger.rows.values():
            if row.state in FINAL:
                self.record(row)

    def next_trial(self) -> PlannedTrial | None:
        """A planned point, or the next proposal of the arm that has fewest; None if all must wait."""
        if self._waiting:
            return self._waiting.pop()
        for name, trials in sorted(self._arms.items(), key=lambda arm: len(arm[1])):
            if len(trials) >= self._space.samples:
                continue
            history = [self._ledger.rows[each.trial_id] for each in trials[: len(trials) - PARALLEL + 1]]
            if all(row.state in FINAL for row in history):
                return self._propose(name, history)
        return None

    @property
    def unproposed(self) -> int:
        """Points that are still to be proposed, of all arms."""
        return sum(max(0, self._space.samples - len(trials)) for trials in self._arms.values())

    @property
    def finished(self) -> bool:
        """Whether every arm has had all its points."""
        return not self._waiting and not self.unproposed

    def record(self, row: TrialRow) -> None:
        """Writes a finished trial to the database; the unregularized point is outside of what is searched."""
        if self._was_drawn(row):
            self._database.add(_arm(self._space, row.trial), self._frozen(row))

    def _was_drawn(self, row: TrialRow) -> bool:
        return all(row.trial.axes[axis] in drawn for axis, drawn in self._space.sampled.items())

    def _propose(self, arm: str, history: Sequence[TrialRow]) -> PlannedTrial:
        trials = self._arms[arm]
        number = len(trials)
        seed = int.from_bytes(hashlib.sha256(f"{arm}/{number}".encode()).digest()[:4])
        sampler = optuna.samplers.TPESampler(n_startup_trials=0, multivariate=True, seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials([self._frozen(row) for row in history if self._was_drawn(row)])
        values = study.ask(self._distributions).params
        first = trials[0]
        axes = {name: value for name, value in first.axes.items() if name not in self._distributions}
        axes |= {axis: self._space.sampled[axis].rounded(value) for axis, value in values.items()}
        known = {name: value for name, value in axes.items() if name != "seed"}
        trial = planned_trial(
            self._space,
            first.config.data,
            known,
            seed=first.config.seed,
            budget=self._budget,
            weights=first.config.weights,
        )
        if trial.trial_id in self._ledger.rows:
            raise UserError(
                f"Optuna proposes {trial.label} a second time; space {self._space.name} is too small for "
                f"{self._space.samples} points an arm"
            )
        # The place in the study's order must not depend on which arm was quicker.
        order = number * len(self._arms) + list(self._arms).index(arm)
        trial = dataclasses.replace(trial, order=order)
        trials.append(trial)
        self._ledger.add(trial)
        self._on_proposed(trial)
        return trial

    def _frozen(self, row: TrialRow) -> FrozenTrial:
        """A finished trial as Optuna knows it: a stopped one is pruned, never complete."""
        scores = {report.epoch: report.metrics().get(self._ledger.metric) for report in row.counted_reports}
        shown = {
            epoch: value for epoch, value in scores.items() if value is not None and math.isfinite(value)
        }
        state = STATES.get(row.state, TrialState.FAIL) if shown else TrialState.FAIL
        return create_trial(
            state=state,
            value=shown[max(shown)] if state == TrialState.COMPLETE else None,
            params={axis: row.trial.axes[axis] for axis in self._distributions},
            distributions=self._distributions,
            intermediate_values=shown,
            user_attrs={TRIAL_ID: row.trial.trial_id, "status": row.state},
        )


def as_optuna(drawn: Distribution) -> BaseDistribution:
    """A distribution as Optuna writes it."""
    if drawn.integer:
        return IntDistribution(int(drawn.low), int(drawn.high), log=drawn.log)
    return FloatDistribution(drawn.low, drawn.high, log=drawn.log)


class _Database:
    """`optuna.db`: what Optuna's own tools open. Nothing is read back from it but what it holds."""

    def __init__(self, folder: Store, arms: Mapping[str, Any]) -> None:
        folder.local_path.mkdir(parents=True, exist_ok=True)
        path = folder.local_path / DATABASE
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        self._studies = {
            arm: optuna.create_study(
                study_name=arm, storage=storage, direction="maximize", load_if_exists=True
            )
            for arm in arms
        }
        self._known = {
            (arm, trial.user_attrs.get(TRIAL_ID), trial.state)
            for arm, study in self._studies.items()
            for trial in study.get_trials(deepcopy=False)
        }

    def add(self, arm: str, trial: FrozenTrial) -> None:
        # A failed trial may succeed in a resumed study: then both are there.
        key = arm, trial.user_attrs[TRIAL_ID], trial.state
        if key not in self._known:
            self._known.add(key)
            self._studies[arm].add_trial(trial)


def _arm(space: Space, trial: PlannedTrial) -> str:
    """Name of the trial's sampler: its values on all axes that are not searched."""
    rest = [
        f"{axis}={value}"
        for axis, value in trial.axes.items()
        if axis not in space.sampled and axis != "seed" and space.roles.get(axis) != "arm"
    ]
    return ", ".join([trial.arm, *rest])
