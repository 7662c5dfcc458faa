"""How often the answer is right, and what it costs: whole studies with known truth, simulated.

    python -m benchmarks.simulate_answer                       # all tables, 500 repetitions; half an hour
    python -m benchmarks.simulate_answer --repetitions 1000 --table errors

Every decision is made by the functions that a real study calls (`study.analysis.answering`,
`study.analysis.contrasts`, `study.state.halving`); only the scores are drawn.
docs/simulations.md holds the tables and says what they mean.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import get_args

import numpy as np
import pandas as pd

from benchmarks.simulated_grid import Grid, Outcome, grid, noisier, run_study
from benchmarks.simulated_screening import screening_table
from benchmarks.simulated_spread import borrowed_table
from benchmarks.simulated_tuning import tuned_table
from study.analysis.answering.design import AnsweringDesign, Spending
from study.analysis.answering.differences import seeds_needed
from study.analysis.contrasts import Arm, Contrasts, compare
from study.analysis.intervals import Interval, mean_interval

CONTRASTS = ("improvement", "remaining", "closure")
NOISE: dict[str, dict[str, object]] = {
    "normal": {},
    "normal, sd by cell": {"spread": "by cell"},
    "normal, correlation 0.6": {"correlation": 0.6},
    "exponential": {"noise": "exponential"},
    "exponential, sd by cell": {"noise": "exponential", "spread": "by cell"},
}
MARGIN = 0.01


def truth_of(
    shape: str, closure: float, noise: Mapping[str, object] | None = None, gap: float = 0.08
) -> Grid:
    """A grid of a shape under the named noise."""
    options = dict(noise or {})
    made = grid(shape, closure, gap=gap, spread=str(options.pop("spread", "equal")))
    return noisier(made, **options)


def percent(hits: float, of: int) -> str:
    """`97.2`; with nothing to count, a dash."""
    return f"{100 * hits / of:.1f}" if of else "–"


def markdown(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows of equal keys as a table."""
    rows = list(rows)
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def covered(interval: Interval, truth: float) -> bool | None:
    """Whether an interval holds the truth; None without an interval."""
    if interval.low is None or interval.high is None:
        return None
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


def coverage(found: Iterable[Contrasts | Outcome], truth: Grid) -> dict[str, str]:
    """Coverage in percent of the three contrasts, over the studies that have an interval."""
    hits: Counter[str] = Counter()
    known: Counter[str] = Counter()
    for study in found:
        for name in CONTRASTS:
            source = study.last if isinstance(study, Outcome) else study
            hit = covered(getattr(source, name), truth.truth[name])
            known[name] += hit is not None
            hits[name] += bool(hit)
    return {name: percent(hits[name], known[name]) for name in CONTRASTS}


def coverage_table(repetitions: int) -> str:
    """Intervals after a fixed number of answering seeds, screening included."""
    rows = []
    for shape in ("clear", "tied"):
        for name, noise in NOISE.items():
            truth = truth_of(shape, 0.5, noise)
            for seeds in (3, 5, 10):
                rng = np.random.default_rng(seeds)
                design = AnsweringDesign.single_look(seeds)
                found = [run_study(truth, rng, design) for _ in range(repetitions)]
                rows.append({"grid": shape, "noise": name, "seeds": seeds} | coverage(found, truth))
    return markdown(rows)


def one_stage_table(repetitions: int) -> str:
    """The whole grid to the end, the best cells chosen on the other seeds."""
    rows = []
    for shape in ("clear", "tied", "plateau"):
        for name in ("normal", "exponential"):
            truth = truth_of(shape, 0.5, NOISE[name])
            for seeds in (3, 5, 10):
                rng = np.random.default_rng(seeds)
                found = [one_stage_study(truth, rng, seeds) for _ in range(repetitions)]
                rows.append(
                    {"grid": shape, "noise": name, "seeds": seeds}
                    | coverage(found, truth)
                    | agreement(found, truth)
                )
    return markdown(rows)


def one_stage_study(truth: Grid, rng: np.random.Generator, seeds: int) -> Contrasts:
    """The contrasts of a full grid."""
    values, _ = truth.scores(rng, seeds)
    raw, pretrained = (pd.DataFrame(part).add_prefix("cell ") for part in (values[:, :6], values[:, 6:]))
    return compare(Arm(raw, raw, "cell 0"), Arm(pretrained, pretrained, None))


def agreement(found: list[Contrasts], truth: Grid) -> dict[str, str]:
    """How often all seeds choose the same raw cell, and how far the gain is then too high, in points."""
    unanimous = [study for study in found if study.best_raw.unanimous]
    errors = [100 * ((study.improvement.estimate or 0) - truth.truth["improvement"]) for study in unanimous]
    bias = f"{np.mean(errors):+.2f}" if errors else "–"
    return {"seeds agree, %": percent(len(unanimous), len(found)), "then too high by": bias}


def studies(
    truth: Grid, repetitions: int, *, seed: int = 0, design: AnsweringDesign | None = None
) -> list[Outcome]:
    """Whole studies, with the default design unless another one is given."""
    rng = np.random.default_rng(seed)
    return [run_study(truth, rng, design or AnsweringDesign()) for _ in range(repetitions)]


