"""Figure of a response surface: fitted mIoU inside the sampled region, points and place of the maximum."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator
from scipy.spatial import ConvexHull, cKDTree

from segstrat.formatting import axis_name, format_value
from study.analysis.sections.response_surfaces import ArmSurface, ResponseSurfaces, SurfaceAxis
from study.reporting.figure_files import Picture, figure_name
from study.reporting.figure_style import INK, MUTED, PAPER, arm_colors, new_panel, some, some_words

LEVELS = 9
CLOSEST_TICKS = 0.12
DECADES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def surface_table(surfaces: ResponseSurfaces, arm: ArmSurface) -> pd.DataFrame:
    """The fitted surface of an arm.

    Returns:
        a row per place of the grid: the axes in their own units, their scaled coordinates `x` (and `y`),
        `value low high` in percent of mIoU, `inside` (elsewhere the values extrapolate), `plausible` (the
        maximum may lie there). Empty without a fit.
    """
    if arm.fit is None:
        return pd.DataFrame()
    fit = arm.fit
    low, high = fit.band
    columns = {axis.axis: surfaces.grid[:, i] for i, axis in enumerate(surfaces.axes)}
    columns |= {name: fit.grid[:, i] for i, name in zip(range(fit.grid.shape[1]), "xy", strict=False)}
    values = {"value": fit.mean, "low": low, "high": high}
    columns |= {name: 100 * each for name, each in values.items()}
    return pd.DataFrame(columns | {"inside": fit.inside, "plausible": fit.plausible})


def draw_surface(
    table: pd.DataFrame, arm: ArmSurface, axes: tuple[SurfaceAxis, SurfaceAxis], score: str = "mIoU"
) -> Figure:
    """Contours over two axes; blank where the fit would extrapolate."""
    size = round(len(table) ** 0.5)
    x, y, value = (table[name].to_numpy(float).reshape(size, size) for name in ("x", "y", "value"))
    inside = table["inside"].to_numpy(bool)
    with new_panel(arm.arm, width=5.6, height=4.6) as (figure, ax):
        region = _region(arm, axes)
        ax.add_patch(region)
        shown = table.loc[inside, "value"]
        levels = MaxNLocator(LEVELS).tick_values(shown.min(), shown.max())
        filled = ax.contourf(x, y, value, levels=levels, cmap="cividis", extend="both")
        lines = ax.contour(x, y, value, levels=levels, colors=PAPER, linewidths=0.6)
        for drawn in (filled, lines):
            drawn.set_clip_path(region)
        figure.colorbar(filled, ax=ax, label=f"validation {score}, %", shrink=0.8)
        if not table.loc[inside, "plausible"].all():
            # Continued beyond the region, so that its outline ends where the region does.
            nearest = cKDTree(table.loc[inside, ["x", "y"]]).query(table[["x", "y"]])[1]
            plausible = table.loc[inside, "plausible"].to_numpy(float)[nearest].reshape(size, size)
            edge = ax.contour(x, y, plausible, levels=[0.5], colors=INK, linewidths=1.8, linestyles="--")
            edge.set_clip_path(region)
        for learned, marker in ((True, "o"), (False, "x")):
            points = some(arm.points[arm.points["learned"] == learned])
            places = [axis.scale(points[axis.axis].to_numpy(float)) for axis in axes]
            ax.plot(*places, marker, mfc=PAPER, mec=INK, ms=5.5, mew=1.0, zorder=4)
        best = int(np.where(inside, table["value"], -np.inf).argmax())
        ax.plot([table["x"].iloc[best]], [table["y"].iloc[best]], "*", mfc=PAPER, mec=INK, ms=15, zorder=5)
        ax.set_xticks(*_ticks(axes[0]))
        ax.set_yticks(*_ticks(axes[1]))
        ax.set_xlabel(axis_name(axes[0].axis))
        ax.set_ylabel(axis_name(axes[1].axis))
        ax.set_xlim(-1.06, 1.06)
        ax.set_ylim(-1.06, 1.06)
        ax.grid(visible=False)
        figure.legend(handles=_legend(arm), loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def draw_curve(table: pd.DataFrame, arm: ArmSurface, axis: SurfaceAxis, score: str = "mIoU") -> Figure:
    """The surface over one axis, with its simultaneous band."""
    with new_panel(arm.arm) as (figure, ax):
        color = arm_colors([arm.arm])[arm.arm]
        inside = table[table["inside"]]
        ax.fill_between(inside["x"], inside["low"], inside["high"], color=color, alpha=0.2, lw=0)
        ax.plot(inside["x"], inside["value"], color=color)
        _points_on_curve(ax, arm, axis, color)
        ax.set_xticks(*_ticks(axis))
        ax.set_xlabel(axis_name(axis.axis))
        ax.set_ylabel(f"validation {score}, %")
    return figure


def surface_picture(surfaces: ResponseSurfaces, data: str) -> Picture | None:
    """A panel per arm; None where no arm has a surface."""
    panels = []
    for arm in surfaces.arms:
        table = surface_table(surfaces, arm)
        if table.empty:
            continue
        if len(surfaces.axes) == 1:
            panels.append(draw_curve(table, arm, surfaces.axes[0], surfaces.used.score))
        else:
            axes = (surfaces.axes[0], surfaces.axes[1])
            panels.append(draw_surface(table, arm, axes, surfaces.used.score))
    if not panels:
        return None
    where = f", {surfaces.context}" if surfaces.context else ""
    return Picture(
        figure_name("surface", surfaces.task, surfaces.context),
        "Response surface",
        f"{surfaces.task} on {data}{where}, {surfaces.used.when}: validation {surfaces.used.score} in "
        "percent, a second-order surface fitted to the points that learned. Star: its maximum; dashed: where "
        "the maximum may lie with 95 % confidence. Nothing is drawn beyond the points, where the surface "
        "would extrapolate. Each arm has its own color scale."
        f"{some_words(max(len(arm.points) for arm in surfaces.arms), 'points of an arm')}",
        tuple(panels),
    )


def _points_on_curve(ax: Axes, arm: ArmSurface, axis: SurfaceAxis, color: str) -> None:
    learned = some(arm.points[arm.points["learned"]])
    ax.plot(axis.scale(learned[axis.axis].to_numpy(float)), 100 * learned["value"], "o", mfc=color, mec=PAPER)


def _region(arm: ArmSurface, axes: tuple[SurfaceAxis, SurfaceAxis]) -> Polygon:
    """The convex hull of the points that learned."""
    learned = arm.points[arm.points["learned"]]
    places = np.stack([axis.scale(learned[axis.axis].to_numpy(float)) for axis in axes], axis=1)
    return Polygon(places[ConvexHull(places).vertices], facecolor="none", edgecolor=MUTED, lw=0.8)


def _ticks(axis: SurfaceAxis) -> tuple[list[float], list[str]]:
    """Places and labels of an axis: 0 and decades where it is logarithmic, as far as there is room."""
    candidates = DECADES if axis.offset else MaxNLocator(5).tick_values(axis.low, axis.high)
    places: list[float] = []
    labels: list[str] = []
    for value in (value for value in candidates if axis.low <= value <= axis.high):
        place = float(axis.scale(np.array(value)))
        if not places or place - places[-1] > CLOSEST_TICKS:
            places.append(place)
            labels.append(format_value(float(value)))
    return places, labels


def _legend(arm: ArmSurface) -> list[Line2D]:
    everywhere = ": anywhere" if arm.plausible == 1.0 else ""
    handles: list[Line2D] = [
        Line2D([], [], marker="*", ls="none", mfc=PAPER, mec=INK, ms=12, label="fitted maximum"),
        Line2D([], [], color=INK, ls="--", label="where it may lie" + everywhere),
        Line2D([], [], marker="o", ls="none", mfc=PAPER, mec=INK, label="point"),
    ]
    if not arm.points["learned"].all():
        handles.append(Line2D([], [], marker="x", ls="none", mec=INK, label="did not learn"))
    return handles
