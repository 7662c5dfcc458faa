"""`optuna.db` in the study's folder, for Optuna's own tools: one Optuna study per arm."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from segstrat.records import Stage
from segstrat.store import Store, say_once
from study.planning.space import Space
from study.search.optuna import TRIAL_ID, as_optuna_trial, by_sampler, sampler_name, was_drawn
from study.state.trial_states import TrialState

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
