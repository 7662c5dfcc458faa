"""Would variance borrowed from other cells (Smyth 2004) still give intervals that cover?

What the analysis does not do, and why. Six cells, their difference two by two; `d0` is the weight, in degrees
of freedom, of the mean variance of all differences; `moderated` estimates that weight from their variation.
"""

import numpy as np
from scipy import special

from study.analysis.answering.differences import t_quantile

SPREADS = {
    "equal": (1, 1, 1, 1, 1, 1),
    "one raw cell twice as wide": (1, 2, 1, 1, 1, 1),
    "reference twice as wide": (2, 1, 1, 1, 1, 1),
    "a raw and a pre-trained one": (1, 2, 1, 2, 1, 1),
}
PAIRS = [(left, right) for left in range(6) for right in range(left)]


def borrowed_table(repetitions: int) -> str:
    """Coverage of the difference between a pre-trained and a raw cell."""
    rng = np.random.default_rng(0)
    lines = ["| spread | seeds | Student's t | d0 = 2 | d0 = 4 | moderated |", "|" + " --- |" * 6]
    for name, spread in SPREADS.items():
        for seeds in (3, 5, 10):
            values = rng.normal(size=(20 * repetitions, seeds, 6)) * np.array(spread)
            hits = [f"{100 * share:.1f}" for share in _coverages(values)]
            lines.append(f"| {name} | {seeds} | " + " | ".join(hits) + " |")
    return "\n".join(lines)


def _coverages(values: np.ndarray) -> list[float]:
    """Coverage of 0 by each method. Args: values (studies, seeds, cells), all with mean 0."""
    seeds = values.shape[1]
    degrees = float(seeds - 1)
    variances = np.stack(
        [(values[..., left] - values[..., right]).var(axis=1, ddof=1) for left, right in PAIRS], axis=1
    )
    difference = values[..., 3] - values[..., 1]
    mean, own = difference.mean(axis=1), difference.var(axis=1, ddof=1)
    weights, priors = moderation(variances, degrees)
    # No more can be borrowed than the other cells know.
    weights = np.minimum(weights, 5 * degrees)
    found = []
    for weight, prior in (
        (0.0, own),
        (2.0, variances.mean(axis=1)),
        (4.0, variances.mean(axis=1)),
        (weights, priors),
    ):
        variance = (weight * prior + degrees * own) / (weight + degrees)
        half = t_quantile(0.025, np.asarray(weight + degrees, dtype=float)) * np.sqrt(variance / seeds)
        found.append(float(np.mean(np.abs(mean) < half)))
    return found


def moderation(variances: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Prior degrees of freedom and variance of each study, by moments of log variances (Smyth 2004, 6.2)."""
    logs = np.log(variances) - special.digamma(degrees / 2) + np.log(degrees / 2)
    excess = logs.var(axis=1, ddof=1) - special.polygamma(1, degrees / 2)
    half = np.full(len(variances), 0.5 + 1 / np.maximum(excess, 1e-3))
    for _ in range(50):
        # Newton's method for the inverse of the trigamma function.
        value = special.polygamma(1, half)
        half = half + value * (1 - value / np.maximum(excess, 1e-3)) / special.polygamma(2, half)
    weights = np.where(excess > 0, 2 * half, 1e6)
    priors = np.exp(logs.mean(axis=1) + special.digamma(weights / 2) - np.log(weights / 2))
    return weights, priors
