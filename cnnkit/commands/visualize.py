"""Draw what a trained network sees."""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnkit.errors import DataError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the pictures and their arguments."""
    pictures = parser.add_subparsers(metavar="NAME", dest="name", required=True)
    deconvnet = pictures.add_parser(
        "deconvnet",
        help="what in an image made a unit fire",
        description="Project one unit's strongest activation down to the pixels "
        "(Zeiler & Fergus 2013).",
    )
    filters = pictures.add_parser(
        "filters",
        help="the kernels of the first convolution",
        description="Draw the kernels that see the image itself, dead and dominating ones marked "
        "(Krizhevsky et al. 2012, Fig. 3).",
    )
    for picture in (deconvnet, filters):
        picture.add_argument("model", metavar="MODEL", help="run folder or .keras file")
    deconvnet.add_argument("image", metavar="IMAGE", help="image file")
    deconvnet.add_argument("--layer", required=True, help="for example conv5")
    deconvnet.add_argument("--unit", type=int, help="feature map (default: the strongest)")
    deconvnet.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")
    for picture in (deconvnet, filters):
        picture.add_argument(
            "--output", required=True, metavar="PNG", help="where the picture goes"
        )


def run(args: argparse.Namespace) -> int:
    """Looks and draws."""
    output = Path(args.output)
    if output.suffix.lower() != ".png":
        raise UsageError("The picture is a PNG", expected="--output NAME.png", received=output)
    if not output.parent.is_dir():
        raise UsageError(f"No folder {output.parent} for the picture")

    from cnnkit.commands._tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.models import load_model

    model = load_model(args.model)
    seen = _deconvnet(model, args) if args.name == "deconvnet" else _filters(model, args)
    print(f"{output}: {seen}")
    return 0


def _deconvnet(model, args: argparse.Namespace) -> str:
    from cnnkit.commands._image import read_image
    from cnnkit.figures import draw_projection
    from cnnkit.visualize import deconvnet

    image = read_image(args.image, model.input_shape[1])
    [result] = deconvnet(model, image, args.layer, args.unit, rule=args.rule)
    if not result.projection.any():
        raise DataError(
            f"Unit {result.unit} of {result.layer} does not fire on {args.image}",
            hint="Leave --unit out to take the strongest one",
        )
    draw_projection(image, result, args.output)
    return f"{result.layer} unit {result.unit}, activation {result.activation:.3g}{result.where}"


def _filters(model, args: argparse.Namespace) -> str:
    from cnnkit.figures import draw_filters
    from cnnkit.visualize import filters

    found = filters(model)
    draw_filters(found, args.output)
    return (
        f"{len(found.kernels)} kernels of {found.layer}, {int(found.dead.sum())} dead,"
        f" {int(found.dominating.sum())} dominating"
    )
