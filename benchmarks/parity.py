"""Loss parity of bfloat16: a full short training on the embedded data, three seeds, paired with float32.

The two trainings of a seed share initialization, data order and augmentation. The interval of the mean
difference of the last epoch's losses is Student's, at 95 %.
"""

import statistics
import time
from tempfile import TemporaryDirectory

from scipy import stats

from benchmarks.input import one_core
from benchmarks.timing import Comparison
from search_spaces.recipes import figures
from segstrat.config import TrialConfig
from segstrat.data import build_protocol
from segstrat.machine import Machine, Precision
from segstrat.records import EpochReport
from segstrat.train import train

SCORES = (("train", "loss"), ("val", "loss"), ("val", "miou"))


def run(*, quick: bool) -> list[Comparison]:
    seeds, epochs = ((0, 1), 1) if quick else ((0, 1, 2), 40)
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    last: dict[str, list[EpochReport]] = {"float32": [], "bfloat16": []}
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    with TemporaryDirectory(prefix="segstrat-benchmark-") as folder, one_core():
        data = build_protocol("figures", tasks=("semseg",), cache_dir=folder)
        for seed in seeds:
            recipe = figures("fcn8s", pretrained=False) | {"epochs": epochs, "seed": seed}
            config = TrialConfig(data="figures", model="fcn8s", **recipe)
            for precision in precisions:
                start = time.process_time()
                reports = list(train(config, machine=Machine(precision=precision), protocol=data))
                last[precision].append(reports[-1])
                seconds[precision].append(time.process_time() - start)
    notes = [difference(last, split, score) for split, score in SCORES]
    return [Comparison(f"bfloat16 training, {epochs} epochs", seconds, "training", "float32", notes=notes)]


def difference(last: dict[str, list[EpochReport]], split: str, score: str) -> str:
    """The paired difference of a score in words."""
    values = {
        precision: [float(report.value("semseg", split, score) or 0.0) for report in reports]
        for precision, reports in last.items()
    }
    pairs = zip(values["bfloat16"], values["float32"], strict=True)
    differences = [one - other for one, other in pairs]
    mean, spread = statistics.mean(differences), statistics.stdev(differences)
    half = stats.t.ppf(0.975, len(differences) - 1) * spread / len(differences) ** 0.5
    contains = "contains zero" if abs(mean) <= half else "does not contain zero"
    return (
        f"{split} {score}: float32 {statistics.mean(values['float32']):.4f}, bfloat16 minus float32 "
        f"{mean:+.4f}, 95 % interval {mean - half:+.4f} to {mean + half:+.4f} {contains}"
    )
