"""Inspect a weights file, or convert it to a network.

Files of Keras (.keras, .weights.h5, .h5), PyTorch (.safetensors, .pth), Caffe (.caffemodel) and
arrays by name (.npz, .npy) are recognized by their content; no code in them runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit._network_options import check_builder_options, check_imagenet_network
from cnnkit._networks import IMAGENET
from cnnkit.cli.arguments import (
    MODEL_OPTION_HELP,
    add_preprocessing_arguments,
    parse_model_options,
    preprocessing_arguments,
)
from cnnkit.cli.console import add_json_argument, print_json, print_line, read_labels
from cnnkit.cli.values import OutputFile, input_file, network_name, pretrained_network
from cnnkit.errors import UsageError
from cnnkit.run_folder import names_imagenet

if TYPE_CHECKING:
    from cnnkit.models.weights.weights_file import WeightsFile

COLORS = 3
HOW = "--preprocessing NAME, or --channels, --mean, --std, --scale"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    subcommands = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    inspect = subcommands.add_parser(
        "inspect",
        help="print the kind of a file, its tensors and the networks that fit",
        description="Print the kind of a weights file, its tensors, and the networks that it fits.",
    )
    convert = subcommands.add_parser(
        "convert",
        help="write a network with these weights as a .keras file",
        description=(
            "Write a network with these weights as a .keras file that takes RGB images in 0..255. "
            "It stores the network's output for a fixed image, which is checked on loading."
        ),
    )
    for subcommand, more in ((inspect, ""), (convert, "; or `imagenet` with vgg16 or vgg19")):
        subcommand.add_argument(
            "file",
            metavar="FILE",
            type=pretrained_network,
            help=f"weights file, or a run folder{more}",
        )
        add_preprocessing_arguments(subcommand)
        subcommand.add_argument(
            "--labels", metavar="FILE", type=input_file, help="class names, one a line"
        )
    add_json_argument(inspect)
    convert.add_argument(
        "--model", required=True, type=network_name, help="a network that `cnnkit models` lists"
    )
    convert.add_argument(
        "--model-option", action="append", default=[], metavar="NAME=VALUE", help=MODEL_OPTION_HELP
    )
    convert.add_argument(
        "--output",
        required=True,
        type=OutputFile(".keras"),
        metavar="FILE.keras",
        help="the new file",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace --output")


def run(args: argparse.Namespace) -> int:
    """Inspect or convert the file."""
    options = parse_model_options(args.model_option) if args.action == "convert" else {}
    is_imagenet = names_imagenet(args.file)
    if is_imagenet and args.action == "inspect":
        raise UsageError(
            "`file` must be a file to inspect",
            received=IMAGENET,
            hint="`cnnkit weights convert imagenet --model vgg16 --output vgg16.keras` makes one",
        )
    if is_imagenet:
        check_imagenet_network(args.model)
    if args.action == "convert":
        check_builder_options(args.model, options)
    if args.action == "convert" and Path(args.output).exists() and not args.overwrite:
        raise UsageError(f"--output {args.output} exists", hint="--overwrite replaces it")

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.models import open_weights

    stated = preprocessing_arguments(args)
    if args.labels is not None:
        stated["class_names"] = read_labels(args.labels)
    if is_imagenet:
        from cnnkit.models.weights.download import download_imagenet_weights

        include_top = options.get("include_top", True)
        file = download_imagenet_weights(args.model, include_top=include_top, **stated)
    else:
        file = open_weights(args.file, **stated)
    if args.action == "inspect":
        facts = _facts(file)
        if args.json:
            print_json(facts)
        else:
            for line in _text(facts):
                print_line(line)
        return 0

    from cnnkit.models.weights.convert import convert_weights

    model = convert_weights(file, args.model, args.output, overwrite=args.overwrite, **options)
    print_line(
        f"{args.output}: {args.model} with {model.count_params():,} parameters from {file.format};"
        " takes RGB in 0..255, and contains its output for a fixed image"
    )
    return 0


def _facts(file: WeightsFile) -> dict[str, Any]:
    import numpy as np

    from cnnkit.models.weights.compatible import compatible_networks, describe_differences

    found = compatible_networks(file)
    fitting = [fit for fit in found if fit.problem is None]
    preprocessing = file.preprocessing
    mean, std = np.asarray(preprocessing.mean, float), preprocessing.std
    color = mean.reshape(-1, COLORS).mean(axis=0)
    known = preprocessing.origin != "unknown"
    return {
        "file": str(file.path),
        "kind": file.format,
        **file.metadata,
        "parameters": file.parameter_count,
        "tensors": [
            {"name": tensor.name, "shape": list(tensor.shape)}
            for layer in file.layers
            for tensor in layer.tensors
        ],
        "preprocessing": preprocessing.describe(),
        "to_say_otherwise": HOW if preprocessing.is_assumed else None,
        "first_kernel_takes": file.channels,
        "mean": [round(float(value), 3) for value in color] if known else None,
        "mean_image": None if mean.ndim == 1 else list(mean.shape),
        "divided_by": None if std is None else [round(float(value), 3) for value in std],
        "class_names": None if file.class_names is None else len(file.class_names),
        "fits": [
            fit.network + ("" if fit.include_top else " (include_top=False)") for fit in fitting
        ],
        "to_choose": describe_differences([fit.network for fit in fitting])
        if fitting[1:]
        else None,
        "nearest": None if found[0].problem is None else found[0].problem,
    }


def _text(facts: dict[str, Any]) -> list[str]:
    lines = [facts["file"]]
    width = max(map(len, facts))
    for key, value in facts.items():
        if key in ("file", "tensors") or value is None:
            continue
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "none of the networks"
        elif isinstance(value, int):
            value = f"{value:,}"
        lines.append(f"  {key.replace('_', ' '):<{width}}  {value}")
    lines.append("  tensors")
    lines += [
        f"    {tensor['name']}  {' x '.join(map(str, tensor['shape']))}"
        for tensor in facts["tensors"]
    ]
    return lines
