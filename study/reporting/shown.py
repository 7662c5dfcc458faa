"""Which settings of a verdict are shown in curves, class scores and the gallery."""

from study.analysis.verdict import Verdict


def shown_settings(verdict: Verdict) -> list[tuple[str, bool, str]]:
    """The settings that curves and class scores show: `(name, pretrained, setting)`, without repeats."""
    found = verdict.contrasts
    wanted = [
        ("raw, reference", False, found.reference),
        ("raw, best regularized", False, found.best_raw.usual),
        ("pre-trained, best", True, found.best_pretrained.usual),
        ("pre-trained, at the reference's setting", True, found.reference),
    ]
    shown: dict[tuple[bool, str], str] = {}
    for name, pretrained, setting in wanted:
        if setting is not None:
            shown.setdefault((pretrained, setting), name)
    return [(name, pretrained, setting) for (pretrained, setting), name in shown.items()]