def errors_table(repetitions: int) -> str:
    """False answers of the whole procedure, up to 20 answering seeds, looks and screening included."""
    diverging = np.zeros(12)
    diverging[3] = 0.3
    cases: list[tuple[str, str, dict[str, object]]] = [
        *((shape, "normal", {}) for shape in ("clear", "peak", "plateau", "tied raw", "tied", "hidden")),
        *(("peak", name, noise) for name, noise in NOISE.items() if name != "normal"),
        *(("tied raw", name, noise) for name, noise in NOISE.items() if name != "normal"),
    ]
    rows = []
    for shape, name, noise in cases:
        closing = studies(truth_of(shape, 1 - MARGIN / 0.08, noise), repetitions, seed=1)
        useless = studies(truth_of(shape, 0.0, noise), repetitions, seed=2)
        rows.append(
            {
                "grid": shape,
                "noise": name,
                "“closes” at the margin, %": percent(labels(closing)["closes"], repetitions),
                "“narrows” without a gain, %": percent(labels(useless)["narrows"], repetitions),
            }
        )
    survivors = noisier(truth_of("clear", 1.0), divergence=diverging)
    closing = studies(survivors, repetitions, seed=1)
    rows.append(
        {
            "grid": "clear",
            "noise": "the raw cell that closes the gap diverges on 30 % of seeds",
            "“closes” at the margin, %": percent(labels(closing)["closes"], repetitions),
            "“narrows” without a gain, %": "–",
        }
    )
    return markdown(rows)


def labels(found: Iterable[Outcome]) -> Counter[str]:
    """How often each label was given."""
    return Counter(str(study.last.label) for study in found)


def power_table(repetitions: int) -> str:
    """Power and cost: twelve cells, seed sd 1 point."""
    wanted = {1.0: "closes", 0.5: "narrows", 0.0: "does not close"}
    cases = [
        *((shape, 0.08, 0.0) for shape in ("clear", "peak", "plateau", "tied")),
        *(("peak", 0.05, 0.0), ("peak", 0.10, 0.0), ("peak", 0.08, 0.6)),
    ]
    rows = []
    for shape, gap, correlation in cases:
        row: dict[str, object] = {"grid": shape, "gap": f"{100 * gap:g}", "correlation": correlation}
        for closure, label in wanted.items():
            truth = truth_of(shape, closure, {"correlation": correlation}, gap)
            if correlation:
                # A total deviation of one point, of which a part is shared by all cells.
                truth = noisier(truth, deviations=truth.deviations * np.sqrt(1 - correlation))
            found = studies(truth, repetitions, seed=3)
            row[f"“{label}”, %"] = percent(labels(found)[label], repetitions)
            row[f"trials ({100 * closure:g} %)"] = f"{np.mean([study.trials for study in found]):.0f}"
        rows.append(row)
    return markdown(rows)


def spending_table(repetitions: int) -> str:
    """The same looks with the error spent in two ways."""
    wanted = {1.0: "closes", 0.5: "narrows", 0.0: "does not close"}
    rows = []
    for shape in ("clear", "plateau", "tied"):
        for family in get_args(Spending):
            row: dict[str, object] = {"grid": shape, "error": family}
            for closure, label in wanted.items():
                design = AnsweringDesign(spending=family)
                found = studies(truth_of(shape, closure, {}), repetitions, seed=3, design=design)
                row[f"“{label}”, %"] = percent(labels(found)[label], repetitions)
                row[f"trials ({100 * closure:g} %)"] = f"{np.mean([study.trials for study in found]):.0f}"
            rows.append(row)
    return markdown(rows)


def advice_table(repetitions: int) -> str:
    """Following “seeds needed” once, from an unsettled contrast with a true effect of up to 3 deviations."""
    rows = []
    for seeds in (3, 5):
        rng = np.random.default_rng(seeds)
        asked = settled = 0
        while asked < repetitions:
            x = rng.normal(rng.uniform(0, 3), 1, 200)
            needed = None if _settled(x[:seeds]) else seeds_needed(x[:seeds], 0.0)
            if needed is not None:
                asked += 1
                settled += _settled(x[:needed])
        rows.append({"seeds so far": seeds, "settled as advised, %": percent(settled, asked)})
    return markdown(rows)


def _settled(x: np.ndarray) -> bool:
    interval = mean_interval(x)
    return interval.above(0) or interval.below(0)


TABLES: dict[str, Callable[[int], str]] = {
    "errors": errors_table,
    "power": power_table,
    "coverage": coverage_table,
    "one_stage": one_stage_table,
    "screening": screening_table,
    "borrowed": borrowed_table,
    "tuned": tuned_table,
    "spending": spending_table,
    "advice": advice_table,
}


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables as markdown."""
    parser = argparse.ArgumentParser(description="Simulates whole studies and prints tables as markdown.")
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--table", choices=TABLES, action="append", help="default: all")
    flags = parser.parse_args(arguments)
    for name in flags.table or TABLES:
        print(f"### {name}\n\n{TABLES[name](flags.repetitions)}\n", flush=True)


if __name__ == "__main__":
    main()
