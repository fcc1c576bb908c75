"""Correspondence figure: features of several images while the same part is hidden in each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.picture import picture_options
from cnnkit.cli.values import COUNT, LEVEL, SEED, input_file
from cnnkit.cli.visualize.figure import Figure, FigureCommand, add_image_size_argument
from cnnkit.errors import DataError, UsageError

# Largest coordinate of a part in an image file.
MAX_PIXEL = 1_000_000

if TYPE_CHECKING:
    from cnnkit.visualize import Box


def add_correspondence_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the figure."""
    add_network_arguments(parser)
    parser.add_argument(
        "parts", metavar="PARTS", type=input_file, help="JSON file of images and boxes"
    )
    parser.add_argument("--layer", required=True, nargs="+", help="for example conv5 fc7")
    parser.add_argument(
        "--fill", type=LEVEL, default=128, help="gray that hides a part (default 128)"
    )
    parser.add_argument("--draws", type=COUNT, default=10, help="random positions (default 10)")
    parser.add_argument("--seed", type=SEED, default=0, help="of the random positions (default 0)")
    add_image_size_argument(parser)


def draw_correspondence_figure(args: argparse.Namespace) -> Figure:
    """Hide each part, compare the features and draw them."""
    from cnnkit.figures import draw_correspondence
    from cnnkit.visualize import correspondence

    model = load_from_arguments(args).model
    height, width, channels = model.input_shape[1:]
    size = (args.image_size,) * 2 if args.image_size else (height, width)
    if None in size:
        raise UsageError(
            f"--image-size must be given: {args.network} takes images of any size",
            expected="--image-size PIXELS",
        )
    images, boxes = read_object_parts(Path(args.parts), size, channels)
    found = correspondence(
        model, images, boxes, args.layer, fill=args.fill, draws=args.draws, seed=args.seed
    )
    draw_correspondence(images, boxes, found, args.output, fill=args.fill, **picture_options(args))
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


def read_object_parts(
    file: Path, size: int | Sequence[int], channels: int = 3
) -> tuple[np.ndarray, dict[str, list[Box]]]:
    """Read a JSON file of images and their parts.

    Args:
        file: The JSON file; its images are named relative to its folder.
        size: Side of the images that the network takes, in pixels, or (height, width).
        channels: 3 for RGB, 1 for gray.

    Returns:
        The images, (n, height, width, channels) float32 in 0..255, and for each part its box in
        every image, in pixels of these.

    Raises:
        DataError: If it does not have this content, or a part is outside the center crop.
    """
    from cnnkit.cli.read_image import center_window, read_image

    window = np.broadcast_to(size, 2)
    entries = _read_entries(file)
    images = []
    boxes: dict[str, list[Box]] = {name: [] for name in (entries[0][1] if entries else {})}
    for name, parts in entries:
        if set(parts) != set(boxes):
            raise DataError(
                f"Image {name} must have the same parts as the first image",
                expected=", ".join(boxes),
                received=", ".join(parts),
            )
        path = str(file.parent / name)
        images.append(read_image(path, size, channels))
        sides = np.array(read_image(path, None).shape[:2])
        scaled, offset = center_window(sides, window)
        for part, box in parts.items():
            boxes[part].append(_crop_box(box, sides, scaled, offset, window, f"{part!r} of {name}"))
    return np.stack(images) if images else np.zeros((0, *window, channels)), boxes


def _read_entries(file: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Return the name of each image and the boxes of its parts, in pixels of the image file."""
    try:
        return [
            (entry.text("image"), {part: _read_box(boxes, part) for part in boxes})
            for entry in (JsonFields(one, file) for one in read_json(file))
            for boxes in [entry.fields("parts")]
        ]
    except (DataError, TypeError) as error:
        raise DataError(
            f"{file} must hold images and their parts",
            expected='[{"image": "NAME", "parts": {"nose": [top, left, bottom, right]}}]',
            received=error,
        ) from error


def _read_box(parts: JsonFields, name: str) -> np.ndarray:
    return np.array(parts.numbers(name, minimum=-MAX_PIXEL, maximum=MAX_PIXEL, count=4))


def _crop_box(
    box: np.ndarray,
    sides: np.ndarray,
    scaled: np.ndarray,
    offset: np.ndarray,
    size: np.ndarray,
    name: str,
) -> Box:
    """Return a box of the image file as a box of the center crop.

    Args:
        box: Top, left, bottom and right in pixels of the file.
        sides: Height and width of the file.
        scaled: Height and width of the rescaled image that is cropped.
        offset: Top and left of the crop in the rescaled image.
        size: Height and width of the crop.
        name: Name of the part, for the error.
    """
    from cnnkit.visualize import Box

    corners = np.rint(np.reshape(box, (2, 2)) * scaled / sides - offset).astype(int)
    # A part that the crop cuts in two is refused: hiding the rest of it would be another question.
    if not (corners >= 0).all() or not (corners <= size).all():
        first = np.ceil(offset * sides / scaled).astype(int)
        last = ((offset + size) * sides / scaled).astype(int)
        square = " ".join(map(str, (*first, *last)))
        raise DataError(
            f"Part {name} must be inside the center crop that the network takes",
            expected=f"within {square} of the file's pixels",
            received=" ".join(f"{corner:g}" for corner in box),
        )
    return Box(*corners.ravel().tolist())


CORRESPONDENCE = FigureCommand(
    """Test if the same part of different objects changes the features alike.

Hides a part in every image and compares how the features change (Zeiler & Fergus 2013, Fig. 8 and
Table 1). PARTS is a JSON file, with its images in the same folder:

    [{"image": "dog1.jpg", "parts": {"nose": [top, left, bottom, right], ...}}, ...]

Boxes are in pixels of the image file; bottom and right are the first row and column outside.""",
    add_correspondence_arguments,
    draw_correspondence_figure,
)
