"""Figures of the images that activate units most: top nine, over epochs, and second layers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.cli.console import progress_bar
from cnnkit.cli.load_network import (
    add_network_arguments,
    builder_arguments,
    load_from_arguments,
    load_networks,
)
from cnnkit.cli.network_words import check_network_words, network_outline
from cnnkit.cli.picture import picture_options
from cnnkit.cli.values import COUNT, INDEX, SEED, DatasetSpec, run_folder
from cnnkit.cli.visualize.figure import (
    Figure,
    FigureCommand,
    add_dataset_argument,
    add_image_size_argument,
    add_layers_argument,
    add_rule_argument,
    add_split_argument,
    check_files_free,
    load_split,
    projection_facts,
)
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    import keras

    from cnnkit.data import Split
    from cnnkit.visualize import TopActivations, UnitExamples


def add_top9_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the top nine images."""
    add_network_arguments(parser)
    add_dataset_argument(parser)
    add_layers_argument(parser)
    parser.add_argument(
        "--unit", type=INDEX, nargs="+", help="feature maps of every layer (default: all)"
    )
    add_split_argument(parser, "test")
    add_rule_argument(parser)
    add_image_size_argument(parser)


def draw_top9_figures(args: argparse.Namespace) -> dict[Path, Figure]:
    """Search the dataset once for all layers, then project and draw layer by layer."""
    from cnnkit.visualize import find_top_activations
    from cnnkit.visualize.deconvnet.project import check_projection

    output = Path(args.output)
    paths = {layer: output.with_stem(f"{output.stem}_{layer}") for layer in args.layer}
    if len(paths) == 1:
        paths = dict.fromkeys(paths, output)
    elif not args.overwrite:
        for path in paths.values():
            check_files_free(path)
    model = load_from_arguments(args).model
    check_projection(model, args.layer, args.rule)
    images = load_split(args.dataset, args.split)
    with progress_bar(len(images)) as progress:
        found = find_top_activations(
            model, images, args.layer, image_size=args.image_size, progress=progress
        )
    return {
        path: _draw_top9_layer(args, model, images, found[layer], path)
        for layer, path in paths.items()
    }


def _draw_top9_layer(
    args: argparse.Namespace, model: keras.Model, images: Split, found: TopActivations, path: Path
) -> Figure:
    from cnnkit.figures import draw_top9
    from cnnkit.visualize import project_top

    facts, arrays = [], {}
    if args.unit is None:
        arrays = {"values": found.values, "images": found.images, "places": found.flat_positions}

    def recorded() -> Iterator[UnitExamples]:
        """Yield one unit at a time, and record its facts and the arrays of chosen units."""
        options = {"rule": args.rule, "image_size": args.image_size}
        for top in project_top(model, images, found, args.unit, **options):
            facts.append(
                {
                    "unit": top.unit,
                    "strongest": [
                        projection_facts(one) | _image_facts(args.dataset, images, one.image)
                        for one in top.projections
                    ],
                }
            )
            if args.unit is not None and top.projections:
                arrays[f"patches_{top.unit}"] = top.patches
                arrays[f"projections_{top.unit}"] = np.stack(
                    [one.projection for one in top.projections]
                )
            yield top

    units = len(found.values) if args.unit is None else len(args.unit)
    draw_top9(recorded(), path, units=units, **picture_options(args))
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


def _image_facts(dataset: str, images: Split, index: int) -> dict[str, str | None]:
    """Return the name and the file of an image; None for the file of one that has none."""
    from cnnkit.data import image_path

    return {"name": images.names[index], "file": image_path(dataset, images.names[index])}


def add_evolution_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the evolution over epochs."""
    # Not `run`: `args.run` is the function that runs the verb.
    parser.add_argument("folder", metavar="RUN", type=run_folder, help="run folder")
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        type=DatasetSpec(),
        nargs="?",
        help="digits, folder:PATH ... (default: the run's)",
    )
    add_layers_argument(parser)
    parser.add_argument("--unit", type=INDEX, nargs="+", help="feature maps of every layer")
    parser.add_argument(
        "--count", type=COUNT, default=6, help="without --unit, random maps of a layer (default 6)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of the draw (default 0)")
    add_split_argument(parser, "train")
    parser.add_argument(
        "--epochs",
        type=COUNT,
        nargs="+",
        metavar="EPOCH",
        help="epochs whose network was kept (default: all of them)",
    )
    add_rule_argument(parser)


def draw_evolution(args: argparse.Namespace) -> Figure:
    """Search the dataset with the network of each epoch, project and draw."""
    from cnnkit.figures import draw_feature_evolution
    from cnnkit.visualize import feature_evolution

    run = RunFolder.open(args.folder)
    dataset = args.dataset or run.config.dataset
    images = load_split(dataset, args.split, seed=run.config.seed)
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
    draw_feature_evolution(found, args.output, **picture_options(args))
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
                        projection_facts(top.projections[0])
                        | _image_facts(dataset, images, top.projections[0].image)
                        if top.projections
                        else None
                        for top in row.examples
                    ],
                }
                for row in rows
            ],
        },
        _strongest_arrays(
            {
                f"{row.layer}_{row.unit}_{epoch}": top
                for row in rows
                for epoch, top in zip(row.epochs, row.examples, strict=True)
            }
        ),
    )


def add_layer2_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the second layers."""
    add_network_arguments(parser, "networks", nargs="+")
    add_dataset_argument(parser)
    parser.add_argument("--layer", default="conv2", help="the second layer (default conv2)")
    parser.add_argument("--unit", type=INDEX, nargs="+", help="its feature maps")
    parser.add_argument(
        "--count", type=COUNT, default=16, help="without --unit, random active maps (default 16)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of the draw (default 0)")
    add_split_argument(parser, "test")
    add_rule_argument(parser)
    add_image_size_argument(parser)


