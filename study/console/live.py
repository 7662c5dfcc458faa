"""What a user sees while a study runs: one live table on a terminal, plain lines in a file or pipe."""

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from study.console.eta import in_words, seconds_left
from study.console.tables import status_text, trials_table
from study.search.base import Search
from study.state.halving import HalvingRule
from study.state.trial_states import FINAL, Ledger, TrialRow, rows_by_order

LIVE_SECONDS = 0.5
PLAIN_SECONDS = 30.0


class StudyConsole:
    """Shows a ledger as it changes; call `tick` as often as you like.

    Args:
        rule: of the scheduler, for the time that is left.
        concurrent: trials that run at the same time.
    """

    def __init__(
        self, console: Console, ledger: Ledger, search: Search, rule: HalvingRule, concurrent: int
    ) -> None:
        self._console = console
        self._ledger = ledger
        self._search = search
        self._rule = rule
        self._concurrent = concurrent
        self._started = time.monotonic()
        self._last_shown = 0.0
        self._told: set[str] = set()
        self._live: Live | None = None

    def __enter__(self) -> "StudyConsole":
        self._told = {key for key, row in self._ledger.rows.items() if row.state in FINAL}
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self) -> None:
        """Redraws the table, or prints what has ended and now and then how far the study is."""
        now = time.monotonic()
        if self._live is not None:
            if now - self._last_shown >= LIVE_SECONDS:
                self._last_shown = now
                rows = rows_by_order(self._ledger.rows.values())
                limit = max(3, self._console.size.height - 6)
                table = trials_table(rows, self._ledger.metric, limit=limit)
                self._live.update(Group(table, Text(self.summary())), refresh=True)
            return
        for key, row in self._ledger.rows.items():
            if row.state in FINAL and key not in self._told:
                self._told.add(key)
                self._console.print(Text(ending_line(row, self._ledger.metric)))
        if now - self._last_shown >= PLAIN_SECONDS:
            self._last_shown = now
            self._console.print(Text(self.summary()))

    def note(self, message: str) -> None:
        """Prints a line above the table."""
        self._console.print(Text(message, style="yellow"))

    def summary(self) -> str:
        """How far the study is and how long it will still take."""
        rows = list(self._ledger.rows.values())
        done = sum(row.state in FINAL for row in rows)
        elapsed = in_words(time.monotonic() - self._started)
        more = self._search.unproposed
        left = seconds_left(rows, self._rule, concurrent=self._concurrent, unproposed=more)
        outlook = f"about {in_words(left)} left" if left is not None else "workers are starting"
        running = _running(rows)
        return f"{done}/{len(rows) + more} trials done, {running} running · {elapsed} so far, {outlook}"


def ending_line(row: TrialRow, metric: str) -> str:
    """One line for a trial that has ended."""
    last = row.last_report
    value = last.metrics().get(metric) if last else None
    score = f", {metric} {value:.3f}" if value is not None else ""
    return f"{row.trial.label}: {status_text(row)}{score}"


def _running(rows: Sequence[TrialRow]) -> int:
    return sum(row.state in ("running", "retrying") for row in rows)
