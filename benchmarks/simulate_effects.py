"""What factorial effects find, and how often wrongly: `python -m benchmarks.simulate_effects`.

Simulated studies have known effects on validation mIoU, in points. Values are analysed by the design that the
report uses (`study.analysis.sections.factorial_fit`). Tables are printed as markdown and shown in
docs/reading-results.md. Everything is seeded.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis.sections.factorial_effects import BOTH, DIFFERENCE, PRETRAINED, RAW, SIGNIFICANT
from study.analysis.sections.factorial_fit import Factor, factorial_design, holm

Axes = Mapping[str, Sequence[float]]
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
TWO_LEVELS: Axes = dict.fromkeys("abcd", (0.0, 1.0))
THREE_LEVELS: Axes = {"a": (0.0, 1.0), "b": (0.0, 1.0, 2.0), "c": (0.0, 1.0, 2.0)}
ARMS = (RAW, PRETRAINED)
RESPONSES = (RAW, BOTH, DIFFERENCE)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.exponential(size=shape) - 1


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Effects in points.

    Args:
        both, raw_only: effect of a factor per unit of its level.
        crossed: in both arms, effect of the product of several factors.
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


def grid(axes: Axes, seeds: int) -> pd.DataFrame:
    """The trials of one arm."""
    cells = pd.DataFrame(list(itertools.product(*axes.values())), columns=list(axes))
    return pd.concat([cells.assign(seed=seed) for seed in range(seeds)], ignore_index=True)


def simulate(
    truth: Truth, trials: pd.DataFrame, axes: Axes, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Values of every response, in points (trials,)."""
    levels = trials[list(axes)].to_numpy(float)
    seed = trials["seed"].to_numpy()
    values = {}
    for arm, sd in zip(ARMS, truth.sd, strict=True):
        shift = rng.normal(size=seed.max() + 1)[seed]
        tilt = truth.by_seed * rng.normal(size=(seed.max() + 1, len(axes)))
        noise = sd * truth.noise(rng, (len(trials),))
        values[arm] = _mean(truth, trials, arm) + shift + (tilt[seed] * levels).sum(axis=1) + noise
    return _responses(values)


def true_effects(truth: Truth, trials: pd.DataFrame, axes: Axes) -> dict[str, np.ndarray]:
    """The effects in values without noise, by response, in the order of the design."""
    design = factorial_design(trials, [Factor(axis, tuple(levels)) for axis, levels in axes.items()])
    clean = _responses({arm: _mean(truth, trials, arm) for arm in ARMS})
    return {
        name: np.concatenate([m.weights @ y for m in design.models.values()]) for name, y in clean.items()
    }


def _mean(truth: Truth, trials: pd.DataFrame, arm: str) -> np.ndarray:
    total = np.zeros(len(trials))
    for effects in (truth.both, truth.raw_only if arm == RAW else {}):
        for axis, size in effects.items():
            total += size * trials[axis].to_numpy()
    for group, size in truth.crossed.items():
        total += size * trials[list(group)].to_numpy().prod(axis=1)
    return total


