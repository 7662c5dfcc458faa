"""`--dry-run`: the trials of a study, the recipe of each arm, what it will take; nothing is started."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search_spaces import recipes
from segstrat.config import WITHOUT_BATCH_NORM, Numerics, TrialConfig
from segstrat.data.readers.folder import ImageFacts
from segstrat.errors import UserError
from segstrat.formatting import format_duration, format_value
from segstrat.parallel import cpu_cores
from segstrat.pretraining.job import Pretraining
from segstrat.store import cache_dir
from segstrat.tasks import Task
from study.analysis.answering.design import AnsweringDesign
from study.analysis.caveats_and_notes import planned_sentence
from study.cli import REHEARSAL, Flags, command_line
from study.console.tables import new_table, varied_axes
from study.planning.resources import Node, cost_key, share
from study.planning.space import rehearsal_overrides
from study.planning.trials import PlannedTrial
from study.search.base import Search
from study.search.two_stage import TwoStageSearch
from study.state.trial_states import ALL, KEPT, KEPT_WORDS, TrialState

if TYPE_CHECKING:
    from segstrat.machine import Machine
    from segstrat.step_cost import StepTime
    from study.driver.prepare import OpenedStudy
    from study.driver.weights import Weights


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of all trials to their end, without early stopping; reading images is not included.

    Args:
        seconds: wall time with `concurrent` jobs at a time.
        pretrain_seconds: of them, the share of the pre-trainings.
        disk_bytes: of the checkpoints that are kept.
        device: what it was measured on.
    """

    seconds: float
    pretrain_seconds: float
    disk_bytes: int
    concurrent: int
    device: str


def _model(config: TrialConfig) -> str:
    return config.model if config.model == config.backbone else f"{config.model} {config.backbone}"


def _backbone_rate(config: TrialConfig) -> float:
    return config.learning_rate * (config.pretrained_lr_factor if config.pretrained else 1)


RECIPE: Mapping[str, Callable[[TrialConfig], Any]] = {
    "model": _model,
    "width": lambda config: config.width,
    "crop": lambda config: config.crop_size,
    "batch": lambda config: config.batch_size * config.accumulation_steps,
    "epochs": lambda config: config.epochs,
    "rate": lambda config: config.learning_rate,
    "of backbone": _backbone_rate,
}


# With what follows, one screen.
MOST_ROWS = 20
# More values than that are a range.
MOST_VALUES = 6


def show_plan(flags: Flags) -> int:
    """Prints the trials of a study, their recipe and cost and a check of the data, and starts nothing."""
    # Data and plan import torch, which `--list` and `--status` do without.
    from study.driver.data_check import check_data
    from study.driver.prepare import (
        make_search,
        open_study,
        plan_study,
        stopping_rule,
        stopping_words,
        with_classes,
    )
    from study.driver.weights import Weights

    console = Console(highlight=False)
    opened = open_study(flags)
    space, settings = opened.space, opened.settings
    trials = plan_study(opened)
    weights = Weights(settings, opened.design)
    weights.check(trials, download=False)
    data = check_data(settings, trials, cache=False)
    opened = with_classes(opened, data)
    console.print(Text(f"{settings.name}: {space.question}"))
    shown = trials if flags.verbose or len(trials) <= MOST_ROWS else trials[:MOST_ROWS]
    console.print(trials_table(shown))
    if len(shown) < len(trials):
        console.print(Text(f"… {len(trials) - len(shown):,} more trials; --verbose lists them all"))
    console.print(Text(f"recipe   {space.recipe_name}"))
    console.print(recipe_table(trials))
    epochs = sum(trial.config.epochs for trial in trials)
    images = sum(trial.config.epochs * trial.config.label_fraction for trial in trials) * data["train_images"]
    kind = "synthetic, drawn by this project" if data["synthetic"] else data["root"]
    to_make = weights.to_make(trials)
    steps: dict[tuple[Any, ...], StepTime] = {}
    cost = cost_of(flags, opened, trials, data, weights, steps)
    lines = [
        f"budget   {epochs} epochs, {images:,.0f} training images in total",
        f"stopping {stopping_words(stopping_rule(opened), trials)}",
        f"data     {data['title']} ({kind}): {data['train_images']} training and {data['val_images']} "
        "validation images were found",
        f"look     {data['sheet']} shows the labels on their images",
    ]
    if opened.design is not None:
        looks = ", ".join(map(str, opened.design.looks))
        lines.append(f"seeds    reference and candidates on fresh seeds, looks after {looks}")
    lines += tuning_lines(trials)
    lines.append(f"detects  {planned_sentence(opened.design or AnsweringDesign.single_look(_seeds(trials)))}")
    if outlook := weights.outlook(trials):
        lines.append(f"weights  {outlook}")
    search = make_search(opened, trials)
    lines += following_lines(trials, search, cost)
    warnings = recipe_warnings([trial.config for trial in trials], opened.images)
    lines += [
        time_line(cost, len(to_make)),
        f"disk     {cost.disk_bytes / 1e6:,.0f} MB of checkpoints (--keep-checkpoints "
        f"{settings.keep_checkpoints}: {KEPT_WORDS[settings.keep_checkpoints]})",
        f"results  {opened.study.uri}",
        *hour_lines(flags, opened, cost.seconds + following_seconds(trials, search, cost), data, steps),
        *(f"warning  {text}" for text in warnings),
        "Nothing was started.",
    ]
    for line in lines:
        console.print(Text(line, style="yellow" if line.startswith("warning") else ""), soft_wrap=True)
    return 0


