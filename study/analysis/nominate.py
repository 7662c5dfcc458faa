"""Which cells the screening stage nominates for the answering stage.

Screening trains every cell on few seeds and stops weak trials early, so its values are optimistic for the
best and incomplete for the rest. It therefore decides nothing but which candidates are trained again, to the
end and on fresh seeds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from segstrat.errors import UserError
from study.analysis.design import AnsweringDesign
from study.analysis.sequential import Roles


@dataclass(frozen=True)
class Nomination:
    """What screening nominates.

    Args:
        roles: reference and candidates, the best first.
        ranking: one row per cell, the best of each arm first: `cell pretrained completed reached score
            candidate`.
    """

    roles: Roles
    ranking: pd.DataFrame


def nominate(trials: pd.DataFrame, reference: str, design: AnsweringDesign | None = None) -> Nomination:
    """The best raw and the best pre-trained cells of one context.

    Cells rank first by how far their trials came, so that a value from the middle of a training never
    competes with a final one, then by their mean score relative to the others on the same seed, so
    that a missing seed neither helps nor harms. A diverged trial ranks last on its seed. Ties take the
    order of the rows.

    Args:
        trials: one row per screening trial: `cell` (label), `pretrained` (bool), `seed`, `status`, `value`
            (the last validation score that it showed), `reached` (share of its epochs that it trained).
        reference: label of the raw cell without regularization; never a candidate.

    Raises:
        UserError: if an arm has no candidate or no trial of the reference is planned.
    """
    design = design or AnsweringDesign()
    if reference not in set(trials["cell"]):
        raise UserError(f"no screening trial of the reference cell {reference}; a verdict needs one")
    ranking = _ranked(trials)
    most = {False: design.raw_candidates, True: design.pretrained_candidates}
    ranking["candidate"] = False
    for pretrained, count in most.items():
        able = (ranking["pretrained"] == pretrained) & (ranking["cell"] != reference)
        able &= ranking["score"].notna()
        if not able.any():
            arm = "pre-trained" if pretrained else "regularized raw"
            raise UserError(f"screening left no {arm} cell with a score; nothing can be answered")
        ranking.loc[ranking.index[able][:count], "candidate"] = True
    chosen = ranking[ranking["candidate"]]
    roles = Roles(
        reference=reference,
        raw=tuple(chosen.loc[~chosen["pretrained"], "cell"]),
        pretrained=tuple(chosen.loc[chosen["pretrained"], "cell"]),
    )
    return Nomination(roles, ranking)


def _ranked(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, the best of each arm first."""
    scored = trials[trials["status"].isin(["completed", "stopped", "diverged"])].copy()
    scored["pretrained"] = scored["pretrained"].astype(bool)
    diverged = scored["status"] == "diverged"
    # On its seed a diverged trial stands below everything that its arm showed there.
    lowest = scored["value"].groupby([scored["pretrained"], scored["seed"]]).transform("min")
    scored["value"] = scored["value"].where(~diverged, lowest)
    scored["reached"] = scored["reached"].where(~diverged, 0.0)
    groups = [scored["pretrained"], scored["seed"], scored["reached"]]
    scored["score"] = scored["value"] - scored["value"].groupby(groups).transform("median")
    order = {cell: place for place, cell in enumerate(dict.fromkeys(trials["cell"]))}
    rows = []
    for (pretrained, cell), group in scored.groupby(["pretrained", "cell"], sort=False):
        rows.append(
            {
                "cell": cell,
                "pretrained": pretrained,
                "completed": int((group["status"] == "completed").sum()),
                "reached": float(group["reached"].mean()),
                "score": float(np.mean(group["score"])),
            }
        )
    columns = ["cell", "pretrained", "completed", "reached", "score"]
    ranking = pd.DataFrame(rows, columns=columns)
    ranking["order"] = ranking["cell"].map(order)
    ranking = ranking.sort_values(
        ["pretrained", "reached", "score", "order"], ascending=[True, False, False, True]
    )
    return ranking.drop(columns="order").reset_index(drop=True)
