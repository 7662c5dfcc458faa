"""Which cells the screening stage nominates for the answering stage.

Screening trains every cell to the end on its first seed, and the better half of each arm on further ones.
Its values are optimistic for the best cells, so they decide nothing but which candidates are trained again,
on fresh seeds. Missing the best pre-trained cell would make the gap look too easy to close, so every
pre-trained setting is nominated, and of the raw ones each that may be the best.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from segstrat.errors import UserError
from study.analysis.answering.decision import Roles
from study.analysis.answering.design import AnsweringDesign

# An arm nominates at least this many cells, if it has them.
FEWEST_CANDIDATES = 2


@dataclass(frozen=True)
class Nomination:
    """What screening nominates.

    Args:
        roles: reference and candidates, the best first.
        ranking: one row per cell, the best of each arm first: `cell setting pretrained completed reached
            score candidate`.
        spreads: of each arm (pre-trained or not): standard deviation of a trial's score about its cell and
            seed, of both arms together where that is larger, and its degrees of freedom; 0 if screening
            cannot tell.
    """

    roles: Roles
    ranking: pd.DataFrame
    spreads: Mapping[bool, tuple[float, int]]


def nominate(trials: pd.DataFrame, reference: str, design: AnsweringDesign | None = None) -> Nomination:
    """The cells of one context that may be the best of their arm.

    A cell's score is its effect in an additive model of cells and seeds, fitted to the arm's completed
    trials, so that a missing seed neither helps nor harms. Raw cells are nominated unless they trail the best
    of their arm (`design.trails`), up to `design.raw_candidates`. Pre-trained ones
    are all nominated, up to `design.pretrained_candidates`: most are trained only if the best of them does
    not stay ahead. Cells without a completed trial come last, ordered by how far they came: a value from
    the middle of a training never competes with a final one. A diverged trial ranks with the worst on its
    seed. Ties take the order of the rows.

    With a tuned axis, such as the learning rate, a setting competes at each of its values, and the reference
    and each pre-trained setting are nominated at each value that may be their best. If only the value that is
    best in screening were trained again, a reference at a wrong one would make regularization look helpful
    (docs/simulations.md).

    Args:
        trials: one row per screening trial: `cell` (label), `pretrained` (bool), `seed`, `status`, `value`
            (the last validation score that it showed), `reached` (share of its epochs that it trained); with
            a tuned axis also `setting` (label of what the value is chosen for).
        reference: setting of the raw cell without regularization; never a candidate.

    Raises:
        UserError: if an arm has no candidate or no trial of the reference is planned.
    """
    design = design or AnsweringDesign()
    references = trials["cell"].to_numpy(object)[(_settings(trials) == reference).to_numpy(bool)]
    if not len(references):
        raise UserError(f"no screening trial of the reference cell {reference}; a verdict needs one")
    ranking, spreads = _ranked(trials)
    cell, setting = (ranking[name].to_numpy(object) for name in ("cell", "setting"))
    arm, score = ranking["pretrained"].to_numpy(bool), ranking["score"].to_numpy(float)
    counts = ranking["completed"].to_numpy(float)
    is_reference, scored = setting == reference, np.isfinite(score)

    def plausible(rows: np.ndarray, most: int, fewest: int = FEWEST_CANDIDATES) -> list[int]:
        """Those rows of an arm, the best first, that may be the best: at most `most` of them."""
        deviation, degrees = spreads[bool(arm[rows[0]])]
        if not degrees:
            return list(rows[:most])
        completed = counts[rows].clip(min=1)
        errors = deviation * np.sqrt(1 / completed[0] + 1 / completed)
        trails = score[rows[0]] - score[rows]
        may_be = trails <= stats.t.isf(design.trails, degrees) * errors
        return list(rows[may_be | (np.arange(len(rows)) < fewest)][:most])

    raw, pretrained = (np.flatnonzero((arm == each) & ~is_reference & scored) for each in (False, True))
    for able, name in ((raw, "regularized raw"), (pretrained, "pre-trained")):
        if not len(able):
            raise UserError(f"screening left no {name} cell with a score; nothing can be answered")
    # The limit counts settings; each may have several values that may be its best.
    chosen_raw = plausible(raw, max(Counter(setting[raw]).values()) * design.raw_candidates)
    settings = list(dict.fromkeys(setting[pretrained]))[: design.pretrained_candidates]
    chosen_pretrained = sorted(
        row
        for each in settings
        for row in plausible(pretrained[setting[pretrained] == each], len(pretrained), fewest=1)
    )
    tuned = np.flatnonzero(is_reference & scored)
    if len(tuned):
        references = cell[plausible(tuned, design.reference_values)]
    roles = Roles(
        reference=str(references[0]),
        other_references=tuple(references[1:]) if len(tuned) else (),
        raw=tuple(cell[chosen_raw]),
        pretrained=tuple(cell[chosen_pretrained]),
    )
    ranking["candidate"] = np.isin(np.arange(len(ranking)), [*chosen_raw, *chosen_pretrained])
    return Nomination(roles, ranking, spreads)


def better_half(trials: pd.DataFrame, reference: str) -> list[str]:
    """The cells that a further screening seed trains: the better half of each arm, the best first.

    With a tuned axis these are the better half of the settings, each at its best value, and of each of them
    the better half of the values. The reference's value is chosen likewise.

    Args:
        trials: as for `nominate`; of the seeds so far.
    """
    ranking, _ = _ranked(trials)
    ranking = ranking[ranking["score"].notna()]
    settings = _best_of_settings(ranking[ranking["setting"] != reference])
    halves = [arm.head(math.ceil(len(arm) / 2)) for _, arm in settings.groupby("pretrained", sort=True)]
    chosen = [str(setting) for half in halves for setting in half["setting"]]
    tried = {str(setting): list(cells) for setting, cells in ranking.groupby("setting")["cell"]}
    # Without a tuned axis there is nothing to choose for the reference.
    chosen += [reference] if len(tried.get(reference, ())) > 1 else []
    return [str(cell) for setting in chosen for cell in tried[setting][: math.ceil(len(tried[setting]) / 2)]]


def best_values(trials: pd.DataFrame) -> pd.DataFrame:
    """Every setting at its best tuned values, ranked as by `nominate`.

    Args:
        trials: as for `nominate`.

    Returns:
        as `Nomination.ranking`, without `candidate`.
    """
    return _best_of_settings(_ranked(trials)[0])


def _best_of_settings(ranking: pd.DataFrame) -> pd.DataFrame:
    """The best cell of each setting: the choice of tuned values, by the same rule in both arms.

    Args:
        ranking: cells with their `setting`, the best of each arm first.
    """
    return ranking.drop_duplicates("setting").reset_index(drop=True)


def _ranked(trials: pd.DataFrame) -> tuple[pd.DataFrame, dict[bool, tuple[float, int]]]:
    """One row per cell, the best of each arm first; and the spreads of `Nomination`."""
    scored = trials["status"].isin(["completed", "stopped", "diverged"]).to_numpy(bool)
    columns = {name: trials[name].to_numpy()[scored] for name in ("cell", "seed", "status", "reached")}
    columns["value"] = trials["value"].to_numpy(float)[scored]
    pretrained = trials["pretrained"].to_numpy(bool)[scored]
    rows: list[tuple[str, bool, int, float, float]] = []
    fits: dict[bool, tuple[float, int]] = {False: (0.0, 0), True: (0.0, 0)}
    for arm in (False, True):
        arm_columns = {name: column[pretrained == arm] for name, column in columns.items()}
        if len(arm_columns["cell"]):
            cells, squares, degrees = _arm_ranking(arm_columns)
            fits[arm] = squares, degrees
            rows += [(cell, arm, completed, reached, score) for cell, completed, reached, score in cells]
    ranking = pd.DataFrame(rows, columns=["cell", "pretrained", "completed", "reached", "score"])
    ranking.insert(
        1, "setting", ranking["cell"].map(dict(zip(trials["cell"], _settings(trials), strict=True)))
    )
    return ranking, {arm: _spread(fits[arm], fits[not arm]) for arm in fits}


def _spread(own: tuple[float, int], other: tuple[float, int]) -> tuple[float, int]:
    """The spread of an arm and its degrees of freedom: its own, or that of both arms where that is larger.

    Screening leaves an arm two or three degrees of freedom, so that its own spread is often far too small.

    Args:
        own, other: residual sum of squares and degrees of freedom of each arm.
    """
    both = own[0] + other[0], own[1] + other[1]
    squares, degrees = max((own, both), key=lambda fit: fit[0] / fit[1] if fit[1] else 0.0)
    return (math.sqrt(squares / degrees), degrees) if degrees and squares > 0 else (math.nan, 0)


def _settings(trials: pd.DataFrame) -> pd.Series:
    """The setting of each trial; without a tuned axis it is the cell."""
    return trials["setting"] if "setting" in trials else trials["cell"]


def _arm_ranking(
    arm: Mapping[str, np.ndarray],
) -> tuple[list[tuple[str, int, float, float]], float, int]:
    """Ranks the cells of one arm.

    Args:
        arm: columns of the arm's trials.

    Returns:
        `(cell, completed trials, share of the epochs, score)`, the best first; residual sum of squares of
        the additive fit and its degrees of freedom.
    """
    values = np.array(arm["value"], dtype=float)
    diverged = arm["status"] == "diverged"
    # On its seed a diverged trial stands with the worst that its arm showed there.
    for trial in np.flatnonzero(diverged):
        others = values[(arm["seed"] == arm["seed"][trial]) & ~diverged & np.isfinite(values)]
        values[trial] = others.min() if len(others) else np.nan
    if np.isfinite(values).any():
        values = np.where(diverged & ~np.isfinite(values), np.nanmin(values), values)
    ended = ((arm["status"] == "completed") | diverged) & np.isfinite(values)
    effects, squares, degrees = _additive_fit(values[ended], arm["cell"][ended], arm["seed"][ended])
    rows = []
    for cell in dict.fromkeys(arm["cell"]):
        own = arm["cell"] == cell
        completed = int((own & ended).sum())
        reached = 1.0 if completed else float(np.mean(arm["reached"][own].astype(float)))
        rows.append((str(cell), completed, reached, effects.get(str(cell), float(values[own].mean()))))
    rows.sort(key=lambda row: (-row[2], -row[3] if math.isfinite(row[3]) else math.inf))
    return rows, squares, degrees


def _additive_fit(
    values: np.ndarray, cells: np.ndarray, seeds: np.ndarray
) -> tuple[dict[str, float], float, int]:
    """Least-squares effects of cells, next to effects of seeds that sum to 0.

    Args:
        values, cells, seeds: one entry per trial.

    Returns:
        effect by cell, residual sum of squares, residual degrees of freedom.
    """
    if not len(values):
        return {}, 0.0, 0
    names, cell_index = np.unique(cells.astype(str), return_inverse=True)
    seed_names, seed_index = np.unique(seeds, return_inverse=True)
    design = np.zeros((len(values), len(names) + len(seed_names)))
    design[np.arange(len(values)), cell_index] = 1
    design[np.arange(len(values)), len(names) + seed_index] = 1
    # Least squares of the smallest norm, with effects measured from the mean.
    centre = values.mean()
    effects, *_ = np.linalg.lstsq(design, values - centre, rcond=None)
    residuals = values - centre - design @ effects
    degrees = len(values) - int(np.linalg.matrix_rank(design))
    seed_level = effects[len(names) :].mean()
    found = {
        str(name): float(effect + seed_level + centre)
        for name, effect in zip(names, effects[: len(names)], strict=True)
    }
    return found, float(residuals @ residuals), degrees
