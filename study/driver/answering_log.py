"""What the answering stage has found so far: in the manifest, and as lines on the console."""

from rich.console import Console
from rich.text import Text

from study.search.two_stage import Progress, TwoStageSearch
from study.state.manifest import ManifestFile
from study.state.trial_states import TrialStates


class AnsweringLog:
    """Records nominations and looks as they happen; call `update` when a trial has ended."""

    def __init__(
        self, search: TwoStageSearch, states: TrialStates, manifest: ManifestFile, console: Console
    ) -> None:
        self._search = search
        self._states = states
        self._manifest = manifest
        self._console = console
        self._printed: set[str] = set()

    def update(self) -> None:
        """Writes what is new."""
        progress = self._search.progress(self._states.in_order())
        content = {key: found.to_dict() for key, found in progress.items()}
        if content and content != self._manifest.content.get("answering"):
            self._manifest.update(answering=content)
        for name, found in progress.items():
            for line in lines(found):
                text = f"{name}: {line}"
                if text not in self._printed:
                    self._printed.add(text)
                    self._console.print(Text(text))


def lines(progress: Progress) -> list[str]:
    """A context's nomination and looks in words."""
    found = []
    if progress.roles is not None:
        candidates = ", ".join([*progress.roles.raw, *progress.roles.pretrained])
        found.append(f"screening nominates {candidates}; reference: {', '.join(progress.roles.references)}")
    for look in progress.looks:
        found.append(f"look {look.number} of {look.looks}, {look.seeds} seeds: {look.reason}")
    if progress.problem:
        found.append(progress.problem)
    return found
