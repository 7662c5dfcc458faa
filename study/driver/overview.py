"""What the command line shows without starting anything: spaces, a plan, the state of a study."""

import dataclasses

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segstrat.formatting import format_duration, format_value
from segstrat.store import Store
from study.cli import Flags
from study.console.eta import seconds_left
from study.console.tables import new_table, trials_table, varied_axes
from study.planning.space import load_space, space_names
from study.planning.trials import PlannedTrial
from study.state.halving import HalvingRule
from study.state.lock import is_locked
from study.state.manifest import read_study_manifest
from study.state.trial_states import Phase, TrialState, TrialStates, count_final


def show_spaces() -> int:
    """Prints every search space with its question and size."""
    table = new_table()
    table.add_column("space", no_wrap=True)
    table.add_column("trials per seed", justify="right")
    table.add_column("question")
    for name in space_names():
        space = load_space(name)
        table.add_row(name, str(space.size), space.question)
    Console(highlight=False).print(table)
    return 0


def show_plan(flags: Flags) -> int:
    """Prints the trials of a study, their budget and a check of the data, and starts nothing."""
    # Data and plan import torch, which `--list` and `--status` do without.
    from study.driver.data_check import check_data
    from study.driver.prepare import make_search, open_study, plan_study
    from study.driver.weights import Weights

    console = Console(highlight=False)
    opened = open_study(flags)
    space, settings = opened.space, opened.settings
    trials = plan_study(opened)
    Weights(settings).check(trials, download=False)
    data = check_data(settings, trials, cache=False)
    console.print(Text(f"{settings.name}: {space.question}"))
    console.print(_plan_table(trials))
    epochs = sum(trial.config.epochs for trial in trials)
    images = sum(trial.config.epochs * trial.config.label_fraction for trial in trials) * data["train_images"]
    console.print(Text(f"budget   {epochs} epochs, {images:,.0f} training images in total"))
    rungs = ", ".join(f"{fraction:.0%}" for fraction in HalvingRule.of(settings.scheduler).fractions)
    stopping = f"at {rungs} of each budget, within each arm, context and seed" if rungs else "none"
    console.print(Text(f"stopping {stopping}"))
    kind = "synthetic, drawn by this project" if data["synthetic"] else data["root"]
    console.print(
        Text(
            f"data     {data['name']} ({kind}): {data['train_images']} training and {data['val_images']} "
            "validation images were found"
        )
    )
    more = make_search(opened, trials).remaining([TrialState(trial=trial) for trial in trials])
    if opened.design is not None:
        looks = ", ".join(map(str, opened.design.looks))
        console.print(Text(f"seeds    reference and candidates on fresh seeds, looks after {looks}"))
    if more:
        console.print(Text(f"then     about {more} more trials up to the next look"))
    console.print(Text(f"results  {opened.study.uri}"))
    console.print(Text("Nothing was started."))
    return 0


def show_status(folder: str) -> int:
    """Prints the table of a running or ended study from its files alone."""
    study = Store(folder)
    manifest = read_study_manifest(study)
    states = TrialStates(study, HalvingRule.from_dict(manifest["scheduler"]), manifest["metric"])
    for trial in manifest["trials"]:
        states.add(PlannedTrial.from_dict(trial))
    states.read()
    in_order = states.in_order()
    running = is_locked(study)
    if running:
        in_order = [_presumably_running(state) for state in in_order]
    console = Console(highlight=False)
    console.print(Text(f"{manifest['study']}: {manifest['question']}"))
    console.print(trials_table(in_order, states.metric))
    concurrent = sum(state.active for state in in_order)
    left = seconds_left(in_order, concurrent=concurrent) if running else None
    outlook = f", at most about {format_duration(left)} left" if left is not None else ""
    done = count_final(in_order)
    if not running and done < len(in_order):
        outlook = f"; continue with: uv run python study/run.py --resume --name {manifest['study']}"
    driver = "a driver is running" if running else "no driver is running"
    console.print(Text(f"{done}/{len(in_order)} trials done; {driver}{outlook}"))
    return 0


def _presumably_running(state: TrialState) -> TrialState:
    """A trial that has reported and not ended, while a driver is at work."""
    if state.final or state.phase is not Phase.WAITING or not state.record.reports:
        return state
    return dataclasses.replace(state, phase=Phase.RUNNING)


def _plan_table(trials: list[PlannedTrial]) -> Table:
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