def following_lines(trials: Sequence[PlannedTrial], search: Search, cost: Estimate) -> list[str]:
    """What a search proposes after the planned trials, up to the next look; nothing for a fixed plan."""
    states = [TrialState(trial=trial) for trial in trials]
    more = search.remaining(states)
    if not more:
        return []
    screened = search.screening_left(states) if isinstance(search, TwoStageSearch) else 0
    seconds = following_seconds(trials, search, cost)
    kinds = f"screened and {more - screened} on fresh seeds" if screened else "trials"
    return [
        f"then     about {screened or more} more {kinds} up to the next look, about "
        f"{format_duration(seconds)} more"
    ]


def following_seconds(trials: Sequence[PlannedTrial], search: Search, cost: Estimate) -> float:
    """Wall time of the trials that a search proposes after the planned ones, up to the next look."""
    more = search.remaining([TrialState(trial=trial) for trial in trials])
    return (cost.seconds - cost.pretrain_seconds) * more / len(trials)


HOUR = 3600.0
# A step that is timed again on a busy machine takes a little longer.
FITS = 0.85 * HOUR
SHORTER = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)


def hour_lines(
    flags: Flags,
    opened: "OpenedStudy",
    seconds: float,
    data: Mapping[str, Any],
    steps: "dict[tuple[Any, ...], StepTime]",
) -> list[str]:
    """The command of a smaller study that fits an hour, where this one takes longer and there is one.

    It trains two values of each treatment on three seeds, to the end; only where that is still too long are
    its trials shorter.

    Args:
        flags: those of the study.
        seconds: what it takes.
        steps: what was measured for it.
    """
    from study.driver.prepare import open_study, plan_study
    from study.driver.weights import Weights

    if seconds <= HOUR or opened.recorded or opened.settings.confirm or opened.space.sampled:
        return []
    given = {name: value for name, value in flags.settings.items() if name not in ("max_seeds", "top")}
    given |= {"seeds": REHEARSAL["seeds"], "scheduler": "none"}
    given |= {"overrides": rehearsal_overrides(opened.space, opened.settings.overrides)}
    given |= {"name": f"{opened.settings.name}-small"}
    # Of an export, the folder that it was converted into is at hand.
    here = {"data": opened.settings.data, "data_root": opened.settings.data_root}
    smaller = open_study(replace(flags, settings=given | here))
    for factor in SHORTER:
        budget = float(f"{opened.settings.budget * factor:.2g}")
        shorter = replace(smaller, settings=replace(smaller.settings, budget=budget))
        trials = plan_study(shorter)
        cost = cost_of(flags, shorter, trials, data, Weights(shorter.settings), steps)
        if cost.seconds <= FITS:
            given |= {"budget": budget} if budget != 1 else {}
            command = shlex.join(["uv", "run", "python", "study/run.py", *command_line(given)])
            words = f"{len(trials)} trials, about {format_duration(cost.seconds)}"
            return [f"smaller  a first answer within an hour ({words}):", f"         {command}"]
    return []


