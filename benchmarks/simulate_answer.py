"""How often the answer is right, and what it costs: whole studies with known truth, simulated.

    python -m benchmarks.simulate_answer                       # all tables, 500 repetitions
    python -m benchmarks.simulate_answer --repetitions 2000 --table errors

Every decision and every label is made by the functions that a real study calls (`study.analysis.answering`,
`study.analysis.contrasts`, `study.state.halving`); only the scores are drawn.
docs/simulations.md holds the tables and says what they mean.
"""

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pandas as pd

from benchmarks.simulated_grid import Grid, Outcome, block_sizes, grid, noisier, run_study
from benchmarks.simulated_screening import screening_table
from benchmarks.simulated_spread import borrowed_table
from benchmarks.simulated_starts import starts_table
from benchmarks.simulated_tuning import tuned_table
from study.analysis.answering.design import AnsweringDesign, Spending
from study.analysis.answering.differences import seeds_needed
from study.analysis.contrasts import Arm, Contrasts, compare_pairs
from study.analysis.intervals import Interval, mean_interval
from study.analysis.sections.labels_needed import joint_interval

CONTRASTS = ("gap", "improvement", "remaining")
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
    return compare_pairs([(Arm(raw, raw, "cell 0"), Arm(pretrained, pretrained, None))])


def agreement(found: list[Contrasts], truth: Grid) -> dict[str, str]:
    """How often all seeds choose the same raw cell, and how far the gain is then too high, in points."""
    unanimous = [study for study in found if study.best_raw.unanimous]
    errors = [100 * ((study.improvement.estimate or 0) - truth.truth["improvement"]) for study in unanimous]
    bias = f"{np.mean(errors):+.2f}" if errors else "–"
    return {"seeds agree, %": percent(len(unanimous), len(found)), "then too high by": bias}


@dataclass(frozen=True)
class Summary:
    """What many studies of one truth found.

    Args:
        labels: how often each was given.
        trials, seeds: mean number of trials of both stages, median number of answering seeds.
        hits, known: by contrast, how many intervals at stopping hold the truth, of how many.
        errors: of the estimate of what remains at stopping, in points, by label.
        widths: half-widths of what remains (the tested side alone where the other one is open), as multiples
            of the plain t interval of the same seeds.
    """

    labels: Counter[str]
    trials: Sequence[int]
    seeds: Sequence[int]
    hits: Counter[str]
    known: Counter[str]
    errors: Mapping[str, Sequence[float]]
    widths: Sequence[float]

    @property
    def studies(self) -> int:
        """How many studies."""
        return len(self.trials)

    def share(self, *labels: str) -> str:
        """In percent, how often one of the labels was given."""
        return percent(sum(self.labels[label] for label in labels), self.studies)

    @property
    def per_settled(self) -> float:
        """Trials of all studies over the number of those that were settled."""
        settled = self.studies - self.labels["undetermined"]
        return sum(self.trials) / settled if settled else math.inf


def studies(
    truth: Grid, repetitions: int, *, seed: int = 0, design: AnsweringDesign | None = None
) -> Summary:
    """Whole studies, with the default design unless another one is given, on all processors."""
    sizes = block_sizes(repetitions)
    parts = [(truth, size, (seed, part), design or AnsweringDesign()) for part, size in enumerate(sizes)]
    if len(parts) == 1:
        return _studies(parts[0])
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(_studies, parts))
    return Summary(
        labels=sum((part.labels for part in found), Counter[str]()),
        trials=[trials for part in found for trials in part.trials],
        seeds=[seeds for part in found for seeds in part.seeds],
        hits=sum((part.hits for part in found), Counter[str]()),
        known=sum((part.known for part in found), Counter[str]()),
        errors={
            label: [error for part in found for error in part.errors.get(label, ())]
            for label in sorted({label for part in found for label in part.errors})
        },
        widths=[width for part in found for width in part.widths],
    )


