"""What a user sees while a study runs: one live table on a terminal, plain lines in a file or pipe."""

import signal
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from segstrat.formatting import format_duration
from segstrat.scores import Metric
from study.console.progress import outlook_words, progress_words, seconds_left, seconds_per_epoch
from study.console.tables import status_text, trials_table
from study.planning.trials import PlannedTrial
from study.search.base import Search
from study.search.two_stage import TwoStageSearch
from study.state.pretrainings import PretrainState
from study.state.trial_states import TrialState, TrialStates

LIVE_SECONDS = 0.5
PLAIN_SECONDS = 30.0
SHOWN_PRETRAININGS = 3


class StudyConsole:
    """Shows a study's states as they change; call `tick` as often as needed.

    Args:
        concurrent: jobs that run at the same time.
        pretrainings: of all trials that are known -> the states of the pre-trainings.
        awaited: what is waited for while nothing runs.
    """

    def __init__(
        self,
        console: Console,
        states: TrialStates,
        search: Search,
        concurrent: int,
        pretrainings: Callable[[Sequence[PlannedTrial]], Sequence[PretrainState]] = lambda _: (),
        awaited: Callable[[], str] = lambda: "workers are starting",
    ) -> None:
        self._console = console
        self._states = states
        self._search = search
        self._concurrent = concurrent
        self._pretrainings_of = pretrainings
        self._awaited = awaited
        self._started = time.monotonic()
        self._last_shown = 0.0
        self._printed: set[str] = set()
        self._live: Live | None = None

    def __enter__(self) -> "StudyConsole":
        self._printed = {key for key, state in self._states.by_id.items() if state.final}
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self) -> None:
        """Redraws the table, or prints the trials that have ended and, from time to time, the progress."""
        now = time.monotonic()
        if self._live is not None:
            if now - self._last_shown >= LIVE_SECONDS:
                self._last_shown = now
                limit = max(3, self._console.size.height - 6)
                table = trials_table(
                    self._states.in_order(),
                    self._states.metric,
                    self._pretrainings(),
                    width=self._console.width,
                    limit=limit,
                )
                self._live.update(Group(table, Text(self.summary())), refresh=True)
            return
        for made in self._pretrainings():
            if made.made and made.job.file not in self._printed:
                self._printed.add(made.job.file)
                self._console.print(
                    Text(f"pre-train {made.job.pretraining}: {status_text(made)}"), soft_wrap=True
                )
        for key, state in self._states.by_id.items():
            if state.final and key not in self._printed:
                self._printed.add(key)
                self._console.print(Text(ending_line(state, self._states.metric)), soft_wrap=True)
        if now - self._last_shown >= PLAIN_SECONDS:
            self._last_shown = now
            self._console.print(Text(self.summary()), soft_wrap=True)

    def _pretrainings(self) -> Sequence[PretrainState]:
        return self._pretrainings_of([state.trial for state in self._states.in_order()])

    def summary(self) -> str:
        """Progress and estimate of the time left."""
        states = self._states.in_order()
        elapsed = format_duration(time.monotonic() - self._started)
        more = self._search.remaining(states)
        pretrainings = self._pretrainings()
        left = seconds_left(states, pretrainings, concurrent=self._concurrent, unproposed=more)
        running = sum(state.active for state in states)
        making = [state for state in pretrainings if state.active]
        if left is not None:
            outlook = outlook_words(left, two_stages=isinstance(self._search, TwoStageSearch))
        elif running or making:
            untimed = "a pre-training" if seconds_per_epoch(states) else "a trial"
            outlook = f"the time left is known after the first epoch of {untimed}"
        else:
            outlook = self._awaited()
        words = f"{progress_words(states, more)}, {running} running"
        if making:
            done = ", ".join(f"{each.epoch}/{each.job.epochs}" for each in making[:SHOWN_PRETRAININGS])
            more_of_them = ", …" if len(making) > SHOWN_PRETRAININGS else ""
            several = "s" * (len(making) > 1)
            words += f", {len(making)} pre-training{several} at epoch{several} {done}{more_of_them}"
        return f"{words} · {elapsed} so far, {outlook}"

    def say(self, line: str) -> None:
        """Prints a line that is not about a single job."""
        self._console.print(Text(line, style="yellow"))

    def stopping(self, signum: int) -> None:
        """Says at once that a signal was received; ending the workers takes seconds."""
        cause = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        self._console.print(
            Text(f"{cause}: stopping the workers; what has finished is kept. A second one ends it at once.")
        )


def ending_line(state: TrialState, metric: Metric) -> str:
    """One line for a trial that has ended."""
    last = state.record.last_report
    value = metric.of_report(last) if last else None
    score = f", {metric.name} {value:.3f}" if value is not None else ""
    return f"{state.trial.label}: {status_text(state)}{score}"
