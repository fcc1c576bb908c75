"""Several rules and methods side by side, and whether they depend on what was learned.

Below what the network as it is gives stands what each method gives when the upper weights are
randomized, and the rank correlation between the two (Adebayo et al. 2018).
"""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.cli.load_network import load_from_arguments
from cnnkit.cli.visualize._attribution import add_layer_argument, add_target_arguments
from cnnkit.cli.visualize.figure import Figure, read_image_for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_target_arguments(parser)
    parser.add_argument(
        "--methods", nargs="+",
        help="deconvnet guided gradient saliency smoothgrad gradcam (these by default) gradcam++"
        " scorecam",
    )  # fmt: skip
    parser.add_argument(
        "--down-to", nargs="+", metavar="LAYER",
        help="randomize from the top down to each of these (default: the last layer, the last"
        " convolution, the first layer)",
    )  # fmt: skip
    add_layer_argument(parser)
    parser.add_argument("--samples", type=int, default=50, help="copies of smoothgrad (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and noise (default 0)")


def draw(args: argparse.Namespace) -> Figure:
    """Asks every method of every network, and draws."""
    from cnnkit.figures import draw_comparison
    from cnnkit.models import class_names
    from cnnkit.visualize import compare_attributions
    from cnnkit.visualize.attribution.sanity_check import DEFAULT

    model = load_from_arguments(args).model
    image = read_image_for(model, args)
    seen = compare_attributions(
        model, image, args.methods or DEFAULT, args.label, down_to=args.down_to,
        layer=args.layer, samples=args.samples, seed=args.seed,
    )  # fmt: skip
    names = class_names(model)
    name = names[seen.target] if names else None
    draw_comparison(image, seen, args.output, name=name)
    correlations = {
        stage: {
            method: None if np.isnan(value) else float(value)
            for method, value in zip(seen.methods, row, strict=True)
        }
        for stage, row in zip(seen.stages, seen.correlations, strict=True)
    }
    arrays = dict(zip(seen.methods, seen.maps, strict=True))
    for stage, maps in zip(seen.stages, seen.randomized_maps, strict=True):
        arrays |= {f"{method}_{stage}": m for method, m in zip(seen.methods, maps, strict=True)}
    return Figure(
        "; ".join(
            f"random down to {stage}: "
            + ", ".join(f"{m} {'-' if v is None else format(v, '.2f')}" for m, v in row.items())
            for stage, row in correlations.items()
        ),
        {
            "target": seen.target,
            "class": name,
            "score": seen.score,
            "methods": list(seen.methods),
            "seed": seen.seed,
            "rank_correlations": correlations,
        },
        arrays,
    )
