"""What the command line shows without starting anything: spaces, a plan, the state of a study."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segstrat.store import Store
from study.cli import Options
from study.console.eta import in_words, seconds_left
from study.console.tables import new_table, trials_table, value_text, varied_axes
from study.planning.space import load_space, space_names
from study.planning.trials import PlannedTrial
from study.state.halving import HalvingRule, Rungs
from study.state.lock import is_locked
from study.state.manifest import read_study_manifest
from study.state.trial_states import FINAL, Ledger, rows_by_order


def show_spaces() -> int:
    """Prints every search space with its question and size."""
    table = new_table()
    table.add_column("space", no_wrap=True)
    table.add_column("trials a seed", justify="right")
    table.add_column("question")
    for name in space_names():
        space = load_space(name)
        table.add_row(name, str(space.size), space.question)
    Console(highlight=False).print(table)
    return 0


def show_plan(options: Options) -> int:
    """Prints the trials of a study, their budget and a check of the data, and starts nothing."""
    # Data and plan pull in torch, which `--list` and `--status` do without.
    from study.driver.prepare import check_data, halving_rule, open_study, plan_study

    console = Console(highlight=False)
    study, options = open_study(options)
    space, trials, options = plan_study(study, options)
    data = check_data(options, trials, cache=False)
    console.print(Text(f"{options.name}: {space.question}"))
    console.print(_plan_table(trials))
    rule = halving_rule(options)
    epochs = sum(trial.config.epochs for trial in trials)
    images = sum(trial.config.epochs * trial.config.label_fraction for trial in trials) * data["train_images"]
    rungs = ", ".join(f"{fraction:.0%}" for fraction in rule.fractions)
    console.print(Text(f"budget   {epochs} epochs, {images:,.0f} training images in all"))
    console.print(Text(f"stopping {'at ' + rungs + ' of each budget, arm by arm' if rungs else 'none'}"))
    kind = "synthetic, drawn by this project" if data["synthetic"] else data["root"]
    console.print(
        Text(
            f"data     {data['name']} ({kind}): {data['train_images']} training and {data['val_images']} "
            "validation images were found"
        )
    )
    more = max(0, space.size - len(trials)) if space.search == "tpe" and options.confirm is None else 0
    if more:
        console.print(Text(f"search   then Optuna proposes {more} more trials, one sampler an arm"))
    console.print(Text(f"results  {study.uri}"))
    console.print(Text("Nothing was started."))
    return 0


def show_status(folder: str) -> int:
    """Prints the table of a running or ended study from its files alone."""
    study = Store(folder)
    manifest = read_study_manifest(study)
    rule = HalvingRule.from_dict(manifest["scheduler"])
    ledger = Ledger(study, Rungs(rule), manifest["metric"])
    for trial in manifest["trials"]:
        ledger.add(PlannedTrial.from_dict(trial))
    ledger.recall(resume=False)
    running = is_locked(study)
    for row in ledger.rows.values():
        if row.state == "waiting" and row.reports and running:
            row.state = "running"
    rows = rows_by_order(ledger.rows.values())
    done = sum(row.state in FINAL for row in rows)
    console = Console(highlight=False)
    console.print(Text(f"{manifest['study']}: {manifest['question']}"))
    console.print(trials_table(rows, ledger.metric))
    concurrent = max(1, sum(row.state == "running" for row in rows))
    left = seconds_left(rows, rule, concurrent=concurrent) if running else None
    outlook = f", about {in_words(left)} left" if left is not None else ""
    state = "a driver is at work" if running else "no driver is at work"
    if not running and done < len(rows):
        outlook = f"; go on with: python study/run.py --resume --name {manifest['study']}"
    console.print(Text(f"{done}/{len(rows)} trials done; {state}{outlook}"))
    return 0


def _plan_table(trials: list[PlannedTrial]) -> Table:
    axes = varied_axes(trials)
    table = new_table()
    for title in ("trial", "arm", *(axis.replace("_", " ") for axis in axes), "epochs", "model"):
        table.add_column(title, no_wrap=True)
    for trial in trials:
        table.add_row(
            trial.trial_id,
            trial.arm,
            *(value_text(trial.axes.get(axis)) for axis in axes),
            str(trial.config.epochs),
            trial.config.model,
        )
    return table