def time_line(cost: Estimate, pretrainings: int) -> str:
    """The wall time of the planned trials and of the pre-trainings that must be made for them."""
    total = format_duration(cost.seconds)
    part = ""
    if pretrainings:
        share = format_duration(cost.pretrain_seconds)
        part = f" ({share} of it for {pretrainings} pre-training{'s' * (pretrainings != 1)})"
    return (
        f"time     about {total}{part} on {cost.device}, {cost.concurrent} trials at once, without early "
        "stopping (one step of each model was timed)"
    )


def _seeds(trials: Sequence[PlannedTrial]) -> int:
    """How many seeds the trials have."""
    return len({trial.config.seed for trial in trials})


def tuning_lines(trials: Sequence[PlannedTrial]) -> list[str]:
    """What each tuned axis costs in each arm: the trials beyond one for each setting and seed."""
    arms = dict.fromkeys(sorted({trial.arm for trial in trials}, key=lambda arm: ("pre-trained" in arm, arm)))
    cost = []
    for arm in arms:
        of_arm = [trial for trial in trials if trial.arm == arm]
        once = {(trial.setting, trial.config.seed) for trial in of_arm}
        cost.append(f"{len(of_arm) - len(once)} of {len(of_arm)} {arm} trials")
    found = []
    for axis in trials[0].tuned:
        values = sorted({trial.axes[axis] for trial in trials})
        found.append(
            f"tuning   {axis.replace('_', ' ')} {_in_words(values)}: the best for each "
            f"setting and the reference; it costs {', '.join(cost)}"
        )
    return found


def trials_table(trials: Sequence[PlannedTrial]) -> Table:
    """One row per trial."""
    axes = varied_axes(trials)
    table = new_table()
    for title in ("trial", "arm", *(axis.replace("_", " ") for axis in axes), "epochs", "model"):
        table.add_column(title, no_wrap=True)
    for trial in trials:
        table.add_row(
            trial.trial_id,
            trial.arm,
            *(format_value(trial.axes.get(axis)) for axis in axes),
            str(trial.config.epochs),
            trial.config.model,
        )
    return table


def recipe_table(trials: Sequence[PlannedTrial]) -> Table:
    """One row per arm, raw first: what its trials are trained with; several values where they differ."""
    table = new_table()
    table.add_column("arm")
    for title in RECIPE:
        table.add_column(title, justify="left" if title == "model" else "right")
    for arm in sorted({trial.arm for trial in trials}, key=lambda arm: ("pre-trained" in arm, arm)):
        configs = [trial.config for trial in trials if trial.arm == arm]
        table.add_row(arm, *(_values(read, configs) for read in RECIPE.values()))
    return table


def _values(read: Callable[[TrialConfig], Any], configs: Sequence[TrialConfig]) -> str:
    return _in_words(sorted({read(config) for config in configs}))


def _in_words(values: Sequence[Any]) -> str:
    """Sorted values in words; of many, the first, the last and how many there are."""
    words = list(dict.fromkeys(map(format_value, values)))
    if len(words) <= MOST_VALUES:
        return ", ".join(words)
    return f"{words[0]} to {words[-1]} ({len(words):,} values)"


def cost_of(
    flags: Flags,
    opened: "OpenedStudy",
    trials: Sequence[PlannedTrial],
    data: Mapping[str, Any],
    weights: "Weights",
    steps: "dict[tuple[Any, ...], StepTime]",
) -> Estimate:
    """What planned trials take, and the pre-trainings that must be made for them; see `estimate`."""
    return estimate(
        trials,
        data,
        opened.settings.numerics,
        max_concurrent=flags.max_concurrent,
        gpus_per_trial=flags.gpus_per_trial,
        keep_checkpoints=opened.settings.keep_checkpoints,
        pretrainings=[job.pretraining for job in weights.to_make(trials)],
        measured=steps,
    )


# Imports, data and model of a trial.
START_SECONDS = 5.0


