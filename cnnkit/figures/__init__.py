"""Figures of results as PNG, SVG or PDF files. No other package draws."""

from cnnkit.figures.attribution import draw_attribution, draw_comparison, draw_synthesized
from cnnkit.figures.canvas import PictureOptions
from cnnkit.figures.evaluation import draw_confusion, draw_predictions, draw_reliability
from cnnkit.figures.filters import draw_filters
from cnnkit.figures.invariance import draw_correspondence, draw_invariance
from cnnkit.figures.learning_rates import draw_learning_rate_sweep
from cnnkit.figures.localization import draw_localizations
from cnnkit.figures.occlusion import draw_occlusion
from cnnkit.figures.projections import (
    draw_explanations,
    draw_layerwise,
    draw_projection,
    draw_rules,
)
from cnnkit.figures.top_activations import draw_feature_evolution, draw_second_layer, draw_top9
from cnnkit.figures.training_curves import draw_training_curves
from cnnkit.figures.transfer import draw_learning_curve, draw_neighbors

__all__ = [
    "PictureOptions",
    "draw_predictions",
    "draw_attribution",
    "draw_comparison",
    "draw_confusion",
    "draw_correspondence",
    "draw_training_curves",
    "draw_feature_evolution",
    "draw_explanations",
    "draw_filters",
    "draw_invariance",
    "draw_learning_rate_sweep",
    "draw_localizations",
    "draw_second_layer",
    "draw_occlusion",
    "draw_synthesized",
    "draw_neighbors",
    "draw_learning_curve",
    "draw_projection",
    "draw_reliability",
    "draw_rules",
    "draw_layerwise",
    "draw_top9",
]
