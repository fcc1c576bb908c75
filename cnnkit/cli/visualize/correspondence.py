"""Whether the same parts of different objects matter alike.

Hides a part in every image and compares how the features change (Zeiler & Fergus 2013, Fig. 8 and
Table 1). PARTS is a JSON file, its images beside it:

    [{"image": "dog1.jpg", "parts": {"nose": [top, left, bottom, right], ...}}, ...]

Boxes are in pixels of the image file; bottom and right are the first row and column outside.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.visualize.figure import Figure
from cnnkit.errors import DataError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_network_arguments(parser)
    parser.add_argument("parts", metavar="PARTS", help="JSON file of images and boxes")
    parser.add_argument("--layer", required=True, nargs="+", help="for example conv5 fc7")
    parser.add_argument("--fill", type=float, default=128, help="what hides a part (default 128)")
    parser.add_argument("--draws", type=int, default=10, help="random places (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the random places (default 0)")
    parser.add_argument("--image-size", type=int, help="for a network of no fixed size")


def draw(args: argparse.Namespace) -> Figure:
    """Hides, compares and draws."""
    from cnnkit.figures import draw_correspondence
    from cnnkit.visualize import correspondence

    model = load_from_arguments(args).model
    size = args.image_size or model.input_shape[1]
    if size is None:
        raise UsageError("The network takes images of any size", expected="--image-size PIXELS")
    images, boxes = read_object_parts(Path(args.parts), size)
    found = correspondence(
        model, images, boxes, args.layer, fill=args.fill, draws=args.draws, seed=args.seed
    )
    draw_correspondence(images, boxes, found, args.output, fill=args.fill)
    facts = {
        layer: {
            part: {
                "mean": one.mean(part),
                "deviation": one.std(part),
                "sum": one.delta(part),
                "unchanged": unchanged,
            }
            for part, unchanged in zip(one.parts, one.unchanged, strict=True)
        }
        for layer, one in found.items()
    }
    return Figure(
        "; ".join(
            f"{layer}: " + ", ".join(f"{part} {values['mean']:.3f}" for part, values in of.items())
            for layer, of in facts.items()
        ),
        {
            "images": len(images), "fill": args.fill, "draws": args.draws, "seed": args.seed,
            "layers": facts,
        },
        {
            f"{layer}_{part}": values
            for layer, one in found.items()
            for part, values in zip(one.parts, one.distances, strict=True)
        },
    )  # fmt: skip


def read_object_parts(file: Path, size: int):
    """Returns the images as the network sees them, and the boxes of each part in them.

    Raises:
        UsageError: If there is no such file.
        DataError: If it is none of its kind, or a part lies where the network does not see it.
    """
    import tensorflow as tf

    from cnnkit.cli.read_image import read_image
    from cnnkit.data import Augmentation
    from cnnkit.data.crops import crop_window
    from cnnkit.visualize import Box

    if not file.is_file():
        raise UsageError(f"No file {file}", expected="a JSON file of images and their parts")
    try:
        entries = [
            (entry["image"], {part: np.array(box, float) for part, box in entry["parts"].items()})
            for entry in json.loads(file.read_text())
        ]
        broken = any(box.shape != (4,) for _, parts in entries for box in parts.values())
    except (ValueError, TypeError, KeyError, AttributeError):
        broken = True
    if broken:
        raise DataError(
            f"{file} does not hold images and their parts",
            expected='[{"image": "NAME", "parts": {"nose": [top, left, bottom, right]}}]',
        )
    images, boxes = [], {name: [] for name in (entries[0][1] if entries else {})}
    for name, parts in entries:
        if set(parts) != set(boxes):
            raise DataError(
                f"Image {name} has other parts than the first one",
                expected=", ".join(boxes),
                received=", ".join(parts),
            )
        path = str(file.parent / name)
        images.append(read_image(path, size))
        sides = np.array(read_image(path, None).shape[:2])
        scaled, offset = crop_window(tf.constant(sides, tf.int32), Augmentation(size), {})
        for part, box in parts.items():
            corners = np.reshape(box, (2, 2)) * scaled.numpy() / sides - offset.numpy()
            corners = np.rint(corners).astype(int)
            # A part that was cut in two would be another part.
            if not (corners >= 0).all() or not (corners <= size).all():
                first = np.ceil(offset.numpy() * sides / scaled.numpy()).astype(int)
                last = ((offset.numpy() + size) * sides / scaled.numpy()).astype(int)
                square = " ".join(map(str, (*first, *last)))
                raise DataError(
                    f"Part {part!r} of {name} is not in the square that the network sees",
                    expected=f"within {square} of the file's pixels",
                    received=" ".join(f"{corner:g}" for corner in box),
                )
            boxes[part].append(Box(*corners.ravel().tolist()))
    return np.stack(images) if images else np.zeros((0, size, size, 3)), boxes
