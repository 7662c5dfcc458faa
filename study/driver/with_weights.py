"""What happens to trials just before they start: weights are made, sent to the nodes, and recorded."""

from collections.abc import Callable, Sequence

from segstrat.parallel import cpu_cores
from segstrat.store import Store
from study.driver.weights import Weights
from study.planning.trials import PlannedTrial
from study.state.changes import accepted_changes
from study.state.manifest import ManifestFile
from study.state.shared_weights import share_weights


def with_weights(
    trials: Sequence[PlannedTrial],
    weights: Weights,
    manifest: ManifestFile,
    *,
    share_in: Store | None,
    at_once: int,
    threads: int,
    on_tick: Callable[[], None],
) -> list[PlannedTrial]:
    """The trials with weights that exist.

    Nothing is recorded before the weights are complete: a study that is killed here proposes the same trials
    again, and the pre-trainings continue after their last complete epoch.

    Args:
        share_in: the study's folder, where other nodes get weights from; None for a study on one machine.
        at_once: pre-trainings at the same time, at most one per core or GPU of this machine.
        threads: CPU threads of each: as many as a trial has, so that the weights do not depend on how many
            run at once.
        on_tick: see `Weights.place`.
    """
    slots = min(at_once, cpu_cores())
    placed = weights.place(trials, at_once=slots, threads=threads, on_tick=on_tick)
    if share_in is not None:
        share_weights(share_in, [trial.config for trial in placed])
    content = manifest.content
    if words := weights.take_accepted():
        manifest.update(accepted=accepted_changes(content, content, words))
    manifest.put_trials(placed, weights=weights.describe())
    return placed
