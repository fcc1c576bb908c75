"""The gradients of a convolution in fewer products: Winograd's minimal filtering.

A row of m results of a filter of r weights is a part of a product of two polynomials, and n = m+r-1
points determine it: the polynomials' values there are multiplied, n products instead of m*r, and in
two dimensions n*n instead of m*m*r*r (Winograd, Arithmetic Complexity of Computations, 1980; Lavin
& Gray 2016, "Fast Algorithms for Convolutional Neural Networks"). Values are weighted sums: with
U = B x of a tile of the images, V = G w of the filters and D = A dy of the signal for the results,
the results are A' (U V), and so the gradients are B' (D V') and G' (U' D), where ' transposes.

Over all channels the products at a point are one of matrices, which is what a CPU does best. The
sums run over whole rows and columns of the map, tiles, overlap and padding included: they are
products with small matrices too, as fast as memory is.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Beside infinity, in this order: few digits are lost where points lie near each other and 1, each
# with the negative of its inverse.
_POINTS = (0, 1, -1, 1 / 2, -2, 2, -1 / 2)
_FEWEST = 6
# Bytes of U and D that are made at a time: more leaves every cache, less reads V too often.
_BYTES = 2**26


def winograd_gradients(images, kernel, signal):
    """Returns the two gradients of a convolution with stride 1 and padding `"same"`.

    In float32 they differ from the exact ones by 2e-6 to 6e-6 of their root mean square, oneDNN's
    by 0.5e-6 to 3e-6.

    Args:
        images: (n, h, w, c), what was convolved.
        kernel: (size, size, c, filters), size odd, from 3 to 7.
        signal: (n, h, w, filters), the gradient for what came out.

    Returns:
        (n, h, w, c) and (size, size, c, filters), of the dtype of the images.

    Example:
        >>> maps = tf.ones((1, 4, 4, 1))
        >>> for_images, for_kernel = winograd_gradients(maps, tf.ones((3, 3, 1, 1)), maps)
        >>> for_kernel.numpy()[:, :, 0, 0].round(4).tolist()
        [[9.0, 12.0, 9.0], [12.0, 16.0, 12.0], [9.0, 12.0, 9.0]]
    """
    count, height, width, channels = images.shape
    size, _, _, filters = kernel.shape
    points = winograd_points(height, width, size)
    a, g, b = _of_tile(size, points)
    axes = [_of_axis(length, a, b) for length in (height, width)]
    of_images, of_signal = zip(*axes, strict=True)
    of_kernel = np.kron(g, g)
    # Values of what has been there since the forward pass must not be made, and held, from then on.
    with tf.control_dependencies([signal]):
        images, kernel = tf.identity(images), tf.identity(kernel)
    weights = tf.reshape(kernel, (size * size, channels * filters))
    v = tf.reshape(_times(of_kernel, weights), (points * points, channels, filters))
    cells = len(of_images[0]) * len(of_images[1])
    at_a_time = max(1, _BYTES // (images.dtype.size * cells * (channels + filters)))
    for_images, for_v = [], []
    for i in range(0, count, at_a_time):
        u = _at_points(of_images, images[i : i + at_a_time], points)
        d = _at_points(of_signal, signal[i : i + at_a_time], points)
        for_images.append(_from_points(of_images, tf.matmul(d, v, transpose_b=True), points))
        for_v.append(tf.matmul(u, d, transpose_a=True))
    for_v = tf.reshape(tf.add_n(for_v), (points * points, channels * filters))
    for_kernel = tf.reshape(_times(of_kernel.T, for_v), kernel.shape)
    return tf.concat(for_images, 0), for_kernel


def winograd_points(height: int, width: int, size: int) -> int:
    """Returns the points to a tile and axis, infinity included, that need the fewest values.

    Example:
        >>> winograd_points(13, 13, 3)  # three tiles of 5 results
        7
    """

    def values(points: int) -> int:
        tile = points - size + 1
        return points * points * -(-height // tile) * -(-width // tile)

    return min(range(max(_FEWEST, size + 1), len(_POINTS) + 2), key=values)


def _of_tile(size: int, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns A, G and B for one tile of one axis.

    (points, points - size + 1), (points, size) and (points, points).
    """
    finite = np.array(_POINTS[: points - 1])
    others = [np.delete(finite, i) for i in range(points - 1)]
    a = np.vander(finite, points - size + 1, increasing=True)
    g = np.vander(finite, size, increasing=True)
    g /= [[np.prod(point - rest)] for point, rest in zip(finite, others, strict=True)]
    b = np.array([np.append(np.poly(rest)[::-1], 0) for rest in others])
    # At infinity a polynomial is its highest coefficient.
    a, g = (np.vstack([rows, np.eye(rows.shape[1])[-1]]) for rows in (a, g))
    b = np.vstack([b, np.poly(finite)[::-1]])
    return a, g, b


def _of_axis(length: int, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns B and A for an axis of the map, (points * tiles, length) each, from a tile's."""
    points, tile = a.shape
    half = (points - tile) // 2
    tiles = -(-length // tile)
    of_images = np.zeros((points, tiles, tiles * tile + 2 * half))
    of_signal = np.zeros((points, tiles, tiles * tile))
    for i in range(tiles):
        of_images[:, i, i * tile : i * tile + points] = b
        of_signal[:, i, i * tile : (i + 1) * tile] = a
    # What is beyond the map is zero, and needs no columns.
    of_images, of_signal = of_images[..., half : half + length], of_signal[..., :length]
    return of_images.reshape(-1, length), of_signal.reshape(-1, length)


def _at_points(matrices, maps, points: int):
    """Returns the values of maps (n, h, w, c): (points^2, tiles^2 * n, c)."""
    rows, columns = matrices
    count, height, width, channels = maps.shape
    # Images innermost beside the channels: every sum then runs over long pieces of memory.
    maps = tf.reshape(tf.transpose(maps, (1, 2, 0, 3)), (height, -1))
    maps = tf.reshape(_times(rows, maps), (len(rows), width, count * channels))
    tiles, across = len(rows) // points, len(columns) // points
    values = tf.reshape(_times(columns, maps), (points, tiles, points, -1))
    values = tf.transpose(values, (0, 2, 1, 3))
    return tf.reshape(values, (points * points, tiles * across * count, channels))


def _from_points(matrices, values, points: int):
    """Returns what the transpose of `_at_points` makes of values."""
    rows, columns = matrices
    (down, height), (across, width) = rows.shape, columns.shape
    channels = values.shape[-1]
    count = values.shape[1] * points * points // (down * across)
    values = tf.reshape(values, (points, points, down // points, -1))
    values = tf.transpose(values, (0, 2, 1, 3))
    maps = _times(columns.T, tf.reshape(values, (down, across, count * channels)))
    maps = _times(rows.T, tf.reshape(maps, (down, -1)))
    return tf.transpose(tf.reshape(maps, (height, width, count, channels)), (2, 0, 1, 3))


def _times(matrix: np.ndarray, x):
    return tf.matmul(tf.constant(matrix, x.dtype), x)
