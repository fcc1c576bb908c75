"""Attribution figures: one table of methods, and several methods compared."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.picture import picture_options
from cnnkit.cli.read_image import read_image_for
from cnnkit.cli.values import COUNT, SEED, Number
from cnnkit.cli.visualize.figure import (
    Figure,
    FigureCommand,
    add_image_argument,
    add_target_argument,
)
from cnnkit.errors import DataError


@dataclass(frozen=True)
class AttributionMethod:
    """An attribution method of `cnnkit.visualize`.

    Attributes:
        function: Name of the function in `cnnkit.visualize`.
        description: Text of `--help`.
        options: Keyword arguments of the function that are options, and the arguments with which
            `argparse` declares each.
    """

    function: str
    description: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


LAYER: dict[str, dict[str, Any]] = {
    "layer": {"help": "layer of the maps (default: the last maps before the classes)"}
}
BATCH_SIZE: dict[str, dict[str, Any]] = {
    "batch_size": {"type": COUNT, "default": 16, "help": "images at a time (default 16)"}
}
NOISE = {
    "samples": {"type": COUNT, "default": 50, "help": "copies (default 50)"},
    "noise": {
        "type": Number(minimum=0),
        "default": 0.15,
        "help": "part of the range of values (default 0.15)",
    },
    "seed": {"type": SEED, "default": 0, "help": "of the noise (default 0)"},
}

# By the name on the command line.
METHODS = {
    "gradcam": AttributionMethod(
        "gradcam",
        """Grad-CAM: the places of a layer's maps that support a class.

Weights the maps by the mean gradient of the logit (Selvaraju et al. 2017).""",
        LAYER,
    ),
    "gradcam++": AttributionMethod(
        "gradcam_plus_plus",
        """Grad-CAM++: Grad-CAM with weights that differ from place to place.

Weights the maps by their positive gradients (Chattopadhay et al. 2018).""",
        LAYER,
    ),
    "saliency": AttributionMethod(
        "saliency",
        """Saliency: the gradient of a class's score by each pixel.

Draws the gradient of the logit (Simonyan et al. 2013), its largest absolute value over the
colors.""",
    ),
    "scorecam": AttributionMethod(
        "scorecam",
        """Score-CAM: the places of a layer's maps that support a class, without a gradient.

Weights each map by the probability of the class when the image is masked by that map (Wang et al.
2020).""",
        LAYER | BATCH_SIZE,
    ),
    "smoothgrad": AttributionMethod(
        "smoothgrad",
        """SmoothGrad: the gradient of a class's score, averaged over noisy copies.

