"""The second layers of several networks side by side.

Projects second-layer units of each network and counts dead filters: why Zeiler & Fergus changed
AlexNet's 11 x 11 windows at stride 4 to 7 x 7 at stride 2 (2013, Fig. 6).
"""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, builder_arguments, load_networks
from cnnkit.cli.visualize.figure import Figure, summary_facts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_network_arguments(parser, "networks", nargs="+")
    parser.add_argument("dataset", metavar="DATASET", help="digits, folder:PATH or tfds:NAME")
    parser.add_argument("--layer", default="conv2", help="the second layer (default conv2)")
    parser.add_argument("--unit", type=int, nargs="+", help="its feature maps")
    parser.add_argument(
        "--count", type=int, default=16, help="else so many that fire, by chance (default 16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--split", default="test", help="test (default) or train")
    parser.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")
    parser.add_argument("--image-size", type=int, help="for a network of no fixed size")


def draw(args: argparse.Namespace) -> Figure:
    """Searches, projects and draws."""
    from cnnkit.cli.visualize.figure import select_split
    from cnnkit.figures import draw_second_layer
    from cnnkit.visualize import second_layer_filters

    images = select_split(args.dataset, args.split)
    networks = [
        second_layer_filters(
            model, images, args.layer, units=args.unit, count=args.count,
            seed=args.seed, rule=args.rule, image_size=args.image_size,
        )
        for model in load_networks(args.networks, **builder_arguments(args))
    ]  # fmt: skip
    draw_second_layer(networks, args.output)
    return Figure(
        "; ".join(
            f"{seen.model}: {int(seen.filters.dead.sum())} dead and {len(seen.first_dead_units)} silent of"
            f" {len(seen.filters.kernels)} in {seen.filters.layer}, {len(seen.second_dead_units)} silent of"
            f" {seen.units} in {seen.layer}"
            for seen in networks
        ),
        {
            "dataset": args.dataset,
            "split": args.split,
            "networks": [
                {
                    "path": path,
                    "model": seen.model,
                    "first": seen.filters.layer,
                    "dead": np.flatnonzero(seen.filters.dead).tolist(),
                    "silent": list(seen.first_dead_units),
                    "second": seen.layer,
                    "second_silent": list(seen.second_dead_units),
                    "strongest": [
                        summary_facts(one) for top in seen.examples for one in top.projections
                    ],
                }
                for path, seen in zip(args.networks, networks, strict=True)
            ],
        },
        {
            f"{kind}_{n}_{top.unit}": values
            for n, seen in enumerate(networks)
            for top in seen.examples
            if top.projections
            for kind, values in (
                ("projection", top.projections[0].projection),
                ("patch", top.patches[0]),
            )
        },
    )
