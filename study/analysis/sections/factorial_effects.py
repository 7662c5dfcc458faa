"""The effect of each regularizer averaged over the others, in each arm and between the arms.

Every factor is estimated for four responses, each with its own pooled error, so that arms of different spread
never lend each other precision:

- `raw` and `pre-trained`: the two arms.
- `both arms`: their mean, which has the smallest error.
- `raw − pre-trained`: how much more a factor helps raw, paired by setting and seed. This is the study's
  question; a factor that helps both arms alike does not replace pre-training.
"""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from segstrat.formatting import join_words, setting_label
from study.analysis.answering.stages import design_of
from study.analysis.cells import tuned_contexts
from study.analysis.scores import TrialValues, trial_values
from study.analysis.sections.factorial_fit import (
    MOST_LEVELS,
    Factor,
    FactorialDesign,
    Kind,
    PooledError,
    fit_factorial,
    holm,
)
from study.analysis.study import Context, Study

RAW, PRETRAINED = "raw", "pre-trained"
BOTH, DIFFERENCE = "both arms", "raw − pre-trained"
Row = Mapping[Hashable, Any]
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class FactorialEffects:
    """Main effects and two-way interactions of one context.

    Args:
        context: label of the context; empty where the study has one.
        table: a row per response × effect: `response` and the columns of `factorial.COLUMNS`,
            in shares of mIoU; `adjusted_p` is Holm's over the effects of one response and kind in all
            contexts of the task.
        survivors: the same without diverged trials; None where none diverged.
        errors: the pooled error of each response and kind.
        used: the value of each trial, and at which epoch it was read.
        seeds: seeds on which every combination was planned.
    """

    task: str
    context: str
    factors: Sequence[Factor]
    table: pd.DataFrame
    survivors: pd.DataFrame | None
    errors: Mapping[tuple[str, Kind], PooledError]
    used: TrialValues
    seeds: tuple[int, ...]

    @property
    def responses(self) -> list[str]:
        """The responses that the context has, in the order of the table."""
        return list(dict.fromkeys(self.table["response"]))

    def to_dict(self) -> dict[str, Any]:
        """As `verdict.json` holds them; sizes in shares of mIoU."""
        numbers = ("estimate", "low", "high", "p", "adjusted_p")
        return {
            "task": self.task,
            "context": self.context,
            "sentences": effect_sentences(self),
            "seeds": list(self.seeds),
            "epochs": self.used.when,
            "errors": {
                f"{response}, {kind}": {"sd": error.sd, "degrees": error.degrees, "source": error.source}
                for (response, kind), error in self.errors.items()
            },
            "effects": [
                {"response": row["response"], "kind": row["kind"], "effect": effect_label(row)}
                | {name: row[name] for name in numbers}
                | {"shown": bool(row["adjusted_p"] < SIGNIFICANT)}
                for row in self.table.to_dict("records")
            ],
        }


def factorial_effects(study: Study, task: str) -> list[FactorialEffects]:
    """Effects of every context of a task whose trials are a full grid of at least two settings.

    Returns:
        empty where the treatments were drawn from distributions, or nothing is varied. The effects in the raw
        arm are left out where a single axis is varied and an answering stage compares its values.
    """
    found = [_context_effects(study, context) for context in tuned_contexts(study, task)]
    effects = [each for each in found if each is not None]
    _adjust([each.table for each in effects])
    _adjust([each.survivors for each in effects if each.survivors is not None])
    return effects


def context_factors(context: Context) -> list[Factor]:
    """The varied strategies of a context, the weakest level of each first."""
    factors = []
    for axis in context.strategies:
        levels = context.trials[axis].dropna().unique()
        ordered = sorted(levels, key=lambda level: (str(level).count("+"), level))
        if len(ordered) > 1:
            factors.append(Factor(axis, tuple(ordered)))
    return factors


def _context_effects(study: Study, context: Context) -> FactorialEffects | None:
    factors = context_factors(context)
    if not factors or any(len(factor.levels) > MOST_LEVELS for factor in factors):
        return None
    seeds = _complete_seeds(context, factors)
    if not seeds:
        return None
    used = trial_values(study, context)
    table, errors = _responses(context, used.values, factors, seeds)
    if len(factors) == 1 and not any(error.known for error in errors.values()):
        # One axis on one seed is a list of differences, which the table of cells shows already.
        return None
    survivors = None
    if used.counts.get("diverged"):
        survivors, _ = _responses(
            context, trial_values(study, context, survivors=True).values, factors, seeds
        )
    if len(factors) == 1 and design_of(study) is not None:
        # What the axis does in the raw arm is the verdict's own contrast, there on more seeds, on other
        # images and with all looks accounted for. A second estimate could contradict it.
        table = table[table["response"] != RAW].reset_index(drop=True)
        if survivors is not None:
            survivors = survivors[survivors["response"] != RAW].reset_index(drop=True)
        errors = {key: error for key, error in errors.items() if key[0] != RAW}
        if table.empty:
            return None
    return FactorialEffects(
        context.task, context.label, factors, table, survivors, errors, used, tuple(seeds)
    )


def _complete_seeds(context: Context, factors: Sequence[Factor]) -> list[int]:
    """Seeds on which every combination of the factors was planned in every arm.

    Further seeds, on which only candidates were trained, are left out: their cells were selected.
    """
    axes = [factor.axis for factor in factors]
    arms = context.trials["pretrained"].nunique()
    wanted = arms * len(list(itertools.product(*(factor.levels for factor in factors))))
    planned = context.trials.drop_duplicates(["seed", "pretrained", *axes]).groupby("seed").size()
    return [int(str(seed)) for seed, count in planned.items() if count == wanted]


