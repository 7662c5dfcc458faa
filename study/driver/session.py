"""One run of a study, from its first check to its last file."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from segstrat.errors import UserError
from segstrat.paths import data_root
from segstrat.store import Store
from segstrat.tasks import Task
from study.cli import AUTO, Options
from study.console.live import StudyConsole
from study.console.tables import cells_table
from study.console.tensorboard import EventFiles
from study.driver.interrupts import Interrupts, StudyInterruptedError
from study.driver.prepare import (
    check_data,
    halving_rule,
    open_study,
    parent_of,
    plan_study,
    provide_weights,
)
from study.driver.refresh import Refresher
from study.on_ray.runtime import Runtime, ray_session
from study.planning.resources import Node, Share, share
from study.planning.space import Space
from study.planning.trials import PlannedTrial
from study.search.base import PlannedSearch, Search
from study.state.halving import Rungs
from study.state.lock import study_lock
from study.state.manifest import new_manifest, read_study_manifest, refuse_changes, write_manifest
from study.state.shared_weights import share_weights
from study.state.trial_states import Ledger, TrialRow, rows_by_order


class CommonFailureError(Exception):
    """The first trials all failed alike."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A study that is ready to run, on a machine that is ready."""

    study: Store
    options: Options
    space: Space
    trials: Sequence[PlannedTrial]
    manifest: dict[str, Any]
    runtime: Runtime
    share: Share


def run_study(options: Options) -> int:
    """Runs or resumes a study and returns the exit code.

    Raises:
        UserError: for whatever can be seen to be wrong before a trial starts; then nothing has started.
        StudyInterruptedError: after SIGINT or SIGTERM; what had finished is on disk.
    """
    console = Console(highlight=False)
    study, options = open_study(options)
    space, trials, options = plan_study(study, options)
    with study_lock(study):
        data = check_data(options, trials, cache=not options.no_cache)
        trials, weights = provide_weights(options, trials)
        console.print(Text("Starting Ray …", style="dim"))
        with ray_session(
            address=options.address, dashboard=options.dashboard, verbose=options.verbose
        ) as runtime:
            # Imported here, after the environment that Ray reads was set.
            from study.on_ray.probes import check_shared

            check_shared(study, runtime.nodes)
            division = divide(options, runtime.nodes, trials, data, console)
            manifest = _manifest(study, options, space, trials, data, weights, runtime.nodes)
            write_manifest(study, manifest)
            if options.address is not None:
                share_weights(study, [trial.config for trial in trials])
            session = Session(
                study=study,
                options=options,
                space=space,
                trials=trials,
                manifest=manifest,
                runtime=runtime,
                share=division,
            )
            return _run(session, console)


def divide(
    options: Options,
    nodes: Sequence[Node],
    trials: Sequence[PlannedTrial],
    data: dict[str, Any],
    console: Console,
) -> Share:
    """What each trial gets of the nodes; for `--gpus-per-trial auto` the study's models are tried first."""
    footprint = None
    if options.gpus_per_trial == AUTO:
        from study.on_ray.probes import gpu_footprint, with_gpu_memory

        tasks = {name: Task(name, classes) for name, classes in data["classes"].items()}
        nodes = with_gpu_memory(nodes)
        footprint, lines = gpu_footprint(nodes, trials, tasks, options.precision or "float32")
        for line in lines:
            console.print(Text(f"probe     {line}"))
    division = share(
        nodes,
        gpus_per_trial=options.gpus_per_trial,
        cpus_per_trial=options.cpus_per_trial,
        max_concurrent=options.max_concurrent,
        footprint=footprint,
    )
    if division.gpus > 1:
        refuse_uneven(trials, int(division.gpus))
    return division


def refuse_uneven(trials: Sequence[PlannedTrial], gpus: int) -> None:
    """Raises a UserError for a trial that several GPUs cannot share."""
    for trial in trials:
        config = trial.config
        if config.batch_size % gpus:
            reason = f"its batch of {config.batch_size} cannot be dealt evenly"
        elif config.asynchronous:
            reason = "its parts update asynchronously, in one process"
        elif config.accumulation_steps > 1:
            reason = "it accumulates gradients; give it the larger batch instead"
        else:
            continue
        raise UserError(f"--gpus-per-trial {gpus}: not for trial {trial.label}: {reason}")