def _responses(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    raw, pretrained = (values[arm] for arm in ARMS)
    return {RAW: raw, BOTH: (raw + pretrained) / 2, DIFFERENCE: raw - pretrained}


def lenth_limit(contrasts: np.ndarray) -> float:
    """Limit of a single effect by Lenth's pseudo standard error of unreplicated contrasts (1989)."""
    size = np.abs(contrasts)
    first = 1.5 * np.median(size)
    error = 1.5 * np.median(size[size < 2.5 * first])
    return float(error * stats.t.ppf(0.975, len(contrasts) / 3))


def compare_errors(truth: Truth, repetitions: int) -> dict[str, tuple[float, float]]:
    """One seed, one arm, 2⁴: shares of repetitions in which factor `a`, and in which `d`, is called real."""
    trials = grid(TWO_LEVELS, 1)
    design = factorial_design(trials, [Factor(axis, (0.0, 1.0)) for axis in TWO_LEVELS])
    signs = 2 * trials[list(TWO_LEVELS)].to_numpy() - 1
    groups = [list(g) for size in range(1, 5) for g in itertools.combinations(range(4), size)]
    columns = np.stack([signs[:, group].prod(axis=1) for group in groups], axis=1)
    rng = np.random.default_rng(0)
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for _ in range(repetitions):
        y = simulate(truth, trials, TWO_LEVELS, rng)[RAW]
        main, _ = design.models["main"].estimates(y)
        _, error = design.models["interaction"].estimates(y)
        limits = {
            "all interactions": (main["high"] - main["low"])[0] / 2,
            "three and more factors": error.sd / 2 * stats.t.ppf(0.975, error.degrees),
            "Lenth": lenth_limit(y @ columns / 8),
        }
        for name, limit in limits.items():
            found[name].append(np.abs(main["estimate"][[0, 3]]) > limit)
    return {name: tuple(np.mean(hits, axis=0)) for name, hits in found.items()}


def judge_study(truth: Truth, axes: Axes, seeds: int, repetitions: int) -> dict[str, dict[str, float]]:
    """By response: how often `a` is found, how often any other main effect, and coverage of the intervals."""
    trials = grid(axes, seeds)
    factors = [Factor(axis, tuple(levels)) for axis, levels in axes.items()]
    models = factorial_design(trials, factors).models
    expected = true_effects(truth, trials, axes)
    main_effects = len(models["main"].weights)
    sums: dict[str, defaultdict[str, float]] = {name: defaultdict(float) for name in RESPONSES}
    rng = np.random.default_rng(seeds)
    for _ in range(repetitions):
        for name, y in simulate(truth, trials, axes, rng).items():
            main, _ = models["main"].estimates(y)
            crossed, _ = models["interaction"].estimates(y)
            true = expected[name][:main_effects]
            null = np.abs(true) < 1e-9
            significant = holm(main["p"]) < SIGNIFICANT
            total = sums[name]
            # The first effect is that of `a`.
            total["interval"] += float(main["low"][0] > 0 or main["high"][0] < 0)
            total["Holm"] += float(significant[0])
            total["false Holm"] += float(significant[null].any())
            total["main coverage"] += _held(main, true)
            total["interaction coverage"] += _held(crossed, expected[name][main_effects:])
    return {name: {key: value / repetitions for key, value in total.items()} for name, total in sums.items()}


def _held(numbers: Mapping[str, np.ndarray], true: np.ndarray) -> float:
    return float(((numbers["low"] <= true) & (true <= numbers["high"])).mean())


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
    Truth(name="the same, b×c: 1 in both arms", raw_only={"a": 1.5}, crossed={"bc": 1.0}),
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
    print("One seed, one arm, 2⁴, sd 1 point: `a` called real / `d`, which has no effect, called real\n")
    rows = []
    for truth in ONE_SEED:
        shares = compare_errors(truth, repetitions)
        rows.append([truth.name, *(f"{percent(a)} / {percent(d)}" for a, d in shares.values())])
    print_rows(["truth", "all interactions (used)", "three and more factors", "Lenth"], rows)


def print_studies(title: str, axes: Axes, seeds: Sequence[int], repetitions: int) -> None:
    print(
        f"{title}, sd 1 point: `a` found by its interval / by Holm; any false main effect of raw by Holm; "
        "coverage of the intervals of main effects and of interactions\n"
    )
    head = ["truth", "seeds", *RESPONSES, "any false (raw)", "coverage (raw)"]
    rows = []
    for truth, count in itertools.product(STUDIES, seeds):
        found = judge_study(truth, axes, count, repetitions)
        power = [f"{percent(found[name]['interval'])} / {percent(found[name]['Holm'])}" for name in RESPONSES]
        raw = found[RAW]
        coverage = f"{percent(raw['main coverage'])}, {percent(raw['interaction coverage'])}"
        rows.append([truth.name, str(count), *power, percent(raw["false Holm"]), coverage])
    print_rows(head, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate_effects", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args(arguments).repetitions
    print_errors(repetitions)
    print_studies("`regularizers` (2 arms × 2⁴)", TWO_LEVELS, (1, 2, 3), repetitions)
    print_studies("`dropout_wd` (2 arms × 2 × 3 × 3)", THREE_LEVELS, (1, 3), repetitions)


if __name__ == "__main__":
    main()