def estimate(
    trials: Sequence[PlannedTrial],
    data: Mapping[str, Any],
    numerics: Numerics,
    *,
    max_concurrent: int | None = None,
    gpus_per_trial: float | str | None = None,
    keep_checkpoints: str = ALL,
    pretrainings: Sequence[Pretraining] = (),
    measured: "dict[tuple[Any, ...], StepTime] | None" = None,
) -> Estimate:
    """Tries one step of each different model of a study on this machine.

    Args:
        data: as `study.driver.data_check.check_data` describes it.
        pretrainings: those that must be made.
        measured: steps that were tried before, by `cost_key`; further ones are added.
    """
    import torch

    from segstrat.machine import Machine

    gpus = torch.cuda.device_count() if gpus_per_trial != 0 else 0
    node = Node(address="", cpus=cpu_cores(), gpus=gpus)
    division = share([node], max_concurrent=max_concurrent)
    machine = Machine(device="cuda" if gpus else "cpu", threads=division.cpus, precision=numerics.precision)
    tasks = {name: Task(name, classes) for name, classes in data["classes"].items()}
    measured = {} if measured is None else measured
    work = 0.0
    disk = largest = 0
    for trial in trials:
        config = trial.config
        key = cost_key(config)
        if key not in measured:
            chosen = {name: tasks[name] for name in config.tasks}
            measured[key] = _measured_step(config, chosen, machine)
        step = measured[key]
        images = data["train_images"] * config.label_fraction
        validations = -(-config.epochs // config.validate_every)
        work += START_SECONDS + config.epochs * images * step.train_seconds
        work += validations * data["val_images"] * step.val_seconds
        disk += KEPT[keep_checkpoints] * step.checkpoint_bytes
        largest = max(largest, step.checkpoint_bytes)
    concurrent = min(division.concurrent, len(trials))
    # Trials that have not ended keep all of theirs.
    disk += (KEPT[ALL] - KEPT[keep_checkpoints]) * largest * concurrent
    pretrain_work = 0.0
    if pretrainings:
        from segstrat.pretraining.cached import pretrain_machine, run_seconds

        seconds = run_seconds(
            pretrainings, cache_dir(), pretrain_machine("cuda" if gpus else "cpu", division.cpus)
        )
        pretrain_work = sum(seconds)
    return Estimate(
        seconds=(work + pretrain_work) / concurrent,
        pretrain_seconds=pretrain_work / concurrent,
        disk_bytes=disk,
        concurrent=concurrent,
        device=torch.cuda.get_device_name(0) if gpus else f"{node.cpus} CPU cores",
    )


def _measured_step(config: TrialConfig, tasks: Mapping[str, Task], machine: "Machine") -> "StepTime":
    from segstrat.step_cost import measure_step

    try:
        return measure_step(config, tasks, machine)
    except (RuntimeError, MemoryError) as error:
        if "memory" not in f"{type(error).__name__}: {error}".lower():
            raise
        raise UserError(
            f"a step of {config.model} with crop_size {config.crop_size} and batch_size {config.batch_size} "
            "needs more memory than this machine has; give smaller ones, for example --set crop_size=512"
        ) from error


# A crop that is so much larger than the images is mostly padding.
PADDED = 1.5
# At stride 32 a smaller crop has a map of a few cells.
SMALLEST_AT_32 = 224
LONG_EPOCHS = 100
HIGH_RATE = 1e-2


def recipe_warnings(configs: Sequence[TrialConfig], images: ImageFacts | None) -> list[str]:
    """What looks like a mistake in the trials of a folder of one's own."""
    if images is None or not images.short_side:
        return []
    side, count = images.short_side, images.train_images
    found = []
    crop = max(config.crop_size for config in configs)
    epochs = max(config.epochs for config in configs)
    if crop >= PADDED * side:
        found.append(
            f"crops of {crop} pixels on images of {side} are mostly padding; leave crop_size to the recipe"
        )
    if count < recipes.SMALL_IMAGES and crop == 512 and epochs >= LONG_EPOCHS:
        found.append(
            f"{epochs} epochs of 512 pixels are the thesis's recipe for thousands of images; here are {count}"
        )
    rate = max(
        (config.learning_rate for config in configs if config.backbone in WITHOUT_BATCH_NORM), default=0.0
    )
    if rate > HIGH_RATE:
        found.append(
            f"a learning rate of {rate:g} suits backbones with batch norm; at this rate one without it may "
            "predict background everywhere (docs/models.md)"
        )
    coarse = [config.crop_size for config in configs if config.model == "fcn32s"]
    if coarse and min(coarse) < SMALLEST_AT_32:
        cells = -(-min(coarse) // 32)
        found.append(
            f"fcn32s sees a crop of {min(coarse)} pixels as {cells} × {cells} cells; "
            "fcn8s has 16 times as many (BASE or ON of the space)"
        )
    return found
