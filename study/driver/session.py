"""One run of a study, from its first check to its last file."""

import functools
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from segstrat.errors import UserError
from segstrat.records import Stage, TrialStatus
from segstrat.store import StorageError, Store, data_root
from study.cli import Flags
from study.console.live import StudyConsole
from study.console.tensorboard import EventFiles
from study.console.tracking import Tracker, check_library
from study.driver.data_check import check_data
from study.driver.jobs import Jobs
from study.driver.loop import Loop, Observers
from study.driver.messages import (
    awaited_words,
    hanging,
    header_lines,
    print_end,
    print_interrupted,
    report_command,
    resume_command,
    watching_lines,
)
from study.driver.placement import asked_precision, divide, study_precision
from study.driver.prepare import (
    OpenedStudy,
    check_resumable,
    describe_study,
    make_search,
    open_study,
    plan_study,
    stopping_rule,
    with_classes,
)
from study.driver.stages import AnsweringLog
from study.driver.weights import Weights
from study.on_ray.runtime import ClusterLostError, Runtime, ray_session
from study.planning.resources import Share
from study.planning.space_files import is_space_file, space_file
from study.planning.trials import PlannedTrial
from study.search.base import Search
from study.state.changes import accepted_changes
from study.state.lock import study_lock
from study.state.manifest import ManifestFile, contains_study
from study.state.pretrainings import FOLDER, PlannedPretraining
from study.state.trial_states import ALL, LAST, NONE, TrialState, TrialStates, drop_checkpoints

if TYPE_CHECKING:
    from study.frame import GrowingFrames
    from study.on_ray.tune_executor import TuneExecutor

# Drawing takes seconds of a core that trials could use: at most a tenth of the time is spent on it.
REFRESH_SHARE = 0.1
# A study that is over by then draws its figures once.
FIRST_REPORT_SECONDS = 60.0


class Refresher:
    """Keeps frames and report of a running study up to date in a background thread.

    The trials that have ended are added to the frames at once, those that are running with each report; the
    report is written at a limited rate, and after a minute at the earliest. An error there must not end the
    study: it is printed once, and only `finish` raises.

    Args:
        manifest: gives the study's manifest as it is now.
    """

    def __init__(self, study: Store, console: Console, manifest: Callable[[], Mapping[str, Any]]) -> None:
        self._study = study
        self._console = console
        self._manifest = manifest
        self._frames: GrowingFrames | None = None
        # Trials that have reported, or ended, since they were written last.
        self._reported: set[str] = set()
        self._ended: set[str] = set()
        self._last_error = ""
        self._asked = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)
        self._thread.start()

    def reported(self, trial_id: str) -> None:
        """A trial has a new epoch."""
        self._reported.add(trial_id)

    def ended(self, trial_id: str) -> None:
        """A trial has an outcome, which is written soon."""
        self._ended.add(trial_id)
        self._asked.set()

    def finish(self, add_gallery: Callable[[], None] = lambda: None) -> str:
        """Ends the thread, writes everything a last time and returns the report's one sentence.

        Args:
            add_gallery: called between the frames, which it reads, and the report, which shows it.
        """
        self._ending.set()
        self._asked.set()
        self._thread.join()
        from study.frame import write_frames
        from study.reporting.render import write_report

        # From the records alone, whatever was written on the way.
        write_frames(self._study)
        add_gallery()
        return write_report(self._study)

    def _run(self) -> None:
        report_at, behind = time.monotonic() + FIRST_REPORT_SECONDS, False
        while True:
            self._asked.wait(max(0.0, report_at - time.monotonic()) if behind else None)
            self._asked.clear()
            if self._ending.is_set():
                return
            start = time.monotonic()
            behind = start < report_at
            try:
                self._write(report=not behind)
            except Exception as error:  # a broken figure must not end hours of training
                if str(error) != self._last_error:
                    self._last_error = str(error)
                    message = f"frames and report could not be refreshed: {error}"
                    self._console.print(Text(message, style="yellow"))
            pause = (time.monotonic() - start) / REFRESH_SHARE
            if not behind:
                report_at = time.monotonic() + pause
            elif self._ending.wait(pause):
                return

    def _write(self, *, report: bool) -> None:
        """Writes the trials that have ended since the last time or, for a report, all that have changed."""
        # Imported here: pandas and matplotlib are loaded while the first trials start, not before.
        from study.frame import GrowingFrames

        self._frames = self._frames or GrowingFrames(self._study, self._manifest)
        changed = _take(self._ended) | (_take(self._reported) if report else set())
        try:
            self._frames.update(changed)
        except Exception:
            self._ended |= changed
            raise
        if report:
            from study.reporting.render import write_report

            self._frames.gather()
            write_report(self._study, files=False)


