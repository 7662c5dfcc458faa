"""A comparison as a table on the console."""

from rich.table import Table

from benchmarks.timing import Claim, Comparison


def table(comparison: Comparison, *, verdicts: bool) -> Table:
    """Median times, and the median and quartiles of the rounds' ratios to the reference.

    Args:
        verdicts: say whether the claims hold.
    """
    rounds = len(comparison.seconds[comparison.reference])
    title = f"{comparison.title} ({rounds} round{'s' * (rounds > 1)})"
    result = Table(title=title, title_justify="left", min_width=60)
    result.add_column("")
    result.add_column(f"ms / {comparison.unit}", justify="right")
    result.add_column(f"× {comparison.reference}", justify="right")
    result.add_column("quartiles", justify="right")
    for name in comparison.seconds:
        ratio, low, high = comparison.ratio(comparison.reference, name)
        milliseconds = comparison.median(name) * 1e3
        digits = max(0, 2 - len(str(int(milliseconds))) + 1)
        time = f"{milliseconds:.{digits}f}"
        result.add_row(name, time, f"{ratio:.2f}", f"{low:.2f}–{high:.2f}")
    lines = [verdict(comparison, claim) for claim in comparison.claims if verdicts]
    result.caption = "\n".join(lines + comparison.notes)
    result.caption_justify = "left"
    return result


def verdict(comparison: Comparison, claim: Claim) -> str:
    """Whether a claim holds, with the measured ratio and the goal."""
    ratio = comparison.ratio(claim.faster, claim.slower)[0]
    word = "met" if ratio >= claim.at_least else "missed"
    return f"{claim.faster} against {claim.slower}: {ratio:.2f}×, goal {claim.at_least:.3g}×: {word}"
