"""Pictures of a unit: one file holds its nine patches and, to the right, their projections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit._pixels import CLIP_FRACTION, as_rgb, center_on_gray
from cnnkit.models.receptive_field import Box
from cnnkit.reports.microscope.site_folder import write_quickly
from cnnkit.visualize.top9 import UnitExamples

# Pixels of a side of a tile: larger patches are reduced.
TILE = 128
# Below this side a tile is stored as it is: the browser enlarges it.
SMALL = 16
# Below this side each pixel is stored as a square of four.
SHARP = 48
ROWS = 3
# Level of the lines between tiles, and of missing tiles.
LINE = 225
# The largest file of a unit's pictures, and the qualities of JPEG that are tried for it.
MOST_BYTES = 18_000
QUALITIES = (80, 65, 50, 35)
# Side of the whole images that the receptive fields are drawn on.
WHOLE = 96
WHOLE_BYTES = 6_000
OUTLINE = (255, 60, 0)


def write_unit_pictures(
    folder: Path, name: str, top: UnitExamples, images: Mapping[int, np.ndarray]
) -> tuple[str, str | None]:
    """Write the pictures of a unit that fires.

    Args:
        folder: The folder of its layer.
        name: Beginning of the names of the files.
        top: The unit's strongest images.
        images: The images, (h, w, c) in 0..255, by their indices.

    Returns:
        The name of the file of patches and projections, and that of the whole images with the
        receptive fields, or None if a field is the whole image.
    """
    height, width = top.projections[0].projection.shape[:2]
    is_whole = top.patches.shape[1] >= height or top.patches.shape[2] >= width
    patches, projections = [], []
    for result, patch in zip(top.projections, top.patches, strict=True):
        image = images[result.image] if is_whole else patch
        field = result.projection if is_whole else _cut(result.projection, result.unclipped)
        patches.append(_tile(as_rgb(image)))
        projections.append(_tile(center_on_gray(field, clip_fraction=CLIP_FRACTION)))
    picture = np.concatenate([_square(patches), _square(projections)], axis=1)
    ending, data = _encode(picture, MOST_BYTES, lossless=len(patches[0]) <= SMALL)
    write_quickly(folder / f"{name}{ending}", data)
    if is_whole:
        return f"{name}{ending}", None
    outlined = [_outline(as_rgb(images[one.image]), one.box) for one in top.projections]
    ending_of_whole, data = _encode(_square(outlined), WHOLE_BYTES)
    write_quickly(folder / f"{name}-where{ending_of_whole}", data)
    return f"{name}{ending}", f"{name}-where{ending_of_whole}"


def write_rule_pictures(folder: Path, name: str, top: UnitExamples, rule: str) -> str:
    """Write the projections of a unit by another backward rule, and return the name of the file.

    Args:
        folder: The folder of its layer.
        name: Beginning of the name of the file.
        top: The unit's projections by the rule.
        rule: The rule.
    """
    height, width = top.projections[0].projection.shape[:2]
    is_whole = top.patches.shape[1] >= height or top.patches.shape[2] >= width
    tiles = [
        _tile(
            center_on_gray(
                one.projection if is_whole else _cut(one.projection, one.unclipped),
                clip_fraction=CLIP_FRACTION,
            )
        )
        for one in top.projections
    ]
    ending, data = _encode(_square(tiles), MOST_BYTES // 2, lossless=len(tiles[0]) <= SMALL)
    write_quickly(folder / f"{name}-{rule}{ending}", data)
    return f"{name}-{rule}{ending}"


def write_thumbnail(folder: Path, name: str, image: np.ndarray) -> str:
    """Write a small copy of an image, (h, w, c) in 0..255, and return the name of the file."""
    return write_picture(folder, name, as_rgb(image), WHOLE, WHOLE_BYTES)


def write_picture(
    folder: Path, name: str, pixels: np.ndarray, side: int, most: int = MOST_BYTES
) -> str:
    """Write one picture, and return the name of the file.

    Args:
        folder: Its folder.
        name: Its name without the ending.
        pixels: (h, w, 3) in 0..1.
        side: The longer side, at most; a larger picture is reduced.
        most: Bytes of the file, at most.
    """
    reduced = _resize(pixels, side) if max(pixels.shape[:2]) > side else _bytes(pixels)
    ending, data = _encode(reduced, most, lossless=max(reduced.shape[:2]) < WHOLE)
    write_quickly(folder / f"{name}{ending}", data)
    return f"{name}{ending}"


def write_kernel(folder: Path, name: str, kernel: np.ndarray) -> str:
    """Write the kernel of a unit, (h, w, c), and return the name of the file."""
    pixels = np.rint(255 * center_on_gray(kernel)).astype(np.uint8)
    write_quickly(folder / f"{name}-kernel.png", tf.io.encode_png(pixels).numpy())
    return f"{name}-kernel.png"


def _cut(projection: np.ndarray, box: Box) -> np.ndarray:
    """Return the pixels of a projection in a box, zero beyond the border of the image."""
    sides = box.bottom - box.top, box.right - box.left
    cut = np.zeros((*sides, projection.shape[2]), np.float32)
    rows = slice(max(box.top, 0), min(box.bottom, projection.shape[0]))
    columns = slice(max(box.left, 0), min(box.right, projection.shape[1]))
    cut[
        rows.start - box.top : rows.stop - box.top,
        columns.start - box.left : columns.stop - box.left,
    ] = projection[rows, columns]
    return cut


def _tile(pixels: np.ndarray) -> np.ndarray:
    """Return pixels in 0..1 as a tile, uint8: reduced to `TILE`, or small ones enlarged."""
    side = max(pixels.shape[:2])
    if side > TILE:
        return _resize(pixels, TILE)
    # JPEG halves the resolution of color.
    repeat = 2 if SMALL < side < SHARP else 1
    return _bytes(np.repeat(np.repeat(pixels, repeat, axis=0), repeat, axis=1))


def _resize(pixels: np.ndarray, side: int) -> np.ndarray:
    sides = [max(1, round(one * side / max(pixels.shape[:2]))) for one in pixels.shape[:2]]
    return _bytes(tf.image.resize(pixels, sides, method="bicubic", antialias=True).numpy())


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(255 * np.clip(pixels, 0, 1)), np.uint8)


def _square(tiles: list[np.ndarray]) -> np.ndarray:
    """Return tiles row by row in a square, which is empty where there are fewer than nine."""
    height, width, _ = tiles[0].shape
    # A line between tiles, which is no part of them.
    gap = max(1, round(height / 40))
    grid = np.full((ROWS * (height + gap), ROWS * (width + gap), 3), LINE, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, ROWS)
        top, left = row * (height + gap), column * (width + gap)
        grid[top : top + height, left : left + width] = tile
    return grid


def _outline(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Return an image reduced to `WHOLE`, with a box drawn around the receptive field."""
    scale = WHOLE / max(pixels.shape[:2])
    small = _resize(pixels, WHOLE)
    last = small.shape[0] - 1, small.shape[1] - 1
    top, left = int(box.top * scale), int(box.left * scale)
    bottom = min(max(int(np.ceil(box.bottom * scale)) - 1, top + 1), last[0])
    right = min(max(int(np.ceil(box.right * scale)) - 1, left + 1), last[1])
    small[[top, bottom], left : right + 1] = OUTLINE
    small[top : bottom + 1, [left, right]] = OUTLINE
    return small


def _encode(pixels: np.ndarray, most: int, *, lossless: bool = False) -> tuple[str, bytes]:
    """Return the ending and the content of a JPEG of at most `most` bytes, or of a PNG."""
    if lossless:
        return ".png", bytes(tf.io.encode_png(pixels, compression=9).numpy())
    for quality in QUALITIES:
        data = bytes(tf.io.encode_jpeg(pixels, quality=quality, optimize_size=True).numpy())
        if len(data) <= most:
            return ".jpg", data
    return _encode(_resize(pixels / 255, max(pixels.shape[:2]) * 3 // 4), most)
