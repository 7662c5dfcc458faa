"""What the study cost: a sentence and a figure."""

import pandas as pd
from matplotlib.figure import Figure

from segstrat.formatting import format_duration
from study.analysis import Answer
from study.analysis.caveats_and_notes import outcome_sentences
from study.analysis.study import Study
from study.reporting.figure_files import Picture
from study.reporting.figure_style import MUTED, arm_colors, new_panel, raw_first


def cost_table(study: Study) -> pd.DataFrame:
    """What the study cost: one row per arm, raw first.

    Returns:
        `arm trials epochs budget saved hours device`: epochs run and planned, epochs saved by stopping trials
        early, and wall hours of training summed over trials.
    """
    trials = study.trials.assign(
        saved=(study.trials["epochs_budget"] - study.trials["epochs_run"]).where(
            study.trials["status"] == "stopped", 0
        )
    )
    table = trials.groupby("arm", sort=False).agg(
        trials=("trial_id", "size"),
        epochs=("epochs_run", "sum"),
        budget=("epochs_budget", "sum"),
        saved=("saved", "sum"),
    )
    if "seconds" in trials:
        table["hours"] = trials.groupby("arm", sort=False)["seconds"].sum() / 3600
    return table.loc[raw_first(table.index)].reset_index()


def cost_sentence(answer: Answer) -> str:
    """Epochs, hours and what early stopping saved."""
    table = cost_table(answer.study)
    epochs, budget, saved = (int(table[name].sum()) for name in ("epochs", "budget", "saved"))
    if epochs == 0:
        return "Nothing has run yet."
    text = f"{epochs:,} of {budget:,} planned epochs ran".replace(",", " ")
    if saved:
        text += f"; stopping trials early saved {saved:,} ({saved / budget:.0%})".replace(",", " ")
    if "hours" in table and table["hours"].sum() > 0:
        text += f". Trials took {format_duration(3600 * float(table['hours'].sum()))} in all"
        devices = answer.study.trials.get("device", pd.Series()).dropna().unique()
        if len(devices):
            text += f" on {', '.join(map(str, devices))}"
    return " ".join([f"{text}.", *outcome_sentences(answer.primary)])


def draw_cost(table: pd.DataFrame) -> Figure:
    """Epochs run and epochs saved, one bar per arm."""
    colors = arm_colors(list(table["arm"]))
    with new_panel("Epochs by arm", height=1.5 + 0.5 * len(table)) as (figure, ax):
        for y, row in enumerate(table.to_dict("records")):
            ax.barh(y, row["epochs"], color=colors[row["arm"]], height=0.55)
            ax.barh(
                y,
                row["saved"],
                left=row["epochs"],
                facecolor="none",
                edgecolor=MUTED,
                hatch="////",
                lw=0.6,
                height=0.55,
            )
        ax.set_yticks(range(len(table)), list(table["arm"]))
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("epochs (hatched: saved by stopping trials early)")
    return figure


def cost_picture(answer: Answer) -> Picture | None:
    """Where the time went; None where nothing ran."""
    table = cost_table(answer.study)
    if table["epochs"].sum() == 0:
        return None
    return Picture(
        "cost",
        "Cost",
        "Epochs that the trials of each arm ran, and, hatched, those that the scheduler saved by stopping "
        "trials. The cost of making the pre-trained weights is not part of it.",
        (draw_cost(table),),
    )
