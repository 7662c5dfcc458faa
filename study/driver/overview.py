"""What the command line shows without starting anything: spaces, a plan, the state of a study."""

import dataclasses
import gc
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from segstrat.store import Store, cache_dir
from study.console.progress import outlook_words, progress_words, resume_words, seconds_left
from study.console.tables import first_shown, new_table, problem_lines, status_counts, trials_table
from study.planning.space import load_space, space_names
from study.state.lock import is_locked
from study.state.manifest import read_study_manifest
from study.state.pretrainings import FOLDER, read_pretrainings
from study.state.trial_states import BEGUN, Phase, TrialState, TrialStates, count_final

# One screen.
MOST_ROWS = 40


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


def show_status(folder: str, *, verbose: bool = False) -> int:
    """Prints the table of a running or ended study from its files alone.

    Args:
        verbose: show every trial; else what fits on a screen, and only those are read as a whole.
    """
    study = Store(folder)
    most = None if verbose else MOST_ROWS
    with _without_collector():
        manifest = read_study_manifest(study)
        states = TrialStates.recorded(study, manifest, whole=verbose)
    if most is not None:
        states.read([state.trial.trial_id for state in first_shown(states.in_order(), most)])
    in_order = states.in_order()
    running = is_locked(study)
    pretrainings = read_pretrainings(manifest.get("pretrainings", []), study)
    if running:
        # Imported here: it loads what reads images, which takes longer than all of this.
        from segstrat.data.cache.entries import is_locked_here

        in_order = [_presumably_running(state, states) for state in in_order]
        pretrainings = [
            dataclasses.replace(each, phase=Phase.RUNNING)
            if each.epoch or is_locked_here(cache_dir() / FOLDER / each.job.file)
            else each
            for each in pretrainings
        ]
    console = Console(highlight=False)
    console.print(Text(f"{manifest['study']}: {manifest['question']}"))
    table = trials_table(in_order, states.metric, pretrainings, width=console.width, limit=most)
    console.print(table)
    if most is not None and len(in_order) > most:
        counts = status_counts(in_order)
        console.print(Text(f"{len(in_order):,} trials: {counts}; --verbose lists them all"))
    for line in problem_lines(in_order, most=most):
        console.print(Text(line), soft_wrap=True)
    concurrent = sum(state.active for state in in_order)
    left = seconds_left(in_order, concurrent=concurrent) if running else None
    two_stages = bool(manifest.get("design"))
    outlook = f", {outlook_words(left, two_stages=two_stages)}" if left is not None else ""
    done = count_final(in_order)
    if not running and done < len(in_order):
        base, mark, query = study.uri.rstrip("/").partition("?")
        parent = f"{base.rstrip('/').rpartition('/')[0] or '.'}{mark}{query}"
        outlook = f"; continue with: {resume_words(manifest['study'], parent)}"
    driver = "a driver is running" if running else "no driver is running"
    console.print(Text(f"{progress_words(in_order)}; {driver}{outlook}"), soft_wrap=True)
    return 0


@contextmanager
def _without_collector() -> Iterator[None]:
    """No garbage is looked for while the objects of thousands of trials are made, all of which are kept."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _presumably_running(state: TrialState, states: TrialStates) -> TrialState:
    """A trial that was begun and has not ended, while a driver is at work."""
    if state.final or state.phase is not Phase.WAITING:
        return state
    if not (state.record.reports or states.folder(state.trial).exists(BEGUN)):
        return state
    return dataclasses.replace(state, phase=Phase.RUNNING)
