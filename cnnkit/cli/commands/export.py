"""Write a trained network for TensorFlow Serving, ONNX Runtime, LiteRT or OpenVINO.

`--format onnx`, `litert` and `openvino` write a folder with the network, its labels and a card. The
runtime itself verifies the network on eight photographs.

`cnnkit export verify DIR` checks an exported version and tests it with invalid inputs; a run folder
with the name verify is ./verify.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit._export_formats import FORMATS, QUANTIZATIONS, SAVED_MODEL_FORMAT, check_format
from cnnkit._file_tree import check_version_free
from cnnkit._network_names import check_scale
from cnnkit.cli.console import add_json_argument, print_json, print_line, progress_bar, request_bar
from cnnkit.cli.load_network import (
    LoadedModel,
    add_builder_arguments,
    builder_arguments,
    check_networks,
    load_network,
)
from cnnkit.cli.read_image import add_decoding_arguments, set_decoding
from cnnkit.cli.values import (
    COUNT,
    INDEX,
    input_file,
    input_folder,
    network_path,
    not_one_of,
    output_folder,
)
from cnnkit.errors import UsageError

if TYPE_CHECKING:
    import keras

    from cnnkit.data import Augmentation
    from cnnkit.export import ImageLimits

# Subcommands, which stand in place of a network, and their modules in `cnnkit.cli.commands`.
SIGNATURES = (
    "serving_default",
    "serving_bytes",
    "classify_bytes",
    "features",
    "features_bytes",
    "explain_bytes",
    "localize_bytes",
)
EXPLAIN = "explain_bytes"
# Options that only some formats have, with their defaults.
_LIMITS = ("max_images", "max_file_bytes", "max_pixels", "max_request_pixels", "max_free_pixels")
_OF_SAVED_MODELS: dict[str, Any] = {
    "number": None,
    "signatures": None,
    "top": 5,
    "explain_layers": [],
    "features_layer": None,
    "dtype": "float32",
    "warmup": 1,
    **dict.fromkeys(_LIMITS),
}
_OF_RUNTIMES: dict[str, Any] = {"quantize": None, "photos": None, "overwrite": False}
SUBCOMMANDS = {"verify": "_export_verify"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "network",
        type=network_path,
        metavar="RUN|MODEL.keras|WEIGHTS",
        help="folder that `cnnkit train` wrote, a Keras model, or a weights file of others",
    )
    parser.add_argument(
        "--output",
        type=output_folder,
        required=True,
        metavar="models/NAME",
        help="model folder, in which the next integer becomes the version; the folder itself for "
        "other formats than saved_model",
    )
    _add_format_arguments(parser)
    # With another destination, because `args.version` is that of `cnnkit --version`.
    parser.add_argument(
        "--version", type=COUNT, metavar="N", dest="number", help="number of the version"
    )
    _add_signature_arguments(parser)
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16"),
        help="float32 (default) or bfloat16, of half the size",
    )
    parser.add_argument(
        "--fully-convolutional",
        action="store_true",
        help="serving_default and features take images of every height and width",
    )
    parser.add_argument(
        "--warmup",
        type=INDEX,
        default=1,
        metavar="N",
        help="requests to each signature that a server runs while loading (default: 1)",
    )
    limits = parser.add_argument_group("limits, beyond which the served network refuses images")
    limits.add_argument("--max-images", type=COUNT, metavar="N", help="images in a request")
    limits.add_argument("--max-file-bytes", type=COUNT, metavar="N", help="bytes of an image file")
    limits.add_argument("--max-pixels", type=COUNT, metavar="N", help="pixels of an image file")
    limits.add_argument(
        "--max-request-pixels", type=COUNT, metavar="N", help="pixels of all files of a request"
    )
    limits.add_argument(
        "--max-free-pixels",
        type=COUNT,
        metavar="N",
        help="pixels of all `images` of a request, for --fully-convolutional",
    )
    others = parser.add_argument_group("for a model or weights without a run")
    others.add_argument("--labels", metavar="FILE", type=input_file, help="class names, one a line")
    add_builder_arguments(others, seed=False)
    others.add_argument(
        "--scale",
        type=COUNT,
        metavar="PIXELS",
        help="shorter side before the crop (default: the run's, else the network's)",
    )
    add_decoding_arguments(parser)
    add_json_argument(parser)


def _add_format_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        default=SAVED_MODEL_FORMAT,
        choices=(SAVED_MODEL_FORMAT, *FORMATS),
        help="saved_model (default) for TensorFlow Serving, onnx, litert or openvino",
    )
    runtimes = parser.add_argument_group("for onnx, litert and openvino")
    runtimes.add_argument(
        "--quantize",
        choices=QUANTIZATIONS,
        help="int8: weights in 8 bits; int8-static: activations too, with ranges found on --photos",
    )
    runtimes.add_argument(
        "--photos",
        type=input_folder,
        metavar="DIR",
        help="photographs to compare on, at most 500 (default: eight windows of two photographs)",
    )
    runtimes.add_argument(
        "--overwrite", action="store_true", help="replace an earlier export in --output"
    )


def _signature_name(text: str) -> str:
    if text not in SIGNATURES and not text.startswith(f"{EXPLAIN}_"):
        names = (*SIGNATURES, f"{EXPLAIN}_LAYER")
        raise argparse.ArgumentTypeError(not_one_of(text, names))
    return text


def _add_signature_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--signatures",
        nargs="+",
        type=_signature_name,
        metavar="NAME",
        help="serving_bytes, classify_bytes, features, features_bytes, explain_bytes, "
        "localize_bytes; serving_default is always there (default: all that the network allows)",
    )
    parser.add_argument(
        "--top",
        "--top-k",
        type=COUNT,
        default=5,
        metavar="K",
        dest="top",
        help="classes that classify_bytes and localize_bytes return (default: 5)",
    )
    parser.add_argument(
        "--explain-layers",
        nargs="+",
        default=[],
        metavar="LAYER",
        help="layers whose strongest unit is explained by a signature explain_bytes_LAYER",
    )
    parser.add_argument(
        "--features-layer", metavar="LAYER", help="default: the one before the logits, as fc7"
    )


def run(args: argparse.Namespace) -> int:
    """Export the network, and print the new folder."""
    _check_format(args)
    (outline,) = check_networks(args, [args.network])
    if args.scale is not None and outline is not None and outline.sides is not None:
        check_scale(args.scale, outline.sides[0])

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.export import export

    options = builder_arguments(args)
    loaded = load_network(args.network, labels_file=args.labels, classifier=True, **options)
    model = loaded.model if loaded.localizer is None else loaded.localizer
    if args.format != SAVED_MODEL_FORMAT:
        return _export_for_runtime(args, loaded, model)
    folder = export(
        model,
        loaded.labels,
        args.output,
        version=args.number,
        signatures=args.signatures,
        top=args.top,
        explain_layers=args.explain_layers,
        features_layer=args.features_layer,
        dtype=args.dtype,
        fully_convolutional=args.fully_convolutional,
        augmentation=_augmentation(loaded, args.scale),
        warmup=args.warmup,
        limits=_limits(args),
        decoding=set_decoding(args),
        origin=loaded.origin,
        progress=request_bar,
    )
    if args.json:
        print_json({"folder": str(folder), "version": int(folder.name)})
    else:
        print_line(f"{folder}: reloaded, answers as the trained model does")
    return 0


def _check_format(args: argparse.Namespace) -> None:
    """Check the options of the format, and that `--output` is free, before TensorFlow starts.

    Raises:
        UsageError: If an option belongs to another format, a package is not installed, or
            `--output` is not free.
    """
    is_saved_model = args.format == SAVED_MODEL_FORMAT
    for name, default in (_OF_RUNTIMES if is_saved_model else _OF_SAVED_MODELS).items():
        if getattr(args, name) != default:
            formats = " or ".join(FORMATS) if is_saved_model else SAVED_MODEL_FORMAT
            raise UsageError(f"`{name}` is for --format {formats}")
    output = Path(args.output)
    if is_saved_model:
        check_version_free(output, args.number)
        return
    check_format(
        args.format,
        output,
        quantize=args.quantize,
        photos=args.photos,
        overwrite=args.overwrite,
    )


def _export_for_runtime(args: argparse.Namespace, loaded: LoadedModel, model: keras.Model) -> int:
    from cnnkit.export import export_for_runtime

    found = export_for_runtime(
        model,
        loaded.labels,
        args.output,
        args.format,
        quantize=args.quantize,
        photos=args.photos,
        fully_convolutional=args.fully_convolutional,
        augmentation=_augmentation(loaded, args.scale),
        decoding=set_decoding(args),
        origin=loaded.origin,
        overwrite=args.overwrite,
        progress=progress_bar,
    )
    if args.json:
        paths = {"folder": str(found.folder), "file": str(found.file)}
        print_json({**dataclasses.asdict(found), **paths})
        return 0
    print_line(
        f"{found.file}: {found.file_bytes:,} bytes; {found.runtime} differs from the trained model "
        f"by {found.difference:.1e} at most on {found.compared} photographs"
    )
    if found.quantize is not None:
        share = 100 * found.agreeing / found.photographs
        print_line(
            f"same class on {found.agreeing} of {found.photographs} photographs ({share:.1f} %)"
        )
    return 0


def _augmentation(loaded: LoadedModel, scale: int | None) -> Augmentation | None:
    from cnnkit.data import Augmentation

    if scale is None:
        return loaded.augmentation
    return Augmentation(loaded.model.input_shape[1], scale=(scale, scale))


def _limits(args: argparse.Namespace) -> ImageLimits:
    from cnnkit.export import ImageLimits

    given = {
        "images": args.max_images,
        "file_bytes": args.max_file_bytes,
        "pixels": args.max_pixels,
        "request_pixels": args.max_request_pixels,
        "free_pixels": args.max_free_pixels,
    }
    return ImageLimits(**{name: value for name, value in given.items() if value is not None})