def _responses(
    context: Context, values: pd.Series, factors: Sequence[Factor], seeds: Sequence[int]
) -> tuple[pd.DataFrame, dict[tuple[str, Kind], PooledError]]:
    """The effects on every response: the table, and the pooled errors by response and kind."""
    trials = context.trials.assign(value=values)
    trials = trials[trials["seed"].isin(seeds)]
    keys = [factor.axis for factor in factors] + ["seed"]
    by_arm = trials.pivot_table(index=keys, columns="pretrained", values="value", dropna=False)
    arms = {bool(arm): by_arm[arm] for arm in by_arm.columns}
    responses = {PRETRAINED if arm else RAW: arms[arm] for arm in sorted(arms)}
    if len(arms) == 2:
        responses = {
            BOTH: (arms[False] + arms[True]) / 2,
            **responses,
            DIFFERENCE: arms[False] - arms[True],
        }
    tables = []
    errors: dict[tuple[str, Kind], PooledError] = {}
    designs: dict[bytes, FactorialDesign] = {}
    for name, response in responses.items():
        fit = fit_factorial(response.rename("value").reset_index(), factors, designs)
        tables.append(fit.table.assign(response=name))
        errors |= {(name, kind): error for kind, error in fit.errors.items()}
    return pd.concat(tables, ignore_index=True), errors


def _adjust(tables: Sequence[pd.DataFrame]) -> None:
    """Holm's adjustment over all contexts, for each response and kind; writes into the tables."""
    if not tables:
        return
    together = pd.concat(tables, ignore_index=True)
    for _, group in together.groupby(["response", "kind"]):
        together.loc[group.index, "adjusted_p"] = holm(group["p"].to_numpy(float))
    start = 0
    for table in tables:
        table["adjusted_p"] = together["adjusted_p"].iloc[start : start + len(table)].to_numpy()
        start += len(table)


def effect_label(row: Row) -> str:
    """`dropout 0.2`, or `dropout 0.2 × weight decay 5e-3` for an interaction."""
    label = setting_label({str(row["axis"]): row["level"]})
    if row["kind"] == "main":
        return label
    return f"{label} × {setting_label({str(row['other_axis']): row['other_level']})}"


def effect_sentences(effects: FactorialEffects) -> list[str]:
    """What is shown, what is not, and how the error was pooled."""
    main = effects.table[effects.table["kind"] == "main"]
    sentences = [_baseline(effects)]
    single = effects.responses[0] if len(effects.responses) == 1 else RAW
    for response, opening in (
        (BOTH, "Averaged over both arms"),
        (single, f"In the {single} arm"),
        (DIFFERENCE, "More for raw than for pre-trained"),
    ):
        rows = main[main["response"] == response].to_dict("records")
        if rows and effects.errors[response, "main"].known:
            sentences.append(f"{opening}: {_shown(rows)}")
    pairs = effects.table[(effects.table["kind"] == "interaction") & (effects.table["response"] != BOTH)]
    crossed = [row for row in pairs.to_dict("records") if row["adjusted_p"] < SIGNIFICANT]
    if crossed:
        words = [f"{effect_label(row)} in {row['response']} ({_interval(row)})" for row in crossed]
        sentences.append(f"Interactions shown: {join_words(words)}.")
    if effects.survivors is not None:
        count = effects.used.counts["diverged"]
        trials = "1 trial diverged and counts" if count == 1 else f"{count} trials diverged and count"
        sentences.append(
            f"{trials} with the score of the best constant prediction. That dominates effects and error; a "
            "second table leaves diverged trials out."
        )
    return sentences


def _baseline(effects: FactorialEffects) -> str:
    weakest = [setting_label({factor.axis: factor.levels[0]}) for factor in effects.factors]
    seeds = len(effects.seeds)
    when = "" if effects.used.final else f" Values are read {effects.used.when}: they are interim values."
    error = effects.errors[effects.responses[0], "main"]
    source = f"error pooled from {error.source} ({error.degrees} degrees of freedom)"
    if not error.known:
        source = (
            f"no intervals: {error.source} leave {error.degrees} degrees of freedom, so more seeds are needed"
        )
    averaged = ", each averaged over the levels of the other factors" if len(weakest) > 1 else ""
    return (
        f"Differences from {join_words(weakest)}{averaged}; {seeds} seed{'s' * (seeds > 1)}, {source}.{when}"
    )


def _shown(rows: Sequence[Row]) -> str:
    """`shown: …; not shown: …` of main effects."""
    found = [f"{effect_label(row)} ({_interval(row)})" for row in rows if row["adjusted_p"] < SIGNIFICANT]
    others = len(rows) - len(found)
    if not found:
        return "not shown." if others == 1 else f"none of {others} effects is shown."
    rest = f"; {others} other{'s' * (others > 1)} {'are' if others > 1 else 'is'} not shown" if others else ""
    return f"{join_words(found)}{rest}."


def _interval(row: Row) -> str:
    middle, low, high = (f"{100 * row[key]:+.1f}".replace("-", "−") for key in ("estimate", "low", "high"))
    return f"{middle} points, 95 % interval {low} to {high}"
