"""Keeps frames and report up to date while a study runs."""

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from segstrat.store import Store

# Drawing takes seconds of a core that trials could use: at most a tenth of the time is spent on it.
SHARE = 0.1


class Refresher:
    """Rewrites frames and report in a background thread on request, at a limited rate.

    An error there must not end the study: it is printed once, and only `finish` raises.
    """

    def __init__(self, study: Store, console: Console) -> None:
        self._study = study
        self._console = console
        self._last_error = ""
        self._asked = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)
        self._thread.start()

    def request(self) -> None:
        """Requests new frames soon."""
        self._asked.set()

    def finish(self, add_gallery: Callable[[], None] = lambda: None) -> str:
        """Ends the thread, writes everything a last time and returns the report's one sentence.

        Args:
            add_gallery: called between the frames, which it reads, and the report, which shows it.
        """
        self._ending.set()
        self._asked.set()
        self._thread.join()
        return write_all(self._study, files=True, add_gallery=add_gallery)

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._ending.is_set():
                return
            start = time.monotonic()
            try:
                write_all(self._study, files=False)
            except Exception as error:  # a broken figure must not end hours of training
                if str(error) != self._last_error:
                    self._last_error = str(error)
                    message = f"frames and report could not be refreshed: {error}"
                    self._console.print(Text(message, style="yellow"))
            if self._ending.wait((time.monotonic() - start) / SHARE):
                return


def write_all(study: Store, *, files: bool, add_gallery: Callable[[], None] = lambda: None) -> str:
    """Writes the frames, then the report, and returns the report's one sentence."""
    # Imported here: pandas and matplotlib are loaded while the first trials start, not before.
    from study.frame import write_frames
    from study.reporting.render import write_report

    write_frames(study)
    add_gallery()
    return write_report(study, files=files)
