"""Pictures of results, a file each. Nothing below this room draws."""

from cnnkit.figures.curves import draw_curves
from cnnkit.figures.explanations import draw_explanations
from cnnkit.figures.filters import draw_filters
from cnnkit.figures.projections import draw_projection, draw_rules
from cnnkit.figures.stack import draw_stack
from cnnkit.figures.top9 import draw_top9

__all__ = [
    "draw_curves",
    "draw_explanations",
    "draw_filters",
    "draw_projection",
    "draw_rules",
    "draw_stack",
    "draw_top9",
]
