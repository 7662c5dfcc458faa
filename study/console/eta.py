"""How long a study will still take, from what its trials have needed so far. Pure functions."""

import heapq
import math
import statistics
from collections.abc import Sequence

from study.state.halving import HalvingRule
from study.state.trial_states import TrialRow

# A trial that nobody can time yet takes one worker start: imports, data, model.
START_SECONDS = 10.0


def pass_probability(competitors: float, rule: HalvingRule) -> float:
    """Chance that a trial passes a rung which `competitors` earlier trials reached, all ranks being alike."""
    if competitors < rule.min_competitors:
        return 1.0
    judged = round(competitors) + 1
    return math.ceil(judged / rule.reduction_factor) / judged


def expected_epochs(rows: Sequence[TrialRow], rule: HalvingRule) -> dict[str, float]:
    """Epochs that each trial is expected to run in all, before it is stopped or completes.

    Rungs that a trial has passed, and trials that have ended, count as they are.
    """
    expected: dict[str, float] = {}
    for arm in {row.trial.arm for row in rows}:
        reached = [0.0] * len(rule.fractions)
        for row in sorted((row for row in rows if row.trial.arm == arm), key=lambda row: row.trial.order):
            trial = row.trial
            done = max(row.reports, default=0)
            ended = row.state not in ("waiting", "running", "retrying")
            rungs = rule.rung_epochs(trial.config.epochs, trial.config.validate_every)
            total, alive, before = 0.0, 1.0, 0
            for rung, epoch in enumerate(rungs):
                if epoch is None:
                    continue
                total += alive * (epoch - before)
                before = epoch
                here = alive
                if not ended and done <= epoch:
                    alive *= pass_probability(reached[rung], rule)
                reached[rung] += here if not ended or done >= epoch else 0.0
            total += alive * (trial.config.epochs - before)
            expected[trial.trial_id] = float(done) if ended else max(total, float(done))
    return expected


def seconds_per_epoch(rows: Sequence[TrialRow]) -> dict[str, float]:
    """Mean epoch time of each arm, validated epochs or not; arms without a report yet take that of all.

    Returns:
        arm -> seconds, empty while there is no report at all.
    """
    by_arm: dict[str, list[float]] = {row.trial.arm: [] for row in rows}
    for row in rows:
        by_arm[row.trial.arm] += [report.seconds for report in row.reports.values()]
    everything = [seconds for times in by_arm.values() for seconds in times]
    if not everything:
        return {}
    return {arm: statistics.fmean(times or everything) for arm, times in by_arm.items()}


def seconds_left(
    rows: Sequence[TrialRow],
    rule: HalvingRule,
    *,
    concurrent: int,
    unproposed: int = 0,
    start_seconds: float = START_SECONDS,
) -> float | None:
    """Expected wall time until the last trial ends; None while no epoch was timed.

    The open trials are dealt, in order, to `concurrent` places, as Ray does; then `unproposed` more, which a
    search has yet to propose, each as long as the mean of the known ones.
    """
    pace = seconds_per_epoch(rows)
    if not pace:
        return None
    expected = expected_epochs(rows, rule)
    places: list[float] = [0.0] * max(1, concurrent)
    open_rows = [row for row in rows if row.state in ("waiting", "running", "retrying")]
    # Running trials hold their places already.
    for row in sorted(open_rows, key=lambda row: (row.state == "waiting", row.trial.order)):
        remaining = max(0.0, expected[row.trial.trial_id] - max(row.reports, default=0))
        starting = 0.0 if row.reports and row.state != "waiting" else start_seconds
        free = heapq.heappop(places)
        heapq.heappush(places, free + starting + remaining * pace[row.trial.arm])
    whole = statistics.fmean(expected[row.trial.trial_id] * pace[row.trial.arm] for row in rows)
    for _ in range(unproposed):
        heapq.heappush(places, heapq.heappop(places) + start_seconds + whole)
    return max(places)


def in_words(seconds: float) -> str:
    """A duration as people say it: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
