"""Learning-rate schedules: pure functions of progress, so that resuming needs no state."""

import math


def cosine(progress: float) -> float:
    """Share of the initial learning rate at `progress` in [0, 1] of the budget: 1 down to 0.

    Half a cosine, ½(1 + cos(π·progress)). Thesis Eq. 6.3 writes a recursion; its code is this closed form,
    evaluated once per iteration.
    """
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
