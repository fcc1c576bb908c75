"""The nine images that excite a unit most, over a dataset.

Finds the nine strongest activations of feature maps over a dataset's images, in one pass for all
layers, projects each and shows what it saw (Zeiler & Fergus 2013, Fig. 2). Of several layers, each
has a picture of its own: NAME_LAYER.png.

Without --unit, all maps of the layers are drawn; the arrays beside the pictures then hold the
activations, images and places of every map, but no pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cnnkit.cli.console import progress_bar
from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.visualize.figure import (
    Figure,
    select_split,
    summary_facts,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_network_arguments(parser)
    parser.add_argument("dataset", metavar="DATASET", help="digits, folder:PATH or tfds:NAME")
    parser.add_argument("--layer", required=True, nargs="+", help="for example conv3 conv5")
    parser.add_argument(
        "--unit", type=int, nargs="+", help="feature maps of every layer (default: all)"
    )
    parser.add_argument("--split", default="test", help="test (default) or train")
    parser.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")
    parser.add_argument("--image-size", type=int, help="for a network of no fixed size")


def draw(args: argparse.Namespace) -> dict[Path, Figure]:
    """Searches once, then projects and draws layer by layer."""
    from cnnkit.visualize import find_top_activations

    model = load_from_arguments(args).model
    images = select_split(args.dataset, args.split)
    with progress_bar(len(images)) as progress:
        found = find_top_activations(
            model, images, args.layer, image_size=args.image_size, progress=progress
        )
    output = Path(args.output)
    paths = {layer: output.with_stem(f"{output.stem}_{layer}") for layer in args.layer}
    if len(paths) == 1:
        paths = dict.fromkeys(paths, output)
    return {path: _drawn(args, model, images, found[layer], path) for layer, path in paths.items()}


def _drawn(args, model, images, found, path: Path) -> Figure:
    from cnnkit.figures import draw_top9
    from cnnkit.visualize import project_top

    facts, arrays = [], {}
    if args.unit is None:
        arrays = {"values": found.values, "images": found.images, "places": found.flat_positions}

    def noted():
        options = {"rule": args.rule, "image_size": args.image_size}
        for top in project_top(model, images, found, args.unit, **options):
            facts.append(
                {"unit": top.unit, "strongest": [summary_facts(one) for one in top.projections]}
            )
            if args.unit is not None and top.projections:
                arrays[f"patches_{top.unit}"] = top.patches
                arrays[f"projections_{top.unit}"] = np.stack(
                    [one.projection for one in top.projections]
                )
            yield top

    units = len(found.values) if args.unit is None else len(args.unit)
    draw_top9(noted(), path, units=units)
    dead = sum(not unit["strongest"] for unit in facts)
    return Figure(
        f"{units} units of {found.layer} over {len(images)} images, {dead} dead",
        {
            "dataset": args.dataset,
            "split": args.split,
            "layer": found.layer,
            "scale": "each projection its own, symmetric about 0",
            "units": facts,
        },
        arrays,
    )
