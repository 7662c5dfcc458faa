"""Runs the trials of a study under Ray Tune, which starts, places, retries and ends their processes."""

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from study.on_ray.adapters import ArmFairASHA, LedgerCallback, SearchAdapter, trial_id_of
from study.on_ray.trainable import SegmentationTrial
from study.search.base import Search
from study.state.trial_states import Ledger


def run_trials(
    ledger: Ledger,
    search: Search,
    settings: Mapping[str, Any],
    *,
    expected_concurrent: int,
    max_concurrent: int | None = None,
    max_retries: int = 2,
    reuse_actors: bool = True,
    on_tick: Callable[[], None] = lambda: None,
    trial_class: type[SegmentationTrial] = SegmentationTrial,
) -> None:
    """Runs until the search has no more trials, all have ended, or `on_tick` raises.

    Ray must be initialized.

    Args:
        settings: what every worker needs besides its trial, see `SegmentationTrial`.
        expected_concurrent: trials that fit now; so many workers are started at the same time.
        max_concurrent: trials that may run at the same time; None: as many as fit, also on later nodes.
        max_retries: how often in a row, without an epoch gained, a trial whose process fails is taken up
            again from its last checkpoint.
        reuse_actors: let a process run one trial after the other.
    """
    # Tune asks a search for one trial at a time unless told otherwise; starting a worker takes seconds.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(expected_concurrent)
    with tempfile.TemporaryDirectory(prefix="segstrat-tune-") as scratch:
        # What Tune itself writes is thrown away: nothing is ever restored from it.
        tuner = tune.Tuner(
            trial_class,
            tune_config=tune.TuneConfig(
                search_alg=SearchAdapter(search, settings),
                scheduler=ArmFairASHA(ledger),
                num_samples=-1,
                max_concurrent_trials=max_concurrent,
                reuse_actors=reuse_actors,
                trial_name_creator=trial_id_of,
                trial_dirname_creator=trial_id_of,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=max_retries),
                callbacks=[LedgerCallback(ledger, max_retries, on_tick)],
                verbose=0,
            ),
        )
        tuner.fit()
