"""What excites units most, epoch by epoch of a training.

Projects the strongest activation of each unit over the training images, with the networks that a
run kept of its epochs (Zeiler & Fergus 2013, Fig. 4). Such networks are kept by
`cnnkit train --keep-epochs`.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.visualize.figure import Figure, add_units_argument, select_split, summary_facts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    # Not `run`: that is what the command does.
    parser.add_argument("folder", metavar="RUN", help="run folder")
    parser.add_argument(
        "dataset", metavar="DATASET", nargs="?", help="digits, folder:PATH ... (default: the run's)"
    )
    add_units_argument(parser)
    parser.add_argument("--split", default="train", help="train (default) or test")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        metavar="EPOCH",
        help="as far as they were kept (default: all)",
    )
    parser.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")


def draw(args: argparse.Namespace) -> Figure:
    """Searches with each network, projects and draws."""
    from cnnkit.figures import draw_feature_evolution
    from cnnkit.run_folder import RunFolder
    from cnnkit.visualize import feature_evolution

    run = RunFolder.open(args.folder)
    dataset = args.dataset or run.config.dataset
    images = select_split(dataset, args.split, seed=run.config.seed)
    found = feature_evolution(
        run,
        images,
        args.layer,
        units=args.unit,
        count=args.count,
        seed=args.seed,
        epochs=args.epochs,
        rule=args.rule,
    )
    draw_feature_evolution(found, args.output)
    rows = [row for block in found.values() for row in block]
    return Figure(
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
                        summary_facts(top.projections[0]) if top.projections else None
                        for top in row.examples
                    ],
                }
                for row in rows
            ],
        },
        {
            f"{kind}_{row.layer}_{row.unit}_{epoch}": values
            for row in rows
            for epoch, top in zip(row.epochs, row.examples, strict=True)
            if top.projections
            for kind, values in (
                ("projection", top.projections[0].projection),
                ("patch", top.patches[0]),
            )
        },
    )