def _studies(part: tuple[Grid, int, Sequence[int], AnsweringDesign]) -> Summary:
    truth, repetitions, seed, design = part
    rng = np.random.default_rng(seed)
    outcomes = [run_study(truth, rng, design) for _ in range(repetitions)]
    found = Summary(Counter(), [], [], Counter(), Counter(), defaultdict(list), [])
    for study in outcomes:
        look = study.last
        found.labels[str(look.label)] += 1
        found.trials.append(study.trials)
        found.seeds.append(look.seeds)
        for name in CONTRASTS:
            hit = covered(getattr(look, name), truth.truth[name])
            found.known[name] += hit is not None
            found.hits[name] += bool(hit)
        remaining = look.remaining
        if remaining.estimate is None or remaining.low is None or remaining.high is None:
            continue
        found.errors[str(look.label)].append(100 * (remaining.estimate - truth.truth["remaining"]))
        open_end = math.isinf(remaining.high)
        half = remaining.estimate - remaining.low if open_end else (remaining.high - remaining.low) / 2
        seeds = study.values.loc[list(look.used)]
        plain = mean_interval((seeds[look.leaders["pretrained"]] - seeds[look.leaders["raw"]]).to_numpy())
        if plain.low is not None and plain.high is not None:
            found.widths.append(2 * half / (plain.high - plain.low))
    return replace(found, errors=dict(found.errors))


# Shape, gap in mIoU, and noise: what real trainings do. Trials collapse by 8 points on 10 % of seeds.
ERROR_CASES: tuple[tuple[str, str, float, Mapping[str, object]], ...] = (
    ("normal", "clear", 0.08, {}),
    ("t with 3 degrees", "clear", 0.08, {"noise": "t3"}),
    ("collapses, both arms", "clear", 0.08, {"collapse": "both"}),
    ("collapses, raw only", "clear", 0.08, {"collapse": "raw"}),
    ("collapses, raw only", "tied raw", 0.08, {"collapse": "raw"}),
    ("raw sd 3, pre-trained sd 0.5", "clear", 0.08, {"spread": "raw 3"}),
    ("raw sd 0.5, pre-trained sd 3", "clear", 0.08, {"spread": "pretrained 3"}),
    ("exponential, sd by cell", "tied raw", 0.08, {"noise": "exponential", "spread": "by cell"}),
    ("normal", "clear", 0.02, {}),
    ("normal", "peak", 0.08, {}),
    ("normal", "plateau", 0.08, {}),
    ("normal", "tied raw", 0.08, {}),
    ("normal", "tied", 0.08, {}),
    ("normal", "hidden", 0.08, {}),
    ("normal, correlation 0.6", "peak", 0.08, {"correlation": 0.6}),
    ("normal, sd by cell", "tied raw", 0.08, {"spread": "by cell"}),
    ("exponential", "peak", 0.08, {"noise": "exponential"}),
)


def errors_table(repetitions: int) -> str:
    """False answers of the whole procedure, up to 20 answering seeds, looks and screening included."""
    rows = []
    for name, shape, gap, noise in ERROR_CASES:
        closing = studies(truth_of(shape, 1 - MARGIN / gap, noise, gap), repetitions, seed=1)
        useless = studies(truth_of(shape, 0.0, noise, gap), repetitions, seed=2)
        rows.append(
            {
                "noise": name,
                "grid": shape,
                "gap": f"{100 * gap:g}",
                "“closes” at the margin, %": closing.share("closes"),
                "“narrows” or “does not close” at the margin, %": closing.share("narrows", "does not close"),
                "“narrows” without a gain, %": useless.share("narrows"),
            }
            | {
                f"{contrast}, %": percent(
                    closing.hits[contrast] + useless.hits[contrast],
                    closing.known[contrast] + useless.known[contrast],
                )
                for contrast in CONTRASTS
            }
        )
    diverging = np.zeros(12)
    diverging[3] = 0.3
    survivors = noisier(truth_of("clear", 1.0), divergence=diverging)
    row = dict.fromkeys(rows[0], "–")
    name = "the raw cell that closes the gap diverges on 30 % of seeds"
    row |= {"noise": name, "grid": "clear", "gap": "8"}
    row["“closes” at the margin, %"] = studies(survivors, repetitions, seed=1).share("closes")
    return markdown([*rows, row])


# Shape, gap, standard deviation over seeds in points, correlation, share of the gap that is closed.
POWER_CASES = (
    *(
        (*case, closed)
        for case in (
            *((shape, 0.08, 1.0, 0.0) for shape in ("clear", "peak", "plateau", "tied")),
            ("clear", 0.14, 1.5, 0.0),
            ("peak", 0.05, 1.0, 0.0),
            ("peak", 0.10, 1.0, 0.0),
            ("peak", 0.08, 1.0, 0.6),
        )
        for closed in (1.0, 0.5, 0.0)
    ),
    ("clear", 0.0, 1.0, 0.0, 0.0),
    ("clear", -0.08, 1.0, 0.0, 0.0),
)