Draws the mean of the gradients of the logit (Smilkov et al. 2017).""",
        NOISE,
    ),
}


def add_attribution_arguments(
    parser: argparse.ArgumentParser, options: Mapping[str, Mapping[str, Any]]
) -> None:
    """Declare the network, the image, the class and the options of a method."""
    add_network_arguments(parser)
    add_image_argument(parser)
    add_target_argument(parser)
    for name, arguments in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **arguments)


def draw_method(args: argparse.Namespace, method: AttributionMethod) -> Figure:
    """Attribute the score of a class to the pixels by a method and draw the map."""
    from cnnkit import visualize
    from cnnkit.figures import draw_attribution
    from cnnkit.models.class_names import class_captions

    model = load_from_arguments(args).model
    image = read_image_for(args.image, model)
    options = {name: getattr(args, name) for name in method.options}
    [result] = getattr(visualize, method.function)(model, image, args.target, **options)
    if not result.map.any():
        raise DataError(
            f"The {result.method} map of class {result.target} is zero for {args.image}",
            hint="Take another layer, or the most probable class",
        )
    names = class_captions(model)
    name = names[result.target] if names else None
    draw_attribution(image, result, args.output, name=name, **picture_options(args))
    row, column = map(int, np.unravel_index(result.map.argmax(), result.map.shape))
    facts = {
        "method": result.method,
        "target": result.target,
        "class": name,
        "score": result.score,
        "layer": result.layer,
        "largest_at": [row, column],
        "largest": float(result.map.max()),
        **{key: value for key, value in options.items() if key != "layer"},
    }
    arrays = {"map": result.map, "gradient": result.gradient, "grid": result.grid}
    maps = f", maps of {result.layer}" if result.layer else ""
    return Figure(
        f"{result.method} of {name or f'class {result.target}'}{maps}, logit {result.score:.3g},"
        f" largest at row {row}, column {column}",
        facts,
        {key: values for key, values in arrays.items() if values is not None},
    )


# Those of `cnnkit.visualize.explain_class`, here without an import of TensorFlow.
EXPLANATIONS = (
    "deconvnet", "guided", "gradient", "saliency", "smoothgrad", "gradcam", "gradcam++", "scorecam",
    "occlusion",
)  # fmt: skip


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the comparison."""
    add_attribution_arguments(parser, {})
    parser.add_argument(
        "--methods", nargs="+", choices=EXPLANATIONS, metavar="METHOD",
        help="deconvnet guided gradient saliency smoothgrad gradcam (these by default) gradcam++"
        " scorecam occlusion",
    )  # fmt: skip
    parser.add_argument(
        "--down-to", nargs="+", metavar="LAYER",
        help="randomize from the top down to each of these (default: the last layer, the last"
        " convolution, the first layer)",
    )  # fmt: skip
    parser.add_argument("--layer", **LAYER["layer"])
    parser.add_argument(
        "--samples", type=COUNT, default=50, help="copies of smoothgrad (default 50)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of weights and noise (default 0)")


def draw_compare(args: argparse.Namespace) -> Figure:
    """Apply every method to the trained and to the randomized networks and draw the maps."""
    from cnnkit.figures import draw_comparison
    from cnnkit.models.class_names import class_captions
    from cnnkit.visualize import compare_attributions

    model = load_from_arguments(args).model
    image = read_image_for(args.image, model)
    methods = {"methods": args.methods} if args.methods else {}
    result = compare_attributions(
        model, image, **methods, target=args.target, down_to=args.down_to,
        layer=args.layer, samples=args.samples, seed=args.seed,
    )  # fmt: skip
    names = class_captions(model)
    name = names[result.target] if names else None
    draw_comparison(image, result, args.output, name=name, **picture_options(args))
    correlations = {
        stage: {
            method: None if np.isnan(value) else float(value)
            for method, value in zip(result.methods, row, strict=True)
        }
        for stage, row in zip(result.stages, result.correlations, strict=True)
    }
    arrays = dict(zip(result.methods, result.maps, strict=True))
    for stage, maps in zip(result.stages, result.randomized_maps, strict=True):
        arrays |= {f"{method}_{stage}": m for method, m in zip(result.methods, maps, strict=True)}
    return Figure(
        f"{len(result.methods)} methods for {name or f'class {result.target}'}; below, the rank"
        " correlation of each map with that of a network whose weights are random from the top"
        " down to a layer: 1 for a map that does not depend on them",
        {
            "target": result.target,
            "class": name,
            "score": result.score,
            "methods": list(result.methods),
            "layer": result.layer,
            "seed": result.seed,
            "rank_correlations": correlations,
        },
        arrays,
        [
            {"random down to": stage}
            | {method: "-" if v is None else f"{v:5.2f}" for method, v in row.items()}
            for stage, row in correlations.items()
        ],
    )


ATTRIBUTION = {
    name: FigureCommand(
        method.description,
        partial(add_attribution_arguments, options=method.options),
        partial(draw_method, method=method),
    )
    for name, method in METHODS.items()
}
COMPARE = FigureCommand(
    """Compare attribution methods, and test if they depend on the trained weights.

Below the maps of the trained network are those of networks whose upper weights are randomized, with
the rank correlation of the two (Adebayo et al. 2018).""",
    add_compare_arguments,
    draw_compare,
)
