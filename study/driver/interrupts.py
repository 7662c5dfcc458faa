"""Ctrl-C and SIGTERM end a study at a moment when nothing is half written."""

import signal
from types import FrameType, TracebackType


class StudyInterruptedError(Exception):
    """A signal requests that the study end now."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts:
    """Catches SIGINT and SIGTERM inside its `with` block.

    The first signal is remembered until `check` is called; a second one is a `KeyboardInterrupt`.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raises `StudyInterruptedError` if a signal has come."""
        if self._received is not None:
            raise StudyInterruptedError(self._received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = signum
