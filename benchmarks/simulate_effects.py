"""What factorial effects find, and how often wrongly: `uv run python -m benchmarks.simulate_effects`.

Simulated studies have known effects on validation mIoU, in points. Each is analysed as a real one. Tables
are printed as markdown; docs/reading-results.md shows them. Everything is seeded.
"""

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis.effects import BOTH, DIFFERENCE, RAW, factorial_effects
from study.analysis.factorial import Factor, fit_factorial
from study.analysis.study import Study

POINT = 0.01
LETTERS = "abcd"
TWO_LEVELS = dict.fromkeys(LETTERS, (0.0, 1.0))
THREE_LEVELS = {"a": (0.0, 1.0), "b": (0.0, 1.0, 2.0), "c": (0.0, 1.0, 2.0)}
Noise = Callable[[np.random.Generator, int], np.ndarray]


def normal(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(size=size)


def skewed(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.exponential(size=size) - 1


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Effects in points, on top of 25 % mIoU for raw and 34 % for pre-trained.

    Args:
        both, raw_only: effect of the second level of each factor (linear in further levels).
        crossed: extra effect where several factors are all at their second level.
        sd: seed standard deviation of raw and of pre-trained.
        by_seed: standard deviation, over seeds, of each factor's effect.
    """

    name: str
    both: Mapping[str, float] = field(default_factory=dict)
    raw_only: Mapping[str, float] = field(default_factory=dict)
    crossed: Mapping[str, float] = field(default_factory=dict)
    sd: tuple[float, float] = (1.0, 1.0)
    noise: Noise = normal
    by_seed: float = 0.0


def simulate(
    truth: Truth, axes: Mapping[str, Sequence[float]], seeds: int, rng: np.random.Generator
) -> Study:
    """A finished study, all trials completed."""
    rows = []
    for seed in range(seeds):
        shift, tilt = rng.normal(), truth.by_seed * rng.normal(size=(2, len(axes)))
        for pretrained, *levels in itertools.product((False, True), *axes.values()):
            cell = dict(zip(axes, levels, strict=True))
            points = shift + 9 * pretrained + tilt[int(pretrained)] @ levels
            points += sum(size * cell[axis] for axis, size in truth.both.items())
            points += sum(size * cell[axis] for axis, size in truth.raw_only.items() if not pretrained)
            points += sum(size * np.prod([cell[a] for a in group]) for group, size in truth.crossed.items())
            rows.append(cell | {"seed": seed, "pretrained": pretrained, "points": points})
    frame = pd.DataFrame(rows)
    sd = np.where(frame["pretrained"], truth.sd[1], truth.sd[0])
    frame["last_semseg_val_miou"] = 0.25 + POINT * (frame["points"] + sd * truth.noise(rng, len(frame)))
    facts = {"tasks": "semseg", "multi_task": False, "status": "completed"}
    roles = {"pretrained": "arm"} | dict.fromkeys(axes, "treatment")
    return Study(
        "simulated", {"roles": roles, "metric": "semseg_val_miou"}, frame.assign(**facts), pd.DataFrame()
    )


def lenth(contrasts: np.ndarray) -> float:
    """Lenth's pseudo standard error of unreplicated contrasts (1989)."""
    size = np.abs(contrasts)
    first = 1.5 * np.median(size)
    return float(1.5 * np.median(size[size < 2.5 * first]))


def compare_errors(truth: Truth, repetitions: int) -> dict[str, tuple[float, float]]:
    """One seed, one arm, 2⁴: share of repetitions in which factor `a`, and in which `d`, is called real."""
    factors = [Factor(axis, (0.0, 1.0)) for axis in LETTERS]
    found = {"all interactions": [0, 0], "three and more factors": [0, 0], "Lenth": [0, 0]}
    rng = np.random.default_rng(0)
    signs = np.array(list(itertools.product((-1, 1), repeat=4)))
    groups = [list(g) for size in range(1, 5) for g in itertools.combinations(range(4), size)]
    columns = np.stack([signs[:, group].prod(axis=1) for group in groups], axis=1)
    for _ in range(repetitions):
        study = simulate(truth, TWO_LEVELS, 1, rng)
        raw = study.trials[~study.trials["pretrained"]].rename(columns={"last_semseg_val_miou": "value"})
        fit = fit_factorial(raw, factors)
        main = fit.table[fit.table["kind"] == "main"].set_index("axis")
        estimates = main["estimate"][["a", "d"]].to_numpy(float)
        error = fit.errors["interaction"]
        pure = 2 * error.sd / np.sqrt(len(raw)) * stats.t.ppf(0.975, error.degrees)
        contrasts = raw["value"].to_numpy() @ columns / 8
        limits = {
            "all interactions": (main["high"] - main["low"])[["a", "d"]].to_numpy(float) / 2,
            "three and more factors": np.array([pure, pure]),
            "Lenth": np.full(2, lenth(contrasts) * stats.t.ppf(0.975, len(contrasts) / 3)),
        }
        for name, limit in limits.items():
            for index in range(2):
                found[name][index] += int(abs(estimates[index]) > limit[index])
    return {name: (hits[0] / repetitions, hits[1] / repetitions) for name, hits in found.items()}


def judge_study(
    truth: Truth, axes: Mapping[str, Sequence[float]], seeds: int, repetitions: int
) -> dict[str, dict[str, float]]:
    """By response: how often `a` is found, how often any other main effect is, and coverage of intervals."""
    responses = (RAW, BOTH, DIFFERENCE)
    keys = ("interval", "Holm", "false single", "false Holm", "main coverage", "interaction coverage")
    totals = {name: dict.fromkeys(keys, 0.0) for name in responses}
    rng = np.random.default_rng(seeds)
    for _ in range(repetitions):
        (effects,) = factorial_effects(simulate(truth, axes, seeds, rng), "semseg")
        for name in responses:
            table = effects.table[effects.table["response"] == name]
            expected = POINT * np.array(
                [_expected(truth, name, row, axes) for row in table.to_dict("records")]
            )
            main = (table["kind"] == "main").to_numpy()
            active = main & (table["axis"] == "a").to_numpy() & (table["level"] == 1.0).to_numpy()
            null = main & (expected == 0)
            excluded = ((table["low"] > 0) | (table["high"] < 0)).to_numpy()
            significant = (table["adjusted_p"] < 0.05).to_numpy()
            holds = ((table["low"] <= expected) & (expected <= table["high"])).to_numpy()
            sums = totals[name]
            sums["interval"] += float(excluded[active].mean())
            sums["Holm"] += float(significant[active].mean())
            sums["false single"] += float(excluded[null].mean()) if null.any() else 0.0
            sums["false Holm"] += float(significant[null].any())
            sums["main coverage"] += float(holds[main].mean())
            sums["interaction coverage"] += float(holds[~main].mean())
    return {name: {key: value / repetitions for key, value in sums.items()} for name, sums in totals.items()}


def _expected(
    truth: Truth, response: str, row: Mapping[str, object], axes: Mapping[str, Sequence[float]]
) -> float:
    """The true effect, in points, that a row of the table estimates."""
    share = {RAW: 1.0, BOTH: 0.5, DIFFERENCE: 1.0}[response]
    level, other = float(str(row["level"])), row["other_level"]
    shared = 0.0 if response == DIFFERENCE else 1.0
    mean = {axis: float(np.mean(levels)) for axis, levels in axes.items()}
    total = 0.0
    if row["kind"] == "main":
        total += level * (shared * truth.both.get(str(row["axis"]), 0.0))
        total += level * share * truth.raw_only.get(str(row["axis"]), 0.0)
    for group, size in truth.crossed.items():
        named = {str(row["axis"]): level}
        if row["kind"] == "interaction":
            named[str(row["other_axis"])] = float(str(other))
        if set(named) <= set(group):
            rest = np.prod([mean[axis] for axis in group if axis not in named])
            total += shared * size * float(np.prod(list(named.values())) * rest)
    return total


ONE_SEED = (
    Truth(name="no effect"),
    Truth(name="a: 1.5", both={"a": 1.5}),
    Truth(name="a: 1.5, a×b: 3", both={"a": 0.75}, crossed={"ab": 1.5}),
    Truth(name="a: 1.5, a×b×c: 4", both={"a": 0.5}, crossed={"abc": 4.0}),
    Truth(name="a: 1.5, b: 1.5, c: 3", both={"a": 1.5, "b": 1.5, "c": 3.0}),
)
STUDIES = (
    Truth(name="no effect"),
    Truth(name="a: 1.5 in both arms", both={"a": 1.5}),
    Truth(name="a: 1.5 in raw only", raw_only={"a": 1.5}),
    Truth(name="the same, pre-trained sd 0.4", raw_only={"a": 1.5}, sd=(1.0, 0.4)),
    Truth(name="the same, skewed noise", raw_only={"a": 1.5}, noise=skewed),
    Truth(name="the same, a×b: 1 in both arms", raw_only={"a": 1.5}, crossed={"ab": 1.0}),
    Truth(name="the same, effects vary over seeds by 0.5", raw_only={"a": 1.5}, by_seed=0.5),
)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def print_errors(repetitions: int) -> None:
    print("One seed, one arm, 2⁴, sd 1 point: a called real / an absent effect called real (95 % interval)\n")
    rows = []
    for truth in ONE_SEED:
        shares = compare_errors(truth, repetitions)
        rows.append([truth.name, *(f"{percent(a)} / {percent(d)}" for a, d in shares.values())])
    print_rows(["truth", "all interactions (used)", "three and more factors", "Lenth"], rows)


def print_studies(
    title: str, axes: Mapping[str, Sequence[float]], seeds: Sequence[int], repetitions: int
) -> None:
    print(
        f"{title}, sd 1 point: a found by its interval / by Holm; any false main effect of raw by "
        "Holm; coverage of the intervals of main effects and of interactions\n"
    )
    head = ["truth", "seeds", RAW, BOTH, DIFFERENCE, "any false (raw)", "coverage (raw)"]
    rows = []
    for truth in STUDIES:
        for count in seeds:
            found = judge_study(truth, axes, count, repetitions)
            power = [f"{percent(found[name]['interval'])} / {percent(found[name]['Holm'])}" for name in found]
            raw = found[RAW]
            coverage = f"{percent(raw['main coverage'])}, {percent(raw['interaction coverage'])}"
            rows.append([truth.name, str(count), *power, percent(raw["false Holm"]), coverage])
    print_rows(head, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate_effects", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=500)
    repetitions = parser.parse_args(arguments).repetitions
    print_errors(repetitions)
    print_studies("`regularizers` (2 arms × 2⁴)", TWO_LEVELS, (1, 2, 3), repetitions)
    print_studies("`dropout_wd` (2 arms × 2 × 3 × 3)", THREE_LEVELS, (1, 3), repetitions)


if __name__ == "__main__":
    main()