def _take(names: set[str]) -> set[str]:
    """Empties a set to which another thread adds."""
    taken: set[str] = set()
    while names:
        taken.add(names.pop())
    return taken


class CommonFailureError(Exception):
    """The first trials all failed with the same error."""


class StudyInterruptedError(Exception):
    """A signal requests that the study end now."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """Catches SIGINT and SIGTERM in its block, so that a study ends when nothing is half written.

    Yields:
        a function that raises `StudyInterruptedError` if a signal has come. A second signal is a
        `KeyboardInterrupt` at once.
    """
    received: list[int] = []

    def handle(signum: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signum)

    def check() -> None:
        if received:
            raise StudyInterruptedError(received[0])

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A study that is ready to run, on a machine that is ready.

    Args:
        check_lock: see `study.state.lock.study_lock`.
    """

    opened: OpenedStudy
    flags: Flags
    manifest: ManifestFile
    runtime: Runtime
    share: Share
    states: TrialStates
    weights: Weights
    check_lock: Callable[[], None]


def run_study(flags: Flags) -> int:
    """Runs or resumes a study and returns the exit code.

    After SIGINT or SIGTERM that is 128 plus the signal's number, and what had finished is on disk.

    Raises:
        UserError: for everything that can be checked before a trial starts; nothing has started then.
    """
    console = Console(highlight=False)
    opened = open_study(flags)
    try:
        return _prepare_and_run(opened, flags, console)
    except KeyboardInterrupt:
        # While the study was prepared, while its last files were written, or a second Ctrl-C.
        begun = contains_study(opened.study)
        words = f"continue with: {resume_command(opened.settings)}" if begun else "no trial had started"
        console.print(Text(f"Interrupted; {words}"), soft_wrap=True)
        return 130


def _prepare_and_run(opened: OpenedStudy, flags: Flags, console: Console) -> int:
    study, settings = opened.study, opened.settings
    check_library(flags.track, study)
    trials = plan_study(opened)
    # Before the data is read and Ray is started, which takes a minute.
    check_resumable(opened, trials, accept_changes=flags.accept_changes)
    with study_lock(study) as check_lock:
        weights = Weights(
            settings,
            opened.design,
            opened.recorded.get("weights"),
            shared=study / FOLDER if flags.address is not None else None,
            accept_changes=flags.accept_changes,
        )
        # Before the data, which may take minutes to decode.
        weights.check(trials)
        data = check_data(settings, trials, cache=not flags.no_cache)
        opened = with_classes(opened, data)
        console.print(Text("Starting Ray …", style="dim"))
        with ray_session(
            address=flags.address,
            dashboard=flags.dashboard,
            verbose=flags.verbose,
            space_file=space_file(settings.space),
        ) as runtime:
            # Imported here, after the environment that Ray reads was set.
            from study.on_ray.probes import check_shared

            check_shared(study, runtime.nodes)
            asked = asked_precision(settings.numerics.precision, opened.recorded)
            share = divide(flags, asked, runtime.nodes, trials, data, console)
            precision, measured = study_precision(asked, runtime.nodes, trials, data["classes"], share)
            content = describe_study(
                opened,
                trials,
                data=data,
                weights=weights.describe(),
                nodes=runtime.nodes,
                precision=precision,
                precision_seconds=measured,
                accept_changes=flags.accept_changes,
            )
            manifest = ManifestFile(study, content)
            session = Session(
                opened=opened,
                flags=flags,
                manifest=manifest,
                runtime=runtime,
                share=share,
                states=read_states(opened, trials, console),
                weights=weights,
                check_lock=check_lock,
            )
            return _run(session, console)


def read_states(opened: OpenedStudy, trials: list[PlannedTrial], console: Console) -> TrialStates:
    """The states of the planned trials, from disk where the study is resumed."""
    states = TrialStates(opened.study, stopping_rule(opened), opened.space.metric)
    for trial in trials:
        states.add(trial)
    if opened.recorded:
        for note in states.resume():
            console.print(Text(note, style="yellow"))
    return states


def _run(session: Session, console: Console) -> int:
    refresher = Refresher(session.opened.study, console, lambda: session.manifest.content)
    settings = session.opened.settings
    with Tracker.of(session.flags.track, session.opened.study, settings.name, console) as tracker:
        code = _train(session, console, refresher, tracker)
        return _answer(session, console, refresher, tracker) if code is None else code


