"""List the networks, or show one layer by layer.

`cnnkit models` lists all; `cnnkit models NAME` shows one; `cnnkit models compare-stacks` compares
stacks of 3x3 convolutions with single larger ones (Simonyan & Zisserman 2014, section 2.3).
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from cnnkit._network_options import check_image_sides
from cnnkit._networks import LEAST_SIDES, conv_stack_cost
from cnnkit.cli.console import add_json_argument, print_json, print_table
from cnnkit.cli.values import COUNT, network_name

if TYPE_CHECKING:
    from cnnkit.models.summary import LayerSummary

COMPARE_STACKS = "compare-stacks"
# Sides of the kernels of each stack.
STACKS = ((3, 3, 3), (7,), (3, 3), (5,))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "name",
        nargs="?",
        type=_network_or_stacks,
        metavar="NAME",
        help=f"a network, or {COMPARE_STACKS}",
    )
    parser.add_argument("--classes", type=COUNT, default=1000, help="default: 1000")
    parser.add_argument(
        "--image-size",
        type=COUNT,
        metavar="PIXELS",
        help="side of the image (default: the paper's)",
    )
    add_json_argument(parser)


def _network_or_stacks(text: str) -> str:
    return text if text == COMPARE_STACKS else network_name(text)


def run(args: argparse.Namespace) -> int:
    """Print a table."""
    if args.name == COMPARE_STACKS:
        rows = _stack_rows()
    else:
        if args.image_size is not None:
            for name in LEAST_SIDES if args.name is None else [args.name]:
                check_image_sides(name, (args.image_size, args.image_size), "image_size")
        from cnnkit.cli.quiet_tensorflow import import_tensorflow

        import_tensorflow()
        rows = _network_rows(args) if args.name is None else _layer_rows(args)
    if args.json:
        print_json(rows)
    else:
        print_table([_shown(row) for row in rows])
    return 0


def _stack_rows() -> list[dict[str, Any]]:
    return [
        {
            "kernels": list(cost.kernels),
            "receptive_field": cost.receptive_field,
            "weights_per_channel_squared": cost.weights_per_channel_squared,
            "activations": cost.activations,
        }
        for cost in map(conv_stack_cost, STACKS)
    ]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it is shown on a terminal, of the fields that JSON has too."""
    shown = {}
    for name, value in row.items():
        title = name.replace("_", " ")
        match name:
            case "kernels":
                title, value = "convolutions", " + ".join(f"{side}x{side}" for side in value)
            case "receptive_field" if "kernels" in row:
                value = f"{value}x{value}"
            case "weights_per_channel_squared":
                title, value = "weights", f"{value} C^2"
            case "multiply_adds" if "paper" in row:
                title = "multiply-adds"
            case "output":
                value = " x ".join(map(str, value))
        shown[title] = value
    return shown


def _network_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    from cnnkit.models import BUILDERS, PAPERS
    from cnnkit.models.summary import layer_macs

    rows = []
    for name in BUILDERS:
        layers = _summarize(name, args)
        last = [layer for layer in layers if layer.kind.endswith("Conv2D")][-1]
        rows.append(
            {
                "name": name,
                "paper": PAPERS[name],
                "parameters": sum(layer.parameters for layer in layers),
                "multiply_adds": layer_macs(layers),
                "least_side": LEAST_SIDES.get(name),
                "last_convolution_sees": last.receptive_field,
            }
        )
    return rows


def _layer_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for layer in _summarize(args.name, args):
        fields = dataclasses.asdict(layer)
        shape = fields.pop("output_shape")
        fields = {"name": fields.pop("name"), "kind": fields.pop("kind"), **fields}
        rows.append({**fields, "output": list(shape)})
    return rows


def _summarize(name: str, args: argparse.Namespace) -> list[LayerSummary]:
    from cnnkit.models.summary import build_without_weights, summarize_network

    options: dict[str, Any] = {"classes": args.classes}
    if args.image_size:
        options["input_shape"] = (args.image_size, args.image_size, 3)
    with build_without_weights(name, **options) as model:
        return summarize_network(model)