def _run(session: Session, console: Console) -> int:
    rule = halving_rule(session.options)
    refresher = Refresher(session.study, console)
    events = EventFiles(session.study)
    ledger = Ledger(session.study, Rungs(rule), session.space.metric, on_report=events.add)
    for trial in session.trials:
        ledger.add(trial)
    if session.options.resume:
        for note in ledger.recall(resume=True):
            console.print(Text(note, style="yellow"))
    search = make_search(session, ledger)

    def on_final(row: TrialRow) -> None:
        search.record(row)
        refresher.request()

    ledger.on_final = on_final
    screen = StudyConsole(console, ledger, search, rule, session.share.concurrent)
    _print_header(session, ledger, search, console)
    try:
        with Interrupts() as interrupts, screen:
            _run_trials(session, ledger, search, screen, interrupts)
    except StudyInterruptedError:
        _finish(refresher, session, console)
        _print_interrupted(session, ledger, console)
        raise
    except CommonFailureError as failure:
        _finish(refresher, session, console)
        console.print(
            Text(f"The first trials all fail alike, so the study was ended: {failure}", style="red")
        )
        console.print(Text(f"When that is mended: {resume_command(session.options)}"))
        return 1
    finally:
        events.close()
    sentence = _finish(refresher, session, console, add_gallery=lambda: _add_gallery(session, console))
    _print_end(session, ledger, sentence or "", console)
    failed = any(row.state == "failed" for row in ledger.rows.values())
    return 1 if failed or sentence is None else 0


def _finish(
    refresher: Refresher,
    session: Session,
    console: Console,
    add_gallery: Callable[[], None] = lambda: None,
) -> str | None:
    """Writes frames and report a last time; None, and a message, if that fails."""
    try:
        return refresher.finish(add_gallery)
    except Exception as error:  # the trials are safe on disk; a broken figure must not hide that
        if session.options.verbose:
            console.print_exception()
        console.print(
            Text(f"The trials are complete, but the report could not be written: {error}", style="red")
        )
        console.print(Text(f"Try again with: python study/report.py {session.study.uri}"))
        return None


def _add_gallery(session: Session, console: Console) -> None:
    """Adds pictures of predictions to the report, which is whole without them."""
    import torch

    from study.reporting.make_gallery import make_gallery

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        make_gallery(session.study.uri, data_root(session.options.data_root), device)
    except Exception as error:  # nothing was completed, or this machine has not got the data
        console.print(Text(f"no pictures of predictions in the report: {error}", style="yellow"))
        console.print(Text(f"where the data is: python study/predict.py --gallery {session.study.uri}"))


def make_search(session: Session, ledger: Ledger) -> Search:
    """Where the study's trials come from: its plan, or Optuna."""
    waiting = ledger.waiting()
    if session.space.search == "grid" or session.options.confirm is not None:
        return PlannedSearch(waiting)
    # Imported here: only a search needs Optuna.
    from study.search.optuna import OptunaSearch

    manifest = session.manifest

    def put_on_record(trial: PlannedTrial) -> None:
        manifest["trials"] = sorted([*manifest["trials"], trial.to_dict()], key=lambda each: each["order"])
        write_manifest(session.study, manifest)

    return OptunaSearch(
        session.space,
        session.trials,
        waiting,
        ledger,
        folder=session.study,
        budget=session.options.budget or 1.0,
        on_proposed=put_on_record,
    )


def _run_trials(
    session: Session, ledger: Ledger, search: Search, screen: StudyConsole, interrupts: Interrupts
) -> None:
    # Imported here, after the environment that Ray reads was set.
    from study.on_ray.tuning import run_trials

    def on_tick() -> None:
        interrupts.check()
        if failure := ledger.common_failure():
            raise CommonFailureError(failure)
        screen.tick()

    if search.finished:
        return
    run_trials(
        ledger,
        search,
        worker_settings(session),
        expected_concurrent=session.share.concurrent,
        # A cluster may grow while the study runs: there only the user sets a limit. A trial on several GPUs
        # asks Ray for them later itself, so Tune would start any number.
        max_concurrent=session.options.max_concurrent
        if session.options.address and session.share.gpus <= 1
        else session.share.concurrent,
        # An actor's name in the dashboard is fixed when it starts; there each trial gets its own. So does a
        # trial on several GPUs: its processes end with its actor.
        reuse_actors=not (session.options.dashboard or session.options.address or session.share.gpus > 1),
        on_tick=on_tick,
    )
    screen.tick()


def worker_settings(session: Session) -> dict[str, Any]:
    """What every worker needs besides its trial, see `study.on_ray.trainable.SegmentationTrial`."""
    options = session.options
    return {
        "study": options.name,
        "store": session.study.uri if not session.study.is_local else str(session.study.local_path),
        "cpus": session.share.cpus,
        "gpus": session.share.gpus,
        "precision": options.precision,
        "deterministic": options.deterministic,
        "compile": options.compile,
        "device_cache": options.device_cache,
        "data_root": options.data_root,
        "cache": not options.no_cache,
        "checkpoint_every": 1,
    }