def power_table(repetitions: int) -> str:
    """Power and cost: twelve cells."""
    wanted = {1: "closes", 0.5: "narrows", 0: "does not close"}
    rows = []
    for shape, gap, points, correlation, closed in POWER_CASES:
        truth = truth_of(shape, closed, {"correlation": correlation}, gap)
        # A total deviation of `points`, of which a part is shared by all cells.
        truth = noisier(truth, deviations=truth.deviations * points * np.sqrt(1 - correlation))
        found = studies(truth, repetitions, seed=3)
        label = wanted[closed] if gap > 0 else "hurts" if gap < 0 else "not needed"
        rows.append(
            {
                "grid": shape,
                "gap": f"{100 * gap:g}",
                "sd": points,
                "correlation": correlation,
                "closed, %": f"{100 * closed:g}",
                "right answer": f"“{label}”",
                "given, %": found.share(label),
                "trials": f"{np.mean(found.trials):.0f}",
                "trials per settled verdict": f"{found.per_settled:.0f}",
                "seeds": f"{np.median(found.seeds):.0f}",
                "half-width": f"{np.median(found.widths):.1f}" if found.widths else "–",
            }
        )
    return markdown(rows)


# Points that remain with ever more labelled images; at the margin, both sides are false.
LABELS_REMAIN = (8, 4, 1, 1)
LABELS_NOISE = [case for case in ERROR_CASES if case[1] == "clear" and case[2] == 0.08]


def labels_table(repetitions: int) -> str:
    """One statement over four label fractions, each "worth more than the margin", "worth less" or open."""
    rows = []
    for name, shape, gap, noise in (*LABELS_NOISE, ("exponential", "clear", 0.08, {"noise": "exponential"})):
        truths = [truth_of(shape, 1 - remains / (100 * gap), noise, gap) for remains in LABELS_REMAIN]
        parts = [(truths, size, (6, part)) for part, size in enumerate(block_sizes(repetitions))]
        with ProcessPoolExecutor() as pool:
            found = list(pool.map(_label_studies, parts))
        false, missed, *known = (percent(sum(counts), repetitions) for counts in zip(*found, strict=True))
        shown = {f"{LABELS_REMAIN[at]} points shown, %": known[at] for at in (0, 1)}
        rows.append({"noise": name, "false, %": false, "some interval misses, %": missed} | shown)
    return markdown(rows)


def _label_studies(part: tuple[Sequence[Grid], int, Sequence[int]]) -> list[int]:
    """Of many studies, how many say something false, miss a truth, and show what remains in each context."""
    truths, repetitions, seed = part
    rng, design = np.random.default_rng(seed), AnsweringDesign().of_comparisons(len(truths))
    false = missed = 0
    shown = [0] * len(truths)
    for _ in range(repetitions):
        wrong, misses = [], []
        for at, truth in enumerate(truths):
            study = run_study(truth, rng, design)
            interval = joint_interval(study.values, study.last, design, len(truths))
            remains = round(truth.truth["remaining"], 9)
            shown[at] += interval.above(MARGIN)
            wrong += [
                interval.above(MARGIN) and remains <= MARGIN,
                interval.below(MARGIN) and remains >= MARGIN,
            ]
            hit = covered(interval, remains)
            misses.append(hit is not None and not hit)
        false += any(wrong)
        missed += any(misses)
    return [false, missed, *shown]


def bias_table(repetitions: int) -> str:
    """Estimates of what remains at stopping, minus the truth, by the label that was given."""
    rows = []
    for shape in ("clear", "plateau", "tied"):
        for closed in (1.0, 1 - MARGIN / 0.08, 0.5, 0.0):
            truth = truth_of(shape, closed)
            found = studies(truth, repetitions, seed=4)
            for label, errors in found.errors.items():
                rows.append(
                    {
                        "grid": shape,
                        "remains": f"{100 * truth.truth['remaining']:.1f}",
                        "label": f"“{label}”",
                        "given, %": found.share(label),
                        "estimate − truth, points": f"{np.mean(errors):+.2f}",
                    }
                )
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
                row[f"“{label}”, %"] = found.share(label)
                row[f"trials ({100 * closure:g} %)"] = f"{np.mean(found.trials):.0f}"
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
    "bias": bias_table,
    "coverage": coverage_table,
    "one_stage": one_stage_table,
    "screening": screening_table,
    "borrowed": borrowed_table,
    "tuned": tuned_table,
    "starts": starts_table,
    "labels": labels_table,
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
