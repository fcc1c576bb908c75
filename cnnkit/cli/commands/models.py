"""List the networks, or show one layer by layer.

`cnnkit models` lists all; `cnnkit models NAME` shows one; `cnnkit models compare-stacks` sets three
3x3 convolutions beside one of 7x7.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from cnnkit.cli.console import table
from cnnkit.errors import UsageError

COMPARE = "compare-stacks"
STACKS = ((3, 3, 3), (7,), (3, 3), (5,))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"a network, or {COMPARE}")
    parser.add_argument("--classes", type=int, default=1000, help="default: 1000")
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of the image (default: the paper's)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Prints a table."""
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    if args.name == COMPARE:
        rows = _stacks()
    elif args.name is None:
        rows = _networks(args)
    else:
        rows = _layers(args)
    if args.json:
        print(json.dumps(rows))
    else:
        print(table(rows))
    return 0


def _stacks() -> list[dict]:
    from cnnkit.models.summary import conv_stack_cost

    stacks = [conv_stack_cost(kernels) for kernels in STACKS]
    return [
        {
            "convolutions": " + ".join(f"{kernel}x{kernel}" for kernel in one.kernels),
            "receptive field": f"{one.receptive_field}x{one.receptive_field}",
            "weights": f"{one.weights_per_channel_squared} C^2",
            "activations": one.activations,
        }
        for one in stacks
    ]


def _networks(args: argparse.Namespace) -> list[dict]:
    from cnnkit.models import BUILDERS, PAPERS
    from cnnkit.models.summary import layer_macs

    rows = []
    for name in BUILDERS:
        accounts = _account(name, args)
        last = [row for row in accounts if row.kind.endswith("Conv2D")][-1]
        rows.append(
            {
                "name": name,
                "paper": PAPERS[name],
                "parameters": sum(row.parameters for row in accounts),
                "multiply-adds": layer_macs(accounts),
                "least side": _least_side(name),
                "last convolution sees": last.receptive_field,
            }
        )
    return rows


def _layers(args: argparse.Namespace) -> list[dict]:
    rows = []
    for row in _account(args.name, args):
        fields = dataclasses.asdict(row)
        shape = fields.pop("output_shape")
        fields = {"name": fields.pop("name"), "kind": fields.pop("kind"), **fields}
        fields["output"] = " x ".join(map(str, shape))
        rows.append({key.replace("_", " "): value for key, value in fields.items()})
    return rows


def _account(name: str, args: argparse.Namespace):
    from cnnkit.models.summary import build_without_weights, summarize_network

    if args.image_size is not None and args.image_size < 1:
        raise UsageError("An image has pixels", expected="at least 1", received=args.image_size)
    options: dict = {"classes": args.classes}
    if args.image_size:
        options["input_shape"] = (args.image_size, args.image_size, 3)
    with build_without_weights(name, **options) as model:
        return summarize_network(model)


def _least_side(name: str) -> int:
    """Returns the smallest image that the network takes, from its refusal of a single pixel."""
    from cnnkit.models import build
    from cnnkit.models.blocks import ImageTooSmall

    try:
        build(name, input_shape=(1, 1, 3))
    except ImageTooSmall as error:
        return error.least_side
    return 1
