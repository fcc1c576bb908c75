"""Pictures of results, a file each. Nothing below this room draws."""

from cnnkit.figures.answers import draw_answers
from cnnkit.figures.attribution import draw_attribution, draw_maximized
from cnnkit.figures.compare import draw_comparison
from cnnkit.figures.confusion import draw_confusion
from cnnkit.figures.correspondence import draw_correspondence
from cnnkit.figures.curves import draw_curves
from cnnkit.figures.evolution import draw_evolution
from cnnkit.figures.explanations import draw_explanations
from cnnkit.figures.filters import draw_filters
from cnnkit.figures.invariance import draw_invariance
from cnnkit.figures.layer2 import draw_layer2
from cnnkit.figures.neighbors import draw_neighbors
from cnnkit.figures.occlusion import draw_occlusion
from cnnkit.figures.per_class import draw_per_class
from cnnkit.figures.projections import draw_projection, draw_rules
from cnnkit.figures.reliability import draw_reliability
from cnnkit.figures.stack import draw_stack
from cnnkit.figures.top9 import draw_top9

__all__ = [
    "draw_answers",
    "draw_attribution",
    "draw_comparison",
    "draw_confusion",
    "draw_correspondence",
    "draw_curves",
    "draw_evolution",
    "draw_explanations",
    "draw_filters",
    "draw_invariance",
    "draw_layer2",
    "draw_occlusion",
    "draw_maximized",
    "draw_neighbors",
    "draw_per_class",
    "draw_projection",
    "draw_reliability",
    "draw_rules",
    "draw_stack",
    "draw_top9",
]
