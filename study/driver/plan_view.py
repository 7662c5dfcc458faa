"""`--dry-run`: the trials of a study, the recipe of each arm, what it will take; nothing is started."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segstrat.config import TrialConfig
from segstrat.formatting import format_duration, format_value
from study.analysis.answering.design import AnsweringDesign
from study.analysis.caveats_and_notes import planned_sentence
from study.cli import Flags
from study.console.fitted_table import new_table
from study.console.tables import varied_axes
from study.driver.estimate import Estimate, estimate
from study.planning.recipe import recipe_warnings
from study.planning.trials import PlannedTrial
from study.state.halving import HalvingRule
from study.state.trial_states import TrialState


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


def show_plan(flags: Flags) -> int:
    """Prints the trials of a study, their recipe and cost and a check of the data, and starts nothing."""
    # Data and plan import torch, which `--list` and `--status` do without.
    from study.driver.data_check import check_data
    from study.driver.prepare import make_search, open_study, plan_study
    from study.driver.weights import Weights

    console = Console(highlight=False)
    opened = open_study(flags)
    space, settings = opened.space, opened.settings
    trials = plan_study(opened)
    weights = Weights(settings, opened.design)
    weights.check(trials, download=False)
    data = check_data(settings, trials, cache=False)
    console.print(Text(f"{settings.name}: {space.question}"))
    console.print(trials_table(trials))
    console.print(Text(f"recipe   {space.recipe_name}"))
    console.print(recipe_table(trials))
    epochs = sum(trial.config.epochs for trial in trials)
    images = sum(trial.config.epochs * trial.config.label_fraction for trial in trials) * data["train_images"]
    rungs = ", ".join(f"{fraction:.0%}" for fraction in HalvingRule.of(settings.scheduler).fractions)
    stopping = f"at {rungs} of each budget, within each arm, context and seed" if rungs else "none"
    kind = "synthetic, drawn by this project" if data["synthetic"] else data["root"]
    to_make = weights.to_make(trials)
    cost = estimate(
        trials,
        data,
        settings.numerics,
        max_concurrent=flags.max_concurrent,
        gpus_per_trial=flags.gpus_per_trial,
        keep_checkpoints=settings.keep_checkpoints,
        pretrainings=[job.pretraining for job in to_make],
    )
    lines = [
        f"budget   {epochs} epochs, {images:,.0f} training images in total",
        f"stopping {stopping}",
        f"data     {data['title']} ({kind}): {data['train_images']} training and {data['val_images']} "
        "validation images were found",
    ]
    if opened.design is not None:
        looks = ", ".join(map(str, opened.design.looks))
        lines.append(f"seeds    reference and candidates on fresh seeds, looks after {looks}")
    lines += tuning_lines(trials)
    lines.append(f"detects  {planned_sentence(opened.design or AnsweringDesign.single_look(_seeds(trials)))}")
    if outlook := weights.outlook(trials):
        lines.append(f"weights  {outlook}")
    more = make_search(opened, trials).remaining([TrialState(trial=trial) for trial in trials])
    if more:
        seconds = (cost.seconds - cost.pretrain_seconds) * more / len(trials)
        lines.append(
            f"then     about {more} more trials up to the next look, about {format_duration(seconds)} more"
        )
    warnings = recipe_warnings([trial.config for trial in trials], opened.images)
    lines += [
        time_line(cost, len(to_make)),
        f"disk     {cost.disk_bytes / 1e6:,.0f} MB of checkpoints (--keep-checkpoints "
        f"{settings.keep_checkpoints}; all, last or none of each ended trial)",
        f"results  {opened.study.uri}",
        *(f"warning  {text}" for text in warnings),
        "Nothing was started.",
    ]
    for line in lines:
        console.print(Text(line, style="yellow" if line.startswith("warning") else ""))
    return 0


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
            f"tuning   {axis.replace('_', ' ')} {', '.join(map(format_value, values))}: the best for each "
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
    return ", ".join(
        dict.fromkeys(format_value(value) for value in sorted({read(config) for config in configs}))
    )
