"""How figures look, and how they are saved: for print, and inline in a page that has a dark side."""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart by all common kinds of colour vision; the page swaps each colour for a
# CSS variable, so that the dark side can use lighter tones of the same hues.
INK, MUTED, GRID, PAPER = "#1b1f24", "#59636e", "#d9dee3", "#ffffff"
ORANGE, BLUE, GREEN, PURPLE, SKY, AMBER = "#d55e00", "#0072b2", "#00875f", "#b4558d", "#3a9bd5", "#b98500"
PNG_DPI = 200
CYCLE = (ORANGE, BLUE, GREEN, PURPLE, SKY, AMBER)
CSS_NAMES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper",
    ORANGE: "--c-orange", BLUE: "--c-blue", GREEN: "--c-green", PURPLE: "--c-purple", SKY: "--c-sky",
    AMBER: "--c-amber",
}  # fmt: skip

_RC: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "hatch.color": MUTED,
    "hatch.linewidth": 0.8,
    "svg.fonttype": "none",
    # The same table must give the same file.
    "svg.hashsalt": "segstrat",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this."""
    with mpl.rc_context(_RC):
        yield


def arm_colors(arms: Iterable[str]) -> dict[str, str]:
    """A colour for each arm; raw is orange and pre-trained blue where these are all."""
    names = sorted(set(arms), reverse=True)
    plain = {"raw": ORANGE, "pre-trained": BLUE}
    if all(name in plain for name in names):
        return {name: plain[name] for name in names}
    return {name: CYCLE[index % len(CYCLE)] for index, name in enumerate(names)}


@contextmanager
def new_panel(title: str, *, width: float = 4.9, height: float = 3.6) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel, drawn in the project's style; sizes in inches."""
    with style():
        figure = Figure(figsize=(width, height))
        ax = figure.subplots()
        ax.set_title(title)
        yield figure, ax


@dataclass(frozen=True)
class Picture:
    """A drawn figure: one or more panels that stand side by side where there is room.

    Args:
        name: file name without its ending.
        title: what is to be seen, in a few words.
        caption: how to read it, without the text around it.
        panels: matplotlib figures, each of one panel.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Figure, ...]

    def inline(self, prefix: str = "") -> list[str]:
        """Each panel as SVG text for a page; colours are CSS variables, with the print colour behind.

        Args:
            prefix: put before every id, so that studies on one page do not share clip paths.
        """
        return [_for_page(svg, f"{prefix}{self.name}-{index}") for index, svg in enumerate(self._drawings)]

    @cached_property
    def _drawings(self) -> list[bytes]:
        # A study may stand on two pages: its own, and one with others.
        return [_svg(panel) for panel in self.panels]

    def files(self) -> dict[str, bytes]:
        """Print-quality files by name: an SVG and a PNG of every panel."""
        found = {}
        for index, panel in enumerate(self.panels):
            name = self.name if len(self.panels) == 1 else f"{self.name}-{'abcdefgh'[index]}"
            found[f"{name}.svg"] = _svg(panel, fonttype="path")
            found[f"{name}.png"] = _png(panel)
        return found


# `savefig` draws each figure twice, once for its size alone; a canvas draws it once.
def _svg(figure: Figure, fonttype: str = "none") -> bytes:
    buffer = io.StringIO()
    with mpl.rc_context(_RC | {"svg.fonttype": fonttype}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    _keep_layout(figure)
    return buffer.getvalue().encode()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with style():
        figure.dpi = PNG_DPI
        FigureCanvasAgg(figure).print_png(buffer)
    _keep_layout(figure)
    return buffer.getvalue()


def _keep_layout(figure: Figure) -> None:
    # Laid out once, a figure is so for every format; finding the layout costs more than drawing.
    figure.set_layout_engine("none")


def _for_page(svg: bytes, prefix: str) -> str:
    text = svg.decode()
    text = text[text.index("<svg") :]
    # Most ids are never referred to, and they are a good part of the drawing's size.
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    # Several drawings share one page: their ids must not meet.
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for color, name in CSS_NAMES.items():
        text = re.sub(color, f"var({name}, {color})", text, flags=re.IGNORECASE)
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: var(--sans, sans-serif)")
    head, mark, rest = text.partition(">")
    # The page decides the size; the viewBox keeps the proportions.
    return re.sub(r' (width|height)="[^"]*"', "", head) + mark + rest
