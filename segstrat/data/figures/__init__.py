"""The embedded data: drawn scenes of people and things, labelled for both tasks; see docs/figures.md."""

from segstrat.data.figures.kinds import CLASSES, KINDS, PARTS
from segstrat.data.figures.scenes import IMAGE_SIZE, VOID, Scene, draw_scene, draw_single
from segstrat.data.figures.write import SCENES, SINGLES, ensure_figures

__all__ = [
    "CLASSES",
    "IMAGE_SIZE",
    "KINDS",
    "PARTS",
    "SCENES",
    "SINGLES",
    "VOID",
    "Scene",
    "draw_scene",
    "draw_single",
    "ensure_figures",
]
