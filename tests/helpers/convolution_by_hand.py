"""Gradients of a convolution as sums in NumPy."""

import numpy as np


def both_gradients(images, kernel, output_gradient):
    """Return those of the images and of the kernel, for stride 1 and padding `"same"`."""
    size, (_, height, width, _) = len(kernel), images.shape
    half = size // 2
    padded = np.pad(images, [(0, 0), (half, half), (half, half), (0, 0)])
    padded_gradient, kernel_gradient = np.zeros_like(padded), np.empty_like(kernel)
    for row, column in np.ndindex(size, size):
        window = np.s_[:, row : row + height, column : column + width]
        kernel_gradient[row, column] = np.einsum("nhwc,nhwf->cf", padded[window], output_gradient)
        padded_gradient[window] += output_gradient @ kernel[row, column].T
    return padded_gradient[:, half : half + height, half : half + width], kernel_gradient