def _train(session: Session, console: Console, refresher: Refresher, tracker: Tracker) -> int | None:
    """Trains what the study asks for; the exit code where it ends before that, else None."""
    opened, states = session.opened, session.states
    events = EventFiles(opened.study, session.runtime.scratch)
    search = make_search(opened, [state.trial for state in states.in_order()], session.manifest.content)
    observers = _observers(session, search, events, console, refresher, tracker)
    executor = make_executor(session)
    jobs = Jobs(
        executor,
        session.weights,
        slots=session.share.concurrent,
        record=functools.partial(record, session),
    )
    screen = StudyConsole(
        console,
        states,
        search,
        session.share.concurrent,
        jobs.pretrainings,
        awaited=lambda: awaited_words(session.runtime.watch.crowded, session.share.gpus),
    )
    lines = header_lines(opened, session.manifest.content, states, session.share, search)
    for line in (*lines, *watching_lines(session.flags, session.runtime), ""):
        console.print(Text(hanging(line, console.width)), soft_wrap=True)
    try:
        with interrupts() as check, screen, executor:
            loop = Loop(states, search, executor, observers, jobs=jobs, record=session.manifest.add_trials)
            with session.runtime.watch.explaining():
                loop.run(lambda: _tick(session, screen, check))
            screen.tick()
        # One that came while the workers ended.
        check()
    except StudyInterruptedError as interrupt:
        _finish(refresher, session, console)
        print_interrupted(opened.settings, states, jobs.pretrainings([]), console)
        return 128 + interrupt.signum
    except StorageError as error:
        raise UserError(f"{error}; then continue with: {resume_command(opened.settings)}") from error
    except ClusterLostError as lost:
        _finish(refresher, session, console)
        console.print(Text(f"The study was ended because {lost}.", style="red"))
        print_interrupted(opened.settings, states, jobs.pretrainings([]), console)
        return 1
    except CommonFailureError as failure:
        _finish(refresher, session, console)
        console.print(
            Text(
                f"The first trials all failed with the same error, so the study was ended: {failure}",
                style="red",
            )
        )
        console.print(Text(f"Once that is fixed: {resume_command(opened.settings)}"), soft_wrap=True)
        return 1
    finally:
        events.close()
    return None


def _observers(
    session: Session,
    search: Search,
    events: EventFiles,
    console: Console,
    refresher: Refresher,
    tracker: Tracker,
) -> Observers:
    """Who must hear of what happens to a trial, in this order."""
    states, keep = session.states, session.opened.settings.keep_checkpoints
    return Observers(
        reported=[
            events.add,
            tracker.reported,
            lambda state, _: refresher.reported(state.trial.trial_id),
        ],
        finished=[
            tracker.finished,
            *outcome_observers(session),
            *answering_observers(session, search, console),
            # Until the report is written, the last checkpoints are needed.
            lambda state: drop_checkpoints(states, [state], ALL if keep == ALL else LAST),
            lambda state: refresher.ended(state.trial.trial_id),
        ],
        retried=[
            lambda job, error: console.print(Text(f"{job}: {error}; it is tried again", style="yellow")),
            lambda _, error: _check_storage(session.opened.study, error),
        ],
    )


def _check_storage(study: Store, error: str) -> None:
    """Ends a study at once, and not trial by trial, where storage that failed a worker fails the driver too.

    Raises:
        StorageError: if it does.
    """
    if error.startswith(StorageError.__name__):
        study.names()


def _answer(session: Session, console: Console, refresher: Refresher, tracker: Tracker) -> int:
    """Writes the report of a study whose trials are done; returns the exit code."""
    opened, states = session.opened, session.states
    keep = opened.settings.keep_checkpoints
    try:
        sentence = _finish(refresher, session, console, add_gallery=lambda: _add_gallery(session, console))
    except KeyboardInterrupt:
        console.print(
            Text(f"Interrupted: all trials are done; write the report with: {report_command(opened.study)}"),
            soft_wrap=True,
        )
        return 130
    tracker.answered(opened.study)
    drop_checkpoints(states, states.in_order(), keep)
    if keep == NONE:
        # The frames say which checkpoints there are.
        from study.frame import write_frames

        write_frames(opened.study)
    print_end(opened, states, sentence or "", console)
    failed = any(state.record.status is TrialStatus.FAILED for state in states.by_id.values())
    return 1 if failed or sentence is None else 0


