"""What factorial effects and response surfaces say, in sentences."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from segstrat.formatting import format_value
from study.analysis.factors.effects import BOTH, DIFFERENCE, RAW, SIGNIFICANT, FactorialEffects
from study.analysis.factors.surface import ArmSurface, Estimate, ResponseSurfaces
from study.analysis.words.names import axis_name, join_words, setting_label

Row = Mapping[Hashable, Any]


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


def surface_sentences(surfaces: ResponseSurfaces) -> list[str]:
    """The maximum of each arm, where it may lie, what it gains, and where nothing is known."""
    sentences = [sentence for arm in surfaces.arms for sentence in _arm_sentences(arm)]
    if surfaces.remaining is not None:
        sentences.append(
            f"The maximum of pre-trained is {points_interval(surfaces.remaining)} above that of raw."
        )
    if not surfaces.used.final:
        sentences.append(f"Trials are compared {surfaces.used.when}: interim values, not final ones.")
    if surfaces.adaptive:
        sentences.append(
            "The points were chosen by a search from earlier outcomes. They crowd where values were high, so "
            "the surface is well determined there and extrapolates elsewhere."
        )
    return sentences


def points_interval(estimate: Estimate) -> str:
    """`7.3 points (95 % interval 4.7 to 10.1)`."""
    middle, low, high = (f"{100 * value:.1f}".replace("-", "−") for value in estimate)
    return f"{middle} points (95 % interval {low} to {high})"


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


def _rounded(value: float) -> str:
    return format_value(float(f"{value:.2g}"))


def _arm_sentences(arm: ArmSurface) -> list[str]:
    name = arm.arm.capitalize()
    lost = int((~arm.points["learned"]).sum()) if "learned" in arm.points else 0
    if arm.maximum is None or arm.location is None:
        return [f"{name}: {len(arm.points) - lost} points that learned are too few for a surface."]
    place = join_words([f"{axis_name(axis)} {_rounded(at[0])}" for axis, at in arm.location.items()])
    estimate, low, high = (f"{100 * value:.1f}" for value in arm.maximum)
    text = f"{name}: the fitted maximum is {estimate} % (95 % interval {low} to {high}) at {place}"
    if arm.gain is not None:
        text += f", {points_interval(arm.gain)} above the unregularized setting"
    sentences = [f"{text}."]
    ranges = join_words(
        [f"{axis_name(axis)} {_rounded(a)} to {_rounded(b)}" for axis, (_, a, b) in arm.location.items()]
    )
    sentences.append(
        f"It may lie in {100 * arm.plausible:.0f} % of the sampled region, within {ranges}. The points "
        f"enclose "
        f"{100 * arm.coverage:.0f} % of the box; beyond them the surface would extrapolate."
    )
    if arm.edges:
        names = join_words([axis_name(axis) for axis in arm.edges])
        sentences.append(
            f"The maximum is at the end of the sampled region in {names}, so the true one may lie outside."
        )
    if lost:
        sentences.append(
            f"{lost} point{'s' * (lost > 1)} did not learn and {'are' if lost > 1 else 'is'} left out."
        )
    return sentences
