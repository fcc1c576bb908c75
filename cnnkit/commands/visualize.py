"""Draw what a trained network sees."""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnkit.errors import DataError, UsageError, unknown_name


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
    stack = pictures.add_parser(
        "stack",
        help="the way up to a unit and the way down again, step by step",
        description="Draw what every layer makes of an image, and what the deconvnet makes of one "
        "unit's signal on its way back (Zeiler & Fergus 2013, Fig. 1).",
    )
    rules = pictures.add_parser(
        "rules",
        help="the three backward rules side by side",
        description="Project the strongest unit of each layer by the deconvnet, by guided "
        "back-propagation and by the gradient.",
    )
    top9 = pictures.add_parser(
        "top9",
        help="the nine images that excite a unit most, over a dataset",
        description="Find the nine strongest activations of feature maps over a dataset's test "
        "images, project each and show what it saw (Zeiler & Fergus 2013, Fig. 2).",
    )
    every = (deconvnet, filters, stack, rules, top9)
    for picture in every:
        picture.add_argument("model", metavar="MODEL", help="run folder or .keras file")
    for picture in (deconvnet, stack, rules):
        picture.add_argument("image", metavar="IMAGE", help="image file")
    for picture in (deconvnet, stack):
        picture.add_argument("--layer", required=True, help="for example conv5")
        picture.add_argument("--unit", type=int, help="feature map (default: the strongest)")
    deconvnet.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")
    rules.add_argument("--layer", required=True, nargs="+", help="for example conv3 conv5")
    top9.add_argument("dataset", metavar="DATASET", help="digits, folder:PATH or tfds:NAME")
    top9.add_argument("--layer", required=True, help="for example conv5")
    top9.add_argument("--unit", required=True, type=int, nargs="+", help="feature maps")
    top9.add_argument("--split", default="test", help="test (default) or train")
    top9.add_argument("--image-size", type=int, help="for a network of no fixed size")
    for picture in every:
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
    draw = {
        "deconvnet": _deconvnet,
        "filters": _filters,
        "stack": _stack,
        "rules": _rules,
        "top9": _top9,
    }
    print(f"{output}: {draw[args.name](model, args)}")
    return 0


def _deconvnet(model, args: argparse.Namespace) -> str:
    from cnnkit.commands._image import read_image
    from cnnkit.figures import draw_projection
    from cnnkit.visualize import deconvnet

    image = read_image(args.image, model.input_shape[1])
    [result] = deconvnet(model, image, args.layer, args.unit, rule=args.rule)
    _check_fires(result, args)
    draw_projection(image, result, args.output)
    return _said(result)


def _stack(model, args: argparse.Namespace) -> str:
    import numpy as np

    from cnnkit.commands._image import read_image
    from cnnkit.figures import draw_stack
    from cnnkit.visualize import climb, deconvnet

    image = read_image(args.image, model.input_shape[1])
    [result] = deconvnet(model, image, args.layer, args.unit)
    _check_fires(result, args)
    steps = climb(model, image[None], args.layer)
    signal = np.zeros_like(steps[-1].above)
    signal[(0, *result.position, result.unit)] = 1
    draw_stack(steps, signal, args.output)
    return _said(result)


def _rules(model, args: argparse.Namespace) -> str:
    from cnnkit.commands._image import read_image
    from cnnkit.figures import draw_rules
    from cnnkit.visualize import deconvnet

    image = read_image(args.image, model.input_shape[1])
    rows = []
    for layer in args.layer:
        [first] = deconvnet(model, image, layer)
        _check_fires(first, args)
        others = (
            deconvnet(model, image, layer, first.unit, first.position or None, rule=rule)[0]
            for rule in ("guided", "gradient")
        )
        rows.append([first, *others])
    draw_rules(image, rows, args.output)
    return "; ".join(_said(row[0]) for row in rows)


def _top9(model, args: argparse.Namespace) -> str:
    from cnnkit.data import load_source
    from cnnkit.figures import draw_top9
    from cnnkit.visualize import top9

    splits = load_source(args.dataset).splits
    if args.split not in splits:
        raise unknown_name("split", args.split, splits)
    found = top9(
        model, splits[args.split], [args.layer], units=args.unit, image_size=args.image_size
    )
    tops = found[args.layer]
    draw_top9(tops, args.output)
    dead = sum(not top.projections for top in tops)
    return f"{len(tops)} units of {args.layer} over {len(splits[args.split])} images, {dead} dead"


def _check_fires(result, args: argparse.Namespace) -> None:
    if result.activation == 0 or not result.projection.any():
        raise DataError(
            f"Unit {result.unit} of {result.layer} does not fire on {args.image}",
            hint="Leave --unit out to take the strongest one",
        )


def _said(result) -> str:
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
