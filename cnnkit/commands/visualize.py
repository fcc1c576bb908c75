"""Draw what a trained network sees."""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnkit.errors import DataError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the pictures and their arguments."""
    pictures = parser.add_subparsers(metavar="NAME", dest="name", required=True)
    picture = pictures.add_parser(
        "deconvnet",
        help="what in an image made a unit fire",
        description="Project one unit's strongest activation down to the pixels "
        "(Zeiler & Fergus 2013).",
    )
    picture.add_argument("model", metavar="RUN", help="run folder or .keras file")
    picture.add_argument("image", metavar="IMAGE", help="image file")
    picture.add_argument("--layer", required=True, help="for example conv5")
    picture.add_argument("--unit", type=int, help="feature map (default: the strongest)")
    picture.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")
    picture.add_argument("--output", required=True, metavar="PNG", help="where the picture goes")


def run(args: argparse.Namespace) -> int:
    """Projects and draws."""
    output = Path(args.output)
    if output.suffix.lower() != ".png":
        raise UsageError("The picture is a PNG", expected="--output NAME.png", received=output)
    if not output.parent.is_dir():
        raise UsageError(f"No folder {output.parent} for the picture")

    from cnnkit.commands._tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.commands._image import read_image
    from cnnkit.figures import draw_projection
    from cnnkit.models import load_model
    from cnnkit.visualize import deconvnet

    model = load_model(args.model)
    image = read_image(args.image, model.input_shape[1])
    [result] = deconvnet(model, image, args.layer, args.unit, rule=args.rule)
    if not result.projection.any():
        raise DataError(
            f"Unit {result.unit} of {result.layer} does not fire on {args.image}",
            hint="Leave --unit out to take the strongest one",
        )
    draw_projection(image, result, output)
    what = f"{result.layer} unit {result.unit}, activation {result.activation:.3g}{result.where}"
    print(f"{output}: {what}")
    return 0
