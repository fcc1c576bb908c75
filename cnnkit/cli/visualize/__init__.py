"""Figures of `cnnkit visualize`, by their name on the command line.

`FIGURES` lists every figure. A figure is a `FigureCommand`: its description, a function that
declares its arguments, and a function that draws it. Only that last one imports TensorFlow.
"""

from __future__ import annotations

from cnnkit.cli.visualize.activation_maximization import ACTIVATION_MAXIMIZATION
from cnnkit.cli.visualize.attribution import ATTRIBUTION, COMPARE
from cnnkit.cli.visualize.correspondence import CORRESPONDENCE
from cnnkit.cli.visualize.deconvnet import DECONVNET, RULES, STACK
from cnnkit.cli.visualize.figure import FigureCommand
from cnnkit.cli.visualize.filters import FILTERS
from cnnkit.cli.visualize.invariance import INVARIANCE
from cnnkit.cli.visualize.occlusion import OCCLUSION
from cnnkit.cli.visualize.top_activations import EVOLUTION, LAYER2, TOP9

FIGURES: dict[str, FigureCommand] = {
    "activation-maximization": ACTIVATION_MAXIMIZATION,
    "compare": COMPARE,
    "correspondence": CORRESPONDENCE,
    "deconvnet": DECONVNET,
    "evolution": EVOLUTION,
    "filters": FILTERS,
    **ATTRIBUTION,
    "invariance": INVARIANCE,
    "layer2": LAYER2,
    "occlusion": OCCLUSION,
    "rules": RULES,
    "stack": STACK,
    "top9": TOP9,
}
FIGURES = dict(sorted(FIGURES.items()))
