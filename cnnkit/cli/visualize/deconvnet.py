"""Deconvnet figures: a projection, the layerwise passes, and the backward rules compared."""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.picture import picture_options
from cnnkit.cli.read_image import read_image_for
from cnnkit.cli.visualize.figure import (
    Figure,
    FigureCommand,
    add_image_argument,
    add_layers_argument,
    add_rule_argument,
    add_unit_argument,
    projection_facts,
    projection_summary,
    require_active_unit,
)


def add_deconvnet_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the deconvnet figure."""
    add_stack_arguments(parser)
    add_rule_argument(parser)


def draw_deconvnet(args: argparse.Namespace) -> Figure:
    """Project one unit of one layer to the pixels and draw it."""
    from cnnkit.figures import draw_projection
    from cnnkit.visualize import deconvnet

    model = load_from_arguments(args).model
    image = read_image_for(args.image, model)
    [result] = deconvnet(model, image, args.layer, args.unit, rule=args.rule)
    require_active_unit(result, args)
    draw_projection(image, result, args.output, **picture_options(args))
    return Figure(
        projection_summary(result), projection_facts(result), {"projection": result.projection}
    )


def add_stack_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the stack figure."""
    add_network_arguments(parser)
    add_image_argument(parser)
    add_unit_argument(parser)


def draw_stack(args: argparse.Namespace) -> Figure:
    """Draw the forward and the backward pass of one unit, layer by layer."""
    from cnnkit.figures import draw_layerwise
    from cnnkit.visualize import deconvnet, forward_steps

    model = load_from_arguments(args).model
    image = read_image_for(args.image, model)
    [result] = deconvnet(model, image, args.layer, args.unit)
    require_active_unit(result, args)
    steps = forward_steps(model, image[None], args.layer)
    signal = np.zeros_like(steps[-1].output)
    signal[(0, *result.position, result.unit)] = 1
    draw_layerwise(steps, signal, args.output, **picture_options(args))
    facts = {**projection_facts(result), "steps": [[step.layer, step.kind] for step in steps]}
    return Figure(projection_summary(result), facts, {"projection": result.projection})


def add_rules_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the rules figure."""
    add_network_arguments(parser)
    add_image_argument(parser)
    add_layers_argument(parser)


def draw_rules_figure(args: argparse.Namespace) -> Figure:
    """Project the strongest unit of each layer by every rule and draw them."""
    from cnnkit.figures import draw_rules
    from cnnkit.visualize import deconvnet

    model = load_from_arguments(args).model
    image = read_image_for(args.image, model)
    rows = []
    for layer in args.layer:
        [first] = deconvnet(model, image, layer)
        require_active_unit(first, args)
        others = (
            deconvnet(model, image, layer, first.unit, first.position or None, rule=rule)[0]
            for rule in ("guided", "gradient")
        )
        rows.append([first, *others])
    draw_rules(image, rows, args.output, **picture_options(args))
    return Figure(
        "; ".join(projection_summary(row[0]) for row in rows),
        {"projections": [projection_facts(result) for row in rows for result in row]},
        {f"{result.layer}_{result.rule}": result.projection for row in rows for result in row},
    )


DECONVNET = FigureCommand(
    """Project a unit to the pixels that activated it.

Projects one unit's strongest activation down to the pixels (Zeiler & Fergus 2013).""",
    add_deconvnet_arguments,
    draw_deconvnet,
)
STACK = FigureCommand(
    """Draw the forward pass to a unit and the deconvnet's way back, layer by layer.

Draws the output of every layer for an image, and beside it the signal of one unit on its way back
through the deconvnet (Zeiler & Fergus 2013, Fig. 1).""",
    add_stack_arguments,
    draw_stack,
)
RULES = FigureCommand(
    """Compare the three backward rules side by side.

Projects the strongest unit of each layer by the deconvnet, by guided back-propagation and by the
gradient.""",
    add_rules_arguments,
    draw_rules_figure,
)