def answering_observers(
    session: Session, search: Search, console: Console
) -> list[Callable[[TrialState], None]]:
    """Who must hear of outcomes to record and log what they decide."""
    log = AnsweringLog(search, session.states, session.manifest, console)
    if session.opened.recorded:
        log.update()
    return [lambda _: log.update()]


def outcome_observers(session: Session) -> list[Callable[[TrialState], None]]:
    """Who must hear of a trial's outcome, besides the report."""
    opened = session.opened
    if opened.space.search != "tpe" or opened.settings.confirm:
        return []
    # Imported here: only a search needs Optuna.
    from study.search.optuna import OptunaDatabase

    stage = Stage.ANSWERING if opened.design is None else Stage.SCREENING
    database = OptunaDatabase(opened.study, opened.space, session.states.in_order(), stage)
    return [database.add]


def make_executor(session: Session) -> "TuneExecutor":
    """The executor of the study's jobs; it starts none before its `with` block."""
    # Imported here, after the environment that Ray reads was set.
    from study.on_ray.tune_executor import TuneExecutor

    flags, share = session.flags, session.share
    return TuneExecutor(
        worker_settings(session),
        expected_concurrent=share.concurrent,
        # A cluster may grow while the study runs: there only the user sets a limit. A trial on several GPUs
        # asks Ray for them later itself, so Tune would start any number.
        max_concurrent=flags.max_concurrent if flags.address and share.gpus <= 1 else share.concurrent,
        # An actor's name in the dashboard is fixed when it starts; there each job gets its own. So does a
        # trial on several GPUs: its processes end with its actor.
        scratch=session.runtime.scratch,
        reuse_actors=not (flags.dashboard or flags.address or share.gpus > 1),
    )


def record(
    session: Session, trials: Sequence[PlannedTrial], unfinished: Sequence[PlannedPretraining]
) -> None:
    """Writes trials that are about to start, their weights, and what is still pre-trained to the manifest."""
    manifest, weights = session.manifest, session.weights
    content: dict[str, Any] = {}
    if words := weights.take_accepted():
        content["accepted"] = accepted_changes(manifest.content, manifest.content, words)
    if learned := weights.take_learned():
        # Imported here: it draws figures, too.
        from study.reporting.plot_self_supervision import add_runs

        add_runs(session.opened.study, learned)
    content |= {"weights": weights.describe(), "pretrainings": [job.to_dict() for job in unfinished]}
    manifest.put_trials(trials, **content)


def _tick(session: Session, screen: StudyConsole, check_signals: Callable[[], None]) -> None:
    try:
        check_signals()
    except StudyInterruptedError as interrupt:
        screen.stopping(interrupt.signum)
        raise
    session.check_lock()
    for line in session.runtime.watch.news():
        screen.say(line)
    if failure := session.states.common_failure():
        raise CommonFailureError(failure)
    screen.tick()


def worker_settings(session: Session) -> dict[str, Any]:
    """What every worker needs besides its job, see `study.on_ray.jobs.StudyJob`."""
    settings, study = session.opened.settings, session.opened.study
    return {
        "study": settings.name,
        "store": str(study.local_path) if study.is_local else study.uri,
        "shared_weights": session.flags.address is not None,
        "cpus": session.share.cpus,
        "gpus": session.share.gpus,
        # Resolved once: a node that joins later must not decide for itself.
        **(settings.numerics.numerics() | {"precision": session.manifest.content["precision"]}),
        "data_root": settings.data_root or None,
        "cache": not session.flags.no_cache,
        "checkpoint_every": 1,
        "space_file": settings.space if is_space_file(settings.space) else None,
    }


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
        if session.flags.verbose:
            console.print_exception()
        console.print(
            Text(f"The trials are complete, but the report could not be written: {error}", style="red")
        )
        console.print(Text(f"Try again with: {report_command(session.opened.study)}"), soft_wrap=True)
        return None


def _add_gallery(session: Session, console: Console) -> None:
    """Adds pictures of predictions to the report, which is complete without them."""
    import torch

    from study.reporting.gallery import make_gallery

    study = session.opened.study
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        make_gallery(study.uri, data_root(session.opened.settings.data_root or None), device)
    except Exception as error:  # nothing was completed, or this machine does not have the data
        console.print(Text(f"no pictures of predictions in the report: {error}", style="yellow"))
        uri = shlex.quote(study.uri)
        console.print(
            Text(f"where the data is: uv run python study/predict.py --gallery {uri}"), soft_wrap=True
        )
