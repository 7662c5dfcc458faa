"""Progress of pre-training on standard error: bars on a terminal, else one line per epoch."""

from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segstrat.pretraining.loop import PretrainReport


class PretrainProgress:
    """A display of one or more runs at once; a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)

    def __enter__(self) -> "PretrainProgress":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def follow(self, reports: Iterable[PretrainReport], title: str, epochs: int) -> PretrainReport | None:
        """Consumes the reports of a run; runs may be followed from several threads.

        Returns:
            the last report, or None if every epoch had been trained before.
        """
        task = self._bars.add_task(title, total=epochs, note="")
        report = None
        for report in reports:
            note = f"loss {report.train_loss:.3f}, top-1 {report.top1:.1%}, top-5 {report.top5:.1%}"
            self._bars.update(task, completed=report.epoch, note=note)
            if not self._console.is_terminal:
                self._console.print(
                    f"{title}: epoch {report.epoch}/{epochs}, {note}, {report.seconds:.1f} s", soft_wrap=True
                )
        return report
