"""What the command line shows without starting anything: spaces, a plan, the state of a study."""

import dataclasses

from rich.console import Console
from rich.text import Text

from segstrat.store import Store
from study.console.progress import outlook_words, progress_words, seconds_left
from study.console.tables import new_table, problem_lines, trials_table
from study.planning.space import load_space, space_names
from study.state.lock import is_locked
from study.state.manifest import read_study_manifest
from study.state.pretrainings import read_pretrainings
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


def show_status(folder: str) -> int:
    """Prints the table of a running or ended study from its files alone."""
    study = Store(folder)
    manifest = read_study_manifest(study)
    states = TrialStates.recorded(study, manifest)
    in_order = states.in_order()
    running = is_locked(study)
    pretrainings = read_pretrainings(manifest.get("pretrainings", []), study)
    if running:
        in_order = [_presumably_running(state) for state in in_order]
        pretrainings = [
            dataclasses.replace(each, phase=Phase.RUNNING) if each.epoch else each for each in pretrainings
        ]
    console = Console(highlight=False)
    console.print(Text(f"{manifest['study']}: {manifest['question']}"))
    console.print(trials_table(in_order, states.metric, pretrainings, width=console.width))
    for line in problem_lines(in_order):
        console.print(Text(line))
    concurrent = sum(state.active for state in in_order)
    left = seconds_left(in_order, concurrent=concurrent) if running else None
    two_stages = bool(manifest.get("design"))
    outlook = f", {outlook_words(left, two_stages=two_stages)}" if left is not None else ""
    done = count_final(in_order)
    if not running and done < len(in_order):
        outlook = f"; continue with: uv run python study/run.py --resume --name {manifest['study']}"
    driver = "a driver is running" if running else "no driver is running"
    console.print(Text(f"{progress_words(in_order)}; {driver}{outlook}"))
    return 0


def _presumably_running(state: TrialState) -> TrialState:
    """A trial that has reported and not ended, while a driver is at work."""
    if state.final or state.phase is not Phase.WAITING or not state.record.reports:
        return state
    return dataclasses.replace(state, phase=Phase.RUNNING)
