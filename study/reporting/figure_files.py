"""`Picture`: drawn figures with a caption, as files for print and as inline SVG for the page."""

import io
import json
from dataclasses import dataclass
from functools import cached_property
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from study.reporting.figure_style import CSS_NAMES, RC, style

PNG_DPI = 200
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
# Of a line whose values can be read with the pointer; more would be closer together than pixels.
MOST_POINTS = 120


@dataclass(frozen=True)
class Picture:
    """A drawn figure: one or more panels, side by side where there is room.

    Args:
        name: file name without its ending.
        title: what is shown, in a few words.
        caption: how to read it, without the text around it.
        panels: matplotlib figures, each of one panel.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Figure, ...]

    def inline(self, prefix: str = "") -> list[str]:
        """Each panel as SVG text for a page, see `inline_svg`.

        Args:
            prefix: put before every id, so that studies on one page do not share clip paths.
        """
        return [
            inline_svg(svg, f"{prefix}{self.name}-{index}-", self.title, curves(panel))
            for index, (svg, panel) in enumerate(zip(self._drawings, self.panels, strict=True))
        ]

    @property
    def names(self) -> list[str]:
        """Of the files of each panel, without their endings."""
        if len(self.panels) == 1:
            return [self.name]
        return [f"{self.name}-{letter}" for letter, _ in zip("abcdefgh", self.panels, strict=False)]

    @property
    def size(self) -> int:
        """About how many bytes it adds to a page."""
        return sum(map(len, self._drawings))

    @cached_property
    def _drawings(self) -> list[bytes]:
        # A study may be on two pages: its own, and one with others.
        return [_svg(panel) for panel in self.panels]

    def files(self) -> dict[str, bytes]:
        """Print-quality files by name: an SVG and a PNG of every panel."""
        found = {}
        for name, panel in zip(self.names, self.panels, strict=True):
            found[f"{name}.svg"] = _svg(panel, fonttype="path")
            found[f"{name}.png"] = png(panel)
        return found


def figure_name(kind: str, task: str, context: str) -> str:
    """File name of the figure of a context; the context's label is empty where the study has one."""
    words = [kind, task, context]
    return "-".join("".join(c if c.isalnum() else "_" for c in word) for word in words if word)


def in_context(label: str) -> str:
    """The label of a context as part of a caption; '' where the study has one."""
    return f", {label}" if label else ""


def curves(panel: Figure) -> str:
    """What the page's script shows of a panel's labelled lines under the pointer, as JSON; '' without any.

    `box` is the place of the axes (left, top, width, height) as shares of the drawing, `x` are the limits of
    the horizontal one, and a line has a `name`, the CSS variable of its `color` and `points`. The panel must
    have been drawn, which fixes its layout.
    """
    (ax,) = panel.axes[:1] or (None,)
    lines = [line for line in (ax.lines if ax else ()) if not str(line.get_label()).startswith("_")]
    if ax is None or not lines:
        return ""
    place = ax.get_position()
    found = []
    for line in lines:
        # A loss that overflowed is no JSON.
        xy = np.asarray(line.get_xydata(), dtype=float)
        values = xy[np.isfinite(xy).all(axis=1)].tolist()
        every = -(-len(values) // MOST_POINTS)
        points = [[round(x, 3), round(y, 4)] for x, y in [*values[:-1:every], *values[-1:]]]
        color = CSS_NAMES[str(line.get_color())]
        found.append({"name": line.get_label(), "color": color, "points": points})
    box = [place.x0, 1 - place.y1, place.width, place.height]
    content = {"box": box, "x": list(ax.get_xlim()), "xlabel": ax.get_xlabel(), "lines": found}
    return json.dumps(content, separators=(",", ":"))


def inline_svg(svg: bytes, prefix: str, title: str, curves: str = "") -> str:
    """An SVG file as an element of an HTML page: scalable, with ids that no other drawing has.

    Ids that nothing refers to are dropped, and so are metadata and the fixed size (the viewBox keeps the
    proportions). Colors are left as they are: the page's stylesheet overrides them.
    """
    root = ElementTree.fromstring(svg)
    if curves:
        root.set("data-curves", curves)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    elements = list(root.iter())
    targets = {reference for element in elements for reference in _references(element)}
    for element in elements:
        name = element.attrib.pop("id", None)
        if name in targets:
            element.set("id", f"{prefix}{name}")
        for target in _references(element):
            for key, value in element.attrib.items():
                element.set(key, value.replace(f"#{target}", f"#{prefix}{target}"))
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", title)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _references(element: ElementTree.Element) -> set[str]:
    """Ids that an element refers to, by `href="#id"` or by `url(#id)` in any attribute."""
    found = set()
    for key, value in element.attrib.items():
        if key.endswith("href") and value.startswith("#"):
            found.add(value[1:])
        for part in value.split("url(#")[1:]:
            found.add(part.partition(")")[0])
    return found


# `savefig` draws each figure twice, once for its size alone; a canvas draws it once.
def _svg(figure: Figure, fonttype: str = "none") -> bytes:
    buffer = io.StringIO()
    with mpl.rc_context(RC | {"svg.fonttype": fonttype}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    _keep_layout(figure)
    return buffer.getvalue().encode()


def png(figure: Figure) -> bytes:
    """A figure of print quality."""
    buffer = io.BytesIO()
    with style():
        figure.dpi = PNG_DPI
        FigureCanvasAgg(figure).print_png(buffer)
    _keep_layout(figure)
    return buffer.getvalue()


def _keep_layout(figure: Figure) -> None:
    # The layout found for one format serves all; finding it costs more than drawing.
    figure.set_layout_engine("none")
