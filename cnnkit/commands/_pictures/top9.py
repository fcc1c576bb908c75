"""The nine images that excite a unit most, over a dataset.

Finds the nine strongest activations of feature maps over a dataset's images, projects each and
shows what it saw (Zeiler & Fergus 2013, Fig. 2).
"""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.commands._pictures._arguments import EXAMPLE, add_model, load
from cnnkit.commands._pictures._drawn import Drawn, facts_of
from cnnkit.errors import unknown_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_model(parser)
    parser.add_argument("dataset", metavar="DATASET", help="digits, folder:PATH or tfds:NAME")
    parser.add_argument("--layer", required=True, help=EXAMPLE)
    parser.add_argument("--unit", required=True, type=int, nargs="+", help="feature maps")
    parser.add_argument("--split", default="test", help="test (default) or train")
    parser.add_argument("--image-size", type=int, help="for a network of no fixed size")


def draw(args: argparse.Namespace) -> Drawn:
    """Searches, projects and draws."""
    from cnnkit.data import load_source
    from cnnkit.figures import draw_top9
    from cnnkit.visualize import top9

    model = load(args)
    splits = load_source(args.dataset).splits
    if args.split not in splits:
        raise unknown_name("split", args.split, splits)
    found = top9(
        model, splits[args.split], [args.layer], units=args.unit, image_size=args.image_size
    )
    tops = found[args.layer]
    draw_top9(tops, args.output)
    dead = sum(not top.projections for top in tops)
    alive = [top for top in tops if top.projections]
    return Drawn(
        f"{len(tops)} units of {args.layer} over {len(splits[args.split])} images, {dead} dead",
        {
            "dataset": args.dataset,
            "split": args.split,
            "units": [
                {"unit": top.unit, "strongest": [facts_of(one) for one in top.projections]}
                for top in tops
            ],
        },
        {f"patches_{top.unit}": top.patches for top in alive}
        | {
            f"projections_{top.unit}": np.stack([one.projection for one in top.projections])
            for top in alive
        },
    )
