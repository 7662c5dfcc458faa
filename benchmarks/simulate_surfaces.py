"""What response surfaces promise, and what holds: `uv run python -m benchmarks.simulate_surfaces`.

Simulated arms have a known mIoU over weight decay and dropout. Points are Sobol points, as in
`sobol_wd_dropout`, or proposed by Optuna's TPE, as in `optuna_wd_dropout`. A statement about a maximum is
about the true maximum within the region that the points enclose. Pre-trained has the same surface as raw,
`GAP` higher. Everything is seeded.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pandas as pd

from study.analysis.sections.response_surfaces import (
    ArmSurface,
    SurfaceAxis,
    arm_surface,
    difference_interval,
    point_means,
)
from study.planning.space import STARTUP_POINTS, Distribution, sampled_points

FLOOR, GAP = 0.1, 0.05
SOBOL_POINTS, TPE_POINTS = 16, 24
SPACE = {
    "weight_decay": Distribution(low=1e-5, high=5e-2, log=True),
    "dropout": Distribution(low=0.0, high=0.6),
}
# Coarser than the report's grid, for speed.
STEPS = 21
# Name, seeds, whether TPE proposes the points, seed standard deviation in points.
DESIGNS = (
    ("Sobol, 1 seed", 1, False, 0.5),
    ("Sobol, 1 seed", 1, False, 1.0),
    ("Sobol, 3 seeds", 3, False, 1.0),
    ("TPE", 1, True, 1.0),
)
Truth = Callable[[np.ndarray, np.ndarray], np.ndarray]


def log_decay(decay: np.ndarray) -> np.ndarray:
    return np.log10(decay + 1e-5)


def bowl(decay: np.ndarray, dropout: np.ndarray) -> np.ndarray:
    return 0.27 - 0.02 * ((log_decay(decay) + 3) / 1.5) ** 2 - 0.03 * ((dropout - 0.25) / 0.35) ** 2


def cliff(decay: np.ndarray, dropout: np.ndarray) -> np.ndarray:
    """As on `figures`: flat, best at 5e-3, and nothing is learnt beyond 1e-2."""
    learns = 1 / (1 + np.exp((log_decay(decay) + 1.9) / 0.08))
    height = 0.15 + 0.025 * np.exp(-(((log_decay(decay) + 2.4) / 0.7) ** 2)) - 0.02 * (dropout / 0.6) ** 2
    return FLOOR + height * learns


def flat(decay: np.ndarray, dropout: np.ndarray) -> np.ndarray:
    return 0.25 + 0 * decay + 0 * dropout


def edge(decay: np.ndarray, dropout: np.ndarray) -> np.ndarray:
    """More dropout is always better."""
    return 0.25 + 0.05 * dropout - 0.01 * ((log_decay(decay) + 3) / 1.5) ** 2


def kink(decay: np.ndarray, dropout: np.ndarray) -> np.ndarray:
    return 0.26 - 0.03 * np.abs((log_decay(decay) + 3) / 1.5) - 0.02 * ((dropout - 0.25) / 0.35) ** 2


TRUTHS: dict[str, Truth] = {"bowl": bowl, "cliff": cliff, "flat": flat, "edge": edge, "kink": kink}


def sobol_trials(truth: Truth, sd: float, seeds: int, rng: np.random.Generator) -> pd.DataFrame:
    """Every point on every seed: the axes, `seed` and `value`."""
    points = pd.DataFrame(sampled_points(SPACE, SOBOL_POINTS, {}))
    trials = pd.concat([points.assign(seed=seed) for seed in range(seeds)], ignore_index=True)
    clean = truth(trials["weight_decay"].to_numpy(), trials["dropout"].to_numpy())
    return trials.assign(value=clean + sd * rng.normal(size=len(trials)))


def searched_trials(truth: Truth, sd: float, rng: np.random.Generator) -> pd.DataFrame:
    """Startup points, then TPE's proposals."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {
        axis: optuna.distributions.FloatDistribution(drawn.low, drawn.high, log=drawn.log)
        for axis, drawn in SPACE.items()
    }
    sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_POINTS, seed=int(rng.integers(2**31)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rows = []
    for point in sampled_points(SPACE, STARTUP_POINTS, {}):
        value = _measure(truth, point, sd, rng)
        rows.append(point | {"value": value})
        if point["weight_decay"] > 0:
            study.add_trial(optuna.create_trial(params=point, distributions=distributions, value=value))
    while len(rows) < TPE_POINTS:
        proposed = study.ask(distributions)
        value = _measure(truth, proposed.params, sd, rng)
        study.tell(proposed, value)
        rows.append(proposed.params | {"value": value})
    return pd.DataFrame(rows).assign(seed=0)


def _measure(truth: Truth, point: dict, sd: float, rng: np.random.Generator) -> float:
    clean = truth(np.array([point["weight_decay"]]), np.array([point["dropout"]]))[0]
    return float(clean + sd * rng.normal())


def judge(surface: ArmSurface, axes: Sequence[SurfaceAxis], truth: Truth) -> dict[str, float] | None:
    """What held in one repetition; None where no surface could be fitted."""
    fit = surface.fit
    if fit is None or surface.maximum is None:
        return None
    decay, dropout = (axis.unscale(fit.grid[:, i]) for i, axis in enumerate(axes))
    true = truth(decay, dropout)
    largest = true[fit.inside].max()
    optimal = fit.inside & (true >= largest - 1e-9)
    estimate, low, high = surface.maximum
    found = {
        "largest": largest,
        "maximum": low <= largest <= high,
        "bias": 100 * (estimate - largest),
        "width": 100 * (high - low),
        "location": bool(fit.plausible[optimal].any()),
        "share": surface.plausible,
        "edge": float(bool(surface.edges)),
        "regret": 100 * (largest - true[fit.best]),
        "gain": np.nan,
    }
    if surface.gain is not None:
        gain = largest - truth(np.zeros(1), np.zeros(1))[0]
        found["gain"] = float(surface.gain[1] <= gain <= surface.gain[2])
    return found


def best_point_bias(trials: pd.DataFrame, truth: Truth) -> float:
    """How much better than its true value the best-looking point looks, in points."""
    means = point_means(trials, list(SPACE))
    best = means.loc[means["value"].idxmax()]
    clean = truth(np.array([best["weight_decay"]]), np.array([best["dropout"]]))[0]
    return float(100 * (best["value"] - clean))


def simulate(truth: Truth, sd: float, seeds: int, search: bool, repetitions: int) -> dict[str, float]:
    """Averages over the repetitions in which raw's surface was fitted, `fitted` being their share."""
    steps = np.linspace(-1.0, 1.0, STEPS)
    grid = np.array(list(itertools.product(steps, repeat=2)))
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(repetitions):
        raw, pretrained = (
            searched_trials(truth, sd, rng) if search else sobol_trials(truth, sd, seeds, rng)
            for _ in range(2)
        )
        pretrained = pretrained.assign(value=pretrained["value"] + GAP)
        # The axes are those of the context, of both arms.
        both = pd.concat([raw, pretrained])
        axes = [SurfaceAxis.of(axis, both[axis]) for axis in SPACE]
        surfaces = [arm_surface("raw", trials, axes, grid, FLOOR) for trials in (raw, pretrained)]
        found, other = (judge(surface, axes, truth) for surface in surfaces)
        if found is None:
            continue
        found["remaining"] = np.nan
        if other is not None and surfaces[0].maximum and surfaces[1].maximum:
            remaining = GAP + other["largest"] - found["largest"]
            _, low, high = difference_interval(surfaces[1].maximum, surfaces[0].maximum)
            found["remaining"] = float(low <= remaining <= high)
        rows.append(found | {"best point": best_point_bias(raw, truth)})
    means = pd.DataFrame(rows).mean().to_dict() if rows else {}
    return means | {"fitted": len(rows) / repetitions}


def print_table(repetitions: int, designs: str = "") -> None:
    """One row per design and truth; only designs whose name starts with `designs`."""
    head = (
        *("points", "sd", "truth", "fitted", "maximum held", "width", "bias", "best point's bias"),
        *("place held", "share of the region", "gain held", "difference of arms held"),
        *("flagged as edge", "regret"),
    )
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    chosen = [row for row in DESIGNS if row[0].startswith(designs)]
    for (design, seeds, search, sd), (name, truth) in itertools.product(chosen, TRUTHS.items()):
        found = simulate(truth, sd / 100, seeds, search, repetitions)
        shares = {key: f"{100 * value:.0f} %" for key, value in found.items()}
        points = {key: f"{value:.1f}" for key, value in found.items()}
        cells = (
            *(design, str(sd), name, shares["fitted"], shares["maximum"], points["width"], points["bias"]),
            *(points["best point"], shares["location"], shares["share"], shares["gain"]),
            *(shares["remaining"], shares["edge"], points["regret"]),
        )
        print("| " + " | ".join(cells) + " |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate_surfaces", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--designs", default="", metavar="START", help="only rows that start so, such as TPE")
    options = parser.parse_args(arguments)
    print_table(options.repetitions, options.designs)


if __name__ == "__main__":
    main()
