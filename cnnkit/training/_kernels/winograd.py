"""Gradients of a convolution in fewer multiplications: Winograd's minimal filtering.

A row of m outputs of a filter of r weights is part of a product of two polynomials, which its
values at n = m+r-1 points determine. Multiplying the polynomials' values there takes n products
instead of m*r, and in two dimensions n*n instead of m*m*r*r (Winograd, Arithmetic Complexity of
Computations, 1980; Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks"). The
values are weighted sums: with U = B x of a tile of the images, V = G w of the filters and D = A dy
of the output gradient, the outputs are A' (U V), and so the gradients are B' (D V') and G' (U' D),
where ' transposes.

Over all channels, the products at a point form one product of matrices, the fastest operation of a
CPU. The sums run over whole rows and columns of the map, including tiles, overlap and padding: they
are products with small matrices too, limited by the memory bandwidth.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Points in the order of their use, in addition to infinity. Few digits are lost if points lie near
# 1 and each other, each together with the negative of its inverse.
_POINTS = (0, 1, -1, 1 / 2, -2, 2, -1 / 2)
_FEWEST = 6
# Bytes of U and D that are computed at a time: more leaves every cache, less reads V too often.
_BYTES = 2**26


def winograd_gradients(
    images: tf.Tensor, kernel: tf.Tensor, output_gradient: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return both gradients of a convolution with stride 1 and padding `"same"`.

    In float32 they differ from the exact ones by 2e-6 to 6e-6 of their root mean square, oneDNN's
    by 0.5e-6 to 3e-6.

    Args:
        images: (n, h, w, c), the input of the convolution.
        kernel: (size, size, c, filters), size odd, from 3 to 7.
        output_gradient: (n, h, w, filters), the gradient of the loss for its output.

    Returns:
        The gradient of the images, (n, h, w, c), and of the kernel, (size, size, c, filters), in
        the dtype of the images.

    Example:
        >>> maps = tf.ones((1, 4, 4, 1))
        >>> _, kernel_gradient = winograd_gradients(maps, tf.ones((3, 3, 1, 1)), maps)
        >>> kernel_gradient.numpy()[:, :, 0, 0].round(4).tolist()
        [[9.0, 12.0, 9.0], [12.0, 16.0, 12.0], [9.0, 12.0, 9.0]]
    """
    count, height, width, channels = images.shape
    size, _, _, filters = kernel.shape
    points = winograd_points(height, width, size)
    a, g, b = _tile_matrices(size, points)
    axes = [_axis_matrices(length, a, b) for length in (height, width)]
    image_matrices, output_matrices = zip(*axes, strict=True)
    kernel_matrix = np.kron(g, g)
    # Without this dependency, TensorFlow may transform images and kernel right after the forward
    # pass and hold the values until the backward pass.
    with tf.control_dependencies([output_gradient]):
        images, kernel = tf.identity(images), tf.identity(kernel)
    weights = tf.reshape(kernel, (size * size, channels * filters))
    v = tf.reshape(_times(kernel_matrix, weights), (points * points, channels, filters))
    cells = len(image_matrices[0]) * len(image_matrices[1])
    at_a_time = max(1, _BYTES // (images.dtype.size * cells * (channels + filters)))
    image_gradients, v_gradients = [], []
    for i in range(0, count, at_a_time):
        u = _at_points(image_matrices, images[i : i + at_a_time], points)
        d = _at_points(output_matrices, output_gradient[i : i + at_a_time], points)
        values = tf.matmul(d, v, transpose_b=True)
        image_gradients.append(_from_points(image_matrices, values, points))
        v_gradients.append(tf.matmul(u, d, transpose_a=True))
    v_gradient = tf.reshape(tf.add_n(v_gradients), (points * points, channels * filters))
    kernel_gradient = tf.reshape(_times(kernel_matrix.T, v_gradient), kernel.shape)
    return tf.concat(image_gradients, 0), kernel_gradient


def winograd_points(height: int, width: int, size: int) -> int:
    """Return the number of points per tile and axis, with infinity, that needs the fewest values.

    Example:
        >>> winograd_points(13, 13, 3)  # three tiles of 5 outputs
        7
    """

    def values(points: int) -> int:
        tile = points - size + 1
        return points * points * -(-height // tile) * -(-width // tile)

    return min(range(max(_FEWEST, size + 1), len(_POINTS) + 2), key=values)


def _tile_matrices(size: int, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A, G and B for one tile of one axis.

    Their shapes are (points, points - size + 1), (points, size) and (points, points).
    """
    finite = np.array(_POINTS[: points - 1])
    others = [np.delete(finite, i) for i in range(points - 1)]
    a = np.vander(finite, points - size + 1, increasing=True)
    g = np.vander(finite, size, increasing=True)
    g /= [[np.prod(point - rest)] for point, rest in zip(finite, others, strict=True)]
    b = np.array([np.append(np.poly(rest)[::-1], 0) for rest in others])
    # The value of a polynomial at infinity is its highest coefficient.
    a, g = (np.vstack([rows, np.eye(rows.shape[1])[-1]]) for rows in (a, g))
    b = np.vstack([b, np.poly(finite)[::-1]])
    return a, g, b


def _axis_matrices(length: int, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return B and A of a map's axis, (points * tiles, length) each, from those of a tile."""
    points, tile = a.shape
    half = (points - tile) // 2
    tiles = -(-length // tile)
    for_images = np.zeros((points, tiles, tiles * tile + 2 * half))
    for_outputs = np.zeros((points, tiles, tiles * tile))
    for i in range(tiles):
        for_images[:, i, i * tile : i * tile + points] = b
        for_outputs[:, i, i * tile : (i + 1) * tile] = a
    # Positions beyond the map are zero and need no columns.
    for_images, for_outputs = for_images[..., half : half + length], for_outputs[..., :length]
    return for_images.reshape(-1, length), for_outputs.reshape(-1, length)


def _at_points(matrices: tuple[np.ndarray, np.ndarray], maps: tf.Tensor, points: int) -> tf.Tensor:
    """Return the values at the points, (points^2, tiles^2 * n, c), of maps (n, h, w, c)."""
    rows, columns = matrices
    count, height, width, channels = maps.shape
    # Images and channels innermost: every sum then runs over long contiguous memory.
    maps = tf.reshape(tf.transpose(maps, (1, 2, 0, 3)), (height, -1))
    maps = tf.reshape(_times(rows, maps), (len(rows), width, count * channels))
    tiles, across = len(rows) // points, len(columns) // points
    values = tf.reshape(_times(columns, maps), (points, tiles, points, -1))
    values = tf.transpose(values, (0, 2, 1, 3))
    return tf.reshape(values, (points * points, tiles * across * count, channels))


def _from_points(
    matrices: tuple[np.ndarray, np.ndarray], values: tf.Tensor, points: int
) -> tf.Tensor:
    """Apply the transpose of `_at_points` to values (points^2, tiles^2 * n, c)."""
    rows, columns = matrices
    (down, height), (across, width) = rows.shape, columns.shape
    channels = values.shape[-1]
    count = values.shape[1] * points * points // (down * across)
    values = tf.reshape(values, (points, points, down // points, -1))
    values = tf.transpose(values, (0, 2, 1, 3))
    maps = _times(columns.T, tf.reshape(values, (down, across, count * channels)))
    maps = _times(rows.T, tf.reshape(maps, (down, -1)))
    return tf.transpose(tf.reshape(maps, (height, width, count, channels)), (2, 0, 1, 3))


def _times(matrix: np.ndarray, x: tf.Tensor) -> tf.Tensor:
    return tf.matmul(tf.constant(matrix, x.dtype), x)
