"""What excites units most, epoch by epoch of a training.

Projects the strongest activation of each unit over the training images, with the networks that a
run kept of its epochs (Zeiler & Fergus 2013, Fig. 4). Such networks are kept by
`cnnkit train --keep-epochs`.
"""

from __future__ import annotations

import argparse

from cnnkit.commands._pictures._arguments import add_units, split_of
from cnnkit.commands._pictures._drawn import Drawn, facts_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    # Not `run`: that is what the command does.
    parser.add_argument("folder", metavar="RUN", help="run folder")
    parser.add_argument(
        "dataset", metavar="DATASET", nargs="?", help="digits, folder:PATH ... (default: the run's)"
    )
    add_units(parser)
    parser.add_argument("--split", default="train", help="train (default) or test")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        metavar="EPOCH",
        help="as far as they were kept (default: all)",
    )
    parser.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")


def draw(args: argparse.Namespace) -> Drawn:
    """Searches with each network, projects and draws."""
    from cnnkit.figures import draw_evolution
    from cnnkit.runs import Run
    from cnnkit.visualize import evolution

    run = Run.open(args.folder)
    dataset = args.dataset or run.config.dataset
    images = split_of(dataset, args.split, seed=run.config.seed)
    found = evolution(
        run,
        images,
        args.layer,
        units=args.unit,
        count=args.count,
        seed=args.seed,
        epochs=args.epochs,
        rule=args.rule,
    )
    draw_evolution(found, args.output)
    rows = [row for block in found.values() for row in block]
    return Drawn(
        f"{len(rows)} units of {', '.join(found)} after epochs"
        f" {', '.join(map(str, rows[0].epochs))}, over {len(images)} images",
        {
            "run": args.folder,
            "dataset": dataset,
            "split": args.split,
            "epochs": list(rows[0].epochs),
            "units": [
                {
                    "layer": row.layer,
                    "unit": row.unit,
                    "strongest": [
                        facts_of(top.projections[0]) if top.projections else None
                        for top in row.tops
                    ],
                }
                for row in rows
            ],
        },
        {
            f"{kind}_{row.layer}_{row.unit}_{epoch}": values
            for row in rows
            for epoch, top in zip(row.epochs, row.tops, strict=True)
            if top.projections
            for kind, values in (
                ("projection", top.projections[0].projection),
                ("patch", top.patches[0]),
            )
        },
    )