def draw_layer2(args: argparse.Namespace) -> Figure:
    """Project second-layer units of each network and draw them."""
    from cnnkit.figures import draw_second_layer
    from cnnkit.visualize import second_layer_filters

    images = load_split(args.dataset, args.split)
    networks = [
        second_layer_filters(
            model, images, args.layer, units=args.unit, count=args.count,
            seed=args.seed, rule=args.rule, image_size=args.image_size,
        )
        for model in load_networks(args.networks, **builder_arguments(args))
    ]  # fmt: skip
    # Several networks may have one name, such as that of their architecture.
    models = [one.model for one in networks]
    names = [
        model if models.count(model) == 1 else f"{model}, {Path(path).name}"
        for model, path in zip(models, args.networks, strict=True)
    ]
    draw_second_layer(networks, args.output, names=names, **picture_options(args))
    return Figure(
        "; ".join(
            f"{one.model}: {int(one.filters.dead.sum())} dead and {len(one.first_dead_units)}"
            f" silent of {len(one.filters.kernels)} in {one.filters.layer},"
            f" {len(one.second_dead_units)} silent of {one.units} in {one.layer}"
            for one in networks
        ),
        {
            "dataset": args.dataset,
            "split": args.split,
            "networks": [
                {
                    "path": path,
                    "model": one.model,
                    "first": one.filters.layer,
                    "dead": np.flatnonzero(one.filters.dead).tolist(),
                    "silent": list(one.first_dead_units),
                    "second": one.layer,
                    "second_silent": list(one.second_dead_units),
                    "strongest": [
                        projection_facts(result) | _image_facts(args.dataset, images, result.image)
                        for top in one.examples
                        for result in top.projections
                    ],
                }
                for path, one in zip(args.networks, networks, strict=True)
            ],
        },
        _strongest_arrays(
            {f"{n}_{top.unit}": top for n, one in enumerate(networks) for top in one.examples}
        ),
    )


def _strongest_arrays(examples: Mapping[str, UnitExamples]) -> dict[str, np.ndarray]:
    """Return the strongest projection and image patch of each active unit, by name."""
    return {
        f"{kind}_{name}": values
        for name, top in examples.items()
        if top.projections
        for kind, values in (
            ("projection", top.projections[0].projection),
            ("patch", top.patches[0]),
        )
    }


TOP9 = FigureCommand(
    """Find the nine images of a dataset that activate each unit most.

Finds the nine strongest activations of feature maps over a dataset's images, in one pass for all
layers, and draws the projection and the image patch of each (Zeiler & Fergus 2013, Fig. 2). With
several layers, each is drawn to a file of its own: NAME_LAYER.png.

Without --unit, all maps of the layers are drawn; the arrays beside the figures then hold the
activations, images and positions of every map, but no pixels.""",
    add_top9_arguments,
    draw_top9_figures,
)


def _check_evolution(args: argparse.Namespace) -> None:
    run = RunFolder.open(args.folder)
    last = run.epoch_file(run.choose_epochs(args.epochs)[-1])
    outline = network_outline(str(last))
    if outline is not None:
        check_network_words(args, outline)


EVOLUTION = FigureCommand(
    """Draw the projections of units epoch by epoch of a training.

Projects the strongest activation of each unit over the training images, with the networks of the
epochs that the run kept (Zeiler & Fergus 2013, Fig. 4): see `cnnkit train --keep-epochs`.""",
    add_evolution_arguments,
    draw_evolution,
    _check_evolution,
)
LAYER2 = FigureCommand(
    """Compare the second layers of several networks.

Projects second-layer units of each network and counts dead filters: the reason why Zeiler & Fergus
changed AlexNet's 11 x 11 filters at stride 4 to 7 x 7 at stride 2 (2013, Fig. 6).""",
    add_layer2_arguments,
    draw_layer2,
)