def resume_command(options: Options) -> str:
    """The command that goes on with a study."""
    storage = "" if options.storage == Options.storage else f" --storage {options.storage!r}"
    return f"python study/run.py --resume --name {options.name}{storage}"


def _manifest(
    study: Store,
    options: Options,
    space: Space,
    trials: Sequence[PlannedTrial],
    data: dict[str, Any],
    weights: dict[str, str],
    nodes: Sequence[Node],
) -> dict[str, Any]:
    manifest = new_manifest(
        {
            "study": options.name,
            "space": space.name,
            "space_source": space.source,
            "question": space.question,
            "options": options.study_fields(),
            "hardware": describe_hardware(nodes),
            "data": data,
            "seeds": list(options.seeds or ()),
            "roles": space.roles,
            "metric": space.metric,
            "scheduler": halving_rule(options).to_dict(),
            "budget": options.budget,
            "weights": weights,
            "trials": [trial.to_dict() for trial in trials],
            "parent": None if options.resume else parent_of(options, trials),
        }
    )
    if not options.resume:
        return manifest
    recorded = read_study_manifest(study)
    if not options.accept_changes:
        refuse_changes(study, recorded, manifest)
    kept = {key: recorded[key] for key in ("created", "command", "parent")}
    return manifest | kept


def describe_hardware(nodes: Sequence[Node]) -> dict[str, Any]:
    """The machines that a study runs on, for the manifest."""
    return {
        "platform": platform.platform(),
        "nodes": [{"cpus": node.cpus, "gpus": node.gpus} for node in nodes],
        "cpus": sum(node.cpus for node in nodes),
        "gpus": sum(node.gpus for node in nodes),
        "driver_cpus": os.cpu_count(),
    }


def _print_header(session: Session, ledger: Ledger, search: Search, console: Console) -> None:
    data, share_ = session.manifest["data"], session.share
    kind = "synthetic scenes drawn by this project" if data["synthetic"] else "images"
    images = f"{data['train_images']} to train, {data['val_images']} to validate"
    hardware = session.manifest["hardware"]
    gpus = f", {hardware['gpus']} GPUs" if hardware["gpus"] else ", no GPU"
    each = f"{share_.cpus} core{'s' * (share_.cpus > 1)}" + (f", {share_.gpus:g} GPU" if share_.gpus else "")
    epochs = sum(trial.config.epochs for trial in session.trials)
    early = session.options.scheduler == "asha"
    stopping = "weak ones are stopped early, each arm for itself" if early else "no early stopping"
    waiting = ledger.waiting()
    lines = [
        f"{session.options.name}: {session.space.question}",
        f"data      {data['name']} ({kind}), {images}",
        f"machine   {hardware['cpus']} cores{gpus} on {len(hardware['nodes'])} node(s); "
        f"{share_.concurrent} trial{'s' * (share_.concurrent > 1)} at once, {each} each",
        f"trials    {len(session.trials)}, at most {epochs} epochs in all; {stopping}",
        *([f"          then {search.unproposed} more, proposed by Optuna"] if search.unproposed else []),
        f"results   {session.study.uri}",
    ]
    if session.options.dashboard or session.options.address:
        watching = session.runtime.dashboard_url or "off"
        lines.append(f"watch     dashboard {watching} (sign in with the output of `ray get-auth-token`)")
        lines.append(f"          Prometheus {session.runtime.metrics_url}")
    if session.options.resume:
        done = len(session.trials) - len(waiting)
        lines.append(f"resuming  {done} trials are done, {len(waiting)} are to run")
    for line in lines:
        console.print(Text(line))
    console.print()


def _print_interrupted(session: Session, ledger: Ledger, console: Console) -> None:
    open_trials = len(ledger.waiting()) + sum(
        row.state in ("running", "retrying", "ended") for row in ledger.rows.values()
    )
    done = len(ledger.rows) - open_trials
    console.print(Text(f"Interrupted: {done} trials are done and kept, {open_trials} are open."))
    console.print(Text(f"Go on with: {resume_command(session.options)}"))


def _print_end(session: Session, ledger: Ledger, sentence: str, console: Console) -> None:
    rows = rows_by_order(ledger.rows.values())
    console.print(cells_table(rows, session.space.metric))
    for name, what in (
        ("report.html", "the answer, one self-contained page"),
        ("trials.parquet", "a row a trial (also .csv)"),
        ("epochs.parquet", "trial × epoch × split × task (also .csv)"),
        ("figures/", "SVG and PNG"),
        ("tensorboard/", "curves while it ran: tensorboard --logdir"),
    ):
        console.print(Text(f"{session.study.uri}/{name}  {what}"))
    if sentence:
        console.print(Text(sentence, style="bold"))
